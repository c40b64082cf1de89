"""ReadAhead: whoever reads on finds the next piece there, and never one that answers another question."""

from __future__ import annotations

import asyncio

import pytest

from bridge.cursors import Offsets
from bridge.history.read_ahead import PLACES_MAX, ReadAhead
from bridge.history.scan import Scan, StreamScan, StreamScanResult
from bridge.streams.kafka.readers import KafkaSource

pytestmark = pytest.mark.asyncio

SOURCE = KafkaSource("telemetry", "iot", "k1", "spool-1", 1, None, is_up=True)
PIECE = 10


class History:
    """Partition 0 of a stream, read ten offsets at a time."""

    def __init__(self) -> None:
        self.read_from: list[int] = []
        self.error: Exception | None = None
        self.ahead = ReadAhead(self.scan)

    async def scan(self, source: KafkaSource, request: StreamScan, reads_on: bool) -> StreamScanResult:
        start, end = request.start[0], request.end[0]
        self.read_from.append(start)
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        following = min(start + PIECE, end)
        return StreamScanResult(b"%d" % start, following - start, {0: following}, {0: 0}, None)

    async def ask(self, start: int, end: int = 100, filters: tuple[str, ...] = ()) -> Offsets:
        what = Scan("telemetry", "k1", filters, 0, 0, "event")
        result = await self.ahead.scan(SOURCE, StreamScan(what, {0: start}, {0: end}))
        assert result.data == b"%d" % start
        return result.next_offsets

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_a_first_piece_has_nothing_read_behind_it() -> None:
    history = History()
    await history.ask(0)
    await history.settle()
    assert history.read_from == [0]


async def test_who_reads_on_finds_the_next_piece_begun() -> None:
    history = History()
    await history.ask(0)
    await history.ask(10)
    await history.settle()
    assert history.read_from == [0, 10, 20]
    for start in range(20, 100, PIECE):
        await history.ask(start)
    assert history.read_from == list(range(0, 100, PIECE))
    assert history.ahead.hits == 8


async def test_a_piece_that_goes_further_than_may_be_read_is_read_again() -> None:
    history = History()
    await history.ask(0)
    await history.ask(10)
    assert await history.ask(20, end=25) == {0: 25}
    assert history.ahead.hits == 0


async def test_a_piece_of_other_filters_is_not_taken() -> None:
    history = History()
    await history.ask(0)
    await history.ask(10)
    await history.ask(20, filters=("a/#",))
    assert history.ahead.hits == 0


async def test_a_piece_that_failed_is_asked_for_again() -> None:
    history = History()
    await history.ask(0)
    await history.ask(10)
    history.error = ConnectionError("Kafka is away")
    await history.settle()
    with pytest.raises(ConnectionError):
        await history.ask(20)
    history.error = None
    assert await history.ask(20) == {0: 30}


async def test_only_so_many_pieces_are_kept() -> None:
    history = History()
    for number in range(PLACES_MAX + 1):
        topic = (f"t/{number}",)
        await history.ask(0, filters=topic)
        await history.ask(10, filters=topic)
    await history.settle()
    reads = len(history.read_from)
    await history.ask(20, filters=("t/0",))
    assert len(history.read_from) == reads + 1
    await history.ask(20, filters=(f"t/{PLACES_MAX}",))
    assert history.ahead.hits == 1
    history.ahead.close()
