"""Pacing: history at its own pace, and ends at a time.

No reader has a task for either: the hub's feeders take its steps, and a timer of the loop calls them when the next
event is due.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import orjson

from bridge.cursors import SPOOL, Offsets
from bridge.live.events import message_event

if TYPE_CHECKING:
    from bridge.history.scan import StreamScanResult
    from bridge.live.hub import Hub
    from bridge.live.reader import Reader
    from bridge.streams.log import StreamLog

PACED_RECORDS = 500
PACED_BYTES = 128 * 1024
"""Read ahead of each stream: what one step of a feeder may write."""
WAIT_S_MAX = 10.0
"""A reader that waits for longer is looked at in between: it may be gone."""
LEAD_MS = 250
"""So much before its end a live reader goes back to the log, which knows the time of each record."""

T = TypeVar("T")


def now_ms() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


def is_near(until_ms: int) -> bool:
    """A reader that ends there is no longer to be live."""
    return now_ms() >= until_ms - LEAD_MS


def call_before(until_ms: int, call: Callable[[T], None], argument: T) -> asyncio.TimerHandle:
    """Call a little before that time."""
    return asyncio.get_running_loop().call_later(max(0, until_ms - LEAD_MS - now_ms()) / 1000, call, argument)


def behind(offsets: Offsets, next_offsets: Offsets) -> Offsets:
    """`offsets`, moved on to where a scan has come; partitions that were added since begin at 0."""
    return {**offsets, **{partition: max(offsets.get(partition, 0), n) for partition, n in next_offsets.items()}}


async def ends_at(logs: Iterable[StreamLog], until_ms: int) -> dict[str, Offsets] | None:
    """Where that time begins in each stream; None while something that belongs before it may still come.

    Raises: StreamLogError
    """
    logs = list(logs)
    if now_ms() < until_ms or any(log.pending_bytes and (log.newest_ms or 0) < until_ms for log in logs):
        return None
    found = await asyncio.gather(*[log.offsets_at(until_ms) for log in logs])
    return {log.name: offsets for log, offsets in zip(logs, found, strict=True)}


async def find_end(hub: Hub, reader: Reader) -> None:
    """Note where a reader is to end, once that can be known. Raises: StreamLogError"""
    assert reader.until_ms is not None
    found = await ends_at([hub.log_by_name[name] for name in reader.group.streams], reader.until_ms)
    if found is not None:
        if reader.parked is not None:
            hub.unpark(reader)
        reader.until_offsets = found


class _Due(NamedTuple):
    """A record that waits for its time."""

    time_ms: int
    partition: int
    offset: int
    line: bytes


class _Lane:
    """What was read ahead of one stream."""

    __slots__ = ("records", "then")

    def __init__(self, records: deque[_Due], then: Offsets) -> None:
        self.records = records
        self.then = then
        """Where the stream goes on behind the last of them."""


class Pacing:
    """The records that are next, of each stream, and the clock that they go by.

    The first record is sent at once and starts the clock: one that was received `t` later is due after `t / speed`.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._lanes: dict[str, _Lane] = {}
        self._started: tuple[float, int] | None = None
        """Time of the loop, and time of the first record (ms)."""

    @property
    def is_empty(self) -> bool:
        """Nothing waits."""
        return not self._lanes

    def empty(self, offsets: Mapping[str, Offsets]) -> list[str]:
        """The streams of which nothing waits."""
        return [stream for stream in offsets if stream not in self._lanes]

    def forget(self, stream: str) -> None:
        """What was read ahead of a stream is of another epoch."""
        self._lanes.pop(stream, None)

    def put(self, log: StreamLog, found: StreamScanResult) -> None:
        """Have some records of a stream wait, of which there are none yet."""
        spool_epoch = log.epoch_of(SPOOL) if SPOOL in found.next_offsets else None
        records: deque[_Due] = deque()
        for line in found.data.splitlines():
            record = orjson.loads(line)
            partition = SPOOL if record["epoch"] == spool_epoch else record["partition"]
            time_ms = round(datetime.fromisoformat(record["time"]).timestamp() * 1000)
            records.append(_Due(time_ms, partition, record["offset"], line))
        self._lanes[log.name] = _Lane(records, found.next_offsets)

    def take(self, hub: Hub, offsets: dict[str, Offsets]) -> tuple[list[bytes], float]:
        """The events that are due, which moves `offsets`, and after how many seconds to come again."""
        now = asyncio.get_running_loop().time()
        events: list[bytes] = []
        while len(events) < PACED_RECORDS:
            stream, lane = min(self._lanes.items(), key=lambda item: item[1].records[0].time_ms)
            record = lane.records[0]
            wait_s = self._due(record.time_ms, now) - now
            if wait_s > 0:
                return events, min(wait_s, WAIT_S_MAX)
            lane.records.popleft()
            offsets[stream] = {**offsets[stream], record.partition: record.offset + 1}
            events.append(message_event(hub.cursor_text(offsets), record.line))
            if not lane.records:
                offsets[stream] = behind(offsets[stream], lane.then)
                del self._lanes[stream]
                break  # what comes next in this stream may come before what waits in the others
        return events, 0.0

    def _due(self, time_ms: int, now: float) -> float:
        if self._started is None:
            self._started = (now, time_ms)
        started, first_ms = self._started
        return started + (time_ms - first_ms) / 1000 / self._speed
