"""A slots class for every control packet of MQTT 3.1, 3.1.1 and 5.0 (§3): plain values, no validation, no bytes.

`properties` is None for 3.1 and 3.1.1 and when MQTT 5 carries none. Packets compare by value and are not hashable.
"""

from __future__ import annotations

from typing import ClassVar

from broker.codec import constants
from broker.codec.properties import Properties


class Packet:
    """What all packets share: comparison by value and a readable form."""

    __slots__ = ()

    FIELDS: ClassVar[tuple[str, ...]] = ()
    packet_type: ClassVar[int] = 0

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.FIELDS)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.FIELDS)})"


class Will(Packet):
    """The message that the server publishes when a client is lost (§3.1.2.5)."""

    FIELDS = ("topic_name", "payload", "qos", "retain", "properties")
    __slots__ = ("payload", "properties", "qos", "retain", "topic_name")

    def __init__(
        self,
        topic_name: str,
        payload: bytes = b"",
        qos: int = 0,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> None:
        self.topic_name = topic_name
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties


class Connect(Packet):
    """Client to server, the first packet (§3.1)."""

    packet_type = constants.CONNECT
    FIELDS = (
        "protocol_name",
        "protocol_level",
        "is_bridge",
        "clean_start",
        "keep_alive_s",
        "client_id",
        "will",
        "username",
        "password",
        "properties",
    )
    __slots__ = (
        "clean_start",
        "client_id",
        "is_bridge",
        "keep_alive_s",
        "password",
        "properties",
        "protocol_level",
        "protocol_name",
        "username",
        "will",
    )

    def __init__(
        self,
        client_id: str = "",
        protocol_level: int = constants.LEVEL_3_1_1,
        *,
        protocol_name: str = "MQTT",
        is_bridge: bool = False,
        clean_start: bool = True,
        keep_alive_s: int = 0,
        will: Will | None = None,
        username: str | None = None,
        password: bytes | None = None,
        properties: Properties | None = None,
    ) -> None:
        self.protocol_name = protocol_name
        """`MQTT`, or `MQIsdp` for 3.1."""
        self.protocol_level = protocol_level
        """3, 4 or 5, without the bridge bit."""
        self.is_bridge = is_bridge
        """The peer is a broker and wants RETAIN as published (3.1 and 3.1.1, a custom of Mosquitto)."""
        self.clean_start = clean_start
        """Clean Session in 3.1 and 3.1.1."""
        self.keep_alive_s = keep_alive_s
        self.client_id = client_id
        self.will = will
        self.username = username
        self.password = password
        self.properties = properties

    def __repr__(self) -> str:
        """All but the password, which must not get into a log."""
        shown = (
            f"{name}={'…' if name == 'password' and self.password is not None else repr(getattr(self, name))}"
            for name in self.FIELDS
        )
        return f"Connect({', '.join(shown)})"


class Connack(Packet):
    """Server to client: the answer to CONNECT (§3.2). In 3.1.1 `reason_code` is the return code."""

    packet_type = constants.CONNACK
    FIELDS = ("session_present", "reason_code", "properties")
    __slots__ = ("properties", "reason_code", "session_present")

    def __init__(
        self, session_present: bool = False, reason_code: int = 0, properties: Properties | None = None
    ) -> None:
        self.session_present = session_present
        self.reason_code = reason_code
        self.properties = properties


class Publish(Packet):
    """A message, in either direction (§3.3)."""

    packet_type = constants.PUBLISH
    FIELDS = ("topic_name", "payload", "qos", "retain", "dup", "packet_id", "properties")
    __slots__ = ("dup", "packet_id", "payload", "properties", "qos", "retain", "topic_name")

    def __init__(
        self,
        topic_name: str,
        payload: bytes = b"",
        qos: int = 0,
        retain: bool = False,
        dup: bool = False,
        packet_id: int = 0,
        properties: Properties | None = None,
    ) -> None:
        self.topic_name = topic_name
        """Empty only in MQTT 5 with a topic alias."""
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.dup = dup
        self.packet_id = packet_id
        """0 with QoS 0."""
        self.properties = properties


class _Acknowledgement(Packet):
    """The four that carry a packet id, and in MQTT 5 a reason."""

    FIELDS = ("packet_id", "reason_code", "properties")
    __slots__ = ("packet_id", "properties", "reason_code")

    def __init__(self, packet_id: int, reason_code: int = 0, properties: Properties | None = None) -> None:
        self.packet_id = packet_id
        self.reason_code = reason_code
        self.properties = properties


class Puback(_Acknowledgement):
    """The answer to a PUBLISH of QoS 1 (§3.4)."""

    __slots__ = ()
    packet_type = constants.PUBACK


class Pubrec(_Acknowledgement):
    """The answer to a PUBLISH of QoS 2 (§3.5)."""

    __slots__ = ()
    packet_type = constants.PUBREC


class Pubrel(_Acknowledgement):
    """The answer to a PUBREC (§3.6)."""

    __slots__ = ()
    packet_type = constants.PUBREL


class Pubcomp(_Acknowledgement):
    """The answer to a PUBREL (§3.7)."""

    __slots__ = ()
    packet_type = constants.PUBCOMP


class Subscription(Packet):
    """One topic filter of a SUBSCRIBE with its options (§3.8.3.1)."""

    FIELDS = ("topic_filter", "qos", "no_local", "retain_as_published", "retain_handling", "subscription_identifier")
    __slots__ = (
        "no_local",
        "qos",
        "retain_as_published",
        "retain_handling",
        "subscription_identifier",
        "topic_filter",
    )

    def __init__(
        self,
        topic_filter: str,
        qos: int = 0,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        subscription_identifier: int = 0,
    ) -> None:
        self.topic_filter = topic_filter
        self.qos = qos
        self.no_local = no_local
        self.retain_as_published = retain_as_published
        self.retain_handling = retain_handling
        self.subscription_identifier = subscription_identifier
        """For the owner of the subscription; on the wire it stands once for all, in the properties. 0: none."""


class Subscribe(Packet):
    """Client to server (§3.8)."""

    packet_type = constants.SUBSCRIBE
    FIELDS = ("packet_id", "subscriptions", "properties")
    __slots__ = ("packet_id", "properties", "subscriptions")

    def __init__(self, packet_id: int, subscriptions: list[Subscription], properties: Properties | None = None) -> None:
        self.packet_id = packet_id
        self.subscriptions = subscriptions
        self.properties = properties


class Suback(Packet):
    """Server to client: one code for each topic filter (§3.9)."""

    packet_type = constants.SUBACK
    FIELDS = ("packet_id", "reason_codes", "properties")
    __slots__ = ("packet_id", "properties", "reason_codes")

    def __init__(self, packet_id: int, reason_codes: list[int], properties: Properties | None = None) -> None:
        self.packet_id = packet_id
        self.reason_codes = reason_codes
        self.properties = properties


class Unsubscribe(Packet):
    """Client to server (§3.10)."""

    packet_type = constants.UNSUBSCRIBE
    FIELDS = ("packet_id", "topic_filters", "properties")
    __slots__ = ("packet_id", "properties", "topic_filters")

    def __init__(self, packet_id: int, topic_filters: list[str], properties: Properties | None = None) -> None:
        self.packet_id = packet_id
        self.topic_filters = topic_filters
        self.properties = properties


class Unsuback(Packet):
    """Server to client; `reason_codes` is empty in 3.1 and 3.1.1, which have none (§3.11)."""

    packet_type = constants.UNSUBACK
    FIELDS = ("packet_id", "reason_codes", "properties")
    __slots__ = ("packet_id", "properties", "reason_codes")

    def __init__(
        self, packet_id: int, reason_codes: list[int] | None = None, properties: Properties | None = None
    ) -> None:
        self.packet_id = packet_id
        self.reason_codes = reason_codes if reason_codes is not None else []
        self.properties = properties


class Pingreq(Packet):
    """Client to server: are you there (§3.12)."""

    __slots__ = ()
    packet_type = constants.PINGREQ


class Pingresp(Packet):
    """Server to client: yes (§3.13)."""

    __slots__ = ()
    packet_type = constants.PINGRESP


class Disconnect(Packet):
    """The last packet (§3.14); only MQTT 5 has a reason, and a way for the server to send it."""

    packet_type = constants.DISCONNECT
    FIELDS = ("reason_code", "properties")
    __slots__ = ("properties", "reason_code")

    def __init__(self, reason_code: int = 0, properties: Properties | None = None) -> None:
        self.reason_code = reason_code
        self.properties = properties


class Auth(Packet):
    """A step of enhanced authentication, MQTT 5 only (§3.15)."""

    packet_type = constants.AUTH
    FIELDS = ("reason_code", "properties")
    __slots__ = ("properties", "reason_code")

    def __init__(self, reason_code: int = 0, properties: Properties | None = None) -> None:
        self.reason_code = reason_code
        self.properties = properties
