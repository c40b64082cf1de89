"""A process that stores records as fast as it can and tells how far it is, to be killed: see test_crash.py.

Its counters lie in a file that its parent maps as well: records appended, records told as committed.
"""

from __future__ import annotations

import asyncio
import mmap
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from bridge.streams.sqlite_store import SqliteStore
from broker.publish_run import PublishRun
from tests.support.log_contract import RunMaker, numbers

COUNTERS = struct.Struct("<QQ")


async def write_until_killed(data_dir: Path, counters: mmap.mmap) -> None:
    store = SqliteStore.open(data_dir)
    log = store.open_log("telemetry")
    maker = RunMaker(log)
    appended = committed = log.next_offset

    def on_committed(runs: Sequence[PublishRun]) -> None:
        nonlocal committed
        committed += sum(len(run) for run in runs)
        COUNTERS.pack_into(counters, 0, appended, committed)

    log.on_committed = on_committed
    while True:
        for size in (1, 300, 40):
            log.append(maker.run(numbers(size, appended)))
            appended += size
        log.flush()
        COUNTERS.pack_into(counters, 0, appended, committed)
        await asyncio.sleep(0 if appended - committed < 20_000 else 0.001)


def main() -> None:
    with Path(sys.argv[2]).open("r+b") as file, mmap.mmap(file.fileno(), COUNTERS.size) as counters:
        asyncio.run(write_until_killed(Path(sys.argv[1]), counters))


if __name__ == "__main__":
    main()
