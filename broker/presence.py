"""The broker's port for who is there: what happened to connections leaves by it once a turn, in order.

The broker calls a `PresenceWatch`; the bridge implements it (a broker without one tells nobody). All calls are plain
and happen on the event loop's thread. What the watch makes of them it publishes by `Engine.publish_own`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.protocol.connection import Connection

PRESENCE_PREFIX = "$presence/"
SERVER_CLIENT_ID = "$server"
"""The client id that records of the server itself carry."""

CONNECTED = 0
DISCONNECTED = 1
SESSION_ENDED = 2
REFUSED = 3


class ConnectionChange:
    """One thing that happened to a client or to a connection."""

    __slots__ = ("claim", "client_id", "connection", "has_session", "kind", "reason", "time_ms")

    def __init__(self, kind: int, client_id: str, connection: Connection | None, reason: str, time_ms: int) -> None:
        self.kind = kind
        """CONNECTED, DISCONNECTED, SESSION_ENDED or REFUSED."""
        self.client_id = client_id
        self.connection = connection
        """None for SESSION_ENDED: no connection was there any more."""
        self.reason = reason
        """A `CloseReason` for DISCONNECTED; for SESSION_ENDED and REFUSED a word for why."""
        self.time_ms = time_ms
        """Epoch milliseconds."""
        self.claim = connection.claim if connection is not None else 0
        """The number of the CONNECT by which the connection has the client id."""
        self.has_session = True
        """DISCONNECTED: the session outlives the connection."""


class PresenceWatch(Protocol):
    """Is told what happens, and has the retained messages below `$presence/`."""

    def changed(self, changes: Sequence[ConnectionChange]) -> None:
        """What happened in this turn, in order. It may publish at once."""

    def retained(self, topic_filter: str) -> Iterable[tuple[str, bytes, int]]:
        """Topic name, payload and epoch milliseconds of what the filter takes below `$presence/`."""
