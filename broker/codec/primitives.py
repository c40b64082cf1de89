"""The wire's data types: variable byte integer, UTF-8 string, binary data, and integers (MQTT 5 §1.5).

A reader takes `(data, position)` and returns the value and the position after it. It raises `MalformedPacket` when the
value reaches beyond the end; only single bytes are left to `IndexError`, which the packet decoder turns into one.
"""

from __future__ import annotations

from broker.codec.constants import STRING_BYTES_MAX, VARIABLE_BYTE_INTEGER_MAX
from broker.codec.errors import MalformedPacket


def decode_variable_byte_integer(data: bytes, position: int) -> tuple[int, int]:
    """One to four bytes, seven bits in each, the lowest first; no more bytes than the value needs. [MQTT-1.5.5-1]

    Raises:
        MalformedPacket: a fifth byte, or a last byte that adds nothing.
        IndexError: the data ends within it.
    """
    byte = data[position]
    position += 1
    if byte < 0x80:
        return byte, position
    value = byte & 0x7F
    for shift in (7, 14, 21):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0:
                raise MalformedPacket("variable byte integer is longer than its value needs")
            return value, position
    raise MalformedPacket("variable byte integer of more than four bytes")


def encode_variable_byte_integer(value: int) -> bytes:
    """
    Raises:
        ValueError: `value` is not between 0 and 268 435 455.
    """
    if not 0 <= value <= VARIABLE_BYTE_INTEGER_MAX:
        raise ValueError(f"{value} is no variable byte integer")
    if value < 0x80:
        return bytes((value,))
    encoded: list[int] = []
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def decode_uint16(data: bytes, position: int) -> tuple[int, int]:
    """Two bytes, big-endian (§1.5.2)."""
    return data[position] << 8 | data[position + 1], position + 2


def decode_uint32(data: bytes, position: int) -> tuple[int, int]:
    """Four bytes, big-endian (§1.5.3)."""
    end = position + 4
    if end > len(data):
        raise MalformedPacket("the packet ends within an integer")
    return int.from_bytes(data[position:end], "big"), end


def decode_binary(data: bytes, position: int) -> tuple[bytes, int]:
    """Two bytes of length, then so many bytes (§1.5.6)."""
    start = position + 2
    end = start + (data[position] << 8 | data[position + 1])
    if end > len(data):
        raise MalformedPacket("a length reaches beyond the end of the packet")
    return data[start:end], end


def encode_binary(value: bytes) -> bytes:
    """
    Raises:
        ValueError: more than 65 535 bytes.
    """
    if len(value) > STRING_BYTES_MAX:
        raise ValueError(f"{len(value)} bytes do not fit a length of two bytes")
    return len(value).to_bytes(2, "big") + value


def decode_text(encoded: bytes) -> str:
    """The text of a UTF-8 string's bytes, without its length.

    A byte order mark is kept as U+FEFF. [MQTT-1.5.4-3]

    Raises:
        MalformedPacket: not well-formed UTF-8, a surrogate, or U+0000. [MQTT-1.5.4-1] [MQTT-1.5.4-2]
    """
    try:
        text = encoded.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedPacket(f"text is not UTF-8: {error.reason}") from error
    if "\0" in text:
        raise MalformedPacket("text holds U+0000")
    return text


def decode_string(data: bytes, position: int) -> tuple[str, int]:
    """A UTF-8 string with its length (§1.5.4)."""
    encoded, end = decode_binary(data, position)
    return decode_text(encoded), end


def encode_string(text: str) -> bytes:
    """
    Raises:
        ValueError: what no peer may be sent: more than 65 535 bytes, a surrogate, or U+0000.
    """
    if "\0" in text:
        raise ValueError("text holds U+0000")
    return encode_binary(text.encode("utf-8"))
