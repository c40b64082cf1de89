"""Records of Kafka as runs: what a fetch gave is made into canonical MQTT 5 PUBLISH frames, so that everything that
shows records works on it.

Records of other producers are taken when they carry `mqtt.topic`, or when a template makes a topic for them.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.memory_records import MemoryRecords

from bridge.records import RecordRun, Topic
from bridge.streams.kafka.headers import USER_PREFIX, Header
from broker.codec.constants import PUBLISH
from broker.codec.errors import MqttError
from broker.codec.primitives import encode_variable_byte_integer
from broker.codec.properties import Properties, encode_properties
from broker.topics.names import validate_topic_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.publish_run import PublishRun

TOPICS_MAX = 200_000
"""`Topic` objects kept for decoding; beyond it they are made anew."""
_ID = re.compile(r"([A-Za-z0-9._-]{1,64})-(0|[1-9][0-9]{0,18})")
_QOS = {b"0": 0, b"1": 1, b"2": 2}


class Batch:
    """One batch of records as Kafka keeps it."""

    __slots__ = ("_records", "base_offset", "next_offset", "producer_id")

    def __init__(self, base_offset: int, next_offset: int, producer_id: int, records: Iterable[Any]) -> None:
        self.base_offset = base_offset
        self.next_offset = next_offset
        self.producer_id = producer_id
        self._records = records

    @property
    def records(self) -> Sequence[Any]:
        """aiokafka's records, decoded when they are asked for."""
        if not isinstance(self._records, list):
            self._records = list(self._records)
        return self._records


def batches_of(data: bytes, aborted: Iterable[tuple[int, int]] = ()) -> Iterator[Batch]:
    """The whole batches in what a fetch gave. Control batches hold no record of anyone, those of transactions that
    were given up none that counts; `aborted` names these by producer and first offset.

    Raises: aiokafka.errors.CorruptRecordException.
    """
    begins = deque(sorted(aborted, key=_first_offset))
    given_up: set[int] = set()
    records = MemoryRecords(data)
    while records.has_next():
        batch = records.next_batch()
        if batch is None:
            return
        base, end, producer_id = batch.base_offset, batch.next_offset, getattr(batch, "producer_id", -1)
        while begins and begins[0][1] < end:
            given_up.add(begins.popleft()[0])
        if batch.is_control_batch:
            if ControlRecord.parse(next(batch).key) == ABORT_MARKER:
                given_up.discard(producer_id)
            yield Batch(base, end, -1, ())
        elif producer_id in given_up and batch.is_transactional:
            yield Batch(base, end, -1, ())
        else:
            yield Batch(base, end, producer_id, batch)


def _first_offset(transaction: tuple[int, int]) -> int:
    return transaction[1]


class Decoder:
    """Kafka records of one stream to `RecordRun`s. Keeps the stream's `Topic` objects."""

    def __init__(
        self, kafka_topic: str, topic_template: str | None, open_topic: Callable[[str], Topic] | None = None
    ) -> None:
        self.left_out = 0
        """Records of other producers that name no topic, when there is no template either."""
        self._kafka_topic = kafka_topic
        self._template = topic_template
        self._open_topic = open_topic or Topic
        self._topic_by_name: dict[bytes, tuple[Topic, bytes] | None] = {}

    # hot path: tests/bench/kafka_records.py
    def runs(self, batch: Batch, partition: int, low: int, high: int) -> list[RecordRun]:
        """The records with `low <= offset < high`; rows of a run share client, time and node run."""
        runs: list[RecordRun] = []
        rows = _Rows()
        for record in batch.records:
            offset: int = record.offset
            if offset < low:
                continue
            if offset >= high:
                break
            headers: Sequence[Header] = record.headers
            try:
                # The six headers of ours, in our order: nothing has to be looked for.
                if len(headers) == 6 and headers[5][0] == "mqtt.time" and headers[4][0] == "mqtt.id":
                    known = self._topic(headers[0][1])
                    qos, retain = _QOS[headers[1][1]], headers[2][1] == b"1"
                    client, identity, properties = headers[3][1], headers[4][1], b"\0"
                else:
                    known, qos, retain, client, identity, properties = self._read(record, partition)
            except (KeyError, ValueError, MqttError, UnicodeDecodeError):
                known = None
            if known is None:
                self.left_out += 1
                rows.end(runs, partition)
                continue
            topic, encoded_topic = known
            value = record.value
            payload = b"" if value is None else value
            head = b"%b\0\0%b" % (encoded_topic, properties) if qos else encoded_topic + properties
            length = len(head) + len(payload)
            frame = b"%c%b%b" % (
                0x30 | qos << 1 | retain,
                bytes((length,)) if length < 128 else encode_variable_byte_integer(length),
                head,
            )
            rows.add(runs, partition, offset, record.timestamp, client, identity, topic, frame, payload, value is None)
        rows.end(runs, partition)
        return runs

    def _topic(self, name: bytes) -> tuple[Topic, bytes] | None:
        if name in self._topic_by_name:
            return self._topic_by_name[name]
        known: tuple[Topic, bytes] | None
        try:
            known = (self._open_topic(validate_topic_name(name)), len(name).to_bytes(2, "big") + name)
        except (MqttError, OverflowError):
            known = None
        if len(self._topic_by_name) >= TOPICS_MAX:
            self._topic_by_name.clear()
        self._topic_by_name[name] = known
        return known

    def _read(self, record: Any, partition: int) -> tuple[tuple[Topic, bytes] | None, int, bool, bytes, bytes, bytes]:
        """Any other record: look each header up."""
        first: dict[str, bytes] = {}
        user: list[tuple[str, str]] = []
        for name, value in record.headers:
            if name.startswith(USER_PREFIX):
                user.append((name[len(USER_PREFIX) :], (value or b"").decode()))
            else:
                first.setdefault(name, value or b"")
        name = first.get("mqtt.topic")
        if name is None:
            name = self._templated(record, partition)
        known = self._topic(name) if name is not None else None
        client = first.get("mqtt.client_id", b"")
        client.decode()
        identity = first.get("mqtt.id", b"")
        properties = _properties(first, user)
        return known, _QOS[first.get("mqtt.qos", b"0")], first.get("mqtt.retain") == b"1", client, identity, properties

    def _templated(self, record: Any, partition: int) -> bytes | None:
        if self._template is None:
            return None
        key = (record.key or b"").decode("utf-8", "replace")
        return (
            self._template.replace("{topic}", self._kafka_topic)
            .replace("{partition}", str(partition))
            .replace("{key}", key)
            .encode()
        )


def _properties(first: dict[str, bytes], user: list[tuple[str, str]]) -> bytes:
    """The property length and properties of the frame."""
    properties = Properties()
    if "mqtt.content_type" in first:
        properties.content_type = first["mqtt.content_type"].decode()
    if "mqtt.response_topic" in first:
        properties.response_topic = first["mqtt.response_topic"].decode()
    if "mqtt.correlation_data" in first:
        properties.correlation_data = first["mqtt.correlation_data"]
    if "mqtt.message_expiry_interval" in first:
        properties.message_expiry_interval = int(first["mqtt.message_expiry_interval"]) & 0xFFFFFFFF
    if "mqtt.payload_format_indicator" in first:
        properties.payload_format_indicator = int(first["mqtt.payload_format_indicator"]) & 1
    if user:
        properties.user_properties = user
    return encode_properties(properties, PUBLISH)


class _Rows:
    """Rows that may become one run."""

    __slots__ = (
        "_client",
        "_frames",
        "_is_null",
        "_next",
        "_numbers",
        "_prefix",
        "_sizes",
        "_start",
        "_time",
        "_topics",
    )

    def __init__(self) -> None:
        self._topics: list[Topic] = []
        self._frames: list[bytes] = []
        self._sizes: list[int] = []
        self._numbers: list[int] = []
        self._client = b""
        self._prefix = ""
        self._time = 0
        self._start = 0
        self._next = -1
        self._is_null = False

    def add(
        self,
        runs: list[RecordRun],
        partition: int,
        offset: int,
        time_ms: int,
        client: bytes,
        identity: bytes,
        topic: Topic,
        frame: bytes,
        payload: bytes,
        is_null: bool,
    ) -> None:
        prefix, _, number = identity.decode("ascii", "replace").rpartition("-")
        is_number = number.isdigit() and len(number) < 19 and (number[0] != "0" or number == "0")
        if not (is_number and prefix and (prefix == self._prefix or (prefix.isalnum() and len(prefix) <= 64))):
            prefix, number = _identity(identity, partition, offset)
        if (
            offset != self._next
            or client != self._client
            or time_ms != self._time
            or prefix != self._prefix
            or is_null is not self._is_null
        ):
            self.end(runs, partition)
            self._client, self._time, self._prefix, self._is_null = client, time_ms, prefix, is_null
            self._start = offset
        self._next = offset + 1
        self._topics.append(topic)
        self._frames.append(frame)
        self._frames.append(payload)
        self._sizes.append(len(frame))
        self._sizes.append(len(payload))
        self._numbers.append(int(number))

    def end(self, runs: list[RecordRun], partition: int) -> None:
        """Make a run of what there is."""
        topics = self._topics
        if not topics:
            return
        bounds = list(accumulate(self._sizes))
        runs.append(
            RecordRun(
                b"".join(self._frames),
                0,
                topics,
                bounds[::2],
                bounds[1::2],
                base_offset=self._start,
                first_number=self._numbers[0],
                node_run=self._prefix,
                received_at_ms=self._time,
                client_id=self._client.decode(),
                is_v5=True,
                partition=partition,
                numbers=self._numbers,
                null_rows=frozenset(range(len(topics))) if self._is_null else frozenset(),
            )
        )
        self._topics, self._frames, self._sizes, self._numbers = [], [], [], []
        self._next = -1


def _identity(identity: bytes, partition: int, offset: int) -> tuple[str, str]:
    """The two parts of an `mqtt.id`; another producer's record that has none, or an odd one, is named by its place."""
    match = _ID.fullmatch(identity.decode("ascii", "replace"))
    if match is None or not match[2].isascii():
        return f"k{partition}", str(offset)
    return match[1], match[2]


# Rows of a run that went their own ways


def part_of(
    run: PublishRun | RecordRun, rows: Sequence[int], topics: Sequence[Topic], node_run: str, partition: int, base: int
) -> RecordRun:
    """Some rows of a run, which have become `base`, `base + 1`, … of a partition."""
    first, last = rows[0], rows[-1]
    is_stretch = last - first + 1 == len(rows)
    payload_starts: Sequence[int]
    ends: Sequence[int]
    if is_stretch:
        data = run.data
        start = run.ends[first - 1] if first else run.start
        payload_starts, ends = run.payload_starts[first : last + 1], run.ends[first : last + 1]
    else:
        starts = [run.ends[row - 1] if row else run.start for row in rows]
        frames = [run.data[begin : run.ends[row]] for begin, row in zip(starts, rows, strict=True)]
        data = b"".join(frames)
        start = 0
        ends = list(accumulate(map(len, frames)))
        payload_starts = [end - run.ends[row] + run.payload_starts[row] for end, row in zip(ends, rows, strict=True)]
    numbers: Sequence[int] | None
    if isinstance(run, RecordRun):
        numbers = [run.number(row) for row in rows]
    else:
        numbers = None if is_stretch else [run.first_number + row for row in rows]
    return RecordRun(
        data,
        start,
        topics[first : last + 1] if is_stretch else [topics[row] for row in rows],
        payload_starts,
        ends,
        base_offset=base,
        first_number=numbers[0] if numbers is not None else run.first_number + first,
        node_run=node_run,
        received_at_ms=run.received_at_ms,
        client_id=run.client_id,
        is_v5=run.is_v5,
        partition=partition,
        numbers=numbers,
    )
