"""Hypothesis strategies for packets of every type and version, each a packet that may be sent."""

from __future__ import annotations

from hypothesis import strategies as st

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
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)
from broker.codec.properties import (
    BINARY,
    BYTE,
    PROPERTY_RULES,
    STRING,
    STRING_PAIR,
    UINT16,
    UINT32,
    VARIABLE_BYTE_INTEGER,
    Properties,
)
from broker.codec.reason_codes import CODES_BY_PACKET_TYPE, CONNACK_CODES_3_1_1, SUBACK_CODES_3_1_1

LEVELS = st.sampled_from((3, 4, 5))
TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8)
TOPIC_NAMES = st.text(st.sampled_from("ab/$é"), min_size=1, max_size=8)
TOPIC_FILTERS = st.text(st.sampled_from("ab/+#"), min_size=1, max_size=8)
PACKET_IDS = st.integers(1, 65_535)
PAYLOADS = st.binary(max_size=200)


def _values(name: str, wire_type: int) -> st.SearchStrategy[object]:
    if wire_type == BYTE:
        return st.integers(0, 1)
    if name == "response_topic":
        return TOPIC_NAMES
    return {
        UINT16: st.integers(1, 65_535),
        UINT32: st.integers(1, 0xFFFF_FFFF),
        BINARY: st.binary(max_size=5),
        STRING: TEXTS,
        STRING_PAIR: st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3),
        VARIABLE_BYTE_INTEGER: st.lists(st.integers(1, 268_435_455), min_size=1, max_size=1),
    }[wire_type]


def _properties_of(kind: int) -> st.SearchStrategy[Properties | None]:
    choices = {row.name: _values(row.name, row.wire_type) for row in PROPERTY_RULES.values() if kind in row.kinds}

    def build(present: dict[str, object]) -> Properties | None:
        properties = Properties()
        for name, value in present.items():
            setattr(properties, name, value)
        if properties.authentication_data is not None and properties.authentication_method is None:
            properties.authentication_data = None
        return None if properties.is_empty else properties

    return st.fixed_dictionaries({}, optional=choices).map(build)


_PROPERTIES = {kind: _properties_of(kind) for kind in range(1, 17) if kind not in (12, 13)}


def properties(kind: int, level: int) -> st.SearchStrategy[Properties | None]:
    """Properties that a packet of MQTT 5 may have; mostly none."""
    return st.none() | _PROPERTIES[kind] if level == 5 else st.none()


@st.composite
def connects(draw: st.DrawFn, level: int) -> Connect:
    username = draw(st.none() | TEXTS)
    may_have_password = level == 5 or username is not None
    wills = st.builds(Will, TOPIC_NAMES, PAYLOADS, st.integers(0, 2), st.booleans(), properties(constants.WILL, level))
    return Connect(
        draw(TEXTS),
        level,
        protocol_name="MQIsdp" if level == 3 else "MQTT",
        is_bridge=level != 5 and draw(st.booleans()),
        clean_start=draw(st.booleans()),
        keep_alive_s=draw(st.integers(0, 65_535)),
        will=draw(st.none() | wills),
        username=username,
        password=draw(st.none() | st.binary(max_size=8)) if may_have_password else None,
        properties=draw(properties(constants.CONNECT, level)),
    )


@st.composite
def publishes(draw: st.DrawFn, level: int) -> Publish:
    qos = draw(st.integers(0, 2))
    return Publish(
        draw(TOPIC_NAMES),
        draw(PAYLOADS),
        qos,
        draw(st.booleans()),
        qos > 0 and draw(st.booleans()),
        draw(PACKET_IDS) if qos else 0,
        draw(properties(constants.PUBLISH, level)),
    )


@st.composite
def subscriptions(draw: st.DrawFn, level: int) -> Subscription:
    topic_filter, qos = draw(TOPIC_FILTERS), draw(st.integers(0, 2))
    if level != 5:
        return Subscription(topic_filter, qos)
    return Subscription(topic_filter, qos, draw(st.booleans()), draw(st.booleans()), draw(st.integers(0, 2)))


def _codes(packet_type: int) -> st.SearchStrategy[int]:
    return st.sampled_from(sorted(CODES_BY_PACKET_TYPE[packet_type]))


@st.composite
def connacks(draw: st.DrawFn, level: int) -> Connack:
    codes = _codes(constants.CONNACK) if level == 5 else st.sampled_from(sorted(CONNACK_CODES_3_1_1))
    reason_code = draw(codes)
    return Connack(reason_code == 0 and draw(st.booleans()), reason_code, draw(properties(constants.CONNACK, level)))


def _acknowledgements(level: int) -> st.SearchStrategy[Packet]:
    return st.one_of(
        [
            st.builds(
                packet_class,
                PACKET_IDS,
                _codes(packet_class.packet_type) if level == 5 else st.just(0),
                properties(packet_class.packet_type, level),
            )
            for packet_class in (Puback, Pubrec, Pubrel, Pubcomp)
        ]
    )


def _suback_codes(level: int) -> st.SearchStrategy[list[int]]:
    codes = _codes(constants.SUBACK) if level == 5 else st.sampled_from(sorted(SUBACK_CODES_3_1_1))
    return st.lists(codes, min_size=1, max_size=4)


def packets_but_connect(level: int) -> st.SearchStrategy[Packet]:
    """Any packet that may come after CONNECT, from either side."""
    some: list[st.SearchStrategy[Packet]] = [
        publishes(level),
        connacks(level),
        _acknowledgements(level),
        st.builds(
            Subscribe,
            PACKET_IDS,
            st.lists(subscriptions(level), min_size=1, max_size=3),
            properties(constants.SUBSCRIBE, level),
        ),
        st.builds(Suback, PACKET_IDS, _suback_codes(level), properties(constants.SUBACK, level)),
        st.builds(
            Unsubscribe,
            PACKET_IDS,
            st.lists(TOPIC_FILTERS, min_size=1, max_size=3),
            properties(constants.UNSUBSCRIBE, level),
        ),
        st.just(Pingreq()),
        st.just(Pingresp()),
    ]
    if level != 5:
        return st.one_of([*some, st.builds(Unsuback, PACKET_IDS), st.just(Disconnect())])
    unsuback_codes = st.lists(_codes(constants.UNSUBACK), min_size=1, max_size=3)
    return st.one_of(
        [
            *some,
            st.builds(Unsuback, PACKET_IDS, unsuback_codes, properties(constants.UNSUBACK, 5)),
            st.builds(Disconnect, _codes(constants.DISCONNECT), properties(constants.DISCONNECT, 5)),
            st.builds(Auth, _codes(constants.AUTH), properties(constants.AUTH, 5)),
        ]
    )


def packets(level: int) -> st.SearchStrategy[Packet]:
    """Any packet of one version."""
    return connects(level) | packets_but_connect(level)


_STRATEGIES = {level: packets(level) for level in (3, 4, 5)}


@st.composite
def packets_with_level(draw: st.DrawFn) -> tuple[int, Packet]:
    """A version and a packet of it."""
    level = draw(LEVELS)
    return level, draw(_STRATEGIES[level])
