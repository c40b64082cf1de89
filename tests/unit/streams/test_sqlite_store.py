"""What the stored log adds to the contract: restarts, locks, versions, packet ids, upkeep."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
from array import array
from contextlib import closing
from pathlib import Path

import pytest

from bridge.records import RecordRun
from bridge.streams.frames import decode_body, encode_record, encode_segment
from bridge.streams.sqlite_schema import (
    FILE_NAME,
    NODE_RUNS_LOW,
    DataDirectoryInUse,
    StoreNewer,
    StoreUnusable,
    open_reader,
)
from bridge.streams.sqlite_store import SqliteStore
from bridge.streams.topic_index import RowTopics
from bridge.streams.upkeep import LatestEntry
from broker.sink import UNKNOWN, stored_content
from tests.support.log_contract import Committed, FakeClock, Opened, RunMaker, numbers, rows_of, wait_until
from tests.unit.streams.conftest import OpenStore


def opened_log(store: SqliteStore, name: str = "telemetry", clock: FakeClock | None = None, **settings: int) -> Opened:
    log = store.open_log(name, **settings)  # type: ignore[arg-type]
    return Opened(log, RunMaker(log), Committed(log), clock or FakeClock())


def query(data_dir: Path, sql: str) -> list[tuple[object, ...]]:
    connection = open_reader(data_dir / FILE_NAME)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


async def test_records_offsets_epoch_and_time_go_on_after_a_restart(open_store: OpenStore) -> None:
    store = open_store()
    first = opened_log(store)
    await first.store(first.maker.run(numbers(5), time_ms=5_000))
    first_run = int(store.node_run[1:])
    await store.close()
    store = open_store()
    assert store.node_run == f"n{first_run + 1}"
    second = opened_log(store)
    assert second.log.epoch == first.log.epoch
    assert (second.log.first_offset, second.log.next_offset, second.log.newest_ms) == (0, 5, 5_000)
    assert second.log.stored_bytes == first.log.stored_bytes
    run = second.maker.run(numbers(2), time_ms=4_000)
    await second.store(run)
    assert (run.base_offset, run.received_at_ms) == (5, 5_000)
    ids = [row["id"] for row in rows_of(await second.log.scan(second.request()))]
    assert ids == [*(f"n{first_run}-{number}" for number in range(1, 6)), f"n{first_run + 1}-1", f"n{first_run + 1}-2"]


async def test_runs_of_the_node_are_not_those_of_another_directory(tmp_path: Path) -> None:
    runs: list[int] = []
    for name in ("one", "two", "one"):
        store = SqliteStore.open(tmp_path / name, reader_processes=0)
        runs.append(int(store.node_run[1:]))
        await store.close()
    assert abs(runs[0] - runs[1]) > 1
    assert runs[2] == runs[0] + 1
    assert all(run < 2**32 for run in runs)


async def test_a_directory_from_when_all_runs_began_with_1_gets_runs_of_its_own(
    tmp_path: Path, open_store: OpenStore
) -> None:
    store = open_store()
    await opened_log(store).store(RunMaker().run(numbers(1)))
    await store.close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("UPDATE meta SET value = 7 WHERE key = 'node_run'")
        connection.execute("DELETE FROM meta WHERE key = 'node_runs_from'")
        connection.commit()
    store = open_store()
    run = int(store.node_run[1:])
    assert run >= NODE_RUNS_LOW
    assert opened_log(store).log.next_offset == 1
    await store.close()
    assert open_store().node_run == f"n{run + 1}"


async def test_what_is_made_is_for_its_owner_alone_and_what_is_there_keeps_its_mode(
    open_store: OpenStore, tmp_path: Path
) -> None:
    """Everything that devices say is in these files."""
    data_dir = tmp_path / "data"
    store = open_store(data_dir)
    await opened_log(store).store(RunMaker(store.logs["telemetry"]).run(numbers(1)))
    modes = {path.name: path.stat().st_mode & 0o777 for path in (data_dir, *data_dir.iterdir())}
    names = [FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm", "headrace.lock"]
    assert modes == {"data": 0o700} | dict.fromkeys(names, 0o600)
    await store.close()
    data_dir.chmod(0o755)
    (data_dir / FILE_NAME).chmod(0o640)
    open_store(data_dir)
    assert [path.stat().st_mode & 0o777 for path in (data_dir, data_dir / FILE_NAME)] == [0o755, 0o640]


async def test_streams_are_apart_and_commit_in_one_group(open_store: OpenStore) -> None:
    store = open_store()
    logs = [opened_log(store, name) for name in ("one", "two")]
    for number, opened in enumerate(logs):
        opened.log.append(opened.maker.run(numbers(3 + number)))
    logs[0].log.flush()
    for number, opened in enumerate(logs):
        await opened.committed.wait(3 + number)
        assert await opened.offsets() == list(range(3 + number))
    assert logs[0].log.epoch != logs[1].log.epoch


async def test_offsets_are_not_given_again_when_retention_has_emptied_a_stream(
    open_store: OpenStore, quick_upkeep: None
) -> None:
    clock = FakeClock()
    store = open_store(clock=clock)
    opened = opened_log(store, retention_age_ms=1_000)
    await opened.store(opened.maker.run(numbers(7)))
    clock.now_ms += 5_000
    await wait_until(lambda: opened.log.first_offset == 7)
    await store.close()
    opened = opened_log(open_store(clock=clock), retention_age_ms=1_000)
    assert (opened.log.first_offset, opened.log.next_offset) == (7, 7)
    run = opened.maker.run(numbers(1), time_ms=1)
    await opened.store(run)
    assert (run.base_offset, run.received_at_ms) == (7, 1_000_000)


async def test_a_second_server_is_told_who_has_the_directory(open_store: OpenStore, tmp_path: Path) -> None:
    open_store()
    with pytest.raises(DataDirectoryInUse, match=str(os.getpid())) as caught:
        SqliteStore.open(tmp_path)
    assert caught.value.pid == os.getpid()
    assert caught.value.since is not None


async def test_a_newer_format_is_refused_and_left_alone(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store()
    await store.close()
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("UPDATE meta SET value = 99 WHERE key = 'format_version'")
    connection.commit()
    connection.close()
    with pytest.raises(StoreNewer, match="newer Headrace"):
        SqliteStore.open(tmp_path)
    assert query(tmp_path, "SELECT value FROM meta WHERE key = 'node_run'") == [(int(store.node_run[1:]),)]


async def test_a_file_of_format_1_is_read_on_and_upgraded(
    open_store: OpenStore, tmp_path: Path, quick_upkeep: None
) -> None:
    store = open_store()
    opened = opened_log(store)
    for _ in range(3):
        await opened.store(opened.maker.run(numbers(5)))
    await store.close()
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        for base, count, column in connection.execute("SELECT base, count, topics FROM batch_1").fetchall():
            ids = array("I", sorted(RowTopics(column, count).count_by_id()))
            connection.execute("UPDATE batch_1 SET topics = ? WHERE base = ?", (ids.tobytes(), base))
        for table in ("retained", "session", "subscription", "owed", "flight", "ended_flight", "copy"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("ALTER TABLE unreleased DROP COLUMN content")
        connection.execute("INSERT INTO unreleased VALUES ('device', 7)")
        connection.execute("UPDATE meta SET value = 1 WHERE key = 'format_version'")
    connection.close()
    upgraded = open_store()
    assert upgraded.unreleased("device") == {7: UNKNOWN}
    again = opened_log(upgraded)
    assert query(tmp_path, "SELECT value FROM meta WHERE key = 'format_version'") == [(6,)]
    assert query(tmp_path, "SELECT topic FROM retained UNION ALL SELECT client_id FROM session") == []
    for _ in range(40):
        await again.store(again.maker.run(numbers(5)))
    assert await again.offsets(again.maker.topic_names[1]) == [n for n in range(215) if n % 5 in (1, 4)]


async def test_other_files_and_missing_rights_are_said(open_store: OpenStore, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / FILE_NAME).write_bytes(b"no database" * 1_000)
    with pytest.raises(StoreUnusable, match="not a database"):
        SqliteStore.open(tmp_path / "a")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnusable, match="cannot use the data directory"):
        SqliteStore.open(tmp_path / "file")
    (tmp_path / "b").mkdir()
    connection = sqlite3.connect(tmp_path / "b" / FILE_NAME)
    connection.execute("CREATE TABLE other(x)")
    connection.close()
    with pytest.raises(StoreUnusable, match="not a Headrace database"):
        SqliteStore.open(tmp_path / "b")


async def test_packet_ids_commit_with_their_records(open_store: OpenStore) -> None:
    store = open_store()
    opened = opened_log(store)
    run = opened.maker.run(numbers(3), qos=2, client_id="kept")
    run.packet_ids = [5, 6, 7]
    run.keeps_packet_ids = True
    plain = opened.maker.run(numbers(1), qos=2, client_id="clean")
    opened.log.append(run)
    assert store.unreleased("kept") == {}
    await opened.store(plain)
    assert store.unreleased("kept").keys() == {5, 6, 7}
    contents = dict(store.unreleased("kept"))
    assert contents[6] == stored_content(run.routes[1].topic_name, numbers(3)[1])
    assert store.unreleased("clean") == {}
    released = asyncio.Event()
    store.release("kept", 6, released.set)
    await released.wait()
    assert store.unreleased("kept") == {5: contents[5], 7: contents[7]}
    await store.close()
    store = open_store()
    assert store.unreleased("kept") == {5: contents[5], 7: contents[7]}
    opened = opened_log(store)
    again = opened.maker.run(numbers(1), qos=2, client_id="kept")
    again.packet_ids, again.keeps_packet_ids = [9], True
    opened.log.append(again)
    store.forget("kept")
    await opened.committed.wait(1)
    done = asyncio.Event()
    store.release("kept", 9, done.set)
    await done.wait()
    assert store.unreleased("kept") == {}
    await store.close()
    assert open_store().unreleased("kept") == {}


async def test_a_callback_that_fails_does_not_keep_the_other_acknowledgements(
    open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()
    bad, good = opened_log(store, "bad"), opened_log(store, "good")

    def fail(runs: object) -> None:
        raise RuntimeError("a bug")

    bad.log.on_committed = fail
    bad.log.append(bad.maker.run(numbers(1)))
    await good.store(good.maker.run(numbers(1)))
    await good.store(good.maker.run(numbers(1)))
    assert good.committed.count == 2
    assert "a callback after a commit failed" in caplog.text


async def test_small_rows_are_merged_and_sealed_and_read_the_same(
    open_store: OpenStore, tmp_path: Path, quick_upkeep: None
) -> None:
    store = open_store()
    opened = opened_log(store)
    opened.maker.topic_names = [f"t/{number}" for number in range(40)]
    count = 0
    for step in range(900):
        size = 1 if step < 600 else 700
        opened.log.append(opened.maker.run(numbers(size, count), time_ms=1_000_000 + step))
        opened.log.flush()
        count += size
        if step % 3 == 0:
            await asyncio.sleep(0)
        if step < 600 or step % 2:
            await opened.committed.wait(count)
    await opened.committed.wait(count)
    table = store.logs["telemetry"].table
    await wait_until(lambda: len(table.chunks) >= 2 and len(table.open_rows) < 80)
    rows = query(tmp_path, "SELECT count(*), sum(count), sum(length(body)) FROM batch_1")
    assert rows[0][0] < 400  # type: ignore[operator]
    assert rows[0][1:] == (count, opened.log.stored_bytes)
    seen: list[object] = []
    position = 0
    while position < count:
        result = await opened.log.scan(opened.request(start=position, records_max=9_000, bytes_max=1 << 22))
        seen += [row["payload"] for row in rows_of(result)]
        position = result.next_offset
    assert seen == list(range(count))
    assert await opened.offsets("t/0", end=610) == list(range(601))
    assert await opened.log.offset_at(1_000_000 + 300) == 300
    await store.close()
    opened = opened_log(open_store())
    assert (opened.log.next_offset, opened.log.stored_bytes) == (count, rows[0][2])


async def test_topics_without_records_are_dropped_and_may_come_back(
    open_store: OpenStore, tmp_path: Path, quick_upkeep: None
) -> None:
    clock = FakeClock()
    store = open_store(clock=clock)
    opened = opened_log(store, clock=clock, retention_age_ms=1_000)
    for number in range(300):
        await opened.store(opened.maker.run([b"1"], topics=[f"old/{number}"]))
    old = opened.maker.route("old/7").sink_topic
    assert old is not None
    old_id = old.topic_id  # type: ignore[attr-defined]
    clock.now_ms += 2_000
    await opened.store(opened.maker.run(numbers(2), topics=["new"], time_ms=clock.now_ms))
    await wait_until(lambda: query(tmp_path, "SELECT name FROM topic_1") == [("new",)])
    # The cached `Topic` still has the old id, which is never used again.
    await opened.store(opened.maker.run(numbers(1), topics=["old/7"], time_ms=clock.now_ms))
    assert old.topic_id > old_id  # type: ignore[attr-defined]
    assert await opened.offsets("old/#") == [302]
    assert await opened.offsets("old/7", "new") == [300, 301, 302]
    await store.close()
    opened = opened_log(open_store(clock=clock), clock=clock)
    await opened.store(opened.maker.run(numbers(1), topics=["another"], time_ms=clock.now_ms))
    ids = [int(str(row[0])) for row in query(tmp_path, "SELECT id FROM topic_1 ORDER BY id")]
    assert len(ids) == 3
    assert min(ids) > 299


async def test_readers_see_the_same_records_whatever_upkeep_does(open_store: OpenStore, quick_upkeep: None) -> None:
    """Random writes, merges and retention under readers that resume: nothing twice, holes only by retention."""
    random_source = random.Random(3)
    store = open_store()
    opened = opened_log(store, retention_bytes=150_000)
    opened.maker.topic_names = [f"t/{number}" for number in range(9)]
    topic_of: list[str] = []

    async def write() -> None:
        for _ in range(400):
            size = random_source.choice([1, 1, 1, 2, 5, 60, 300])
            name = random_source.choice(opened.maker.topic_names)
            opened.log.append(opened.maker.run(numbers(size, len(topic_of)), topics=[name]))
            topic_of.extend([name] * size)
            opened.log.flush()
            await asyncio.sleep(0.001)

    async def read(topic_filter: str) -> None:
        position, last = 0, -1
        while not writing.done() or position < opened.log.next_offset or opened.log.pending_bytes:
            result = await opened.log.scan(
                opened.request(topic_filter, start=position, records_max=random_source.randrange(1, 900))
            )
            rows = rows_of(result)
            offsets = [row["offset"] for row in rows]
            wanted = range(max(position, result.first_offset), result.next_offset)
            expected = [offset for offset in wanted if topic_filter in ("t/#", topic_of[offset])]
            assert offsets == expected
            assert all([row["payload"] == row["offset"] for row in rows])
            assert not offsets or offsets[0] > last  # type: ignore[operator]
            last = offsets[-1] if offsets else last  # type: ignore[assignment]
            assert result.next_offset >= position
            position = result.next_offset
        assert position == len(topic_of)

    writing = asyncio.create_task(write())
    await asyncio.gather(writing, *[read(topic_filter) for topic_filter in ("t/#", "t/3", "t/8")])
    assert opened.log.first_offset > 0
    await wait_until(lambda: opened.log.stored_bytes <= 150_000)


async def test_latest_values_come_back_with_their_place(open_store: OpenStore) -> None:
    store = open_store()
    opened = opened_log(store)
    run = opened.maker.run(numbers(3), topics=["a", "b", "c"])
    await opened.store(run)
    log = store.logs["telemetry"]
    topics = [route.sink_topic for route in run.routes]
    (record_run,) = decoded(b"".join(encode_segment(run, 1)))
    entries = [
        LatestEntry(topic, row, 1_000, 10 + row, 500, encode_record(record_run, row))  # type: ignore[arg-type]
        for row, topic in enumerate(topics)
    ]
    log.save_latest(entries[:2], {0: 2})
    log.save_latest([entries[1]._replace(total=99), entries[2]], {0: 3})
    await store.close()
    loaded, checkpoint = open_store().open_log("telemetry").load_latest()
    assert checkpoint == {0: 3}
    assert [(entry.topic.name, entry.offset, entry.total) for entry in sorted(loaded, key=lambda e: e.offset)] == [
        ("a", 0, 10),
        ("b", 1, 99),
        ("c", 2, 12),
    ]
    assert {len(decoded(entry.segment)[0]) for entry in loaded} == {1}


def decoded(body: bytes) -> list[RecordRun]:
    return decode_body(body, 0, {})


@pytest.mark.parametrize("seed", range(4))
async def test_a_torn_write_ahead_log_loses_only_its_tail(open_store: OpenStore, tmp_path: Path, seed: int) -> None:
    random_source = random.Random(seed)
    store = open_store()
    opened = opened_log(store)
    sizes: list[int] = []
    for _ in range(30):
        size = random_source.randrange(1, 200)
        await opened.store(opened.maker.run(numbers(size, sum(sizes))))
        sizes.append(size)
    copy = tmp_path / "copy"
    copy.mkdir()
    for suffix in ("", "-wal"):  # without -shm, as after a crash of the machine
        shutil.copy(tmp_path / (FILE_NAME + suffix), copy)
    wal = copy / (FILE_NAME + "-wal")
    cut = random_source.randrange(wal.stat().st_size // 2, wal.stat().st_size)
    os.truncate(wal, cut)
    with wal.open("r+b") as file:  # and what was being written is garbage
        file.seek(max(0, cut - 100))
        file.write(random_source.randbytes(100))
    torn = opened_log(open_store(copy))
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    assert torn.log.next_offset in [0, *ends]
    assert 0 < torn.log.next_offset < ends[-1]
    result = await torn.log.scan(torn.request(records_max=10_000, bytes_max=1 << 22))
    assert [row["payload"] for row in rows_of(result)] == list(range(torn.log.next_offset))
    assert query(copy, "PRAGMA integrity_check") == [("ok",)]
    run = torn.maker.run(numbers(1))
    before = torn.log.next_offset
    await torn.store(run)
    assert run.base_offset == before


async def test_retention_keeps_up_with_a_publisher_that_never_pauses(open_store: OpenStore) -> None:
    limit = 3_000_000
    opened = opened_log(open_store(), retention_bytes=limit)
    template = opened.maker.run([b"x" * 200] * 300)
    peak = 0
    for _ in range(600):
        opened.log.append(opened.maker.again(template))
        opened.log.flush()
        await wait_until(lambda: opened.log.pending_bytes < 500_000)
        peak = max(peak, opened.log.stored_bytes)
    assert opened.committed.count > 100_000
    assert peak < limit * 1.05 + 2_000_000  # a group or two


async def test_the_file_does_not_grow_when_as_much_is_dropped_as_comes(
    open_store: OpenStore, tmp_path: Path, quick_upkeep: None
) -> None:
    opened = opened_log(open_store(), retention_bytes=1_000_000)
    template = opened.maker.run([b"x" * 100] * 100)
    pages = []
    for step in range(400):
        await opened.store(opened.maker.again(template))
        if step % 200 == 199:
            await wait_until(lambda: opened.log.stored_bytes <= 1_000_000)
            pages.append(int(str(query(tmp_path, "PRAGMA page_count")[0][0])))
    assert pages[1] <= pages[0] * 1.1
