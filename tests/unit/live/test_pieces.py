"""Readers that fall behind together share what is read for them, and nobody gets more than it may."""

from __future__ import annotations

import asyncio

import pytest

from bridge.history.scan import Scan, StreamScan
from bridge.live.pieces import Pieces
from bridge.live.reader import Place
from tests.unit.live.parts import Side, until
from tests.unit.live.test_reader import SMALL


async def test_readers_at_the_same_place_share_a_piece() -> None:
    async with Side(limits=SMALL) as side:
        slow = [side.open("#") for _ in range(5)]
        for outlet in slow:
            outlet.stop_reading()
        for number in range(300):
            side.publish(("a", b"%d" % number))
        for outlet in slow:
            outlet.read()
        await until(lambda: all(o.reader is not None and o.reader.place is Place.LIVE for o in slow))
        assert side.hub.pieces.shared > 0
        for outlet in slow:
            assert outlet.offsets() == list(range(300))


async def test_a_piece_that_goes_beyond_the_bound_is_not_shared() -> None:
    async with Side() as side:
        log = side.logs["default"]
        for number in range(10):
            side.publish(("a", b"%d" % number))
        pieces = Pieces()

        def scan(end: int) -> StreamScan:
            return StreamScan(Scan("default", log.epoch, ("#",), 0, 0, "event"), {0: 0}, {0: end})

        long, short, again = await asyncio.gather(
            pieces.read(log, scan(10)), pieces.read(log, scan(5)), pieces.read(log, scan(10))
        )
        assert (long.next_offsets, short.next_offsets) == ({0: 10}, {0: 5})
        assert again.next_offsets[0] <= 10
        assert again.data.startswith(short.data)


@pytest.mark.parametrize("bound", ["from_ms", "until_ms"])
async def test_readers_of_other_times_do_not_share_a_piece(bound: str) -> None:
    """Where times do not only rise, what is between two offsets is not the same for both."""
    async with Side() as side:
        log = side.logs["default"]
        for number in range(10):
            side.publish(("a", b"%d" % number))
        pieces = Pieces()

        def scan(from_ms: int | None = None, until_ms: int | None = None) -> StreamScan:
            what = Scan("default", log.epoch, ("#",), 0, 0, "event", from_ms=from_ms, until_ms=until_ms)
            return StreamScan(what, {0: 0}, {0: 10})

        for time_ms in (5, 6, 6):
            await pieces.read(log, scan(**{bound: time_ms}))
        assert pieces.shared == 1
