"""LoopDelay: how late the event loop is, which is what everybody waits for when there is too much to do.

A timer that is due ten times a second says by how much it came too late. The delay halves with each timely one, so one
slow turn is not forgotten at once and a good second is enough to be well again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

INTERVAL_S = 0.1


class LoopDelay:
    """Measures while it is started."""

    __slots__ = ("_due", "_loop", "_timer", "most_s", "now_s")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.now_s = 0.0
        self.most_s = 0.0
        """Since the start."""

    def start(self) -> None:
        """Begin."""
        self._due = self._loop.time() + INTERVAL_S
        self._timer = self._loop.call_at(self._due, self._measure)

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _measure(self) -> None:
        self.take(self._loop.time() - self._due)
        self.start()

    def take(self, late_s: float) -> None:
        """The timer came so late."""
        self.now_s = max(late_s, self.now_s / 2) if late_s > 0.001 else self.now_s / 2
        self.most_s = max(self.most_s, self.now_s)
