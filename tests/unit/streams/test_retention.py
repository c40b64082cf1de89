"""What to drop, merge and seal: pure decisions over rows."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from bridge.streams.retention import (
    MERGED_BYTES_MAX,
    MERGED_RECORDS_MAX,
    STEP_ROWS_MAX,
    Row,
    finished_rows,
    rows_to_drop,
    rows_to_merge,
)


def rows_of(sizes: Sequence[tuple[int, int]]) -> list[Row]:
    rows, base = [], 0
    for number, (records, size) in enumerate(sizes):
        rows.append(Row(base, records, size, number * 10, number * 10 + 9))
        base += records
    return rows


def test_rows_past_their_age_go() -> None:
    rows = rows_of([(1, 100)] * 5)
    assert rows_to_drop(rows, 500, 1_029, 1_000, None) == 2  # those whose youngest is of 9 and 19
    assert rows_to_drop(rows, 500, 1_030, 1_000, None) == 3
    assert rows_to_drop(rows, 500, 9_999, 1_000, None) == 5


def test_bytes_over_the_limit_go_but_not_the_only_row() -> None:
    rows = rows_of([(1, 100)] * 5)
    assert rows_to_drop(rows, 500, 0, None, 500) == 0
    assert rows_to_drop(rows, 500, 0, None, 499) == 1
    assert rows_to_drop(rows, 500, 0, None, 250) == 3
    assert rows_to_drop(rows, 500, 0, None, 1) == 4
    assert rows_to_drop(rows, 500, 0, None, None) == 0


sizes = st.one_of(
    st.tuples(st.integers(1, 3), st.integers(50, 400)),
    st.tuples(st.integers(1, 4_000), st.integers(50, 600_000)),
)


@given(st.lists(sizes, max_size=400))
def test_merging_ends_with_rows_that_are_full_or_cannot_be_joined(cases: list[tuple[int, int]]) -> None:
    rows = rows_of(cases)
    records = sum(row.records for row in rows)
    for _ in range(len(rows)):
        found = rows_to_merge(rows)
        if found is None:
            break
        first, end = found
        part = rows[first:end]
        assert 2 <= len(part) <= STEP_ROWS_MAX
        merged = Row(part[0].base, sum(row.records for row in part), sum(row.bytes for row in part), 0, 0)
        assert merged.records <= MERGED_RECORDS_MAX
        assert merged.bytes <= MERGED_BYTES_MAX
        rows[first:end] = [merged]
    assert rows_to_merge(rows) is None
    assert sum(row.records for row in rows) == records
    # What is left to come is less than one merged row and one step of small ones.
    assert len(rows) - finished_rows(rows) <= 2 * STEP_ROWS_MAX


def test_a_quiet_stream_is_merged_in_two_steps() -> None:
    rows: list[Row] = []
    moved = 0
    for number in range(20_000):
        rows.append(Row(number, 1, 120, number, number))
        found = rows_to_merge(rows)
        if found is not None:
            part = rows[slice(*found)]
            moved += sum(row.records for row in part)
            rows[slice(*found)] = [
                Row(part[0].base, sum(row.records for row in part), sum(row.bytes for row in part), 0, 0)
            ]
    assert moved <= 2 * 20_000
    assert len(rows) < 20_000 / 800 + 8 + STEP_ROWS_MAX
