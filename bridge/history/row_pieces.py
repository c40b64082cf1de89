"""Pieces of a stored row's body, one for each bucket of time that its records fall into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bridge.history.buckets import Buckets
from bridge.streams.frames import first_segment_at, segment_time


class RowPiece(NamedTuple):
    """Some whole segments of a body, all of one bucket."""

    bucket: int
    start: int
    end: int
    """Their place in the body."""
    records: int
    last_ms: int
    """Time of the last."""


def pieces_of(body: bytes, buckets: Buckets) -> Iterator[RowPiece]:
    """The pieces of a row whose records all lie in the range of the buckets, in order."""
    start = 0
    while start < len(body):
        index = buckets.index(segment_time(body, start))
        end, records, last_ms = first_segment_at(body, buckets.start_ms(index + 1), start)
        yield RowPiece(index, start, end, records, last_ms)
        start = end
