"""Buckets part a range of time without holes and without overlaps."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bridge.history.buckets import Buckets


@given(st.integers(0, 1 << 45), st.integers(1, 400), st.integers(1, 300))
def test_every_moment_is_in_one_bucket(from_ms: int, span_ms: int, wanted: int) -> None:
    buckets = Buckets.over(from_ms, from_ms + span_ms, wanted)
    starts = [buckets.start_ms(index) for index in range(buckets.count + 1)]
    assert buckets.count == min(wanted, span_ms)
    assert (starts[0], starts[-1]) == (from_ms, from_ms + span_ms)
    assert all(0 <= after - before - span_ms // buckets.count <= 1 for before, after in pairwise(starts))
    for time_ms in range(from_ms, from_ms + span_ms):
        index = buckets.index(time_ms)
        assert starts[index] <= time_ms < starts[index + 1]
        assert buckets.has(time_ms)
    assert not buckets.has(from_ms - 1)
    assert not buckets.has(from_ms + span_ms)
