"""What the load generator believes: every message that comes back has the next sequence number, or the run fails.

Frames of one length are looked at as columns of the receive buffer, so that checking costs nanoseconds a message. SSE
events vary in length when a counter in them gets a digit more; `EventScanner` follows the stride and finds it again.
"""

from __future__ import annotations

import re
import struct
from math import gcd
from typing import Any

import numpy as np

from devices.bench.frames import (
    DIGIT_SEQUENCE_MAX,
    EVENT_MARK,
    PACKET_ID_COUNT,
    PUBACK_WORDS,
    Column,
    DigitSequence,
    PublishLayout,
)

CHECK_ROWS_MAX = 16_384


class CheckFailed(Exception):
    """A message was lost, came twice, in the wrong place or was not what had been sent."""


def explain(who: str, expected: int, numbers: list[int]) -> CheckFailed:
    """What went wrong at the first of `numbers`, where `expected` should stand; the rest is what followed."""
    got = numbers[0]
    if got < expected:
        return CheckFailed(f"{who}: repeat: {got} came again where {expected} was due")
    if expected in numbers:
        return CheckFailed(f"{who}: swap: {got} came before {expected}")
    return CheckFailed(f"{who}: loss: {got} came where {expected} was due ({got - expected} missing)")


def _first_difference(left: Column, right: Column) -> int:
    return int(np.argmax(left != right))


class PublishChecker:
    """Follows one publisher's messages at one subscriber: all of them, or each `step`-th from `first` on."""

    def __init__(self, layout: PublishLayout, who: str, *, first: int = 0, step: int = 1) -> None:
        self._layout = layout
        self._who = who
        self._first = first
        self._step = step
        self._cycle = layout.topic_count // gcd(layout.topic_count, step)
        self._topic_words = layout.topic_words(first + step * np.arange(CHECK_ROWS_MAX + self._cycle))
        self._topic_word_list = self._topic_words[: self._cycle].tolist()
        self._words_of_one = struct.Struct("<H"), struct.Struct("<I"), struct.Struct(">Q")
        self.received = 0
        """Messages that came, all in order."""

    @property
    def next_sequence(self) -> int:
        """The sequence number of the message that is due."""
        return self._first + self._step * self.received

    def check(self, buffer: Any, rows: int, start: int = 0) -> None:
        """Look at `rows` whole frames from `start` of `buffer` on.

        Raises: CheckFailed
        """
        while rows > 0:
            part = min(rows, CHECK_ROWS_MAX)
            self._check_part(buffer, start, part)
            start += part * self._layout.frame_bytes
            rows -= part

    def check_one(self, buffer: Any, start: int) -> None:
        """As `check` of one frame with a binary sequence number, without numpy: a fifth of its time.

        Raises: CheckFailed
        """
        layout = self._layout
        head, topic, sequence = self._words_of_one
        if (
            head.unpack_from(buffer, start)[0] == layout.head_word
            and sequence.unpack_from(buffer, start + layout.payload_offset)[0] == self.next_sequence
            and topic.unpack_from(buffer, start + layout.topic_end - 4)[0]
            == self._topic_word_list[self.received % self._cycle]
        ):
            self.received += 1
        else:
            self.check(buffer, 1, start)  # which says what is wrong

    def _check_part(self, buffer: Any, start: int, rows: int) -> None:
        layout = self._layout
        heads = layout.field(buffer, 0, "<u2", start, rows)
        if not (heads == layout.head_word).all():
            row = _first_difference(heads, np.full(rows, layout.head_word, dtype=np.uint16))
            raise CheckFailed(f"{self._who}: not the PUBLISH that was sent: starts with 0x{int(heads[row]) & 255:02x}")
        column = layout.sequence.column(buffer, start, rows, layout.frame_bytes)
        expected = layout.sequence.words(self.next_sequence, rows, self._step)
        if not (column == expected).all():
            row = _first_difference(column, expected)
            numbers = [layout.sequence.number(int(word)) for word in column[row:]]
            raise explain(self._who, layout.sequence.number(int(expected[row])), numbers)
        topic_row = self.received % self._cycle
        topics = layout.field(buffer, layout.topic_end - 4, "<u4", start, rows)
        if not (topics == self._topic_words[topic_row : topic_row + rows]).all():
            raise CheckFailed(f"{self._who}: a message came under another message's topic")
        self.received += rows


class ManyPublishersChecker:
    """Follows the messages of many publishers at one subscriber: order holds for each of them."""

    def __init__(self, layout: PublishLayout, publishers: int, who: str) -> None:
        if layout.publisher_offset is None:
            raise ValueError("JSON payloads do not name their publisher")
        self._layout = layout
        self._publisher_offset = layout.publisher_offset
        self._who = who
        self._received: Column = np.zeros(publishers, dtype=np.int64)

    @property
    def received(self) -> int:
        """Messages that came, all in order, of all publishers."""
        return int(self._received.sum())

    def received_from(self, publisher: int) -> int:
        """Messages of one publisher that came: its next sequence number."""
        return int(self._received[publisher])

    def check(self, buffer: Any, rows: int) -> None:
        """Look at `rows` whole frames at the start of `buffer`.

        Raises: CheckFailed
        """
        layout = self._layout
        heads = layout.field(buffer, 0, "<u2", 0, rows)
        publishers = layout.field(buffer, self._publisher_offset, ">u4", 0, rows)
        if not (heads == layout.head_word).all() or int(publishers.max(initial=0)) >= len(self._received):
            raise CheckFailed(f"{self._who}: not the PUBLISH that was sent")
        column = layout.sequence.column(buffer, 0, rows, layout.frame_bytes).astype(np.int64)
        order = np.argsort(publishers, kind="stable")
        sorted_publishers = publishers[order].astype(np.int64)
        counts = np.bincount(sorted_publishers, minlength=len(self._received))
        first_rows = np.cumsum(counts) - counts
        expected = self._received[sorted_publishers] + np.arange(rows) - first_rows[sorted_publishers]
        numbers = column[order]
        if not (numbers == expected).all():
            row = _first_difference(numbers, expected)
            publisher = int(sorted_publishers[row])
            rest = [int(number) for number in numbers[row:][sorted_publishers[row:] == publisher]]
            raise explain(f"{self._who}, publisher {publisher}", int(expected[row]), rest)
        self._received += counts


class PubackChecker:
    """Follows the acknowledgements of one publisher: in the order of its publishes [MQTT-4.6.0-2]."""

    def __init__(self, who: str) -> None:
        self._who = who
        self.received = 0

    def check(self, buffer: Any, rows: int) -> None:
        """Look at `rows` PUBACKs of four bytes at the start of `buffer`.

        Raises: CheckFailed
        """
        words = np.ndarray((rows,), dtype=">u4", buffer=buffer)
        done = 0
        while done < rows:
            first = (self.received + done) % PACKET_ID_COUNT
            count = min(rows - done, PACKET_ID_COUNT)
            expected = PUBACK_WORDS[first : first + count]
            if not (words[done : done + count] == expected).all():
                row = _first_difference(words[done : done + count], expected)
                got, due = int(words[done + row]), int(expected[row])
                raise CheckFailed(f"{self._who}: acknowledgement 0x{got:08x} came where 0x{due:08x} was due")
            done += count
        self.received += rows


def encode_pubacks(packet_ids: Column) -> bytes:
    """PUBACKs for a column of packet ids, in its order. Source: MQTT 3.1.1 §3.4."""
    words = packet_ids.astype(">u4")
    words |= 0x40020000
    return words.tobytes()


class EventScanner:
    """Follows the sequence numbers in a stream of SSE events, whatever stands around them."""

    _FIELD_BYTES = len(EVENT_MARK) + 8

    def __init__(self, who: str, first: int = 0, mark: bytes = EVENT_MARK) -> None:
        """`mark`: the eight bytes before a number's digits."""
        self._who = who
        self._mark = mark
        self._mark_word = int.from_bytes(mark, "little")
        self._first = first
        self._next = first
        self._stride = 0
        self._tail = b""
        self._digits = DigitSequence(0)

    @property
    def received(self) -> int:
        """Events that came, all in order."""
        return self._next - self._first

    def feed(self, data: bytearray, start: int, end: int) -> None:
        """Look at the next piece of the event stream, `data[start:end]`; an event may be cut anywhere.

        Raises: CheckFailed
        """
        keep = self._FIELD_BYTES - 1
        tail = self._tail
        if tail:
            joined = tail + data[start : min(end, start + keep)]
            position = joined.find(self._mark)
            if 0 <= position < len(tail) and position + self._FIELD_BYTES <= len(joined):
                self._expect(int.from_bytes(joined[position + 8 : position + 16], "little"))
        self._scan(data, start, end)
        self._tail = bytes(data[end - keep : end]) if end - start >= keep else (tail + data[start:end])[-keep:]

    def _expect(self, word: int) -> None:
        number = self._digits.number(word)
        if number != self._next:
            raise explain(self._who, self._next, [number])
        self._next += 1

    def _scan(self, data: bytearray, start: int, end: int) -> None:
        mark = self._mark
        position = data.find(mark, start, end)
        while position >= 0 and position + self._FIELD_BYTES <= end:
            rows = self._follow_stride(data, position, end)
            last = position + (rows - 1) * self._stride if rows > 1 else position
            following = data.find(mark, last + self._FIELD_BYTES, end)
            if following >= 0:
                self._stride = following - last
            position = following

    def _follow_stride(self, data: bytearray, position: int, end: int) -> int:
        """Check the events from `position` on that stand one stride apart; how many they are (at least one)."""
        stride = self._stride
        rows = 1 + (end - position - self._FIELD_BYTES) // stride if stride else 1
        if rows > 1:
            marks = np.ndarray((rows,), dtype="<u8", buffer=data, offset=position, strides=(stride,))
            is_mark = marks == self._mark_word
            if not is_mark.all():
                rows = int(np.argmin(is_mark))
        words = np.ndarray((rows,), dtype="<u8", buffer=data, offset=position + 8, strides=(stride or 8,))
        if self._next + rows > DIGIT_SEQUENCE_MAX:
            raise CheckFailed(f"{self._who}: more events than numbers")
        expected = self._digits.words(self._next, rows)
        if not (words == expected).all():
            row = _first_difference(words, expected)
            numbers = [self._digits.number(int(word)) for word in words[row:]]
            raise explain(self._who, self._next + row, numbers)
        self._next += rows
        return rows


class NumberCollector:
    """Keeps the numbers in a stream of SSE events that comes from several partitions, to be judged at the end."""

    _FIELD_BYTES = len(EVENT_MARK) + 8
    _FIELD = re.compile(re.escape(EVENT_MARK) + rb"(\d{8})")

    def __init__(self, who: str) -> None:
        self._who = who
        self._numbers: list[bytes] = []
        self._tail = b""

    @property
    def received(self) -> int:
        """Events that came."""
        return len(self._numbers)

    def feed(self, data: bytearray, start: int, end: int) -> None:
        """See `EventScanner.feed`."""
        joined = self._tail + data[start:end]
        self._numbers += self._FIELD.findall(joined)
        self._tail = joined[1 - self._FIELD_BYTES :]  # too short to hold one that was found

    def judge(self, count: int, topic_count: int) -> None:
        """Each number below `count` came once, and those of a topic in order.

        Raises: CheckFailed
        """
        numbers = np.array(self._numbers, dtype="S8").astype(np.int64)
        topics = numbers % topic_count
        order = np.argsort(topics, kind="stable")
        in_order = numbers[order]
        falls = (np.diff(in_order) <= 0) & (np.diff(topics[order]) == 0)
        if falls.any():
            row = int(np.argmax(falls))
            raise explain(self._who, int(in_order[row]) + topic_count, [int(in_order[row + 1])])
        missing = np.setdiff1d(np.arange(count), numbers)
        if len(missing) or len(numbers) != count:
            first = int(missing[0]) if len(missing) else int(numbers.max())
            raise CheckFailed(f"{self._who}: loss: of {count:,} messages {len(missing):,} never came, first {first}")


def judge_stored(
    sequences: Column,
    publishers: Column,
    partitions: Column,
    topic_numbers: Column,
    topic_count: int,
    acknowledged: int,
) -> str | None:
    """What is wrong with the messages in a log, as columns in the order of each partition's offsets.

    Each must be there once, under its topic, and in each partition those of a publisher in their order.
    """
    if not (topic_numbers == sequences % topic_count).all():
        row = int(np.argmax(topic_numbers != sequences % topic_count))
        return f"message {int(sequences[row])} of publisher {int(publishers[row])} has another message's topic"
    lanes = publishers * (int(partitions.max(initial=0)) + 1) + partitions
    order = np.argsort(lanes, kind="stable")
    same_lane = np.diff(lanes[order]) == 0
    steps = np.diff(sequences[order])
    if (steps[same_lane] <= 0).any():
        row = int(np.argmax(same_lane & (steps <= 0)))
        last, following = (int(sequences[order[each]]) for each in (row, row + 1))
        kind = "repeat" if last == following else "swap"
        return f"publisher {int(publishers[order[row]])}: {kind}: {following} stands behind {last}"
    by_publisher = np.lexsort((sequences, publishers))
    numbers, owners = sequences[by_publisher], publishers[by_publisher]
    counts = np.unique(owners, return_counts=True)[1]
    expected = np.arange(len(numbers)) - np.repeat(np.cumsum(counts) - counts, counts)
    if not (numbers == expected).all():
        row = int(np.argmax(numbers != expected))
        what = "repeat" if numbers[row] < expected[row] else "loss"
        return f"publisher {int(owners[row])}: {what}: {int(numbers[row])} stands where {int(expected[row])} was due"
    if len(numbers) != acknowledged:
        return f"loss: {acknowledged:,} were acknowledged, the log has {len(numbers):,}"
    return None
