"""Records of Kafka as runs: what a fetch gave is made into canonical MQTT 5 PUBLISH frames, so that everything that
shows records works on it.

Records of other producers are taken when they carry `mqtt.topic`, or when a template makes a topic for them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from bridge.records import RecordRun, Topic
from bridge.streams.frames import is_storable
from bridge.streams.kafka.fetched import Batch
from bridge.streams.kafka.headers import PROPERTY_NAMES, USER_PREFIX
from bridge.streams.kafka.plain_records import QOS, PlainReader
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
_ID = re.compile(r"([A-Za-z0-9._-]{1,64})-(0|[1-9][0-9]{0,17})")


class Decoder:
    """Kafka records of one stream to `RecordRun`s. Keeps the stream's `Topic` objects."""

    def __init__(
        self, kafka_topic: str, topic_template: str | None, open_topic: Callable[[str], Topic] | None = None
    ) -> None:
        self.left_out = 0
        """Records of other producers that are no message: they name no topic and there is no template, or what they
        say cannot be said in MQTT."""
        self._kafka_topic = kafka_topic
        self._template = topic_template
        self._open_topic = open_topic or Topic
        self._topic_by_name: dict[bytes, tuple[Topic, bytes] | None] = {}
        self._plain = PlainReader(self._topic)

    def runs(self, batch: Batch, partition: int, low: int, high: int) -> list[RecordRun]:
        """The records with `low <= offset < high`; rows of a run share client, time and node run.

        Raises: aiokafka.errors.CorruptRecordException
        """
        if low <= batch.base_offset and batch.next_offset <= high:
            runs = self._plain.runs(batch, partition)
            if runs is not None:
                return runs
        return self.any_runs(batch, partition, low, high)

    def any_runs(self, batch: Batch, partition: int, low: int, high: int) -> list[RecordRun]:
        """See `runs`; of records of whomever."""
        rows = _Rows(partition)
        for record in batch.records:
            offset: int = record.offset
            if offset < low:
                continue
            if offset >= high:
                break
            try:
                known, qos, is_retained, client_id, identity, properties = self._read(record, partition)
            except (KeyError, ValueError, MqttError):
                known = None
            if known is None:
                self.left_out += 1
                continue
            topic, encoded_topic = known
            node_run, number = _identity(identity, partition, offset)
            time_ms: int = record.timestamp or 0
            if not is_storable(client_id, node_run, time_ms):
                self.left_out += 1
                continue
            payload = record.value or b""
            head = encoded_topic + (b"\0\0" if qos else b"") + properties
            length = encode_variable_byte_integer(len(head) + len(payload))
            rows.turn_to(offset, time_ms, client_id, node_run, is_v5=bool(properties), is_null=record.value is None)
            rows.add(topic, bytes((0x30 | qos << 1 | is_retained,)) + length + head, payload, number)
        return rows.end()

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

    def _read(self, record: Any, partition: int) -> tuple[tuple[Topic, bytes] | None, int, bool, str, bytes, bytes]:
        """Topic with its encoding, QoS, RETAIN, client, `mqtt.id`, and the encoded properties, or nothing for none."""
        first: dict[str, bytes] = {}
        user: list[tuple[str, str]] = []
        for name, value in record.headers:
            if name.startswith(USER_PREFIX):
                user.append((name[len(USER_PREFIX) :], (value or b"").decode()))
            else:
                first.setdefault(name, value or b"")
        topic = first.get("mqtt.topic")
        if topic is None:
            topic = self._templated(record, partition)
        known = self._topic(topic) if topic is not None else None
        properties = _properties(first, user) if user or not first.keys().isdisjoint(PROPERTY_NAMES) else b""
        return (
            known,
            QOS[first.get("mqtt.qos", b"0")],
            first.get("mqtt.retain") == b"1",
            first.get("mqtt.client_id", b"").decode(),
            first.get("mqtt.id", b""),
            properties,
        )

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
        properties.response_topic = validate_topic_name(first["mqtt.response_topic"])
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
    """Rows that become runs."""

    __slots__ = ("_common", "_numbers", "_partition", "_pieces", "_runs", "_start", "_topics")

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._runs: list[RecordRun] = []
        self._topics: list[Topic] = []
        self._pieces: list[bytes] = []
        """Of each row what stands before its payload, and the payload."""
        self._numbers: list[int] = []
        self._start = 0
        self._common = (0, "", "", False, False)
        """Time, client, node run, whether frames are MQTT 5's and payloads null."""

    def turn_to(self, offset: int, time_ms: int, client_id: str, node_run: str, *, is_v5: bool, is_null: bool) -> None:
        """The next row has these: it goes to the run that has them too, or begins one."""
        common = (time_ms, client_id, node_run, is_v5, is_null)
        if common != self._common or offset != self._start + len(self._topics):
            self.end()
            self._common, self._start = common, offset

    def add(self, topic: Topic, head: bytes, payload: bytes, number: int) -> None:
        """One row; `head` is its frame before the payload."""
        self._topics.append(topic)
        self._pieces += (head, payload)
        self._numbers.append(number)

    def end(self) -> list[RecordRun]:
        """Make a run of what there is; all runs."""
        topics = self._topics
        if topics:
            time_ms, client_id, node_run, is_v5, is_null = self._common
            bounds = list(accumulate(map(len, self._pieces)))
            self._runs.append(
                RecordRun(
                    b"".join(self._pieces),
                    0,
                    topics,
                    bounds[::2],
                    bounds[1::2],
                    base_offset=self._start,
                    first_number=self._numbers[0],
                    node_run=node_run,
                    received_at_ms=time_ms,
                    client_id=client_id,
                    is_v5=is_v5,
                    partition=self._partition,
                    numbers=self._numbers,
                    null_rows=frozenset(range(len(topics))) if is_null else frozenset(),
                )
            )
            self._topics, self._pieces, self._numbers = [], [], []
        return self._runs


def _identity(identity: bytes, partition: int, offset: int) -> tuple[str, int]:
    """The two parts of an `mqtt.id`; another producer's record that has none, or an odd one, is named by its place."""
    match = _ID.fullmatch(identity.decode("ascii", "replace"))
    if match is None:
        return f"k{partition}", offset
    return match[1], int(match[2])


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
