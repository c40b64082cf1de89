"""What is shown of latest values: snapshots as events, a page of topics, the inner nodes of their tree."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from bridge.live.latest import SLICE_TOPICS

if TYPE_CHECKING:
    from bridge.history.state import PastRecord
    from bridge.live.entries import Entry


class Snapshot:
    """Snapshot events of some entries, made when they are taken."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = iter(entries)

    def take(self, bytes_max: int) -> bytes:
        """Some whole events; empty when there are no more."""
        events = []
        size = 0
        for entry in self._entries:
            event = entry.snapshot_event()
            events.append(event)
            size += len(event)
            if size >= bytes_max or len(events) >= SLICE_TOPICS:
                break
        return b"".join(events)


class PastSnapshot:
    """Snapshot events of the records that topics had at a time."""

    def __init__(self, records: Iterator[PastRecord]) -> None:
        self._records = records

    def take(self, bytes_max: int) -> bytes:
        """Some whole events; empty when there are no more."""
        events = []
        size = 0
        for record in self._records:
            event = b"event: snapshot\ndata: %b}\n\n" % record.line
            events.append(event)
            size += len(event)
            if size >= bytes_max or len(events) >= SLICE_TOPICS:
                break
        return b"".join(events)


def topic_object(entry: Entry, now_ms: int) -> bytes:
    """One element of `topics` in the API: the record with its age, count and usual interval."""
    interval = b"%.3f" % (entry.interval_ms / 1000) if entry.interval_ms else b"null"
    return b'%b,"age_ms":%d,"count":%d,"interval_s":%b}' % (
        entry.json()[:-1],
        max(0, now_ms - entry.time_ms),
        entry.count,
        interval,
    )


class TopicNodes:
    """Inner nodes of the tree of topics, `depth` levels down."""

    def __init__(self, depth: int, now_ms: int) -> None:
        self._depth = depth
        self._now_ms = now_ms
        self._totals: dict[str, list[float]] = {}

    def add(self, entries: Iterable[Entry]) -> None:
        """Count some topics under their prefix: themselves, their messages a second, the bytes of their values."""
        for entry in entries:
            interval_ms = entry.interval_ms
            rate = 1000 / max(interval_ms, self._now_ms - entry.time_ms) if interval_ms else 0.0
            self.count(entry.topic.name, rate, len(entry.frame))

    def count(self, topic: str, rate: float, size: int) -> None:
        """Count one topic with its messages a second and the bytes of its value."""
        total = self._totals.setdefault("/".join(topic.split("/", self._depth)[: self._depth]), [0, 0.0, 0])
        total[0] += 1
        total[1] += rate
        total[2] += size

    def page(self, limit: int, after: str) -> dict[str, Any]:
        """The first `limit` nodes by prefix behind `after`, and with more of them the last as `next`."""
        found = heapq.nsmallest(limit + 1, [item for item in self._totals.items() if item[0] > after])
        page: dict[str, Any] = {
            "nodes": [
                {"prefix": prefix, "topics": int(topics), "rate": round(rate, 3), "bytes": int(size)}
                for prefix, (topics, rate, size) in found[:limit]
            ]
        }
        if len(found) > limit:
            page["next"] = found[limit - 1][0]
        return page
