"""A data directory that is a copy begins a new life: nothing that was given away since is given again unnoticed."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from bridge.streams.kafka.spool import Spool
from bridge.streams.kafka.spool_tables import SPOOL_PREFIX
from bridge.streams.new_life import mark_as_copy
from bridge.streams.sqlite_schema import FILE_NAME, NODE_RUNS_APART
from tests.support.log_contract import numbers
from tests.unit.streams.conftest import OpenStore
from tests.unit.streams.test_sqlite_store import opened_log, query


def mark(data_dir: Path) -> None:
    connection = sqlite3.connect(data_dir / FILE_NAME)
    with connection:
        mark_as_copy(connection, 1)
    connection.close()


async def test_every_stream_has_a_new_epoch_and_its_records(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store()
    before = [opened_log(store, name) for name in ("one", "two")]
    for opened in before:
        await opened.store(opened.maker.run(numbers(5)))
    await store.close()
    mark(tmp_path)
    store = open_store()
    after = [opened_log(store, name) for name in ("one", "two")]
    epochs = {opened.log.epoch for opened in (*before, *after)}
    assert len(epochs) == 4
    assert [await opened.offsets() for opened in after] == [list(range(5))] * 2


async def test_record_ids_go_on_elsewhere(open_store: OpenStore, tmp_path: Path) -> None:
    """Those of the runs that followed the copy are not given again, and these may go on to."""
    store = open_store()
    before = int(store.node_run[1:])
    await store.close()
    mark(tmp_path)
    store = open_store()
    assert abs(int(store.node_run[1:]) - before) >= NODE_RUNS_APART
    run = int(store.node_run[1:])
    await store.close()
    assert open_store().node_run == f"n{run + 1}"


async def test_open_qos_2_exchanges_are_forgotten(open_store: OpenStore, tmp_path: Path) -> None:
    """Or the packet id that a device uses for its next message would be taken for a repeat."""
    await open_store().close()
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    with connection:
        connection.execute("INSERT INTO unreleased VALUES ('device', 7, 1)")
    connection.close()
    mark(tmp_path)
    assert open_store().unreleased("device") == {}


async def test_it_happens_once(open_store: OpenStore, tmp_path: Path) -> None:
    await open_store().close()
    mark(tmp_path)
    store = open_store()
    epoch = opened_log(store).log.epoch
    await store.close()
    assert opened_log(open_store()).log.epoch == epoch


async def test_spool_looks_for_what_it_holds_before_it_sends_it(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store()
    spool = Spool(store, "iot")
    opened = opened_log(store, SPOOL_PREFIX + "iot")
    await opened.store(opened.maker.run(numbers(6)))
    await store.close()
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    with connection:
        connection.executemany(
            f"INSERT OR REPLACE INTO kafka_{spool.table_id} VALUES (?, ?)",
            [("moved_to", "2"), ("sent_until", "2"), ("offsets", json.dumps({"0": 10, "1": 20}))],
        )
    connection.close()
    mark(tmp_path)
    again = Spool(open_store(), "iot")
    assert again.epoch != spool.epoch
    assert (again.moved_to, again.sent_until, again.search_from) == (2, 6, {0: 10, 1: 20})


async def test_spool_that_was_sending_searches_from_where_it_would_have(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store()
    spool = Spool(store, "iot")
    opened = opened_log(store, SPOOL_PREFIX + "iot")
    await opened.store(opened.maker.run(numbers(6)))
    await store.close()
    values = {"moved_to": "2", "sent_until": "4", "offsets": '{"0": 10}', "search_from": '{"0": 5}'}
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    with connection:
        connection.executemany(f"INSERT OR REPLACE INTO kafka_{spool.table_id} VALUES (?, ?)", values.items())
    connection.close()
    mark(tmp_path)
    again = Spool(open_store(), "iot")
    assert (again.sent_until, again.search_from) == (6, {0: 5})
    assert query(tmp_path, "SELECT count(*) FROM meta WHERE key = 'copied_ms'") == [(0,)]
