"""Device: one client as the server knows it, here or gone, and its row in the store."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bridge.presence.state import Presence
    from broker.protocol.connection import Connection

CONNECTS_KEPT = 32
"""Connects of one device that are remembered, for telling a restless one; `connects` says no more than this."""
CONNECTS_MS = 600_000
"""How far they may lie back: ten minutes."""


class Counters(NamedTuple):
    """Of a connection: publishes, and bytes with everything around them."""

    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int


NOTHING_COUNTED = Counters(0, 0, 0, 0)


class Device:
    """What its latest connection was like, and its presence. While it is online `connection` is the live one."""

    __slots__ = (
        "_connects",
        "address",
        "connected_ms",
        "connection",
        "counters",
        "expiry_s",
        "is_stored",
        "keep_alive_s",
        "last_seen_ms",
        "presence",
        "protocol_level",
        "since_ms",
        "stored",
        "stored_interval_ms",
        "stored_ms",
        "stored_number",
        "stored_offset",
        "transport",
    )

    def __init__(self, presence: Presence) -> None:
        self.presence = presence
        self.connection: Connection | None = None
        self.since_ms = presence.time_ms
        """Epoch milliseconds since when it is here, or gone; a take-over is no beginning."""
        self.connected_ms = 0
        """When it connected last in this run of the server; 0: it has not."""
        self.last_seen_ms = presence.time_ms
        """Of a device that is gone: when its latest bytes came."""
        self.address = ""
        self.transport = ""
        self.protocol_level = 0
        self.keep_alive_s = 0
        self.expiry_s = 0
        self.counters: Counters | None = None
        self.is_stored = False
        """The store has a row of its client id, or was told of one."""
        self.stored: Presence | None = None
        """What the log has of it, as far as this run of the server has told it."""
        self.stored_offset = 0
        """Of the record of `stored`, and the others as in `StoredPresence`."""
        self.stored_number = 0
        self.stored_ms = 0
        self.stored_interval_ms = 0.0
        self._connects: deque[int] | None = None

    def connected(self, connection: Connection) -> None:
        """Remember a connection that has just become the device's."""
        now_ms = self.presence.time_ms
        if self._connects is not None:
            self._connects.append(now_ms)
        elif self.connected_ms:  # most connect once: no list for them
            self._connects = deque((self.connected_ms, now_ms), CONNECTS_KEPT)
        self.connected_ms = now_ms
        self.connection = connection
        self.address = connection.peer
        self.transport = connection.transport_kind
        self.protocol_level = connection.protocol_level
        self.keep_alive_s = connection.keep_alive_s
        session = connection.session
        self.expiry_s = session.expiry_s if session is not None else 0

    def disconnected(self) -> None:
        """Keep of the connection what is worth it, and let go of it."""
        connection = self.connection
        if connection is None:
            return
        self.counters = counters_of(connection)
        self.last_seen_ms = max(self.last_seen_ms, self.presence.time_ms - _silent_ms(connection))
        session = connection.session
        self.expiry_s = session.expiry_s if session is not None else 0
        self.connection = None

    def seen_ms(self, now_ms: int) -> int:
        """When its latest bytes came, epoch milliseconds; to the second while it is connected."""
        if self.connection is None:
            return self.last_seen_ms
        return max(self.since_ms, now_ms - _silent_ms(self.connection))

    def counted(self) -> Counters:
        """Of its connection, or of the last one that this run of the server has seen."""
        if self.connection is not None:
            return counters_of(self.connection)
        return self.counters if self.counters is not None else NOTHING_COUNTED

    def connects(self, now_ms: int) -> int:
        """How often it connected within the last ten minutes, as far as is remembered."""
        if self._connects is None:
            return int(self.connected_ms > now_ms - CONNECTS_MS)
        while self._connects and self._connects[0] <= now_ms - CONNECTS_MS:
            self._connects.popleft()
        return len(self._connects)

    def row(self) -> tuple[object, ...]:
        """As it is stored."""
        presence = self.presence
        return (
            presence.client_id,
            presence.seq,
            int(presence.online),
            int(presence.session),
            presence.time_ms,
            presence.reason,
            presence.by,
            self.since_ms,
            self.last_seen_ms,
            self.address,
            self.transport,
            self.protocol_level,
            self.keep_alive_s,
            self.expiry_s,
        )


def counters_of(connection: Connection) -> Counters:
    """What was counted for a connection."""
    outbox = connection.outbox
    return Counters(connection.messages_in, outbox.messages_out, connection.bytes_in, outbox.bytes_out)


def _silent_ms(connection: Connection) -> int:
    return 1000 * (connection.engine.seconds - connection.last_in_s)
