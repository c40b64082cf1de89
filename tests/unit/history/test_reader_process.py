"""The reader process: restarts, its end with its parent, turns between scans, indexes at size."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest

from bridge.history.buckets import Buckets
from bridge.history.scan import Scan, ScanResult, StreamQuestion
from bridge.history.series import SeriesQuestion, merged
from bridge.history.stored_rows import StreamRows
from bridge.history.stream_reader import StreamReader
from bridge.streams.readers import Readers, ReadFailed
from bridge.streams.sqlite_schema import FILE_NAME
from bridge.streams.sqlite_store import SqliteStore
from tests.support.log_contract import Committed, FakeClock, Opened, RunMaker, numbers, wait_until


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore.open(tmp_path)
    yield store
    await store.close()


@pytest.fixture
def opened(store: SqliteStore) -> Opened:
    log = store.open_log("telemetry")
    return Opened(log, RunMaker(log), Committed(log), FakeClock())


def pid_of(store: SqliteStore) -> int:
    (pid,) = store.readers.pids
    return pid


async def test_a_reader_that_died_is_started_again_and_asked_again(store: SqliteStore, opened: Opened) -> None:
    await opened.store(opened.maker.run(numbers(3)))
    assert await opened.offsets() == [0, 1, 2]
    first = pid_of(store)
    os.kill(first, signal.SIGSTOP)
    asking = asyncio.create_task(opened.offsets())
    await asyncio.sleep(0)
    os.kill(first, signal.SIGKILL)
    assert await asking == [0, 1, 2]
    assert pid_of(store) != first


@pytest.mark.timeout(20)
def test_a_loop_that_ends_with_an_error_does_not_wait_for_the_process(tmp_path: Path) -> None:
    async def fails() -> None:
        store = SqliteStore.open(tmp_path)
        await store.close()
        readers = Readers(store.path, 1)
        await readers.start()
        pids.extend(readers.pids)
        raise LookupError

    pids: list[int] = []
    with pytest.raises(LookupError), asyncio.Runner() as runner:
        runner.run(fails())
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


async def test_a_series_of_many_records_is_made_by_two_processes(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path, reader_processes=2)
    log = store.open_log("telemetry")
    opened = Opened(log, RunMaker(log), Committed(log), FakeClock())
    for second in range(10):
        await opened.store(opened.maker.run(numbers(100, 100 * second), time_ms=1_000 * second, topics=["a", "b"]))
    buckets = Buckets.over(2_000, 8_000, 6)
    what = SeriesQuestion(
        "telemetry", log.epoch, ("a",), 0, 0, from_ms=2_000, until_ms=8_000, buckets=buckets, pointer=()
    )
    question = StreamQuestion(what, log.first_offsets, log.offsets)
    whole = await log.ask_stream(question)
    assert len(whole) == len(store.readers.pids) == 1
    store.readers.part_records = 100
    assert merged(await log.ask_stream(question)) == merged(whole)
    await wait_until(lambda: store.readers.ready == 2)
    divided = await log.ask_stream(question)
    assert len(divided) == len(store.readers.pids) == 2
    assert merged(divided) == merged(whole)
    assert [answer.is_complete for answer in divided] == [True, True]
    _, (*_, counts) = merged(divided)
    assert list(counts) == [50] * 6
    os.kill(store.readers.pids[1], signal.SIGKILL)
    assert merged(await log.ask_stream(question)) == merged(whole)
    await store.close()


def test_the_reader_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from bridge.streams.sqlite_store import SqliteStore\n"
        "async def main():\n"
        "    store = SqliteStore.open(Path(sys.argv[1]))\n"
        "    store.open_log('telemetry')\n"
        "    await store.readers.start()\n"
        "    await store.readers.offset_at(1, 0)\n"
        "    print(store.readers.pids[0], flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    reader = int(parent.stdout.readline())
    assert Path(f"/proc/{reader}").exists()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    asyncio.run(wait_until(lambda: not is_running(reader)))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_small_scan_does_not_wait_for_an_export(opened: Opened) -> None:
    for _ in range(40):
        await opened.store(opened.maker.run(numbers(2_000)))
    await opened.offsets(records_max=1)
    finished: list[str] = []

    async def scan(name: str, records_max: int) -> None:
        await opened.log.scan(opened.request("#", records_max=records_max, bytes_max=1 << 26))
        finished.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(scan("export", 80_000))
        for number in range(5):
            group.create_task(scan(f"small {number}", 10))
    assert finished[-1] == "export"


async def test_a_damaged_row_is_told_to_who_asked(store: SqliteStore, opened: Opened) -> None:
    await opened.store(opened.maker.run(numbers(3)))
    table = store.logs["telemetry"].table
    store.writer.call(
        lambda: table.connection.execute("UPDATE batch_1 SET body = CAST(x'02' || substr(body, 2) AS BLOB)")
    )
    with pytest.raises(ReadFailed, match="newer Headrace"):
        await opened.offsets()
    assert await opened.log.offset_at(10**15) == 3


@pytest.mark.slow
async def test_the_first_record_of_a_rare_topic_is_found_among_many(
    store: SqliteStore, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 000 topics in 2 000 rows; the rare topic is in the last of them, and the indexes lead to it."""
    opened.maker.topic_names = [f"site/{number % 50}/device/{number}" for number in range(10_000)]
    for step in range(2_000):
        names = opened.maker.topic_names[step % 10 * 1_000 :][:1_000]
        opened.log.append(opened.maker.run([b'{"value": 20.5}'] * 1_000, topics=names))
        opened.log.flush()
        if step % 50 == 0:
            await opened.committed.wait(step * 1_000)
    await opened.store(opened.maker.run([b"1"], topics=["rare/topic"]))
    table = store.logs["telemetry"].table
    await wait_until(lambda: len(table.chunks) >= 7 and len(table.open_rows) <= 66, 30)
    rows_read: list[int] = []
    body = StreamRows.body
    monkeypatch.setattr(StreamRows, "body", lambda rows, base: rows_read.append(base) or body(rows, base))
    for topic_filter in ("rare/topic", "rare/#"):
        rows_read.clear()
        reader = StreamReader(tmp_path / FILE_NAME)
        result = run_to_its_end(
            reader.scan(1, Scan("telemetry", opened.log.epoch, (topic_filter,), 0, 1 << 40, "json"))
        )
        reader.close()
        assert result.count == 1
        assert len(rows_read) == 1


def run_to_its_end(work: Generator[None, None, ScanResult]) -> ScanResult:
    while True:
        try:
            next(work)
        except StopIteration as end:
            assert isinstance(end.value, ScanResult)  # noqa: PT017 - the generator's result
            return end.value


async def test_scans_that_take_turns_all_know_the_topics(tmp_path: Path, opened: Opened) -> None:
    """A scan that begins while another with the same filters still learns the topics misses none of its records."""
    await opened.store(opened.maker.run(numbers(5)))
    reader = StreamReader(tmp_path / FILE_NAME)
    request = Scan("telemetry", opened.log.epoch, ("#",), 0, 5, "json")
    first, second = reader.scan(1, request), reader.scan(1, request)
    next(first)
    assert run_to_its_end(second).count == 5
    assert run_to_its_end(first).count == 5
    reader.close()
