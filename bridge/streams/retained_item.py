"""RetainedItem: changed retained messages, which commit with the records of their group."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING

ROWS_MAX = 256
"""Of one statement. More are not faster, and there is a statement to prepare for each power of two up to it."""

if TYPE_CHECKING:
    from broker.retained import RetainedMessage
    from broker.store import RetainedChange, RetainedRow


def pieces(count: int) -> Iterator[tuple[int, int]]:
    """(First, how many) of as few pieces as there are, each of a power of two up to `ROWS_MAX`."""
    first, size = 0, ROWS_MAX
    while first < count:
        if size <= count - first:
            yield first, size
            first += size
        else:
            size //= 2


@cache
def _put(count: int) -> str:
    """Many rows in one statement: a statement for each would have to get the interpreter's lock back after each.

    A row that is there is changed where it stands, which takes a third of what it does to replace it.
    """
    rows = ", ".join(["(?, ?, ?, ?, ?, ?)"] * count)
    return (
        f"INSERT INTO retained VALUES {rows} ON CONFLICT(topic) DO UPDATE SET frame = excluded.frame,"
        " is_v5 = excluded.is_v5, client_id = excluded.client_id, received_ms = excluded.received_ms,"
        " expires_ms = excluded.expires_ms"
    )


@cache
def _delete(count: int) -> str:
    return f"DELETE FROM retained WHERE topic IN ({', '.join('?' * count)})"


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
        for first, count in pieces(len(cleared)):
            connection.execute(_delete(count), cleared[first : first + count])
        for first, count in pieces(len(rows)):
            values = list(chain.from_iterable(rows[first : first + count]))
            connection.execute(_put(count), values)

    def committed(self) -> None:
        """Nobody waits for it by name: see `DurableItem`."""
