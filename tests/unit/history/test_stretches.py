"""Stretches of Kafka's records: where a scan goes on in one, and which time it has come to."""

from __future__ import annotations

import pytest

from bridge.history.stretches import Stretch
from bridge.records import RecordRun, Topic


def run_at(base: int, count: int, time_ms: int) -> RecordRun:
    return RecordRun(
        b"x" * count,
        0,
        [Topic("a")] * count,
        list(range(count)),
        list(range(1, count + 1)),
        base_offset=base,
        first_number=1,
        node_run="n1",
        received_at_ms=time_ms,
        client_id="c",
        is_v5=False,
    )


RUNS = [run_at(10, 5, 1_000), run_at(15, 1, 900), run_at(20, 5, 1_100)]


@pytest.mark.parametrize(("offset", "index"), [(0, 0), (10, 0), (14, 0), (15, 1), (16, 2), (19, 2), (24, 2), (25, 3)])
def test_an_offset_is_in_its_run_or_before_the_next_one(offset: int, index: int) -> None:
    assert Stretch(8, 30, RUNS).index_at(offset) == index


def test_a_stretch_without_records_has_no_run() -> None:
    assert Stretch(8, 30, []).index_at(9) == 0


def test_times_never_fall_within_a_partition() -> None:
    assert Stretch(8, 30, RUNS).times == [1_000, 1_000, 1_100]
