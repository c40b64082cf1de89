"""How fast a long stored log answers: histogram, series, state at a time, and exports.

    python -m tests.bench.history [--records 10000000] [--rows 10] [--export 1000000] [--keep DIRECTORY]

It fills a store with records of 10,000 topics over 24 hours, a tenth of them of one topic, in runs of `--rows`, and
asks through a reader process, file cache warm. With `--keep` the store is left there and used again the next time.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import uvloop

from bridge.history.buckets import Buckets
from bridge.history.export import ExportForm, export
from bridge.history.overview import histogram, kept, series, state
from bridge.history.search import RecordSearch, Wanted
from bridge.streams.log import clock_ms
from bridge.streams.sqlite_log import SqliteLog
from bridge.streams.sqlite_store import SqliteStore
from broker.publish_run import PublishRun
from tests.support.log_contract import RunMaker, wait_until

DEVICES = 1_000
DAY_MS = 24 * 3_600_000
HOT = "plant/hot/temp"
UNDER_WAY = 200
ROUNDS = 3


def payloads(chance: random.Random, count: int) -> list[bytes]:
    template = b'{"temp":%d.%d,"unit":"C","seq":%d}'
    return [
        template % (chance.randrange(10, 40), chance.randrange(10), chance.randrange(1 << 20)) for _ in range(count)
    ]


async def fill(log: SqliteLog, records: int, rows: int) -> None:
    """Runs of devices with ten topics each, every tenth of the one topic that is hot."""
    chance = random.Random(1)
    maker = RunMaker(log)
    templates = [
        maker.run(
            payloads(chance, rows),
            topics=[f"plant/line{device % 10}/dev{device}/m{number}" for number in chance.sample(range(10), 10)],
            client_id=f"dev{device}",
        )
        for device in range(DEVICES)
    ]
    hot = [maker.run(payloads(chance, rows), topics=[HOT], client_id="hot") for _ in range(20)]
    window = asyncio.Semaphore(UNDER_WAY)

    def committed(runs: Sequence[PublishRun]) -> None:
        for _ in runs:
            window.release()

    log.on_committed = committed
    start_ms = clock_ms() - DAY_MS
    count = number = 0
    while count < records:
        await window.acquire()
        run = maker.again(chance.choice(templates if number % 10 else hot))
        run.received_at_ms = start_ms + DAY_MS * count // records
        log.append(run)
        count += len(run)
        number += 1
        if number % 40 == 0:
            log.flush()
            await asyncio.sleep(0)
    log.flush()
    await wait_until(lambda: log.next_offset >= count, 60)
    await wait_until(lambda: len(log.table.open_rows) < 80, 60)


async def timed(what: str, ask: Callable[[], Awaitable[object]]) -> None:
    """The best of some rounds."""
    best = float("inf")
    found: object = None
    for _ in range(ROUNDS):
        started = time.perf_counter()
        found = await ask()
        best = min(best, time.perf_counter() - started)
    print(f"{what:60} {best * 1000:7.0f} ms   {found}")


async def ask_all(log: SqliteLog) -> None:
    assert log.oldest_ms is not None
    assert log.newest_ms is not None
    from_ms, until_ms = log.oldest_ms, log.newest_ms + 1
    middle_ms = (from_ms + until_ms) // 2

    async def counted(*filters: str) -> str:
        counts, reach = await histogram([log], filters, Buckets.over(from_ms, until_ms, 240), 60)
        return f"{sum(counts):,} records, complete: {reach.is_complete}"

    for topic_filter in ("#", "plant/line3/#", "plant/+/+/m1", "plant/line1/dev1/m1", HOT):
        await timed(f"histogram of {topic_filter}", lambda chosen=topic_filter: counted(chosen))  # type: ignore[misc]

    async def reduced() -> str:
        indexes, columns, reach = await series([log], (HOT,), ("temp",), Buckets.over(from_ms, until_ms, 1_000), 60)
        return f"{sum(columns[4]):,} values to {len(indexes):,} points, complete: {reach.is_complete}"

    await timed(f"series of {HOT}", reduced)

    async def known(time_ms: int, limit: int) -> str:
        ends = {log.name: await log.offsets_at(time_ms)}
        records, _, reach = await state([log], ("#",), ends, 60, topics_max=200_000, limit=limit)
        return f"{len(list(records)):,} topics, complete: {reach.is_complete}"

    await timed("topics at the middle, all", lambda: known(middle_ms, 200_000))
    await timed("topics at the middle, a page of 1,000", lambda: known(middle_ms, 1_000))


async def export_all(store: SqliteStore, log: SqliteLog, records: int) -> None:
    forms: tuple[ExportForm, ...] = ("ndjson", "csv", "parquet")
    for form in forms:
        search = RecordSearch(log, Wanted(), *kept(log), "asc", records)
        started = time.perf_counter()
        size = 0
        async for piece in export(search, form, store.readers):
            size += len(piece)
        seconds = time.perf_counter() - started
        print(f"export as {form:50} {records / seconds / 1000:7.0f} k records/s, {size / 1e6:.0f} MB")


async def measure(directory: Path, records: int, rows: int, exported: int) -> None:
    store = SqliteStore.open(directory)
    log = store.open_log("telemetry")
    if log.records < records:
        started = time.perf_counter()
        await fill(log, records, rows)
        print(f"{records:,} records stored in {time.perf_counter() - started:.0f} s")
    await ask_all(log)
    await export_all(store, log, min(exported, records))
    await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--rows", type=int, default=10)
    parser.add_argument("--export", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="headrace-bench-") as directory,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        place = arguments.keep or Path(directory)
        runner.run(measure(place, arguments.records, arguments.rows, arguments.export))


if __name__ == "__main__":
    main()
