"""What finding the newest record of each topic costs, in ns a record: `python -m tests.bench.latest`."""

from __future__ import annotations

import asyncio
import time

from bridge.live.latest import LatestValues
from bridge.streams.memory_log import MemoryLog
from broker.publish_run import PublishRun
from tests.support.log_contract import RunMaker

RECORDS = 60_000
RUNS_A_COMMIT = 20


async def measure(name: str, topics: int, rows: int) -> None:
    """The best of some rounds, from the commit to the entries."""
    log = MemoryLog("telemetry", bytes_max=1 << 30)
    maker = RunMaker(log)
    names = [f"s/{number}/t" for number in range(topics)]
    runs: list[PublishRun] = []
    for first in range(0, RECORDS, rows):
        chosen = [names[(first * 7 + row) % topics] for row in range(rows)]
        runs.append(maker.run([b'{"temp":21.5}'] * rows, topics=chosen))
        log.append(runs[-1])
    log.flush()
    latest = LatestValues("n1")
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for first in range(0, len(runs), RUNS_A_COMMIT):
            latest.committed(log, runs[first : first + RUNS_A_COMMIT])
        await latest.settled()
        best = min(best, time.perf_counter() - started)
    print(f"{name:40} {best / RECORDS * 1e9:6.0f} ns a record")


async def main() -> None:
    await measure("50 topics, runs of 500", 50, 500)
    await measure("50 topics, runs of 30", 50, 30)
    await measure("50 topics, runs of one", 50, 1)
    await measure("5,000 topics, runs of 10", 5_000, 10)
    await measure("each record its own topic, runs of 500", RECORDS, 500)


if __name__ == "__main__":
    asyncio.run(main())
