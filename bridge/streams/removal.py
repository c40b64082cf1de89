"""StreamRemoval: a stream that is deleted goes in small steps of the writer thread, as everything else in upkeep does.

It loses its name at once, in one transaction, so that it is gone for everybody and the name is free; its rows follow,
and last its tables. A step that a crash prevents is done after the next start: the new name says what it is.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator

from bridge.streams.upkeep import transaction

DELETED_PREFIX = "deleted:"
"""Before the number of a stream whose rows are being deleted; no stream can be called so."""
STREAM_ID_MIN = "stream_id_min"
"""The key in `meta` under which the least number stands that a new stream may get: none is given twice."""
STEP_ROWS = 10
STEP_BYTES = 1024 * 1024
STEP_ENTRIES = 2_000
"""Rows of the small tables beside the log's."""


def rename_deleted(connection: sqlite3.Connection, stream_id: int, name: str) -> None:
    """Within the caller's transaction: the stream is gone from here on."""
    execute = connection.execute
    execute("UPDATE stream SET name = ? WHERE id = ?", (f"{DELETED_PREFIX}{stream_id}", stream_id))
    if execute("SELECT 1 FROM sqlite_master WHERE name = 'dead_letter'").fetchone() is not None:
        execute("DELETE FROM dead_letter WHERE stream = ?", (name,))


def next_stream_id(connection: sqlite3.Connection) -> int:
    """The number of a new stream. Readers remember rows by it, so it is never that of a deleted one."""
    (found,) = connection.execute(
        "SELECT max(ifnull((SELECT max(id) FROM stream), 0) + 1, ifnull((SELECT value FROM meta WHERE key = ?), 1))",
        (STREAM_ID_MIN,),
    ).fetchone()
    return int(found)


class StreamRemoval:
    """What is left of one deleted stream; see `bridge.streams.sqlite_writer.Upkeep`."""

    def __init__(
        self, connection: sqlite3.Connection, stream_id: int, on_removed: Callable[[StreamRemoval], None]
    ) -> None:
        self._connection = connection
        self._stream_id = stream_id
        self._on_removed = on_removed
        self._steps: Iterator[None] | None = self._remove()

    def step(self) -> bool:
        if self._steps is None:
            return False
        try:
            next(self._steps)
        except StopIteration:
            self._steps = None
            self._on_removed(self)
        except sqlite3.Error:
            self._steps = self._remove()  # a generator that has raised is over; what is done is done
            raise
        return True

    def is_urgent(self) -> bool:
        return False

    def idle(self) -> None:
        """Nothing waits for a pause."""

    def finish(self) -> None:
        """The next start goes on."""

    def _remove(self) -> Iterator[None]:
        execute = self._connection.execute
        batch = f"batch_{self._stream_id}"
        tables = self._tables()
        while batch in tables and (end := self._next_end(batch)) is not None:
            execute(f"DELETE FROM {batch} WHERE base < ?", (end,))
            yield
        for table in tables:
            while (
                self._has_rowid(table)
                and execute(
                    f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} LIMIT {STEP_ENTRIES})"
                ).rowcount
            ):
                yield
            execute(f"DROP TABLE {table}")
            yield
        with transaction(self._connection):
            execute("DELETE FROM stream WHERE id = ?", (self._stream_id,))
            execute(
                "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT(key) DO UPDATE SET value = max(value, ?2)",
                (STREAM_ID_MIN, self._stream_id + 1),
            )

    def _tables(self) -> list[str]:
        names = self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return [name for (name,) in names if re.fullmatch(rf"[a-z]+_{self._stream_id}", name)]

    def _next_end(self, batch: str) -> int | None:
        """Where the next rows to delete end; None when there is none."""
        end, size = None, 0
        for row_end, body_bytes in self._connection.execute(
            f"SELECT base + count, length(body) FROM {batch} ORDER BY base LIMIT {STEP_ROWS}"
        ).fetchall():
            if size and size + body_bytes > STEP_BYTES:
                break
            end, size = row_end, size + body_bytes
        return end

    def _has_rowid(self, table: str) -> bool:
        (sql,) = self._connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        return "WITHOUT ROWID" not in sql.upper()
