"""Backup and restore of files: what is copied, what is refused, and what is kept."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from bridge import backup
from bridge.backup import BackupFailed, back_up
from bridge.restore import RestoreFailed, restore
from bridge.streams.sqlite_schema import FILE_NAME, LOCK_NAME, DataDirectoryInUse, StoreNewer, StoreUnusable
from bridge.streams.sqlite_store import SqliteStore
from tests.support.log_contract import Committed, FakeClock, Opened, RunMaker, wait_until
from tests.unit.streams.conftest import OpenStore
from tests.unit.streams.test_sqlite_store import opened_log


def rows(file: Path, sql: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(file)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def change(file: Path, sql: str) -> None:
    connection = sqlite3.connect(file)
    with connection:
        connection.execute(sql)
    connection.close()


def everything(file: Path) -> dict[str, object]:
    """All tables of a file with all their rows, and its indexes."""
    names = rows(file, "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
    found: dict[str, object] = {
        str(name): (sql, sorted(map(repr, rows(file, f"SELECT * FROM {name}")))) for name, sql in names
    }
    found["meta"] = sorted(rows(file, "SELECT * FROM meta WHERE key <> 'copied_ms'"))
    found["indexes"] = sorted(rows(file, "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"))
    return found


def names_in(directory: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in directory.glob(pattern))


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows are a chunk, and a copy of a few rows takes many reads."""
    monkeypatch.setattr("bridge.streams.upkeep.CHUNK_ROWS", 3)
    monkeypatch.setattr(backup, "STEP_BYTES", 20_000)
    monkeypatch.setattr(backup, "PAUSE_S_MIN", 0.0)


async def fill(store: SqliteStore, name: str = "telemetry", groups: int = 300, **settings: int) -> None:
    """Rows of 50 records, most of them in sealed chunks."""
    opened = opened_log(store, name, **settings)
    for number in range(groups):
        await opened.store(opened.maker.run([b"x" * 100] * 50, time_ms=1_000_000 + number))


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
async def test_file_of_the_data_directory_is_never_replaced(open_store: OpenStore, tmp_path: Path, suffix: str) -> None:
    data_dir = tmp_path / "data"
    store = open_store(data_dir)
    await fill(store, groups=1)
    own = data_dir / (FILE_NAME + suffix)
    before = own.read_bytes() if own.exists() else None
    (tmp_path / "way").symlink_to(data_dir)
    (tmp_path / "link").symlink_to(own)
    targets = [own, tmp_path / "way" / own.name, data_dir / ".." / "data" / own.name, tmp_path / "link"]
    if before is not None:
        (tmp_path / "second name").hardlink_to(own)
        targets.append(tmp_path / "second name")
    for target in targets:
        with pytest.raises(BackupFailed, match="is a file of this data directory"):
            back_up(data_dir, target, overwrites=True)
    assert (own.read_bytes() if own.exists() else None) == before


async def test_lock_of_the_data_directory_is_never_replaced(open_store: OpenStore, tmp_path: Path) -> None:
    open_store(tmp_path)
    with pytest.raises(BackupFailed, match="is a file of this data directory"):
        back_up(tmp_path, tmp_path / LOCK_NAME, overwrites=True)


async def test_copy_of_a_stopped_server_has_every_table_row_and_index(
    open_store: OpenStore, tmp_path: Path, quick_upkeep: None, small_steps: None
) -> None:
    store = open_store()
    await fill(store)
    await fill(store, "other", groups=3)
    await wait_until(lambda: len(store.logs["telemetry"].table.chunks) > 0)
    await store.close()
    change(tmp_path / FILE_NAME, "CREATE TABLE later(a, b)")
    change(tmp_path / FILE_NAME, "INSERT INTO later VALUES (1, x'ff')")
    change(tmp_path / FILE_NAME, "CREATE INDEX later_a ON later(a)")
    done = back_up(tmp_path, tmp_path / "copy")
    assert everything(tmp_path / "copy") == everything(tmp_path / FILE_NAME)
    assert done.bytes > 0, "nothing was copied in steps"
    assert rows(tmp_path / "copy", "PRAGMA integrity_check") == [("ok",)]
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    assert names_in(tmp_path, "copy*") == ["copy"]


async def test_copy_is_of_one_moment_whatever_is_written_merged_and_dropped_meanwhile(
    open_store: OpenStore, tmp_path: Path, quick_upkeep: None, small_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two reads of the copy the store writes, and retention drops what was copied first."""
    store = open_store()
    await fill(store, retention_bytes=1_200_000)
    table = store.logs["telemetry"].table
    await wait_until(lambda: len(table.chunks) > 1)
    opened = opened_log_again(store)
    reads = 0

    def between_reads(seconds: float) -> None:
        nonlocal reads
        reads += 1
        for _ in range(10):
            run = opened.maker.run([b"x" * 100] * 50, time_ms=3_000_000)
            opened.log.append(run)
        opened.log.flush()
        store.writer.call(lambda: [store._upkeep.step() for _ in range(20)])

    monkeypatch.setattr("bridge.backup.time.sleep", between_reads)
    first_before = table.extent().first_offset
    back_up(tmp_path, tmp_path / "copy")
    assert reads > 2
    batches = rows(tmp_path / "copy", f"SELECT base, count FROM {table.batch} ORDER BY base")
    assert batches[0][0] > first_before, "retention did not drop what was copied"  # type: ignore[operator]
    ends = [base + count for base, count in batches]  # type: ignore[operator]
    assert ends[:-1] == [base for base, _ in batches[1:]]
    chunks = rows(tmp_path / "copy", f"SELECT first, end FROM {table.chunk} ORDER BY first")
    assert all(first in {base for base, _ in batches} for first, _ in chunks[1:])
    copied = SqliteStore.open(_as_directory(tmp_path / "copy"))
    again = opened_log(copied)
    expected = list(range(int(str(batches[0][0])), int(str(ends[-1]))))
    assert await again.offsets(records_max=10**6, bytes_max=10**8) == expected
    await copied.close()


def opened_log_again(store: SqliteStore) -> Opened:
    log = store.logs["telemetry"]
    return Opened(log, RunMaker(log), Committed(log), FakeClock())


def _as_directory(file: Path) -> Path:
    directory = file.with_name("as-directory")
    directory.mkdir()
    file.rename(directory / FILE_NAME)
    return directory


async def test_stream_that_was_replaced_meanwhile_is_copied_as_it_is_now(
    open_store: OpenStore, tmp_path: Path, quick_upkeep: None, small_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    await fill(store)
    table = store.logs["telemetry"].table
    await wait_until(lambda: len(table.chunks) > 1)
    await store.close()
    reads = 0

    def replace_at_the_third(seconds: float) -> None:
        nonlocal reads
        reads += 1
        if reads == 3:
            change(tmp_path / FILE_NAME, "UPDATE stream SET epoch = 'sother'")
            change(tmp_path / FILE_NAME, f"DELETE FROM {table.batch}")
            change(tmp_path / FILE_NAME, f"DELETE FROM {table.chunk}")
            change(tmp_path / FILE_NAME, f"INSERT INTO {table.batch} VALUES (0, 1, 1, 1, x'01000000', x'00')")

    monkeypatch.setattr("bridge.backup.time.sleep", replace_at_the_third)
    back_up(tmp_path, tmp_path / "copy")
    assert everything(tmp_path / "copy") == everything(tmp_path / FILE_NAME)


async def test_file_that_exists_is_left_alone_without_force(open_store: OpenStore, tmp_path: Path) -> None:
    await open_store().close()
    (tmp_path / "copy").write_text("mine")
    with pytest.raises(BackupFailed, match=r"exists\. Choose another name, or replace it with --force"):
        back_up(tmp_path, tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "mine"
    back_up(tmp_path, tmp_path / "copy", overwrites=True)
    assert rows(tmp_path / "copy", "SELECT count(*) FROM stream") == [(0,)]


async def test_failure_leaves_neither_the_file_nor_a_part_of_it(
    open_store: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_store().close()
    change(tmp_path / FILE_NAME, "CREATE TABLE later(a)")
    change(tmp_path / FILE_NAME, "INSERT INTO later VALUES (1)")
    monkeypatch.setattr(backup, "mark_as_copy", _raise)
    with pytest.raises(BackupFailed, match="cannot back up"):
        back_up(tmp_path, tmp_path / "copy")
    assert names_in(tmp_path, "copy*") == []


def _raise(*_: object) -> None:
    raise sqlite3.OperationalError("disk I/O error")


async def test_room_is_looked_for_before_anything_is_written(
    open_store: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_store().close()
    monkeypatch.setattr(backup, "_bytes_used", lambda connection: 1 << 60)
    with pytest.raises(BackupFailed, match=r"GB free, and 1,152,921,504\.6 GB are needed\. Free some"):
        back_up(tmp_path, tmp_path / "copy")
    monkeypatch.setattr(backup, "_bytes_used", lambda connection: 126_976)
    monkeypatch.setattr(backup, "free_bytes", lambda directory: 4_096)
    with pytest.raises(BackupFailed, match=r" has 4\.1 kB free, and 127\.0 kB are needed\. Free some"):
        back_up(tmp_path, tmp_path / "copy")


def test_directory_without_data_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match=r"there is no headrace\.sqlite in"):
        back_up(tmp_path, tmp_path / "copy")


@pytest.fixture
async def copy(open_store: OpenStore, tmp_path: Path) -> Path:
    """A backup of a stream with 100 records."""
    store = open_store(tmp_path / "source")
    await fill(store, groups=2)
    await store.close()
    back_up(tmp_path / "source", tmp_path / "copy")
    return tmp_path / "copy"


async def test_restored_directory_has_the_records_under_a_new_epoch(
    open_store: OpenStore, copy: Path, tmp_path: Path
) -> None:
    old_epoch = rows(copy, "SELECT epoch FROM stream")[0][0]
    assert restore(copy, tmp_path / "data") is None
    opened = opened_log(open_store(tmp_path / "data"))
    assert await opened.offsets() == list(range(100))
    assert opened.log.epoch != old_epoch


async def test_two_restores_of_one_backup_differ(open_store: OpenStore, copy: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        restore(copy, tmp_path / name)
    epochs = {opened_log(open_store(tmp_path / name)).log.epoch for name in ("a", "b")}
    assert len(epochs) == 2


async def test_directory_with_data_is_left_alone_without_force_and_kept_with_it(
    open_store: OpenStore, copy: Path, tmp_path: Path
) -> None:
    store = open_store(tmp_path / "data")
    await fill(store, "mine", groups=1)
    await store.close()
    with pytest.raises(RestoreFailed, match=r"has data\. Choose another --data, or replace it with --force"):
        restore(copy, tmp_path / "data")
    kept = restore(copy, tmp_path / "data", overwrites=True)
    assert kept == tmp_path / "data" / "headrace.sqlite.before-restore"
    assert rows(kept, "SELECT name FROM stream") == [("mine",)]
    assert rows(tmp_path / "data" / FILE_NAME, "SELECT name FROM stream") == [("telemetry",)]
    again = restore(copy, tmp_path / "data", overwrites=True)
    assert again is not None
    assert again.name == "headrace.sqlite.before-restore.2"


async def test_log_of_a_killed_server_is_in_what_is_kept_and_not_in_what_is_new(
    open_store: OpenStore, copy: Path, tmp_path: Path
) -> None:
    """SQLite would read a write-ahead log that was left behind into the new file."""
    data_dir = tmp_path / "data"
    await open_store(data_dir).close()
    held = sqlite3.connect(data_dir / FILE_NAME, isolation_level=None)
    held.execute("CREATE TABLE unfinished(a)")
    log = (data_dir / f"{FILE_NAME}-wal").read_bytes()
    held.close()
    change(data_dir / FILE_NAME, "DROP TABLE unfinished")
    (data_dir / f"{FILE_NAME}-wal").write_bytes(log)
    kept = restore(copy, data_dir, overwrites=True)
    assert kept is not None
    assert not (data_dir / f"{FILE_NAME}-wal").exists()
    assert rows(data_dir / FILE_NAME, "PRAGMA integrity_check") == [("ok",)]
    assert rows(data_dir / FILE_NAME, "SELECT count(*) FROM sqlite_master WHERE name = 'unfinished'") == [(0,)]


async def test_directory_in_use_is_refused_also_with_force(open_store: OpenStore, copy: Path, tmp_path: Path) -> None:
    open_store(tmp_path / "data")
    with pytest.raises(DataDirectoryInUse):
        restore(copy, tmp_path / "data", overwrites=True)


def test_damaged_backup_changes_nothing(copy: Path, tmp_path: Path) -> None:
    damaged = bytearray(copy.read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 8_192] = b"\x5a" * 8_192
    copy.write_bytes(damaged)
    with pytest.raises(RestoreFailed, match=r"is damaged .* Use another backup"):
        restore(copy, tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["headrace.lock"]


@pytest.mark.parametrize("text", [b"", b"no database at all" * 1_000])
def test_what_is_no_backup_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "copy").write_bytes(text)
    with pytest.raises(StoreUnusable, match="is not a Headrace database"):
        restore(tmp_path / "copy", tmp_path / "data")


def test_newer_backup_is_refused(copy: Path, tmp_path: Path) -> None:
    change(copy, "UPDATE meta SET value = 99 WHERE key = 'format_version'")
    with pytest.raises(StoreNewer, match="newer Headrace"):
        restore(copy, tmp_path / "data")


def test_file_of_a_running_server_is_refused(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "copy-wal").write_bytes(b"x")
    with pytest.raises(RestoreFailed, match="has a write-ahead log beside it"):
        restore(copy, tmp_path / "data")


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RestoreFailed, match="there is no file"):
        restore(tmp_path / "copy", tmp_path / "data")
