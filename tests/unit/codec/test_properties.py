"""The table of properties and what only it can tell."""

from __future__ import annotations

import pytest

from broker.codec import constants
from broker.codec.constants import SUBSCRIBE, UNSUBSCRIBE
from broker.codec.errors import MalformedPacket, ProtocolError
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
    decode_properties,
    encode_properties,
)
from broker.codec.reason_codes import REASON_CODES, connack_code_3_1_1, reason_name, suback_code_3_1_1
from tests.support.wire_cases import properties


def test_each_property_has_its_attribute() -> None:
    empty = Properties()
    assert all(getattr(empty, row.name) in (None, []) for row in PROPERTY_RULES.values())
    with pytest.raises(AttributeError):
        empty.topic_alais = 1  # type: ignore[attr-defined]


def test_no_properties_cost_no_object() -> None:
    assert decode_properties(b"\0", 0, constants.PUBLISH) == (None, 1)
    assert encode_properties(None, constants.PUBLISH) == b"\0"
    assert encode_properties(Properties(), constants.PUBLISH) == b"\0"


def test_only_present_properties_are_shown() -> None:
    shown = properties(topic_alias=0, user_properties=[("a", "b")])
    assert repr(shown) == "Properties(topic_alias=0, user_properties=[('a', 'b')])"
    assert not shown.is_empty
    assert Properties().is_empty


VALUES = {
    BYTE: b"\0",
    UINT16: b"\0\1",
    UINT32: b"\0\0\0\1",
    VARIABLE_BYTE_INTEGER: b"\1",
    STRING: b"\0\1p",
    BINARY: b"\0\1p",
    STRING_PAIR: b"\0\1p\0\1q",
}


@pytest.mark.parametrize("kind", range(1, 17))
def test_a_property_is_refused_where_the_table_does_not_allow_it(kind: int) -> None:
    """§2.2.2.2, with the reason codes of Mosquitto: 0x82, and 0x81 in SUBSCRIBE and UNSUBSCRIBE or when cut short"""
    expected = MalformedPacket if kind in (SUBSCRIBE, UNSUBSCRIBE) else ProtocolError
    for row in PROPERTY_RULES.values():
        if kind in row.kinds:
            continue
        encoded = bytes((row.identifier,)) + VALUES[row.wire_type]
        with pytest.raises(expected, match=row.name):
            decode_properties(bytes((len(encoded),)) + encoded, 0, kind)
        with pytest.raises((MalformedPacket, IndexError)):
            decode_properties(bytes((len(encoded) - 1,)) + encoded[:-1], 0, kind)


def test_reason_codes_have_names_and_what_3_1_1_says() -> None:
    assert reason_name(0x97) == "quota exceeded"
    assert reason_name(0x7E) == "0x7E"
    assert [connack_code_3_1_1(code) for code in (0, 0x84, 0x85, 0x88, 0x86, 0x87)] == [0, 1, 2, 3, 4, 5]
    assert connack_code_3_1_1(0x97) == connack_code_3_1_1(0x7E) == 3
    assert [suback_code_3_1_1(code) for code in (0, 1, 2, 0x87)] == [0, 1, 2, 0x80]
    assert REASON_CODES[0x87].is_error
    assert not REASON_CODES[0x10].is_error
