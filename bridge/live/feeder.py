"""One step of a reader that is fed from the log: a slice of its snapshot, or a bounded piece of its history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bridge.cursors import Offsets, distance
from bridge.history.scan import Encoding, Scan, StreamScan, StreamScanResult
from bridge.live.events import GapReason, gap_event, live_event, position_event
from bridge.live.pacing import PACED_BYTES, PACED_RECORDS, Pacing, behind, find_end, is_near
from bridge.live.reader import Place
from bridge.live.start import SnapshotSource
from bridge.streams.log import StreamLog, StreamLogError

RETRY_S = 0.5
"""After so long a storage that does not answer is asked again."""
UNTIL_STEP_S = 0.05
"""A reader that has all there is looks so often whether its end has come."""

if TYPE_CHECKING:
    from bridge.live.hub import Hub
    from bridge.live.reader import Reader


async def feed_reader(hub: Hub, reader: Reader) -> float:
    """Take one step; the hub asks again while the reader is FEEDING and its transport takes more.

    Returns after how many seconds that is worth while.

    Raises: StreamLogError that is not retriable, and whatever else reading the log may raise.
    """
    if reader.is_full or reader.place is not Place.FEEDING:
        return 0.0
    if reader.snapshot is not None:
        _feed_snapshot(hub, reader, reader.snapshot)
        return 0.0
    try:
        if reader.until_ms is not None and reader.until_offsets is None:
            await find_end(hub, reader)
        if reader.pacing is not None:
            return await _feed_paced(hub, reader, reader.pacing)
        streams = _streams_behind(hub, reader)
        if not streams:
            return _caught_up(hub, reader)
        if reader.parked is None and _may_park(hub, reader):
            hub.park(reader)
        return await _feed_streams(hub, reader, streams)
    except StreamLogError as error:
        if not error.retriable:
            raise
        return RETRY_S


def _may_park(hub: Hub, reader: Reader) -> bool:
    return (
        hub.behind_by(reader) <= hub.limits.park_records_max
        and not hub.is_ahead(reader)
        and not (reader.until_ms is not None and is_near(reader.until_ms))
    )


def _caught_up(hub: Hub, reader: Reader) -> float:
    """It has all there is, or all that it wants. Returns when to ask again."""
    if reader.until_offsets is not None:
        assert reader.offsets is not None  # it is FEEDING
        reader.end(hub.cursor_text(reader.offsets))
        return 0.0
    if reader.until_ms is not None and is_near(reader.until_ms):
        return UNTIL_STEP_S
    if reader.parked is None and not hub.is_caught_up(reader):
        return RETRY_S  # it knows more than the hub: a storage that was not reached yet since the start
    hub.join(reader)
    return 0.0


def _bounds(hub: Hub, reader: Reader) -> dict[str, Offsets]:
    """Up to where the log is read for it."""
    if reader.until_offsets is not None:
        return reader.until_offsets
    return reader.bounds if reader.bounds is not None else hub.offsets


def _streams_behind(hub: Hub, reader: Reader) -> list[str]:
    bounds = _bounds(hub, reader)
    return [name for name, places in (reader.offsets or {}).items() if distance(places, bounds[name])]


def _feed_snapshot(hub: Hub, reader: Reader, source: SnapshotSource) -> None:
    body = source.take(hub.limits.feed_bytes_max // 4)
    if body:
        reader.write(body)
        return
    reader.snapshot = None
    if reader.offsets is not None:
        cursor = hub.cursor_text(reader.offsets)
        if reader.is_live_after_snapshot:
            reader.says_live = False
            reader.write(live_event(cursor))
        else:
            reader.write(position_event(cursor))
        reader.has_told = True


async def _feed_streams(hub: Hub, reader: Reader, streams: Sequence[str]) -> float:
    """A piece of each: a storage that cannot be read now, or of which a part cannot, holds up none of the others.

    Raises: as `feed_reader`.
    """
    wait_s = RETRY_S
    for stream in streams:
        if reader.is_full or reader.place is not Place.FEEDING:
            return 0.0
        try:
            wait_s = min(wait_s, await _feed_history(hub, reader, stream))
        except StreamLogError as error:
            if not error.retriable:
                raise
    return wait_s


async def _feed_history(hub: Hub, reader: Reader, stream: str) -> float:
    log = hub.log_by_name[stream]
    epoch = log.epoch
    assert reader.offsets is not None  # it is FEEDING
    start, end = _range(hub, reader, stream)
    before, after = hub.beside(reader.offsets, stream)
    what = _scan(hub, reader, log, "event", hub.limits.scan_records_max, hub.limits.feed_bytes_max)
    result = await hub.pieces.read(log, StreamScan(what, start, end, before, after))
    wait_s = _judge(hub, reader, log, epoch, start, result)
    if wait_s is not None:
        return wait_s
    if result.data:
        reader.write(result.data)
        reader.sent += result.count
    _move(reader, stream, result)
    return RETRY_S / 10 if result.next_offsets == start else 0.0


async def _feed_paced(hub: Hub, reader: Reader, pacing: Pacing) -> float:
    """Send what is due, in order of time over all streams; returns when the next is."""
    assert reader.offsets is not None  # it is FEEDING
    bounds = _bounds(hub, reader)
    for stream in pacing.empty(reader.offsets):
        if not distance(reader.offsets[stream], bounds[stream]):
            continue
        log = hub.log_by_name[stream]
        epoch = log.epoch
        start, end = _range(hub, reader, stream)
        what = _scan(hub, reader, log, "json", PACED_RECORDS, PACED_BYTES)
        result = await log.scan_stream(StreamScan(what, start, end))
        wait_s = _judge(hub, reader, log, epoch, start, result)
        if wait_s is not None:
            return wait_s
        if not result.count:
            _move(reader, stream, result)
            return 0.0  # there may be something further on
        pacing.put(log, result)
    if pacing.is_empty:
        return _caught_up(hub, reader)
    events, wait_s = pacing.take(hub, reader.offsets)
    if events:
        reader.has_told = True
        reader.write(b"".join(events))
        reader.sent += len(events)
    return wait_s


def _range(hub: Hub, reader: Reader, stream: str) -> tuple[Offsets, Offsets]:
    assert reader.offsets is not None  # it is FEEDING
    end = _bounds(hub, reader)[stream]
    return {partition: reader.offsets[stream].get(partition, 0) for partition in end}, end


def _scan(hub: Hub, reader: Reader, log: StreamLog, encoding: Encoding, records_max: int, bytes_max: int) -> Scan:
    """What to read; its range stands beside it."""
    return Scan(
        log.name,
        log.epoch,
        reader.group.filters,
        0,
        0,
        encoding,
        # Where times may fall within a partition, the first offset of a time is not all there is to it.
        from_ms=reader.since_ms if log.reads_back else None,
        until_ms=reader.until_ms if log.reads_back else None,
        records_max=records_max,
        bytes_max=bytes_max,
        work_max=hub.limits.scan_work_max,
    )


def _judge(
    hub: Hub, reader: Reader, log: StreamLog, epoch: str, start: Offsets, result: StreamScanResult
) -> float | None:
    """Tell of what is missing before a piece. None: the piece can be used; else when to ask again."""
    if reader.place is Place.CLOSED or log.epoch != epoch or reader.offsets is None:
        return 0.0  # it has been told of the new epoch
    if not result.is_epoch_current and log.reads_back:
        return RETRY_S  # the log will see the same in a moment, and tell every reader
    if result.next_offsets == start and reader.bounds is not None:
        # Records have moved on since the bound was noted: their new place lies behind it.
        hub.unpark(reader)
        return RETRY_S / 10
    reader.has_told = False
    offsets, first = reader.offsets, result.first_offsets
    lost = distance(start, {partition: first[partition] for partition in start if partition in first})
    if not result.is_epoch_current or lost:
        told = hub.cursor_text(offsets)
        offsets[log.name] = (
            {partition: max(offset, first.get(partition, 0)) for partition, offset in start.items()}
            if result.is_epoch_current
            else {**start, **first}
        )
        reason: GapReason = "retention" if result.is_epoch_current else "epoch"
        reader.write(gap_event(told, hub.cursor_text(offsets), lost if result.is_epoch_current else None, reason))
    return None if result.is_epoch_current else 0.0


def _move(reader: Reader, stream: str, result: StreamScanResult) -> None:
    """The reader stands behind what was read."""
    assert reader.offsets is not None  # it is FEEDING
    reader.offsets[stream] = behind(reader.offsets[stream], result.next_offsets)
