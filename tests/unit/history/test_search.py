"""A search in pieces gives every record of its range, however slowly the pieces are taken."""

from __future__ import annotations

import asyncio

from bridge.history.search import RecordSearch, Wanted
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
