"""`headrace bench mqtt`: rates from MQTT to MQTT, and what other scenarios share of it (clients joined in a shape)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from devices.bench.checks import ManyPublishersChecker
from devices.bench.endpoints import Publisher, Subscriber
from devices.bench.frames import PublishBlock, PublishLayout
from devices.bench.load import Load, LoadResult
from devices.bench.peers import Server
from devices.bench.relay import relaying
from devices.bench.results import Report, Row
from devices.bench.rounds import Plan, contenders, measure_row
from devices.bench.wire import connect_mqtt, open_socket, subscribe

Shape = Literal["fan", "pairs", "gather", "publish"]


@dataclass(frozen=True)
class Scenario:
    """Who publishes to whom."""

    key: str
    title: str
    qos: int
    shape: Shape
    """fan: one to all. pairs: i to i. gather: all to one. publish: nobody subscribes."""
    publishers: int
    subscribers: int
    window: int
    """Messages a publisher may be ahead of its subscribers, or of its acknowledgements."""

    def layout(self, plan: Plan, publisher: int = 0) -> PublishLayout:
        prefix = f"bench/{publisher:03d}/" if self.shape == "pairs" else "bench/dev/"
        return PublishLayout(qos=self.qos, payload_bytes=plan.payload_bytes, topic_prefix=prefix)


SCENARIOS: dict[str, Scenario] = {
    scenario.key: scenario
    for scenario in (
        Scenario("q0_1_1", "QoS 0 1→1", 0, "fan", 1, 1, window=10_000),
        Scenario("q0_1_10", "QoS 0 1→10", 0, "fan", 1, 10, window=4_000),
        Scenario("q1_1_1", "QoS 1 1→1", 1, "fan", 1, 1, window=1_000),
        Scenario("q1_publish", "QoS 1 published, no subscriber", 1, "publish", 1, 0, window=4_000),
        Scenario("q0_100_1", "QoS 0 100→1", 0, "gather", 100, 1, window=200),
        Scenario("q1_100_1", "QoS 1 100→1", 1, "gather", 100, 1, window=100),
        Scenario("q0_pairs", "QoS 0 100 pairs", 0, "pairs", 100, 100, window=100),
        Scenario("q1_pairs", "QoS 1 100 pairs", 1, "pairs", 100, 100, window=100),
    )
}
DEFAULT_KEYS = ("q0_1_1", "q0_1_10", "q1_1_1")


def new_subscriber(scenario: Scenario, plan: Plan, number: int, connection: socket.socket) -> Subscriber:
    """A subscriber on a socket that is ready for its messages."""
    layout = scenario.layout(plan, number)
    name = f"subscriber {number}"
    checker = ManyPublishersChecker(layout, scenario.publishers, name) if scenario.shape == "gather" else None
    return Subscriber(connection, name, layout, checker)


def new_publisher(scenario: Scenario, plan: Plan, number: int, connection: socket.socket) -> Publisher:
    """A publisher on a socket that is ready for publishes."""
    block = PublishBlock(scenario.layout(plan, number), scenario.window // 2, number)
    return Publisher(connection, f"publisher {number}", block, window=scenario.window, is_acked=scenario.qos > 0)


def join(shape: Shape, publishers: Sequence[Publisher], subscribers: Sequence[Subscriber]) -> Load:
    """Tie each publisher's window to those who receive from it."""
    for number, publisher in enumerate(publishers):
        for subscriber in [subscribers[number]] if shape == "pairs" else subscribers:
            checker = subscriber.checker
            if isinstance(checker, ManyPublishersChecker):
                publisher.is_followed_by(partial(checker.received_from, number))
            else:
                publisher.is_followed_by(subscriber.received)
    return Load(publishers, subscribers)


def run_scenario(scenario: Scenario, plan: Plan, server: Server) -> LoadResult:
    """Connect the scenario's clients to a server and load it. Raises: CheckFailed, PeerFailed"""
    subscribers = []
    for number in range(scenario.subscribers):
        connection = connect_mqtt(server.mqtt_port, f"bench-subscriber-{number}")
        subscribe(connection, f"bench/{number:03d}/#" if scenario.shape == "pairs" else "bench/#", scenario.qos)
        subscribers.append(new_subscriber(scenario, plan, number, connection))
    publishers = [
        new_publisher(scenario, plan, number, connect_mqtt(server.mqtt_port, f"bench-publisher-{number}"))
        for number in range(scenario.publishers)
    ]
    with contextlib.closing(join(scenario.shape, publishers, subscribers)) as load:
        return load.run(warm_up_s=plan.warm_up_s, seconds=plan.seconds, server_cpu_s=server.cpu_s)


def run_ceiling(scenario: Scenario, plan: Plan) -> LoadResult:
    """The generator's own pace in the scenario, through a relay.

    Where nobody subscribes, or all send to one, each publisher gets a subscriber of its own: more work for the
    generator than the scenario itself, so the ceiling is not flattered.
    """
    through_relay = scenario
    if scenario.shape != "fan":
        through_relay = replace(scenario, shape="pairs", subscribers=scenario.publishers)
    with relaying(through_relay.shape, through_relay.publishers, through_relay.subscribers) as relay:
        publishers = [
            new_publisher(through_relay, plan, number, open_socket(relay.sender_port))
            for number in range(through_relay.publishers)
        ]
        subscribers = [
            new_subscriber(through_relay, plan, number, open_socket(relay.receiver_port))
            for number in range(through_relay.subscribers)
        ]
        with contextlib.closing(join(through_relay.shape, publishers, subscribers)) as load:
            return load.run(warm_up_s=plan.ceiling_s / 4, seconds=plan.ceiling_s, server_cpu_s=relay.cpu_s)


def bench_mqtt(plan: Plan, report: Report, keys: Sequence[str] = DEFAULT_KEYS) -> None:
    """Measure scenarios into the report; Headrace's topics lie in a `memory` stream."""
    for key in keys:
        scenario = SCENARIOS[key]
        row = report.add_row(Row(key, scenario.title))
        measure_row(
            row, plan, contenders(plan), partial(run_scenario, scenario, plan), partial(run_ceiling, scenario, plan)
        )
