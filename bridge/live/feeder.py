"""One step of a reader that is fed from the log: a slice of its snapshot, or a bounded piece of its history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.cursors import distance
from bridge.history.scan import Scan, StreamScan
from bridge.live.events import gap_event, live_event
from bridge.live.reader import Place
from bridge.live.start import SnapshotSource

if TYPE_CHECKING:
    from bridge.live.hub import Hub
    from bridge.live.reader import Reader


async def feed_reader(hub: Hub, reader: Reader) -> None:
    """Take one step; the hub asks again while the reader is FEEDING and its transport takes more.

    Raises: StreamLogError and whatever else reading the log may raise.
    """
    if reader.is_full or reader.place is not Place.FEEDING:
        return
    if reader.snapshot is not None:
        _feed_snapshot(hub, reader, reader.snapshot)
        return
    stream = _next_stream(hub, reader)
    if stream is None:
        hub.join(reader)
        return
    if reader.parked is None and hub.behind_by(reader) <= hub.limits.park_records_max:
        hub.park(reader)
    await _feed_history(hub, reader, stream)


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


async def _feed_history(hub: Hub, reader: Reader, stream: str) -> None:
    log = hub.log_by_name[stream]
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
    if reader.place is Place.CLOSED:
        return
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
