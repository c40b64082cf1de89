"""One function a control packet: body bytes to packet, with every rule that needs no more than the packet (§3).

A reader of bytes may run past the end: the `IndexError` of a lying length becomes `MalformedPacket` in one place,
`decode_packet`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from broker.codec import constants
from broker.codec.errors import (
    ClientIdentifierNotValid,
    MalformedPacket,
    NotAnswered,
    ProtocolError,
    TopicNameInvalid,
    UnknownProtocol,
    UnsupportedProtocolVersion,
)
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
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)
from broker.codec.primitives import decode_binary, decode_string, decode_text, decode_uint16
from broker.codec.properties import Properties, decode_properties
from broker.codec.reason_codes import CODES_BY_PACKET_TYPE, CONNACK_CODES_3_1_1, SUBACK_CODES_3_1_1
from broker.topics.names import SHARE_PREFIX, validate_topic_name

_PROTOCOL_NAMES: Final[dict[int, str]] = {
    constants.LEVEL_3_1: "MQIsdp",
    constants.LEVEL_3_1_1: "MQTT",
    constants.LEVEL_5: "MQTT",
}


def decode_packet(first_byte: int, body: bytes, protocol_level: int) -> Any:
    """The packet whose fixed header begins with `first_byte`; its type follows from that byte.

    `protocol_level` is 3, 4 or 5, and 0 before CONNECT, which brings its own.

    Raises:
        MqttError: the packet breaks a rule of its version.
    """
    packet_type = first_byte >> 4
    decoder = _DECODERS[packet_type]
    if decoder is None:
        raise MalformedPacket("packet type 0")
    if packet_type != constants.PUBLISH:
        _check_flags(packet_type, first_byte & 0x0F, protocol_level)
        if packet_type != constants.CONNECT and protocol_level == 0:
            raise ProtocolError(f"{constants.PACKET_NAMES[packet_type]} before CONNECT")
    try:
        return decoder(first_byte, body, protocol_level)
    except IndexError as error:
        raise MalformedPacket(f"{constants.PACKET_NAMES[packet_type]} ends too early") from error


def connect_level(data: bytes, body_start: int, end: int) -> int:
    """The protocol level of a CONNECT that may be wrong in every other way; 0: it does not come so far.

    Without the bit of a bridge, which changes nothing of the form.
    """
    at = body_start + 2 + int.from_bytes(data[body_start : body_start + 2], "big")
    return data[at] & ~constants.BRIDGE_BIT if at < end else 0


def _check_flags(packet_type: int, flags: int, protocol_level: int) -> None:
    """[MQTT-2.1.3-1]; of CONNECT they are looked at when its level is known, and 3.1 has no rule for them."""
    if packet_type == constants.CONNECT:
        return
    if packet_type in (constants.PUBREL, constants.SUBSCRIBE, constants.UNSUBSCRIBE):
        if protocol_level == constants.LEVEL_3_1:
            flags &= ~constants.DUP_BIT  # 3.1 §2.1 lets these three be sent again, with DUP
        flags ^= constants.REQUIRED_FLAGS
    if flags:
        raise MalformedPacket(f"{constants.PACKET_NAMES[packet_type]} with flags that are reserved")


def _decode_packet_id(body: bytes) -> int:
    packet_id = body[0] << 8 | body[1]
    if packet_id == 0:  # [MQTT-2.2.1-3]
        raise ProtocolError("packet id 0")
    return packet_id


def _decode_request_id(body: bytes) -> int:
    packet_id = body[0] << 8 | body[1]
    if packet_id == 0:  # [MQTT-2.2.1-3]
        raise MalformedPacket("packet id 0")
    return packet_id


def _check_end(body: bytes, position: int, packet_type: int) -> None:
    if position != len(body):
        raise MalformedPacket(f"{constants.PACKET_NAMES[packet_type]} has {len(body) - position} bytes too many")


def _check_reason(reason_code: int, packet_type: int) -> None:
    if reason_code not in CODES_BY_PACKET_TYPE[packet_type]:
        raise ProtocolError(f"reason code 0x{reason_code:02X} is none of {constants.PACKET_NAMES[packet_type]}")


def _decode_connect(first_byte: int, body: bytes, protocol_level: int) -> Packet:
    del protocol_level
    name, position = decode_binary(body, 0)
    level = body[position]
    is_bridge = level & constants.BRIDGE_BIT != 0
    level &= ~constants.BRIDGE_BIT
    if name not in (b"MQTT", b"MQIsdp"):
        raise UnknownProtocol(f"protocol {name[:20]!r}")  # [MQTT-3.1.2-1]
    protocol_name = name.decode()
    if _PROTOCOL_NAMES.get(level) != protocol_name:
        raise UnsupportedProtocolVersion(f"protocol {protocol_name!r} level {body[position]}")  # [MQTT-3.1.2-2]
    is_bridge = is_bridge and level != constants.LEVEL_5  # 5.0 has subscription options for what a bridge wants
    if first_byte & 0x0F and level != constants.LEVEL_3_1:
        raise MalformedPacket("CONNECT with flags that are reserved")  # [MQTT-2.1.3-1]
    flags = body[position + 1]
    _check_connect_flags(flags, level)
    packet = Connect(protocol_level=level, protocol_name=protocol_name, is_bridge=is_bridge)
    packet.clean_start = flags & constants.CLEAN_START_BIT != 0
    packet.keep_alive_s, position = decode_uint16(body, position + 2)
    if level == constants.LEVEL_5:
        packet.properties, position = decode_properties(body, position, constants.CONNECT)
    client_id, position = decode_binary(body, position)
    try:
        packet.client_id = decode_text(client_id)
    except MalformedPacket as error:
        raise ClientIdentifierNotValid(str(error)) from error  # [MQTT-3.1.3-4]
    if flags & constants.WILL_BIT:
        will_properties: Properties | None = None
        if level == constants.LEVEL_5:
            will_properties, position = decode_properties(body, position, constants.WILL)
        topic_name, position = decode_string(body, position)
        payload, position = decode_binary(body, position)
        validate_topic_name(topic_name.encode())  # [MQTT-3.1.3-11]
        will_qos = flags >> constants.WILL_QOS_SHIFT & 3
        packet.will = Will(topic_name, payload, will_qos, flags & constants.WILL_RETAIN_BIT != 0, will_properties)
    if level == constants.LEVEL_3_1 and position == len(body):
        return packet  # 3.1 §3.1: the flags may promise a name and password that do not come
    position = _decode_credentials(packet, flags, body, position)
    _check_end(body, position, constants.CONNECT)
    return packet


def _decode_credentials(packet: Connect, flags: int, body: bytes, position: int) -> int:
    """User name and password, as far as the flags promise them; where they end.

    Raises:
        NotAnswered: they are missing, or the name is no text. [MQTT-3.1.2-17] [MQTT-3.1.2-19]
    """
    try:
        if flags & constants.USERNAME_BIT:
            packet.username, position = decode_string(body, position)
        if packet.protocol_level == constants.LEVEL_3_1 and position == len(body):
            return position
        if flags & constants.PASSWORD_BIT:
            packet.password, position = decode_binary(body, position)
    except (MalformedPacket, IndexError) as error:
        raise NotAnswered("CONNECT without the user name or password that it promises") from error
    return position


def _check_connect_flags(flags: int, level: int) -> None:
    if flags & constants.CONNECT_RESERVED_BIT and level != constants.LEVEL_3_1:
        raise MalformedPacket("CONNECT with its reserved flag")  # [MQTT-3.1.2-3]
    will_qos = flags >> constants.WILL_QOS_SHIFT & 3
    if will_qos == 3:
        raise MalformedPacket("will QoS 3")  # [MQTT-3.1.2-12]
    has_will_options = will_qos or flags & constants.WILL_RETAIN_BIT
    if has_will_options and not flags & constants.WILL_BIT and level != constants.LEVEL_3_1:
        raise MalformedPacket("will QoS or retain without a will")  # [MQTT-3.1.2-11] [MQTT-3.1.2-13]
    if flags & constants.PASSWORD_BIT and not flags & constants.USERNAME_BIT and level != constants.LEVEL_5:
        raise MalformedPacket("password without a user name")  # 3.1.1 [MQTT-3.1.2-22]


def _decode_connack(first_byte: int, body: bytes, protocol_level: int) -> Packet:
    del first_byte
    flags, reason_code = body[0], body[1]
    position = 2
    if flags > 1 and protocol_level != constants.LEVEL_3_1:
        raise MalformedPacket("CONNACK with flags that are reserved")  # [MQTT-3.2.2-1]
    session_present = flags & 1 != 0
    properties: Properties | None = None
    if protocol_level == constants.LEVEL_5:
        _check_reason(reason_code, constants.CONNACK)
        properties, position = decode_properties(body, position, constants.CONNACK)
    elif reason_code not in CONNACK_CODES_3_1_1:
        raise ProtocolError(f"return code {reason_code} is none of CONNACK")
    if session_present and reason_code:
        raise ProtocolError("a refused CONNECT with a session present")  # [MQTT-3.2.2-6]
    _check_end(body, position, constants.CONNACK)
    return Connack(session_present, reason_code, properties)


def _decode_publish(first_byte: int, body: bytes, protocol_level: int) -> Packet:
    qos = first_byte >> 1 & 3
    dup = first_byte & constants.DUP_BIT != 0
    if qos == 3:
        raise MalformedPacket("PUBLISH with QoS 3")  # [MQTT-3.3.1-4]
    if dup and qos == 0 and protocol_level != constants.LEVEL_3_1:
        raise MalformedPacket("PUBLISH with DUP and QoS 0")  # [MQTT-3.3.1-2]; 3.1 says nothing of it
    if protocol_level == 0:
        raise ProtocolError("PUBLISH before CONNECT")
    topic, position = decode_binary(body, 0)
    topic_name = validate_topic_name(topic) if topic else ""
    packet_id = 0
    if qos:
        packet_id, position = decode_uint16(body, position)
        if packet_id == 0:
            raise ProtocolError("packet id 0")  # [MQTT-2.2.1-3]
    properties: Properties | None = None
    if protocol_level == constants.LEVEL_5:
        properties, position = decode_properties(body, position, constants.PUBLISH)
    if not topic:
        if protocol_level != constants.LEVEL_5:
            raise TopicNameInvalid("empty topic name")  # [MQTT-4.7.3-1]
        if properties is None or properties.topic_alias is None:
            raise TopicNameInvalid("empty topic name without a topic alias")  # §3.3.2.1
    retain = first_byte & constants.RETAIN_BIT != 0
    return Publish(topic_name, body[position:], qos, retain, dup, packet_id, properties)


def _decode_reason(body: bytes, position: int, packet_type: int, protocol_level: int) -> tuple[int, Properties | None]:
    """Reason and properties up to the end; either may be left out (§3.4.2.1, §3.14.2.1)."""
    reason_code = 0
    properties: Properties | None = None
    if protocol_level == constants.LEVEL_5 and position < len(body):
        reason_code = body[position]
        position += 1
        _check_reason(reason_code, packet_type)
        if position < len(body):
            properties, position = decode_properties(body, position, packet_type)
    _check_end(body, position, packet_type)
    return reason_code, properties


def _decode_puback(first_byte: int, body: bytes, protocol_level: int) -> Packet:
    del first_byte
    packet_id = _decode_packet_id(body)
    reason_code, properties = _decode_reason(body, 2, constants.PUBACK, protocol_level)
    return Puback(packet_id, reason_code, properties)


def _decode_pubrec(first_byte: int, body: bytes, protocol_level: int) -> Packet:
    del first_byte
    packet_id = _decode_packet_id(body)
    reason_code, properties = _decode_reason(body, 2, constants.PUBREC, protocol_level)
    return Pubrec(packet_id, reason_code, properties)


def _decode_pubrel(first_byte: int, body: bytes, protocol_level: int) -> Packet:
    del first_byte
    packet_id = _decode_packet_id(body)
    reason_code, properties = _decode_reason(body, 2, constants.PUBREL, protocol_level)
    return Pubrel(packet_id, reason_code, properties)


def _decode_pubcomp(first_byte: int, body: bytes, protocol_level: int) -> Packet:
    del first_byte
    packet_id = _decode_packet_id(body)
    reason_code, properties = _decode_reason(body, 2, constants.PUBCOMP, protocol_level)
    return Pubcomp(packet_id, reason_code, properties)


def _decode_topic_filter(body: bytes, position: int) -> tuple[str, int]:
    """The filter as text; whether it is one is for those who know what texts of their own they take."""
    topic_filter, position = decode_string(body, position)
    if not topic_filter:
        raise MalformedPacket("empty topic filter")  # [MQTT-4.7.3-1]
    return topic_filter, position


def _decode_subscribe(first_byte: int, body: bytes, protocol_level: int) -> Packet:
    del first_byte
    packet_id = _decode_request_id(body)
    position = 2
    properties: Properties | None = None
    if protocol_level == constants.LEVEL_5:
        properties, position = decode_properties(body, position, constants.SUBSCRIBE)
    subscriptions: list[Subscription] = []
    while position < len(body):
        topic_filter, position = _decode_topic_filter(body, position)
        subscriptions.append(_decode_subscription(topic_filter, body[position], protocol_level))
        position += 1
    if not subscriptions:
        raise MalformedPacket("SUBSCRIBE without a topic filter")  # [MQTT-3.8.3-2]
    return Subscribe(packet_id, subscriptions, properties)


def _decode_subscription(topic_filter: str, options: int, protocol_level: int) -> Subscription:
    qos = options & 3
    if protocol_level != constants.LEVEL_5:
        if qos == 3 or (options > 3 and protocol_level != constants.LEVEL_3_1):
            raise MalformedPacket(f"subscription with requested QoS {options}")  # 3.1.1 [MQTT-3.8.3-4]
        return Subscription(topic_filter, qos)
    retain_handling = options >> 4 & 3
    if options & 0xC0:
        raise MalformedPacket("subscription options with reserved bits")  # [MQTT-3.8.3-5]
    if qos == 3:
        raise MalformedPacket("subscription with QoS 3")
    if retain_handling == 3:
        raise MalformedPacket("retain handling 3")
    no_local = options & 0x04 != 0
    if no_local and topic_filter.startswith(SHARE_PREFIX):
        raise ProtocolError("no local on a shared subscription")  # [MQTT-3.8.3-4]
    return Subscription(topic_filter, qos, no_local, options & 0x08 != 0, retain_handling)


def _decode_suback(first_byte: int, body: bytes, protocol_level: int) -> Packet:
    del first_byte
    packet_id = _decode_packet_id(body)
    position = 2
    properties: Properties | None = None
    allowed = SUBACK_CODES_3_1_1
    if protocol_level == constants.LEVEL_5:
        properties, position = decode_properties(body, position, constants.SUBACK)
        allowed = CODES_BY_PACKET_TYPE[constants.SUBACK]
    reason_codes = _decode_codes(body, position, allowed)
    return Suback(packet_id, reason_codes, properties)


def _decode_codes(body: bytes, position: int, allowed: frozenset[int]) -> list[int]:
    reason_codes = list(body[position:])
    if not reason_codes:
        raise ProtocolError("an answer without a reason code")
    for reason_code in reason_codes:
        if reason_code not in allowed:
            raise ProtocolError(f"reason code 0x{reason_code:02X} is not allowed here")  # [MQTT-3.9.3-2]
    return reason_codes


def _decode_unsubscribe(first_byte: int, body: bytes, protocol_level: int) -> Packet:
    del first_byte
    packet_id = _decode_request_id(body)
    position = 2
    properties: Properties | None = None
    if protocol_level == constants.LEVEL_5:
        properties, position = decode_properties(body, position, constants.UNSUBSCRIBE)
    topic_filters: list[str] = []
    while position < len(body):
        topic_filter, position = _decode_topic_filter(body, position)
        topic_filters.append(topic_filter)
    if not topic_filters:
        raise MalformedPacket("UNSUBSCRIBE without a topic filter")  # [MQTT-3.10.3-2]
    return Unsubscribe(packet_id, topic_filters, properties)


def _decode_unsuback(first_byte: int, body: bytes, protocol_level: int) -> Packet:
    del first_byte
    packet_id = _decode_packet_id(body)
    if protocol_level != constants.LEVEL_5:
        _check_end(body, 2, constants.UNSUBACK)
        return Unsuback(packet_id)
    properties, position = decode_properties(body, 2, constants.UNSUBACK)
    reason_codes = _decode_codes(body, position, CODES_BY_PACKET_TYPE[constants.UNSUBACK])
    return Unsuback(packet_id, reason_codes, properties)


def _decode_pingreq(first_byte: int, body: bytes, protocol_level: int) -> Packet:
    del first_byte, protocol_level
    if body:
        raise NotAnswered("PINGREQ with bytes behind its header")
    return Pingreq()


def _decode_pingresp(first_byte: int, body: bytes, protocol_level: int) -> Packet:
    del first_byte, protocol_level
    _check_end(body, 0, constants.PINGRESP)
    return Pingresp()


def _decode_disconnect(first_byte: int, body: bytes, protocol_level: int) -> Packet:
    del first_byte
    if protocol_level == constants.LEVEL_5 and body and body[0] not in CODES_BY_PACKET_TYPE[constants.DISCONNECT]:
        raise NotAnswered(f"reason code 0x{body[0]:02X} is none of DISCONNECT")
    reason_code, properties = _decode_reason(body, 0, constants.DISCONNECT, protocol_level)
    return Disconnect(reason_code, properties)


def _decode_auth(first_byte: int, body: bytes, protocol_level: int) -> Packet:
    del first_byte
    if protocol_level != constants.LEVEL_5:
        raise MalformedPacket("packet type 15 before MQTT 5")
    if len(body) == 1:
        raise MalformedPacket("AUTH with a reason and without properties")  # §3.15.2.1
    reason_code, properties = _decode_reason(body, 0, constants.AUTH, protocol_level)
    return Auth(reason_code, properties)


_DECODERS: Final[list[Callable[[int, bytes, int], Packet] | None]] = [
    None,
    _decode_connect,
    _decode_connack,
    _decode_publish,
    _decode_puback,
    _decode_pubrec,
    _decode_pubrel,
    _decode_pubcomp,
    _decode_subscribe,
    _decode_suback,
    _decode_unsubscribe,
    _decode_unsuback,
    _decode_pingreq,
    _decode_pingresp,
    _decode_disconnect,
    _decode_auth,
]
"""By packet type."""
