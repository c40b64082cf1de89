"""Runs become batches and runs again, whichever way the batches are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from bridge.encoding import read_properties
from bridge.records import RecordRun, Topic
from bridge.streams.frames import decode_body, encode_record
from bridge.streams.kafka import plain_records
from bridge.streams.kafka.batches import COMPRESS, HEAD
from bridge.streams.kafka.fetched import Batch, OlderBatch, batches_of
from bridge.streams.kafka.records import Decoder
from broker.publish_run import PublishRun
from tests.support.log_contract import RunMaker
from tests.unit.streams.kafka.parts import Part, a_case, built, part, runs

FAR = 1 << 62
Row = tuple[int, int, str, str, str, str, int, bytes, dict[str, Any]]


def row_of(
    run: PublishRun | RecordRun, row: int, topic: str, offset: int, identity: str, payload: bytes | None
) -> Row | tuple[Any, ...]:
    frame_start = run.frame_start(row)
    found = read_properties(run.data, frame_start) if run.is_v5 else {}
    return (offset, run.received_at_ms, run.client_id, topic, identity, run.data[frame_start] & 7, payload, found)


def rows_of(found: Sequence[RecordRun]) -> list[tuple[Any, ...]]:
    """Each record that was read: place, time, client, topic, id, QoS and RETAIN, payload, properties."""
    rows = []
    for run in found:
        for row in range(len(run)):
            is_null = row in run.null_rows
            payload = None if is_null else run.data[run.payload_starts[row] : run.ends[row]]
            identity = f"{run.node_run}-{run.number(row)}"
            rows.append(row_of(run, row, run.topics[row].name, run.base_offset + row, identity, payload))
    return rows


def rows_sent(parts: Sequence[Part]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for each in parts:
        run = each.run
        assert isinstance(run, PublishRun)
        for row in each.rows:
            payload = run.data[run.payload_starts[row] : run.ends[row]]
            identity = f"{each.node_run}-{run.first_number + row}"
            rows.append(row_of(run, row, each.topics[row].name, len(rows), identity, payload))
    return rows


def the_batch(data: bytes) -> Batch:
    (batch,) = batches_of(data)
    return batch


def shape_of(run: RecordRun) -> tuple[Any, ...]:
    """Everything of a run."""
    return tuple(getattr(run, name) for name in dir(run) if name[0] != "_" and not callable(getattr(run, name)))


def a_decoder() -> Decoder:
    topics: dict[str, Topic] = {}
    return Decoder("iot", None, lambda name: topics.setdefault(name, Topic(name)))


def read_both_ways(data: bytes) -> tuple[list[RecordRun] | None, list[RecordRun]]:
    """Of one batch: by the shape of plain records, None when it has another; and header by header."""
    decoder = a_decoder()
    return decoder._plain.runs(the_batch(data), 3), decoder.any_runs(the_batch(data), 3, 0, FAR)


@given(st.lists(runs, min_size=1, max_size=5))
def test_what_was_sent_comes_back(cases: list[dict[str, Any]]) -> None:
    maker = RunMaker()
    parts = [part(maker, case) for case in cases]
    data, _ = built(parts)
    assert rows_of(a_decoder().runs(the_batch(data), 3, 0, FAR)) == rows_sent(parts)


@given(st.lists(runs, min_size=1, max_size=5), st.integers(0, 4))
def test_both_ways_of_reading_make_the_same_runs(cases: list[dict[str, Any]], compression: int) -> None:
    maker = RunMaker()
    data, _ = built([part(maker, case) for case in cases], compression)
    plainly, by_header = read_both_ways(data)
    times = [case["time_ms"] for case in cases]
    is_plain = all(not case["properties"] and 9_000 not in case["payloads"] for case in cases)
    assert (plainly is not None) == (is_plain and min(times) == times[0])
    if plainly is not None:
        assert [shape_of(run) for run in plainly] == [shape_of(run) for run in by_header]


@given(st.lists(runs.map(lambda case: {**case, "properties": None}), min_size=1, max_size=3), st.data())
def test_a_damaged_batch_is_never_read_in_two_ways(cases: list[dict[str, Any]], data: st.DataObject) -> None:
    maker = RunMaker()
    damaged = bytearray(built([part(maker, case) for case in cases])[0])
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(HEAD.size, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    decoder = a_decoder()
    plainly = decoder._plain.runs(the_batch(bytes(damaged)), 3)
    if plainly is not None:
        by_header = decoder.any_runs(the_batch(bytes(damaged)), 3, 0, FAR)
        assert [shape_of(run) for run in plainly] == [shape_of(run) for run in by_header]


@pytest.mark.parametrize("at", [HEAD.size, HEAD.size + 2], ids=["negative length", "attributes"])
def test_a_record_of_a_form_that_nobody_writes_is_not_plain(at: int) -> None:
    """What reads all forms says that it is damaged."""
    data, _ = built([part(RunMaker(), a_case())])
    assert a_decoder()._plain.runs(the_batch(data), 0) is not None
    damaged = bytearray(data)
    damaged[at] ^= 1
    assert a_decoder()._plain.runs(the_batch(bytes(damaged)), 0) is None


def test_a_batch_that_ends_within_a_record_is_damaged() -> None:
    data, _ = built([part(RunMaker(), a_case())])
    cut = bytearray(data[:-10])
    cut[8:12] = (len(cut) - 12).to_bytes(4, "big")
    with pytest.raises(CorruptRecordException):
        a_decoder().runs(the_batch(bytes(cut)), 0, 0, FAR)


def test_batches_are_found_one_after_the_other_and_a_cut_one_is_left() -> None:
    maker = RunMaker()
    first, second = (built([part(maker, a_case())])[0] for _ in range(2))
    assert [batch.next_offset for batch in batches_of(first + second + second[:50])] == [3, 3]
    assert list(batches_of(b"")) == []
    assert list(batches_of(first[:11])) == []


def test_a_part_of_a_batch_is_read() -> None:
    parts = [part(RunMaker(), a_case())]
    data, _ = built(parts)
    assert rows_of(a_decoder().runs(the_batch(data), 3, 1, 2)) == rows_sent(parts)[1:2]


def test_times_that_the_broker_has_set_are_taken() -> None:
    maker = RunMaker()
    parts = [part(maker, a_case(time_ms=1_795_374_000_000 + step)) for step in (0, 5, 5)]
    data = bytearray(built(parts)[0])
    data[22] |= 0x08  # the attribute
    data[35:43] = (1_795_375_000_000).to_bytes(8, "big")  # the batch's last time
    plainly, by_header = read_both_ways(bytes(data))
    assert plainly is not None
    assert [shape_of(run) for run in plainly] == [shape_of(run) for run in by_header]
    assert [(run.received_at_ms, len(run)) for run in plainly] == [(1_795_375_000_000, 9)]


@pytest.mark.parametrize("step_ms", [63, 64, 8_192, 3_000_000])
def test_records_of_one_batch_may_lie_far_apart(step_ms: int) -> None:
    maker = RunMaker()
    parts = [part(maker, a_case(time_ms=1_795_374_000_000 + number * step_ms)) for number in range(3)]
    plainly, _ = read_both_ways(built(parts)[0])
    assert plainly is not None
    assert rows_of(plainly) == rows_sent(parts)


def test_many_clients_on_the_same_topics_are_told_apart() -> None:
    maker = RunMaker()
    parts = [part(maker, a_case(client_id=f"p{number % 3}" * (number % 2 + 1), qos=number % 2)) for number in range(12)]
    plainly, _ = read_both_ways(built(parts)[0])
    assert plainly is not None
    assert rows_of(plainly) == rows_sent(parts)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_records, "REMEMBERED_MAX", 4)
    maker = RunMaker()
    parts = [part(maker, a_case(topics=[f"t/{number}/{row}" for row in range(3)])) for number in range(5)]
    data, _ = built(parts)
    decoder = a_decoder()
    for _ in range(2):
        assert rows_of(decoder.runs(the_batch(data), 3, 0, FAR)) == rows_sent(parts)
        assert len(decoder._plain._kind_by_head) <= 4


# Records of other producers


def foreign(
    headers: list[tuple[str, bytes | None]],
    value: bytes | None = b"1",
    key: bytes | None = b"k",
    time_ms: int = 1_795_374_000_123,
    compression: int = 0,
) -> bytes:
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 100_000)
    builder.append(0, time_ms, key, value, headers)
    return bytes(builder.build())


OURS: list[tuple[str, bytes | None]] = [
    ("mqtt.topic", b"site/1"),
    ("mqtt.qos", b"1"),
    ("mqtt.retain", b"0"),
    ("mqtt.client_id", b"p1"),
    ("mqtt.id", b"n7-12"),
    ("mqtt.time", b"1795374000123"),
]


def changed(place: int, value: bytes | None) -> list[tuple[str, bytes | None]]:
    return [*OURS[:place], (OURS[place][0], value), *OURS[place + 1 :]]


@pytest.mark.parametrize(
    ("headers", "identity"),
    [
        (OURS, "n7-12"),
        (OURS[:1], "k3-0"),
        (OURS[::-1], "n7-12"),
        ([*OURS, ("other", b"x")], "n7-12"),
        (changed(4, b"n7-007"), "k3-0"),
        (changed(4, b"a.b-c-12"), "a.b-c-12"),
        (changed(4, b"n7-12x"), "k3-0"),
        (changed(4, b"n7-"), "k3-0"),
        (changed(4, b"n7-" + b"9" * 19), "k3-0"),
        (changed(4, b"n20261127143000-1"), "n20261127143000-1"),
        (changed(4, None), "k3-0"),
        (changed(5, b""), "n7-12"),
        (changed(5, None), "n7-12"),
    ],
)
def test_records_that_look_like_ours_or_nearly_are_read(headers: list[tuple[str, bytes | None]], identity: str) -> None:
    data = foreign(headers)
    plainly, by_header = read_both_ways(data)
    assert [(row[3], row[4], row[6]) for row in rows_of(by_header)] == [("site/1", identity, b"1")]
    if plainly is not None:
        assert [shape_of(run) for run in plainly] == [shape_of(run) for run in by_header]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        changed(0, None),
        changed(0, b""),
        changed(0, b"a/+/b"),
        changed(0, b"\xff"),
        changed(1, b"3"),
        changed(1, None),
        changed(3, b"\xff"),
        changed(3, b"a\0b"),
        changed(3, b"c" * 65_536),
        [*OURS[:1], ("mqtt.client_id", b"c" * 65_533)],
    ],
)
def test_records_that_nobody_can_be_shown_are_left_out_and_counted(headers: list[tuple[str, bytes | None]]) -> None:
    decoder = a_decoder()
    assert decoder.runs(the_batch(foreign(headers)), 3, 0, FAR) == []
    assert decoder.left_out == 1


@pytest.mark.parametrize("time_ms", [-1, -(2**62), 253_402_300_800_000, 2**62])
@pytest.mark.parametrize("headers", [OURS, OURS[:1]], ids=["like ours", "topic alone"])
def test_records_of_no_time_are_left_out_and_counted(headers: list[tuple[str, bytes | None]], time_ms: int) -> None:
    decoder = a_decoder()
    assert decoder.runs(the_batch(foreign(headers, time_ms=time_ms)), 3, 0, FAR) == []
    assert decoder.left_out == 1


@pytest.mark.parametrize(
    "headers",
    [
        OURS[:1],
        changed(4, b"n20261127143000-1"),
        changed(4, b"n4294967295-1"),
        changed(4, b"n4294967296-1"),
        changed(4, b"x" * 64 + b"-1"),
        changed(3, b"c" * 65_535),
        [*OURS[:1], ("mqtt.client_id", b"c" * 65_532)],
    ],
    ids=range(7),
)
def test_what_is_read_can_be_kept(headers: list[tuple[str, bytes | None]]) -> None:
    (run,) = a_decoder().runs(the_batch(foreign(headers)), 3, 0, FAR)
    (kept,) = decode_body(encode_record(run, 0), 0, {})
    assert rows_of([kept]) == rows_of([run])


@pytest.mark.parametrize("compression", range(5))
def test_a_header_whose_name_is_no_text_disturbs_nothing(compression: int) -> None:
    data = foreign([*OURS, ("an odd name", b"x" * 200), ("mqtt.user.a", None)], None, None, compression=0)
    odd = data.replace(b"an odd name", b"an \xf6\xdfd name")
    if compression:
        packed = COMPRESS[compression](odd[HEAD.size :])
        head = bytearray(odd[: HEAD.size])
        head[8:12] = (HEAD.size - 12 + len(packed)).to_bytes(4, "big")
        head[22] |= compression
        odd = bytes(head) + packed
    decoder = a_decoder()
    found = rows_of(decoder.runs(the_batch(odd), 3, 0, FAR))
    assert found == rows_of(decoder.runs(the_batch(data), 3, 0, FAR))
    assert (len(found), decoder.left_out) == (1, 0)


def test_a_damaged_record_with_such_a_name_is_damaged() -> None:
    data = foreign([("an odd name", b"x")]).replace(b"an odd name", b"an \xf6\xdfd name")
    for place in (HEAD.size, len(data) - 2):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        with pytest.raises(CorruptRecordException):
            a_decoder().runs(the_batch(bytes(damaged)), 3, 0, FAR)


@pytest.mark.parametrize("key", [None, b"", b"k" * 100])
def test_null_values_and_any_keys_are_read(key: bytes | None) -> None:
    (run,) = a_decoder().runs(the_batch(foreign(OURS, None, key)), 3, 0, FAR)
    assert (run.null_rows, run.ends == run.payload_starts) == (frozenset([0]), True)
    (run,) = a_decoder().runs(the_batch(foreign(OURS, b"21", key)), 3, 0, FAR)
    assert rows_of([run])[0][6] == b"21"


def test_a_topic_may_be_made_of_the_key() -> None:
    (run,) = Decoder("iot", "{topic}/{partition}/{key}").runs(the_batch(foreign([], key=b"p9")), 3, 0, FAR)
    assert run.topics[0].name == "iot/3/p9"


def test_control_batches_hold_no_record() -> None:
    data = bytearray(foreign(OURS))
    data[22] |= 0x20
    batch = the_batch(bytes(data))
    assert (batch.next_offset, batch.producer_id) == (1, -1)
    assert a_decoder().runs(batch, 3, 0, FAR) == []


@pytest.mark.parametrize("magic", [0, 1])
def test_batches_of_older_formats_are_passed(magic: int) -> None:
    builder = LegacyRecordBatchBuilder(magic, 0, 10_000)
    builder.append(0, 1_795_374_000_123 if magic else None, b"p9", b"21")
    (batch,) = batches_of(bytes(builder.build()))
    assert isinstance(batch, OlderBatch)
    assert (batch.base_offset, batch.next_offset, batch.producer_id) == (0, 1, -1)
    (run,) = Decoder("iot", "{key}").runs(batch, 3, 0, FAR)
    assert (run.topics[0].name, rows_of([run])[0][6]) == ("p9", b"21")
    assert run.received_at_ms == (1_795_374_000_123 if magic else 0)
