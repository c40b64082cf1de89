"""Spool: what has moved to Kafka is written down in order with everything else, and is known after a restart."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bridge.streams.kafka.spool import Spool
from bridge.streams.kafka.spool_tables import Copies
from bridge.streams.sqlite_store import SqliteStore
from tests.support.log_contract import RunMaker, numbers, wait_until

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore.open(tmp_path)
    yield store
    await store.close()


async def spool_of_ten(store: SqliteStore) -> Spool:
    spool = Spool(store, "telemetry")
    spool.log.append(RunMaker(spool.log).run(numbers(10)))
    spool.log.flush()
    await wait_until(lambda: spool.next_offset == 10)
    return spool


def moved_rows(store: SqliteStore, spool: Spool) -> list[tuple[int, int, int]]:
    connection = sqlite3.connect(store.path)
    rows = connection.execute(f"SELECT partition, base, count FROM drained_{spool.table_id} ORDER BY 1, 2").fetchall()
    connection.close()
    return rows


async def test_batches_of_one_turn_are_all_written_and_all_told(store: SqliteStore) -> None:
    spool = await spool_of_ten(store)
    told: list[str] = []
    spool.moved([Copies(0, 100, [0, 2, 4])], lambda: told.append("first"))
    spool.moved([Copies(1, 200, [1, 3])], lambda: told.append("second"))
    assert (spool.moved_to, spool.moved_end, spool.records) == (5, 5, 5)
    assert told == []
    await wait_until(lambda: told == ["first", "second"])
    assert moved_rows(store, spool) == [(0, 100, 3), (1, 200, 2)]
    spool.close()


async def test_what_is_written_behind_moved_records_comes_behind_them(store: SqliteStore) -> None:
    spool = await spool_of_ten(store)
    order: list[str] = []
    spool.moved([Copies(0, 100, [0, 1])], lambda: order.append("moved"))
    spool.forget_copies(lambda: order.append("forgotten"))
    await wait_until(lambda: len(order) == 2)
    assert order == ["moved", "forgotten"]
    assert moved_rows(store, spool) == []
    spool.close()


async def test_what_moved_in_the_last_turn_is_known_after_a_restart(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path)
    spool = await spool_of_ten(store)
    spool.moved([Copies(0, 100, [0, 1, 5])])
    spool.close()
    await store.close()

    store = SqliteStore.open(tmp_path)
    spool = Spool(store, "telemetry")
    assert (spool.moved_to, spool.moved_end) == (2, 6)
    assert [offset for offset in range(10) if spool.is_moved(offset)] == [0, 1, 5]
    spool.close()
    await store.close()


async def test_a_refusal_of_nothing_changes_nothing(store: SqliteStore) -> None:
    spool = await spool_of_ten(store)
    done: list[bool] = []
    spool.forget([], lambda: done.append(True))
    await wait_until(lambda: bool(done))
    assert (spool.moved_to, spool.records) == (0, 10)
    spool.close()
