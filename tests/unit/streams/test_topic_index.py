"""Sets and counts of topic ids come back from their stored forms, and sets are counted as a loop would."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from bridge.streams.topic_index import (
    HAS_V3,
    HAS_V5,
    RowTopics,
    bits_of,
    chunk_bits,
    encode_chunk,
    encode_row,
    ids_of,
    merge_rows,
)

few = st.dictionaries(st.integers(1, 1 << 20), st.integers(1, 5_000), min_size=1, max_size=20)
dense = st.dictionaries(st.integers(70_000, 70_500), st.integers(1, 300), min_size=1, max_size=400)
once = st.dictionaries(st.integers(1, 200), st.just(1), min_size=1, max_size=200)
rows = few | dense | once
sets = st.sets(st.integers(1, 200) | st.integers(70_000, 70_500), max_size=300)


@given(rows, st.sampled_from([HAS_V3, HAS_V5, HAS_V3 | HAS_V5]))
def test_counts_of_a_row_come_back(counts: dict[int, int], versions: int) -> None:
    row = RowTopics(encode_row(counts, versions), sum(counts.values()))
    assert row.count_by_id() == counts
    assert row.bits == bits_of(counts)
    assert row.versions == versions
    assert row.is_counted


@given(rows, sets, st.data())
def test_a_set_is_counted_in_a_row(counts: dict[int, int], others: set[int], data: st.DataObject) -> None:
    ids = others | data.draw(st.sets(st.sampled_from(sorted(counts))))
    row = RowTopics(encode_row(counts, HAS_V3), sum(counts.values()))
    expected = sum(number for topic_id, number in counts.items() if topic_id in ids)
    assert row.count(ids, bits_of(ids)) == expected
    assert row.has_any(ids, bits_of(ids)) == (expected > 0)


@given(st.lists(rows, min_size=1, max_size=5))
def test_merged_rows_have_the_sums(columns: list[dict[int, int]]) -> None:
    merged = merge_rows([(encode_row(counts, HAS_V3), sum(counts.values())) for counts in columns])
    total: dict[int, int] = {}
    for counts in columns:
        for topic_id, number in counts.items():
            total[topic_id] = total.get(topic_id, 0) + number
    assert RowTopics(merged, sum(total.values())).count_by_id() == total


def old_row(*ids: int) -> bytes:
    """A row of format 1."""
    return array("I", ids).tobytes()


def test_rows_of_format_1_are_read_and_counted_where_there_is_no_doubt() -> None:
    once = RowTopics(old_row(3, 5), 2)
    assert (once.count({5}, 1 << 5), once.is_counted) == (1, True)
    single = RowTopics(old_row(3), 7)
    assert (single.count({3}, 1 << 3), single.is_counted) == (7, True)
    unknown = RowTopics(old_row(3, 5), 7)
    assert (unknown.count({5}, 1 << 5), unknown.count({6}, 1 << 6), unknown.is_counted) == (None, 0, False)
    assert unknown.bits == 0b101000
    assert unknown.versions == HAS_V3 | HAS_V5


def test_rows_merged_with_one_that_is_not_counted_are_not_counted() -> None:
    merged = merge_rows([(encode_row({1: 2, 4: 1}, HAS_V3), 3), (old_row(3, 5), 7)])
    assert merged == old_row(1, 3, 4, 5)
    assert RowTopics(merged, 10).count({4}, 1 << 4) is None


@given(st.sets(st.integers(1, 100_000)), st.sets(st.integers(1, 100_000)))
def test_topics_of_a_chunk_come_back(first: set[int], second: set[int]) -> None:
    bits, shift = chunk_bits(encode_chunk(bits_of(first)))
    assert bits << shift == bits_of(first)
    assert list(ids_of(bits, shift)) == sorted(first)
    assert bool(bits_of(second) >> shift & bits) == bool(first & second)
