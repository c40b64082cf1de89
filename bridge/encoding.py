"""Records to the outside's text: SSE events, JSON lines and CSV rows, for live readers and for scans alike.

A row of a run costs one `orjson.loads` (the payload is JSON or it is not) and one join: what does not change from row
to row is made once a topic (`Topic.json_head`) or once a run. The result never holds a CR or LF but its own.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections import deque
from itertools import repeat
from operator import gt
from struct import Struct
from typing import TYPE_CHECKING, Any

import orjson

from bridge.streams.frames import encode_record
from broker.codec.constants import PUBLISH
from broker.codec.properties import decode_properties

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bridge.history.scan import Encoding
    from bridge.records import RecordRun, Topic

CSV_HEAD = b"time,topic,payload,encoding,qos,retain,client_id,stream,epoch,partition,offset,properties\r\n"

_LF, _CR, _QUOTE, _COMMA = b'\n\r",'  # as numbers: `in` with bytes costs 150 ns
_LINE_BREAKS_TO_SPACES = bytes.maketrans(b"\r\n", b"  ")
_JSON_STARTS = frozenset(bytes([byte]) for byte in b'{["-0123456789tfn \t\r\n')
_PROPERTY_NAMES = (
    "content_type",
    "response_topic",
    "correlation_data",
    "message_expiry_interval",
    "payload_format_indicator",
)
_seconds_text: dict[int, str] = {}  # a few recent seconds; emptied when it has 1,000


def rfc3339_or_none(time_ms: int | None) -> str | None:
    """`rfc3339` of a time that may not be known."""
    return rfc3339(time_ms) if time_ms is not None else None


def rfc3339(time_ms: int) -> str:
    """`2026-11-22T19:00:00.123Z` for epoch milliseconds."""
    second, milliseconds = divmod(time_ms, 1000)
    text = _seconds_text.get(second)
    if text is None:
        if len(_seconds_text) >= 1000:
            _seconds_text.clear()
        text = _seconds_text[second] = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return f"{text}.{milliseconds:03d}Z"


def encode_rows(
    encoding: Encoding,
    stream: str,
    epoch: str,
    run: RecordRun,
    rows: Sequence[int] | None = None,
    cursor_head: str = "",
    cursor_tail: str = "",
) -> list[bytes]:
    """Each of `rows` of `run` (all when None, in the order given) in `encoding`, whole, with its end of line.

    For `event` and `poll` the cursor of a row is `cursor_head` + (offset + 1) + `cursor_tail`.
    """
    if encoding == "stored":
        return [_encode_stored(run, row) for row in (range(len(run)) if rows is None else rows)]
    if encoding == "csv":
        return _encode_csv(stream, epoch, run, range(len(run)) if rows is None else rows)
    if encoding == "json":
        head, middle, end = b"", b"", b"}\n"
    elif encoding == "event":
        head, middle, end = b"event: message\nid: " + cursor_head.encode(), cursor_tail.encode() + b"\ndata: ", b"}\n\n"
    else:
        head = b'{"event":"message","cursor":"' + cursor_head.encode()
        middle, end = cursor_tail.encode() + b'",', b"}\n"
    tails = _Tails(stream, epoch, run)
    if len(run) > 1 and not run.null_rows:
        encoded = _encode_plain(encoding, run, rows, head, middle, end, tails)
        if encoded is not None:
            return encoded
    out = []
    for row in range(len(run)) if rows is None else rows:
        offset = run.base_offset + row
        position = b"" if encoding == "json" else b"%b%d%b" % (head, offset + 1, middle)
        out.append(position + _encode_one(run, row, tails, from_brace=encoding != "poll") + end)
    return out


def encode_snapshot(stream: str, epoch: str, run: RecordRun, row: int) -> bytes:
    """The SSE `snapshot` event of one record: `message` without an `id:`, for it moves no reader."""
    return b"event: snapshot\ndata: %b}\n\n" % _encode_one(run, row, _Tails(stream, epoch, run), from_brace=True)


_THREE_DIGITS = [b"%03d" % number for number in range(1_000)]


def decimals(first: int, count: int) -> list[bytes]:
    """`first` and the numbers that follow it as decimal text; formatting each would take three times as long."""
    texts: list[bytes] = []
    number, end = first, first + count
    while number < end:
        thousands, rest = divmod(number, 1_000)
        if thousands == 0:
            texts.append(b"%d" % number)
            number += 1
            continue
        head = b"%d" % thousands
        stop = min(1_000, rest + end - number)
        texts += [head + digits for digits in _THREE_DIGITS[rest:stop]]
        number += stop - rest
    return texts


# hot path: tests/bench/encode_events.py
def _encode_plain(
    encoding: Encoding,
    run: RecordRun,
    rows: Sequence[int] | None,
    head: bytes,
    middle: bytes,
    end: bytes,
    tails: _Tails,
) -> list[bytes] | None:
    """Rows that all have JSON payloads of one line, no properties, and the same QoS and RETAIN; None otherwise."""
    data = run.data
    if rows is None:
        rows = range(len(run.ends))
    frame_starts, payload_starts, ends, topics = run.columns(rows)
    if isinstance(rows, range) and rows.step == 1:
        low, high = rows.start, rows.stop
        if run.numbers is None:
            numbers = decimals(run.first_number + low, len(ends))
        else:
            numbers = [b"%d" % number for number in run.numbers[low:high]]
        next_offsets = decimals(run.base_offset + low, len(ends) + 1)
        offsets = next_offsets[:-1]
        del next_offsets[0]
    else:
        numbers = [b"%d" % run.number(row) for row in rows]
        offsets = [b"%d" % (run.base_offset + row) for row in rows]
        next_offsets = [b"%d" % (run.base_offset + row + 1) for row in rows]
    if not ends:
        return []
    first_bytes = bytes(map(data.__getitem__, frame_starts))
    if first_bytes.count(first_bytes[0]) != len(first_bytes):
        return None
    if run.is_v5 and any(map(_has_properties, [data] * len(ends), frame_starts, payload_starts)):
        return None
    payloads = [data[start:stop] for start, stop in zip(payload_starts, ends, strict=True)]
    if not _are_json(payloads):
        return None
    all_payloads = b"".join(payloads)  # one search in all of them
    if _LF in all_payloads or _CR in all_payloads:
        return None
    before_number, before_offset = tails.before_number("json", first_bytes[0]), tails.before_offset
    join = b"".join
    heads = [topic.json_head for topic in topics]
    columns = (payloads, repeat(before_number), numbers, repeat(before_offset), offsets, repeat(end))
    if encoding == "json":
        return list(map(join, zip(heads, *columns)))  # noqa: B905 -- what is repeated has no end
    if encoding == "poll":
        heads = [json_head[1:] for json_head in heads]
    return list(map(join, zip(repeat(head), next_offsets, repeat(middle), heads, *columns)))


def _encode_one(run: RecordRun, row: int, tails: _Tails, *, from_brace: bool) -> bytes:
    """The object of any one row, without its closing brace (and without the opening one unless `from_brace`)."""
    data = run.data
    frame_start, payload_start = run.frame_start(row), run.payload_starts[row]
    if row in run.null_rows:
        payload, encoding = b"null", "null"
    else:
        payload, encoding = encode_payload(data[payload_start : run.ends[row]])
    json_head = run.topics[row].json_head
    properties = json_properties(run, row)
    if properties:
        properties = b',"properties":' + properties
    return b"%b%b%b%d%b%d%b" % (
        json_head if from_brace else json_head[1:],
        payload,
        tails.before_number(encoding, data[frame_start]),
        run.number(row),
        tails.before_offset,
        run.base_offset + row,
        properties,
    )


def encode_payload(payload: bytes) -> tuple[bytes, str]:
    """A payload as one line of JSON, and its `encoding`: `json` (the value itself), `text` or `base64` (a string).

    JSON is strict here (RFC 8259: no NaN; nesting up to 1,024), and goes out byte for byte, so that numbers keep
    their digits; only line breaks, which it can hold nowhere but between its tokens, become spaces.
    """
    is_json = payload[:1] in _JSON_STARTS  # a look costs 50 ns, an exception 1,000
    if is_json:
        try:
            orjson.loads(payload)
        except orjson.JSONDecodeError:
            is_json = False
    if not is_json:
        try:
            return orjson.dumps(payload.decode()), "text"
        except UnicodeDecodeError:
            return b'"' + b64encode(payload) + b'"', "base64"
    if _LF in payload or _CR in payload:
        payload = payload.translate(_LINE_BREAKS_TO_SPACES)
    return payload, "json"


def payload_encoding(payload: bytes) -> str:
    """The `encoding` of a payload, without its text; see `encode_payload`."""
    if payload[:1] in _JSON_STARTS:
        try:
            orjson.loads(payload)
        except orjson.JSONDecodeError:
            pass  # it is text, or bytes
        else:
            return "json"
    try:
        payload.decode()
    except UnicodeDecodeError:
        return "base64"
    return "text"


_FLAGS = {
    (encoding, first_byte): b',"encoding":"%b","qos":%d,"retain":%b'
    % (encoding.encode(), first_byte >> 1 & 3, b"true" if first_byte & 1 else b"false")
    for encoding in ("json", "text", "base64", "null")
    for first_byte in range(0x30, 0x40)
}
_PLACES_MAX = 10_000
_place_by_client: dict[tuple[str, str, str, int], bytes] = {}  # emptied when it has _PLACES_MAX


class _Tails:
    """What stands behind the payload, as far as it is the same for all rows of a run."""

    __slots__ = ("_by_kind", "_number_head", "before_offset")

    def __init__(self, stream: str, epoch: str, run: RecordRun) -> None:
        self._number_head = f',"time":"{rfc3339(run.received_at_ms)}","id":"{run.node_run}-'.encode()
        key = (run.client_id, stream, epoch, run.partition)
        place = _place_by_client.get(key)
        if place is None:
            if len(_place_by_client) >= _PLACES_MAX:
                _place_by_client.clear()
            place = _place_by_client[key] = b'","client_id":%b,"stream":%b,"epoch":%b,"partition":%d,"offset":' % (
                orjson.dumps(run.client_id),
                orjson.dumps(stream),
                orjson.dumps(epoch),
                max(0, run.partition),
            )
        self.before_offset = place
        self._by_kind: dict[tuple[str, int], bytes] = {}

    def before_number(self, encoding: str, first_byte: int) -> bytes:
        """From behind a payload to the number in `id`, for a frame that begins with `first_byte`."""
        kind = (encoding, first_byte)
        tail = self._by_kind.get(kind)
        if tail is None:
            tail = self._by_kind[kind] = _FLAGS[kind] + self._number_head
        return tail


def properties_start(data: bytes, frame_start: int) -> int:
    """Where the property length of a PUBLISH frame stands. Source: MQTT 5 §3.3.2."""
    position = frame_start + 1
    while data[position] & 0x80:
        position += 1
    position += 1
    position += 2 + (data[position] << 8 | data[position + 1])
    return position + 2 if data[frame_start] & 0x06 else position


def _has_properties(data: bytes, frame_start: int, payload_start: int) -> bool:
    return properties_start(data, frame_start) + 1 != payload_start


def json_properties(run: RecordRun, row: int) -> bytes:
    """What `read_properties` finds, as JSON; empty when there is nothing."""
    frame_start = run.frame_start(row)
    if not run.is_v5 or not _has_properties(run.data, frame_start, run.payload_starts[row]):
        return b""
    found = read_properties(run.data, frame_start)
    return orjson.dumps(found) if found else b""


def read_properties(data: bytes, frame_start: int) -> dict[str, Any]:
    """The application's properties of a canonical MQTT 5 PUBLISH frame, as the outside names them.

    Source: MQTT 5 §3.3.2.3.
    """
    properties, _ = decode_properties(data, properties_start(data, frame_start), PUBLISH)
    if properties is None:
        return {}
    found = {name: getattr(properties, name) for name in _PROPERTY_NAMES if getattr(properties, name) is not None}
    if properties.correlation_data is not None:
        found["correlation_data"] = b64encode(properties.correlation_data).decode()
    if properties.user_properties:
        found["user_properties"] = properties.user_properties
    return found


_STORED_HEAD = Struct("<iQI")  # partition, offset, bytes of the segment


def _encode_stored(run: RecordRun, row: int) -> bytes:
    segment = encode_record(run, row)
    return _STORED_HEAD.pack(run.partition, run.base_offset + row, len(segment)) + segment


def decode_stored(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(partition, offset, segment with one frame) of each record of a scan in the `stored` encoding."""
    position = 0
    while position < len(data):
        partition, offset, size = _STORED_HEAD.unpack_from(data, position)
        position += _STORED_HEAD.size
        yield partition, offset, data[position : position + size]
        position += size


# hot path: exports
def _encode_csv(stream: str, epoch: str, run: RecordRun, rows: Sequence[int]) -> list[bytes]:
    data, topics, base = run.data, run.topics, run.base_offset
    before = rfc3339(run.received_at_ms).encode() + b","
    place = b",%b,%b,%b,%d," % (
        _csv_field(run.client_id.encode()),
        stream.encode(),
        epoch.encode(),
        max(0, run.partition),
    )
    frame_starts: Sequence[int] = [run.start, *run.ends[:-1]]
    payloads = [data[run.payload_starts[row] : run.ends[row]] for row in rows]
    is_all_json = not run.null_rows and _are_json(payloads)
    first_bytes = {data[frame_starts[row]] for row in rows}
    join = b"".join
    if is_all_json and len(first_bytes) == 1 and not run.is_v5:
        behind = _CSV_FLAGS["json", first_bytes.pop()] + place
        names = [topics[row].csv_field or _csv_topic(topics[row]) for row in rows]
        if isinstance(rows, range) and rows.step == 1:
            offsets = decimals(base + rows.start, len(rows))
        else:
            offsets = [b"%d" % (base + row) for row in rows]
        return _csv_lines(before, names, payloads, behind, offsets)
    out = []
    for row, payload in zip(rows, payloads, strict=True):
        if is_all_json:
            encoding = "json"
        elif row in run.null_rows:
            encoding = "null"
        else:
            encoding = payload_encoding(payload)
            if encoding == "base64":
                payload = b64encode(payload)
        flags = _CSV_FLAGS[encoding, data[frame_starts[row]]]
        offset = b"%d," % (base + row)
        properties = _csv_field(json_properties(run, row)) if run.is_v5 else b""
        topic_field = topics[row].csv_field or _csv_topic(topics[row])
        fields = (before, topic_field, b",", _csv_field(payload), flags, place, offset, properties)
        out.append(join(fields) + b"\r\n")
    return out


def _csv_lines(
    before: bytes, names: list[bytes], payloads: list[bytes], behind: bytes, offsets: list[bytes]
) -> list[bytes]:
    """Lines of records that differ in no more than these and have JSON payloads and no properties."""
    # The quotes of all are doubled in one go: no JSON text has a NUL.
    fields = b"\0".join(payloads).replace(b'"', b'""').split(b"\0")
    if all(map(gt, map(len, fields), map(len, payloads))):  # each has a quote, as objects have
        before_fields, behind = b',"', b'"' + behind
    else:
        before_fields = b","
        fields = [b'"' + field + b'"' if _QUOTE in field else _csv_field(field) for field in fields]
    ends = repeat(b",\r\n")
    return list(map(b"".join, zip(repeat(before), names, repeat(before_fields), fields, repeat(behind), offsets, ends)))


_CSV_FLAGS = {
    (encoding, first_byte): b",%b,%d,%b" % (encoding.encode(), first_byte >> 1 & 3, (b"false", b"true")[first_byte & 1])
    for encoding in ("json", "text", "base64", "null")
    for first_byte in range(0x30, 0x40)
}


def _csv_topic(topic: Topic) -> bytes:
    """Fill in `csv_field`, and return it."""
    topic.csv_field = _csv_field(topic.encoded)
    return topic.csv_field


def _are_json(payloads: Sequence[bytes]) -> bool:
    """All are JSON texts."""
    try:
        deque(map(orjson.loads, payloads), maxlen=0)
    except orjson.JSONDecodeError:
        return False
    return True


def _csv_field(value: bytes) -> bytes:
    """RFC 4180: quoted when it holds a comma, a quote, a line break, or begins or ends with a space."""
    if _QUOTE in value:
        return b'"' + value.replace(b'"', b'""') + b'"'
    if _COMMA in value or _LF in value or _CR in value or value[:1].isspace() or value[-1:].isspace():
        return b'"' + value + b'"'
    return value
