"""What a commit costs the hub, from runs to one chunk for each group: `python -m tests.bench.fan_out`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from tests.unit.live.parts import MemoryOutlet, Side

ROWS = 500
RUNS = 20


class NullOutlet(MemoryOutlet):
    """Takes everything and keeps nothing."""

    def write(self, data: bytes) -> None:
        self.waiting_most += len(data)


async def measure(name: str, filters: Sequence[Sequence[str]], rows_a_run: int = ROWS) -> None:
    """Print the best of some rounds."""
    async with Side() as side:
        for each in filters:
            side.open(*each, outlet=NullOutlet())
        best = float("inf")
        for round_number in range(10):
            for _ in range(RUNS):
                side.append(
                    [(f"s/p{n % 50}/t", b'{"temp":21.5,"seq":%d}' % (n + round_number)) for n in range(rows_a_run)]
                )
            begin = time.perf_counter()
            side.turn()
            best = min(best, time.perf_counter() - begin)
            await asyncio.sleep(0.3)
        rows = rows_a_run * RUNS
        print(f"{name:34} {best / rows * 1e9:7.0f} ns a record {rows / best / 1e6:6.2f} M records/s")


async def main() -> None:
    await measure("no reader", [])
    await measure("no reader, runs of one", [], 1)
    await measure("1 reader of #", [["#"]])
    await measure("1 reader of #, runs of one", [["#"]], 1)
    await measure("1 reader of one topic in 50", [["s/p7/t"]])
    await measure("100 readers of #", [["#"]] * 100)
    await measure("50 readers of a topic each", [[f"s/p{n}/t"] for n in range(50)])


if __name__ == "__main__":
    asyncio.run(main())
