"""Histogram: how many records each part of a range of time has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from operator import add

from bridge.history.buckets import Buckets
from bridge.history.row_pieces import pieces_of
from bridge.history.row_search import RowSearch
from bridge.history.scan import Answer, Question
from bridge.history.stored_rows import StoredRow
from bridge.records import RecordRun
from bridge.streams.collect import Collector, TopicChoice
from bridge.streams.frames import decode_body, is_counted_by_search
from bridge.streams.topic_index import RowTopics

COUNTED_WORK = 4
"""What a row costs whose body is not decoded, in records decoded."""


@dataclass(frozen=True, slots=True)
class HistogramAnswer(Answer):
    """The counts of what was looked at."""

    counts: Sequence[int]
    """By bucket."""

    def merged_counts(self, counts: Sequence[int]) -> list[int]:
        """These and the counts of another partition or stream together."""
        return list(map(add, self.counts, counts))


@dataclass(frozen=True, slots=True)
class HistogramQuestion(Question[HistogramAnswer]):
    """`from_ms` and `until_ms` are those of the buckets."""

    _: KW_ONLY
    buckets: Buckets


class HistogramCollector(Collector[HistogramAnswer]):
    """Counts, from runs or from what is known of stored rows."""

    request: HistogramQuestion

    def __init__(
        self, request: HistogramQuestion, kept: tuple[int, int], start: int, end: int, choice: TopicChoice
    ) -> None:
        super().__init__(request, kept, start, end, choice)
        self._counts = [0] * request.buckets.count

    def _take(self, run: RecordRun, rows: Sequence[int]) -> int | None:
        self._counts[self.request.buckets.index(run.received_at_ms)] += len(rows)
        return None

    def count(self, index: int, records: int) -> None:
        """Records of a bucket, of a row that is then passed over."""
        self._counts[index] += records

    def result(self) -> HistogramAnswer:
        return HistogramAnswer(counts=self._counts, **self._reached())


class HistogramSearch(RowSearch):
    """Counts a row without its body where it lies in one bucket; else what has to be decoded is some of the body."""

    collector: HistogramCollector
    rows_per_piece = 512

    def _is_wanted(self, row: StoredRow) -> bool:
        return True  # `look` counts with the same effort

    def look(self, row: StoredRow) -> int:
        collector, buckets = self.collector, self.collector.request.buckets
        if collector.request.client_id is not None:  # which rows do not know
            if super()._is_wanted(row):
                return super().look(row)
            self.pass_over(row)
            return 1
        records: int | None = row.records
        if self.needs_topics:
            records = RowTopics(row.topics, row.records).count(self.ids, self.bits)
        is_whole = collector.position <= row.base and row.end <= collector.end
        if records is None or (records and not is_whole):
            return super().look(row)
        work = COUNTED_WORK
        if records:
            index = buckets.index(row.time_min)
            if index == buckets.index(row.time_max):
                collector.count(index, records)
            else:
                work = self._count_pieces(row, records)
        self.pass_over(row)
        return work

    def _count_pieces(self, row: StoredRow, records: int) -> int:
        """Count a row in which a bucket ends; `records` of it are of interest. Returns the work."""
        body = self.rows.body(row.base)
        pieces = list(pieces_of(body, self.collector.request.buckets))
        if records == row.records:
            for piece in pieces:
                self.collector.count(piece.bucket, piece.records)
            return COUNTED_WORK
        topics = self.filter_ids.encoded_topics
        if len(topics) == 1 and is_counted_by_search(body, topics[0], records):
            for piece in pieces:
                self.collector.count(piece.bucket, body.count(topics[0], piece.start, piece.end))
            return COUNTED_WORK
        # What the largest piece has is what the others leave of the whole.
        largest = max(pieces, key=lambda piece: piece.records)
        rest = records
        work = COUNTED_WORK
        for piece in pieces:
            if piece is not largest:
                found = self._count_piece(body[piece.start : piece.end])
                self.collector.count(piece.bucket, found)
                rest -= found
                work += piece.records
        self.collector.count(largest.bucket, rest)
        return work

    def _count_piece(self, body: bytes) -> int:
        choice = self.filter_ids.choice
        count = 0
        for run in decode_body(body, 0, self.rows.cache.topics):
            rows = choice.rows(run.topics, 0, len(run))
            count += len(run) if rows is None else len(rows)
        return count
