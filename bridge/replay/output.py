"""Where an export goes: a file beside which its bookmark is kept, or standard output.

Bytes, records and position move together, so that a bookmark never covers half a record: what the file holds behind it
is cut off when the export goes on.
"""

from __future__ import annotations

import os
import sys
import time
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from bridge.cursors import Cursor, StreamPosition
from bridge.replay.bookmark import Bookmark
from bridge.replay.source import ReplayFailed

KEEP_EVERY_S = 1.0
BOOKMARK_SUFFIX = ".resume"


class Written(NamedTuple):
    """How much is written, and the position behind it."""

    bytes: int
    records: int
    position: StreamPosition


class Output(Protocol):
    """Takes an export."""

    written: Written

    def write(self, data: bytes, records: int, position: StreamPosition) -> None:
        """Some whole records, or none and a position that has moved.

        Raises: ReplayFailed
        """

    def keep(self) -> None:
        """Make sure of what is written.

        Raises: ReplayFailed
        """

    def finish(self) -> None:
        """All is written.

        Raises: ReplayFailed
        """

    def close(self) -> None:
        """Let go of it, however far it came."""


class PipeOutput:
    """Standard output, or something else that only takes bytes."""

    def __init__(self, path: Path | None, position: StreamPosition, head: bytes) -> None:
        """`path` None: standard output.

        Raises: ReplayFailed
        """
        self._path = path
        try:
            self._file: BinaryIO | FileIO = sys.stdout.buffer if path is None else path.open("wb", buffering=0)
        except OSError as error:
            raise _cannot_write(path, error) from error
        self.written = Written(0, 0, position)
        self.write(head, 0, position)

    def write(self, data: bytes, records: int, position: StreamPosition) -> None:
        try:
            if data:
                write_all(self._file, data)
                self._file.flush()  # who reads at the other end sees each record in its time
        except BrokenPipeError:
            raise  # who reads has had enough
        except OSError as error:
            raise _cannot_write(self._path, error) from error
        before = self.written
        self.written = Written(before.bytes + len(data), before.records + records, position)

    def keep(self) -> None:
        """Nothing to keep: a pipe cannot be gone on with."""

    def finish(self) -> None:
        """All of it has been written."""

    def close(self) -> None:
        if self._path is not None:
            self._file.close()


class FileOutput:
    """A file and its bookmark."""

    def __init__(
        self,
        path: Path,
        head: bytes,
        position: StreamPosition,
        request: dict[str, Any],
        times: tuple[int | None, int],
        bookmark: Bookmark | None,
    ) -> None:
        """Begin the file anew, or go on with it at `bookmark`.

        Raises: ReplayFailed
        """
        self._path = path
        self._bookmark_path = bookmark_path(path)
        self._request = request
        self._times = times
        self._kept_at = time.monotonic()
        try:
            self._file = path.open("wb" if bookmark is None else "r+b", buffering=0)
        except FileNotFoundError as error:
            raise ReplayFailed(f"there is no {path if bookmark is not None else path.parent}.") from error
        except OSError as error:
            raise self._failed(error) from error
        try:
            if bookmark is None:
                write_all(self._file, head)
                self.written = Written(len(head), 0, position)
            else:
                self._cut(bookmark)
                self.written = Written(bookmark.bytes, bookmark.records, position)
            self.keep()
        except OSError as error:
            self._file.close()
            raise self._failed(error) from error
        except ReplayFailed:
            self._file.close()
            raise

    def _cut(self, bookmark: Bookmark) -> None:
        size = self._file.seek(0, os.SEEK_END)
        if size < bookmark.bytes:
            raise ReplayFailed(
                f"{self._path} has {size:,} bytes, and {self._bookmark_path.name} says {bookmark.bytes:,}: it was "
                "changed since. Begin again without --resume."
            )
        self._file.seek(bookmark.bytes)
        self._file.truncate()

    def write(self, data: bytes, records: int, position: StreamPosition) -> None:
        before = self.written
        try:
            write_all(self._file, data)
        except OSError as error:
            raise self._failed(error) from error
        self.written = Written(before.bytes + len(data), before.records + records, position)
        if time.monotonic() - self._kept_at >= KEEP_EVERY_S:
            self.keep()

    def keep(self) -> None:
        written = self.written
        try:
            os.fsync(self._file.fileno())
            cursor = str(Cursor({self._request["stream"]: written.position}))
            Bookmark(self._request, *self._times, cursor, written.records, written.bytes).save(self._bookmark_path)
        except OSError as error:
            raise self._failed(error) from error
        self._kept_at = time.monotonic()

    def finish(self) -> None:
        self.keep()
        self._bookmark_path.unlink()

    def close(self) -> None:
        self._file.close()

    def _failed(self, error: OSError) -> ReplayFailed:
        return ReplayFailed(f"{_cannot_write(self._path, error)} When that is mended: the same with --resume.")


class WholeFileOutput:
    """A file that is there once it is complete: nobody could read half of it, and nobody could go on with it."""

    def __init__(self, path: Path, position: StreamPosition) -> None:
        """Raises: ReplayFailed"""
        self.written = Written(0, 0, position)
        self._path = path
        self._part = path.with_name(path.name + ".part")
        try:
            self._file = self._part.open("wb", buffering=0)
        except OSError as error:
            raise _cannot_write(path, error) from error

    def write(self, data: bytes, records: int, position: StreamPosition) -> None:
        try:
            write_all(self._file, data)
        except OSError as error:
            raise _cannot_write(self._path, error) from error
        before = self.written
        self.written = Written(before.bytes + len(data), before.records + records, position)

    def keep(self) -> None:
        """Half a file is not worth keeping."""

    def finish(self) -> None:
        try:
            os.fsync(self._file.fileno())
            self._part.replace(self._path)
        except OSError as error:
            raise _cannot_write(self._path, error) from error

    def close(self) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)


def write_all(file: BinaryIO | FileIO, data: bytes) -> None:
    """A file without a buffer may take less than it is given."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _cannot_write(path: Path | None, error: OSError) -> ReplayFailed:
    reason = (error.strerror or str(error)).lower()
    return ReplayFailed(f"cannot write {path or 'to standard output'}: {reason}.")


def bookmark_path(path: Path) -> Path:
    """Where the bookmark of an export to `path` is kept."""
    return path.with_name(path.name + BOOKMARK_SUFFIX)
