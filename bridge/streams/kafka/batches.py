"""BatchBuilder: rows of runs as a record batch of Kafka, format 2, with the headers of the contract's §7.

All that records of one topic, client and QoS have in common, which is nearly everything beside the payload, is encoded
once. aiokafka's builder makes the same bytes of `headers_of`; it costs twice as much, and is the oracle of the tests.
Source: Kafka's `DefaultRecordBatch` and `DefaultRecord`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.record.util import calc_crc32c

from bridge.encoding import properties_start
from bridge.records import RecordRun, Topic
from bridge.streams.kafka.headers import Header, headers_of, kind_headers

if TYPE_CHECKING:
    from broker.publish_run import PublishRun

HEAD = struct.Struct(">qiibIhiqqqhii")
"""Base offset, length, leader epoch, magic, CRC, attributes, last offset delta, first and last time, producer id,
producer epoch, base sequence, count."""
LENGTH_END = struct.calcsize(">qi")
CRC_START = struct.calcsize(">qiib")
CRC_END = CRC_START + 4
MAGIC = 2
NO_LEADER_EPOCH = -1
COMPRESS: dict[int, Callable[[bytes], bytes]] = {1: gzip_encode, 2: snappy_encode, 3: lz4_encode, 4: zstd_encode}

PLAIN_HEADERS = 6
"""How many a record without properties has."""
HEADS_MAX = 50_000
"""Heads that one stream remembers; beyond it all are forgotten and made again."""

Head = tuple[bytes, bytes]
"""What stands before a record's value (its key) and behind it (its headers, up to the number in `mqtt.id`)."""


def encode_varint(value: int) -> bytes:
    """A signed number: zigzag, then seven bits a byte."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest >= 0x80:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


VARINTS = [encode_varint(value) for value in range(8_192)]
"""Those of one and two bytes."""


def varint(value: int) -> bytes:
    """`encode_varint`, out of the table where it can be."""
    return VARINTS[value] if 0 <= value < len(VARINTS) else encode_varint(value)


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """As it stands: twice the number or, for one below zero, odd; and where it ends. Raises: IndexError"""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def encode_bytes(value: bytes | None) -> bytes:
    """Length and bytes."""
    return b"\x01" if value is None else varint(len(value)) + value


def encode_headers(headers: Iterable[Header]) -> bytes:
    """Headers without their count."""
    return b"".join([encode_bytes(name.encode()) + encode_bytes(value) for name, value in headers])


KIND_NAMES = [encode_bytes(name) for name in (b"mqtt.topic", b"mqtt.qos", b"mqtt.retain", b"mqtt.client_id")]
ID_NAME, TIME_NAME = encode_bytes(b"mqtt.id"), encode_bytes(b"mqtt.time")
"""Names of a plain record's six headers as they stand in it."""


class Heads:
    """The heads of one stream's records, remembered."""

    def __init__(self) -> None:
        self._tables: dict[tuple[str, int, str, int], dict[Topic, Head]] = {}
        self._count = 0

    def table(self, client_id: str, first_byte: int, node_run: str, digits: int) -> dict[Topic, Head]:
        """Heads by topic, of the records of a client, a kind of frame and a node run whose number has so many digits.

        It may be kept for a moment only: `learn` begins anew when there are too many.
        """
        place = (client_id, first_byte & 7, node_run, digits)
        known = self._tables.get(place)
        if known is None:
            known = self._tables[place] = {}
        return known

    def learn(self, client_id: str, first_byte: int, node_run: str, digits: int, topic: Topic, key: bytes) -> Head:
        """Make a head, and remember it."""
        if self._count >= HEADS_MAX:
            self._tables.clear()
            self._count = 0
        self._count += 1
        identity = node_run.encode() + b"-"
        after = (
            varint(PLAIN_HEADERS)
            + encode_headers(kind_headers(first_byte, topic.encoded, client_id))
            + ID_NAME
            + varint(len(identity) + digits)
            + identity
        )
        head = self.table(client_id, first_byte, node_run, digits)[topic] = (encode_bytes(key), after)
        return head


class BatchBuilder:
    """One batch, record after record."""

    __slots__ = (
        "_before",
        "_behind",
        "_bytes_max",
        "_compression",
        "_first_ms",
        "_heads",
        "_last_ms",
        "_parts",
        "_time_ms",
        "bytes",
        "count",
    )

    def __init__(self, heads: Heads, compression: int, bytes_max: int) -> None:
        self.count = 0
        self.bytes = HEAD.size
        """Of the batch, not compressed."""
        self._heads = heads
        self._compression = compression
        self._bytes_max = bytes_max
        self._parts: list[bytes] = []
        self._first_ms = self._last_ms = self._time_ms = -1
        self._before = self._behind = b""

    # hot path: tests/bench/kafka_records.py
    def add(
        self,
        run: PublishRun | RecordRun,
        rows: Sequence[int],
        topics: Sequence[Topic],
        keys: Sequence[bytes],
        node_run: str,
        count_max: int,
    ) -> int:
        """Take as many leading rows as fit; how many that was. `topics` are of the whole run, `keys` of `rows`.

        The first record of a batch is always taken.
        """
        data, start, client_id = run.data, run.start, run.client_id
        payload_starts, ends = _as_list(run.payload_starts), _as_list(run.ends)
        numbers = _as_list(run.numbers) if isinstance(run, RecordRun) and run.numbers is not None else None
        first_number = run.first_number
        count = self.count
        if run.received_at_ms != self._time_ms:
            self._turn_to(run.received_at_ms)
        before, behind = self._before, self._behind
        is_plain = _is_plain(run, rows)
        add, join, small = self._parts.append, b"".join, len(VARINTS)
        table: dict[Topic, Head] = {}
        kind = digits = -1
        size = self.bytes
        taken = 0
        for row, key in zip(rows, keys, strict=True):
            if count >= count_max:
                break
            delta = VARINTS[count] if count < small else encode_varint(count)
            if is_plain:
                first_byte = data[ends[row - 1] if row else start]
                number = b"%d" % (first_number + row if numbers is None else numbers[row])
                if first_byte != kind or len(number) != digits:
                    kind, digits = first_byte, len(number)
                    table = self._heads.table(client_id, kind, node_run, digits)
                topic = topics[row]
                head = table.get(topic) or self._heads.learn(client_id, kind, node_run, digits, topic, key)
                value = data[payload_starts[row] : ends[row]]
                length = len(value)
                value_length = VARINTS[length] if length < small else encode_varint(length)
                body = join((before, delta, head[0], value_length, value, head[1], number, behind))
            else:
                body = before + delta + encode_record(run, row, topics[row].encoded, key, node_run)
            length = len(body)
            body_length = VARINTS[length] if length < small else encode_varint(length)
            size += len(body_length) + length
            if size > self._bytes_max and count:
                size -= len(body_length) + length
                break
            add(body_length)
            add(body)
            count += 1
            taken += 1
        self.count, self.bytes = count, size
        if taken and self._time_ms > self._last_ms:
            self._last_ms = self._time_ms
        return taken

    def _turn_to(self, time_ms: int) -> None:
        """What the records of a time begin and end with."""
        if not self.count:
            self._first_ms = self._last_ms = time_ms
        self._time_ms = time_ms
        self._before = b"\0" + varint(time_ms - self._first_ms)
        text = b"%d" % time_ms
        self._behind = TIME_NAME + varint(len(text)) + text

    def build(self, producer_id: int, producer_epoch: int, sequence: int) -> bytes:
        """The batch; nothing may be added any more."""
        records = b"".join(self._parts)
        attributes = 0
        compress = COMPRESS.get(self._compression)
        if compress is not None:
            compressed = compress(records)
            if len(compressed) < len(records):
                records, attributes = compressed, self._compression
        behind_crc = HEAD.pack(
            0, 0, NO_LEADER_EPOCH, MAGIC, 0, attributes, self.count - 1, self._first_ms, self._last_ms,
            producer_id, producer_epoch, sequence, self.count,
        )[CRC_END:] + records  # fmt: skip
        length = CRC_END - LENGTH_END + len(behind_crc)
        before_crc = struct.pack(">qiib", 0, length, NO_LEADER_EPOCH, MAGIC)
        return b"".join((before_crc, struct.pack(">I", calc_crc32c(behind_crc)), behind_crc))


def encode_record(run: PublishRun | RecordRun, row: int, topic: bytes, key: bytes, node_run: str) -> bytes:
    """Any record from its key on."""
    number = run.number(row) if isinstance(run, RecordRun) else run.first_number + row
    is_null = isinstance(run, RecordRun) and row in run.null_rows
    value = None if is_null else run.data[run.payload_starts[row] : run.ends[row]]
    headers = headers_of(run, row, topic, node_run, number)
    return encode_bytes(key) + encode_bytes(value) + varint(len(headers)) + encode_headers(headers)


def _as_list(column: Sequence[int]) -> list[int]:
    """Nearly always it is one; said to be, it is read in half the time by compiled code."""
    return column if isinstance(column, list) else list(column)


def _is_plain(run: PublishRun | RecordRun, rows: Sequence[int]) -> bool:
    """Every one of some rows has a value and no properties."""
    if isinstance(run, RecordRun):
        if run.null_rows:
            return False
    elif run.is_plain:
        return True
    return not run.is_v5 or not any([run.data[properties_start(run.data, run.frame_start(row))] for row in rows])
