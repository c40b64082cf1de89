"""Start: where a new reader begins, judged from what it asked for. Cursor, then `since`, then the present.

Whatever a cursor cannot give exactly is said as a gap, never hidden.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from bridge.cursors import SPOOL, UNKNOWN, Cursor
from bridge.live.events import GapReason

if TYPE_CHECKING:
    from bridge.cursors import Offsets, StreamPosition
    from bridge.live.hub import Hub
    from bridge.streams.log import StreamLog


@dataclass(frozen=True, slots=True)
class Gap:
    """Records between two cursors are gone; `lost` is None when nobody knows how many."""

    before: str
    after: str
    lost: int | None
    reason: GapReason


class SnapshotSource(Protocol):
    """Snapshot events, in slices."""

    def take(self, bytes_max: int) -> bytes:
        """Some whole events, at least one; empty when there are no more."""


@dataclass(slots=True)
class Start:
    """The first position, and what to say before it."""

    offsets: dict[str, Offsets]
    gaps: list[Gap] = field(default_factory=list)
    says_live: bool = False
    """Whether the reader is told when it has come to the present."""
    snapshot: SnapshotSource | None = None
    is_live_after_snapshot: bool = True
    """The snapshot is that of the present; else history follows it."""
    since_ms: int | None = None
    """Nothing that was received before this time is wanted (epoch milliseconds)."""
    until_ms: int | None = None
    """Nothing that is received at or after this time is wanted; the response ends there."""
    speed: float | None = None
    """How much faster than it happened history is sent; None: as fast as the reader takes it."""


async def start_at_time(logs: Sequence[StreamLog], since_ms: int) -> Start:
    """Begin with the first record at or after a time, in each stream."""
    offsets = await asyncio.gather(*(log.offsets_at(since_ms) for log in logs))
    return Start(dict(zip((log.name for log in logs), offsets, strict=True)), says_live=True, since_ms=since_ms)


def start_live(hub: Hub, logs: Sequence[StreamLog]) -> Start:
    """Begin with what is committed next."""
    return Start(hub.offsets_of(log.name for log in logs))


def start_at_cursor(hub: Hub, logs: Sequence[StreamLog], cursor: Cursor) -> Start:
    """Resume. A stream that the cursor does not name begins live; one that the reader does not follow is left out."""
    offsets = hub.offsets_of(log.name for log in logs)
    gaps: list[Gap] = []
    resumed = {log.name: log for log in logs if log.name in cursor.position_by_stream}
    found: dict[str, tuple[Offsets, GapReason | None, int | None]] = {}
    for name, log in resumed.items():
        found[name] = judge(log, hub.offsets[name], cursor.position_by_stream[name])
        offsets[name] = found[name][0]
    # A gap stands before what it is about: each says how one stream goes on, the others as they already do.
    unknown = [name for name in cursor.position_by_stream if name not in hub.log_by_name]
    after = hub.cursor_text(offsets)
    before = str(cursor)
    if unknown:
        gaps.append(Gap(before, after, None, "unknown"))
    for _, reason, lost in found.values():
        if reason is not None:
            gaps.append(Gap(before, after, lost, reason))
    return Start(offsets, gaps, says_live=True)


def judge(log: StreamLog, present: Offsets, position: StreamPosition) -> tuple[Offsets, GapReason | None, int | None]:
    """Where a stream goes on after a cursor, and why and how much is missing before that.

    `present` is the position of those who are live. A partition that the cursor does not name has come since.
    """
    own = log.position(present)
    first, ends = log.first_offsets, log.ends
    offsets = dict(present)
    reason: GapReason | None = None
    lost: int | None = None
    if position.spool_epoch is not None and own.spool_epoch is not None:
        if position.spool_epoch == own.spool_epoch:
            offsets[SPOOL] = min(position.offset_by_partition[SPOOL], present[SPOOL])
        else:  # another data directory, or a restored one
            offsets[SPOOL], reason = first[SPOOL], "epoch"
    if position.epoch != own.epoch:
        if position.epoch == UNKNOWN:  # it knows the spool alone; what has moved from there lies behind the contact
            begin = {partition: log.contact_offsets.get(partition, 0) for partition in present if partition != SPOOL}
            return {**offsets, **begin}, reason, None
        if own.epoch == UNKNOWN:
            return offsets, reason or "unknown", None
        begin = {partition: first[partition] for partition in first if partition != SPOOL}
        return {**offsets, **begin}, "epoch", None
    added = dict.fromkeys(present, 0)
    for partition, offset in {**added, **position.offset_by_partition}.items():
        if partition == SPOOL:
            continue
        if partition not in present:
            reason, lost = reason or "unknown", None
        elif offset > ends.get(partition, 0):
            reason, lost = "unknown", None
        elif offset < first[partition]:
            offsets[partition] = first[partition]
            lost = first[partition] - offset + (lost or 0) if reason in (None, "retention") else None
            reason = reason or "retention"
        else:
            offsets[partition] = offset
    return offsets, reason, lost
