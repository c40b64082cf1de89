"""HeldValues: the latest event of each topic for a reader that is too slow for all of them.

Events leave in the order of their commit. So the cursor that an event carries never passes a value that is still
held: what is held was committed later.
"""

from __future__ import annotations

from collections.abc import Sequence


class HeldValues:
    """At most one event a topic, at most `bytes_max` in all."""

    __slots__ = ("_event_by_topic", "bytes", "bytes_max", "conflated")

    def __init__(self, bytes_max: int) -> None:
        self._event_by_topic: dict[str, bytes] = {}
        self.bytes = 0
        self.bytes_max = bytes_max
        self.conflated = 0
        """How many events a newer one of their topic has replaced."""

    def __len__(self) -> int:
        return len(self._event_by_topic)

    def hold(self, topics: Sequence[str], events: Sequence[bytes]) -> bool:
        """Keep these in place of older ones; False when there is more than may be held."""
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
        """The oldest held events, whole, until `bytes_max` is reached."""
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
