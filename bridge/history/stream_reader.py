"""StreamReader: answers scans of one store's streams over a read-only connection, in short pieces of work.

A scan is a generator; each `next` reads a few rows in a short transaction, so that scans can take turns and the WAL
can begin anew. Between pieces rows may be merged or dropped: each piece finds its rows anew from an offset.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from pathlib import Path

from bridge.history.answers import collector_for
from bridge.history.filter_ids import FilterIds, has_any
from bridge.history.scan import Answer, AnswerT, Question
from bridge.records import RecordRun, Topic
from bridge.streams.collect import Collector
from bridge.streams.frames import decode_body, decode_matching, segment_times
from bridge.streams.sqlite_schema import open_reader
from bridge.streams.topic_index import RowTopics

PIECE_RECORDS = 4_000
"""Records looked at before another scan gets its turn: some 10 ms."""
PIECE_ROWS = 64
"""Rows or chunks passed over in one piece: as many rows as a chunk has, so that later chunks are looked at first."""
FILTERS_MAX = 64
FILTER_IDS_MAX = 1_000_000
"""Filter lists whose topics are remembered, and how many topic ids they may have in all."""
DECODED_ROWS_MAX = 8
"""Rows kept decoded: some 1.5 MB each at most, but for rows of a single long run."""
UNDECODED_SHARE = 16
"""Records that are searched for some bytes in the time that decoding one takes, at least."""
TOPICS_MAX = 200_000
"""`Topic` objects kept for decoding; beyond it they are made anew."""


class StreamReader:
    """See the module's docstring. One thread uses it."""

    def __init__(self, path: Path) -> None:
        self._connection = open_reader(path)
        self._filter_ids: dict[tuple[int, tuple[str, ...]], FilterIds] = {}
        self._topics: dict[bytes, Topic] = {}
        self._runs_by_row: dict[tuple[int, int, int], list[RecordRun]] = {}

    def close(self) -> None:
        self._connection.close()

    def offset_at(self, stream_id: int, time_ms: int) -> int:
        """The first offset whose record's time is at or after `time_ms`, else the next offset."""
        first, end = self._extent(stream_id)
        execute = self._connection.execute
        before = f"SELECT base, count, time_max FROM batch_{stream_id} WHERE base <= ? ORDER BY base DESC LIMIT 1"
        low, high = first, end
        while low < high:  # the lowest offset that is in a row whose time_max is at or after time_ms
            base, count, time_max = execute(before, ((low + high) // 2,)).fetchone()
            if time_max < time_ms:
                low = base + count
            else:
                high = base
        if low >= end:
            return end
        offset: int = low
        (body,) = execute(f"SELECT body FROM batch_{stream_id} WHERE base = ?", (low,)).fetchone()
        for segment_ms, count in segment_times(body):
            if segment_ms >= time_ms:
                break
            offset += count
        return offset

    def find(self, stream_id: int, time_ms: int) -> Generator[None, None, int]:
        """`offset_at` as a piece of work."""
        yield
        return self._snapshot(self.offset_at, stream_id, time_ms)

    def scan(self, stream_id: int, request: Question[AnswerT]) -> Generator[None, None, AnswerT]:
        """Each `next` is one piece of work; the generator returns the result."""
        first_offset, next_offset = self._extent(stream_id)
        is_current = self._is_current(stream_id, request.epoch)
        start, end = max(request.start, first_offset), min(request.end, next_offset)
        if request.from_ms is not None:
            start = max(start, self._snapshot(self.offset_at, stream_id, request.from_ms))
        if request.until_ms is not None:
            end = min(end, self._snapshot(self.offset_at, stream_id, request.until_ms))
        filter_ids = self._filter(stream_id, request.filters)
        for _ in filter_ids.learn(self._connection, stream_id):
            yield
        collector = collector_for(request, (first_offset, next_offset), start, end, filter_ids.choice)
        if not is_current:
            return collector.nothing()
        piece = self._ascend if collector.is_ascending else self._descend
        while not collector.is_done:
            self._connection.execute("BEGIN")
            try:
                piece(stream_id, collector, filter_ids)
            finally:
                self._connection.execute("COMMIT")
            yield
        return collector.result()

    def _snapshot(self, read: Callable[[int, int], int], stream_id: int, time_ms: int) -> int:
        """One consistent view for several statements."""
        self._connection.execute("BEGIN")
        try:
            return read(stream_id, time_ms)
        finally:
            self._connection.execute("COMMIT")

    def _is_current(self, stream_id: int, epoch: str) -> bool:
        row = self._connection.execute("SELECT epoch FROM stream WHERE id = ?", (stream_id,)).fetchone()
        return row is not None and row[0] == epoch

    def _extent(self, stream_id: int) -> tuple[int, int]:
        """First and next offset."""
        row = self._connection.execute(
            "SELECT (SELECT next_offset FROM stream WHERE id = ?),"
            f" (SELECT min(base) FROM batch_{stream_id}),"
            f" (SELECT base + count FROM batch_{stream_id} ORDER BY base DESC LIMIT 1)",
            (stream_id,),
        ).fetchone()
        kept_next, first, end = row
        return (first, end) if first is not None else (kept_next, kept_next)

    def _filter(self, stream_id: int, filters: tuple[str, ...]) -> FilterIds:
        key = (stream_id, filters)
        filter_ids = self._filter_ids.pop(key, None) or FilterIds(filters)
        self._filter_ids[key] = filter_ids  # the most recently used is last
        ids = sum([len(each.ids) for each in self._filter_ids.values()])
        while len(self._filter_ids) > FILTERS_MAX or (ids > FILTER_IDS_MAX and len(self._filter_ids) > 1):
            ids -= len(self._filter_ids.pop(next(iter(self._filter_ids))).ids)
        return filter_ids

    # hot path: tests/bench/sqlite_log.py
    def _ascend(self, stream_id: int, collector: Collector[Answer], filter_ids: FilterIds) -> None:
        """One piece of an ascending scan: skip what the indexes rule out, decode the rest."""
        execute = self._connection.execute
        if not filter_ids.takes_all and self._skip_chunks_up(stream_id, collector, filter_ids.bits):
            return
        before = f"SELECT base FROM batch_{stream_id} WHERE base <= ? ORDER BY base DESC LIMIT 1"
        found = execute(before, (collector.position,)).fetchone()
        rows = execute(
            f"SELECT base, count, time_max, {'NULL' if filter_ids.takes_all else 'topics'} FROM batch_{stream_id}"
            f" WHERE base >= ? AND base < ? ORDER BY base LIMIT {PIECE_ROWS}",
            (found[0] if found is not None else 0, collector.end),
        )
        with closing(rows):  # read one by one: most pieces end early
            self._read_piece(rows, stream_id, collector, filter_ids)

    def _descend(self, stream_id: int, collector: Collector[Answer], filter_ids: FilterIds) -> None:
        """One piece of a descending scan."""
        if not filter_ids.takes_all and self._skip_chunks_down(stream_id, collector, filter_ids.bits):
            return
        rows = self._connection.execute(
            f"SELECT base, count, time_min, {'NULL' if filter_ids.takes_all else 'topics'} FROM batch_{stream_id}"
            f" WHERE base < ? ORDER BY base DESC LIMIT {PIECE_ROWS}",
            (collector.position,),
        )
        with closing(rows):
            self._read_piece(rows, stream_id, collector, filter_ids)

    def _read_piece(
        self,
        rows: Iterable[tuple[int, int, int, bytes]],
        stream_id: int,
        collector: Collector[Answer],
        filter_ids: FilterIds,
    ) -> None:
        """Rows in the order of the scan, until a piece's worth of records was decoded."""
        records_left = PIECE_RECORDS
        for base, count, time_ms, topics in rows:
            if collector.is_ascending and base + count <= collector.position:
                continue
            if collector.is_ascending and base > collector.position:
                collector.lose(base)
                return
            if filter_ids.takes_all or RowTopics(topics, count).has_any(filter_ids.ids, filter_ids.bits):
                records_left -= self._look(stream_id, collector, filter_ids, base, count, time_ms)
            else:
                collector.skip(base, base + count, time_ms)
            if collector.is_done or records_left <= 0:
                return
        if records_left == PIECE_RECORDS and not self._has_rows(stream_id, collector):
            collector.lose(collector.end)

    def _look(
        self, stream_id: int, collector: Collector[Answer], filter_ids: FilterIds, base: int, count: int, time_ms: int
    ) -> int:
        """Look into a row that has topics of interest; returns the work in records decoded."""
        if collector.needles:
            body = self._body(stream_id, base)
            if not all([needle in body for needle in collector.needles]):
                work = max(1, count // UNDECODED_SHARE)
                collector.skip(base, base + count, time_ms, work)
                return work
        if filter_ids.encoded_topics:
            self._match_row(stream_id, collector, base, count, time_ms, filter_ids.encoded_topics)
        else:
            self._read_row(stream_id, collector, base, count)
        return count

    def _has_rows(self, stream_id: int, collector: Collector[Answer]) -> bool:
        """Something of what is left to look at is still kept."""
        low, high = (collector.position, collector.end) if collector.is_ascending else (0, collector.position)
        sql = f"SELECT 1 FROM batch_{stream_id} WHERE base + count > ? AND base < ? ORDER BY base DESC LIMIT 1"
        return self._connection.execute(sql, (low, high)).fetchone() is not None

    def _read_row(self, stream_id: int, collector: Collector[Answer], base: int, count: int) -> None:
        runs = self._runs(stream_id, base, count)
        for run in runs if collector.is_ascending else reversed(runs):
            collector.add(run)
            if collector.is_done:
                return

    def _match_row(
        self,
        stream_id: int,
        collector: Collector[Answer],
        base: int,
        count: int,
        time_ms: int,
        encoded_topics: tuple[bytes, ...],
    ) -> None:
        """A row of which only the records of a few topics are wanted."""
        runs = decode_matching(self._body(stream_id, base), base, self._known_topics(), encoded_topics)
        for run in runs if collector.is_ascending else reversed(runs):
            collector.add(run)
            if collector.is_done:
                return
        collector.skip(base, base + count, time_ms)
        collector.work_left -= max(0, count - len(runs) - 1)  # they were looked at, if briefly

    def _known_topics(self) -> dict[bytes, Topic]:
        if len(self._topics) > TOPICS_MAX:
            self._topics.clear()
        return self._topics

    def _body(self, stream_id: int, base: int) -> bytes:
        body: bytes
        (body,) = self._connection.execute(f"SELECT body FROM batch_{stream_id} WHERE base = ?", (base,)).fetchone()
        return body

    def _runs(self, stream_id: int, base: int, count: int) -> list[RecordRun]:
        """A row's runs. A scan often ends within a row, and the next one begins there."""
        key = (stream_id, base, count)  # offsets are never given twice, so the same key has the same records
        runs = self._runs_by_row.pop(key, None)
        if runs is None:
            body = self._body(stream_id, base)
            runs = decode_body(body, base, self._known_topics())
        self._runs_by_row[key] = runs  # the most recently used is last
        if len(self._runs_by_row) > DECODED_ROWS_MAX:
            del self._runs_by_row[next(iter(self._runs_by_row))]
        return runs

    def _skip_chunks_up(self, stream_id: int, collector: Collector[Answer], bits: int) -> bool:
        """Pass over chunks from the position on that have none of the topics; True when a piece's worth was."""
        rows = self._connection.execute(
            f"SELECT first, end, time_max, topics FROM chunk_{stream_id} WHERE first >= ifnull("
            f"(SELECT first FROM chunk_{stream_id} WHERE first <= ? ORDER BY first DESC LIMIT 1), 0)"
            f" AND first < ? ORDER BY first LIMIT {PIECE_ROWS}",
            (collector.position, collector.end),
        )
        count = 0
        for first, end, time_max, topics in rows:
            if end <= collector.position:
                continue
            if collector.position < first or has_any(topics, bits):
                return False
            collector.skip(first, end, time_max)
            count += 1
            if collector.is_done:
                return True
        return count == PIECE_ROWS

    def _skip_chunks_down(self, stream_id: int, collector: Collector[Answer], bits: int) -> bool:
        rows = self._connection.execute(
            f"SELECT first, end, time_max, topics FROM chunk_{stream_id} WHERE first < ?"
            f" ORDER BY first DESC LIMIT {PIECE_ROWS}",
            (collector.position,),
        )
        count = 0
        for first, end, time_max, topics in rows:
            if collector.position > end or has_any(topics, bits):
                return False
            collector.skip(first, end, time_max)
            count += 1
            if collector.is_done:
                return True
        return count == PIECE_ROWS
