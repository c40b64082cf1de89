"""Stored frames come back as they went in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.records import Topic
from bridge.streams.frames import (
    FORMAT_VERSION,
    StoredFormatError,
    decode_body,
    decode_matching,
    encode_record,
    encode_segment,
    payloads_of,
    segment_times,
)
from broker.publish_run import PublishRun
from tests.support.log_contract import RunMaker

SOUGHT = b"\x00\x03a/1"
"""A topic as it stands in a frame."""
topic_names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60)
payloads = st.one_of(st.binary(max_size=40), st.integers(100, 20_000).map(bytes))
runs = st.fixed_dictionaries(
    {
        "payloads": st.lists(payloads, min_size=1, max_size=6),
        "topics": st.lists(topic_names, min_size=1, max_size=4),
        "time_ms": st.integers(0, 1 << 45),
        "client_id": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        "qos": st.sampled_from([0, 1, 2]),
        "properties": st.one_of(st.none(), st.binary(max_size=300)),
        "before": st.binary(max_size=5),
    }
)


def body_of(*made: PublishRun, node_run: int = 7) -> bytes:
    return b"".join([part for run in made for part in encode_segment(run, node_run)])


@given(st.lists(runs, min_size=1, max_size=4))
def test_round_trip(cases: list[dict[str, object]]) -> None:
    maker = RunMaker()
    made = [maker.run(**case) for case in cases]  # type: ignore[arg-type]
    topics: dict[bytes, Topic] = {}
    decoded = decode_body(body_of(*made), 100, topics)
    assert len(decoded) == len(made)
    offset = 100
    for before, after in zip(made, decoded, strict=True):
        assert after.base_offset == offset
        offset += len(after)
        assert (after.first_number, after.node_run) == (before.first_number, "n7")
        assert (after.received_at_ms, after.client_id, after.is_v5) == (
            before.received_at_ms,
            before.client_id,
            before.is_v5,
        )
        assert [topic.name for topic in after.topics] == [route.topic_name for route in before.routes]
        for row in range(len(before)):
            assert (
                after.data[after.frame_start(row) : after.ends[row]]
                == before.data[before.frame_start(row) : before.ends[row]]
            )
            assert (
                after.data[after.payload_starts[row] : after.ends[row]]
                == before.data[before.payload_starts[row] : before.ends[row]]
            )
    assert list(segment_times(body_of(*made))) == [(run.received_at_ms, len(run)) for run in made]
    assert {topic.name.encode() for topic in topics.values()} == {encoded[2:] for encoded in topics}


@given(st.lists(runs, min_size=1, max_size=4), st.data())
def test_matching_finds_what_decoding_all_finds(cases: list[dict[str, object]], data: st.DataObject) -> None:
    maker = RunMaker()
    body = body_of(*[maker.run(**case) for case in cases])  # type: ignore[arg-type]
    topics: dict[bytes, Topic] = {}
    everything = decode_body(body, 100, topics)
    names = data.draw(st.lists(st.sampled_from(sorted(topics)), min_size=1, max_size=3, unique=True))
    wanted = {topics[name] for name in names}
    expected = [
        (run.base_offset + row, topic.name, body[run.payload_starts[row] : run.ends[row]], run.client_id, run.is_v5)
        for run in everything
        for row, topic in enumerate(run.topics)
        if topic in wanted
    ]
    found = decode_matching(body, 100, topics, tuple(names))
    assert [
        (run.base_offset, run.topics[0].name, run.data[run.payload_starts[0] : run.ends[0]], run.client_id, run.is_v5)
        for run in found
    ] == expected
    assert all(len(run) == 1 and run.frame_start(0) < run.payload_starts[0] for run in found)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a/1", "b/1"]),
            st.sampled_from([b"", b"7", b"x" * 200, b"x" * 20_000, SOUGHT, b"\xff" * 9 + SOUGHT, b"\xff" + SOUGHT * 2]),
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([0, 1]),
    st.sampled_from([None, b"", bytes(200)]),
)
def test_payloads_by_search_are_those_of_decoding_or_none(
    rows: list[tuple[str, bytes]], qos: int, properties: bytes | None
) -> None:
    topics, payloads = zip(*rows, strict=True)
    body = body_of(RunMaker().run(payloads, topics=topics, qos=qos, properties=properties))
    expected = [payload for topic, payload in rows if topic == "a/1"]
    found = payloads_of(body, SOUGHT, len(expected), is_v5=properties is not None)
    assert found == (expected if body.count(SOUGHT) == len(expected) else None)


def test_one_record_of_a_run_is_a_segment_of_its_own() -> None:
    run = decode_body(body_of(RunMaker().run([b"1", b"2", b"3"], properties=b"")), 0, {})[0]
    (record,) = decode_body(encode_record(run, 1), 1, {})
    assert record.data[record.payload_starts[0] : record.ends[0]] == b"2"
    assert (record.first_number, record.topics[0].name, record.is_v5) == (2, run.topics[1].name, True)


def test_a_record_of_another_producer_keeps_the_name_of_its_run_and_that_it_has_no_value() -> None:
    run = decode_body(body_of(RunMaker().run([b"", b"2"], client_id="näme")), 0, {})[0]
    run.node_run, run.numbers, run.null_rows = "line-7", (40, 90), frozenset({0})
    (first,), (second,) = (decode_body(encode_record(run, row), 0, {}) for row in range(2))
    assert [(each.client_id, each.node_run, each.number(0)) for each in (first, second)] == [
        ("näme", "line-7", 40),
        ("näme", "line-7", 90),
    ]
    assert (first.null_rows, second.null_rows) == ({0}, frozenset())


def test_a_record_of_a_newer_format_is_refused() -> None:
    body = bytes([FORMAT_VERSION + 1]) + body_of(RunMaker().run([b"1"]))[1:]
    with pytest.raises(StoredFormatError, match="newer Headrace"):
        decode_body(body, 0, {})


@given(st.data())
def test_a_damaged_body_is_said_and_never_loops(data: st.DataObject) -> None:
    body = body_of(RunMaker().run([b"1" * 20, b"2"], properties=b"\x01\x01"))
    cut = data.draw(st.integers(1, len(body) - 1))
    with pytest.raises(StoredFormatError):
        decode_body(body[:cut], 0, {})
    index = data.draw(st.integers(0, len(body) - 1))
    changed = bytearray(body)
    changed[index] = data.draw(st.integers(0, 255))
    try:
        decode_body(bytes(changed), 0, {})
    except (StoredFormatError, UnicodeDecodeError):
        return
