"""Series: what a number in the payloads did over a range of time, reduced to a point for each part of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

from bridge.history.buckets import Buckets
from bridge.history.numbers import Number, Pointer, numbers_at
from bridge.history.row_pieces import pieces_of
from bridge.history.row_search import RowSearch
from bridge.history.scan import Answer, Question
from bridge.history.stored_rows import StoredRow
from bridge.records import RecordRun
from bridge.streams.collect import Collector, TopicChoice
from bridge.streams.frames import payloads_of
from bridge.streams.topic_index import HAS_V3, HAS_V5, RowTopics


class Point(NamedTuple):
    """The values of one bucket."""

    min: Number
    max: Number
    last: Number
    last_ms: int
    total: int
    """How many values."""

    def with_later(self, other: Point) -> Point:
        """Both together; `other` has the last value when its is not older."""
        last = other if other.last_ms >= self.last_ms else self
        return Point(
            min(self.min, other.min),
            max(self.max, other.max),
            last.last,
            last.last_ms,
            self.total + other.total,
        )


@dataclass(frozen=True, slots=True)
class SeriesAnswer(Answer):
    """The points of what was looked at, as columns: a thousand objects would take a millisecond to send."""

    indexes: Sequence[int]
    """The buckets that have values, rising."""
    columns: tuple[Sequence[Number], ...]
    """The fields of `Point`."""


def as_columns(points: Mapping[int, Point]) -> tuple[list[int], tuple[Sequence[Number], ...]]:
    """Points by bucket as the rising numbers of their buckets, and a column for each field."""
    indexes = sorted(points)
    columns = tuple(zip(*[points[index] for index in indexes], strict=True))
    return indexes, columns or ((),) * len(Point._fields)


def merged(answers: Sequence[SeriesAnswer]) -> tuple[Sequence[int], tuple[Sequence[Number], ...]]:
    """The points of several partitions or streams together, as `as_columns` has them."""
    if len(answers) == 1:
        return answers[0].indexes, answers[0].columns
    points: dict[int, Point] = {}
    for answer in answers:
        for index, *fields in zip(answer.indexes, *answer.columns, strict=True):
            point = Point._make(fields)
            points[index] = points[index].with_later(point) if index in points else point
    return as_columns(points)


@dataclass(frozen=True, slots=True)
class SeriesQuestion(Question[SeriesAnswer]):
    """`from_ms` and `until_ms` are those of the buckets. Ascending."""

    is_divisible = True
    _: KW_ONLY
    buckets: Buckets
    pointer: Pointer


class SeriesCollector(Collector[SeriesAnswer]):
    """Values gathered run by run, or as many at a time as share a bucket."""

    request: SeriesQuestion

    def __init__(
        self, request: SeriesQuestion, kept: tuple[int, int], start: int, end: int, choice: TopicChoice
    ) -> None:
        super().__init__(request, kept, start, end, choice)
        self._points: dict[int, Point] = {}

    def _take(self, run: RecordRun, rows: Sequence[int]) -> int | None:
        data, starts, ends = run.data, run.payload_starts, run.ends
        self.add_payloads(run.received_at_ms, [data[starts[row] : ends[row]] for row in rows])
        return None

    def add_payloads(self, time_ms: int, payloads: Sequence[bytes]) -> None:
        """Payloads of one bucket, in order, the last at `time_ms`."""
        values = numbers_at(payloads, self.request.pointer) if payloads else []
        if not values:
            return
        point = Point(min(values), max(values), values[-1], time_ms, len(values))
        index = self.request.buckets.index(time_ms)
        known = self._points.get(index)
        self._points[index] = point if known is None else known.with_later(point)

    def result(self) -> SeriesAnswer:
        indexes, columns = as_columns(self._points)
        return SeriesAnswer(indexes=indexes, columns=columns, **self._reached())


class SeriesSearch(RowSearch):
    """Takes the payloads of a single topic out of a row without decoding the others, where the row's counts let it."""

    collector: SeriesCollector

    def _is_wanted(self, row: StoredRow) -> bool:
        return len(self.filter_ids.encoded_topics) == 1 or super()._is_wanted(row)  # `look` counts them anyway

    def look(self, row: StoredRow) -> int:
        topics = self.filter_ids.encoded_topics
        collector = self.collector
        if len(topics) != 1:
            return super().look(row)
        known = RowTopics(row.topics, row.records)
        records = known.count(self.ids, self.bits)
        if records == 0:
            self.pass_over(row)
            return 1
        is_whole = collector.position <= row.base and row.end <= collector.end
        if not is_whole or records is None or known.versions == HAS_V3 | HAS_V5:
            return super().look(row)
        body = self.rows.body(row.base)
        payloads = payloads_of(body, topics[0], records, is_v5=known.versions == HAS_V5)
        if payloads is None:
            return super().look(row)
        self._add(row, body, payloads)
        self.pass_over(row)
        return max(1, records // 2)

    def _add(self, row: StoredRow, body: bytes, payloads: list[bytes]) -> None:
        """Give the payloads of a row to the collector, those of each bucket together."""
        collector, buckets = self.collector, self.collector.request.buckets
        if buckets.index(row.time_min) == buckets.index(row.time_max):
            collector.add_payloads(row.time_max, payloads)
            return
        topic = self.filter_ids.encoded_topics[0]
        first = 0
        for piece in pieces_of(body, buckets):
            count = body.count(topic, piece.start, piece.end)  # as often as it has payloads: `payloads_of` made sure
            collector.add_payloads(piece.last_ms, payloads[first : first + count])
            first += count
