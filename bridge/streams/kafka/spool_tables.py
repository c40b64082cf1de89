"""What the store's file holds of a spool, for whoever has a connection to it: the server, reader processes, commands.

`bridge.streams.kafka.spool` keeps it; the tables are explained there.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
from array import array
from collections.abc import Sequence
from typing import NamedTuple

SPOOL_PREFIX = "spool:"
"""Before the stream's name in the table of streams; no configured stream can be called so."""
READ_BYTES = 2 * 1024 * 1024

TABLES = (
    "CREATE TABLE IF NOT EXISTS kafka_{id}(key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS drained_{id}("
    "partition INTEGER, base INTEGER, count INTEGER NOT NULL, spool_first INTEGER NOT NULL,"
    " spool_last INTEGER NOT NULL, offsets BLOB NOT NULL, PRIMARY KEY(partition, base)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS drained_{id}_spool ON drained_{id}(spool_last)",
    "CREATE TABLE IF NOT EXISTS dead_letter("
    "id INTEGER PRIMARY KEY, stream TEXT NOT NULL, time_ms INTEGER NOT NULL, partition INTEGER NOT NULL,"
    " reason TEXT NOT NULL, topic TEXT NOT NULL, segment BLOB NOT NULL)",
)


class Copies(NamedTuple):
    """A batch of spooled records in Kafka: record `i` of `offsets` is `base + i` of `partition`."""

    partition: int
    base: int
    offsets: Sequence[int]

    @property
    def end(self) -> int:
        """One past the last of them in Kafka."""
        return self.base + len(self.offsets)


def encode_offsets(offsets: Sequence[int]) -> bytes:
    """Rising offsets as 32-bit distances from the first; little-endian on every machine."""
    first = offsets[0]
    column = array("I", [offset - first for offset in offsets])
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()


def decode_offsets(first: int, data: bytes) -> list[int]:
    """What `encode_offsets` made."""
    column = array("I", data)
    if sys.byteorder == "big":
        column.byteswap()
    return [first + distance for distance in column]


def read_bodies(connection: sqlite3.Connection, table_id: int, start: int, end: int) -> list[tuple[int, bytes]]:
    """(base, body) of the rows that hold `start <= offset < end`, some megabytes at most."""
    with contextlib.closing(
        connection.execute(
            f"SELECT base, body FROM batch_{table_id} WHERE base >= ifnull("
            f"(SELECT base FROM batch_{table_id} WHERE base <= ? ORDER BY base DESC LIMIT 1), 0) AND base < ?"
            " ORDER BY base",
            (start, end),
        )
    ) as rows:
        found: list[tuple[int, bytes]] = []
        size = 0
        for base, body in rows:
            found.append((base, body))
            size += len(body)
            if size >= READ_BYTES:
                break
    return found


def copies_in_kafka(connection: sqlite3.Connection, table_id: int, partition: int, low: int, high: int) -> list[Copies]:
    """The copies that stand at `low <= offset < high` of a partition."""
    rows = connection.execute(
        f"SELECT partition, base, spool_first, offsets FROM drained_{table_id}"
        " WHERE partition = ? AND base < ? AND base + count > ? ORDER BY base",
        (partition, high, low),
    )
    return [Copies(partition, base, decode_offsets(first, data)) for partition, base, first, data in rows]


def copies_from(
    connection: sqlite3.Connection,
    table_id: int,
    partition: int,
    base: int,
    spool_low: int | None = None,
    spool_high: int = 0,
) -> list[Copies]:
    """The batches of copies that end behind an offset of a partition, of these those that hold some spool offset
    `spool_low <= offset < spool_high`. Without them: the last one, if there is any."""
    table = f"drained_{table_id}"
    rows = connection.execute(
        f"SELECT partition, base, spool_first, offsets FROM {table} WHERE partition = ? AND base >= ifnull("
        f"(SELECT max(base) FROM {table} WHERE partition = ? AND base <= ?), 0) AND base + count > ?"
        + (" ORDER BY base DESC LIMIT 1" if spool_low is None else " AND spool_last >= ? AND spool_first < ?"),
        (partition, partition, base, base) + (() if spool_low is None else (spool_low, spool_high)),
    )
    return [Copies(found, base, decode_offsets(first, data)) for found, base, first, data in rows]


def copies_of_spooled(connection: sqlite3.Connection, table_id: int, low: int, high: int) -> list[Copies]:
    """The copies of records with `low <= spool offset < high`; batches may hold others too."""
    rows = connection.execute(
        f"SELECT partition, base, spool_first, offsets FROM drained_{table_id}"
        " WHERE spool_last >= ? AND spool_first < ?",
        (low, high),
    )
    return [Copies(partition, base, decode_offsets(first, data)) for partition, base, first, data in rows]


def waiting_records(connection: sqlite3.Connection, table_id: int, next_offset: int) -> int:
    """How many records of a spool that ends at `next_offset` are not known to be in Kafka, nor dead letters."""
    table = f"kafka_{table_id}"
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone() is None:
        return next_offset
    kept = connection.execute(f"SELECT value FROM {table} WHERE key = 'moved_to'").fetchone()
    moved_to = json.loads(kept[0]) if kept is not None else 0
    beyond = copies_of_spooled(connection, table_id, moved_to, next_offset)
    return max(0, next_offset - moved_to) - sum(offset >= moved_to for batch in beyond for offset in batch.offsets)


def begin_spool_anew(connection: sqlite3.Connection, table_id: int, now_s: int) -> None:
    """The data directory is a copy: what it holds may have been sent since, its offsets may have been given again.

    Within the caller's transaction. The epoch changes, and every spooled record is looked for in Kafka before it goes.
    """
    table = f"kafka_{table_id}"
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone() is None:
        return
    values = dict(connection.execute(f"SELECT key, value FROM {table}"))
    values["number"] = str(max(now_s, int(values.get("number", 0)) + 1))
    (next_offset,) = connection.execute(
        f"SELECT ifnull(max(base + count), 0) FROM batch_{table_id}"  # without a row nothing is left to be sent
    ).fetchone()
    sent_until = json.loads(values.get("sent_until", "0"))
    if sent_until <= json.loads(values.get("moved_to", "0")) and "offsets" in values:
        values["search_from"] = values["offsets"]  # nothing was under way: copies came behind where the stream stood
    values["sent_until"] = json.dumps(max(sent_until, next_offset))
    connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", values.items())
