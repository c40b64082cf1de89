"""LimitHits: how often each limit was reached, and when last.

A hit is one occasion (a packet, a connection, a batch of messages), not a message: what was dropped is counted by
reason elsewhere. Names are those of the settings.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class LimitHits:
    """Counts since the start; at most one for each setting."""

    __slots__ = ("clock", "count", "last_ms", "on_hit")

    def __init__(self, clock: Callable[[], int] = lambda: 0) -> None:
        self.clock = clock
        """Epoch milliseconds."""
        self.count: Counter[str] = Counter()
        self.last_ms: dict[str, int] = {}
        self.on_hit: Callable[[str], None] | None = None
        """Called with the name at each hit; it must not take long."""

    def hit(self, name: str) -> None:
        """The limit `name` was reached."""
        self.count[name] += 1
        self.last_ms[name] = self.clock()
        if self.on_hit is not None:
            self.on_hit(name)
