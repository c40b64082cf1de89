"""ReadAhead: the next piece of a history that is read piece by piece, begun before it is asked for.

Whoever reads on from where the last piece ended is given the next one at once, so that this process and the server work
at the same time. A piece read ahead is an answer like any other, of a moment ago: it is taken for the very same
question alone, and not when it goes further than that may.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable

from bridge.history.scan import StreamScan, StreamScanResult
from bridge.streams.kafka.readers import KafkaSource

PLACES_MAX = 8
"""Pieces that are kept, one for each of those who read on; the oldest goes, and is read again should it be wanted."""
LIFE_S = 2.0
"""An older one is read again: retention may have dropped what it holds."""


class ReadAhead:
    """See the module's docstring."""

    def __init__(self, scan: Callable[[KafkaSource, StreamScan, bool], Awaitable[StreamScanResult]]) -> None:
        """`scan` reads a piece; it is told whether it follows another one, so that a next one will likely be wanted."""
        self.hits = 0
        """Pieces that were there, or on their way, when they were asked for."""
        self._read = scan
        self._next: OrderedDict[Hashable, _Piece | None] = OrderedDict()
        """What may be asked for next. None: it follows a first piece, after which few go on."""

    async def scan(self, source: KafkaSource, request: StreamScan) -> StreamScanResult:
        """The piece that is asked for. Raises: what `scan` raises."""
        key = _key(source, request)
        reads_on = key in self._next
        piece = self._next.pop(key, None)
        result = await piece.result_for(request) if piece is not None else None
        if result is None:
            result = await self._read(source, request, reads_on)
        else:
            self.hits += 1
        self._look_ahead(source, request, result, reads_on=reads_on)
        return result

    def _look_ahead(
        self, source: KafkaSource, request: StreamScan, result: StreamScanResult, *, reads_on: bool
    ) -> None:
        following = result.next_offsets
        if request.what.order != "asc" or not result.is_epoch_current or following == request.start:
            return
        if not any(following.get(partition, end) < end for partition, end in request.end.items()):
            return
        ahead = StreamScan(request.what, following, request.end, request.before, request.after)
        key = _key(source, ahead)
        if key in self._next:
            return
        self._next[key] = _Piece(asyncio.ensure_future(self._read(source, ahead, True))) if reads_on else None
        if len(self._next) > PLACES_MAX:
            _, oldest = self._next.popitem(last=False)
            if oldest is not None:
                oldest.drop()

    def close(self) -> None:
        """Drop all pieces."""
        for piece in self._next.values():
            if piece is not None:
                piece.drop()
        self._next.clear()


class _Piece:
    """One that is being read, or was."""

    def __init__(self, task: asyncio.Future[StreamScanResult]) -> None:
        self._task = task
        self._begun_s = time.monotonic()

    async def result_for(self, request: StreamScan) -> StreamScanResult | None:
        """What was read, when it answers the question as it is by now."""
        await asyncio.wait([self._task])
        if self._task.cancelled() or self._task.exception() is not None:
            return None  # it is asked again, and whoever asks is told
        result = self._task.result()
        if time.monotonic() - self._begun_s > LIFE_S or not result.is_epoch_current:
            return None
        following = result.next_offsets
        is_within = all(offset <= request.end.get(partition, -1) for partition, offset in following.items())
        return result if is_within and following != request.start else None

    def drop(self) -> None:
        """Nobody wants it."""
        self._task.cancel()
        self._task.add_done_callback(_look_at)


def _look_at(task: asyncio.Future[StreamScanResult]) -> None:
    """What failed unasked concerns nobody."""
    if not task.cancelled():
        task.exception()


def _key(source: KafkaSource, request: StreamScan) -> Hashable:
    return source, request.what, tuple(sorted(request.start.items())), request.before, request.after
