"""What the load generator sends: MQTT packets of one length, encoded once and only stamped afterwards.

A `PublishBlock` is a buffer of equally long PUBLISH packets over many topics; sending more of them means writing new
sequence numbers (and packet ids) into it by strided assignment. Nothing here touches a socket.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[Any]

TOPIC_COUNT = 50
TOPIC_DIGITS = 6
TOPIC_PREFIX = "bench/dev/"
PACKET_ID_COUNT = 65_535
PAYLOAD_BYTES = 64

# One more cycle than needed, so that any run of up to PACKET_ID_COUNT consecutive ids is one slice.
PACKET_IDS: Column = np.resize(np.arange(1, PACKET_ID_COUNT + 1, dtype=np.uint32), 2 * PACKET_ID_COUNT)
PUBACK_WORDS: Column = (PACKET_IDS | 0x40020000).astype(">u4")


def encode_variable_byte_integer(value: int) -> bytes:
    """Source: MQTT 3.1.1 §2.2.3."""
    encoded = bytearray()
    while True:
        value, digit = divmod(value, 128)
        encoded.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


def _text(value: str) -> bytes:
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


def encode_connect(
    client_id: str, keepalive_s: int = 0, *, is_kept: bool = False, level: int = 4, properties: bytes = b""
) -> bytes:
    """CONNECT with a clean session, or a kept one. `level`: 4 for MQTT 3.1.1, 5 for MQTT 5, which has properties.

    Source: MQTT 3.1.1 §3.1, MQTT 5 §3.1.
    """
    flags = b"\x00" if is_kept else b"\x02"
    body = _text("MQTT") + bytes([level]) + flags + keepalive_s.to_bytes(2, "big")
    if level >= 5:
        body += encode_variable_byte_integer(len(properties)) + properties
    body += _text(client_id)
    return b"\x10" + encode_variable_byte_integer(len(body)) + body


def encode_receive_maximum(count: int) -> bytes:
    """The property. Source: MQTT 5 §3.1.2.11.3."""
    return b"\x21" + count.to_bytes(2, "big")


def encode_subscribe(packet_id: int, topic_filters: str | Sequence[str], qos: int, *, level: int = 4) -> bytes:
    """SUBSCRIBE to one filter or several. Source: MQTT 3.1.1 §3.8, MQTT 5 §3.8."""
    filters = [topic_filters] if isinstance(topic_filters, str) else topic_filters
    body = packet_id.to_bytes(2, "big") + (b"\x00" if level >= 5 else b"")
    body += b"".join([_text(topic_filter) + bytes([qos]) for topic_filter in filters])
    return b"\x82" + encode_variable_byte_integer(len(body)) + body


class BinarySequence:
    """Sequence numbers as 8 bytes, big-endian, at a fixed place of a frame."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def column(self, buffer: Any, start: int, rows: int, stride: int) -> Column:
        """The field of `rows` frames of `stride` bytes, the first at `start` of `buffer`, without a copy."""
        return np.ndarray((rows,), dtype=">u8", buffer=buffer, offset=start + self._offset, strides=(stride,))

    def words(self, first: int, count: int, step: int = 1) -> Column:
        """What the column holds for the numbers `first`, `first + step`, …"""
        return np.arange(first, first + step * count, step, dtype=np.uint64)

    def number(self, word: int) -> int:
        return word


_FOUR_DIGITS: Column = np.frombuffer(b"".join(b"%04d" % n for n in range(10_000)), dtype="<u4").astype(np.uint64)
_LOW_WORDS: Column = _FOUR_DIGITS << np.uint64(32)
DIGIT_SEQUENCE_MAX = 10**8


class DigitSequence:
    """Sequence numbers as 8 decimal digits, for payloads that are JSON. Holds numbers below 10⁸."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def column(self, buffer: Any, start: int, rows: int, stride: int) -> Column:
        """As `BinarySequence.column`."""
        return np.ndarray((rows,), dtype="<u8", buffer=buffer, offset=start + self._offset, strides=(stride,))

    def words(self, first: int, count: int, step: int = 1) -> Column:
        """As `BinarySequence.words`; every number alone, without a step."""
        if step != 1:
            raise ValueError("digits are made for numbers without a gap")
        if first + count > DIGIT_SEQUENCE_MAX:
            raise OverflowError(f"eight digits end at {DIGIT_SEQUENCE_MAX}")
        words = np.empty(count, dtype=np.uint64)
        done = 0
        while done < count:
            high, low = divmod(first + done, 10_000)
            rows = min(count - done, 10_000 - low)
            np.bitwise_or(_LOW_WORDS[low : low + rows], _FOUR_DIGITS[high], out=words[done : done + rows])
            done += rows
        return words

    def number(self, word: int) -> int:
        """The number in a word of the column, -1 when it is not eight digits."""
        digits = word.to_bytes(8, "little")
        return int(digits) if digits.isdigit() else -1


SequenceField = BinarySequence | DigitSequence

EVENT_MARK = b'"tick":1'
"""Stands right before the eight digits in a JSON payload; what the SSE side searches for."""


def json_payload(payload_bytes: int) -> bytes:
    """A JSON object of exactly `payload_bytes` bytes with EVENT_MARK and eight digits in it."""
    head = b"{" + EVENT_MARK + b'00000000,"value":21.5,"note":"'
    padding = payload_bytes - len(head) - 2
    if padding < 0:
        raise ValueError(f"a JSON payload needs at least {len(head) + 2} bytes")
    return head + b"x" * padding + b'"}'


class PublishLayout:
    """Where things stand in the PUBLISH packets of one run; both sides of the broker use the same.

    Every frame has the same length: topics are padded numbers, the payload starts with the sequence number and the
    publisher's number (binary), or is a JSON object with the sequence in it.
    Source: MQTT 3.1.1 §3.3.
    """

    def __init__(
        self,
        *,
        qos: int,
        payload_bytes: int = PAYLOAD_BYTES,
        topic_count: int = TOPIC_COUNT,
        topic_prefix: str = TOPIC_PREFIX,
        topic_numbers: Column | None = None,
        is_json: bool = False,
        is_retained: bool = False,
        level: int = 4,
    ) -> None:
        """`topic_numbers`: those of the messages of one cycle, instead of 0, 1, … `topic_count`."""
        if payload_bytes < 12:
            raise ValueError("a payload holds a sequence and a publisher: at least 12 bytes")
        self.qos = qos
        self.topic_numbers = np.arange(topic_count) if topic_numbers is None else topic_numbers
        self.topic_count = len(self.topic_numbers)
        """Messages after which the topics begin again."""
        topic_bytes = len(topic_prefix.encode()) + TOPIC_DIGITS
        self._after_topic = (b"\0\0" if qos else b"") + (b"\0" if level >= 5 else b"")
        """Packet id, and in MQTT 5 the length of no properties."""
        remaining_bytes = 2 + topic_bytes + len(self._after_topic) + payload_bytes
        self._head = bytes([0x30 | qos << 1 | is_retained]) + encode_variable_byte_integer(remaining_bytes)
        self.frame_bytes = len(self._head) + remaining_bytes
        self._topic_prefix = topic_prefix
        self.topic_end = len(self._head) + 2 + topic_bytes
        self.packet_id_offset = self.topic_end if qos else None
        self.payload_offset = self.frame_bytes - payload_bytes
        if is_json:
            self._payload = json_payload(payload_bytes)
            self.sequence: SequenceField = DigitSequence(self.payload_offset + self._payload.index(EVENT_MARK) + 8)
            self.publisher_offset: int | None = None
        else:
            self._payload = bytes(payload_bytes)
            self.sequence = BinarySequence(self.payload_offset)
            self.publisher_offset = self.payload_offset + 8
        self.head_word = int.from_bytes(self._head[:2], "little")

    def topic(self, sequence: int) -> str:
        """The topic of a message."""
        return f"{self._topic_prefix}{self.topic_numbers[sequence % self.topic_count]:0{TOPIC_DIGITS}d}"

    def frame(self, sequence: int) -> bytes:
        """One PUBLISH under the topic of that message, with sequence and packet id zero."""
        topic = self.topic(sequence)
        return self._head + _text(topic) + self._after_topic + self._payload

    def field(self, buffer: Any, offset: int, dtype: str, start: int, rows: int) -> Column:
        """A field of `rows` frames in `buffer`, the first frame at `start`, without a copy."""
        return np.ndarray((rows,), dtype=dtype, buffer=buffer, offset=start + offset, strides=(self.frame_bytes,))

    def topic_words(self, sequences: Column) -> Column:
        """The last four digits of the topics of messages, as `field(…, topic_end - 4, "<u4")` shows them."""
        topic_numbers = self.topic_numbers[sequences % self.topic_count]
        words: Column = _FOUR_DIGITS[topic_numbers % 10_000].astype(np.uint32)
        return words


class PublishBlock:
    """A buffer of ready PUBLISH packets; `stamp` makes the next ones of a sequence out of it.

    What `stamp` returned must have left (the kernel has copied it) before the next call.
    """

    def __init__(self, layout: PublishLayout, rows_min: int, publisher: int = 0) -> None:
        cycles = -(-rows_min // layout.topic_count)
        self.rows = min(cycles, PACKET_ID_COUNT // layout.topic_count or 1) * layout.topic_count
        cycle = b"".join(layout.frame(number) for number in range(layout.topic_count))
        buffer = bytearray(cycle * (self.rows // layout.topic_count))
        self._view = memoryview(buffer)
        self._frame_bytes = layout.frame_bytes
        self._words = layout.sequence.words
        self._sequences = layout.sequence.column(buffer, 0, self.rows, layout.frame_bytes)
        self._packet_ids: Column | None = None
        if layout.packet_id_offset is not None:
            self._packet_ids = layout.field(buffer, layout.packet_id_offset, ">u2", 0, self.rows)
        if layout.publisher_offset is not None:
            layout.field(buffer, layout.publisher_offset, ">u4", 0, self.rows)[:] = publisher

    def stamp(self, sequence: int, count: int) -> tuple[memoryview, int]:
        """Packets `sequence` … as bytes, at most `count` of them, and how many they are (the buffer may end before)."""
        row = sequence % self.rows
        count = min(count, self.rows - row)
        self._sequences[row : row + count] = self._words(sequence, count)
        if self._packet_ids is not None:
            first = sequence % PACKET_ID_COUNT
            self._packet_ids[row : row + count] = PACKET_IDS[first : first + count]
        start = row * self._frame_bytes
        return self._view[start : start + count * self._frame_bytes], count


class EventBlock:
    """Ready SSE events of one length, for the ceiling of the SSE scenarios; used like a PublishBlock."""

    def __init__(self, event: bytes, rows: int) -> None:
        """`event` is one whole event with EVENT_MARK and eight digits in it."""
        self.rows = rows
        buffer = bytearray(event * rows)
        self._view = memoryview(buffer)
        self._event_bytes = len(event)
        sequence = DigitSequence(event.index(EVENT_MARK) + len(EVENT_MARK))
        self._words = sequence.words
        self._sequences = sequence.column(buffer, 0, rows, len(event))

    def stamp(self, sequence: int, count: int) -> tuple[memoryview, int]:
        """As `PublishBlock.stamp`."""
        row = sequence % self.rows
        count = min(count, self.rows - row)
        self._sequences[row : row + count] = self._words(sequence, count)
        start = row * self._event_bytes
        return self._view[start : start + count * self._event_bytes], count
