"""Pieces: history that was just read for one reader is given to the others who stand at the same place.

Readers of one group fall behind together when their network does. Each would otherwise have the same records read and
encoded for itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bridge.cursors import Offsets

if TYPE_CHECKING:
    from bridge.history.scan import PublishForm, StreamScan, StreamScanResult
    from bridge.streams.log import StreamLog

PIECES_MAX = 32
LIFE_S = 2.0
"""So that a piece does not outlive what retention has dropped for long."""


def is_between(start: Offsets, offsets: Offsets, end: Offsets) -> bool:
    """Some way from `start`, and in no partition beyond `end`."""
    return offsets != start and all(offset <= end.get(partition, -1) for partition, offset in offsets.items())


_Times = tuple[int | None, int | None]
_Key = tuple[str, str, tuple[str, ...], _Times, tuple[tuple[int, int], ...], str, str, "PublishForm | None"]


class Pieces:
    """The last few pieces, and those that are being read."""

    def __init__(self, pieces_max: int = PIECES_MAX) -> None:
        self._pieces_max = pieces_max
        self._piece_by_key: dict[_Key, tuple[asyncio.Future[StreamScanResult], float]] = {}
        self.shared = 0
        """How many pieces were not read again."""

    async def read(self, log: StreamLog, request: StreamScan) -> StreamScanResult:
        """`log.scan_stream`, or what it gave to another. Ascending scans of `event` and `publish` only.

        Raises: what `log.scan_stream` raises.
        """
        now = asyncio.get_running_loop().time()
        what = request.what
        start = tuple(sorted(request.start.items()))
        times = (what.from_ms, what.until_ms)
        key = (what.stream, what.epoch, what.filters, times, start, request.before, request.after, what.form)
        known = self._piece_by_key.get(key)
        if known is not None and now - known[1] < LIFE_S:
            await asyncio.wait([known[0]])
            if known[0].exception() is None:
                result = known[0].result()
                # One that goes further than this reader may would give it what it is to get from its group.
                if result.is_epoch_current and is_between(request.start, result.next_offsets, request.end):
                    self.shared += 1
                    return result
        future: asyncio.Future[StreamScanResult] = asyncio.get_running_loop().create_future()
        self._piece_by_key.pop(key, None)
        self._piece_by_key[key] = (future, now)
        if len(self._piece_by_key) > self._pieces_max:
            del self._piece_by_key[next(iter(self._piece_by_key))]
        try:
            result = await log.scan_stream(request)
        except BaseException as error:
            future.set_exception(error if isinstance(error, Exception) else ConnectionAbortedError())
            future.exception()  # it is raised here; those who wait look at it
            self._piece_by_key.pop(key, None)
            raise
        future.set_result(result)
        return result

    def drop_old(self) -> None:
        """Let go of pieces that nobody may use any more."""
        now = asyncio.get_running_loop().time()
        for key, (future, read_at) in list(self._piece_by_key.items()):
            if future.done() and now - read_at >= LIFE_S:
                del self._piece_by_key[key]
