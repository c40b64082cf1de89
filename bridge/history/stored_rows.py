"""StreamRows: one stored stream's tables as a reader sees them, over a connection that only reads.

Rows may be merged or dropped between two transactions, so nothing here is remembered but what offsets name for good.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from bridge.records import RecordRun, Topic
from bridge.streams.frames import decode_body, segment_times

DECODED_ROWS_MAX = 8
"""Rows kept decoded: some 1.5 MB each at most, but for rows of a single long run."""
TOPICS_MAX = 200_000
"""`Topic` objects kept for decoding; beyond it they are made anew."""


class StoredRow(NamedTuple):
    """A row without its body."""

    base: int
    records: int
    time_min: int
    time_max: int
    topics: bytes
    """See `bridge.streams.topic_index`; empty when it was not asked for."""

    @property
    def end(self) -> int:
        """One past the row's last offset."""
        return self.base + self.records


class RowCache:
    """What reading one row leaves for the next, for all streams of a store."""

    def __init__(self) -> None:
        self._topics: dict[bytes, Topic] = {}
        self.runs_by_row: dict[tuple[int, int, int], list[RecordRun]] = {}

    @property
    def topics(self) -> dict[bytes, Topic]:
        """Topics by their bytes in a frame."""
        if len(self._topics) > TOPICS_MAX:
            self._topics.clear()
        return self._topics


class StreamRows:
    """See the module's docstring."""

    def __init__(self, connection: sqlite3.Connection, stream_id: int, cache: RowCache) -> None:
        self.connection = connection
        self.stream_id = stream_id
        self.cache = cache
        self._batch = f"batch_{stream_id}"
        self._chunk = f"chunk_{stream_id}"

    def epoch(self) -> str | None:
        """The stream's epoch."""
        row = self.connection.execute("SELECT epoch FROM stream WHERE id = ?", (self.stream_id,)).fetchone()
        return row[0] if row is not None else None

    def extent(self) -> tuple[int, int]:
        """First and next offset."""
        row = self.connection.execute(
            "SELECT (SELECT next_offset FROM stream WHERE id = ?),"
            f" (SELECT min(base) FROM {self._batch}),"
            f" (SELECT base + count FROM {self._batch} ORDER BY base DESC LIMIT 1)",
            (self.stream_id,),
        ).fetchone()
        kept_next, first, end = row
        return (first, end) if first is not None else (kept_next, kept_next)

    def offset_at(self, time_ms: int) -> int:
        """The first offset whose record's time is at or after `time_ms`, else the next offset. In a transaction."""
        first, end = self.extent()
        before = f"SELECT base, count, time_max FROM {self._batch} WHERE base <= ? ORDER BY base DESC LIMIT 1"
        low, high = first, end
        while low < high:  # the lowest offset that is in a row whose time_max is at or after time_ms
            base, count, time_max = self.connection.execute(before, ((low + high) // 2,)).fetchone()
            if time_max < time_ms:
                low = base + count
            else:
                high = base
        if low >= end:
            return end
        offset: int = low
        for segment_ms, count in segment_times(self.body(low)):
            if segment_ms >= time_ms:
                break
            offset += count
        return offset

    def up(self, position: int, end: int, limit: int, *, with_topics: bool) -> Iterator[StoredRow]:
        """Rows from the one that has `position` (or the next after it) on, while they begin before `end`."""
        before = f"SELECT base FROM {self._batch} WHERE base <= ? ORDER BY base DESC LIMIT 1"
        found = self.connection.execute(before, (position,)).fetchone()
        return map(
            StoredRow._make,
            self.connection.execute(
                f"SELECT base, count, time_min, time_max, {self._topics(with_topics)} FROM {self._batch}"
                f" WHERE base >= ? AND base < ? ORDER BY base LIMIT {limit}",
                (found[0] if found is not None else 0, end),
            ),
        )

    def down(self, position: int, limit: int, *, with_topics: bool) -> Iterator[StoredRow]:
        """Rows that begin before `position`, the last first."""
        return map(
            StoredRow._make,
            self.connection.execute(
                f"SELECT base, count, time_min, time_max, {self._topics(with_topics)} FROM {self._batch}"
                f" WHERE base < ? ORDER BY base DESC LIMIT {limit}",
                (position,),
            ),
        )

    @staticmethod
    def _topics(is_wanted: bool) -> str:
        return "topics" if is_wanted else "x''"

    def chunks_up(self, position: int, end: int, limit: int) -> Iterator[tuple[int, int, int, bytes]]:
        """First, end, time and topics of sealed chunks from the one that has `position` on."""
        return self.connection.execute(
            f"SELECT first, end, time_max, topics FROM {self._chunk} WHERE first >= ifnull("
            f"(SELECT first FROM {self._chunk} WHERE first <= ? ORDER BY first DESC LIMIT 1), 0)"
            f" AND first < ? ORDER BY first LIMIT {limit}",
            (position, end),
        )

    def chunks_down(self, position: int, limit: int) -> Iterator[tuple[int, int, int, bytes]]:
        """The same of those that begin before `position`, the last first."""
        return self.connection.execute(
            f"SELECT first, end, time_max, topics FROM {self._chunk} WHERE first < ? ORDER BY first DESC LIMIT {limit}",
            (position,),
        )

    def has_any(self, low: int, high: int) -> bool:
        """Some record in `low <= o < high` is kept."""
        sql = f"SELECT 1 FROM {self._batch} WHERE base + count > ? AND base < ? ORDER BY base DESC LIMIT 1"
        return self.connection.execute(sql, (low, high)).fetchone() is not None

    def topic_name(self, topic_id: int) -> str:
        """The name of a topic that some row has."""
        name: str
        sql = f"SELECT name FROM topic_{self.stream_id} WHERE id = ?"
        (name,) = self.connection.execute(sql, (topic_id,)).fetchone()
        return name

    def topic_names(self, after_id: int, limit: int) -> list[tuple[int, str]]:
        """The next topics by id."""
        sql = f"SELECT id, name FROM topic_{self.stream_id} WHERE id > ? ORDER BY id LIMIT {limit}"
        return self.connection.execute(sql, (after_id,)).fetchall()

    def body(self, base: int) -> bytes:
        """The body of a row."""
        body: bytes
        (body,) = self.connection.execute(f"SELECT body FROM {self._batch} WHERE base = ?", (base,)).fetchone()
        return body

    def runs(self, row: StoredRow) -> list[RecordRun]:
        """A row's runs. A search often ends within a row, and the next one begins there."""
        # Offsets are never given twice, so the same key has the same records.
        key = (self.stream_id, row.base, row.records)
        decoded = self.cache.runs_by_row
        runs = decoded.pop(key, None)
        if runs is None:
            runs = decode_body(self.body(row.base), row.base, self.cache.topics)
        decoded[key] = runs  # the most recently used is last
        if len(decoded) > DECODED_ROWS_MAX:
            del decoded[next(iter(decoded))]
        return runs
