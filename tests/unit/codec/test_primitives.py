"""The wire's data types at their limits (MQTT 5 §1.5)."""

from __future__ import annotations

import pytest

from broker.codec.errors import MalformedPacket
from broker.codec.primitives import (
    decode_binary,
    decode_string,
    decode_uint16,
    decode_uint32,
    decode_variable_byte_integer,
    encode_binary,
    encode_string,
    encode_variable_byte_integer,
)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (2_097_151, "ffff7f"),
        (2_097_152, "80808001"),
        (268_435_455, "ffffff7f"),
    ],
)
def test_variable_byte_integer_at_its_steps(value: int, encoded: str) -> None:
    """The table of §1.5.5."""
    data = bytes.fromhex(encoded)
    assert encode_variable_byte_integer(value) == data
    assert decode_variable_byte_integer(b"\xff" + data, 1) == (value, 1 + len(data))


@pytest.mark.parametrize("encoded", ["ffffffff7f", "8000", "ff8000", "80808000"])
def test_variable_byte_integer_is_no_longer_than_it_must_be(encoded: str) -> None:
    """[MQTT-1.5.5-1]"""
    with pytest.raises(MalformedPacket):
        decode_variable_byte_integer(bytes.fromhex(encoded), 0)


@pytest.mark.parametrize("value", [-1, 268_435_456])
def test_no_variable_byte_integer_beyond_its_range(value: int) -> None:
    with pytest.raises(ValueError, match="no variable byte integer"):
        encode_variable_byte_integer(value)


def test_integers_are_big_endian() -> None:
    assert decode_uint16(b"\x01\x02", 0) == (258, 2)
    assert decode_uint32(b"\x00\x01\x02\x03", 0) == (66_051, 4)
    with pytest.raises(MalformedPacket):
        decode_uint32(b"\x00\x01\x02", 0)


def test_binary_data_up_to_its_longest() -> None:
    longest = bytes(65_535)
    assert decode_binary(encode_binary(longest), 0) == (longest, 65_537)
    with pytest.raises(ValueError, match="two bytes"):
        encode_binary(bytes(65_536))
    with pytest.raises(MalformedPacket):
        decode_binary(b"\x00\x02a", 0)


@pytest.mark.parametrize("text", ["", "a", "é", "\ufeff", "\U0002a6d4", "\ufffe", "\x01", "\x7f"])
def test_text_that_is_allowed_comes_back_as_it_was(text: str) -> None:
    """[MQTT-1.5.4-3]; control characters and non-characters are only advised against."""
    assert decode_string(encode_string(text), 0) == (text, len(encode_string(text)))


@pytest.mark.parametrize("encoded", ["00", "6100", "eda080", "edbfbf", "c0af", "e08080", "f4908080", "ff", "c3"])
def test_text_that_is_not_allowed_is_malformed(encoded: str) -> None:
    """[MQTT-1.5.4-1] [MQTT-1.5.4-2]"""
    with pytest.raises(MalformedPacket):
        decode_string(encode_binary(bytes.fromhex(encoded)), 0)
