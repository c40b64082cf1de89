"""Where devices are kept over restarts: one table beside the records, written in their transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from bridge.presence.device import Device
from bridge.presence.state import Presence
from bridge.streams.many_rows import insert_rows

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from bridge.streams.sqlite_store import SqliteStore

LOADED_ROWS = 10_000
"""Read from the writer's connection in pieces of so many."""
_SAVE = "INSERT OR REPLACE INTO device"


class DeviceStore(Protocol):
    """Keeps devices. Without one they are forgotten with the process."""

    @property
    def failure(self) -> str | None:
        """Why nothing is stored at the moment."""

    def load(self) -> list[Device]:
        """All that are kept, those that changed first first. For start-up: it blocks."""

    def save(self, rows: Sequence[tuple[object, ...]], forgotten: Sequence[str]) -> None:
        """Keep rows of `Device.row`, and forget clients, with the next records that are stored."""

    def flush(self) -> None:
        """Have what was saved written now, if no records have taken it along."""


class SaveDevices:
    """Rows that commit with their group."""

    __slots__ = ("_forgotten", "_rows")

    def __init__(self, rows: Sequence[tuple[object, ...]], forgotten: Sequence[str]) -> None:
        self._rows = rows
        self._forgotten = forgotten

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.executemany("DELETE FROM device WHERE client_id = ?", [(each,) for each in self._forgotten])
        insert_rows(connection, _SAVE, self._rows)

    def committed(self) -> None:
        """Nobody waits for it."""


class SqliteDevices:
    """`DeviceStore` in the data directory's file."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    @property
    def failure(self) -> str | None:
        return self._store.failure

    def load(self) -> list[Device]:
        rows = self._store.read_rows("SELECT * FROM device ORDER BY time_ms", LOADED_ROWS)
        return [_device(row) for row in rows]

    def save(self, rows: Sequence[tuple[object, ...]], forgotten: Sequence[str]) -> None:
        self._store.queue(SaveDevices(rows, forgotten))

    def flush(self) -> None:
        self._store.hand_over()


def _device(row: tuple[Any, ...]) -> Device:
    client_id, seq, online, session, time_ms, reason, by, *rest = row
    # The claim was of another run of the node: nobody holds it any more.
    device = Device(
        Presence(
            str(client_id),
            int(seq),
            bool(online),
            bool(session),
            int(time_ms),
            str(reason),
            str(by),
            0,
        )
    )
    (
        device.since_ms,
        device.last_seen_ms,
        device.address,
        device.transport,
        device.protocol_level,
        device.keep_alive_s,
        device.expiry_s,
    ) = rest
    return device
