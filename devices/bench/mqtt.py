"""`headrace bench mqtt`: rates from MQTT to MQTT, and what other scenarios share of it (clients joined in a shape)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from devices.bench.checks import ManyPublishersChecker, PublishChecker
from devices.bench.endpoints import Checker, Publisher, Subscriber
from devices.bench.exactly_once import ExactlyOncePublisher, ExactlyOnceSubscriber
from devices.bench.frames import TOPIC_COUNT, PublishBlock, PublishLayout, encode_connect, encode_receive_maximum
from devices.bench.idle import raise_descriptor_limit
from devices.bench.load import Load, LoadResult
from devices.bench.peers import Server
from devices.bench.relay import relaying
from devices.bench.results import Report, Row
from devices.bench.rounds import Plan, contenders, measure_row
from devices.bench.websocket import WebSocketConnection, open_websocket
from devices.bench.wire import RECEIVE_MAXIMUM_DEFAULT, Connack, Connection, expect_connack, open_socket, subscribe

Shape = Literal["fan", "pairs", "gather", "split", "publish"]
WILD_SHARE = 10
"""Every tenth filter of many has a `+` in it."""


@dataclass(frozen=True)
class Scenario:
    """Who publishes to whom."""

    key: str
    title: str
    qos: int
    shape: Shape
    """fan: one to all. pairs: i to i. gather: all to one. split: each topic to one of all. publish: to nobody."""
    publishers: int
    subscribers: int
    window: int
    """Messages a publisher may be ahead of its subscribers, or of its acknowledgements."""
    topic_count: int = TOPIC_COUNT
    level: int = 4
    """4 is MQTT 3.1.1, 5 is MQTT 5."""
    receive_maximum: int | None = None
    """What subscribers say of themselves."""
    is_websocket: bool = False
    is_retained: bool = False
    """Publishes have RETAIN set."""

    def layout(self, plan: Plan, publisher: int = 0) -> PublishLayout:
        prefix = f"bench/{publisher:03d}/" if self.shape == "pairs" else "bench/dev/"
        return PublishLayout(
            qos=self.qos,
            payload_bytes=plan.payload_bytes,
            topic_prefix=prefix,
            topic_count=self.topic_count,
            level=self.level,
            is_retained=self.is_retained,
        )

    def filters(self, layout: PublishLayout, subscriber: int) -> list[str]:
        """What a subscriber subscribes to."""
        if self.shape == "pairs":
            return [f"bench/{subscriber:03d}/#"]
        if self.shape != "split":
            return ["bench/#"]
        topics = [layout.topic(number) for number in range(subscriber, self.topic_count, self.subscribers)]
        return [
            topic if number % WILD_SHARE else topic.replace("/dev/", "/+/", 1) for number, topic in enumerate(topics)
        ]


SCENARIOS: dict[str, Scenario] = {
    scenario.key: scenario
    for scenario in (
        Scenario("q0_1_1", "QoS 0 1→1", 0, "fan", 1, 1, window=10_000),
        Scenario("q0_1_10", "QoS 0 1→10", 0, "fan", 1, 10, window=4_000),
        Scenario("q0_1_100", "QoS 0 1→100", 0, "fan", 1, 100, window=4_000),
        Scenario("q0_1_1000", "QoS 0 1→1000", 0, "fan", 1, 1_000, window=200),
        Scenario("q1_1_1", "QoS 1 1→1", 1, "fan", 1, 1, window=1_000),
        Scenario("q1_1_10", "QoS 1 1→10", 1, "fan", 1, 10, window=1_000),
        Scenario("q1_1_100", "QoS 1 1→100", 1, "fan", 1, 100, window=500),
        Scenario("q2_1_1", "QoS 2 1→1", 2, "fan", 1, 1, window=1_000),
        Scenario("q1_publish", "QoS 1 published, no subscriber", 1, "publish", 1, 0, window=4_000),
        Scenario("q0_100_1", "QoS 0 100→1", 0, "gather", 100, 1, window=200),
        Scenario("q1_100_1", "QoS 1 100→1", 1, "gather", 100, 1, window=100),
        Scenario("q0_pairs", "QoS 0 100 pairs", 0, "pairs", 100, 100, window=100),
        Scenario("q1_pairs", "QoS 1 100 pairs", 1, "pairs", 100, 100, window=100),
        Scenario(
            "q1_v5", "MQTT 5, Receive Maximum 100, QoS 1 1→1", 1, "fan", 1, 1, 1_000, level=5, receive_maximum=100
        ),
        Scenario("q1_ws", "WebSocket, QoS 1 1→1", 1, "fan", 1, 1, window=1_000, is_websocket=True),
        Scenario("topics", "QoS 0, 100 k topics to one #", 0, "fan", 1, 1, window=10_000, topic_count=100_000),
        Scenario("subscriptions", "QoS 0, 100 k subscriptions of 100 clients", 0, "split", 1, 100, 20_000, 100_000),
        Scenario(
            "retained_store",
            "QoS 1 RETAIN over 100 k topics, acknowledged",
            1,
            "publish",
            1,
            0,
            window=4_000,
            topic_count=100_000,
            is_retained=True,
        ),
    )
}
PAIRS = SCENARIOS["q0_pairs"]


def new_subscriber(scenario: Scenario, plan: Plan, number: int, connection: Connection) -> Subscriber:
    """A subscriber on a socket that is ready for its messages."""
    layout = scenario.layout(plan, number)
    name = f"subscriber {number}"
    if scenario.qos == 2:
        return ExactlyOnceSubscriber(connection, name, layout)
    checker: Checker | None = None
    if scenario.shape == "gather":
        checker = ManyPublishersChecker(layout, scenario.publishers, name)
    elif scenario.shape == "split":
        checker = PublishChecker(layout, name, first=number, step=scenario.subscribers)
    return Subscriber(connection, name, layout, checker)


def new_publisher(
    scenario: Scenario, plan: Plan, number: int, connection: Connection, receive_maximum: int = RECEIVE_MAXIMUM_DEFAULT
) -> Publisher:
    """A publisher on a socket that is ready for publishes."""
    window = min(scenario.window, receive_maximum) if scenario.qos else scenario.window
    block = PublishBlock(scenario.layout(plan, number), window // 2, number)
    if scenario.qos == 2:
        return ExactlyOncePublisher(connection, f"publisher {number}", block, window=window)
    return Publisher(connection, f"publisher {number}", block, window=window, is_acked=scenario.qos > 0)


def join(shape: Shape, publishers: Sequence[Publisher], subscribers: Sequence[Subscriber]) -> Load:
    """Tie each publisher's window to those who receive from it."""
    if shape == "split":
        checkers = [subscriber.checker for subscriber in subscribers]
        publishers[0].is_followed_by(partial(_received_of_all, publishers[0], checkers))
        return Load(publishers, subscribers)
    for number, publisher in enumerate(publishers):
        for subscriber in [subscribers[number]] if shape == "pairs" else subscribers:
            checker = subscriber.checker
            if isinstance(checker, ManyPublishersChecker):
                publisher.is_followed_by(partial(checker.received_from, number))
            else:
                publisher.is_followed_by(subscriber.received)
    return Load(publishers, subscribers)


def _received_of_all(publisher: Publisher, checkers: Sequence[Checker]) -> int:
    """Up to which message each has come to the one who is to have it."""
    return min(publisher.sent, *[checker.next_sequence for checker in checkers if isinstance(checker, PublishChecker)])


def connect(
    scenario: Scenario, server: Server, client_id: str, *, receive_maximum: int | None = None
) -> tuple[Connection, Connack]:
    """A client as the scenario has them. Raises: PeerFailed"""
    connection = open_websocket(server.ws_port) if scenario.is_websocket else open_socket(server.mqtt_port)
    properties = b"" if receive_maximum is None else encode_receive_maximum(receive_maximum)
    connection.sendall(encode_connect(client_id, level=scenario.level, properties=properties))
    return connection, expect_connack(connection)


def run_scenario(scenario: Scenario, plan: Plan, server: Server) -> LoadResult:
    """Connect the scenario's clients to a server and load it. Raises: CheckFailed, PeerFailed"""
    subscribers = []
    layout = scenario.layout(plan)
    for number in range(scenario.subscribers):
        client_id = f"bench-subscriber-{number}"
        connection, _ = connect(scenario, server, client_id, receive_maximum=scenario.receive_maximum)
        subscribe(connection, scenario.filters(layout, number), scenario.qos, level=scenario.level)
        subscribers.append(new_subscriber(scenario, plan, number, connection))
    publishers = []
    for number in range(scenario.publishers):
        connection, connack = connect(scenario, server, f"bench-publisher-{number}")
        publishers.append(new_publisher(scenario, plan, number, connection, connack.receive_maximum))
    with contextlib.closing(join(scenario.shape, publishers, subscribers)) as load:
        return load.run(
            warm_up_s=plan.warm_up_s,
            seconds=plan.seconds,
            server_cpu_s=server.cpu_s,
            # Devices come back to their topics: what a server does once for each is not what is measured.
            warm_up_messages=scenario.topic_count * max(1, scenario.subscribers if scenario.shape == "fan" else 1),
        )


def through_relay(scenario: Scenario) -> Scenario:
    """What the generator is held to in a scenario.

    Where nobody subscribes, all send to one or one to each in turn, as many pairs as there are clients: more work for
    the generator than the scenario itself, so the ceiling is not flattered.
    """
    if scenario.shape == "fan":
        return scenario
    count = max(scenario.publishers, scenario.subscribers)
    window = min(scenario.window, PAIRS.window) if scenario.shape == "split" else scenario.window
    return replace(scenario, shape="pairs", publishers=count, subscribers=count, window=window, topic_count=TOPIC_COUNT)


def run_ceiling(scenario: Scenario, plan: Plan) -> LoadResult:
    """The generator's own pace in the scenario, through a relay."""
    scenario = through_relay(scenario)

    def opened(port: int) -> Connection:
        connection = open_socket(port)
        return WebSocketConnection(connection) if scenario.is_websocket else connection

    with relaying(scenario.shape, scenario.publishers, scenario.subscribers) as relay:
        publishers = [
            new_publisher(scenario, plan, number, opened(relay.sender_port)) for number in range(scenario.publishers)
        ]
        subscribers = [
            new_subscriber(scenario, plan, number, opened(relay.receiver_port))
            for number in range(scenario.subscribers)
        ]
        with contextlib.closing(join(scenario.shape, publishers, subscribers)) as load:
            return load.run(warm_up_s=plan.ceiling_s / 4, seconds=plan.ceiling_s, server_cpu_s=relay.cpu_s)


def bench_mqtt(plan: Plan, report: Report, keys: Sequence[str] = tuple(SCENARIOS)) -> None:
    """Measure scenarios into the report; Headrace's topics lie in a `memory` stream."""
    raise_descriptor_limit(max([SCENARIOS[key].subscribers for key in keys], default=0))
    for key in keys:
        scenario = SCENARIOS[key]
        row = report.add_row(Row(key, scenario.title))
        columns = contenders(plan, is_websocket=scenario.is_websocket)
        measure_row(row, plan, columns, partial(run_scenario, scenario, plan), partial(run_ceiling, scenario, plan))
