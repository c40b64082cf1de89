"""A data directory that is a copy begins a new life when it is opened.

What was written behind the moment of the copy is gone, and its offsets, record ids and packet ids would be given again
to something else. So every stream gets a new epoch (a cursor from before ends in a `gap` and then gets everything that
is kept, and never in silence), record ids go on with others, and QoS 2 exchanges that were open are forgotten.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import time

from bridge.streams.kafka.spool_tables import SPOOL_PREFIX, begin_spool_anew
from bridge.streams.sqlite_schema import begin_own_runs
from bridge.streams.upkeep import transaction

COPIED_MS = "copied_ms"
"""The key in `meta` that says: this file is a copy, made at this time."""

logger = logging.getLogger("headrace.store")


def new_epoch() -> str:
    """A name for a life of an embedded stream; never given twice."""
    return "s" + secrets.token_hex(5)


def mark_as_copy(connection: sqlite3.Connection, time_ms: int) -> None:
    """Within the caller's transaction: who opens this file next begins a new life with it."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (COPIED_MS, time_ms))


def begin_new_life(connection: sqlite3.Connection) -> None:
    """At the opening of a store, before any stream is opened."""
    if connection.execute("SELECT 1 FROM meta WHERE key = ?", (COPIED_MS,)).fetchone() is None:
        return
    now_s = int(time.time())
    with transaction(connection):
        streams = connection.execute("SELECT id, name FROM stream").fetchall()
        for stream_id, name in streams:
            connection.execute("UPDATE stream SET epoch = ? WHERE id = ?", (new_epoch(), stream_id))
            if name.startswith(SPOOL_PREFIX):
                begin_spool_anew(connection, stream_id, now_s)
        # A device has finished these exchanges since, and may use the packet ids for other messages.
        connection.execute("DELETE FROM unreleased")
        # Nor may what was under way to them come again, when they have taken it; the rest is sent anew.
        connection.execute(
            "INSERT OR IGNORE INTO ended_flight SELECT client_id, log, offset FROM flight WHERE is_released AND log"
        )
        connection.execute("DELETE FROM flight")
        # Runs of the node that followed the copy have given ids to records, and may go on to beside this one.
        begin_own_runs(connection)
        connection.execute("DELETE FROM meta WHERE key = ?", (COPIED_MS,))
    logger.info("the data is a restored copy: each of its %d streams begins a new epoch", len(streams))
