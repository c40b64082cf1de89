"""Records to MQTT: rows of runs as ready PUBLISH frames for a subscriber, and the columns that packet ids need.

A frame has the record's topic, payload and properties; for MQTT 5 the user properties `stream`, `epoch`, `partition`,
`offset` and `time` stand behind them. What does not change from row to row is made once a run, so a row of a plain run
costs one join.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate, groupby

from bridge.encoding import properties_start, rfc3339
from bridge.history.scan import PublishColumns, PublishForm
from bridge.records import RecordRun
from broker.codec.constants import PUBLISH
from broker.codec.encode import encode_publish_head
from broker.codec.primitives import encode_string, encode_variable_byte_integer
from broker.codec.properties import Properties, decode_properties, encode_properties
from broker.replay import PublishRows

REMAINING_LENGTH_MAX = 268_435_455
FIELDS_BYTES_V5 = 90
"""What the user properties add to a frame, at least; none in 3.1.1."""
HEADS_MAX = 20_000
_EXPIRY = b"\x02"
_ID = b"\0\0"


class _Heads(dict[int, bytes]):
    """Fixed headers of PUBLISH with one first byte, by remaining length."""

    def __init__(self, first_byte: int) -> None:
        self._first_byte = first_byte

    def __missing__(self, remaining_length: int) -> bytes:
        if len(self) >= HEADS_MAX:
            self.clear()
        head = self[remaining_length] = encode_publish_head(self._first_byte, remaining_length)
        return head


_heads_by_first_byte = {first_byte: _Heads(first_byte) for first_byte in range(0x30, 0x36)}


def user_property(name: str, text: str) -> bytes:
    """One user property as it stands among others."""
    return b"\x26" + encode_string(name) + encode_string(text)


class PublishFrames:
    """The growing result of a scan in the `publish` encoding; the caller joins the frames."""

    def __init__(self, form: PublishForm, stream: str, now_ms: int) -> None:
        self._form = form
        self._stream = stream
        self._now_ms = now_ms
        self.count = 0
        """Frames kept."""
        self.left_out = 0
        """Rows whose frames were larger than the client takes."""
        self._sizes: list[int] = []
        self._id_places: list[int] = []
        """Within each frame."""
        self._stretches: list[tuple[int, int]] = []
        self._offsets = array("Q")
        self._places: list[tuple[int, str, str]] = []
        self._fields_by_place: dict[tuple[str, int], bytes] = {}

    def leaves_out(self, run: RecordRun) -> bool:
        """The run is of the client that does not want its own records."""
        return self._form.left_out_client_id is not None and run.client_id == self._form.left_out_client_id

    # hot path: tests/bench/replay.py
    def encode(self, epoch: str, run: RecordRun, rows: Sequence[int]) -> list[bytes]:
        """A frame for each row, its packet id (if any) still to be put in; empty when it is larger than allowed."""
        frames = self._encode_plain(epoch, run, rows) if run.ends[-1] - run.start < REMAINING_LENGTH_MAX // 2 else None
        if frames is None:
            frames = [self._encode_one(epoch, run, row) for row in rows]
        limit = self._form.packet_bytes_max
        if limit and frames and max(map(len, frames)) > limit:
            return [frame if len(frame) <= limit else b"" for frame in frames]
        return frames

    def keep(self, run: RecordRun, rows: Sequence[int], frames: Sequence[bytes], place: tuple[str, str]) -> None:
        """Note the columns of frames that go out; a record's position is place[0] + (offset + 1) + place[1]."""
        if not all(frames):
            rows = [row for row, frame in zip(rows, frames, strict=True) if frame]
            self.left_out += len(frames) - len(rows)
            frames = [frame for frame in frames if frame]
        if not frames:
            return
        self.count += len(frames)
        if not self._form.qos:
            return
        base_offset = run.base_offset
        self._sizes += map(len, frames)
        self._offsets.extend([base_offset + row for row in rows])
        self._places.append((self.count, *place))
        levels = [frame[0] >> 1 & 3 for frame in frames]
        for qos, stretch in groupby(levels):
            begin = self._stretches[-1][0] if self._stretches else 0
            end = begin + sum([1 for _ in stretch])
            if self._stretches and self._stretches[-1][1] == qos:
                self._stretches.pop()
            self._stretches.append((end, qos))
        self._id_places += self._id_places_of(run, rows, frames)

    def _id_places_of(self, run: RecordRun, rows: Sequence[int], frames: Sequence[bytes]) -> list[int]:
        """Where the packet id stands within each frame."""
        topics = run.topics
        return [
            fixed_header_bytes(len(frame)) + len(topics[row].framed) for row, frame in zip(rows, frames, strict=True)
        ]

    def columns(self) -> PublishColumns:
        """What stands beside the frames."""
        if all(qos == 0 for _, qos in self._stretches):
            return PublishColumns(None, array("Q"), (), self.left_out)
        ends = array("I", accumulate(self._sizes))
        starts = [0, *ends[:-1]]
        id_places = array("I", map(int.__add__, starts, self._id_places))
        rows = PublishRows(ends, id_places, tuple(self._stretches))
        return PublishColumns(rows, self._offsets, tuple(self._places), self.left_out)

    # Frames

    def _encode_plain(self, epoch: str, run: RecordRun, rows: Sequence[int]) -> list[bytes] | None:
        """Rows without properties, all of the same QoS and RETAIN; None otherwise."""
        data = run.data
        starts, payload_starts, ends, topics = run.columns(rows)
        first_bytes = bytes(map(data.__getitem__, starts))
        if not first_bytes or first_bytes.count(first_bytes[0]) != len(first_bytes):
            return None
        published = first_bytes[0]
        encoded = [topic.framed or topic.frame() for topic in topics]
        if run.is_v5:
            fixed = 1 + (2 if published & 0x06 else 0)
            sizes = [payload_start - start for payload_start, start in zip(payload_starts, starts, strict=True)]
            plain = [
                len(topic) + fixed + fixed_header_bytes(end - start)
                for topic, start, end in zip(encoded, starts, ends, strict=True)
            ]
            if sizes != plain:
                return None
        first_byte = self._first_byte(published)
        if not run.is_v5 and not self._form.is_v5 and first_byte == published:
            return [data[start:end] for start, end in zip(starts, ends, strict=True)]
        payloads = [data[start:end] for start, end in zip(payload_starts, ends, strict=True)]
        heads = _heads_by_first_byte[first_byte]
        packet_id = _ID if first_byte & 0x06 else b""
        join = b"".join
        if not self._form.is_v5:
            more = len(packet_id)
            return [
                join((heads[len(topic) + more + len(payload)], topic, packet_id, payload))
                for topic, payload in zip(encoded, payloads, strict=True)
            ]
        offsets = [b"%d" % (run.base_offset + row) for row in rows]
        digits = len(offsets[0])
        if len(offsets[-1]) != digits:
            return None
        before, after = self._fields(epoch, run)
        length = len(before) + 2 + digits + len(after)
        before = packet_id + encode_variable_byte_integer(length) + before + digits.to_bytes(2)
        more = len(before) + digits + len(after)
        return [
            join((heads[len(topic) + more + len(payload)], topic, before, offset, after, payload))
            for topic, offset, payload in zip(encoded, offsets, payloads, strict=True)
        ]

    def _encode_one(self, epoch: str, run: RecordRun, row: int) -> bytes:
        """The frame of any one row."""
        data = run.data
        frame_start, payload_start = run.frame_start(row), run.payload_starts[row]
        first_byte = self._first_byte(data[frame_start])
        packet_id = _ID if first_byte & 0x06 else b""
        properties = b""
        if self._form.is_v5:
            before, after = self._fields(epoch, run)
            fields = before + encode_string(str(run.base_offset + row)) + after
            if run.is_v5:
                fields = self._published(run, frame_start, payload_start) + fields
            properties = encode_variable_byte_integer(len(fields)) + fields
        topic = run.topics[row].framed or run.topics[row].frame()
        payload = data[payload_start : run.ends[row]]
        length = len(topic) + len(packet_id) + len(properties) + len(payload)
        if length > REMAINING_LENGTH_MAX:
            return b""
        return b"".join((encode_publish_head(first_byte, length), topic, packet_id, properties, payload))

    def _first_byte(self, published: int) -> int:
        """The lower QoS; RETAIN only as published, and only where that is wanted. [MQTT-3.3.1-12] [MQTT-3.8.4-8]"""
        qos = min(published >> 1 & 3, self._form.qos)
        return 0x30 | qos << 1 | (published & 1 if self._form.retain_as_published else 0)

    def _fields(self, epoch: str, run: RecordRun) -> tuple[bytes, bytes]:
        """What is added to the properties, before and behind the offset and its length."""
        key = (epoch, run.partition)
        before = self._fields_by_place.get(key)
        if before is None:
            identifier = self._form.subscription_identifier
            before = self._fields_by_place[key] = b"".join(
                (
                    b"\x0b" + encode_variable_byte_integer(identifier) if identifier else b"",
                    user_property("stream", self._stream),
                    user_property("epoch", epoch),
                    user_property("partition", str(max(0, run.partition))),
                    b"\x26" + encode_string("offset"),
                )
            )
        return before, user_property("time", rfc3339(run.received_at_ms))

    def _published(self, run: RecordRun, frame_start: int, payload_start: int) -> bytes:
        """The publisher's properties without their length.

        A message expiry interval says what is left of it, 0 when it is over: a replay shows what was. [MQTT-3.3.2-6]
        """
        start = properties_start(run.data, frame_start)
        while run.data[start] & 0x80:
            start += 1
        encoded = run.data[start + 1 : payload_start]
        if _EXPIRY not in encoded:
            return encoded
        properties: Properties | None
        properties, _ = decode_properties(run.data, properties_start(run.data, frame_start), PUBLISH)
        if properties is None or properties.message_expiry_interval is None:
            return encoded
        waited_s = max(0, self._now_ms - run.received_at_ms) // 1000
        properties.message_expiry_interval = max(0, properties.message_expiry_interval - waited_s)
        with_length = encode_properties(properties, PUBLISH)
        start = 0
        while with_length[start] & 0x80:
            start += 1
        return with_length[start + 1 :]


def fixed_header_bytes(frame_bytes: int) -> int:
    """Bytes of the fixed header of a frame that has so many in all (MQTT 5 §2.1.4)."""
    if frame_bytes < 0x80 + 2:
        return 2
    if frame_bytes < 0x4000 + 3:
        return 3
    return 4 if frame_bytes < 0x200000 + 4 else 5
