"""What a broker kept, and how fast it gives it out: retained messages to a new subscriber, a queue to who was away.

One answer takes a tenth of a second, so each run asks several times; every message is checked.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from devices.bench.checks import CheckFailed
from devices.bench.endpoints import Publisher, Subscriber
from devices.bench.frames import Column, PublishBlock, PublishLayout, encode_connect, encode_subscribe
from devices.bench.load import Load, LoadResult
from devices.bench.mqtt import SCENARIOS, run_ceiling
from devices.bench.peers import Server
from devices.bench.results import Report, Row
from devices.bench.rounds import Plan, contenders, measure_row
from devices.bench.wire import PeerFailed, connect_mqtt, expect_connack, open_socket, receive_packet, subscribe

RETAINED, DRAIN = "retained", "drain"
KEYS = (RETAINED, DRAIN)
MESSAGES = 100_000
ASKED = 3
STORE_WINDOW = 4_000
FILL_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 20.0
AFTERWARDS_S = 0.02
DISCONNECT = b"\xe0\x00"
PINGREQ = b"\xc0\x00"
PINGRESP = 0xD0


class AnyOrderChecker:
    """Messages that come in any order: each once, under its topic."""

    def __init__(self, layout: PublishLayout, who: str) -> None:
        self._layout = layout
        self._who = who
        self._seen: list[Column] = []
        self.received = 0

    def check(self, buffer: Any, rows: int) -> None:
        """Look at `rows` whole frames at the start of `buffer`. Raises: CheckFailed"""
        layout = self._layout
        heads = layout.field(buffer, 0, "<u2", 0, rows)
        if not (heads == layout.head_word).all():
            raise CheckFailed(f"{self._who}: not the PUBLISH that was kept: starts with {bytes(buffer[:4]).hex()}")
        sequences = layout.sequence.column(buffer, 0, rows, layout.frame_bytes).astype(np.int64)
        topics = layout.field(buffer, layout.topic_end - 4, "<u4", 0, rows)
        if not (topics == layout.topic_words(sequences)).all():
            raise CheckFailed(f"{self._who}: a message came under another message's topic")
        self._seen.append(sequences)
        self.received += rows

    def judge(self, count: int) -> None:
        """All numbers below `count` have come, each once. Raises: CheckFailed"""
        numbers = np.sort(np.concatenate(self._seen)) if self._seen else np.zeros(0)
        if not np.array_equal(numbers, np.arange(count)):
            raise CheckFailed(f"{self._who}: of {count:,} {len(np.unique(numbers)):,} came, {len(numbers):,} in all")


def _store(server: Server, layout: PublishLayout) -> None:
    """Publish all messages at QoS 1 and wait until they are acknowledged. Raises: CheckFailed, PeerFailed"""
    block = PublishBlock(layout, STORE_WINDOW // 2)
    connection = connect_mqtt(server.mqtt_port, "bench-filler")
    publisher = Publisher(connection, "publisher", block, window=STORE_WINDOW, is_acked=True)
    with contextlib.closing(Load([publisher], [])) as load:
        load.fill(MESSAGES, FILL_TIMEOUT_S)


def _read(server: Server, subscriber: Subscriber, begun_s: float, cpu_s: float) -> LoadResult:
    """Until all has come; server time and clock count from before it was asked for."""
    with contextlib.closing(Load([], [subscriber])) as load:
        result = load.read(messages=MESSAGES, seconds=ANSWER_TIMEOUT_S, server_cpu_s=server.cpu_s, begun_s=begun_s)
        spent = server.cpu_s() - cpu_s
        load.turn(AFTERWARDS_S)  # a repeat would come now
        _leave(subscriber)
    if subscriber.received() != MESSAGES:
        raise CheckFailed(f"loss: of {MESSAGES:,} {subscriber.received():,} came in {ANSWER_TIMEOUT_S:.0f} s")
    return replace(result, server_cpu_s=spent)


def _leave(subscriber: Subscriber) -> None:
    """Close when the server has taken every acknowledgement: what it has not would come again."""
    connection = subscriber.socket
    connection.setblocking(True)
    subscriber.resume()
    connection.sendall(PINGREQ)
    if receive_packet(connection)[0] != PINGRESP:
        raise CheckFailed(f"{subscriber.name}: more came than was kept")
    connection.sendall(DISCONNECT)


def _sum(results: list[LoadResult]) -> LoadResult:
    return LoadResult(
        messages=sum(result.messages for result in results),
        seconds=sum(result.seconds for result in results),
        server_cpu_s=sum(result.server_cpu_s for result in results),
        load_cpu_s=sum(result.load_cpu_s for result in results),
        other_cpu_s=sum(result.other_cpu_s for result in results),
        sent=MESSAGES,
    )


def run_retained(plan: Plan, server: Server) -> LoadResult:
    """Keep 100 k retained messages and fetch them all by `#`. Raises: CheckFailed, PeerFailed"""
    _store(server, _retained_layout(plan, 1))
    layout = _retained_layout(plan, 0)
    results = []
    for number in range(ASKED):
        connection = connect_mqtt(server.mqtt_port, f"bench-retained-{number}")
        name = f"subscriber {number}"
        checker = AnyOrderChecker(layout, name)
        begun_s, cpu_s = time.perf_counter(), server.cpu_s()
        connection.sendall(encode_subscribe(1, "bench/#", 0))
        first, body = receive_packet(connection)
        if first != 0x90 or body[-1] != 0:
            raise PeerFailed(f"SUBSCRIBE was answered {first:02x} {body[:40].hex()}")
        results.append(_read(server, Subscriber(connection, name, layout, checker), begun_s, cpu_s))
        checker.judge(MESSAGES)
    return _sum(results)


def _retained_layout(plan: Plan, qos: int) -> PublishLayout:
    return PublishLayout(qos=qos, payload_bytes=plan.payload_bytes, topic_count=MESSAGES, is_retained=True)


def run_drain(plan: Plan, server: Server) -> LoadResult:
    """Queue 100 k QoS 1 messages for a session that is away, and let it come back. Raises: CheckFailed, PeerFailed"""
    layout = PublishLayout(qos=1, payload_bytes=plan.payload_bytes)
    hello = encode_connect("bench-away", is_kept=True)
    connection = open_socket(server.mqtt_port)
    connection.sendall(hello)
    expect_connack(connection)
    subscribe(connection, "bench/#", 1)
    connection.sendall(DISCONNECT)
    connection.close()
    results = []
    for number in range(ASKED):
        _store(server, layout)
        begun_s, cpu_s = time.perf_counter(), server.cpu_s()
        connection = open_socket(server.mqtt_port)
        connection.sendall(hello)
        if not expect_connack(connection).is_session_present:
            raise CheckFailed("the session was not kept")
        results.append(_read(server, Subscriber(connection, f"subscriber {number}", layout), begun_s, cpu_s))
    return _sum(results)


def bench_kept(plan: Plan, report: Report, keys: Sequence[str] = KEYS) -> None:
    """Measure into the report."""
    cases = (
        (RETAINED, "100 k retained messages fetched by #", run_retained, "topics"),
        (DRAIN, "100 k QoS 1 to a session that comes back", run_drain, "q1_1_1"),
    )
    for key, title, run, ceiling in cases:
        if key in keys:
            row = report.add_row(Row(key, title))
            measure_row(row, plan, contenders(plan), partial(run, plan), partial(run_ceiling, SCENARIOS[ceiling], plan))
