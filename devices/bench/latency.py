"""Latency at a fixed rate, from the time a message was *due* to its acknowledgement or its arrival, and the disk's own
pace beside it.

Measuring from the due time keeps a server that stalls from hiding its stall behind a generator that waited with it.
"""

from __future__ import annotations

import os
import select
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from devices.bench.checks import CheckFailed
from devices.bench.endpoints import Publisher, Subscriber
from devices.bench.frames import PublishBlock, PublishLayout
from devices.bench.load import DRAIN_TIMEOUT_S
from devices.bench.wire import RECEIVE_BUFFER_BYTES, connect_mqtt

FSYNC_BLOCK_BYTES = 4096


@dataclass(frozen=True)
class Latency:
    """Percentiles of one paced run, milliseconds."""

    p50_ms: float
    p99_ms: float
    late_p99_ms: float
    """How late the generator itself was with sending; part of the others."""
    sent: int


def percentiles(values_s: npt.NDArray[np.float64], *percents: float) -> list[float]:
    """Percentiles of seconds, in milliseconds."""
    return [float(value) * 1e3 for value in np.percentile(values_s, percents)]


def connect_publishers(port: int, count: int, payload_bytes: int, run: str) -> list[Publisher]:
    """QoS 1 publishers that send when told to; `run` is part of their client ids."""
    layout = PublishLayout(qos=1, payload_bytes=payload_bytes)
    publishers = []
    for number in range(count):
        connection = connect_mqtt(port, f"bench-{run}-{number}")
        block = PublishBlock(layout, 1, number)
        publisher = Publisher(connection, f"publisher {number}", block, window=1, is_acked=True)
        publisher.is_stopped = True  # paced from outside
        publishers.append(publisher)
    return publishers


def run_paced(publishers: Sequence[Publisher], *, rate: int, warm_up_s: float, seconds: float) -> Latency:
    """Send `rate` messages a second, spread evenly over the publishers, and time each acknowledgement.

    Raises: CheckFailed when one is lost or out of order, PeerFailed
    """
    count = len(publishers)
    total = int(rate * (warm_up_s + seconds))
    latencies = np.full(total, np.nan)
    lateness = np.zeros(total)
    number_by_descriptor = {publisher.socket.fileno(): number for number, publisher in enumerate(publishers)}
    buffer = bytearray(RECEIVE_BUFFER_BYTES)
    view = memoryview(buffer)
    clock = time.perf_counter
    with select.epoll() as epoll:
        for descriptor in number_by_descriptor:
            epoll.register(descriptor, select.EPOLLIN)
        start = clock()
        deadline = start + total / rate + DRAIN_TIMEOUT_S
        sent = acknowledged = 0
        while acknowledged < total:
            now = clock()
            if now > deadline:
                raise CheckFailed(f"loss: {total - acknowledged} of {total} messages were never acknowledged")
            due = min(total, int((now - start) * rate) + 1)
            for message in range(sent, due):
                publishers[message % count].send_until(message // count + 1)
                lateness[message] = clock() - start - message / rate
            sent = due
            timeout_s = start + due / rate - clock() if due < total else 0.1
            # select() waits with microseconds, epoll.poll() rounds up to a millisecond.
            if not select.select([epoll], [], [], max(0.0, timeout_s))[0]:
                _resume(publishers, due)
                continue
            for descriptor, _ in epoll.poll(0):
                number = number_by_descriptor[descriptor]
                publisher = publishers[number]
                first = publisher.checker.received
                publisher.on_readable(buffer, view)
                fresh = np.arange(first, publisher.checker.received) * count + number
                latencies[fresh] = clock() - start - fresh / rate
                acknowledged += len(fresh)
    return _judge(latencies, lateness, int(rate * warm_up_s))


def run_delivered(
    publisher: Publisher, subscriber: Subscriber, *, rate: int, warm_up_s: float, seconds: float
) -> Latency:
    """Send `rate` messages a second and time each from when it was due until it came.

    Raises: CheckFailed when one is lost or out of order, PeerFailed
    """
    total = int(rate * (warm_up_s + seconds))
    latencies = np.full(total, np.nan)
    lateness = np.zeros(total)
    buffer = bytearray(RECEIVE_BUFFER_BYTES)
    view = memoryview(buffer)
    clock = time.perf_counter
    reading = [subscriber.socket]
    start = clock()
    deadline = start + total / rate + DRAIN_TIMEOUT_S
    sent = received = 0
    while received < total:
        now = clock()
        if now > deadline:
            raise CheckFailed(f"loss: {total - received} of {total} messages never came")
        due = min(total, int((now - start) * rate) + 1)
        if due > sent and publisher.resume():
            publisher.send_until(due)
            lateness[sent:due] = clock() - start - np.arange(sent, due) / rate
            sent = due
        timeout_s = start + due / rate - clock() if due < total else 0.1
        if select.select(reading, [], [], max(0.0, timeout_s))[0]:
            subscriber.on_readable(buffer, view)
            came = subscriber.received()
            latencies[received:came] = clock() - start - np.arange(received, came) / rate
            received = came
    return _judge(latencies, lateness, int(rate * warm_up_s))


def _judge(latencies: npt.NDArray[np.float64], lateness: npt.NDArray[np.float64], first: int) -> Latency:
    """Of the messages from `first` on; those before were the warm-up."""
    p50_ms, p99_ms = percentiles(latencies[first:], 50, 99)
    (late_p99_ms,) = percentiles(lateness[first:], 99)
    return Latency(p50_ms, p99_ms, late_p99_ms, len(latencies))


def _resume(publishers: Sequence[Publisher], due: int) -> None:
    """Go on where a socket had been full; `due` messages of all publishers should have left."""
    for number, publisher in enumerate(publishers):
        if publisher.is_blocked and publisher.resume():
            publisher.send_until(-(-(due - number) // len(publishers)))


def bare_fsync(directory: Path, seconds: float) -> tuple[float, float]:
    """p50 and p99, in milliseconds, of a 4 KB write followed by fsync, in a loop, on the servers' file system."""
    block = os.urandom(FSYNC_BLOCK_BYTES)
    times = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        deadline = time.perf_counter() + seconds
        while (before := time.perf_counter()) < deadline:
            file.write(block)
            os.fsync(file.fileno())
            times.append(time.perf_counter() - before)
    p50_ms, p99_ms = percentiles(np.array(times), 50, 99)
    return p50_ms, p99_ms
