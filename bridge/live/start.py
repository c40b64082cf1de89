"""Start: where a new reader begins, judged from what it asked for. Cursor, then `since`, then the present.

Whatever a cursor cannot give exactly is said as a gap, never hidden.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from bridge.cursors import Cursor
from bridge.live.events import GapReason

if TYPE_CHECKING:
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

    offsets: dict[str, int]
    gaps: list[Gap] = field(default_factory=list)
    says_live: bool = False
    """Whether the reader is told when it has come to the present."""
    snapshot: SnapshotSource | None = None


async def start_at_time(logs: Sequence[StreamLog], since_ms: int) -> Start:
    """Begin with the first record at or after a time, in each stream."""
    offsets = await asyncio.gather(*(log.offset_at(since_ms) for log in logs))
    return Start(dict(zip((log.name for log in logs), offsets, strict=True)), says_live=True)


def start_live(hub: Hub, logs: Sequence[StreamLog]) -> Start:
    """Begin with what is committed next."""
    return Start(hub.offsets_of(log.name for log in logs))


def start_at_cursor(hub: Hub, logs: Sequence[StreamLog], cursor: Cursor) -> Start:
    """Resume. A stream that the cursor does not name begins live; one that the reader does not follow is left out."""
    offsets = hub.offsets_of(log.name for log in logs)
    gaps: list[Gap] = []
    resumed = {log.name: log for log in logs if log.name in cursor.position_by_stream}
    found: dict[str, tuple[int, GapReason | None, int | None]] = {}
    for name, log in resumed.items():
        found[name] = _judge(hub, log, cursor)
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


def _judge(hub: Hub, log: StreamLog, cursor: Cursor) -> tuple[int, GapReason | None, int | None]:
    """Where the stream goes on, and what is missing before that."""
    position = cursor.position_by_stream[log.name]
    if position.epoch != log.epoch:
        return log.first_offset, "epoch", None
    next_offset = hub.next_offset[log.name]
    offset = position.offset_by_partition.get(0, log.first_offset)
    if offset > next_offset:
        return next_offset, "unknown", None
    if offset < log.first_offset:
        return log.first_offset, "retention", log.first_offset - offset
    return offset, None, None
