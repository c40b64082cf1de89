"""StreamReader: answers questions about one store's streams over a read-only connection, in short pieces of work.

An answer is a generator; each `next` reads a few rows in a short transaction, so that questions can take turns and the
WAL can begin anew. Between pieces rows may be merged or dropped: each piece finds its rows anew from an offset.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from bridge.history.answers import collector_for, row_search_for
from bridge.history.filter_ids import FilterIds
from bridge.history.scan import AnswerT, Question
from bridge.history.stored_rows import RowCache, StreamRows
from bridge.streams.sqlite_schema import open_reader

FILTERS_MAX = 64
FILTER_IDS_MAX = 1_000_000
"""Filter lists whose topics are remembered, and how many topic ids they may have in all."""


class StreamReader:
    """See the module's docstring. One thread uses it."""

    def __init__(self, path: Path) -> None:
        self._connection = open_reader(path)
        self._filter_ids: dict[tuple[int, tuple[str, ...]], FilterIds] = {}
        self._cache = RowCache()

    def close(self) -> None:
        self._connection.close()

    def offset_at(self, stream_id: int, time_ms: int) -> int:
        """The first offset whose record's time is at or after `time_ms`, else the next offset."""
        rows = StreamRows(self._connection, stream_id, self._cache)
        self._connection.execute("BEGIN")  # one consistent view for several statements
        try:
            return rows.offset_at(time_ms)
        finally:
            self._connection.execute("COMMIT")

    def find(self, stream_id: int, time_ms: int) -> Generator[None, None, int]:
        """`offset_at` as a piece of work."""
        yield
        return self.offset_at(stream_id, time_ms)

    def scan(self, stream_id: int, request: Question[AnswerT]) -> Generator[None, None, AnswerT]:
        """Each `next` is one piece of work; the generator returns the answer."""
        rows = StreamRows(self._connection, stream_id, self._cache)
        kept = rows.extent()
        is_current = rows.epoch() == request.epoch
        start, end = max(request.start, kept[0]), min(request.end, kept[1])
        if request.from_ms is not None:
            start = max(start, self.offset_at(stream_id, request.from_ms))
        if request.until_ms is not None:
            end = min(end, self.offset_at(stream_id, request.until_ms))
        filter_ids = self._filter(stream_id, request.filters)
        for _ in filter_ids.learn(self._connection, stream_id):
            yield
        collector = collector_for(request, kept, start, end, filter_ids.choice)
        if not is_current:
            return collector.nothing()
        search = row_search_for(request, rows, collector, filter_ids)
        while not collector.is_done:
            self._connection.execute("BEGIN")
            try:
                search.piece()
            finally:
                self._connection.execute("COMMIT")
            yield
        return collector.result()

    def _filter(self, stream_id: int, filters: tuple[str, ...]) -> FilterIds:
        key = (stream_id, filters)
        filter_ids = self._filter_ids.pop(key, None) or FilterIds(filters)
        self._filter_ids[key] = filter_ids  # the most recently used is last
        ids = sum([len(each.ids) for each in self._filter_ids.values()])
        while len(self._filter_ids) > FILTERS_MAX or (ids > FILTER_IDS_MAX and len(self._filter_ids) > 1):
            ids -= len(self._filter_ids.pop(next(iter(self._filter_ids))).ids)
        return filter_ids
