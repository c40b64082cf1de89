"""What to delete and what to merge: decisions over plain rows, carried out by the writer in small steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

MERGED_RECORDS_MAX = 1_000
MERGED_BYTES_MAX = 256 * 1024
SMALL_RECORDS_MAX = 63
SMALL_BYTES_MAX = 16 * 1024
STEP_ROWS_MAX = 128
"""Rows read for one merge: at most some 2 ms."""


class Row(NamedTuple):
    """One row of the log, without its body."""

    base: int
    records: int
    bytes: int
    time_min: int
    time_max: int

    @property
    def end(self) -> int:
        """One past the row's last offset."""
        return self.base + self.records


def rows_to_drop(
    oldest: Sequence[Row],
    stored_bytes: int,
    now_ms: int,
    age_ms_max: int | None,
    bytes_max: int | None,
    drop_before: int = 0,
) -> int:
    """How many of the `oldest` rows are past the stream's retention.

    A row goes when its youngest record is too old, when more than `bytes_max` is stored and it is not the only row, or
    when all of it lies before the offset `drop_before`; a row is never cut.
    """
    oldest_ms = None if age_ms_max is None else now_ms - age_ms_max
    count = 0
    for row in oldest:
        is_too_old = oldest_ms is not None and row.time_max < oldest_ms
        is_too_much = bytes_max is not None and stored_bytes > bytes_max and stored_bytes > row.bytes
        if not is_too_old and not is_too_much and row.end > drop_before:
            break
        stored_bytes -= row.bytes
        count += 1
    return count


def rows_to_merge(rows: Sequence[Row], start: int = 0) -> tuple[int, int] | None:
    """A range `first <= i < end` of adjacent rows from `start` on that are worth one row, or None.

    Two sizes of steps, so that a record is moved at most twice however slowly records come: first `STEP_ROWS_MAX`
    small rows (or those shut in by larger ones), then such rows until they fill a merged row.
    """
    return _small_rows(rows, start) or _medium_rows(rows, start)


def finished_rows(rows: Sequence[Row]) -> int:
    """How many leading rows no merge will touch: each alone, or with the next, exceeds the size of a merged row."""
    count = 0
    for row, following in pairwise(rows):
        if not _is_full(row) and _fits(row.records + following.records, row.bytes + following.bytes):
            break
        count += 1
    return count


def _is_full(row: Row) -> bool:
    return row.records >= MERGED_RECORDS_MAX or row.bytes >= MERGED_BYTES_MAX


def _is_small(row: Row) -> bool:
    return row.records <= SMALL_RECORDS_MAX and row.bytes <= SMALL_BYTES_MAX


def _fits(count: int, size: int) -> bool:
    return count <= MERGED_RECORDS_MAX and size <= MERGED_BYTES_MAX


def _small_rows(rows: Sequence[Row], start: int) -> tuple[int, int] | None:
    first = start
    while first < len(rows):
        end, count, size = first, 0, 0
        while end < len(rows) and end - first < STEP_ROWS_MAX and _is_small(rows[end]):
            count += rows[end].records
            size += rows[end].bytes
            if not _fits(count, size):
                break
            end += 1
        is_closed = end < len(rows) or end - first == STEP_ROWS_MAX
        if is_closed and end - first > 1:
            return first, end
        first = end + 1 if end == first or not is_closed else end
    return None


def _medium_rows(rows: Sequence[Row], start: int) -> tuple[int, int] | None:
    first = start
    while first < len(rows):
        end, count, size = first, 0, 0
        while end < len(rows):
            count += rows[end].records
            size += rows[end].bytes
            if not _fits(count, size):
                break
            end += 1
        if end == len(rows):
            return None  # more may still be added to these
        if end - first > 1:
            return (first, end) if end - first <= STEP_ROWS_MAX else None
        first = max(end, first + 1)
    return None
