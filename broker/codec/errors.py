"""What a peer can do wrong, each with the reason code that tells it so (MQTT 5 §2.4, §4.13).

An `MqttError` is always the peer's fault; a fault of ours is any other exception.
"""

from __future__ import annotations

from typing import ClassVar


class MqttError(Exception):
    """The peer broke a rule; the connection ends with `reason_code` unless a packet can carry the answer."""

    reason_code: ClassVar[int] = 0x80
    is_told: ClassVar[bool] = True
    """The peer hears of it, where its version has a way to say it; false: the connection ends without a word."""


class MalformedPacket(MqttError):
    """The bytes cannot be parsed."""

    reason_code: ClassVar[int] = 0x81


class NotAnswered(MalformedPacket):
    """The connection ends without a word, as Mosquitto does it: who sends such hardly listens (§4.13.1 leaves it)."""

    is_told: ClassVar[bool] = False


class ClientIdentifierNotValid(MalformedPacket):
    """A client identifier that is no text, or holds control characters (§3.1.3.1)."""

    reason_code: ClassVar[int] = 0x85


class ProtocolError(MqttError):
    """The packet can be parsed and is not allowed, here or at all."""

    reason_code: ClassVar[int] = 0x82


class UnsupportedProtocolVersion(MqttError):
    """CONNECT of a protocol level that is not 3.1, 3.1.1 or 5.0, or that does not go with its protocol name."""

    reason_code: ClassVar[int] = 0x84


class UnknownProtocol(UnsupportedProtocolVersion):
    """CONNECT with a protocol name that is not MQTT's: nobody knows in which form to answer."""

    is_told: ClassVar[bool] = False


class TopicFilterInvalid(MalformedPacket):
    """A text that is no topic filter (§4.7). 0x8F is for one that is, and is not granted (§3.9.3)."""


class SharedFilterInvalid(TopicFilterInvalid):
    """`$share/` without a share name or a filter, or with a wildcard in the name (§4.8.2)."""

    reason_code: ClassVar[int] = 0x82


class TopicNameInvalid(MalformedPacket):
    """A text that is no topic name (§4.7). 0x90 is for one that is, and is not accepted (§3.4.2.1)."""


class TopicNameNotAccepted(MqttError):
    """A topic name that is one, and is not accepted (§3.4.2.1)."""

    reason_code: ClassVar[int] = 0x90


class ReceiveMaximumExceeded(MqttError):
    """More QoS 1 and 2 publishes unacknowledged than the receiver said it takes (§4.9)."""

    reason_code: ClassVar[int] = 0x93


class TopicAliasInvalid(MqttError):
    """A topic alias of 0, or above Topic Alias Maximum (§3.3.2.3.4)."""

    reason_code: ClassVar[int] = 0x94


class PacketTooLarge(MqttError):
    """The packet is larger than Maximum Packet Size."""

    reason_code: ClassVar[int] = 0x95


class QoSNotSupported(MqttError):
    """A QoS above Maximum QoS."""

    reason_code: ClassVar[int] = 0x9B
