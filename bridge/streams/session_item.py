"""SessionItem: what is written of kept sessions, as statements that commit with the records of their group."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from broker.store import (
    CopiesEnd,
    CopiesTaken,
    FlightsEnd,
    FlightsReleased,
    FlightsSent,
    MarkChange,
    Position,
    PositionChange,
    ReplayMoved,
    SessionChange,
    SessionEnd,
    SessionStatement,
    SubscriptionChange,
    SubscriptionEnd,
)

MARK = "owed_mark"
"""The key in `meta` of the last mark."""
TABLES = ("session", "subscription", "owed", "flight", "ended_flight", "copy")
"""All that have something of a session."""

Statement = tuple[str, tuple[object, ...]]

_PUT_SESSION = "INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?, ?, ?, ?)"
_PUT_SUBSCRIPTION = (
    "INSERT INTO subscription(client_id, filter, options, identifier, since, replay_filter, position, begins)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(client_id, filter) DO UPDATE SET options = excluded.options,"
    " identifier = excluded.identifier, since = excluded.since, replay_filter = excluded.replay_filter,"
    " position = excluded.position"
)
_PUT_FLIGHT = (
    "INSERT OR REPLACE INTO flight(client_id, packet_id, log, offset, is_released, retain, identifiers)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_RELEASE = "UPDATE flight SET is_released = 1 WHERE client_id = ? AND packet_id BETWEEN ? AND ?"
_REMEMBER_END = (
    "INSERT OR IGNORE INTO ended_flight SELECT client_id, log, offset FROM flight"
    " WHERE client_id = ? AND packet_id = ? AND log"
)
_END_COPY = (
    "DELETE FROM copy WHERE client_id = ?1 AND number ="
    " (SELECT offset FROM flight WHERE client_id = ?1 AND packet_id = ?2 AND log = 0)"
)
_PUT_COPY = "INSERT OR IGNORE INTO copy VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_END = "DELETE FROM flight WHERE client_id = ? AND packet_id = ?"


def encode_position(position: Position) -> str:
    """As it stands in the file."""
    return json.dumps(position, separators=(",", ":"))


def decode_position(text: str) -> Position:
    """And back."""
    return {int(log_id): offset for log_id, offset in json.loads(text).items()}


def statements_of(change: SessionStatement) -> Iterator[Statement]:
    """What a change is in the file."""
    if isinstance(change, SessionChange):
        yield _PUT_SESSION, change.row
    elif isinstance(change, SubscriptionChange):
        yield _PUT_SUBSCRIPTION, (*change.row[:-1], encode_position(change.row.begins))
    elif isinstance(change, SubscriptionEnd):
        yield "DELETE FROM subscription WHERE client_id = ? AND filter = ?", (change.client_id, change.topic_filter)
    elif isinstance(change, ReplayMoved):
        sql = "UPDATE subscription SET position = ? WHERE client_id = ? AND filter = ?"
        yield sql, (change.position, change.client_id, change.topic_filter)
    elif isinstance(change, SessionEnd):
        for table in TABLES:
            yield f"DELETE FROM {table} WHERE client_id = ?", (change.client_id,)
    elif isinstance(change, MarkChange):
        yield "INSERT OR REPLACE INTO meta VALUES (?, ?)", (MARK, encode_position(change.position))
    elif isinstance(change, PositionChange):
        yield from _position_statements(change)
    elif isinstance(change, FlightsSent):
        for row in change.rows:
            yield _PUT_FLIGHT, (*row[:-1], json.dumps(row.identifiers))
    elif isinstance(change, CopiesTaken):
        for copied in change.rows:
            yield _PUT_COPY, (*copied[:4], json.dumps(copied.identifiers), *copied[5:])
    elif isinstance(change, CopiesEnd):
        yield "DELETE FROM copy WHERE client_id = ? AND number < ?", (change.client_id, change.before)
    elif isinstance(change, FlightsReleased):
        yield _RELEASE, (change.client_id, change.first_id, change.first_id + change.count - 1)
    elif isinstance(change, FlightsEnd):
        for packet_id in change.packet_ids:
            yield _REMEMBER_END, (change.client_id, packet_id)
            yield _END_COPY, (change.client_id, packet_id)
            yield _END, (change.client_id, packet_id)


def _position_statements(change: PositionChange) -> Iterator[Statement]:
    if change.position is None:
        yield "DELETE FROM owed WHERE client_id = ?", (change.client_id,)
    else:
        yield "INSERT OR REPLACE INTO owed VALUES (?, ?)", (change.client_id, encode_position(change.position))
    for log_id, offset in change.settled.items():
        yield (
            "DELETE FROM ended_flight WHERE client_id = ? AND log = ? AND offset < ?",
            (change.client_id, log_id, offset),
        )


class SessionItem:
    """Changes in order."""

    __slots__ = ("_statements",)

    def __init__(self) -> None:
        self._statements: list[Statement] = []

    def add(self, change: SessionStatement) -> None:
        """One more."""
        self._statements.extend(statements_of(change))

    def apply(self, connection: sqlite3.Connection) -> None:
        for sql, values in self._statements:
            connection.execute(sql, values)

    def committed(self) -> None:
        """Nobody waits for it by name: see `DurableItem`."""
