"""Restore: a backup put back as a data directory's file.

At every moment of it the directory has one whole file, the old one or the new one. What was there is kept beside it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bridge.backup import BackupFailed, check_room, first_fault, move_into_place, sync_directory
from bridge.streams.new_life import mark_as_copy
from bridge.streams.sqlite_schema import FILE_NAME, DataDirectoryLock, check_readable

KEPT_SUFFIX = ".before-restore"
NEW_SUFFIX = ".restoring"
COPY_BYTES = 4 * 1024 * 1024


class RestoreFailed(Exception):
    """Nothing was put back; the text says why and what to do."""


def restore(
    file: Path, data_dir: Path, *, overwrites: bool = False, on_progress: Callable[[int, int], None] = lambda *_: None
) -> Path | None:
    """Make `file` what `data_dir` has; returns where the file that was there is kept, if there was one.

    Raises: RestoreFailed, DataDirectoryInUse, StoreUnusable, StoreNewer
    """
    if not file.is_file():
        raise RestoreFailed(f"there is no file {file}.")
    place = data_dir / FILE_NAME
    if file.resolve() == place.resolve():
        raise RestoreFailed(f"{file} is the file of this data directory already.")
    lock = DataDirectoryLock(data_dir)
    try:
        if place.exists() and not overwrites:
            raise RestoreFailed(
                f"{data_dir} has data. Choose another --data, or replace it with --force: what it has is kept as "
                f"{FILE_NAME}{KEPT_SUFFIX}."
            )
        new = place.with_name(place.name + NEW_SUFFIX)
        try:
            _copy(file, new, on_progress)
            _prepare(new, file)
            return _swap(place, new)
        finally:
            new.unlink(missing_ok=True)
    except BackupFailed as error:
        raise RestoreFailed(str(error)) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RestoreFailed(f"cannot write {error.filename or place}: {reason}.") from error
    finally:
        lock.release()


def _copy(file: Path, new: Path, on_progress: Callable[[int, int], None]) -> None:
    log = file.with_name(file.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise RestoreFailed(
            f"{file} has a write-ahead log beside it: it is a server's own file. Make a backup of that: headrace backup"
        )
    with closing(_open(file, "immutable=1")) as connection:
        check_readable(connection, file)
    size = file.stat().st_size
    check_room(new.parent, size)
    new.unlink(missing_ok=True)
    with file.open("rb") as reading, open(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as writing:
        while data := reading.read(COPY_BYTES):
            writing.write(data)
            on_progress(writing.tell(), size)


def _open(file: Path, options: str) -> sqlite3.Connection:
    try:
        return sqlite3.connect(f"{file.absolute().as_uri()}?{options}", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise RestoreFailed(f"cannot open {file}: {error}.") from error


def _prepare(new: Path, file: Path) -> None:
    """Check the copy, and mark it, so that the next start begins a new life with it."""
    with closing(_open(new, "mode=rw")) as connection:
        try:
            fault = first_fault(connection, "integrity_check")
            if fault is None:
                connection.execute("PRAGMA journal_mode = DELETE")
                mark_as_copy(connection, time.time_ns() // 1_000_000)
        except sqlite3.DatabaseError as error:
            fault = str(error)
    if fault is not None:
        raise RestoreFailed(f"{file} is damaged ({fault}). Use another backup.")


def _swap(place: Path, new: Path) -> Path | None:
    """The new file takes the old one's name, and the old one another."""
    kept: Path | None = None
    if place.exists():
        _end_log(place)
        kept = _free_name(place.with_name(place.name + KEPT_SUFFIX))
        try:
            os.link(place, kept)
        except OSError:  # not every file system has links
            shutil.copy(place, kept)
    move_into_place(new, place)
    return kept


def _end_log(place: Path) -> None:
    """Bring what is in the old file's write-ahead log into it: the log must not be taken for the new file's."""
    log = place.with_name(place.name + "-wal")
    try:
        with closing(_open(place, "mode=rw")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.DatabaseError:
        if log.exists():  # the file is damaged: its log is kept beside it, under the name that belongs to it
            kept = _free_name(place.with_name(place.name + KEPT_SUFFIX))
            log.replace(kept.with_name(f"{kept.name}-wal"))
    for suffix in ("-wal", "-shm"):
        place.with_name(place.name + suffix).unlink(missing_ok=True)
    sync_directory(place.parent)


def _free_name(path: Path) -> Path:
    """The path itself, or with a number behind it."""
    number = 1
    free = path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free
