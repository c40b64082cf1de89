"""A search in pieces gives every record of its range, however slowly the pieces are taken."""

from __future__ import annotations

import asyncio
import json

import pytest

from bridge.history.scan import StreamScan, StreamScanResult
from bridge.history.search import RecordSearch, Wanted
from bridge.streams.kafka.cluster import KafkaUnreachable
from bridge.streams.memory_log import MemoryLog
from tests.support.log_contract import RunMaker, numbers


async def test_the_last_piece_is_given_also_when_it_was_read_while_the_one_before_was_out() -> None:
    log = MemoryLog("default")
    maker = RunMaker(log)
    for _ in range(10):
        log.append(maker.run(numbers(50)))
    log.flush()
    for turns in range(12):
        search = RecordSearch(log, Wanted(), log.first_offsets, log.offsets, "asc", 10_000)
        lines = 0
        async for piece in search.pieces("json", 4_000):
            lines += piece.count(b"\n")
            for _ in range(turns):  # the next piece is read meanwhile
                await asyncio.sleep(0)
        assert lines == 500
        assert search.is_over


class HiccupLog(MemoryLog):
    """Cannot be read at every other scan."""

    scans = 0

    async def scan_stream(self, request: StreamScan) -> StreamScanResult:
        self.scans += 1
        if self.scans % 2:
            raise KafkaUnreachable("not now")
        return await super().scan_stream(request)


async def test_a_storage_that_cannot_be_read_for_a_moment_is_asked_again() -> None:
    log = HiccupLog("default")
    log.append(RunMaker(log).run(numbers(50)))
    log.flush()
    search = RecordSearch(log, Wanted(), log.first_offsets, log.offsets, "asc", 10_000)
    found = b"".join([piece async for piece in search.pieces("json", 2_000)])
    assert [json.loads(line)["offset"] for line in found.splitlines()] == list(range(50))
    assert log.scans > 2
    with pytest.raises(KafkaUnreachable):  # a page is asked for again by whoever wants it
        await RecordSearch(log, Wanted(), log.first_offsets, log.offsets, "asc", 10_000).step("json")
