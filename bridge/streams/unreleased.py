"""UnreleasedIds: QoS 2 packet ids of kept sessions whose records are stored and whose PUBREL has not come.

The table changes in the transaction of the records; the copy in memory, which answers, after it. MQTT 5 §4.3.3.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from broker.publish_run import PublishRun
from broker.sink import stored_content

KEEP_ID = "INSERT OR REPLACE INTO unreleased VALUES (?, ?, ?)"
IDS_MAX = 1_000_000
"""Over all clients. Beyond it the first client's ids are forgotten: a repeat of its publish would be a new record."""


def kept_ids(run: PublishRun) -> list[tuple[str, int, int]]:
    """Rows of the table for a run."""
    columns = zip(run.packet_ids, run.routes, run.payload_starts, run.ends, strict=True)
    return [
        (run.client_id, packet_id, stored_content(route.topic_name, run.data[payload_start:end]))
        for packet_id, route, payload_start, end in columns
        if packet_id
    ]


class _Statement:
    """A delete that commits with its group."""

    __slots__ = ("_committed", "_parameters", "_sql")

    def __init__(self, sql: str, parameters: tuple[object, ...], committed: Callable[[], None]) -> None:
        self._sql = sql
        self._parameters = parameters
        self._committed = committed

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.execute(self._sql, self._parameters)

    def committed(self) -> None:
        self._committed()


class KeptIds:
    """Ids that commit with their group."""

    __slots__ = ("_committed", "_rows")

    def __init__(self, rows: Sequence[tuple[str, int, int]], committed: Callable[[], None]) -> None:
        self._rows = rows
        self._committed = committed

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.executemany(KEEP_ID, self._rows)

    def committed(self) -> None:
        self._committed()


class UnreleasedIds:
    """See the module's docstring. The event loop's thread alone uses it."""

    def __init__(self, connection: sqlite3.Connection, ids_max: int = IDS_MAX) -> None:
        self.dropped = 0
        """Ids forgotten because of `ids_max`."""
        self._ids_max = ids_max
        self._count = 0
        self._ids_by_client: dict[str, dict[int, int]] = {}
        for client_id, packet_id, content in connection.execute("SELECT client_id, packet_id, content FROM unreleased"):
            self._add(client_id, {packet_id: content})

    def of(self, client_id: str) -> dict[int, int]:
        """A copy of the client's ids, each with what tells its publish from another one."""
        return dict(self._ids_by_client.get(client_id, ()))

    def stored(self, runs: Sequence[PublishRun]) -> None:
        """Records were committed, with the packet ids of those runs that keep them."""
        for run in runs:
            if run.keeps_packet_ids:
                self._add(run.client_id, {packet_id: content for _, packet_id, content in kept_ids(run)})

    def releasing(self, client_id: str, packet_id: int, done: Callable[[], None]) -> _Statement:
        """The write that forgets one id, and then calls `done`."""

        def committed() -> None:
            ids = self._ids_by_client.get(client_id)
            if ids is not None and packet_id in ids:
                del ids[packet_id]
                self._count -= 1
                if not ids:
                    del self._ids_by_client[client_id]
            done()

        sql = "DELETE FROM unreleased WHERE client_id = ? AND packet_id = ?"
        return _Statement(sql, (client_id, packet_id), committed)

    def keeping(self, runs: Sequence[PublishRun], done: Callable[[], None]) -> KeptIds:
        """The write that keeps the ids of runs whose records are stored elsewhere, and then calls `done`."""

        def committed() -> None:
            self.stored(runs)
            done()

        return KeptIds([row for run in runs for row in kept_ids(run)], committed)

    def expect(self, client_id: str) -> None:
        """A run of this client that keeps its ids has been queued."""
        self._ids_by_client.setdefault(client_id, {})

    def knows(self, client_id: str) -> bool:
        """Ids of this client are stored, or queued to be."""
        return client_id in self._ids_by_client

    def forgetting(self, client_id: str) -> _Statement:
        """The write that forgets all ids of a client, also those queued before it; the answer changes at once."""

        def forget() -> None:
            self._count -= len(self._ids_by_client.pop(client_id, ()))

        forget()
        return _Statement("DELETE FROM unreleased WHERE client_id = ?", (client_id,), forget)

    def _add(self, client_id: str, contents: dict[int, int]) -> None:
        ids = self._ids_by_client.setdefault(client_id, {})
        before = len(ids)
        ids.update(contents)
        self._count += len(ids) - before
        while self._count > self._ids_max and len(self._ids_by_client) > 1:
            first = next(iter(self._ids_by_client))
            dropped = len(self._ids_by_client.pop(first))
            self._count -= dropped
            self.dropped += dropped
