"""Records a second through append and commit of the stored log, the latency of a commit, and the speed of reading.

    python -m tests.bench.sqlite_log [--seconds 2] [--log sqlite|memory]

It writes 64-byte payloads on 50 topics into a directory of its own and removes it. One process, no network.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from bridge.history.scan import Scan
from bridge.streams.log import StreamLog, clock_ms
from bridge.streams.memory_log import MemoryLog
from bridge.streams.sqlite_store import SqliteStore
from broker.publish_run import PublishRun
from tests.support.log_contract import RunMaker, wait_until

PAYLOAD = b'{"value": 21.375, "unit": "C", "sequence": 1234567890, "ok": 1}'
IN_FLIGHT = 16
"""Runs that each origin has sent and not seen stored."""


async def store_records(log: StreamLog, origins: int, rows: int, seconds: float) -> float:
    """Records a second with `origins` publishers that keep `IN_FLIGHT // origins` runs of `rows` under way."""
    maker = RunMaker(log, topics=50)
    stored = 0
    window = asyncio.Semaphore(max(IN_FLIGHT, origins))

    def committed(runs: Sequence[PublishRun]) -> None:
        nonlocal stored
        for run in runs:
            stored += len(run)
            window.release()

    log.on_committed = committed
    templates = [maker.run([PAYLOAD] * rows, client_id=f"device-{index}") for index in range(origins)]
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        for template in templates:
            await window.acquire()
            log.append(maker.again(template))
        log.flush()
        await asyncio.sleep(0)
    elapsed = time.perf_counter() - started
    return stored / elapsed


async def commit_latency(log: StreamLog, rate: int, seconds: float) -> tuple[float, float]:
    """p50 and p99 (ms) from append to `on_committed` of single records at `rate` a second."""
    maker = RunMaker(log, topics=50)
    latencies: list[float] = []
    sent: dict[int, float] = {}

    def committed(runs: Sequence[PublishRun]) -> None:
        now = time.perf_counter()
        latencies.extend((now - sent.pop(id(run))) * 1000 for run in runs)

    log.on_committed = committed
    count = int(rate * seconds)
    started = time.perf_counter()
    for number in range(count):
        delay = started + number / rate - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        run = maker.run([PAYLOAD])
        sent[id(run)] = time.perf_counter()
        log.append(run)
        log.flush()
    await wait_until(lambda: not sent)
    latencies.sort()
    return latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)]


async def export(log: StreamLog, records_max: int) -> float:
    """Records a second of a full export as NDJSON."""
    position = log.first_offset
    end = min(log.next_offset, position + records_max)
    started = time.perf_counter()
    count = 0
    while position < end:
        result = await log.scan(
            Scan(log.name, log.epoch, ("#",), position, end, "json", records_max=10_000, bytes_max=1 << 22)
        )
        position = result.next_offset
        count += result.count
    return count / (time.perf_counter() - started)


async def measure(kind: str, seconds: float) -> None:
    with tempfile.TemporaryDirectory(dir=".") as directory:
        for origins, rows in ((1, 700), (1, 200), (100, 200), (100, 20), (1000, 1)):
            store = SqliteStore.open(Path(directory) / f"{origins}-{rows}") if kind == "sqlite" else None
            log: StreamLog = store.open_log("bench") if store is not None else MemoryLog("bench")
            rate = await store_records(log, origins, rows, seconds)
            print(f"{origins:5} origins, runs of {rows:4}: {rate / 1000:8.0f} k records/s stored")
            if store is not None:
                await store.close()
        for rate_aimed in (1_000, 10_000):
            store = SqliteStore.open(Path(directory) / f"latency-{rate_aimed}") if kind == "sqlite" else None
            log = store.open_log("bench") if store is not None else MemoryLog("bench", clock=clock_ms)
            p50, p99 = await commit_latency(log, rate_aimed, seconds)
            print(f"{rate_aimed:6} single records/s: commit p50 {p50:.2f} ms, p99 {p99:.2f} ms")
            if store is not None:
                await store.close()
        store = SqliteStore.open(Path(directory) / "1-200") if kind == "sqlite" else None
        if store is not None:
            log = store.open_log("bench")
            print(f"export: {await export(log, 1_000_000) / 1000:.0f} k records/s")
            await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--log", choices=("sqlite", "memory"), default="sqlite")
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(arguments.log, arguments.seconds))


if __name__ == "__main__":
    main()
