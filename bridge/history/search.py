"""RecordSearch: a range of one stream's records, read in bounded pieces from one end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.cursors import Cursor, Offsets, distance
from bridge.history.scan import Encoding, Order, Scan, StreamScan
from bridge.streams.log import StreamLogError

if TYPE_CHECKING:
    from bridge.streams.log import StreamLog

PIECE_BYTES = 512 * 1024
PIECE_RECORDS = 20_000


IDLE_S = 0.05
IDLE_STEPS_MAX = 100
"""A storage that gives nothing and moves on nowhere is asked again so often, after so long."""
RETRY_S = 0.25
PATIENCE_S = 5.0
"""A storage that cannot be read for a moment is asked again so long, when half of what was asked for is out."""


class SearchStuck(StreamLogError):
    """The storage gave nothing more for a while, though its range was not at its end."""

    retriable = True


class EpochOver(StreamLogError):
    """The offsets that a search goes by mean nothing any more."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records of a range are wanted."""

    filters: tuple[str, ...] = ()
    """None at all: every topic."""
    client_id: str | None = None
    contains: bytes = b""
    from_ms: int | None = None
    """Not before this time (epoch milliseconds). Where times only rise, the range of offsets says it already."""
    until_ms: int | None = None


class RecordSearch:
    """Where a search stands; `limit` is how many records it may still give."""

    def __init__(self, log: StreamLog, wanted: Wanted, start: Offsets, end: Offsets, order: Order, limit: int) -> None:
        self.log = log
        self.epoch = log.epoch
        self.start = start
        self.end = end
        self.left = limit
        self.scanned_to_ms: int | None = None
        self._wanted = wanted
        self._idle_steps = 0
        self._order: Order = order

    @property
    def is_over(self) -> bool:
        """All of the range was looked at."""
        return not distance(self.start, self.end)

    @property
    def has_more(self) -> bool:
        """Another piece may be asked for."""
        return not self.is_over and self.left > 0

    @property
    def cursor(self) -> str:
        """Where to go on in the same order."""
        return str(Cursor({self.log.name: self.log.position(self.start if self._order == "asc" else self.end)}))

    async def step(self, encoding: Encoding, bytes_max: int = PIECE_BYTES) -> bytes:
        """The next piece; moves the range behind it.

        Raises: EpochOver, SearchStuck, StreamLogError
        """
        wanted = self._wanted
        # Other producers of a Kafka topic may set what time they like.
        has_any_order = self.log.reads_back
        what = Scan(
            self.log.name,
            self.epoch,
            wanted.filters,
            0,
            0,
            encoding,
            client_id=wanted.client_id,
            contains=wanted.contains,
            from_ms=wanted.from_ms if has_any_order else None,
            until_ms=wanted.until_ms if has_any_order else None,
            order=self._order,
            records_max=min(self.left, PIECE_RECORDS),
            bytes_max=bytes_max,
        )
        result = await self.log.scan_stream(StreamScan(what, self.start, self.end))
        if not result.is_epoch_current:
            raise EpochOver(f"stream {self.log.name!r} began anew while its records were read")
        before = distance(self.start, self.end)
        self.left -= result.count
        if result.last_ms is not None:
            self.scanned_to_ms = result.last_ms
        if self._order == "asc":
            self.start = _further(self.start, result.next_offsets, max)
        else:
            self.end = _further(self.end, result.next_offsets, min)
            self.start = _further(self.start, result.first_offsets, max)
        self._idle_steps = 0 if distance(self.start, self.end) < before else self._idle_steps + 1
        if self._idle_steps:
            if self._idle_steps > IDLE_STEPS_MAX:
                raise SearchStuck(f"stream {self.log.name!r} could not be read to the end")
            await asyncio.sleep(IDLE_S)
        return result.data

    async def _step_patiently(self, encoding: Encoding, bytes_max: int) -> bytes:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await self.step(encoding, bytes_max)
            except StreamLogError as error:
                if not error.retriable or isinstance(error, SearchStuck) or time.monotonic() >= until:
                    raise
            await asyncio.sleep(RETRY_S)

    async def pieces(self, encoding: Encoding, bytes_max: int = PIECE_BYTES) -> AsyncGenerator[bytes]:
        """All of it, piece by piece; the next piece is read while the caller has one in hands.

        A storage that cannot be read for the moment is waited for a little.

        Raises: as `step`
        """

        def read_on() -> asyncio.Task[bytes] | None:
            return asyncio.create_task(self._step_patiently(encoding, bytes_max)) if self.has_more else None

        reading = read_on()
        try:
            # Until the last piece was given: it may be read, and the range be over, while the one before is out.
            while reading is not None:
                data = await reading
                reading = read_on()
                if data:
                    yield data
        finally:
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)


def _further(offsets: Offsets, found: Offsets, choose: Callable[[int, int], int]) -> Offsets:
    return {partition: choose(offset, found.get(partition, offset)) for partition, offset in offsets.items()}
