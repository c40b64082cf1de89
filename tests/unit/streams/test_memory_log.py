"""What the memory log adds to the contract: a bound on what is really kept alive, and an epoch a start."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from bridge.streams.memory_log import MemoryLog
from tests.support.log_contract import Committed, FakeClock, Opened, RunMaker, numbers


def opened_log(**settings: int) -> Opened:
    clock = FakeClock()
    log = MemoryLog("telemetry", clock=clock, **settings)  # type: ignore[arg-type]
    return Opened(log, RunMaker(log), Committed(log), clock)


@pytest.mark.parametrize(("rows", "around"), [(1, 0), (1, 60_000), (50, 0), (200, 130_000)])
def test_what_is_kept_stays_within_its_bytes(rows: int, around: int) -> None:
    bytes_max = 1_000_000
    opened = opened_log(bytes_max=bytes_max)
    opened.log.on_committed = lambda runs: None
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(3 * bytes_max // (400 + 130 * rows)):
            opened.log.append(opened.maker.run([b"x" * 100] * rows, after=b"y" * around, client_id=f"device {number}"))
            opened.log.flush()
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert isinstance(opened.log, MemoryLog)
    assert bytes_max * 0.9 < opened.log.kept_bytes <= bytes_max
    assert used < bytes_max * 1.15
    assert opened.log.first_offset > 0


async def test_the_oldest_go_first_and_offsets_go_on() -> None:
    opened = opened_log(bytes_max=20_000)
    for number in range(100):
        await opened.store(opened.maker.run([b"%d" % number, b"x" * 400]))
    first = opened.log.first_offset
    assert 0 < first < 200
    assert opened.log.next_offset == 200
    assert await opened.offsets() == list(range(first, 200))
    result = await opened.log.scan(opened.request(start=3))
    assert result.first_offset == first


async def test_each_start_is_another_epoch() -> None:
    first, second = opened_log(), opened_log()
    assert first.log.epoch != second.log.epoch
    await second.store(second.maker.run(numbers(3)))
    result = await second.log.scan(first.request())
    assert not result.is_epoch_current
