"""Pieces: history that was just read for one reader is given to the others who stand at the same place.

Readers of one group fall behind together when their network does. Each would otherwise have the same records read and
encoded for itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.history.scan import Scan, ScanResult
    from bridge.streams.log import StreamLog

PIECES_MAX = 32
LIFE_S = 2.0
"""So that a piece does not outlive what retention has dropped for long."""

_Key = tuple[str, str, tuple[str, ...], int, str, str]


class Pieces:
    """The last few pieces, and those that are being read."""

    def __init__(self) -> None:
        self._piece_by_key: dict[_Key, tuple[asyncio.Future[ScanResult], float]] = {}
        self.shared = 0
        """How many pieces were not read again."""

    async def read(self, log: StreamLog, request: Scan) -> ScanResult:
        """`log.scan`, or what it gave to another. Ascending scans of the `event` encoding only.

        Raises: what `log.scan` raises.
        """
        now = asyncio.get_running_loop().time()
        key = (
            request.stream,
            request.epoch,
            request.filters,
            request.start,
            request.cursor_head,
            request.cursor_tail,
        )
        known = self._piece_by_key.get(key)
        if known is not None and now - known[1] < LIFE_S:
            await asyncio.wait([known[0]])
            if known[0].exception() is None:
                result = known[0].result()
                # One that goes further than this reader may would give it what it is to get from its group.
                if request.start < result.next_offset <= request.end and result.is_epoch_current:
                    self.shared += 1
                    return result
        future: asyncio.Future[ScanResult] = asyncio.get_running_loop().create_future()
        self._piece_by_key.pop(key, None)
        self._piece_by_key[key] = (future, now)
        if len(self._piece_by_key) > PIECES_MAX:
            del self._piece_by_key[next(iter(self._piece_by_key))]
        try:
            result = await log.scan(request)
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
