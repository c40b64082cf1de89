"""One step of a reader that is fed from the log: a slice of its snapshot, or a bounded piece of its history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.cursors import distance
from bridge.history.scan import Scan, StreamScan
from bridge.live.events import gap_event, live_event
from bridge.live.reader import Place
from bridge.live.start import SnapshotSource
from bridge.streams.log import StreamLogError

RETRY_S = 0.5
"""After so long a storage that does not answer is asked again."""

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
    stream = _next_stream(hub, reader)
    if stream is None:
        if reader.parked is None and not hub.is_caught_up(reader):
            return RETRY_S  # it knows more than the hub: a storage that was not reached yet since the start
        hub.join(reader)
        return 0.0
    if reader.parked is None and hub.behind_by(reader) <= hub.limits.park_records_max and not hub.is_ahead(reader):
        hub.park(reader)
    try:
        return await _feed_history(hub, reader, stream)
    except StreamLogError as error:
        if not error.retriable:
            raise
        return RETRY_S


def _next_stream(hub: Hub, reader: Reader) -> str | None:
    offsets = reader.offsets or {}
    bounds = reader.bounds if reader.bounds is not None else hub.offsets
    return next((name for name, places in offsets.items() if distance(places, bounds[name])), None)


def _feed_snapshot(hub: Hub, reader: Reader, source: SnapshotSource) -> None:
    body = source.take(hub.limits.feed_bytes_max // 4)
    if body:
        reader.write(body)
        return
    reader.snapshot = None
    if reader.offsets is not None:
        reader.says_live = False
        reader.write(live_event(hub.cursor_text(reader.offsets)))
        reader.has_told = True


async def _feed_history(hub: Hub, reader: Reader, stream: str) -> float:
    log = hub.log_by_name[stream]
    epoch = log.epoch
    limits = hub.limits
    offsets = reader.offsets
    assert offsets is not None  # it is FEEDING
    end = (reader.bounds or hub.offsets)[stream]
    start = {partition: offsets[stream].get(partition, 0) for partition in end}
    before, after = hub.beside(offsets, stream)
    result = await hub.pieces.read(
        log,
        StreamScan(
            Scan(
                stream,
                log.epoch,
                reader.group.filters,
                0,
                0,
                "event",
                # Where times may fall within a partition, the first offset of a time is not all there is to it.
                from_ms=reader.since_ms if log.reads_back else None,
                records_max=limits.scan_records_max,
                bytes_max=limits.feed_bytes_max,
                work_max=limits.scan_work_max,
            ),
            start,
            end,
            before,
            after,
        ),
    )
    if reader.place is Place.CLOSED or log.epoch != epoch:
        return 0.0  # it has been told of the new epoch
    if not result.is_epoch_current and log.reads_back:
        return RETRY_S  # the log will see the same in a moment, and tell every reader
    if result.next_offsets == start and reader.bounds is not None:
        # Records have moved on since the bound was noted: their new place lies behind it.
        hub.unpark(reader)
        return RETRY_S / 10
    reader.has_told = False
    first = result.first_offsets
    lost = distance(start, {partition: first[partition] for partition in start if partition in first})
    if not result.is_epoch_current or lost:
        told = hub.cursor_text(offsets)
        offsets[stream] = (
            {partition: max(offset, first.get(partition, 0)) for partition, offset in start.items()}
            if result.is_epoch_current
            else {**start, **first}
        )
        reason = "retention" if result.is_epoch_current else "epoch"
        gap = gap_event(told, hub.cursor_text(offsets), lost if result.is_epoch_current else None, reason)  # type: ignore[arg-type]
        reader.write(gap)
    if result.is_epoch_current:
        if result.data:
            reader.write(result.data)
            reader.sent += result.count
        so_far = offsets[stream]
        offsets[stream] = {
            partition: max(so_far[partition], result.next_offsets.get(partition, 0)) for partition in so_far
        }
    return 0.0
