"""Trimming to an exact place, in both embedded storages, and deleting a stream in steps."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.streams.memory_log import MemoryLog
from bridge.streams.removal import DELETED_PREFIX
from bridge.streams.sqlite_log import SqliteLog
from bridge.streams.sqlite_store import SqliteStore
from tests.support.log_contract import Committed, FakeClock, Opened, RunMaker, numbers, offsets_of, rows_of, wait_until
from tests.unit.streams.conftest import OpenStore
from tests.unit.streams.test_sqlite_store import opened_log, query


class Trimmable(Opened):
    """A log that can be trimmed."""

    log: MemoryLog | SqliteLog


@pytest.fixture(params=["memory", "sqlite"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Trimmable]:
    clock = FakeClock()
    store = SqliteStore.open(tmp_path, clock=clock) if request.param == "sqlite" else None
    log = store.open_log("telemetry") if store is not None else MemoryLog("telemetry", node_run="n1", clock=clock)
    yield Trimmable(log, RunMaker(log), Committed(log), clock)
    if store is not None:
        await store.close()


@pytest.mark.parametrize("before", [0, 1, 9, 10, 11, 15, 25, 29])
async def test_trim_drops_exactly_what_lies_before(opened: Trimmable, before: int) -> None:
    """Rows and runs have ten records; the last ones come by MQTT 5, with properties."""
    for number in range(2):
        await opened.store(opened.maker.run(numbers(10, number * 10), time_ms=1_000 + number))
    properties = b"\x03\x00\x03a/b"
    await opened.store(opened.maker.run(numbers(10, 20), time_ms=1_002, properties=properties, client_id="other"))
    before_rows = rows_of(await opened.log.scan(opened.request()))
    await opened.log.trim(before)
    assert opened.log.first_offset == before
    assert opened.log.oldest_ms == 1_000 + before // 10
    result = await opened.log.scan(opened.request())
    assert rows_of(result) == before_rows[before:]
    assert result.first_offset == before
    assert opened.log.next_offset == 30


async def test_trim_of_all_leaves_the_next_offset(opened: Trimmable) -> None:
    await opened.store(opened.maker.run(numbers(10)))
    await opened.log.trim(99)
    assert (opened.log.first_offset, opened.log.next_offset, opened.log.oldest_ms) == (10, 10, None)
    assert opened.log.stored_bytes == 0
    run = opened.maker.run(numbers(1))
    await opened.store(run)
    assert run.base_offset == 10


async def test_what_is_trimmed_is_not_counted(opened: Trimmable) -> None:
    await opened.store(opened.maker.run([b"x" * 100] * 10))
    whole = opened.log.stored_bytes
    await opened.log.trim(5)
    assert whole * 0.4 < opened.log.stored_bytes < whole * 0.6


async def test_topics_of_a_cut_row_are_counted_anew(opened: Trimmable) -> None:
    """A search by topic finds what is left and does not look for what is gone."""
    await opened.store(opened.maker.run(numbers(9), topics=["a", "b", "c"]))
    await opened.log.trim(7)
    assert await opened.offsets("a") == []
    assert await opened.offsets("b") == [7]
    assert await opened.offsets("+") == [7, 8]


async def test_scan_that_began_before_tells_of_the_hole(opened: Trimmable) -> None:
    await opened.store(opened.maker.run(numbers(10)))
    first = await opened.log.scan(opened.request(records_max=3))
    assert offsets_of(first) == [0, 1, 2]
    await opened.log.trim(6)
    second = await opened.log.scan(opened.request(start=first.next_offset))
    assert (second.first_offset, offsets_of(second)) == (6, [6, 7, 8, 9])


async def test_trim_to_a_size_keeps_the_newest(opened: Trimmable) -> None:
    for number in range(10):
        await opened.store(opened.maker.run([b"x" * 1_000] * 4, time_ms=number))
    whole = opened.log.stored_bytes
    offset = await opened.log.offset_keeping(whole // 2)
    assert offset == 20
    assert await opened.log.offset_keeping(whole) == 0
    assert await opened.log.offset_keeping(0) == 40
    await opened.log.trim(offset)
    assert opened.log.stored_bytes <= whole // 2


async def test_trim_in_a_sealed_chunk_survives_a_restart(
    open_store: OpenStore, tmp_path: Path, quick_upkeep: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.streams.upkeep.CHUNK_ROWS", 3)
    store = open_store()
    opened = opened_log(store)
    for number in range(24):
        await opened.store(opened.maker.run([b"x" * 1_000] * 1_000, time_ms=number))
    await wait_until(lambda: len(opened.log.table.chunks) > 1)
    await opened.log.trim(1_500)
    size = opened.log.stored_bytes
    for _ in range(2):
        assert await opened.offsets(records_max=2) == [1_500, 1_501]
        assert opened.log.stored_bytes == size
        await store.close()
        store = open_store()
        opened = opened_log(store)
    assert await opened.log.offset_keeping(2_500_000) == 22_000


async def test_deleted_stream_is_gone_at_once_and_its_rows_soon(
    open_store: OpenStore, tmp_path: Path, quick_upkeep: None
) -> None:
    store = open_store()
    opened = opened_log(store, "old")
    for _ in range(40):
        await opened.store(opened.maker.run(numbers(20)))
    await store.close()
    store = open_store()
    kept = opened_log(store, "kept")
    assert await store.delete_stream("old")
    assert query(tmp_path, f"SELECT name FROM stream WHERE name NOT LIKE '{DELETED_PREFIX}%'") == [("kept",)]
    await wait_until(lambda: not store.is_removing)
    tables = {name for (name,) in query(tmp_path, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert not [name for name in tables if str(name).endswith("_1")]
    assert query(tmp_path, "SELECT name FROM stream") == [("kept",)]
    await kept.store(kept.maker.run(numbers(3)))
    assert await kept.offsets() == [0, 1, 2]


async def test_deletion_goes_on_after_a_restart(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store()
    opened_log(store, "old")
    await store.close()
    connection = sqlite3.connect(tmp_path / "headrace.sqlite")
    with connection:
        connection.execute("UPDATE stream SET name = 'deleted:1'")
    connection.close()
    store = open_store()
    await wait_until(lambda: not store.is_removing)
    assert query(tmp_path, "SELECT count(*) FROM stream") == [(0,)]


async def test_number_of_a_deleted_stream_is_not_given_again(open_store: OpenStore, quick_upkeep: None) -> None:
    """Readers remember decoded rows by it."""
    store = open_store()
    first = opened_log(store, "old").log.table.stream_id
    await store.close()
    store = open_store()
    assert await store.delete_stream("old")
    await wait_until(lambda: not store.is_removing)
    again = opened_log(store, "old").log
    assert again.table.stream_id > first


async def test_open_stream_is_not_deleted(open_store: OpenStore) -> None:
    store = open_store()
    opened_log(store, "mine")
    with pytest.raises(ValueError, match="is open"):
        await store.delete_stream("mine")
    assert not await store.delete_stream("nobody's")


async def test_trim_that_is_not_waited_for_happens(open_store: OpenStore, quick_upkeep: None) -> None:
    opened = opened_log(open_store())
    await opened.store(opened.maker.run(numbers(10)))
    waiting = asyncio.create_task(opened.log.trim(4))
    await asyncio.sleep(0)
    waiting.cancel()
    await wait_until(lambda: opened.log.first_offset == 4)
