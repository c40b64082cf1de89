"""Rows against an oracle that knows only `json.loads`, `csv` and the field list."""

from __future__ import annotations

import base64
import csv
import io
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.encoding import CSV_HEAD, decimals, encode_payload, encode_rows, encode_snapshot, rfc3339
from bridge.records import RecordRun, Topic

KEYS = [
    "topic",
    "payload",
    "encoding",
    "qos",
    "retain",
    "time",
    "id",
    "client_id",
    "stream",
    "epoch",
    "partition",
    "offset",
]


def string(value: bytes) -> bytes:
    return len(value).to_bytes(2) + value


def make_run(
    rows: list[tuple[str, bytes]],
    *,
    flags: list[int] | None = None,
    properties: list[bytes] | None = None,
    start: int = 3,
) -> RecordRun:
    """Frames as a device would send them, behind `start` bytes that belong to nobody."""
    data = bytearray(b"\x0a" * start)
    payload_starts, ends = [], []
    for index, (topic, payload) in enumerate(rows):
        flag = flags[index] if flags else 2
        block = b"" if properties is None else bytes([len(properties[index])]) + properties[index]
        variable = string(topic.encode()) + (b"\x0a\x0d" if flag & 6 else b"") + block
        remaining = len(variable) + len(payload)
        data.append(0x30 | flag)
        while remaining > 127:
            data.append(remaining & 0x7F | 0x80)
            remaining >>= 7
        data.append(remaining)
        data += variable
        payload_starts.append(len(data))
        data += payload
        ends.append(len(data))
    topics = {name: Topic(name) for name, _ in rows}
    return RecordRun(
        bytes(data),
        start,
        [topics[name] for name, _ in rows],
        payload_starts,
        ends,
        base_offset=99,
        first_number=88120,
        node_run="n7",
        received_at_ms=1795374000123,
        client_id='p"1é',
        is_v5=properties is not None,
    )


def parse_events(data: bytes) -> list[dict[str, Any]]:
    events = []
    for block in data.decode().split("\n\n")[:-1]:
        lines = block.split("\n")
        assert [line.split(": ", 1)[0] for line in lines] == ["event", "id", "data"]
        values = [line.split(": ", 1)[1] for line in lines]
        events.append({"event": values[0], "cursor": values[1]} | json.loads(values[2]))
    return events


def is_strict_json(payload: bytes) -> bool:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        text = payload.decode()
        value = json.loads(text, parse_constant=refuse)
        json.dumps(value, allow_nan=False)  # 1e999 is no number that a reader could hold
        json.dumps(value, ensure_ascii=False).encode()  # nor is half a surrogate pair a character
    except (ValueError, RecursionError):
        return False
    return True


def check_payload(row: dict[str, Any], payload: bytes) -> None:
    if row["encoding"] == "base64":
        assert base64.b64decode(row["payload"], validate=True) == payload
        with pytest.raises(UnicodeDecodeError):
            payload.decode()
    elif row["encoding"] == "text":
        assert row["payload"] == payload.decode()
        assert not is_strict_json(payload)
    else:
        assert row["payload"] == json.loads(payload)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
payloads = (
    st.binary(max_size=60)
    | st.text(max_size=30).map(str.encode)
    | json_values.map(lambda value: json.dumps(value, indent=1).encode())
    | json_values.map(lambda value: json.dumps(value).encode())
)
TOPICS = ["a/b", 'q"uote\\', "ü/长", "a" * 200]


@given(st.lists(st.tuples(st.sampled_from(TOPICS), payloads), min_size=1, max_size=8), st.data())
@example([("a", b"[1,\r\n2]"), ("a", b"3")], None)
@example([("a", b""), ("a", b"NaN"), ("a", b"1e999"), ("a", b'"\\ud800"')], None)
def test_any_payload_comes_back_from_every_encoding(rows: list[tuple[str, bytes]], data: st.DataObject | None) -> None:
    flags = None
    chosen = None
    if data is not None:
        flags = data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 5]), min_size=len(rows), max_size=len(rows)))
        if data.draw(st.booleans()):
            flags = None
        chosen = data.draw(st.none() | st.lists(st.sampled_from(range(len(rows))), unique=True))
    run = make_run(rows, flags=flags)
    expected_rows = list(range(len(rows))) if chosen is None else chosen

    events = parse_events(b"".join(encode_rows("event", "s", "k3", run, chosen, "s~k3~0.", "~~t~e~0.5")))
    lines = [json.loads(line) for line in encode_rows("poll", "s", "k3", run, chosen, "s~k3~0.", "~~t~e~0.5")]
    objects = [json.loads(line) for line in encode_rows("json", "s", "k3", run, chosen)]
    table = list(csv.reader(io.StringIO(b"".join(encode_rows("csv", "s", "k3", run, chosen)).decode(), newline="")))

    assert events == lines
    assert [{key: event[key] for key in KEYS} for event in events] == objects
    assert len(objects) == len(table) == len(expected_rows)
    for row, event, found, cells in zip(expected_rows, events, objects, table, strict=True):
        topic, payload = rows[row]
        flag = flags[row] if flags else 2
        assert list(found) == KEYS
        check_payload(found, payload)
        assert event["cursor"] == f"s~k3~0.{100 + row}~~t~e~0.5"
        assert {key: found[key] for key in KEYS if key not in ("payload", "encoding")} == {
            "topic": topic,
            "qos": flag >> 1,
            "retain": bool(flag & 1),
            "time": "2026-11-22T19:00:00.123Z",
            "id": f"n7-{88120 + row}",
            "client_id": 'p"1é',
            "stream": "s",
            "epoch": "k3",
            "partition": 0,
            "offset": 99 + row,
        }
        text = base64.b64encode(payload).decode() if found["encoding"] == "base64" else payload.decode()
        assert dict(zip(CSV_HEAD.decode().strip().split(","), cells, strict=True)) == {
            key: str(value) for key, value in found.items() if key not in ("payload", "retain", "id")
        } | {"payload": text, "retain": "true" if flag & 1 else "false", "properties": ""}


@pytest.mark.parametrize(
    ("payload", "line", "encoding"),
    [
        (b"", b'""', "text"),
        (b"12345678901234567890123", b"12345678901234567890123", "json"),
        (b"9007199254740993", b"9007199254740993", "json"),
        (b' {"a":\r\n1.50}\n', b' {"a":  1.50} ', "json"),
        (b"NaN", b'"NaN"', "text"),
        (b"\xff\x00", b'"/wA="', "base64"),
        (b'"\xff"', b'"Iv8i"', "base64"),
        (b"a\nb\r", b'"a\\nb\\r"', "text"),
        (b"\x00", b'"\\u0000"', "text"),
        (b"[" * 5000 + b"]" * 5000, b'"' + b"[" * 5000 + b"]" * 5000 + b'"', "text"),
        (b"[" * 1000 + b"]" * 1000, b"[" * 1000 + b"]" * 1000, "json"),
    ],
    ids=[
        "empty",
        "many digits",
        "beyond 2^53",
        "line breaks",
        "NaN",
        "binary",
        "bad UTF-8",
        "text",
        "NUL",
        "deep",
        "nested",
    ],
)
def test_payload_kinds(payload: bytes, line: bytes, encoding: str) -> None:
    assert encode_payload(payload) == (line, encoding)


def test_properties_are_told_in_order_and_only_when_there_are_any() -> None:
    block = b"".join(
        [
            b"\x01\x01",
            b"\x02\x00\x00\x00\x3c",
            b"\x03" + string(b"application/json"),
            b"\x08" + string(b"reply/1"),
            b"\x09" + string(b"\x00\xff"),
            b"\x26" + string(b"b") + string(b"1"),
            b"\x26" + string(b"a") + string(b"2"),
            b"\x26" + string(b"b") + string(b"3"),
        ]
    )
    run = make_run([("t", b"1"), ("t", b"2")], properties=[block, b""])
    first, second = (json.loads(line) for line in encode_rows("json", "s", "e", run))
    assert first["properties"] == {
        "payload_format_indicator": 1,
        "message_expiry_interval": 60,
        "content_type": "application/json",
        "response_topic": "reply/1",
        "correlation_data": "AP8=",
        "user_properties": [["b", "1"], ["a", "2"], ["b", "3"]],
    }
    assert list(first) == [*KEYS, "properties"]
    assert "properties" not in second
    cells = next(csv.reader(io.StringIO(encode_rows("csv", "s", "e", run)[0].decode(), newline="")))
    assert json.loads(cells[-1]) == first["properties"]


def test_rows_without_properties_take_the_short_way() -> None:
    run = make_run([("t", b"1"), ("t", b"2")], properties=[b"", b""])
    assert [json.loads(line)["payload"] for line in encode_rows("json", "s", "e", run)] == [1, 2]


def test_snapshot_event_has_no_id() -> None:
    run = make_run([("t", b"1"), ("t", b"2")])
    text = encode_snapshot("s", "e", run, 1).decode()
    assert text.startswith('event: snapshot\ndata: {"topic":"t","payload":2,')
    assert text.endswith('"offset":100}\n\n')


def test_times_have_milliseconds_and_a_zone() -> None:
    assert rfc3339(1795374000007) == "2026-11-22T19:00:00.007Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"


@pytest.mark.parametrize(("first", "count"), [(0, 5), (0, 0), (998, 5), (1_000, 1), (1_998, 1_005), (123_456, 2_100)])
def test_decimals_are_what_formatting_each_gives(first: int, count: int) -> None:
    assert decimals(first, count) == [b"%d" % number for number in range(first, first + count)]
