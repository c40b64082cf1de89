"""PINGREQ and DISCONNECT from a client (MQTT 5 §3.12, §3.14)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.codec.encode import PINGRESP
from broker.codec.errors import ProtocolError
from broker.protocol.close_reason import CloseReason

if TYPE_CHECKING:
    from broker.codec.packets import Disconnect, Pingreq
    from broker.protocol.connection import Connection

NORMAL_DISCONNECTION = 0x00


def handle_pingreq(connection: Connection, packet: Pingreq, now_ms: int) -> None:
    """Answer at once. [MQTT-3.12.4-1]"""
    del packet, now_ms
    connection.outbox.append(PINGRESP)


def handle_disconnect(connection: Connection, packet: Disconnect, now_ms: int) -> None:
    """The client says goodbye; with any other reason than 0x00 its will is published. [MQTT-3.14.4-3]

    Raises:
        ProtocolError: a session expiry interval after one of 0 in CONNECT (§3.14.2.2.2).
    """
    del now_ms
    session = connection.session
    assert session is not None
    properties = packet.properties
    if properties is not None and properties.session_expiry_interval is not None:
        if session.expiry_s == 0 and properties.session_expiry_interval:
            raise ProtocolError("session expiry interval in DISCONNECT after 0 in CONNECT")
        session.expiry_s = min(properties.session_expiry_interval, connection.engine.config.session_expiry_s_max)
    if packet.reason_code == NORMAL_DISCONNECTION:
        connection.will = None
    connection.close(CloseReason.CLIENT_DISCONNECTED)
