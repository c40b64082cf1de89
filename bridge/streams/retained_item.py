"""RetainedItem: changed retained messages, which commit with the records of their group."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from bridge.streams.many_rows import delete_in, insert_rows

if TYPE_CHECKING:
    from broker.retained import RetainedMessage
    from broker.store import RetainedChange, RetainedRow

# A row that is there is changed where it stands, which takes a third of what it does to replace it.
_UPDATE = (
    "ON CONFLICT(topic) DO UPDATE SET frame = excluded.frame, is_v5 = excluded.is_v5, client_id = excluded.client_id,"
    " received_ms = excluded.received_ms, expires_ms = excluded.expires_ms"
)


class RetainedItem:
    """Retained messages by topic name, None for those that are cleared; they commit with their group."""

    __slots__ = ("_message_by_topic",)

    def __init__(self) -> None:
        self._message_by_topic: dict[str, RetainedMessage | None] = {}

    def add(self, change: RetainedChange) -> None:
        """The latest change of a topic is the one that is written."""
        self._message_by_topic.update(change.message_by_topic)

    def absorb(self, later: RetainedItem) -> None:
        """Take the changes of another one that was queued after this."""
        self._message_by_topic.update(later._message_by_topic)

    def apply(self, connection: sqlite3.Connection) -> None:
        cleared = [topic_name for topic_name, message in self._message_by_topic.items() if message is None]
        rows: list[RetainedRow] = [
            (topic_name, each.frame, each.is_v5, each.client_id, each.received_at_ms, each.expires_at_ms)
            for topic_name, each in self._message_by_topic.items()
            if each is not None
        ]
        delete_in(connection, "DELETE FROM retained WHERE topic IN", cleared)
        insert_rows(connection, "INSERT INTO retained", rows, _UPDATE)

    def committed(self) -> None:
        """Nobody waits for it by name: see `DurableItem`."""
