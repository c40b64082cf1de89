"""Why a connection (or a session) ended: the same words in logs, metrics and tests."""

from __future__ import annotations

from enum import StrEnum


class CloseReason(StrEnum):
    """One for each way in which a connection can end."""

    CLIENT_DISCONNECTED = "client_disconnected"
    CONNECTION_LOST = "connection_lost"
    CONNECT_TIMEOUT = "connect_timeout"
    KEEP_ALIVE_TIMEOUT = "keep_alive_timeout"
    TAKEN_OVER = "taken_over"
    REFUSED = "refused"
    MALFORMED_PACKET = "malformed_packet"
    PROTOCOL_ERROR = "protocol_error"
    PACKET_TOO_LARGE = "packet_too_large"
    RECEIVE_MAXIMUM_EXCEEDED = "receive_maximum_exceeded"
    SERVER_SHUTDOWN = "server_shutdown"
    INTERNAL_ERROR = "internal_error"
    CLOSED_BY_ADMIN = "closed_by_admin"
    SESSION_FORGOTTEN = "session_forgotten"
    """Of a session, by an administrator."""
    SESSION_EXPIRED = "session_expired"
    """Of a session, while its client was away."""


BY_REASON_CODE: dict[int, CloseReason] = {
    0x81: CloseReason.MALFORMED_PACKET,
    0x93: CloseReason.RECEIVE_MAXIMUM_EXCEEDED,
    0x95: CloseReason.PACKET_TOO_LARGE,
}
"""The close reason for an MQTT error's reason code; any other is a protocol error."""
