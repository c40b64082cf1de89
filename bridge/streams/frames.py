"""The stored form of records: the body of a row of the log.

A body is segments back to back. A segment is a small header, the client id and the raw PUBLISH frames of one run, so
storing costs nothing for a record and bodies can be joined without decoding them. Reading walks the frames once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from struct import Struct
from typing import TYPE_CHECKING

from bridge.records import RecordRun, Topic
from bridge.streams.log import StreamLogError

if TYPE_CHECKING:
    from broker.publish_run import PublishRun

FORMAT_VERSION = 1
"""First byte of each segment. A reader refuses what is newer than itself."""

IS_V5 = 0x01
NAMES_RUN = 0x02
"""The run's name is not a number of ours and follows the client id, behind a NUL, which no client id has."""
IS_NULL = 0x04
"""The record has no value (a tombstone of Kafka); its payload is empty. Only in segments of one record."""
_OWN_RUN = re.compile(r"n(0|[1-9][0-9]{0,9})")
_OWN_RUN_MAX = 2**32 - 1
_CLIENT_BYTES_MAX = 2**16 - 1
_TIME_MS_END = 253_402_300_800_000
"""Where RFC 3339 ends: the year 10000."""

# version, flags, time (epoch ms), node run, first number, count, bytes of frames, bytes of client id
_HEAD = Struct("<BBQIQIIH")
_HEAD_BYTES = _HEAD.size
_pack_head = _HEAD.pack


class StoredFormatError(StreamLogError):
    """A stored body cannot be read: it was written by a newer Headrace, or it is damaged."""


def encode_segment(run: PublishRun, node_run: int) -> tuple[bytes, bytes, bytes]:
    """The three parts of a run's segment; the caller joins the parts of many runs in one call.

    The frames are the run's own bytes where it fills its read, so nothing is copied before that join.
    """
    frames = run.frames()
    client_id = run.client_id.encode()
    head = _pack_head(
        FORMAT_VERSION,
        IS_V5 if run.is_v5 else 0,
        run.received_at_ms,
        node_run,
        run.first_number,
        len(run.ends),
        len(frames),
        len(client_id),
    )
    return head, client_id, frames


def encode_record(run: RecordRun, row: int) -> bytes:
    """A segment that holds one record of a run that was read back or is live."""
    return encode_range(run, row, row + 1)


def encode_range(run: RecordRun, row: int, end_row: int) -> bytes:
    """A segment of some rows of such a run, whose numbers follow one another."""
    frames = run.data[run.frame_start(row) : run.ends[end_row - 1]]
    flags = (IS_V5 if run.is_v5 else 0) | (IS_NULL if row in run.null_rows else 0)
    return encode_frames(frames, end_row - row, flags, run.client_id, run.node_run, run.number(row), run.received_at_ms)


def is_storable(client_id: str, node_run: str, time_ms: int) -> bool:
    """Whether `encode_frames` can hold these; of a record that somebody else has written they may be anything."""
    if not 0 <= time_ms < _TIME_MS_END or "\0" in client_id:
        return False
    behind = 0 if _own_run(node_run) is not None else 1 + len(node_run)
    return len(client_id.encode()) + behind <= _CLIENT_BYTES_MAX


def _own_run(node_run: str) -> int | None:
    """The number of a run of a node of this program."""
    match = _OWN_RUN.fullmatch(node_run)
    number = int(match[1]) if match is not None else -1
    return number if 0 <= number <= _OWN_RUN_MAX else None


def encode_frames(
    frames: bytes, count: int, flags: int, client_id: str, node_run: str, number: int, time_ms: int
) -> bytes:
    """A segment of `count` frames, the first of which has `number` in its `mqtt.id`; `flags`: `IS_V5`, `IS_NULL`."""
    client = client_id.encode()
    own_run = _own_run(node_run)
    if own_run is None:  # a Kafka record of another producer: the name of its run goes behind the client's
        client += b"\0" + node_run.encode()
        flags |= NAMES_RUN
        own_run = 0
    return (
        _pack_head(FORMAT_VERSION, flags, time_ms, own_run, number, count, len(frames), len(client)) + client + frames
    )


def segment_times(body: bytes) -> Iterator[tuple[int, int]]:
    """Time of receipt (epoch ms) and number of records of each segment, without looking at frames.

    Raises: StoredFormatError
    """
    position = 0
    while position < len(body):
        _, time_ms, _, _, count, frames_bytes, client_id_bytes = _read_head(body, position)
        yield time_ms, count
        position += _HEAD_BYTES + client_id_bytes + frames_bytes


def segment_time(body: bytes, position: int) -> int:
    """The time of the segment that stands at `position`. Raises: StoredFormatError"""
    return _read_head(body, position)[1]


# hot path: histograms and series, for the rows in which a bucket ends
def first_segment_at(body: bytes, time_ms: int, position: int = 0) -> tuple[int, int, int]:
    """From the segment at `position` on, the first whose time is at or after `time_ms`.

    Returns where it stands, and of those before it the number of records and the last time (0 when there is none).

    Raises: StoredFormatError
    """
    records = last_ms = 0
    size = len(body)
    while position < size:
        version, _, segment_ms, _, _, count, frames_bytes, client_id_bytes = _HEAD.unpack_from(body, position)
        if version != FORMAT_VERSION:
            _read_head(body, position)
        if segment_ms >= time_ms:
            break
        last_ms = segment_ms
        records += count
        position += _HEAD_BYTES + client_id_bytes + frames_bytes
    return position, records, last_ms


def decode_body(body: bytes, base_offset: int, topics: dict[bytes, Topic]) -> list[RecordRun]:
    """The runs of a body whose first record has `base_offset`.

    `topics` maps a topic as it stands in a frame (two bytes of length, then UTF-8) to its `Topic`. Names not in it
    are added; the caller owns the dictionary and bounds it.

    Raises: StoredFormatError
    """
    runs = []
    position = 0
    size = len(body)
    while position < size:
        flags, time_ms, node_run, first_number, count, frames_bytes, client_id_bytes = _read_head(body, position)
        client_id_start = position + _HEAD_BYTES
        start = client_id_start + client_id_bytes
        position = start + frames_bytes
        if position > size:
            raise StoredFormatError(f"a stored segment ends {position - size} bytes beyond its row")
        is_v5 = bool(flags & IS_V5)
        run_topics: list[Topic] = []
        payload_starts: list[int] = []
        ends: list[int] = []
        try:
            decode_frames(body, start, position, is_v5, topics, run_topics, payload_starts, ends)
        except IndexError as error:
            raise StoredFormatError("a stored frame ends beyond its row") from error
        if len(ends) != count or (ends and ends[-1] != position):
            raise StoredFormatError(f"a stored segment should hold {count} records and holds {len(ends)}")
        run = RecordRun(
            body,
            start,
            run_topics,
            payload_starts,
            ends,
            base_offset=base_offset,
            first_number=first_number,
            node_run=f"n{node_run}",
            received_at_ms=time_ms,
            client_id=body[client_id_start:start].decode(),
            is_v5=is_v5,
        )
        if flags & ~IS_V5:
            _read_rare_flags(run, flags)
        runs.append(run)
        base_offset += count
    return runs


def _read_rare_flags(run: RecordRun, flags: int) -> None:
    if flags & NAMES_RUN:
        run.client_id, _, run.node_run = run.client_id.partition("\0")
    if flags & IS_NULL:
        run.null_rows = frozenset(range(len(run)))


# hot path: tests/bench/sqlite_log.py
def decode_matching(
    body: bytes, base_offset: int, topics: dict[bytes, Topic], encoded_topics: tuple[bytes, ...]
) -> list[RecordRun]:
    """The records of a body with one of a few topics, each as a run of one row.

    Frames of other topics are only measured, and a segment without any of the topics is passed over by one search.
    `encoded_topics` are topics as they stand in a frame; `topics` is as in `decode_body`.

    Raises: StoredFormatError
    """
    runs: list[RecordRun] = []
    position = 0
    size = len(body)
    try:
        while position < size:
            flags, time_ms, node_run, first_number, count, frames_bytes, client_id_bytes = _read_head(body, position)
            client_id_start = position + _HEAD_BYTES
            start = client_id_start + client_id_bytes
            position = start + frames_bytes
            if position > size:
                raise StoredFormatError(f"a stored segment ends {position - size} bytes beyond its row")
            if any([body.find(encoded_topic, start, position) >= 0 for encoded_topic in encoded_topics]):
                for row, frame_start, frame_end in _matching_frames(body, start, position, encoded_topics):
                    columns: tuple[list[Topic], list[int], list[int]] = ([], [], [])
                    decode_frames(body, frame_start, frame_end, bool(flags & IS_V5), topics, *columns)
                    runs.append(
                        RecordRun(
                            body,
                            frame_start,
                            *columns,
                            base_offset=base_offset + row,
                            first_number=first_number + row if first_number else 0,
                            node_run=f"n{node_run}",
                            received_at_ms=time_ms,
                            client_id=body[client_id_start:start].decode(),
                            is_v5=bool(flags & IS_V5),
                        )
                    )
            base_offset += count
    except IndexError as error:
        raise StoredFormatError("a stored frame ends beyond its row") from error
    return runs


def _matching_frames(
    body: bytes, position: int, end: int, encoded_topics: tuple[bytes, ...]
) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each frame from `position` to `end` that has one of the topics."""
    row = 0
    while position < end:
        frame_start = position
        length = body[position + 1]
        position += 2
        if length > 127:
            length, position = _long_length(body, position - 1)
        is_match = body.startswith(encoded_topics, position)
        position += length
        if is_match:
            yield row, frame_start, position
        row += 1


def segment_places(body: bytes, place: int) -> tuple[int, int, int]:
    """Start and end of the segment that has the byte at `place`, and the number of records before it.

    Raises: StoredFormatError
    """
    start = records_before = 0
    while True:
        _, _, _, _, count, frames_bytes, client_id_bytes = _read_head(body, start)
        end = start + _HEAD_BYTES + client_id_bytes + frames_bytes
        if place < end:
            return start, end, records_before
        start = end
        records_before += count


def is_counted_by_search(body: bytes, encoded_topic: bytes, records: int) -> bool:
    """A topic's bytes are found in a body at its `records` frames, once in each, and nowhere else.

    They may stand in a payload too. But each of its frames has them, and they never overlap with themselves (only the
    first byte is 0, unless the topic has more than 255 bytes): where they are found as often as there are frames, each
    place is a frame's.
    """
    return not encoded_topic[0] and body.count(encoded_topic) == records


# hot path: a series of one topic
def payloads_of(body: bytes, encoded_topic: bytes, records: int, *, is_v5: bool) -> list[bytes] | None:
    """The payloads of the `records` frames in a body that have a topic; None when they cannot be told by search alone.

    See `is_counted_by_search`. `is_v5`: of all the frames of the body.
    """
    if encoded_topic[0]:
        return None
    payloads: list[bytes] = []
    topic_bytes = len(encoded_topic)
    find, add = body.find, payloads.append
    try:
        place = find(encoded_topic)
        while place >= 0:
            start = behind_topic = place + topic_bytes
            length, first_byte = body[place - 1], body[place - 2]
            if first_byte > 127:
                length, first_byte = _fixed_header_before(body, place)
            if first_byte & 0x06:
                start += 2  # the packet id of QoS 1 and 2
            if is_v5:
                properties_bytes = body[start]
                start += 1
                if properties_bytes > 127:
                    properties_bytes, start = _long_length(body, start - 1)
                start += properties_bytes
            end = place + length
            if end < start:
                return None
            add(body[start:end])
            place = find(encoded_topic, behind_topic)
    except (IndexError, StoredFormatError):
        return None  # it was found where no frame has its topic
    return payloads if len(payloads) == records else None


def _fixed_header_before(body: bytes, end: int) -> tuple[int, int]:
    """Remaining length and first byte of the PUBLISH whose fixed header, with a length of several bytes, ends there.

    All bytes of the length but its last have the high bit, and the first byte of a PUBLISH has not.

    Raises: StoredFormatError
    """
    length = body[end - 1]
    for place in range(end - 2, end - 5, -1):
        length = length << 7 | body[place] & 0x7F
        if body[place - 1] < 128:
            return length, body[place - 1]
    raise StoredFormatError("a stored frame has a length of more than four bytes")


def _read_head(body: bytes, position: int) -> tuple[int, int, int, int, int, int, int]:
    version = body[position]
    if version != FORMAT_VERSION:
        raise StoredFormatError(
            f"a record was written by a newer Headrace (record format {version}, this one reads {FORMAT_VERSION})"
            if version > FORMAT_VERSION
            else f"a record has the unknown record format {version}"
        )
    if position + _HEAD_BYTES > len(body):
        raise StoredFormatError("a stored segment ends within its header")
    head: tuple[int, int, int, int, int, int, int] = _HEAD.unpack_from(body, position)[1:]
    return head


# hot path: tests/bench/sqlite_log.py
def decode_frames(
    body: bytes,
    position: int,
    end: int,
    is_v5: bool,
    topics: dict[bytes, Topic],
    run_topics: list[Topic],
    payload_starts: list[int],
    ends: list[int],
) -> None:
    """Walk PUBLISH frames (MQTT 5 §3.3) from `position` to `end` into the three columns."""
    find_topic = topics.get
    add_topic = run_topics.append
    add_payload_start = payload_starts.append
    add_end = ends.append
    while position < end:
        first_byte = body[position]
        length = body[position + 1]
        position += 2
        if length > 127:
            more = body[position]
            if more < 128:  # two bytes hold what most frames need; a call would cost a third of all this
                length = length & 0x7F | more << 7
                position += 1
            else:
                length, position = _long_length(body, position - 1)
        payload_start = position + 2 + (body[position] << 8 | body[position + 1])
        encoded_topic = body[position:payload_start]
        topic = find_topic(encoded_topic)
        if topic is None:
            topic = topics[encoded_topic] = Topic(encoded_topic[2:].decode())
        if first_byte & 0x06:
            payload_start += 2  # the packet id of QoS 1 and 2
        if is_v5:
            properties_bytes = body[payload_start]
            payload_start += 1
            if properties_bytes > 127:
                properties_bytes, payload_start = _long_length(body, payload_start - 1)
            payload_start += properties_bytes
        position += length
        add_topic(topic)
        add_payload_start(payload_start)
        add_end(position)


def _long_length(body: bytes, position: int) -> tuple[int, int]:
    """A variable byte integer and where it ends (MQTT 5 §1.5.5)."""
    value = shift = 0
    for _ in range(4):
        byte = body[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise StoredFormatError("a stored frame has a length of more than four bytes")
