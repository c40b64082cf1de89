"""Backup: a consistent copy of a data directory's file, made while a server writes to it or while none does.

Rows of the log that are sealed never change, so they are copied in many short reads; the rest, which is little, in one
that ends them all at the same moment. So the server's WAL can begin anew all the time, however large the file is, and
the copy is never begun again because somebody wrote. The copy carries a mark: who opens it as a data directory begins a
new life with it (`bridge.streams.new_life`).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bridge.disk_room import bytes_text, free_bytes
from bridge.streams.new_life import mark_as_copy
from bridge.streams.sqlite_schema import APPLICATION_ID, FILE_NAME, FILE_SUFFIXES, LOCK_NAME, PAGE_BYTES
from bridge.streams.stored_streams import open_stored

STEP_BYTES = 4 * 1024 * 1024
"""Read at a time: some 20 ms."""
STEP_ROWS = 256
PAUSE_RATIO = 0.5
PAUSE_S_MIN = 0.01
"""After each read, in proportion to it: the WAL begins anew with a commit that meets no reader."""
ROUNDS_MAX = 20
"""Over all streams, before the last read: each leaves as much as was written during it, which is less and less."""
PART_SUFFIX = ".part"


class BackupFailed(Exception):
    """There is no backup; the text says why and what to do."""


@dataclass(slots=True)
class _Log:
    """The rows of one stream, as far as they are copied."""

    stream_id: int
    epoch: str
    copied_end: int = 0

    @property
    def table(self) -> str:
        return f"batch_{self.stream_id}"


@dataclass(frozen=True, slots=True)
class BackupDone:
    """What was copied."""

    bytes: int
    longest_read_s: float
    """So long the server's WAL could not begin anew, at most."""


def back_up(
    data_dir: Path, file: Path, *, overwrites: bool = False, on_progress: Callable[[int, int], None] = lambda *_: None
) -> BackupDone:
    """Copy the state of `data_dir` to `file`, which is there once it is complete.

    Raises: BackupFailed, StoreUnusable, StoreNewer
    """
    if _is_of_directory(file, data_dir):
        raise BackupFailed(f"{file} is a file of this data directory. Choose another name: it would be lost.")
    if file.exists() and not overwrites:
        raise BackupFailed(f"{file} exists. Choose another name, or replace it with --force.")
    part = file.with_name(file.name + PART_SUFFIX)
    with closing(open_stored(data_dir)) as source:
        size = _bytes_used(source)
    check_room(part.parent, size)
    try:
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        done = _Copy(data_dir / FILE_NAME, part, size, on_progress).run()
        move_into_place(part, file)
        return done
    except sqlite3.Error as error:
        raise BackupFailed(f"cannot back up {data_dir} to {file}: {error}.") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BackupFailed(f"cannot write {error.filename or part}: {reason}.") from error
    finally:
        part.unlink(missing_ok=True)


def _is_of_directory(file: Path, data_dir: Path) -> bool:
    """Whether a name is one of the directory's own files, there or not, by whatever way it leads to it."""
    for own in (data_dir / name for name in (*(FILE_NAME + suffix for suffix in FILE_SUFFIXES), LOCK_NAME)):
        try:
            is_same = file.resolve() == own.resolve() or file.samefile(own)
        except OSError:  # one of them is not there, so they are not one file under two names
            is_same = False
        if is_same:
            return True
    return False


def _bytes_used(connection: sqlite3.Connection) -> int:
    pages, free, page_bytes = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * page_bytes)


def first_fault(connection: sqlite3.Connection, check: str) -> str | None:
    """What SQLite's `quick_check` or `integrity_check` finds first; None when all is well.

    Raises: sqlite3.DatabaseError, when it cannot even be looked at
    """
    found: str = connection.execute(f"PRAGMA {check}(1)").fetchone()[0]
    return None if found == "ok" else found.splitlines()[-1]


def check_room(directory: Path, size: int) -> None:
    """Raises: BackupFailed, when `size` bytes do not fit into a directory."""
    try:
        free = free_bytes(directory)
    except OSError as error:
        raise BackupFailed(f"cannot use {directory}: {(error.strerror or '').lower()}.") from error
    if free < size:
        raise BackupFailed(
            f"{directory} has {bytes_text(free)} free, and {bytes_text(size)} are needed. Free some, or choose "
            "another place."
        )


def move_into_place(part: Path, file: Path) -> None:
    """Rename a file that is complete, so that a power cut leaves it whole under one name or the other."""
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(file)
    sync_directory(file.parent)


def sync_directory(directory: Path) -> None:
    """Make renames in it last."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Copy:
    """One copy being made."""

    def __init__(self, source: Path, part: Path, size: int, on_progress: Callable[[int, int], None]) -> None:
        self._source = source
        self._connection = sqlite3.connect(f"{part.absolute().as_uri()}", uri=True, isolation_level=None)
        self._size = size
        self._on_progress = on_progress
        self._copied_bytes = 0
        self._last_read_s = self._longest_read_s = 0.0
        self._logs: dict[int, _Log] = {}

    def run(self) -> BackupDone:
        with closing(self._connection):
            self._prepare()
            for _ in range(ROUNDS_MAX):
                if not self._copy_sealed():
                    break
            self._timed(self._copy_rest)
            self._execute("DETACH source")
            if fault := first_fault(self._connection, "main.quick_check"):
                raise BackupFailed(f"the copy is damaged ({fault}), and so may be {self._source}.")
        return BackupDone(self._copied_bytes, self._longest_read_s)

    def _execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        return self._connection.execute(sql, parameters)

    def _prepare(self) -> None:
        self._execute(f"PRAGMA main.page_size = {PAGE_BYTES}")
        self._execute("PRAGMA main.journal_mode = OFF")  # a copy that is broken off is thrown away
        self._execute("PRAGMA main.synchronous = OFF")  # it is synced once, when it is complete
        self._execute("PRAGMA main.locking_mode = EXCLUSIVE")
        self._execute(f"PRAGMA main.application_id = {APPLICATION_ID}")
        self._execute("ATTACH ? AS source", f"{self._source.absolute().as_uri()}?mode=ro")

    def _copy_sealed(self) -> bool:
        """Copy sealed rows that are not copied yet; False when there was less than a step of them."""
        copied = 0
        for stream_id, epoch in self._execute("SELECT id, epoch FROM source.stream ORDER BY id").fetchall():
            log = self._logs.get(stream_id)
            if log is None:
                log = self._logs[stream_id] = _Log(stream_id, epoch)
            try:
                while size := self._timed(lambda log=log: self._copy_step(log)):  # type: ignore[misc]
                    time.sleep(max(PAUSE_S_MIN, self._last_read_s * PAUSE_RATIO))
                    copied += size
                    self._copied_bytes += size
                    self._on_progress(self._copied_bytes, max(self._size, self._copied_bytes))
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):
                    raise
                continue  # the stream was deleted meanwhile; the last read will say so
        return copied >= STEP_BYTES

    def _copy_step(self, log: _Log) -> int:
        """Copy some sealed rows in one short read; how many bytes of records they have."""
        self._execute("BEGIN")
        try:
            (sealed_end,) = self._execute(f"SELECT ifnull(max(end), 0) FROM source.chunk_{log.stream_id}").fetchone()
            end, size = log.copied_end, 0
            rows = self._execute(
                f"SELECT base + count, length(body) FROM source.{log.table} WHERE base >= ? AND base < ?"
                f" ORDER BY base LIMIT {STEP_ROWS}",
                log.copied_end,
                sealed_end,
            )
            for row_end, body_bytes in rows.fetchall():
                if size and size + body_bytes > STEP_BYTES:
                    break
                end, size = row_end, size + body_bytes
            if size:
                self._make(log.table)
                self._copy_rows(log, end)
                log.copied_end = end
            return size
        finally:
            self._execute("COMMIT")

    def _copy_rows(self, log: _Log, end: int) -> None:
        self._execute(
            f"INSERT INTO main.{log.table} SELECT * FROM source.{log.table} WHERE base >= ? AND base < ? ORDER BY base",
            log.copied_end,
            end,
        )

    def _make(self, table: str) -> None:
        """An empty table like the source's, unless it is there."""
        if self._execute("SELECT 1 FROM main.sqlite_master WHERE name = ?", table).fetchone() is None:
            (sql,) = self._execute("SELECT sql FROM source.sqlite_master WHERE name = ?", table).fetchone()
            self._execute(sql)

    def _copy_rest(self) -> int:
        """Everything that is not copied yet, as it is at one moment."""
        self._execute("BEGIN")
        epochs = dict(self._execute("SELECT id, epoch FROM source.stream").fetchall())
        for log in self._logs.values():
            if epochs.get(log.stream_id) != log.epoch:  # another stream, or none, has this number by now
                self._execute(f"DROP TABLE IF EXISTS main.{log.table}")
                log.copied_end = 0
        logs = {f"batch_{stream_id}": _Log(stream_id, epoch) for stream_id, epoch in epochs.items()}
        logs |= {log.table: log for log in self._logs.values()}
        for kind, name, sql in self._execute(
            "SELECT type, name, sql FROM source.sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%'"
            " ESCAPE '\\' ORDER BY type = 'table' DESC"
        ).fetchall():
            if kind != "table":
                self._execute(sql)  # indexes, behind the rows
            elif name in logs:
                self._copy_tail(logs[name])
            else:
                self._execute(sql)
                self._execute(f'INSERT INTO main."{name}" SELECT * FROM source."{name}"')
        mark_as_copy(self._connection, time.time_ns() // 1_000_000)
        self._execute("COMMIT")
        return 0

    def _copy_tail(self, log: _Log) -> None:
        """The rows behind what is copied; those that retention has dropped meanwhile go."""
        self._make(log.table)
        (first,) = self._execute(f"SELECT min(base) FROM source.{log.table}").fetchone()
        self._execute(f"DELETE FROM main.{log.table} WHERE ?1 IS NULL OR base < ?1", first)
        self._copy_rows(log, 1 << 62)

    def _timed(self, read: Callable[[], int]) -> int:
        began = time.monotonic()
        try:
            return read()
        finally:
            self._last_read_s = time.monotonic() - began
            self._longest_read_s = max(self._longest_read_s, self._last_read_s)
