"""kill -9 in the middle of groups, and a disk that is full: what was told as stored stays, in order."""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bridge.streams.sqlite_schema import FILE_NAME, open_reader
from tests.support.log_contract import Committed, FakeClock, Opened, RunMaker, numbers, rows_of, wait_until
from tests.unit.streams.conftest import OpenStore
from tests.unit.streams.writing_child import COUNTERS


def kill_while_in_flight(data_dir: Path, counters_path: Path, random_source: random.Random) -> tuple[int, int]:
    """Let a child write, stop it while records are appended and not committed, kill it; (appended, committed)."""
    counters_path.write_bytes(bytes(COUNTERS.size))
    child = subprocess.Popen([sys.executable, "-m", "tests.unit.streams.writing_child", data_dir, counters_path])
    try:
        with counters_path.open("r+b") as file, mmap.mmap(file.fileno(), COUNTERS.size) as counters:
            started = COUNTERS.unpack_from(counters)[1]
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                assert child.poll() is None, "the child ended by itself"
                time.sleep(random_source.uniform(0.002, 0.03))
                os.kill(child.pid, signal.SIGSTOP)
                appended, committed = COUNTERS.unpack_from(counters)
                if committed > started and appended > committed:
                    return appended, committed
                os.kill(child.pid, signal.SIGCONT)
        raise AssertionError("nothing was in flight for 20 s")
    finally:
        child.kill()
        child.wait()


async def check_after_crash(data_dir: Path, open_store: OpenStore, committed: int, start: int = 0) -> int:
    """Everything told as committed is there, from `start` on, in order; returns the next offset."""
    store = open_store(data_dir)
    log = store.open_log("telemetry")
    assert log.next_offset >= committed
    opened = Opened(log, RunMaker(log), Committed(log), FakeClock())
    position = start
    while position < log.next_offset:
        result = await log.scan(opened.request(start=position, records_max=50_000, bytes_max=1 << 23))
        wanted = list(range(position, result.next_offset))
        rows = rows_of(result)
        assert [row["offset"] for row in rows] == wanted
        assert [row["payload"] for row in rows] == wanted
        position = result.next_offset
    connection = open_reader(data_dir / FILE_NAME)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    next_offset = log.next_offset
    await store.close()
    return next_offset


async def kill_rounds(data_dir: Path, open_store: OpenStore, rounds: int, seed: int) -> None:
    random_source = random.Random(seed)
    next_offset = 0
    for number in range(rounds):
        appended, committed = await asyncio.to_thread(
            kill_while_in_flight, data_dir / "store", data_dir / "counters", random_source
        )
        assert appended > committed >= next_offset
        is_last = number == rounds - 1  # all of it is read again then; before, what is new
        start = 0 if is_last else next_offset
        next_offset = await check_after_crash(data_dir / "store", open_store, committed, start)


async def test_kill_9_loses_nothing_that_was_told_as_stored(tmp_path: Path, open_store: OpenStore) -> None:
    await kill_rounds(tmp_path, open_store, 2, seed=1)


@pytest.mark.slow
async def test_kill_9_again_and_again(tmp_path: Path, open_store: OpenStore) -> None:
    await kill_rounds(tmp_path, open_store, 12, seed=2)


async def test_a_full_disk_keeps_records_in_order_until_there_is_room(
    tmp_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.streams.sqlite_writer.RETRY_S", 0.01)
    store = open_store(tmp_path)
    log = store.open_log("telemetry")
    other = store.open_log("other")
    opened = Opened(log, RunMaker(log), Committed(log), FakeClock())
    failures: list[str] = []
    recovered = asyncio.Event()
    store.on_failure = failures.append
    store.on_recovered = recovered.set
    await opened.store(opened.maker.run(numbers(100)))
    connection: sqlite3.Connection = store.logs["telemetry"].table.connection
    pages = store.writer.call(lambda: connection.execute("PRAGMA page_count").fetchone()[0])
    store.writer.call(lambda: connection.execute(f"PRAGMA max_page_count = {pages + 2}").fetchall())
    runs = [opened.maker.run([b"x" * 5_000] * 4, topics=[f"new/{step}"]) for step in range(4)]
    for run in runs:
        log.append(run)
        log.flush()
    await wait_until(lambda: bool(failures))
    assert "full" in failures[0]
    assert log.failure == other.failure == failures[0]
    assert opened.committed.count == 100
    # While nothing can be stored one publisher is refused; the others keep their order.
    await wait_until(lambda: log.withdraw(runs[1]))
    late = opened.maker.run(numbers(1))
    log.append(late)
    log.flush()
    assert log.pending_bytes == sum(len(run.frames()) for run in (runs[0], runs[2], runs[3], late))
    store.writer.call(lambda: connection.execute("PRAGMA max_page_count = 100000").fetchall())
    await opened.committed.wait(113)
    await recovered.wait()
    assert log.failure is None
    assert len(failures) == 1
    assert opened.committed.runs[1:] == [runs[0], runs[2], runs[3], late]
    assert [run.base_offset for run in opened.committed.runs] == [0, 100, 104, 108, 112]
    assert log.pending_bytes == 0
    assert await opened.offsets("new/+") == list(range(100, 112))
    assert await opened.offsets("new/1") == []


async def test_closing_with_a_full_disk_ends_and_acknowledges_nothing(tmp_path: Path, open_store: OpenStore) -> None:
    store = open_store(tmp_path)
    log = store.open_log("telemetry")
    opened = Opened(log, RunMaker(log), Committed(log), FakeClock())
    await opened.store(opened.maker.run(numbers(3)))
    connection: sqlite3.Connection = store.logs["telemetry"].table.connection
    store.writer.call(lambda: connection.execute("PRAGMA max_page_count = 1").fetchall())
    log.append(opened.maker.run([b"x" * 50_000]))
    async with asyncio.timeout(5):
        await store.close()
    assert opened.committed.count == 3
    again = open_store(tmp_path).open_log("telemetry")
    assert again.next_offset == 3


def can_mount(directory: Path) -> bool:
    """A small file system of our own; only root has that."""
    if os.geteuid() != 0:
        return False
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(directory)], capture_output=True)
    return mounted.returncode == 0


async def test_a_file_system_without_room_is_survived(
    tmp_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.streams.sqlite_writer.RETRY_S", 0.01)
    disk = tmp_path / "disk"
    disk.mkdir()
    if not can_mount(disk):
        pytest.skip("needs the right to mount a small file system")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(1_000_000))
        store = open_store(disk / "data")
        log = store.open_log("telemetry")
        opened = Opened(log, RunMaker(log), Committed(log), FakeClock())
        written = 0
        while log.failure is None:
            log.append(opened.maker.run(numbers(500, written)))
            written += 500
            log.flush()
            await asyncio.sleep(0.001)
        assert "full" in log.failure or "I/O" in log.failure
        committed = opened.committed.count
        assert await opened.offsets(start=committed - 3, end=committed) == list(range(committed - 3, committed))
        ballast.unlink()
        await opened.committed.wait(written)
        await store.close()
        assert await check_after_crash(disk / "data", open_store, written) == written
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", str(disk)], check=True)
