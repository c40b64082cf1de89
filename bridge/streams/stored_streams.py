"""What a data directory's file holds, read without its lock: for the command line, also beside a running server."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from bridge.streams.kafka.spool_tables import SPOOL_PREFIX, waiting_records
from bridge.streams.removal import DELETED_PREFIX
from bridge.streams.sqlite_schema import FILE_NAME, StoreUnusable, check_readable, open_reader


@dataclass(frozen=True, slots=True)
class StoredStream:
    """One stream of the file."""

    stream_id: int
    name: str
    epoch: str
    retention_age_ms: int | None
    retention_bytes: int | None
    first_offset: int
    next_offset: int
    oldest_ms: int | None
    newest_ms: int | None
    bytes: int
    waiting: int
    """Of a spool: how many of its records wait for Kafka."""

    @property
    def records(self) -> int:
        """How many it has."""
        return self.next_offset - self.first_offset

    @property
    def base_name(self) -> str:
        """That of the stream on Kafka when it is a spool."""
        return self.name.removeprefix(SPOOL_PREFIX)

    @property
    def is_spool(self) -> bool:
        """It is the spool of a stream on Kafka."""
        return self.name.startswith(SPOOL_PREFIX)


def open_stored(data_dir: Path) -> sqlite3.Connection:
    """A connection that only reads.

    Raises: StoreUnusable, StoreNewer
    """
    path = data_dir / FILE_NAME
    if not path.exists():
        raise StoreUnusable(f"there is no {FILE_NAME} in {data_dir}")
    try:
        connection = open_reader(path)
    except sqlite3.Error as error:
        raise StoreUnusable(f"cannot open {path}: {error}") from error
    try:
        check_readable(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def stored_streams(connection: sqlite3.Connection) -> list[StoredStream]:
    """All streams of the file, in the order in which they were made; one consistent view."""
    connection.execute("BEGIN")
    try:
        rows = connection.execute(
            "SELECT id, name, epoch, retention_age_ms, retention_bytes, next_offset FROM stream ORDER BY id"
        ).fetchall()
        return [_stored_stream(connection, *row) for row in rows if not row[1].startswith(DELETED_PREFIX)]
    finally:
        connection.execute("COMMIT")


def _stored_stream(
    connection: sqlite3.Connection,
    stream_id: int,
    name: str,
    epoch: str,
    age_ms: int | None,
    bytes_max: int | None,
    next_offset: int,
) -> StoredStream:
    batch, chunk = f"batch_{stream_id}", f"chunk_{stream_id}"

    def one(sql: str, *parameters: int) -> tuple[int, ...]:
        found: tuple[int, ...] | None = connection.execute(sql, parameters).fetchone()
        return found or (0, 0, 0)

    first, _, oldest_ms = one(f"SELECT base, count, time_min FROM {batch} ORDER BY base LIMIT 1")
    last, count, newest_ms = one(f"SELECT base, count, time_max FROM {batch} ORDER BY base DESC LIMIT 1")
    # Of a sealed chunk the size is known; the oldest may have lost rows, and behind the last no row is sealed yet.
    head_first, head_end, _ = one(f"SELECT first, end, 0 FROM {chunk} ORDER BY first LIMIT 1")
    (sealed,) = one(f"SELECT ifnull(sum(bytes), 0) FROM {chunk} WHERE first > ?", head_first)
    (sealed_end,) = one(f"SELECT ifnull(max(end), 0) FROM {chunk}")
    (loose,) = one(
        f"SELECT ifnull(sum(length(body)), 0) FROM {batch} WHERE base < ? OR base >= ?", head_end, sealed_end
    )
    end = max(next_offset, last + count)
    return StoredStream(
        stream_id,
        name,
        epoch,
        age_ms,
        bytes_max,
        first_offset=first if count else next_offset,
        next_offset=end,
        oldest_ms=oldest_ms if count else None,
        newest_ms=newest_ms if count else None,
        bytes=sealed + loose,
        waiting=waiting_records(connection, stream_id, end) if name.startswith(SPOOL_PREFIX) else 0,
    )
