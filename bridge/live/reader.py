"""Reader: one live reader, from its first byte to its last. It is a few slots, not a task.

It is in one of five places, and its own `offsets` are set in all but the second:

    FEEDING   the hub's feeders read the log for it, up to the bound that it noted; near the end it parks in its group
    LIVE      it is a member of its group, whose position is its own
    FULL      its transport takes no more; `replay`: it goes on FEEDING from its own position when it can write again
    HOLDING   full or draining, under `conflate`, `drop_oldest` or `drop_newest`: the group gives it what it may keep
    CLOSED
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from bridge.live.events import COMMENT, chunk, end_event, gap_event, live_event, position_event, retry_field
from bridge.live.held import Held, Overflow
from bridge.live.pacing import Pacing, call_before

if TYPE_CHECKING:
    from bridge.cursors import Offsets
    from bridge.live.group import Group
    from bridge.live.hub import Hub
    from bridge.live.start import SnapshotSource, Start


class Place(Enum):
    """Where a reader is."""

    FEEDING = "catching up"
    LIVE = "live"
    FULL = "full"
    HOLDING = "holding"
    CLOSED = "closed"


class Outlet(Protocol):
    """Where a reader's bytes go. It calls the reader's `pause`, `resume` and `close`."""

    is_framed: bool
    """Whether `write` wants HTTP chunks rather than bare event bytes."""

    def write(self, data: bytes) -> None:
        """Hand over bytes; never waits."""

    def set_water_marks(self, high: int, low: int) -> None:
        """Call `pause` when more than `high` bytes wait, `resume` when no more than `low` do."""

    def close(self) -> None:
        """End the response."""


class Reader:
    """One reader of one group."""

    __slots__ = (
        "bounds",
        "dropped",
        "group",
        "has_told",
        "held",
        "hub",
        "is_ending",
        "is_full",
        "is_live_after_snapshot",
        "is_queued",
        "offsets",
        "outlet",
        "overflow",
        "pacing",
        "parked",
        "parked_bytes",
        "parked_count",
        "place",
        "says_live",
        "sent",
        "since_ms",
        "snapshot",
        "subject",
        "timer",
        "until_ms",
        "until_offsets",
    )

    def __init__(self, hub: Hub, group: Group, overflow: Overflow, outlet: Outlet, subject: str = "anonymous") -> None:
        self.hub = hub
        self.group = group
        self.overflow: Overflow = overflow
        self.outlet = outlet
        self.subject = subject
        self.place = Place.FEEDING
        self.offsets: dict[str, Offsets] | None = None
        """Where it stands, by stream; None while its place is its group's."""
        self.bounds: dict[str, Offsets] | None = None
        """Set while parked: the log is read up to here, what comes after is in `parked`."""
        self.parked: list[bytes] | None = None
        self.parked_bytes = 0
        self.parked_count = 0
        self.held: Held | None = None
        self.dropped = 0
        """Events that it was told are gone because it was too slow."""
        self.snapshot: SnapshotSource | None = None
        self.is_live_after_snapshot = True
        self.pacing: Pacing | None = None
        """Set while history is sent at its own pace."""
        self.until_ms: int | None = None
        self.until_offsets: dict[str, Offsets] | None = None
        """Where it ends, once that time has passed and all that belongs before it is committed."""
        self.is_ending = False
        """All is written; it is closed when the transport has taken it."""
        self.timer: asyncio.TimerHandle | None = None
        """Live, and to leave its group a little before `until_ms`."""
        self.since_ms: int | None = None
        """It wants nothing that was received before this."""
        self.says_live = False
        self.has_told = False
        """Whether the last event written carries the reader's position."""
        self.is_full = False
        self.is_queued = False
        self.sent = 0

    def start(self, start: Start) -> None:
        """Write what stands before the first event, and take the first step. The response's head has been sent."""
        hub = self.hub
        self.offsets = dict(start.offsets)
        self.says_live = start.says_live
        self.snapshot = start.snapshot
        self.is_live_after_snapshot = start.is_live_after_snapshot
        self.since_ms = start.since_ms
        self.until_ms = start.until_ms
        self.pacing = Pacing(start.speed) if start.speed is not None else None
        first = [retry_field(hub.limits.retry_ms)]
        first += [gap_event(gap.before, gap.after, gap.lost, gap.reason) for gap in start.gaps]
        if start.snapshot is None and not start.gaps:
            # Told at once, so that a reader cut before its first event loses nothing either. Not before a snapshot: a
            # reader that is cut within one begins it again.
            first.append(position_event(hub.cursor_text(self.offsets)))
        self.has_told = start.snapshot is None
        hub.bound_feeding(self)
        self.write(b"".join(first))
        if start.snapshot is None and not start.says_live and start.until_ms is None and hub.is_caught_up(self):
            hub.join(self)
        else:
            hub.feed(self)

    def write(self, body: bytes) -> None:
        """Write event bytes to this reader alone."""
        if body:
            self.outlet.write(chunk(body) if self.outlet.is_framed else body)

    # What the outlet calls

    def pause(self) -> None:
        """More waits in the transport than its high-water mark."""
        if self.is_full or self.place is Place.CLOSED:
            return
        self.is_full = True
        if self.place is Place.LIVE:
            self.hub.leave(self)

    def resume(self) -> None:
        """The transport takes more."""
        if not self.is_full or self.place is Place.CLOSED:
            return
        self.is_full = False
        if self.is_ending:
            self.close()
        elif self.place is Place.HOLDING:
            self.drain()
        elif self.place is not Place.LIVE:
            self.place = Place.FEEDING
            self.hub.feed(self)

    def close(self) -> None:
        """The reader is gone, or has to go. Harmless when repeated."""
        if self.place is Place.CLOSED:
            return
        self.hub.forget(self)
        self.place = Place.CLOSED
        self.offsets = self.bounds = self.parked = self.held = self.snapshot = self.pacing = None
        self._cancel_timer()
        self.outlet.close()

    def end(self, cursor: str) -> None:
        """The end that it asked for is reached: say so, and close when the transport has taken all of it."""
        self.write(end_event(cursor))
        self.is_ending = True
        self.place = Place.FULL
        self.outlet.set_water_marks(0, 0)
        if not self.is_full:
            self.close()

    def _cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    # What the group gives

    def park(self, body: bytes, count: int) -> None:
        """Keep what was flushed while the last piece of history is read."""
        if self.parked is None:
            return
        self.parked.append(body)
        self.parked_bytes += len(body)
        self.parked_count += count
        if self.parked_bytes > self.hub.limits.park_bytes_max:
            self.hub.unpark(self)

    def hold(self, topics: Sequence[str], events: Sequence[bytes]) -> None:
        """Keep of these what its policy says while it is full; what cannot be held is read from the log instead."""
        if self.held is not None and not self.held.hold(topics, events):
            self.hub.stop_holding(self)

    def drain(self) -> None:
        """Write what is held until full again, after what was dropped before it; with nothing left, join the group."""
        held = self.held
        while held is not None and (held.dropped or len(held)) and not self.is_full:
            body = self._dropped_gap(held) if held.dropped else held.take(self.hub.limits.chunk_bytes_max // 4)
            self.hub.has_drained(self, body)
            self.write(body)
        if held is not None and not self.is_full and self.place is Place.HOLDING:
            self.hub.conflated += held.conflated
            self.hub.join(self)

    def _dropped_gap(self, held: Held) -> bytes:
        assert self.offsets is not None  # it is HOLDING
        lost, cursor = held.tell_dropped()
        self.dropped += lost
        self.hub.dropped += lost
        return gap_event(self.hub.cursor_text(self.offsets), cursor, lost, "overflow")

    def joined(self, cursor: str) -> None:
        """It has all that was committed: say so once, and let it know its position."""
        self.pacing = None
        if self.until_ms is not None:
            self._cancel_timer()
            self.timer = call_before(self.until_ms, self.hub.leave_to_end, self)
        if self.says_live:
            self.says_live = False
            self.write(live_event(cursor))
        elif not self.has_told:
            self.write(position_event(cursor))
        self.has_told = False

    def heartbeat(self) -> None:
        """For a reader outside its group: a comment, and the position when it may be told."""
        if self.is_full or self.place is Place.CLOSED:
            return
        if self.offsets is not None and self.snapshot is None and self.place is Place.FEEDING:
            self.write(COMMENT + position_event(self.hub.cursor_text(self.offsets)))
        else:
            self.write(COMMENT)
