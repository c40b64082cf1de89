"""RowSearch: walks the rows of a stored stream for a collector, in short pieces, past all that the indexes rule out.

What is done with a row that has topics of interest is `look`; other kinds of questions do that in their own way.
"""

from __future__ import annotations

from typing import Any

from bridge.history.filter_ids import FilterIds, has_any
from bridge.history.stored_rows import StoredRow, StreamRows
from bridge.streams.collect import Collector
from bridge.streams.frames import decode_matching
from bridge.streams.topic_index import RowTopics

PIECE_RECORDS = 4_000
"""Records looked at before another question gets its turn: some 10 ms."""
CHUNKS_PER_PIECE = 64
UNDECODED_SHARE = 16
"""Records that are searched for some bytes in the time that decoding one takes, at least."""


class RowSearch:
    """One question's walk."""

    rows_per_piece = 64
    """Rows passed over in one piece: as many as a chunk has, so that later chunks are looked at first."""

    def __init__(self, rows: StreamRows, collector: Collector[Any], filter_ids: FilterIds) -> None:
        self.rows = rows
        self.collector = collector
        self.filter_ids = filter_ids
        self.needs_topics = not filter_ids.takes_all
        self.ids = filter_ids.ids
        """The topics that are looked for, and the same as a bitset."""
        self.bits = filter_ids.bits

    def piece(self) -> None:
        """One piece of work, within the caller's transaction."""
        if self.needs_topics and self._skip_chunks():
            return
        collector, limit = self.collector, self.rows_per_piece
        if collector.is_ascending:
            rows = self.rows.up(collector.position, collector.end, limit, with_topics=self.needs_topics)
        else:
            rows = self.rows.down(collector.position, limit, with_topics=self.needs_topics)
        work_left = PIECE_RECORDS
        is_any = False
        for row in rows:  # read one by one: most pieces end early
            if collector.is_ascending and row.end <= collector.position:
                continue
            if collector.is_ascending and row.base > collector.position:
                collector.lose(row.base)
                return
            is_any = True
            if self._is_wanted(row):
                work_left -= self.look(row)
            else:
                self.pass_over(row)
            if collector.is_done or work_left <= 0:
                return
        if not is_any and not self._has_rows():
            collector.lose(collector.end)

    def _is_wanted(self, row: StoredRow) -> bool:
        return not self.needs_topics or RowTopics(row.topics, row.records).has_any(self.ids, self.bits)

    def look(self, row: StoredRow) -> int:
        """Look into a row that has topics of interest; returns the work, in records decoded."""
        if self.collector.needles:
            body = self.rows.body(row.base)
            if not all([needle in body for needle in self.collector.needles]):
                work = max(1, row.records // UNDECODED_SHARE)
                self.pass_over(row, work)
                return work
        if self.filter_ids.encoded_topics:
            self.match(row)
        else:
            self.decode(row)
        return row.records

    def pass_over(self, row: StoredRow, work: int = 1) -> None:
        """The row has nothing of interest."""
        ms = row.time_max if self.collector.is_ascending else row.time_min
        self.collector.skip(row.base, row.end, ms, work)

    def decode(self, row: StoredRow) -> None:
        """Give the collector all of a row."""
        runs = self.rows.runs(row)
        for run in runs if self.collector.is_ascending else reversed(runs):
            self.collector.add(run)
            if self.collector.is_done:
                return

    def match(self, row: StoredRow) -> None:
        """Give the collector the records of a few topics."""
        collector = self.collector
        body = self.rows.body(row.base)
        runs = decode_matching(body, row.base, self.rows.cache.topics, self.filter_ids.encoded_topics)
        for run in runs if collector.is_ascending else reversed(runs):
            collector.add(run)
            if collector.is_done:
                return
        self.pass_over(row, max(1, row.records - len(runs)))  # they were looked at, if briefly

    def _has_rows(self) -> bool:
        """Something of what is left to look at is still kept."""
        collector = self.collector
        if collector.is_ascending:
            return self.rows.has_any(collector.position, collector.end)
        return self.rows.has_any(0, collector.position)

    def _skip_chunks(self) -> bool:
        """Pass over chunks from the position on that have none of the topics; True when a piece's worth was."""
        collector = self.collector
        chunks = (
            self.rows.chunks_up(collector.position, collector.end, CHUNKS_PER_PIECE)
            if collector.is_ascending
            else self.rows.chunks_down(collector.position, CHUNKS_PER_PIECE)
        )
        count = 0
        for first, end, time_max, topics in chunks:
            if collector.is_ascending and end <= collector.position:
                continue
            if not first <= collector.position <= end or has_any(topics, self.bits):
                return False
            collector.skip(first, end, time_max)
            count += 1
            if collector.is_done:
                return True
        return count == CHUNKS_PER_PIECE
