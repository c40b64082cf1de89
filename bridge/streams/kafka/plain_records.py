"""PlainReader: batches of ours whose records have no properties, to runs, straight from their bytes.

`BatchBuilder` gives such records one shape; whatever differs from it anywhere makes the whole batch one for
`Decoder.any_runs`, which makes the same runs of it. That one looks at each header, and takes twice as long.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import accumulate
from typing import NamedTuple

import orjson

from bridge.records import RecordRun, Topic
from bridge.streams.frames import is_storable
from bridge.streams.kafka.batches import ID_NAME, KIND_NAMES, PLAIN_HEADERS, TIME_NAME, read_varint, varint
from bridge.streams.kafka.fetched import Batch
from broker.codec.primitives import encode_variable_byte_integer

RECORDS_MAX = 8_192
"""Of a batch: their places in it have two bytes at most."""
REMEMBERED_MAX = 50_000
"""Kinds, and heads of frames, that one stream remembers; beyond it all are forgotten and made again."""
NODE_RUN_BYTES_MAX = 64
DIGITS_MAX = 18
"""Of a number: below 2^63."""
QOS = {b"0": 0, b"1": 1, b"2": 2}

HeaderCount = varint(PLAIN_HEADERS)


class Kind(NamedTuple):
    """What records have in common that differ in time, number and payload only."""

    head_bytes: int
    """Of their headers up to the digits of `mqtt.id`."""
    digits_end: int
    """Where these digits end, counted from where the headers begin."""
    topic: Topic
    client_id: str
    node_run: str
    first_byte: int
    variable_header: bytes
    frame_heads: dict[int, bytes]
    """What stands before a payload in a frame, by the payload's length."""


class PlainReader:
    """One stream's; see the module's docstring."""

    def __init__(self, open_topic: Callable[[bytes], tuple[Topic, bytes] | None]) -> None:
        """`open_topic`: a topic and its encoding in a frame, of its name; None when that is no topic's name."""
        self._open_topic = open_topic
        self._kind_by_head: dict[bytes, Kind] = {}
        self._head_sizes: dict[int, int] = {}
        """How long the head was of the last record whose key had that size: with keys made of topics a good guess."""
        self._remembered = 0

    # hot path: tests/bench/kafka_records.py
    def runs(self, batch: Batch, partition: int) -> list[RecordRun] | None:
        """The whole batch; None when some record of it is not plain and ours."""
        data, position, batch_end = batch.raw()
        if not 0 < batch.count <= RECORDS_MAX:
            return None
        rows = _Rows(batch, partition)
        topics, pieces, digits = rows.topics, rows.pieces, rows.digits
        kinds, head_sizes = self._kind_by_head, self._head_sizes
        run_delta, run_client, run_node, time_header = -1, "", "", b""
        try:
            for index in range(batch.count):
                length = data[position]
                position += 1
                if length >= 0x80:
                    length = length & 0x7F | data[position] << 7
                    position += 1
                end = position + (length >> 1)
                attributes, delta = data[position], data[position + 1]
                position += 2
                if delta >= 0x80:
                    delta, position = read_varint(data, position - 1)
                place = data[position]
                position += 1
                if place >= 0x80:
                    place = place & 0x7F | data[position] << 7
                    position += 1
                key_size = data[position]
                position += 1
                if key_size >= 0x80:
                    key_size = key_size & 0x7F | data[position] << 7
                    position += 1
                position += key_size >> 1
                size = data[position]
                position += 1
                if size >= 0x80:
                    size = size & 0x7F | data[position] << 7
                    position += 1
                if place != index << 1 or attributes or (key_size | size | delta | length) & 1:
                    return None  # records are missing, null, before the first one's time, or damaged
                if length | key_size | size >= 0x4000:
                    return None  # very long
                size >>= 1
                if position + size > end:
                    return None  # a length that lies
                payload = data[position : position + size]
                headers = data[position + size : end]
                position = end
                kind = kinds.get(headers[: head_sizes.get(key_size, 0)])
                if kind is None:
                    kind = self._kind_of(headers)
                    if kind is None:
                        return None
                    head_sizes[key_size] = kind.head_bytes
                head_bytes, digits_end, topic, client_id, node_run, _, _, frame_heads = kind
                head_sizes[key_size] = head_bytes
                if delta != run_delta or client_id is not run_client or node_run is not run_node:
                    time_header = headers[digits_end:]
                    if not _is_time_header(time_header):
                        return None
                    rows.begin(index, delta >> 1, client_id, node_run)
                    topics, pieces, digits = rows.topics, rows.pieces, rows.digits
                    run_delta, run_client, run_node = delta, client_id, node_run
                elif headers[digits_end:] != time_header:
                    return None
                topics.append(topic)
                pieces.append(frame_heads.get(size) or self._frame_head(kind, size))
                pieces.append(payload)
                digits.append(headers[head_bytes:digits_end])
        except IndexError:
            return None
        return rows.end() if position == batch_end else None

    def _kind_of(self, headers: bytes) -> Kind | None:
        """The kind of a record with these headers; None when it is not plain and ours."""
        before_id, name, behind_name = headers.rpartition(ID_NAME)
        if not name or not behind_name:
            return None
        identity = behind_name[1 : 1 + (behind_name[0] >> 1)]
        node_run, dash, digits = identity.rpartition(b"-")
        head = before_id + name + behind_name[: 1 + len(node_run) + len(dash)]
        kind = self._kind_by_head.get(head)
        if kind is not None:
            return kind
        if behind_name[0] & 0x81 or not node_run.isalnum() or len(node_run) > NODE_RUN_BYTES_MAX:
            return None
        if not 0 < len(digits) <= DIGITS_MAX:
            return None
        return self._learn(before_id, head, len(digits), node_run.decode())

    def _learn(self, before_id: bytes, head: bytes, digits: int, node_run: str) -> Kind | None:
        values = _values(before_id)
        if values is None:
            return None
        topic, qos, retain, client = values
        known = self._open_topic(topic)
        try:
            first_byte = 0x30 | QOS[qos] << 1 | (retain == b"1")
            client_id = sys.intern(client.decode())
        except (KeyError, UnicodeDecodeError):
            return None
        if known is None:
            return None
        variable_header = known[1] + b"\0\0" if QOS[qos] else known[1]
        kind = Kind(
            len(head), len(head) + digits, known[0], client_id, sys.intern(node_run),
            first_byte, variable_header, {},
        )  # fmt: skip
        self._remember()
        self._kind_by_head[head] = kind
        return kind

    def _frame_head(self, kind: Kind, size: int) -> bytes:
        """What stands before a payload of `size` bytes."""
        length = encode_variable_byte_integer(len(kind.variable_header) + size)
        head = bytes((kind.first_byte,)) + length + kind.variable_header
        self._remember()
        kind.frame_heads[size] = head
        return head

    def _remember(self) -> None:
        self._remembered += 1
        if self._remembered > REMEMBERED_MAX:
            self._head_sizes.clear()
            self._kind_by_head.clear()
            self._remembered = 0


class _Rows:
    """Rows that become runs."""

    __slots__ = ("_base", "_client_id", "_node_run", "_partition", "_runs", "_start", "_time_ms", "_times", "digits",
                 "pieces", "topics")  # fmt: skip

    def __init__(self, batch: Batch, partition: int) -> None:
        self.topics: list[Topic] = []
        self.pieces: list[bytes] = []
        """Of each row what stands before its payload, and the payload."""
        self.digits: list[bytes] = []
        self._base = batch.base_offset
        self._times = batch.times
        self._partition = partition
        self._runs: list[RecordRun] | None = []
        """None: some number was none, or some record is not one that is kept."""
        self._start = self._time_ms = 0
        self._client_id = self._node_run = ""

    def begin(self, index: int, delta_ms: int, client_id: str, node_run: str) -> None:
        """The next row has these; it is the first of a run unless the last one had them."""
        time_ms, is_fixed = self._times
        if not is_fixed:
            time_ms += delta_ms
        elif client_id == self._client_id and node_run == self._node_run:
            return
        self.end()
        if not is_storable(client_id, node_run, time_ms):
            self._runs = None
        self._start = self._base + index
        self._time_ms, self._client_id, self._node_run = time_ms, client_id, node_run

    def end(self) -> list[RecordRun] | None:
        """Make a run of what there is; all runs."""
        topics, digits = self.topics, self.digits
        if topics and self._runs is not None:
            bounds = list(accumulate(map(len, self.pieces)))
            try:
                # A number costs 150 ns with int().
                numbers: list[int] = orjson.loads(b"[%b]" % b",".join(digits)) if b"".join(digits).isdigit() else []
            except orjson.JSONDecodeError:  # leading zeros
                numbers = []
            if not numbers:
                self._runs = None
                return None
            self._runs.append(
                RecordRun(
                    b"".join(self.pieces),
                    0,
                    topics,
                    bounds[::2],
                    bounds[1::2],
                    base_offset=self._start,
                    first_number=numbers[0],
                    node_run=self._node_run,
                    received_at_ms=self._time_ms,
                    client_id=self._client_id,
                    is_v5=False,
                    partition=self._partition,
                    numbers=numbers,
                )
            )
            self.topics, self.pieces, self.digits = [], [], []
        return self._runs


def _values(headers: bytes) -> list[bytes] | None:
    """The values of headers that are their count and the four of `KIND_NAMES`; None for others."""
    if not headers.startswith(HeaderCount):
        return None
    values = []
    position = len(HeaderCount)
    for name in KIND_NAMES:
        if not headers.startswith(name, position):
            return None
        position += len(name)
        size = headers[position]
        position += 1
        if size >= 0x80:
            size = size & 0x7F | headers[position] << 7
            position += 1
        if size & 1 or size >= 0x4000:
            return None
        values.append(headers[position : position + (size >> 1)])
        position += size >> 1
    return values if position == len(headers) else None


def _is_time_header(header: bytes) -> bool:
    """One header, `mqtt.time`, and nothing behind it."""
    size_at = len(TIME_NAME)
    return (
        header.startswith(TIME_NAME)
        and len(header) > size_at
        and not header[size_at] & 0x81
        and len(header) == size_at + 1 + (header[size_at] >> 1)
    )
