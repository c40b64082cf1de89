"""Group: live readers with the same filters, who get the same bytes.

A group's position is the hub's position: whatever was committed was written to its members or matched none of its
filters. A reader is a member only while that is true of it. `Bell` is the same for those who only want to know that
something came.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bridge.live.events import chunk

if TYPE_CHECKING:
    from bridge.live.reader import Reader

logger = logging.getLogger(__name__)


class Group:
    """Readers of one set of filters over one set of streams."""

    __slots__ = ("filters", "holders", "members", "parked", "pending", "pending_bytes", "readers", "streams", "told")

    def __init__(self, filters: tuple[str, ...], streams: tuple[str, ...]) -> None:
        self.filters = filters
        self.streams = streams
        self.readers = 0
        """How many name this group, wherever they are; it is forgotten with the last."""
        self.members: dict[Reader, None] = {}
        """Those who have all that was flushed."""
        self.parked: set[Reader] = set()
        """Those who read their last piece of history and keep what is flushed meanwhile."""
        self.holders: set[Reader] = set()
        """Those who are full and keep what their policy says."""
        self.pending: list[bytes] = []
        self.pending_bytes = 0
        self.told = ""
        """The last cursor that every member knows."""

    def add(self, topics: Callable[[], Sequence[str]], events: list[bytes]) -> None:
        """Events that were just committed, in order."""
        if self.members or self.parked:
            self.pending += events
            self.pending_bytes += sum(map(len, events))
        if self.holders:
            names = topics()
            for reader in tuple(self.holders):
                reader.hold(names, events)

    def flush(self) -> None:
        """Write what is pending to every member; one reader's failure is its own."""
        if not self.pending:
            return
        body = b"".join(self.pending)
        count = len(self.pending)
        self.pending = []
        self.pending_bytes = 0
        for reader in tuple(self.parked):
            reader.park(body, count)
        self.write(body, tuple(self.members), count)

    def write(self, body: bytes, readers: Sequence[Reader], count: int = 0) -> None:
        """Write one body to some members, framed once."""
        framed = chunk(body)
        for reader in readers:
            outlet = reader.outlet
            try:
                outlet.write(framed if outlet.is_framed else body)
                reader.sent += count
            except Exception:
                logger.exception("a live reader failed and is closed")
                reader.close()


class Bell:
    """Rings once when a record that matches is committed."""

    __slots__ = ("filters", "on_ring")

    def __init__(self, filters: tuple[str, ...], on_ring: Callable[[], None]) -> None:
        self.filters = filters
        self.on_ring = on_ring
