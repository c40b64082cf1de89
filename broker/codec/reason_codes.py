"""Reason codes: one table of code, name, the packets that may carry it, and what 3.1.1 says instead.

Source: MQTT 5 §2.4 and the tables of §3.2.2.2, §3.4.2.1, §3.9.3, §3.11.3, §3.14.2.1, §3.15.2.1; MQTT 3.1.1 §3.2.2.3.
"""

from __future__ import annotations

from typing import Final

from broker.codec.constants import (
    AUTH,
    CONNACK,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    SUBACK,
    UNSUBACK,
)

# 3.1.1 CONNACK return codes.
_ACCEPTED = 0
_UNACCEPTABLE_PROTOCOL_VERSION = 1
_IDENTIFIER_REJECTED = 2
_SERVER_UNAVAILABLE = 3
_BAD_USER_NAME_OR_PASSWORD = 4
_NOT_AUTHORIZED = 5

SUBACK_FAILURE_3_1_1: Final = 0x80
"""The one refusal that SUBACK of 3.1.1 knows. 3.1 has none: there a refused filter looks granted."""


class ReasonCode:
    """One row of the table."""

    __slots__ = ("code", "connack_3_1_1", "name", "packet_types")

    def __init__(self, code: int, name: str, packet_types: tuple[int, ...], connack_3_1_1: int) -> None:
        self.code = code
        self.name = name
        self.packet_types = packet_types
        self.connack_3_1_1 = connack_3_1_1
        """The return code of a 3.1.1 CONNACK; where 3.1.1 has no word for it, 3 (server unavailable)."""

    @property
    def is_error(self) -> bool:
        """Whether what the packet answers has failed."""
        return self.code >= 0x80


def _row(code: int, name: str, *packet_types: int, connack_3_1_1: int = _SERVER_UNAVAILABLE) -> ReasonCode:
    return ReasonCode(code, name, packet_types, connack_3_1_1)


_ACKNOWLEDGEMENTS = (PUBACK, PUBREC)
_ANSWERS = (CONNACK, PUBACK, PUBREC, SUBACK, UNSUBACK, DISCONNECT)

_TABLE = (
    _row(
        0x00,
        "success",
        *(CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH),
        connack_3_1_1=_ACCEPTED,
    ),
    _row(0x01, "granted QoS 1", SUBACK),
    _row(0x02, "granted QoS 2", SUBACK),
    _row(0x04, "disconnect with will message", DISCONNECT),
    _row(0x10, "no matching subscribers", *_ACKNOWLEDGEMENTS),
    _row(0x11, "no subscription existed", UNSUBACK),
    _row(0x18, "continue authentication", AUTH),
    _row(0x19, "re-authenticate", AUTH),
    _row(0x80, "unspecified error", *_ANSWERS),
    _row(0x81, "malformed packet", CONNACK, DISCONNECT),
    _row(0x82, "protocol error", CONNACK, DISCONNECT),
    _row(0x83, "implementation specific error", *_ANSWERS),
    _row(0x84, "unsupported protocol version", CONNACK, connack_3_1_1=_UNACCEPTABLE_PROTOCOL_VERSION),
    _row(0x85, "client identifier not valid", CONNACK, connack_3_1_1=_IDENTIFIER_REJECTED),
    _row(0x86, "bad user name or password", CONNACK, connack_3_1_1=_BAD_USER_NAME_OR_PASSWORD),
    _row(0x87, "not authorized", *_ANSWERS, connack_3_1_1=_NOT_AUTHORIZED),
    _row(0x88, "server unavailable", CONNACK),
    _row(0x89, "server busy", CONNACK, DISCONNECT),
    _row(0x8A, "banned", CONNACK, connack_3_1_1=_NOT_AUTHORIZED),
    _row(0x8B, "server shutting down", DISCONNECT),
    _row(0x8C, "bad authentication method", CONNACK, DISCONNECT, connack_3_1_1=_NOT_AUTHORIZED),
    _row(0x8D, "keep alive timeout", DISCONNECT),
    _row(0x8E, "session taken over", DISCONNECT),
    _row(0x8F, "topic filter invalid", SUBACK, UNSUBACK, DISCONNECT),
    _row(0x90, "topic name invalid", CONNACK, PUBACK, PUBREC, DISCONNECT),
    _row(0x91, "packet identifier in use", PUBACK, PUBREC, SUBACK, UNSUBACK),
    _row(0x92, "packet identifier not found", PUBREL, PUBCOMP),
    _row(0x93, "receive maximum exceeded", DISCONNECT),
    _row(0x94, "topic alias invalid", DISCONNECT),
    _row(0x95, "packet too large", CONNACK, DISCONNECT),
    _row(0x96, "message rate too high", DISCONNECT),
    _row(0x97, "quota exceeded", CONNACK, PUBACK, PUBREC, SUBACK, DISCONNECT),
    _row(0x98, "administrative action", DISCONNECT),
    _row(0x99, "payload format invalid", CONNACK, PUBACK, PUBREC, DISCONNECT),
    _row(0x9A, "retain not supported", CONNACK, DISCONNECT),
    _row(0x9B, "QoS not supported", CONNACK, DISCONNECT),
    _row(0x9C, "use another server", CONNACK, DISCONNECT),
    _row(0x9D, "server moved", CONNACK, DISCONNECT),
    _row(0x9E, "shared subscriptions not supported", SUBACK, DISCONNECT),
    _row(0x9F, "connection rate exceeded", CONNACK, DISCONNECT),
    _row(0xA0, "maximum connect time", DISCONNECT),
    _row(0xA1, "subscription identifiers not supported", SUBACK, DISCONNECT),
    _row(0xA2, "wildcard subscriptions not supported", SUBACK, DISCONNECT),
)

REASON_CODES: Final[dict[int, ReasonCode]] = {row.code: row for row in _TABLE}

CODES_BY_PACKET_TYPE: Final[dict[int, frozenset[int]]] = {
    packet_type: frozenset(row.code for row in _TABLE if packet_type in row.packet_types)
    for packet_type in (CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH)
}
"""Which codes each packet of MQTT 5 may carry."""

SUBACK_CODES_3_1_1: Final = frozenset((0, 1, 2, SUBACK_FAILURE_3_1_1))
CONNACK_CODES_3_1_1: Final = frozenset(range(6))


def reason_name(code: int) -> str:
    """The code's name for people; its number when the standard has none for it."""
    row = REASON_CODES.get(code)
    return row.name if row is not None else f"0x{code:02X}"


def reason_word(code: int) -> str:
    """The code's name as one word, for programs: `bad_user_name_or_password`."""
    return reason_name(code).lower().replace(" ", "_")


def connack_code_3_1_1(code: int) -> int:
    """The CONNACK return code of 3.1 and 3.1.1 for a reason code of MQTT 5."""
    row = REASON_CODES.get(code)
    return row.connack_3_1_1 if row is not None else _SERVER_UNAVAILABLE


def suback_code_3_1_1(code: int) -> int:
    """The SUBACK return code of 3.1.1 for a reason code of MQTT 5. [MQTT-3.9.3-2]"""
    return code if code <= 2 else SUBACK_FAILURE_3_1_1
