"""Notes: small texts that outlive the process, by name, in the data directory's file.

They commit in order with the records: who is told `done` knows that what was queued before is safe too.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.streams.sqlite_store import SqliteStore

PREFIX = "note."


class _Put:
    """A note that commits with its group."""

    __slots__ = ("_done", "_key", "_text")

    def __init__(self, key: str, text: str, done: Callable[[], None]) -> None:
        self._key = key
        self._text = text
        self._done = done

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (self._key, self._text))

    def committed(self) -> None:
        self._done()


class Notes:
    """Those of one store. The event loop's thread alone uses it."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        connection = store.writer.call(store.all_notes)
        self._text_by_name = {key.removeprefix(PREFIX): text for key, text in connection}

    def get(self, name: str) -> str | None:
        """The note; None when there is none. It answers at once what was last put."""
        return self._text_by_name.get(name)

    def put(self, name: str, text: str, done: Callable[[], None] = lambda: None) -> None:
        """Keep a text, then call `done`."""
        self._text_by_name[name] = text
        self._store.submit(_Put(PREFIX + name, text, done))

    def own_id(self) -> str:
        """Six letters for this data directory, made once: for names that must differ from those of other servers."""
        found = self.get("id")
        if found is None:
            found = secrets.token_hex(3)
            self.put("id", found)
        return found
