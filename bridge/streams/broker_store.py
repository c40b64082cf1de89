"""BrokerStore: what the broker keeps over its end, in the file of the stored streams (`broker.store.Store`).

The changes of a turn become items of one group with the turn's records, so that both are durable together
(docs/adr/0012). Retained messages are one row each; many changes of one topic in a group are one write.

SQLite has no truth values: its numbers become some here, since compiled modules take no number for one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from bridge.streams.kafka.spool_tables import SPOOL_PREFIX
from bridge.streams.retained_item import RetainedItem
from bridge.streams.session_item import MARK, SessionItem, decode_position
from bridge.streams.sqlite_log import SqliteLog
from bridge.streams.stored_records import read_records
from broker.store import CopyRow, Durable, FlightRow, RetainedChange, SessionRow, SubscriptionRow

if TYPE_CHECKING:
    from bridge.streams.sqlite_store import SqliteStore
    from broker.store import Change, Position, RetainedRow, StoredRecord

LOADED_ROWS = 10_000
"""Rows are read in pieces of so many."""


class DurableItem:
    """Writes nothing: when its group has committed, so has everything that was queued before it."""

    __slots__ = ("_tell",)

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    def apply(self, connection: sqlite3.Connection) -> None:
        """There is nothing to write."""

    def committed(self) -> None:
        self._tell()


class BrokerStore:
    """See the module's docstring."""

    def __init__(self, store: SqliteStore, on_told: Callable[[], None]) -> None:
        """`on_told` is called when somebody was told that something is durable: there may be something to write."""
        self._store = store
        self._on_told = on_told

    def load_retained(self) -> Iterator[RetainedRow]:
        sql = "SELECT topic, frame, is_v5, client_id, received_ms, expires_ms FROM retained"
        for topic_name, frame, is_v5, *others in self._store.read_rows(sql, LOADED_ROWS):
            yield topic_name, frame, bool(is_v5), *others

    def load_sessions(self) -> Iterator[SessionRow]:
        sql = "SELECT client_id, is_v5, expiry_s, expires_ms, will, will_delay_s, will_due_ms FROM session"
        for client_id, is_v5, *others in self._store.read_rows(sql, LOADED_ROWS):
            yield SessionRow(client_id, bool(is_v5), *others)

    def load_subscriptions(self) -> Iterator[SubscriptionRow]:
        sql = "SELECT client_id, filter, options, identifier, since, replay_filter, position, begins FROM subscription"
        position_by_text: dict[str, Position] = {}  # many begin where others do
        for *values, text in self._store.read_rows(sql, LOADED_ROWS):
            position = position_by_text.get(text)
            if position is None:
                position = position_by_text[text] = decode_position(text)
            yield SubscriptionRow._make([*values, position])

    def load_positions(self) -> dict[str, Position]:
        rows = self._store.read_rows("SELECT client_id, position FROM owed", LOADED_ROWS)
        return {client_id: decode_position(text) for client_id, text in rows}

    def load_mark(self) -> Position | None:
        found = list(self._store.read_rows(f"SELECT value FROM meta WHERE key = '{MARK}'", 1))
        return decode_position(found[0][0]) if found else None

    def load_flights(self) -> Iterator[FlightRow]:
        sql = "SELECT client_id, packet_id, log, offset, is_released, retain, identifiers FROM flight ORDER BY number"
        for client_id, packet_id, log_id, offset, is_released, retain, text in self._store.read_rows(sql, LOADED_ROWS):
            numbers = tuple(json.loads(text))
            yield FlightRow(client_id, packet_id, log_id, offset, bool(is_released), bool(retain), numbers)

    def load_ended_flights(self) -> Iterator[tuple[str, int, int]]:
        yield from self._store.read_rows("SELECT client_id, log, offset FROM ended_flight", LOADED_ROWS)

    def load_copies(self) -> Iterator[CopyRow]:
        sql = (
            "SELECT client_id, number, qos, retain, identifiers, topic, frame, is_v5, publisher, received_ms, share"
            " FROM copy ORDER BY client_id, number"
        )
        for row in self._store.read_rows(sql, LOADED_ROWS):
            client_id, number, qos, retain, text, topic_name, frame, is_v5, *others = row
            numbers = tuple(json.loads(text))
            yield CopyRow(client_id, number, qos, bool(retain), numbers, topic_name, frame, bool(is_v5), *others)

    def is_failing(self) -> bool:
        return self._store.failure is not None

    def hold(self, position: Position) -> None:
        for log in self._logs():
            log.hold(position.get(log.table.stream_id, 0))

    def wanted(self) -> Position:
        return {log.table.stream_id: log.wanted_first for log in self._logs() if log.wanted_first}

    def read_records(self, position: Position, is_wanted: Callable[[str], bool]) -> Iterator[StoredRecord]:
        for log in self._logs():
            first = position.get(log.table.stream_id)
            if first is not None and first < log.next_offset:
                yield from read_records(self._store.path, log.table.stream_id, first, is_wanted)

    def position(self) -> Position:
        return {log.table.stream_id: log.next_offset for log in self._logs()}

    def log_id(self, stream: object) -> int:
        return stream.table.stream_id if isinstance(stream, SqliteLog) else 0

    def _logs(self) -> Iterator[SqliteLog]:
        """Those of streams; the spools of Kafka's are on their way to elsewhere."""
        for name, log in self._store.logs.items():
            if not name.startswith(SPOOL_PREFIX):
                yield log

    def keep(self, changes: Sequence[Change]) -> None:
        retained: RetainedItem | None = None
        sessions: SessionItem | None = None
        for change in changes:
            if isinstance(change, RetainedChange):
                if retained is None:
                    retained = RetainedItem()
                    self._store.queue(retained)
                retained.add(change)
            elif isinstance(change, Durable):
                self.when_durable(change.tell)
            else:
                if sessions is None:
                    sessions = SessionItem()
                    self._store.queue(sessions)
                sessions.add(change)

    def when_durable(self, tell: Callable[[], None]) -> None:
        """Call `tell` once everything that was handed over before is durable."""

        def told() -> None:
            tell()
            self._on_told()

        self._store.queue(DurableItem(told))

    def flush(self) -> None:
        self._store.hand_over()
