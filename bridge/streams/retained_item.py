"""RetainedItem: changed retained messages, which commit with the records of their group."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.retained import RetainedMessage
    from broker.store import RetainedChange, RetainedRow


class RetainedItem:
    """Retained messages by topic name, None for those that are cleared; they commit with their group."""

    __slots__ = ("_message_by_topic",)

    def __init__(self) -> None:
        self._message_by_topic: dict[str, RetainedMessage | None] = {}

    def add(self, change: RetainedChange) -> None:
        """The latest change of a topic is the one that is written."""
        self._message_by_topic[change.topic_name] = change.message

    def absorb(self, later: RetainedItem) -> None:
        """Take the changes of another one that was queued after this."""
        self._message_by_topic.update(later._message_by_topic)

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
