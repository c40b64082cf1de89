"""What is known of a client's presence, and the one function that changes it.

`apply` is pure: a state and a record of what happened give the next state and what is told of it. Whatever says that a
client is here or gone is made from these events, wherever the records come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import orjson

from bridge.encoding import rfc3339
from broker.presence import CONNECTED, DISCONNECTED, PRESENCE_PREFIX, SESSION_ENDED

if TYPE_CHECKING:
    from broker.presence import ConnectionChange

RESTARTED = 16
"""Beside the broker's kinds: the server has started again, and knows the client from before."""

CONNECTED_REASON = "connected"
TAKEN_OVER_REASON = "taken_over"
RESTART_REASON = "server_restart"

DEVICE, NETWORK, SERVER, ADMIN = "device", "network", "server", "admin"

BY_REASON: dict[str, str] = {
    CONNECTED_REASON: DEVICE,
    TAKEN_OVER_REASON: DEVICE,
    "client_disconnected": DEVICE,
    "connection_lost": NETWORK,
    "keep_alive_timeout": NETWORK,
    "malformed_packet": SERVER,
    "protocol_error": SERVER,
    "packet_too_large": SERVER,
    "receive_maximum_exceeded": SERVER,
    "refused": SERVER,
    "internal_error": SERVER,
    "server_shutdown": SERVER,
    RESTART_REASON: SERVER,
    "session_expired": SERVER,
    "closed_by_admin": ADMIN,
    "session_forgotten": ADMIN,
}
"""Every reason there is, with who is behind it; docs/presence.md says the same to people, and a test compares them."""

_NOT_IN_A_TOPIC = {
    code: "".join(f"%{byte:02X}" for byte in chr(code).encode())
    for code in (*b"%/+#", *range(0x20), *range(0x7F, 0xA0))
}

_CHARACTERS_NOT_IN_A_TOPIC = frozenset(map(chr, _NOT_IN_A_TOPIC))


class Presence(NamedTuple):
    """Of one client, as its latest change left it."""

    client_id: str
    seq: int
    """Raised by one with each change, over restarts too."""
    online: bool
    session: bool
    """The server has a session of the client: while it is online, and after that until the session ends."""
    time_ms: int
    """Epoch milliseconds of the change."""
    reason: str
    by: str
    claim: int
    """The CONNECT by which the client is online; 0 while it is not."""


class Change(NamedTuple):
    """A record of something that happened to a client; the broker's `ConnectionChange` is one too."""

    kind: int
    """CONNECTED, DISCONNECTED, SESSION_ENDED or RESTARTED."""
    client_id: str
    claim: int
    time_ms: int
    reason: str
    has_session: bool
    """DISCONNECTED and RESTARTED: there is a session still."""


def apply(state: Presence | None, change: Change | ConnectionChange) -> tuple[Presence | None, tuple[Presence, ...]]:
    """The state after a change, and the events to tell: none when the change is void.

    Void are an end of a connection that does not have the client any more, an end of a session whose client is here,
    and a claim that is older than the one which holds.
    """
    kind = change.kind
    if kind == CONNECTED:
        is_here = state is not None and state.online
        if is_here and state is not None and change.claim <= state.claim:
            return state, ()
        return _changed(state, change, True, True, TAKEN_OVER_REASON if is_here else CONNECTED_REASON)
    if state is None:
        return None, ()
    if kind == DISCONNECTED and state.online and change.claim == state.claim:
        return _changed(state, change, False, change.has_session, change.reason)
    if kind == SESSION_ENDED and state.session and not state.online:
        return _changed(state, change, False, False, change.reason)
    if kind == RESTARTED and (state.online or state.session != change.has_session):
        return _changed(state, change, False, change.has_session, RESTART_REASON)
    return state, ()


def _changed(
    state: Presence | None, change: Change | ConnectionChange, online: bool, session: bool, reason: str
) -> tuple[Presence, tuple[Presence, ...]]:
    seq, time_ms = 1, change.time_ms
    if state is not None:
        seq = state.seq + 1
        if time_ms < state.time_ms:  # the clock was set back: the order of changes is that of `seq` and of time
            time_ms = state.time_ms
    after = Presence(
        change.client_id,
        seq,
        online,
        session,
        time_ms,
        reason,
        BY_REASON.get(reason, SERVER),
        change.claim if online else 0,
    )
    return after, (after,)


def presence_topic(client_id: str) -> str:
    """`$presence/{client_id}`, with `% / + #` and control characters percent-encoded as UTF-8."""
    if not _CHARACTERS_NOT_IN_A_TOPIC.isdisjoint(client_id):
        client_id = client_id.translate(_NOT_IN_A_TOPIC)
    return PRESENCE_PREFIX + client_id


def presence_json(presence: Presence) -> bytes:
    """The payload of a presence message."""
    return b'{"client_id":%b,"online":%b,"session":%b,"seq":%d,"time":"%b","reason":"%b","by":"%b"}' % (
        orjson.dumps(presence.client_id),
        b"true" if presence.online else b"false",
        b"true" if presence.session else b"false",
        presence.seq,
        rfc3339(presence.time_ms).encode(),
        presence.reason.encode(),
        presence.by.encode(),
    )
