"""`headrace bench sse`: events a second from MQTT through the log to SSE readers, each event of each reader checked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from devices.bench.endpoints import EventReader, Publisher
from devices.bench.frames import EventBlock, PublishBlock, PublishLayout, json_payload
from devices.bench.load import Load, LoadResult
from devices.bench.peers import HEADRACE, PEERS, Server
from devices.bench.relay import relaying
from devices.bench.results import Report, Row
from devices.bench.rounds import Contender, Plan, measure_row
from devices.bench.wire import connect_mqtt, open_events, open_socket


@dataclass(frozen=True)
class SseScenario:
    """One QoS 1 publisher and readers that all follow `#`."""

    key: str
    title: str
    readers: int
    window: int
    """Messages the publisher may be ahead of the slowest reader: below the server's limit for a reader's bytes."""


SCENARIOS: dict[str, SseScenario] = {
    scenario.key: scenario
    for scenario in (
        SseScenario("sse_1", "MQTT → log → SSE, 1 reader", 1, window=4_000),
        SseScenario("sse_100", "MQTT → log → SSE, 100 readers of one filter", 100, window=2_000),
    )
}
STORED_LABEL = f"{HEADRACE}, sqlite"


def event_like(payload_bytes: int) -> bytes:
    """An event as long as a server's would be, for the ceiling."""
    return (
        b"event: message\nid: bench~k3aa~0~1234567\n"
        b'data: {"topic":"bench/dev/000000","payload":'
        + json_payload(payload_bytes)
        + b',"encoding":"json","qos":1,"retain":false,"time":"2026-11-22T19:00:00.123Z","id":"n7aaaa-1234567",'
        b'"client_id":"bench-publisher-0","stream":"bench","epoch":"k3aa","partition":0,"offset":1234567}\n\n'
    )


def run_scenario(scenario: SseScenario, plan: Plan, server: Server) -> LoadResult:
    """Open the readers, then publish. Raises: CheckFailed, PeerFailed"""
    readers = []
    for number in range(scenario.readers):
        connection, body, is_chunked = open_events(server.http_port, "topic=%23")
        readers.append(EventReader(connection, f"reader {number}", body=body, is_chunked=is_chunked))
    layout = PublishLayout(qos=1, payload_bytes=plan.payload_bytes, is_json=True)
    connection = connect_mqtt(server.mqtt_port, "bench-publisher-0")
    block = PublishBlock(layout, scenario.window)
    publisher = Publisher(connection, "publisher 0", block, window=scenario.window, is_acked=True)
    return _load(publisher, readers, plan.warm_up_s, plan.seconds, server.cpu_s)


def run_ceiling(scenario: SseScenario, plan: Plan) -> LoadResult:
    """The generator's own pace: the same events through a relay instead of publishes through a server."""
    with relaying("fan", 1, scenario.readers) as relay:
        block = EventBlock(event_like(plan.payload_bytes), scenario.window)
        connection = open_socket(relay.sender_port)
        publisher = Publisher(connection, "sender", block, window=scenario.window, is_acked=False)
        readers = [
            EventReader(open_socket(relay.receiver_port), f"reader {number}") for number in range(scenario.readers)
        ]
        return _load(publisher, readers, plan.ceiling_s / 4, plan.ceiling_s, relay.cpu_s)


def _load(
    publisher: Publisher,
    readers: Sequence[EventReader],
    warm_up_s: float,
    seconds: float,
    server_cpu_s: Callable[[], float],
) -> LoadResult:
    for reader in readers:
        publisher.is_followed_by(reader.received)
    with contextlib.closing(Load([publisher], readers)) as load:
        return load.run(warm_up_s=warm_up_s, seconds=seconds, server_cpu_s=server_cpu_s)


def bench_sse(plan: Plan, report: Report, keys: Sequence[str] = tuple(SCENARIOS)) -> None:
    """Measure into the report, with the topics in a `memory` stream and in a `sqlite` one."""
    columns = [Contender(HEADRACE, PEERS[HEADRACE]), Contender(STORED_LABEL, PEERS[HEADRACE], "sqlite")]
    for key in keys:
        scenario = SCENARIOS[key]
        row = report.add_row(Row(key, scenario.title))
        measure_row(row, plan, columns, partial(run_scenario, scenario, plan), partial(run_ceiling, scenario, plan))
