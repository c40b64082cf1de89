"""Batches are byte for byte what aiokafka's builder makes of the same records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from bridge.records import RecordRun, Topic
from bridge.streams.kafka import batches as batches_module
from bridge.streams.kafka.batches import BatchBuilder, Heads, encode_varint
from bridge.streams.kafka.headers import headers_of
from bridge.streams.kafka.records import part_of
from broker.publish_run import PublishRun
from tests.support.log_contract import RunMaker
from tests.unit.streams.kafka.parts import BYTES_MAX, PRODUCER, Part, a_case, built, part, runs


def number_of(run: PublishRun | RecordRun, row: int) -> int:
    return run.number(row) if isinstance(run, RecordRun) else run.first_number + row


def plainly_built(parts: Sequence[Part], compression: int = 0, bytes_max: int = BYTES_MAX) -> tuple[bytes, int]:
    """The oracle: aiokafka's builder, one record after the other."""
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, bytes_max)
    count = 0
    for each in parts:
        run = each.run
        nulls = run.null_rows if isinstance(run, RecordRun) else ()
        for row, key in zip(each.rows, each.keys, strict=True):
            headers = headers_of(run, row, each.topics[row].encoded, each.node_run, number_of(run, row))
            value = None if row in nulls else run.data[run.payload_starts[row] : run.ends[row]]
            if builder.append(count, run.received_at_ms, key, value, headers) is None:
                break
            count += 1
    builder.set_producer_state(*PRODUCER)
    return bytes(builder.build()), count


@given(st.lists(runs, min_size=1, max_size=5), st.integers(1, 10**9))
def test_batches_have_the_bytes_that_aiokafka_makes(cases: list[dict[str, Any]], first_number: int) -> None:
    maker = RunMaker()
    maker._number = first_number
    parts = [part(maker, case) for case in cases]
    assert built(parts) == plainly_built(parts)


@given(runs, st.data())
def test_so_have_batches_of_some_rows_and_of_rows_from_the_spool(case: dict[str, Any], data: st.DataObject) -> None:
    given_part = part(RunMaker(), case)
    rows = sorted(data.draw(st.sets(st.sampled_from(list(given_part.rows)), min_size=1)))
    some = Part(given_part.run, rows, given_part.topics)
    spooled = part_of(given_part.run, rows, given_part.topics, "n6zzzz", 0, 500)
    again = Part(spooled, range(len(spooled)), spooled.topics, "n6zzzz")
    assert built([some, again]) == plainly_built([some, again])


def test_rows_without_a_value_are_null() -> None:
    maker = RunMaker()
    run = part_of(*_all_of(part(maker, a_case())), "n7", 0, 0)
    run.null_rows = frozenset([2])
    parts = [Part(run, range(3), run.topics)]
    assert built(parts) == plainly_built(parts)


def _all_of(given_part: Part) -> tuple[PublishRun | RecordRun, Sequence[int], Sequence[Topic]]:
    return given_part.run, given_part.rows, given_part.topics


def test_frames_of_one_run_may_differ_in_qos_and_the_numbers_in_digits() -> None:
    maker = RunMaker()
    first, second = (part(maker, a_case(qos=qos)) for qos in (0, 1))
    data = first.run.frames() + second.run.frames()  # type: ignore[union-attr]
    shift = len(data) - len(second.run.data)
    run = RecordRun(
        data,
        0,
        [*first.topics, *second.topics],
        [*first.run.payload_starts, *[start + shift for start in second.run.payload_starts]],
        [*first.run.ends, *[end + shift for end in second.run.ends]],
        base_offset=0,
        first_number=7,
        node_run="n7",
        received_at_ms=1_795_374_000_123,
        client_id="p1",
        is_v5=False,
        numbers=[7, 99, 8, 1_000, 12, 3],
    )
    parts = [Part(run, range(6), run.topics)]
    assert built(parts) == plainly_built(parts)


@pytest.mark.parametrize("bytes_max", [60, 300, 301, 305, 420, 10_000])
def test_a_batch_takes_what_fits_and_always_one(bytes_max: int) -> None:
    parts = [part(RunMaker(), a_case(payloads=[bytes(10), bytes(200), bytes(10)]))]
    assert built(parts, bytes_max=bytes_max) == plainly_built(parts, bytes_max=bytes_max)


def test_a_batch_takes_no_more_records_than_it_may() -> None:
    maker = RunMaker()
    parts = [part(maker, a_case()) for _ in range(3)]
    data, count = built(parts, count_max=4)
    assert count == 4
    assert data == plainly_built([parts[0], Part(parts[1].run, range(1), parts[1].topics)])[0]


def test_a_time_of_which_nothing_fitted_is_not_the_batchs_last() -> None:
    maker = RunMaker()
    parts = [part(maker, a_case()), part(maker, a_case(time_ms=1_795_374_000_999))]
    assert built(parts, count_max=3)[0] == plainly_built(parts[:1])[0]


@pytest.mark.parametrize("compression", [1, 2, 3, 4])
def test_batches_are_compressed_when_that_makes_them_smaller(compression: int) -> None:
    maker = RunMaker()
    for parts in ([part(maker, a_case(payloads=[b"x" * 400] * 20))], [part(maker, a_case(payloads=[b""]))]):
        (data, count), (plain, _) = built(parts, compression), plainly_built(parts)
        assert len(data) <= len(plain)
        (batch,) = [MemoryRecords(data).next_batch()]
        assert batch.validate_crc()
        assert [(record.offset, record.value) for record in batch] == [
            (record.offset, record.value) for record in MemoryRecords(plain).next_batch()
        ]
        assert len(list(MemoryRecords(data).next_batch())) == count


def test_heads_that_are_too_many_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_module, "HEADS_MAX", 3)
    heads = Heads()
    maker = RunMaker()
    parts = [part(maker, a_case(payloads=[b"1"] * 7, topics=[f"t/{number}" for number in range(5)]))] * 2
    builder = BatchBuilder(heads, 0, BYTES_MAX)
    for each in parts:
        builder.add(each.run, each.rows, each.topics, each.keys, each.node_run, 1_000)
    assert builder.build(*PRODUCER) == plainly_built(parts)[0]
    assert sum(map(len, heads._tables.values())) <= 3


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "00"), (-1, "01"), (1, "02"), (63, "7e"), (64, "8001"), (-65, "8101"), (8_191, "fe7f"), (8_192, "808001")],
)
def test_varints_are_zigzag(value: int, encoded: str) -> None:
    assert encode_varint(value).hex() == encoded
