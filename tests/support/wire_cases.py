"""Every wire case once: bytes, protocol level, and the packet or the error they mean.

Decode tests read the table from left to right; encode tests read the cases with `is_canonical` from right to left. Each
case has a name, and where a rule has a number its name ends with it.
"""

from __future__ import annotations

from broker.codec.errors import (
    ClientIdentifierNotValid,
    MalformedPacket,
    MqttError,
    NotAnswered,
    ProtocolError,
    TopicAliasInvalid,
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
from broker.codec.properties import Properties


class WireCase:
    """One packet on the wire."""

    def __init__(
        self,
        name: str,
        level: int,
        data: bytes,
        packet: Packet | None = None,
        error: type[MqttError] | None = None,
        *,
        is_canonical: bool = True,
    ) -> None:
        self.name = name
        self.level = level
        self.data = data
        self.packet = packet
        self.error = error
        self.is_canonical = is_canonical
        """`encode` makes exactly these bytes of the packet."""

    def __repr__(self) -> str:
        return f"v{self.level}: {self.name}"


def properties(**values: object) -> Properties:
    """Properties with these present."""
    made = Properties()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def frame(head: str, body: str | bytes = b"") -> bytes:
    """A frame of its first byte in hex and its body, of less than 128 bytes, in hex or as it is."""
    body_bytes = bytes.fromhex(body) if isinstance(body, str) else body
    assert len(body_bytes) < 128
    return bytes.fromhex(head) + bytes((len(body_bytes),)) + body_bytes


V3_CONNECT = "0006 4d5149736470 03"
V4_CONNECT = "0004 4d515454 04"
V5_CONNECT = "0004 4d515454 05"

_ALL_PUBLISH_PROPERTIES = properties(
    payload_format_indicator=1,
    message_expiry_interval=60,
    content_type="t",
    response_topic="r/1",
    correlation_data=b"\x00\xff",
    subscription_identifiers=[1, 300],
    topic_alias=7,
    user_properties=[("b", "1"), ("a", "2"), ("b", "1")],
)
_ALL_PUBLISH_PROPERTIES_HEX = (
    "0101 020000003c 03000174 080003722f31 09000200ff 0b01 0bac02 23000726000162000131 26000161000132 26000162000131"
)

LEGAL: list[WireCase] = [
    WireCase("smallest CONNECT", 4, frame("10", V4_CONNECT + "02 003c 0000"), Connect(keep_alive_s=60)),
    WireCase(
        "CONNECT of 3.1",
        3,
        frame("10", V3_CONNECT + "02 000a 000161"),
        Connect("a", 3, protocol_name="MQIsdp", keep_alive_s=10),
    ),
    WireCase(
        "CONNECT of 3.1 without the name that its flags promise",
        3,
        frame("10", V3_CONNECT + "c2 000a 000161"),
        Connect("a", 3, protocol_name="MQIsdp", keep_alive_s=10),
        is_canonical=False,
    ),
    WireCase(
        "CONNECT of a bridge",
        4,
        frame("10", "0004 4d515454 84 00 0000 000161"),
        Connect("a", 4, is_bridge=True, clean_start=False),
    ),
    WireCase(
        "CONNECT of 5.0 with the bit of a bridge, which means nothing there",
        5,
        frame("10", "0004 4d515454 85 02 0000 00 000161"),
        Connect("a", 5),
        is_canonical=False,
    ),
    WireCase(
        "CONNECT of 3.1 with flags in its first byte and a will QoS without a will",
        3,
        frame("1f", V3_CONNECT + "0a 000a 000161"),
        Connect("a", 3, protocol_name="MQIsdp", keep_alive_s=10),
        is_canonical=False,
    ),
    WireCase(
        "CONNECT with everything",
        4,
        frame("10", V4_CONNECT + "ee 0001 000163 000174 0002ff00 000175 000270ff"),
        Connect(
            "c",
            keep_alive_s=1,
            will=Will("t", b"\xff\x00", 1, True),
            username="u",
            password=b"p\xff",
        ),
    ),
    WireCase(
        "CONNECT of 5.0",
        5,
        frame("10", V5_CONNECT + "02 0000 05 1100000078 000163"),
        Connect("c", 5, properties=properties(session_expiry_interval=120)),
    ),
    WireCase(
        "CONNECT of 5.0 with will properties and a password alone",
        5,
        frame("10", V5_CONNECT + "54 0000 00 000163 05 1800000005 000174 0000 000170"),
        Connect(
            "c",
            5,
            clean_start=False,
            will=Will("t", b"", 2, False, properties(will_delay_interval=5)),
            password=b"p",
        ),
    ),
    WireCase("CONNACK", 4, frame("20", "01 00"), Connack(True)),
    WireCase("refusing CONNACK", 4, frame("20", "00 05"), Connack(False, 5)),
    WireCase(
        "CONNACK of 5.0",
        5,
        frame("20", "00 00 0f 2103e8 220064 2401 2700100000 2a00"),
        Connack(
            properties=properties(
                receive_maximum=1000,
                topic_alias_maximum=100,
                maximum_qos=1,
                maximum_packet_size=1 << 20,
                shared_subscription_available=0,
            )
        ),
    ),
    WireCase("PUBLISH of QoS 0", 4, frame("30", "0003 612f62 6869"), Publish("a/b", b"hi")),
    WireCase("PUBLISH without payload", 4, frame("31", "0001 61"), Publish("a", retain=True)),
    WireCase(
        "PUBLISH of QoS 1 again", 4, frame("3a", "0001 61 0102 78"), Publish("a", b"x", 1, dup=True, packet_id=258)
    ),
    WireCase("PUBLISH of QoS 2", 5, frame("34", "0001 61 ffff 00 78"), Publish("a", b"x", 2, packet_id=65_535)),
    WireCase(
        "PUBLISH of 5.0 with every property",
        5,
        frame("32", "0001 61 0001 33" + _ALL_PUBLISH_PROPERTIES_HEX + "00"),
        Publish("a", b"\0", 1, packet_id=1, properties=_ALL_PUBLISH_PROPERTIES),
    ),
    WireCase(
        "PUBLISH by its alias alone",
        5,
        frame("30", "0000 03 230001"),
        Publish("", properties=properties(topic_alias=1)),
    ),
    WireCase(
        "topic that begins with a byte order mark [MQTT-1.5.4-3]", 4, frame("30", "0004 efbbbf61"), Publish("\ufeffa")
    ),
    WireCase("PUBACK", 4, frame("40", "0007"), Puback(7)),
    WireCase("PUBACK of 5.0", 5, frame("40", "0007"), Puback(7)),
    WireCase("PUBACK of 5.0, success said aloud", 5, frame("40", "0007 00"), Puback(7), is_canonical=False),
    WireCase("PUBACK with a reason", 5, frame("40", "0007 10"), Puback(7, 0x10)),
    WireCase(
        "PUBREC with a reason string",
        5,
        frame("50", "0007 97 04 1f000166"),
        Pubrec(7, 0x97, properties(reason_string="f")),
    ),
    WireCase("PUBREL", 4, frame("62", "0007"), Pubrel(7)),
    WireCase("PUBREL of 3.1 with DUP", 3, frame("6a", "0007"), Pubrel(7), is_canonical=False),
    WireCase("PUBREL of an unknown id", 5, frame("62", "0007 92"), Pubrel(7, 0x92)),
    WireCase("PUBCOMP", 4, frame("70", "0007"), Pubcomp(7)),
    WireCase(
        "SUBSCRIBE",
        4,
        frame("82", "0001 0003 612f23 01 0001 2b 02"),
        Subscribe(1, [Subscription("a/#", 1), Subscription("+", 2)]),
    ),
    WireCase(
        "SUBSCRIBE of 5.0 with options",
        5,
        frame("82", "0001 02 0b05 0001 61 2e"),
        Subscribe(1, [Subscription("a", 2, True, True, 2)], properties(subscription_identifiers=[5])),
    ),
    WireCase("SUBACK", 4, frame("90", "0001 00 01 02 80"), Suback(1, [0, 1, 2, 0x80])),
    WireCase("SUBACK of 5.0", 5, frame("90", "0001 00 02 8f"), Suback(1, [2, 0x8F])),
    WireCase("UNSUBSCRIBE", 4, frame("a2", "0001 0001 61 0001 62"), Unsubscribe(1, ["a", "b"])),
    WireCase("UNSUBSCRIBE of 5.0", 5, frame("a2", "0001 00 0001 61"), Unsubscribe(1, ["a"])),
    WireCase("UNSUBACK", 4, frame("b0", "0001"), Unsuback(1)),
    WireCase("UNSUBACK of 5.0", 5, frame("b0", "0001 00 00 11"), Unsuback(1, [0, 0x11])),
    WireCase("PINGREQ", 4, frame("c0"), Pingreq()),
    WireCase("PINGRESP", 4, frame("d0"), Pingresp()),
    WireCase("PINGREQ with a padded length", 4, bytes.fromhex("c08000"), Pingreq(), is_canonical=False),
    WireCase("DISCONNECT", 4, frame("e0"), Disconnect()),
    WireCase("DISCONNECT with its will", 5, frame("e0", "04"), Disconnect(4)),
    WireCase(
        "DISCONNECT with an expiry",
        5,
        frame("e0", "00 05 1100000000"),
        Disconnect(0, properties(session_expiry_interval=0)),
    ),
    WireCase("AUTH of success", 5, frame("f0"), Auth()),
    WireCase(
        "AUTH",
        5,
        frame("f0", "18 09 15000173 1600026162"),
        Auth(0x18, properties(authentication_method="s", authentication_data=b"ab")),
    ),
]


def _bad(name: str, level: int, data: bytes, error: type[MqttError]) -> WireCase:
    return WireCase(name, level, data, error=error)


ILLEGAL: list[WireCase] = [
    _bad("packet type 0", 4, frame("00"), MalformedPacket),
    _bad("packet type 15 before 5.0", 4, frame("f0"), MalformedPacket),
    # CONNECT
    _bad(
        "CONNECT with a flag in its first byte [MQTT-2.1.3-1]",
        4,
        frame("11", V4_CONNECT + "02 0000 0000"),
        MalformedPacket,
    ),
    _bad(
        "CONNECT of level 6 [MQTT-3.1.2-2]", 5, frame("10", "0004 4d515454 06 02 0000 0000"), UnsupportedProtocolVersion
    ),
    _bad("CONNECT of level 3 named MQTT", 3, frame("10", "0004 4d515454 03 02 0000 0000"), UnsupportedProtocolVersion),
    _bad(
        "CONNECT named otherwise [MQTT-3.1.2-1]",
        4,
        frame("10", "0004 48545450 04 02 0000 0000"),
        UnknownProtocol,
    ),
    _bad("3.1's name with level 4", 4, frame("10", "0006 4d5149736470 04 02 0000 0000"), UnsupportedProtocolVersion),
    _bad("reserved CONNECT flag [MQTT-3.1.2-3]", 4, frame("10", V4_CONNECT + "03 0000 0000"), MalformedPacket),
    _bad("will QoS 3 [MQTT-3.1.2-12]", 4, frame("10", V4_CONNECT + "1e 0000 0000 000174 0000"), MalformedPacket),
    _bad("will QoS without a will [MQTT-3.1.2-11]", 4, frame("10", V4_CONNECT + "0a 0000 0000"), MalformedPacket),
    _bad("will retain without a will [MQTT-3.1.2-13]", 4, frame("10", V4_CONNECT + "22 0000 0000"), MalformedPacket),
    _bad("password without a name in 3.1.1", 4, frame("10", V4_CONNECT + "42 0000 0000 000170"), MalformedPacket),
    _bad("CONNECT without its client id", 4, frame("10", V4_CONNECT + "02 0000"), MalformedPacket),
    _bad("CONNECT without its password", 4, frame("10", V4_CONNECT + "c2 0000 0000 000175"), NotAnswered),
    _bad("CONNECT with more behind it", 4, frame("10", V4_CONNECT + "02 0000 0000 00"), MalformedPacket),
    _bad(
        "will topic with a wildcard [MQTT-3.1.3-11]",
        4,
        frame("10", V4_CONNECT + "06 0000 0000 000123 0000"),
        TopicNameInvalid,
    ),
    _bad("client id cut short", 4, frame("10", V4_CONNECT + "02 0000 0005 61"), MalformedPacket),
    _bad(
        "client id with U+0000 [MQTT-1.5.4-2]", 4, frame("10", V4_CONNECT + "02 0000 0001 00"), ClientIdentifierNotValid
    ),
    _bad(
        "client id with a surrogate [MQTT-1.5.4-1]",
        4,
        frame("10", V4_CONNECT + "02 0000 0003 eda080"),
        ClientIdentifierNotValid,
    ),
    _bad("client id in overlong UTF-8", 4, frame("10", V4_CONNECT + "02 0000 0002 c0af"), ClientIdentifierNotValid),
    _bad("receive maximum 0", 5, frame("10", V5_CONNECT + "02 0000 03 210000 0000"), ProtocolError),
    _bad("maximum packet size 0", 5, frame("10", V5_CONNECT + "02 0000 05 2700000000 0000"), ProtocolError),
    _bad("request problem information 2", 5, frame("10", V5_CONNECT + "02 0000 02 1702 0000"), ProtocolError),
    _bad("request response information 2", 5, frame("10", V5_CONNECT + "02 0000 02 1902 0000"), ProtocolError),
    _bad("a property twice", 5, frame("10", V5_CONNECT + "02 0000 06 210001 210001 0000"), ProtocolError),
    _bad("authentication data alone", 5, frame("10", V5_CONNECT + "02 0000 04 16000161 0000"), ProtocolError),
    _bad(
        "will delay among the properties of CONNECT",
        5,
        frame("10", V5_CONNECT + "02 0000 05 1800000000 0000"),
        ProtocolError,
    ),
    _bad(
        "receive maximum in a will",
        5,
        frame("10", V5_CONNECT + "06 0000 00 0000 03 210001 000174 0000"),
        ProtocolError,
    ),
    # CONNACK
    _bad("CONNACK with reserved flags [MQTT-3.2.2-1]", 4, frame("20", "0200"), MalformedPacket),
    _bad("refusal with a session [MQTT-3.2.2-6]", 5, frame("20", "01 87 00"), ProtocolError),
    _bad("return code 6", 4, frame("20", "0006"), ProtocolError),
    _bad("reason code of no CONNACK", 5, frame("20", "00 92 00"), ProtocolError),
    _bad("maximum QoS 2", 5, frame("20", "00 00 02 2402"), ProtocolError),
    _bad("CONNACK of one byte", 4, frame("20", "00"), MalformedPacket),
    # PUBLISH
    _bad("QoS 3 [MQTT-3.3.1-4]", 4, frame("36", "0001 61 0001"), MalformedPacket),
    _bad("DUP with QoS 0 [MQTT-3.3.1-2]", 4, frame("38", "0001 61"), MalformedPacket),
    _bad("packet id 0 [MQTT-2.2.1-3]", 4, frame("32", "0001 61 0000"), ProtocolError),
    _bad("wildcard in a topic name [MQTT-3.3.2-2]", 4, frame("30", "0003 612f23"), TopicNameInvalid),
    _bad("plus in a topic name [MQTT-3.3.2-2]", 5, frame("30", "0003 612f2b 00"), TopicNameInvalid),
    _bad("empty topic name [MQTT-4.7.3-1]", 4, frame("30", "0000"), TopicNameInvalid),
    _bad("empty topic name without an alias", 5, frame("30", "0000 00"), TopicNameInvalid),
    _bad("topic alias 0 [MQTT-3.3.2-8]", 5, frame("30", "0001 61 03 230000"), TopicAliasInvalid),
    _bad("topic name with U+0000 [MQTT-4.7.3-2]", 4, frame("30", "0002 6100"), MalformedPacket),
    _bad("topic longer than the packet", 4, frame("30", "0005 61"), MalformedPacket),
    _bad("PUBLISH without its packet id", 4, frame("32", "0001 61 01"), MalformedPacket),
    _bad("PUBLISH of 5.0 without properties", 5, frame("30", "0001 61"), MalformedPacket),
    _bad("property length beyond the packet", 5, frame("30", "0001 61 05 01"), MalformedPacket),
    _bad("unknown property", 5, frame("30", "0001 61 02 7f00"), MalformedPacket),
    _bad("property of another packet", 5, frame("30", "0001 61 03 210001"), ProtocolError),
    _bad("property beyond the property length", 5, frame("30", "0001 61 03 0200000000"), MalformedPacket),
    _bad("padded property length [MQTT-1.5.5-1]", 5, frame("30", "0001 61 8000"), MalformedPacket),
    _bad("payload format indicator 2", 5, frame("30", "0001 61 02 0102"), ProtocolError),
    _bad("payload format indicator twice", 5, frame("30", "0001 61 04 0101 0101"), ProtocolError),
    _bad("subscription identifier 0 asked for", 5, frame("82", "0001 02 0b00 0001 61 00"), MalformedPacket),
    _bad("subscription identifier 0", 5, frame("30", "0001 61 02 0b00"), ProtocolError),
    _bad("wildcard in a response topic [MQTT-3.3.2-14]", 5, frame("30", "0001 61 05 0800022f23"), ProtocolError),
    # Acknowledgements
    _bad("PUBACK with flags [MQTT-2.1.3-1]", 4, frame("42", "0001"), MalformedPacket),
    _bad("PUBREL without its flags [MQTT-3.6.1-1]", 4, frame("60", "0001"), MalformedPacket),
    _bad("PUBREL with DUP in 3.1.1", 4, frame("6a", "0001"), MalformedPacket),
    _bad("PUBACK of id 0", 4, frame("40", "0000"), ProtocolError),
    _bad("PUBACK of one byte", 4, frame("40", "00"), MalformedPacket),
    _bad("PUBACK of three bytes in 3.1.1", 4, frame("40", "0001 00"), MalformedPacket),
    _bad("reason code of no PUBACK [MQTT-3.4.2-1]", 5, frame("40", "0001 92"), ProtocolError),
    _bad("more behind the properties of PUBCOMP", 5, frame("70", "0001 00 00 00"), MalformedPacket),
    # SUBSCRIBE and UNSUBSCRIBE
    _bad("SUBSCRIBE without flags [MQTT-3.8.1-1]", 4, frame("80", "0001 0001 61 00"), MalformedPacket),
    _bad("SUBSCRIBE of nothing [MQTT-3.8.3-2]", 4, frame("82", "0001"), MalformedPacket),
    _bad("SUBSCRIBE of nothing in 5.0", 5, frame("82", "0001 00"), MalformedPacket),
    _bad("SUBSCRIBE with id 0", 4, frame("82", "0000 0001 61 00"), MalformedPacket),
    _bad("SUBSCRIBE to an empty filter [MQTT-4.7.3-1]", 4, frame("82", "0001 0000 00"), MalformedPacket),
    _bad("SUBSCRIBE without options", 4, frame("82", "0001 0001 61"), MalformedPacket),
    _bad("QoS 3 asked for in 3.1.1", 4, frame("82", "0001 0001 61 03"), MalformedPacket),
    _bad("reserved bits of the QoS in 3.1.1", 4, frame("82", "0001 0001 61 04"), MalformedPacket),
    _bad("QoS 3 asked for", 5, frame("82", "0001 00 0001 61 03"), MalformedPacket),
    _bad("retain handling 3", 5, frame("82", "0001 00 0001 61 30"), MalformedPacket),
    _bad("reserved subscription options [MQTT-3.8.3-5]", 5, frame("82", "0001 00 0001 61 40"), MalformedPacket),
    _bad("no local on a share [MQTT-3.8.3-4]", 5, frame("82", "0001 00 000a 2473686172652f672f61 04"), ProtocolError),
    _bad("two subscription identifiers", 5, frame("82", "0001 04 0b01 0b02 0001 61 00"), ProtocolError),
    _bad("UNSUBSCRIBE of nothing [MQTT-3.10.3-2]", 4, frame("a2", "0001"), MalformedPacket),
    _bad("UNSUBSCRIBE without flags [MQTT-3.10.1-1]", 4, frame("a0", "0001 0001 61"), MalformedPacket),
    _bad("SUBACK with code 3 [MQTT-3.9.3-2]", 4, frame("90", "0001 03"), ProtocolError),
    _bad("SUBACK without codes", 4, frame("90", "0001"), ProtocolError),
    _bad("UNSUBACK with codes in 3.1.1", 4, frame("b0", "0001 00"), MalformedPacket),
    # The rest
    _bad("PINGREQ with a body", 4, frame("c0", "00"), NotAnswered),
    _bad("PINGRESP with a body", 4, frame("d0", "00"), MalformedPacket),
    _bad("DISCONNECT with a body in 3.1.1", 4, frame("e0", "00"), MalformedPacket),
    _bad("DISCONNECT with flags [MQTT-3.14.1-1]", 4, frame("e1"), MalformedPacket),
    _bad("reason code of no DISCONNECT", 5, frame("e0", "01"), NotAnswered),
    _bad("AUTH without properties", 5, frame("f0", "18"), MalformedPacket),
]
