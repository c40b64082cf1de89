"""`headrace bench mqtt --only delivery`: how long a QoS 0 message takes from publisher to subscriber at a steady rate.

The generator is a part of every figure, so what it takes through a relay that parses nothing stands beside them.
"""

from __future__ import annotations

import contextlib

from devices.bench.checks import CheckFailed
from devices.bench.latency import Latency, run_delivered
from devices.bench.mqtt import SCENARIOS, new_publisher, new_subscriber
from devices.bench.peers import HEADRACE, PEERS, Server, running
from devices.bench.relay import relaying
from devices.bench.results import LATE_SUFFIX, Report
from devices.bench.rounds import Plan
from devices.bench.wire import PeerFailed, connect_mqtt, open_socket, subscribe

KEY = "delivery"
RATE = 10_000
SCENARIO = SCENARIOS["q0_1_1"]


def _run(server: Server, plan: Plan) -> Latency:
    receiving = connect_mqtt(server.mqtt_port, "bench-subscriber")
    subscribe(receiving, "bench/#", 0)
    subscriber = new_subscriber(SCENARIO, plan, 0, receiving)
    publisher = new_publisher(SCENARIO, plan, 0, connect_mqtt(server.mqtt_port, "bench-publisher"))
    with contextlib.closing(publisher.socket), contextlib.closing(subscriber.socket):
        return run_delivered(publisher, subscriber, rate=RATE, warm_up_s=plan.warm_up_s, seconds=plan.seconds)


def _run_relay(plan: Plan) -> Latency:
    with relaying("fan", 1, 1) as relay:
        publisher = new_publisher(SCENARIO, plan, 0, open_socket(relay.sender_port))
        subscriber = new_subscriber(SCENARIO, plan, 0, open_socket(relay.receiver_port))
        with contextlib.closing(publisher.socket), contextlib.closing(subscriber.socket):
            return run_delivered(publisher, subscriber, rate=RATE, warm_up_s=plan.warm_up_s, seconds=plan.seconds)


def bench_delivery(plan: Plan, report: Report) -> None:
    """Measure into the report: all peers, and Headrace with the topics in a stream on disk."""
    columns = [(name, name, "memory") for name in plan.peers]
    if HEADRACE in plan.peers:
        columns.append((f"{HEADRACE}_sqlite", HEADRACE, "sqlite"))
    for _ in range(plan.rounds):
        _add(report, plan, "relay", _run_relay(plan))
        for label, name, storage in columns:
            try:
                with running(PEERS[name], storage=storage) as server:
                    _add(report, plan, label, _run(server, plan))
            except (CheckFailed, PeerFailed) as error:
                report.failures.append(f"delivery at {RATE:,}/s, {label}: {error}")


def _add(report: Report, plan: Plan, label: str, found: Latency) -> None:
    title = f"delivery at {RATE:,}/s, QoS 0, {label}"
    report.add_latency(f"{KEY}_{label}", title, found.p50_ms, found.p99_ms)
    late = report.add_figure(f"{KEY}_{label}{LATE_SUFFIX}", f"{title}, generator late p99", "ms")
    late.series.values.append(found.late_p99_ms)
    plan.report(f"{title}: p50 {found.p50_ms:.3f} ms, p99 {found.p99_ms:.2f} ms, generator {found.late_p99_ms:.2f} ms")
