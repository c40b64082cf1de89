"""MQTT packets as bytes, written from the specification and not from our codec, so that one checks the other.

Only what tests send and read: encoders take plain values, `parse` gives a `Packet` with the fields a test asks for.
Properties are a dict by identifier; its values are int, bytes, str, (str, str), or a list of such for repeats.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = 8, 9, 10, 11, 12, 13, 14, 15

V31, V311, V5 = 3, 4, 5

PAYLOAD_FORMAT, MESSAGE_EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA = 0x01, 0x02, 0x03, 0x08, 0x09
SUBSCRIPTION_IDENTIFIER, SESSION_EXPIRY, ASSIGNED_CLIENT_ID, SERVER_KEEP_ALIVE = 0x0B, 0x11, 0x12, 0x13
WILL_DELAY, REASON_STRING, RECEIVE_MAXIMUM, TOPIC_ALIAS_MAXIMUM, TOPIC_ALIAS = 0x18, 0x1F, 0x21, 0x22, 0x23
AUTHENTICATION_METHOD, AUTHENTICATION_DATA = 0x15, 0x16
MAXIMUM_QOS, RETAIN_AVAILABLE, USER_PROPERTY, MAXIMUM_PACKET_SIZE = 0x24, 0x25, 0x26, 0x27

# How each property is written (MQTT 5 §2.2.2.2).
ONE_BYTE = frozenset({0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A})
TWO_BYTES = frozenset({0x13, 0x21, 0x22, 0x23})
FOUR_BYTES = frozenset({0x02, 0x11, 0x18, 0x27})
VARIABLE = frozenset({0x0B})
BINARY = frozenset({0x09, 0x16})
PAIR = frozenset({0x26})

Properties = dict[int, Any]


def variable_byte_integer(value: int) -> bytes:
    """MQTT 5 §1.5.5."""
    encoded = bytearray()
    while True:
        value, byte = divmod(value, 128)
        encoded.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


def string(text: str | bytes) -> bytes:
    """Two bytes of length, then the bytes (§1.5.4, §1.5.6)."""
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack(">H", len(raw)) + raw


def properties(values: Properties | None) -> bytes:
    """With their length in front (§2.2.2)."""
    encoded = b""
    for identifier, value in (values or {}).items():
        for one in value if isinstance(value, list) else [value]:
            encoded += variable_byte_integer(identifier)
            if identifier in ONE_BYTE:
                encoded += struct.pack(">B", one)
            elif identifier in TWO_BYTES:
                encoded += struct.pack(">H", one)
            elif identifier in FOUR_BYTES:
                encoded += struct.pack(">I", one)
            elif identifier in VARIABLE:
                encoded += variable_byte_integer(one)
            elif identifier in PAIR:
                encoded += string(one[0]) + string(one[1])
            else:
                encoded += string(one)
    return variable_byte_integer(len(encoded)) + encoded


def packet(packet_type: int, body: bytes = b"", flags: int = 0) -> bytes:
    """A control packet (§2.1)."""
    return bytes((packet_type << 4 | flags,)) + variable_byte_integer(len(body)) + body


@dataclass(frozen=True)
class Will:
    """A will message (§3.1.2.5)."""

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    properties: Properties = field(default_factory=dict)


def connect(
    client_id: str = "",
    version: int = V5,
    *,
    clean: bool = True,
    keep_alive: int = 0,
    will: Will | None = None,
    username: str | None = None,
    password: bytes | None = None,
    connect_properties: Properties | None = None,
) -> bytes:
    """§3.1."""
    flags = 0x02 if clean else 0
    payload = string(client_id)
    if will is not None:
        flags |= 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
        if version == V5:
            payload += properties(will.properties)
        payload += string(will.topic) + string(will.payload)
    if username is not None:
        flags |= 0x80
        payload += string(username)
    if password is not None:
        flags |= 0x40
        payload += string(password)
    name = "MQIsdp" if version == V31 else "MQTT"
    body = string(name) + bytes((version, flags)) + struct.pack(">H", keep_alive)
    if version == V5:
        body += properties(connect_properties)
    return packet(CONNECT, body + payload)


def publish(
    topic: str,
    payload: bytes = b"",
    qos: int = 0,
    packet_id: int = 0,
    *,
    version: int = V5,
    retain: bool = False,
    dup: bool = False,
    publish_properties: Properties | None = None,
) -> bytes:
    """§3.3."""
    body = string(topic)
    if qos:
        body += struct.pack(">H", packet_id)
    if version == V5:
        body += properties(publish_properties)
    return packet(PUBLISH, body + payload, (8 if dup else 0) | qos << 1 | (1 if retain else 0))


def acknowledgement(packet_type: int, packet_id: int, reason_code: int = 0) -> bytes:
    """PUBACK, PUBREC, PUBREL, PUBCOMP (§3.4 to §3.7)."""
    body = struct.pack(">H", packet_id) + (bytes((reason_code,)) if reason_code else b"")
    return packet(packet_type, body, 2 if packet_type == PUBREL else 0)


def subscribe(
    packet_id: int,
    *filters: str | tuple[str, int],
    version: int = V5,
    subscribe_properties: Properties | None = None,
) -> bytes:
    """§3.8; a filter alone asks for QoS 0, else the second value is the whole options byte."""
    body = struct.pack(">H", packet_id) + (properties(subscribe_properties) if version == V5 else b"")
    for one in filters:
        topic_filter, options = one if isinstance(one, tuple) else (one, 0)
        body += string(topic_filter) + bytes((options,))
    return packet(SUBSCRIBE, body, 2)


def unsubscribe(packet_id: int, *filters: str, version: int = V5) -> bytes:
    """§3.10."""
    body = struct.pack(">H", packet_id) + (properties(None) if version == V5 else b"")
    return packet(UNSUBSCRIBE, body + b"".join(string(one) for one in filters), 2)


def pingreq() -> bytes:
    """§3.12."""
    return packet(PINGREQ)


def disconnect(reason_code: int = 0, disconnect_properties: Properties | None = None) -> bytes:
    """§3.14."""
    if disconnect_properties is not None:
        return packet(DISCONNECT, bytes((reason_code,)) + properties(disconnect_properties))
    return packet(DISCONNECT, bytes((reason_code,)) if reason_code else b"")


@dataclass
class Packet:
    """A packet from the server."""

    packet_type: int
    flags: int = 0
    packet_id: int = 0
    reason_code: int = 0
    reason_codes: list[int] = field(default_factory=list)
    session_present: bool = False
    topic: str = ""
    payload: bytes = b""
    properties: Properties = field(default_factory=dict)

    @property
    def qos(self) -> int:
        """Of a PUBLISH."""
        return self.flags >> 1 & 3

    @property
    def retain(self) -> bool:
        """Of a PUBLISH."""
        return bool(self.flags & 1)

    @property
    def dup(self) -> bool:
        """Of a PUBLISH."""
        return bool(self.flags & 8)


class _Reader:
    def __init__(self, body: bytes) -> None:
        self.body = body
        self.position = 0

    @property
    def is_at_end(self) -> bool:
        return self.position >= len(self.body)

    def take(self, count: int) -> bytes:
        assert self.position + count <= len(self.body), f"packet too short: {self.body!r}"
        self.position += count
        return self.body[self.position - count : self.position]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def string(self) -> bytes:
        return self.take(self.number(2))

    def variable(self) -> int:
        value = shift = 0
        while True:
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    def properties(self) -> Properties:
        end = self.variable() + self.position
        found: Properties = {}
        while self.position < end:
            identifier = self.variable()
            value: Any
            if identifier in ONE_BYTE:
                value = self.number(1)
            elif identifier in TWO_BYTES:
                value = self.number(2)
            elif identifier in FOUR_BYTES:
                value = self.number(4)
            elif identifier in VARIABLE:
                value = self.variable()
            elif identifier in PAIR:
                value = (self.string().decode(), self.string().decode())
            elif identifier in BINARY:
                value = self.string()
            else:
                value = self.string().decode()
            if identifier in (USER_PROPERTY, SUBSCRIPTION_IDENTIFIER):
                found.setdefault(identifier, []).append(value)
            else:
                assert identifier not in found, f"property {identifier:#x} twice"
                found[identifier] = value
        assert self.position == end, "properties overrun their length"
        return found


def parse(first_byte: int, body: bytes, version: int) -> Packet:
    """A packet that the server sent."""
    found = Packet(first_byte >> 4, first_byte & 15)
    reader = _Reader(body)
    kind = found.packet_type
    is_v5 = version == V5
    if kind == CONNACK:
        found.session_present = bool(reader.number(1) & 1)
        found.reason_code = reader.number(1)
        if is_v5 and not reader.is_at_end:
            found.properties = reader.properties()
    elif kind == PUBLISH:
        found.topic = reader.string().decode()
        if found.qos:
            found.packet_id = reader.number(2)
        if is_v5:
            found.properties = reader.properties()
        found.payload = body[reader.position :]
        return found
    elif kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
        found.packet_id = reader.number(2)
        if is_v5 and not reader.is_at_end:
            found.reason_code = reader.number(1)
            if not reader.is_at_end:
                found.properties = reader.properties()
    elif kind in (SUBACK, UNSUBACK):
        found.packet_id = reader.number(2)
        if is_v5:
            found.properties = reader.properties()
        found.reason_codes = list(reader.take(len(body) - reader.position))
    elif kind in (DISCONNECT, AUTH) and not reader.is_at_end:
        found.reason_code = reader.number(1)
        if not reader.is_at_end:
            found.properties = reader.properties()
    assert reader.is_at_end, f"bytes after the end of packet type {kind}: {body[reader.position :]!r}"
    return found
