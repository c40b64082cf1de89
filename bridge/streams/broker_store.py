"""BrokerStore: what the broker keeps over its end, in the file of the stored streams (`broker.store.Store`).

The changes of a turn become items of one group with the turn's records, so that both are durable together
(docs/adr/0012). Retained messages are one row each; many changes of one topic in a group are one write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from broker.store import (
    Durable,
    RetainedChange,
    SessionChange,
    SessionEnd,
    SessionRow,
    SubscriptionChange,
    SubscriptionEnd,
    SubscriptionRow,
)

if TYPE_CHECKING:
    from bridge.streams.sqlite_store import SqliteStore
    from broker.retained import RetainedMessage
    from broker.store import Change, RetainedRow

LOADED_ROWS = 10_000
"""Rows are read from the writer's connection in pieces of so many."""


class RetainedItem:
    """Retained messages by topic name, None for those that are cleared; they commit with their group."""

    __slots__ = ("_message_by_topic",)

    def __init__(self) -> None:
        self._message_by_topic: dict[str, RetainedMessage | None] = {}

    def add(self, change: RetainedChange) -> None:
        """The latest change of a topic is the one that is written."""
        self._message_by_topic[change.topic_name] = change.message

    def apply(self, connection: sqlite3.Connection) -> None:
        cleared = [(topic_name,) for topic_name, message in self._message_by_topic.items() if message is None]
        if cleared:
            connection.executemany("DELETE FROM retained WHERE topic = ?", cleared)
        rows: list[RetainedRow] = [
            (topic_name, each.frame, each.is_v5, each.client_id, each.received_at_ms, each.expires_at_ms)
            for topic_name, each in self._message_by_topic.items()
            if each is not None
        ]
        if rows:
            connection.executemany("INSERT OR REPLACE INTO retained VALUES (?, ?, ?, ?, ?, ?)", rows)

    def committed(self) -> None:
        """Nobody waits for it by name: see `DurableItem`."""


class SessionItem:
    """Statements about sessions, in order; they commit with their group."""

    __slots__ = ("_statements",)

    def __init__(self) -> None:
        self._statements: list[tuple[str, tuple[object, ...]]] = []

    def add(self, change: SessionChange | SessionEnd | SubscriptionChange | SubscriptionEnd) -> None:
        add = self._statements.append
        if isinstance(change, SessionChange):
            add(("INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?, ?, ?, ?)", change.row))
        elif isinstance(change, SubscriptionChange):
            add(("INSERT OR REPLACE INTO subscription VALUES (?, ?, ?, ?, ?, ?, ?)", change.row))
        elif isinstance(change, SubscriptionEnd):
            whose = (change.client_id, change.topic_filter)
            add(("DELETE FROM subscription WHERE client_id = ? AND filter = ?", whose))
        else:
            for table in ("session", "subscription"):
                add((f"DELETE FROM {table} WHERE client_id = ?", (change.client_id,)))

    def apply(self, connection: sqlite3.Connection) -> None:
        for sql, values in self._statements:
            connection.execute(sql, values)

    def committed(self) -> None:
        """Nobody waits for it by name: see `DurableItem`."""


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
        yield from self._store.read_rows(
            "SELECT topic, frame, is_v5, client_id, received_ms, expires_ms FROM retained", LOADED_ROWS
        )

    def load_sessions(self) -> Iterator[SessionRow]:
        sql = "SELECT client_id, is_v5, expiry_s, expires_ms, will, will_delay_s, will_due_ms FROM session"
        yield from map(SessionRow._make, self._store.read_rows(sql, LOADED_ROWS))

    def load_subscriptions(self) -> Iterator[SubscriptionRow]:
        sql = "SELECT client_id, filter, options, identifier, since, replay_filter, position FROM subscription"
        yield from map(SubscriptionRow._make, self._store.read_rows(sql, LOADED_ROWS))

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
