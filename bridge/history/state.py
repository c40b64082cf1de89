"""State: the last record of each topic before some place in a stream, found by walking backwards from there."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import accumulate
from operator import itemgetter
from typing import Literal, NamedTuple

from bridge.encoding import encode_rows
from bridge.history.scan import Answer, Question
from bridge.records import RecordRun
from bridge.streams.collect import Collector, TopicChoice


class PastRecord(NamedTuple):
    """A topic's last record before the place that was asked about."""

    topic: str
    time_ms: int
    line: bytes
    """Its JSON object, without the closing brace."""


@dataclass(frozen=True, slots=True)
class StateAnswer(Answer):
    """Records in order of their topics. Packed, so that a long state costs the event loop no more than a copy."""

    topics: bytes
    topic_ends: array[int]
    times_ms: array[int]
    lines: bytes
    line_ends: array[int]
    is_all: bool
    """Nothing of what was found was left out for `limit`."""

    def __len__(self) -> int:
        return len(self.times_ms)

    def __iter__(self) -> Iterator[PastRecord]:
        topic_start = line_start = 0
        for topic_end, time_ms, line_end in zip(self.topic_ends, self.times_ms, self.line_ends, strict=True):
            yield PastRecord(self.topics[topic_start:topic_end].decode(), time_ms, self.lines[line_start:line_end])
            topic_start, line_start = topic_end, line_end


def merged(answers: Sequence[StateAnswer]) -> Iterator[PastRecord]:
    """The records of several partitions or streams in order of their topics; of two of one topic the later."""
    if len(answers) == 1:
        yield from answers[0]
        return
    last: PastRecord | None = None
    for record in heapq.merge(*answers, key=itemgetter(0)):
        if last is not None and last.topic == record.topic:
            last = max(last, record, key=itemgetter(1))
            continue
        if last is not None:
            yield last
        last = record
    if last is not None:
        yield last


@dataclass(frozen=True, slots=True)
class StateQuestion(Question[StateAnswer]):
    """The last record of each topic in the range. `from_ms` is how far back to look."""

    order: Literal["desc"] = "desc"
    _: KW_ONLY
    after: str = ""
    """Only topics after this one."""
    limit: int
    """The first so many of them."""
    name_part: str = ""
    """Only topics with this in their name, in lower case."""
    last_client_id: str | None = None
    """Only topics whose last record is of this client."""
    topics_max: int
    """Give up once so many topics were found."""

    def wants(self, topic: str) -> bool:
        """The topic is asked about."""
        return topic > self.after and (not self.name_part or self.name_part in topic.lower())


class StateCollector(Collector[StateAnswer]):
    """The first record of each topic that comes, in descending order."""

    request: StateQuestion

    def __init__(
        self, request: StateQuestion, kept: tuple[int, int], start: int, end: int, choice: TopicChoice
    ) -> None:
        super().__init__(request, kept, start, end, choice)
        self.seen: set[str] = set()
        """Topics of which a record has come."""
        self._found: list[PastRecord] = []
        self._epoch = request.epoch

    @property
    def is_bound_reached(self) -> bool:
        return len(self.seen) >= self.request.topics_max or super().is_bound_reached

    def turn_to(self, start: int, end: int, epoch: str, cursor_head: str, cursor_tail: str) -> None:
        super().turn_to(start, end, epoch, cursor_head, cursor_tail)
        self._epoch = epoch

    def finish(self) -> None:
        """All topics that there are have been seen: nothing is left to look for."""
        self.position = self.start

    def _take(self, run: RecordRun, rows: Sequence[int]) -> int | None:
        topics, seen, request = run.topics, self.seen, self.request
        wanted: list[int] = []
        for row in rows:
            name = topics[row].name
            if name not in seen:
                seen.add(name)
                if request.wants(name):
                    wanted.append(row)
        if wanted and request.last_client_id in (None, run.client_id):
            wanted.reverse()
            lines = encode_rows("json", request.stream, self._epoch, run, wanted)
            time_ms = run.received_at_ms
            self._found += [
                PastRecord(topics[row].name, time_ms, line[:-2]) for row, line in zip(wanted, lines, strict=True)
            ]
        return None

    def result(self) -> StateAnswer:
        limit = self.request.limit
        records = heapq.nsmallest(limit, self._found, key=itemgetter(0))
        topics = [record.topic.encode() for record in records]
        return StateAnswer(
            topics=b"".join(topics),
            topic_ends=array("I", accumulate(map(len, topics))),
            times_ms=array("q", [record.time_ms for record in records]),
            lines=b"".join([record.line for record in records]),
            line_ends=array("I", accumulate([len(record.line) for record in records])),
            is_all=len(records) == len(self._found),
            **self._reached(),
        )
