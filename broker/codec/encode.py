"""Packets to bytes: one function a packet, for both directions, and ready tables for what is sent most.

What no peer may be sent (a text with U+0000, a packet id of 0, a property in the wrong packet) is a `ValueError`: a
fault of ours. Topic names and filters are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from broker.codec import constants
from broker.codec.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from broker.codec.primitives import encode_binary, encode_string, encode_variable_byte_integer
from broker.codec.properties import Properties, encode_properties

PACKET_IDS: Final[list[bytes]] = [packet_id.to_bytes(2, "big") for packet_id in range(constants.PACKET_ID_MAX + 1)]
"""Each packet id as it stands on the wire."""

PUBACKS: Final[list[bytes]] = [b"\x40\x02" + packet_id for packet_id in PACKET_IDS]
"""A PUBACK of success for each packet id; the same bytes in every version."""

# All packet ids in order: `STREAM[4 * packet_id : 4 * packet_id + 4]` is the packet of success for one id, and a read
# of consecutive acknowledgements is compared, or answered, by one slice.
PUBACK_STREAM: Final = b"".join(PUBACKS)
PUBREC_STREAM: Final = b"".join([b"\x50\x02" + packet_id for packet_id in PACKET_IDS])
PUBREL_STREAM: Final = b"".join([b"\x62\x02" + packet_id for packet_id in PACKET_IDS])
PUBCOMP_STREAM: Final = b"".join([b"\x70\x02" + packet_id for packet_id in PACKET_IDS])

PINGREQ: Final = b"\xc0\x00"
PINGRESP: Final = b"\xd0\x00"


def encode_remaining_length(remaining_length: int) -> bytes:
    """How many bytes follow the fixed header (§2.1.4).

    Raises:
        ValueError: more than 268 435 455.
    """
    return encode_variable_byte_integer(remaining_length)


def encode_publish_head(first_byte: int, remaining_length: int) -> bytes:
    """The fixed header of a PUBLISH, for those who put the rest together themselves."""
    return bytes((first_byte,)) + encode_variable_byte_integer(remaining_length)


def _frame(packet_type: int, flags: int, body: bytes) -> bytes:
    return bytes((packet_type << 4 | flags,)) + encode_variable_byte_integer(len(body)) + body


def _packet_id(packet_id: int) -> bytes:
    """[MQTT-2.2.1-3]"""
    if not 1 <= packet_id <= constants.PACKET_ID_MAX:
        raise ValueError(f"{packet_id} is no packet id")
    return PACKET_IDS[packet_id]


def encode_connect(packet: Connect, protocol_level: int = 0) -> bytes:
    """The level is the packet's own; `protocol_level` is there so that all functions look alike."""
    del protocol_level
    level = packet.protocol_level
    will = packet.will
    flags = constants.CLEAN_START_BIT if packet.clean_start else 0
    parts = [
        encode_string(packet.protocol_name),
        b"",  # level, flags and keep alive, once the flags are known
        encode_properties(packet.properties, constants.CONNECT) if level >= constants.LEVEL_5 else b"",
        encode_string(packet.client_id),
    ]
    if will is not None:
        flags |= constants.WILL_BIT | will.qos << constants.WILL_QOS_SHIFT
        if will.retain:
            flags |= constants.WILL_RETAIN_BIT
        if level >= constants.LEVEL_5:
            parts.append(encode_properties(will.properties, constants.WILL))
        parts.append(encode_string(will.topic_name))
        parts.append(encode_binary(will.payload))
    if packet.username is not None:
        flags |= constants.USERNAME_BIT
        parts.append(encode_string(packet.username))
    if packet.password is not None:
        flags |= constants.PASSWORD_BIT
        parts.append(encode_binary(packet.password))
    level_byte = level | constants.BRIDGE_BIT if packet.is_bridge else level
    parts[1] = bytes((level_byte, flags)) + packet.keep_alive_s.to_bytes(2, "big")
    return _frame(constants.CONNECT, 0, b"".join(parts))


def encode_connack(packet: Connack, protocol_level: int) -> bytes:
    body = bytes((1 if packet.session_present else 0, packet.reason_code))
    if protocol_level >= constants.LEVEL_5:
        body += encode_properties(packet.properties, constants.CONNACK)
    return _frame(constants.CONNACK, 0, body)


def encode_publish(packet: Publish, protocol_level: int) -> bytes:
    flags = packet.qos << 1
    if packet.retain:
        flags |= constants.RETAIN_BIT
    if packet.dup:
        flags |= constants.DUP_BIT
    topic = encode_string(packet.topic_name)
    packet_id = _packet_id(packet.packet_id) if packet.qos else b""
    properties = encode_properties(packet.properties, constants.PUBLISH) if protocol_level >= constants.LEVEL_5 else b""
    length = len(topic) + len(packet_id) + len(properties) + len(packet.payload)
    head = encode_publish_head(constants.PUBLISH << 4 | flags, length)
    return b"".join((head, topic, packet_id, properties, packet.payload))


def _reason(reason_code: int, properties: Properties | None, packet_type: int) -> bytes:
    """Reason and properties of a packet that ends before either when there is none (§3.4.2.1, §3.14.2.1)."""
    if properties is not None and not properties.is_empty:
        return bytes((reason_code,)) + encode_properties(properties, packet_type)
    return bytes((reason_code,)) if reason_code else b""


def _acknowledgement(
    packet_type: int, flags: int, packet: Puback | Pubrec | Pubrel | Pubcomp, protocol_level: int
) -> bytes:
    body = _packet_id(packet.packet_id)
    if protocol_level >= constants.LEVEL_5:
        body += _reason(packet.reason_code, packet.properties, packet_type)
    return _frame(packet_type, flags, body)


def encode_puback(packet: Puback, protocol_level: int) -> bytes:
    return _acknowledgement(constants.PUBACK, 0, packet, protocol_level)


def encode_pubrec(packet: Pubrec, protocol_level: int) -> bytes:
    return _acknowledgement(constants.PUBREC, 0, packet, protocol_level)


def encode_pubrel(packet: Pubrel, protocol_level: int) -> bytes:
    return _acknowledgement(constants.PUBREL, constants.REQUIRED_FLAGS, packet, protocol_level)


def encode_pubcomp(packet: Pubcomp, protocol_level: int) -> bytes:
    return _acknowledgement(constants.PUBCOMP, 0, packet, protocol_level)


def encode_subscribe(packet: Subscribe, protocol_level: int) -> bytes:
    is_v5 = protocol_level >= constants.LEVEL_5
    parts = [_packet_id(packet.packet_id)]
    if is_v5:
        parts.append(encode_properties(packet.properties, constants.SUBSCRIBE))
    for subscription in packet.subscriptions:
        options = subscription.qos
        if is_v5:
            options |= (
                (0x04 if subscription.no_local else 0)
                | (0x08 if subscription.retain_as_published else 0)
                | subscription.retain_handling << 4
            )
        parts.append(encode_string(subscription.topic_filter) + bytes((options,)))
    return _frame(constants.SUBSCRIBE, constants.REQUIRED_FLAGS, b"".join(parts))


def encode_suback(packet: Suback, protocol_level: int) -> bytes:
    properties = encode_properties(packet.properties, constants.SUBACK) if protocol_level >= constants.LEVEL_5 else b""
    return _frame(constants.SUBACK, 0, _packet_id(packet.packet_id) + properties + bytes(packet.reason_codes))


def encode_unsubscribe(packet: Unsubscribe, protocol_level: int) -> bytes:
    parts = [_packet_id(packet.packet_id)]
    if protocol_level >= constants.LEVEL_5:
        parts.append(encode_properties(packet.properties, constants.UNSUBSCRIBE))
    parts.extend([encode_string(topic_filter) for topic_filter in packet.topic_filters])
    return _frame(constants.UNSUBSCRIBE, constants.REQUIRED_FLAGS, b"".join(parts))


def encode_unsuback(packet: Unsuback, protocol_level: int) -> bytes:
    """3.1 and 3.1.1 have no reason codes here: they are left out."""
    body = _packet_id(packet.packet_id)
    if protocol_level >= constants.LEVEL_5:
        body += encode_properties(packet.properties, constants.UNSUBACK) + bytes(packet.reason_codes)
    return _frame(constants.UNSUBACK, 0, body)


def encode_pingreq(packet: Pingreq, protocol_level: int) -> bytes:
    del packet, protocol_level
    return PINGREQ


def encode_pingresp(packet: Pingresp, protocol_level: int) -> bytes:
    del packet, protocol_level
    return PINGRESP


def encode_disconnect(packet: Disconnect, protocol_level: int) -> bytes:
    if protocol_level < constants.LEVEL_5:
        return _frame(constants.DISCONNECT, 0, b"")
    return _frame(constants.DISCONNECT, 0, _reason(packet.reason_code, packet.properties, constants.DISCONNECT))


def encode_auth(packet: Auth, protocol_level: int) -> bytes:
    """
    Raises:
        ValueError: there is no AUTH before MQTT 5.
    """
    if protocol_level < constants.LEVEL_5:
        raise ValueError("AUTH before MQTT 5")
    properties = packet.properties
    if properties is None and packet.reason_code == 0:
        return _frame(constants.AUTH, 0, b"")
    # Unlike DISCONNECT, a reason alone is no AUTH: the property length may not be left out (§3.15.2.1).
    return _frame(constants.AUTH, 0, bytes((packet.reason_code,)) + encode_properties(properties, constants.AUTH))


_ENCODERS: Final[list[Callable[[Any, int], bytes] | None]] = [
    None,
    encode_connect,
    encode_connack,
    encode_publish,
    encode_puback,
    encode_pubrec,
    encode_pubrel,
    encode_pubcomp,
    encode_subscribe,
    encode_suback,
    encode_unsubscribe,
    encode_unsuback,
    encode_pingreq,
    encode_pingresp,
    encode_disconnect,
    encode_auth,
]


def encode(packet: Packet, protocol_level: int) -> bytes:
    """Any packet, as a peer of `protocol_level` (3, 4 or 5) reads it.

    Raises:
        ValueError: the packet cannot be sent at that level, or at all.
    """
    encoder = _ENCODERS[packet.packet_type]
    if encoder is None:
        raise ValueError(f"{packet!r} is no packet of its own")
    return encoder(packet, protocol_level)
