"""One step of a reader that is fed from the log: a slice of its snapshot, or a bounded piece of its history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.history.scan import Scan
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
    bounds = reader.bounds if reader.bounds is not None else hub.next_offset
    return next((name for name, offset in offsets.items() if offset < bounds[name]), None)


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
    start = offsets[stream]
    end = (reader.bounds or hub.next_offset)[stream]
    head, tail = hub.around(offsets, stream)
    result = await hub.pieces.read(
        log,
        Scan(
            stream,
            log.epoch,
            reader.group.filters,
            start,
            end,
            "event",
            records_max=limits.scan_records_max,
            bytes_max=limits.feed_bytes_max,
            work_max=limits.scan_work_max,
            cursor_head=head,
            cursor_tail=tail,
        ),
    )
    if reader.place is Place.CLOSED:
        return
    reader.has_told = False
    if not result.is_epoch_current or result.first_offset > start:
        before = hub.cursor_text(offsets)
        offsets[stream] = result.first_offset
        lost = result.first_offset - start if result.is_epoch_current else None
        reason = "retention" if result.is_epoch_current else "epoch"
        reader.write(gap_event(before, hub.cursor_text(offsets), lost, reason))  # type: ignore[arg-type]
    if result.is_epoch_current:
        if result.data:
            reader.write(result.data)
            reader.sent += result.count
        offsets[stream] = max(offsets[stream], result.next_offset)
