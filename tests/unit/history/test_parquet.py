"""Columns and Parquet files hold what the JSON of the same records says."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.encoding import CSV_HEAD, rfc3339
from bridge.history.columns import Columns, ColumnsCollector
from bridge.history.parquet import ParquetFile
from bridge.history.scan import Scan
from bridge.records import RecordRun
from bridge.streams.collect import TopicChoice
from tests.support.log_contract import numbers
from tests.unit.history.parts import stored_stream

PAYLOADS = [b'{"a":1}', b"2.5", b"text", b"\xff\x00", b"", b'"\xc3\xa9"', b"NaN", b"true"]
PROPERTIES = [None, b"", b"\x03\x00\x04text", b"\x26\x00\x01k\x00\x01v"]
runs = st.lists(
    st.tuples(
        st.lists(st.sampled_from(PAYLOADS), min_size=1, max_size=5),
        st.sampled_from(PROPERTIES),
        st.sampled_from([0, 1]),
        st.sampled_from(["p1", "päö"]),
    ),
    max_size=12,
)
Runs = list[tuple[list[bytes], bytes | None, int, str]]


def read(file: bytes) -> Any:
    return pyarrow.parquet.ParquetFile(io.BytesIO(file))


def expected(row: dict[str, Any]) -> dict[str, Any]:
    """A record's JSON as the row of the file."""
    payload = row["payload"]
    if row["encoding"] == "base64":
        payload = base64.b64decode(payload)
    elif row["encoding"] == "text":
        payload = payload.encode()
    return {
        "time": row["time"],
        "topic": row["topic"],
        "payload": payload,
        "encoding": row["encoding"],
        "qos": row["qos"],
        "retain": row["retain"],
        "client_id": row["client_id"],
        "stream": row["stream"],
        "epoch": row["epoch"],
        "partition": row["partition"],
        "offset": row["offset"],
        "properties": row.get("properties"),
    }


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the file, with what is JSON in it parsed."""
    return row | {
        "time": rfc3339(round(row["time"].timestamp() * 1000)),
        "payload": orjson.loads(row["payload"]) if row["encoding"] == "json" else row["payload"],
        "properties": orjson.loads(row["properties"]) if row["properties"] is not None else None,
    }


@settings(deadline=None, max_examples=50)
@given(runs, st.sampled_from(["asc", "desc"]), st.integers(1, 20))
def test_file_has_what_the_json_says(drawn: Runs, order: Any, piece: int) -> None:
    with stored_stream() as stream:
        for number, (payloads, properties, qos, client_id) in enumerate(drawn):
            run = stream.maker.run(
                payloads, time_ms=1_795_000_000_123 + number, properties=properties, qos=qos, client_id=client_id
            )
            stream.store(run)
        count = len(stream.sent)
        file = ParquetFile()
        data = b""
        start, end = 0, count
        while start < end:
            what = Scan("telemetry", stream.EPOCH, (), start, end, "columns", order=order, records_max=piece)
            found = stream.ask(what)
            assert found.count == len(Columns.from_bytes(found.data)) <= piece
            data += file.add(Columns.from_bytes(found.data))
            start, end = (found.next_offset, end) if order == "asc" else (start, found.next_offset)
        data += file.finish()
        what = Scan("telemetry", stream.EPOCH, (), 0, count, "json", order=order, records_max=1_000)
        lines = stream.ask(what).data.splitlines()
    assert [shown(row) for row in read(data).read().to_pylist()] == [expected(orjson.loads(line)) for line in lines]


def run_of(payloads: Sequence[bytes], null_rows: frozenset[int] = frozenset()) -> RecordRun:
    with stored_stream() as stream:
        made = stream.maker.run(payloads, topics=["a"])
        topics = [route.sink_topic for route in made.routes]
    return RecordRun(
        made.data, made.start, topics, made.payload_starts, made.ends,  # type: ignore[arg-type]
        base_offset=7, first_number=1, node_run="n1", received_at_ms=5, client_id="p", is_v5=False, null_rows=null_rows,
    )  # fmt: skip


def columns_of(run: RecordRun) -> Columns:
    request = Scan("telemetry", "e", (), 0, 100, "columns")
    collector = ColumnsCollector(request, (0, 100), 7, 100, TopicChoice(()))
    collector.add(run)
    return Columns.from_bytes(collector.result().data)


def test_record_without_a_value_has_none_in_the_file() -> None:
    file = ParquetFile()
    data = file.add(columns_of(run_of([b"1", b"", b""], frozenset({1})))) + file.finish()
    rows = read(data).read().to_pylist()
    assert [(row["payload"], row["encoding"]) for row in rows] == [(b"1", "json"), (None, "null"), (b"", "text")]


def test_file_is_written_in_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.history.parquet.ROW_GROUP_RECORDS", 10)
    file = ParquetFile()
    pieces = [
        file.add(columns_of(run_of([b"%d" % number for number in range(first, first + 4)])))
        for first in range(0, 40, 4)
    ]
    sizes = [bool(piece) for piece in pieces]
    assert sizes[:4] == [True, False, True, False]  # the file's first bytes, then a group with the third
    whole = read(b"".join(pieces) + file.finish())
    assert [whole.metadata.row_group(index).num_rows for index in range(whole.num_row_groups)] == [12, 12, 12, 4]
    assert whole.read().column("payload").to_pylist() == numbers(40)


def test_file_without_records_is_one() -> None:
    file = ParquetFile()
    whole = read(file.add(Columns("s")) + file.finish())
    assert whole.read().num_rows == 0
    assert ",".join(whole.schema_arrow.names) == CSV_HEAD.decode().strip()
