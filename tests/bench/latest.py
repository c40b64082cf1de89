"""What finding the newest record of each topic costs, in ns a record: `python -m tests.bench.latest`."""

from __future__ import annotations

import asyncio
import time

from tests.unit.live.parts import Side

RECORDS = 60_000


async def measure(name: str, topics: int, rows: int) -> None:
    """The best of some windows of runs of `rows` records."""
    async with Side() as side:
        best = float("inf")
        for _ in range(5):
            for first in range(0, RECORDS, rows):
                side.publish(*[(f"s/{(first * 7 + row) % topics}/t", b'{"temp":21.5}') for row in range(rows)])
            started = time.perf_counter()
            await side.latest.settled()
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
