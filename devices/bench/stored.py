"""`headrace bench stored`: QoS 1 acknowledged only when it is on disk; rates, latencies, and the records counted.

After each run the log must hold exactly what was acknowledged. `history` (ten million records, by option) is beside it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from devices.bench.checks import CheckFailed
from devices.bench.endpoints import Publisher
from devices.bench.exporter import exporting
from devices.bench.latency import Latency, bare_fsync, connect_publishers, run_paced
from devices.bench.load import Load, LoadResult
from devices.bench.mqtt import Scenario, new_publisher, run_ceiling, run_scenario
from devices.bench.peers import HEADRACE, PEERS, STREAM, Server, data_root, running
from devices.bench.results import BASELINE, LATE_SUFFIX, Report, Row
from devices.bench.rounds import Plan, contenders, measure_row
from devices.bench.wire import PeerFailed, connect_mqtt, get_json

SCENARIOS: dict[str, Scenario] = {
    scenario.key: scenario
    for scenario in (
        Scenario("stored_1", "QoS 1 stored and acknowledged, 1 publisher", 1, "publish", 1, 0, window=4_000),
        Scenario("stored_100", "QoS 1 stored and acknowledged, 100 publishers", 1, "publish", 100, 0, window=200),
    )
}
LATENCY_KEY = "latency"
LATENCY_RATE = 10_000
LATENCY_PUBLISHERS = 100
EXPORTED_RECORDS = 500_000
FILL_TIMEOUT_S = 120.0
FSYNC_SECONDS = 1.0
COUNT_TIMEOUT_S = 5.0


def bench_stream(server: Server) -> dict[str, Any]:
    """The bench's stream as `/api/v1/streams` shows it. Raises: PeerFailed"""
    for stream in get_json(server.http_port, "/api/v1/streams")["streams"]:
        if stream["name"] == STREAM:
            return dict(stream)
    raise PeerFailed("/api/v1/streams does not name the stream of the bench")


def expect_records(server: Server, acknowledged: int) -> None:
    """The log holds exactly the messages that were acknowledged.

    Raises: CheckFailed when it does not, PeerFailed
    """
    deadline = time.monotonic() + COUNT_TIMEOUT_S
    records = int(bench_stream(server)["records"])
    while records != acknowledged:
        if time.monotonic() > deadline:
            raise CheckFailed(f"loss: {acknowledged:,} were acknowledged, the log has {records:,}")
        time.sleep(0.1)
        records = int(bench_stream(server)["records"])


def _run_and_count(scenario: Scenario, plan: Plan, server: Server) -> LoadResult:
    result = run_scenario(scenario, plan, server)
    if server.peer.is_ours:
        expect_records(server, result.sent)
    return result


def bench_stored(plan: Plan, report: Report, keys: Sequence[str] = (*SCENARIOS, LATENCY_KEY)) -> None:
    """Measure rates and latencies into the report; peers acknowledge the same from memory."""
    for key in keys:
        if key == LATENCY_KEY:
            bench_latency(plan, report)
            continue
        scenario = SCENARIOS[key]
        row = report.add_row(Row(key, scenario.title))
        columns = contenders(plan, "sqlite")
        measure_row(row, plan, columns, partial(_run_and_count, scenario, plan), partial(run_ceiling, scenario, plan))


def fill(server: Server, scenario: Scenario, plan: Plan, messages: int) -> None:
    """Put `messages` records into a server's log as fast as it takes them. Raises: CheckFailed, PeerFailed"""
    load = Load([_filler(server, scenario, plan)], [])
    try:
        load.fill(messages, FILL_TIMEOUT_S)
    finally:
        load.close()


def _filler(server: Server, scenario: Scenario, plan: Plan) -> Publisher:
    return new_publisher(scenario, plan, 0, connect_mqtt(server.mqtt_port, "bench-filler"))


def _run_latency(server: Server, plan: Plan, run: str) -> Latency:
    publishers = connect_publishers(server.mqtt_port, LATENCY_PUBLISHERS, plan.payload_bytes, run)
    try:
        return run_paced(publishers, rate=LATENCY_RATE, warm_up_s=plan.warm_up_s, seconds=plan.seconds)
    finally:
        for publisher in publishers:
            publisher.socket.close()


def bench_latency(plan: Plan, report: Report) -> None:
    """Acknowledgement latency, the disk's own beside it, and the same while a full export runs."""
    title = f"ack at {LATENCY_RATE:,}/s from {LATENCY_PUBLISHERS} publishers"
    for number in range(plan.rounds):
        try:
            p50_ms, p99_ms = bare_fsync(data_root(), FSYNC_SECONDS)
            _add(report, plan, "fsync", "bare 4 KB write + fsync", p50_ms, p99_ms)
            with running(PEERS[HEADRACE], storage="sqlite") as server:
                fill(server, SCENARIOS["stored_1"], plan, EXPORTED_RECORDS)
                quiet = _run_latency(server, plan, f"quiet-{number}")
                with exporting(server.http_port):
                    busy = _run_latency(server, plan, f"export-{number}")
                expect_records(server, EXPORTED_RECORDS + quiet.sent + busy.sent)
            _add_latency(report, plan, "ack", f"{title}, stored", quiet)
            _add_latency(report, plan, "ack_export", f"{title}, stored, during a full export", busy)
            if BASELINE in plan.peers:
                with running(PEERS[BASELINE]) as server:
                    beside = _run_latency(server, plan, f"beside-{number}")
                _add_latency(report, plan, f"ack_{BASELINE}", f"{title}, Mosquitto from memory", beside)
        except (CheckFailed, PeerFailed) as error:
            report.failures.append(f"{title}: {error}")
            plan.report(report.failures[-1])


def _add(report: Report, plan: Plan, name: str, title: str, p50_ms: float, p99_ms: float) -> None:
    report.add_latency(name, title, p50_ms, p99_ms)
    plan.report(f"{title}: p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms")


def _add_latency(report: Report, plan: Plan, name: str, title: str, latency: Latency) -> None:
    _add(report, plan, name, title, latency.p50_ms, latency.p99_ms)
    late = report.add_figure(f"{name}{LATE_SUFFIX}", f"{title}, of which the generator's own lateness, p99", "ms")
    late.series.values.append(latency.late_p99_ms)
