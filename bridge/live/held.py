"""What is kept for a reader that is too slow to be live, by what it asked for; what is not kept is counted.

Events leave in the order of their commit. So the cursor that an event carries never passes one that is still held:
what is held was committed later.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Literal

from bridge.live.events import last_id

Overflow = Literal["replay", "conflate", "drop_oldest", "drop_newest", "disconnect"]
"""What becomes of a live reader that is too slow."""


class Held(ABC):
    """Events for one reader, until it takes them."""

    __slots__ = ("_last_dropped", "conflated", "dropped")

    def __init__(self) -> None:
        self.conflated = 0
        """How many events a newer one of their topic has replaced."""
        self.dropped = 0
        """How many are gone, since that was told last."""
        self._last_dropped = b""

    @abstractmethod
    def __len__(self) -> int:
        """How many events are held."""

    @abstractmethod
    def hold(self, topics: Sequence[str], events: Sequence[bytes]) -> bool:
        """Events that were just committed, with their topics; False when this cannot be held and is no loss either."""

    @abstractmethod
    def take(self, bytes_max: int) -> bytes:
        """The oldest held events, whole, until `bytes_max` is reached."""

    def drop(self, event: bytes, count: int = 1) -> None:
        """So many are gone, `event` last."""
        self.dropped += count
        self._last_dropped = event

    def tell_dropped(self) -> tuple[int, str]:
        """How many are gone, and the cursor behind them; from here on it counts anew."""
        count, self.dropped = self.dropped, 0
        cursor = last_id(self._last_dropped)
        assert cursor is not None  # it is an event
        return count, cursor


class HeldValues(Held):
    """`conflate`: at most one event a topic, at most `bytes_max` in all; with more topics nothing can be held."""

    __slots__ = ("_event_by_topic", "bytes", "bytes_max")

    def __init__(self, bytes_max: int) -> None:
        super().__init__()
        self._event_by_topic: dict[str, bytes] = {}
        self.bytes = 0
        self.bytes_max = bytes_max

    def __len__(self) -> int:
        return len(self._event_by_topic)

    def hold(self, topics: Sequence[str], events: Sequence[bytes]) -> bool:
        held = self._event_by_topic
        for topic, event in zip(topics, events, strict=True):
            older = held.pop(topic, None)  # a replaced value moves to the end: its event is as new as that
            if older is not None:
                self.bytes -= len(older)
                self.conflated += 1
            held[topic] = event
            self.bytes += len(event)
        return self.bytes <= self.bytes_max

    def take(self, bytes_max: int) -> bytes:
        held = self._event_by_topic
        events = []
        size = 0
        for topic in list(held):
            event = held.pop(topic)
            events.append(event)
            size += len(event)
            if size >= bytes_max:
                break
        self.bytes -= size
        return b"".join(events)


class NewestEvents(Held):
    """`drop_oldest`: as many of the newest as `bytes_max` allows."""

    __slots__ = ("_events", "bytes", "bytes_max")

    def __init__(self, bytes_max: int) -> None:
        super().__init__()
        self._events: deque[bytes] = deque()
        self.bytes = 0
        self.bytes_max = bytes_max

    def __len__(self) -> int:
        return len(self._events)

    def hold(self, topics: Sequence[str], events: Sequence[bytes]) -> bool:
        held = self._events
        held.extend(events)
        self.bytes += sum(map(len, events))
        while self.bytes > self.bytes_max:
            oldest = held.popleft()
            self.bytes -= len(oldest)
            self.drop(oldest)
        return True

    def take(self, bytes_max: int) -> bytes:
        events = []
        size = 0
        while self._events and size < bytes_max:
            events.append(self._events.popleft())
            size += len(events[-1])
        self.bytes -= size
        return b"".join(events)


class NoEvents(Held):
    """`drop_newest`: none of what comes while the reader is full."""

    __slots__ = ()

    def __len__(self) -> int:
        return 0

    def hold(self, topics: Sequence[str], events: Sequence[bytes]) -> bool:
        if events:
            self.drop(events[-1], len(events))
        return True

    def take(self, bytes_max: int) -> bytes:
        return b""


def held_for(overflow: Overflow, bytes_max: int) -> Held | None:
    """What keeps a reader's events while it is full; None: nothing is kept, they are in the log."""
    if overflow == "conflate":
        return HeldValues(bytes_max)
    if overflow == "drop_oldest":
        return NewestEvents(bytes_max)
    return NoEvents() if overflow == "drop_newest" else None
