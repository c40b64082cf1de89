"""Ledger: what one consumer has got of some flows, judged as it comes and kept as a bit for each number.

For runs that are too long to keep every event. A consumer of Kafka itself, of the history and of live events each has
its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from tests.support.flow import Flow
from tests.support.http_client import Event, SseReader

FAULTS_MAX = 5
"""Of one ledger; behind the first the others are echoes most of the time."""


class Ledger:
    """Each number of a topic at most once, in rising order as far as that is promised; what was acknowledged is there
    in the end."""

    def __init__(self, where: str, flows: Iterable[Flow]) -> None:
        self.where = where
        self.faults: list[str] = []
        self.count = 0
        self._flow_by_topic = {topic: flow for flow in flows for topic in flow.topics}
        self._got = {topic: bytearray() for topic in self._flow_by_topic}
        self._last: dict[tuple[str, str], tuple[int, str]] = {}
        """Number and place of the last record of each topic in each source."""

    def take(self, topic: str, number: int, place: str = "", source: str = "") -> None:
        """The next record; `place` says where it stood, for people. Order holds within a `source`."""
        got = self._got.get(topic)
        if got is None:
            self.fault(f"{topic} is nobody's ({place})")
            return
        self.count += 1
        last, last_place = self._last.get((topic, source), (-1, "nowhere"))
        if number >= len(got):
            got.extend(bytes(number + 1 - len(got)))
        elif got[number]:
            self.fault(f"{topic} {number} comes twice, now at {place}; the last was {last} at {last_place}")
        if number < last:
            self.fault(f"{topic} {number} at {place} comes after {last} at {last_place}")
        got[number] = 1
        self._last[topic, source] = (number, place)

    def fault(self, text: str) -> None:
        """Something that must not happen."""
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(f"{self.where}: {text}")

    def lacks(self) -> dict[str, Sequence[int]]:
        """By topic the acknowledged numbers that have not come."""
        missing = {}
        for topic, flow in self._flow_by_topic.items():
            got = self._got[topic]
            lacking = [number for number in tuple(flow.acknowledged[topic]) if number >= len(got) or not got[number]]
            if lacking:
                missing[topic] = sorted(lacking)
        return missing

    def lacking_text(self) -> str:
        """What is missing, for people."""
        return "; ".join(
            f"{topic} lacks {len(numbers)}: {', '.join(map(str, numbers[:4]))}… up to {numbers[-1]}, "
            f"the last were {[last for (name, _), last in self._last.items() if name == topic]}"
            for topic, numbers in self.lacks().items()
        )


class LedgerReader(SseReader):
    """A live reader that keeps a ledger; it may stay away for a while and come back with its cursor."""

    def __init__(self, name: str, http_url: str, topics: Sequence[str], flows: Iterable[Flow]) -> None:
        super().__init__(http_url, [("topic", topic) for topic in topics])
        self.ledger = Ledger(name, flows)
        self.gaps: list[str] = []
        self._may_read = threading.Event()
        self._may_read.set()

    def take(self, event: Event) -> None:
        """Judge an event in place of keeping it."""
        if event.name == "message":
            data = event.json
            place = f"{data['epoch']}/{data['partition']}/{data['offset']} ({data['id']}, cursor {event.event_id})"
            # While Kafka cannot be read, what is spooled goes on alone: order holds in each (ADR 10).
            source = "spool" if str(data["epoch"]).startswith("spool-") else ""
            self.ledger.take(data["topic"], int(str(data["payload"])), place, source)
        elif event.name == "gap":
            self.ledger.fault(f"gap {event.data}")

    def is_wanted(self, status: int) -> bool:
        """A server that is about to stop says so, and is asked again."""
        if status not in (200, 503):
            self.ledger.fault(f"answer {status} to cursor {self.last_event_id}")
        return status == 503

    def before_connecting(self) -> None:
        """Wait for the end of an absence."""
        while not self._may_read.wait(0.1) and not self._stopped.is_set():
            continue

    def stay_away(self) -> None:
        """Disconnect, and come back when `come_back` says so."""
        self._may_read.clear()
        self._disconnect()

    def come_back(self) -> None:
        """Go on at the cursor."""
        self._may_read.set()
