"""StreamTable: one stream's tables as the writer thread sees them.

It turns runs into rows, gives topics their ids, and knows the rows that may still change: the oldest chunk's (they
are dropped by retention) and those not sealed into a chunk yet (they are merged). Everything here runs in the writer
thread; what the event loop shows of a stream is handed over after each commit.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bridge.records import Topic
from bridge.streams.frames import encode_segment
from bridge.streams.many_rows import insert_rows, select_in
from bridge.streams.retention import Row
from bridge.streams.topic_index import HAS_V3, HAS_V5, RowTopics, encode_chunk, encode_row

if TYPE_CHECKING:
    from broker.publish_run import PublishRun
    from broker.routing import Route

ROW_RECORDS_MAX = 4_096
ROW_BYTES_MAX = 512 * 1024
"""A row is closed before it exceeds these, so that reading one stays quick; a longer run is a row of its own."""

StoredRow = tuple[int, int, int, int, bytes, bytes]


class Chunk(NamedTuple):
    """Rows whose topics are known together; none of them changes until it is dropped."""

    first: int
    end: int
    bytes: int


class Extent(NamedTuple):
    """What the event loop shows of a stream."""

    first_offset: int
    next_offset: int
    stored_bytes: int
    oldest_ms: int | None
    newest_ms: int | None


class TopicIds:
    """Ids of the topics of one stream. An id is never given twice, also after its topic was dropped."""

    def __init__(self, connection: sqlite3.Connection, stream_id: int, next_id: int) -> None:
        self._table = f"topic_{stream_id}"
        self._connection = connection
        highest = connection.execute(f"SELECT max(id) FROM {self._table}").fetchone()[0] or 0
        self.next_id: int = max(next_id, highest + 1)
        self._committed_next_id = self.next_id
        self._resolved: list[Topic] = []
        self._new: list[tuple[int, str]] = []
        # One byte for each id dropped since this start, from `_dropped_base` on: a `Topic` object may still have it.
        self._dropped = bytearray()
        self._dropped_base = self.next_id

    def resolve(self, topics: set[Topic]) -> None:
        """Give each topic its id; new names wait for `insert_new`."""
        unknown = [topic for topic in topics if topic.topic_id == 0 or (self._dropped and self._is_dropped(topic))]
        if not unknown:
            return
        id_by_name: dict[str, int] = {name: topic_id for topic_id, name in self._new}
        names = [topic.name for topic in unknown if topic.name not in id_by_name]
        id_by_name.update(select_in(self._connection, f"SELECT name, id FROM {self._table} WHERE name IN", names))
        for topic in unknown:
            topic_id = id_by_name.get(topic.name, 0)
            if not topic_id:
                topic_id = id_by_name[topic.name] = self.next_id
                self.next_id += 1
                self._new.append((topic_id, topic.name))
            topic.topic_id = topic_id
            self._resolved.append(topic)

    @property
    def has_new(self) -> bool:
        return bool(self._new)

    def insert_new(self) -> None:
        """Within the transaction of the records that brought the names."""
        insert_rows(self._connection, f"INSERT INTO {self._table}(id, name)", self._new)

    def committed(self) -> None:
        self._committed_next_id = self.next_id
        self._resolved.clear()
        self._new.clear()

    def rolled_back(self) -> None:
        for topic in self._resolved:
            topic.topic_id = 0
        self.next_id = self._committed_next_id
        self._resolved.clear()
        self._new.clear()

    def drop(self, ids: Sequence[int]) -> None:
        """`ids` have been deleted from the table: objects that still have one must ask again."""
        lowest, highest = min(ids), max(ids)
        if not self._dropped:
            self._dropped_base = lowest
        elif lowest < self._dropped_base:
            self._dropped[:0] = bytes(self._dropped_base - lowest)
            self._dropped_base = lowest
        missing = highest + 1 - self._dropped_base - len(self._dropped)
        if missing > 0:
            self._dropped.extend(bytes(missing))
        for topic_id in ids:
            self._dropped[topic_id - self._dropped_base] = 1

    def _is_dropped(self, topic: Topic) -> bool:
        index = topic.topic_id - self._dropped_base
        return 0 <= index < len(self._dropped) and self._dropped[index] == 1


class StreamTable:
    """See the module's docstring."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        stream_id: int,
        node_run: int,
        age_ms_max: int | None,
        bytes_max: int | None,
        clock: Callable[[], int],
    ) -> None:
        self.connection = connection
        self.stream_id = stream_id
        self.age_ms_max = age_ms_max
        self.bytes_max = bytes_max
        self.clock = clock
        self.drop_before = 0
        """Records before this offset are no longer wanted, whatever retention says."""
        self.cut_before = 0
        """The same, and a row that holds others too is cut."""
        self.held_from: int | None = None
        """Records from here on must not be dropped yet: sessions refer to them. None: nobody does."""
        self.batch = f"batch_{stream_id}"
        self.chunk = f"chunk_{stream_id}"
        self.head_rows: deque[Row] = deque()
        """What is left of the oldest chunk, `chunks[0]`."""
        self.chunks: deque[Chunk] = deque()
        self.open_rows: list[Row] = []
        """Rows after the last chunk, oldest first."""
        self.seen_topic_ids: set[int] | None = None
        """Not None while unused topics are looked for: ids written meanwhile."""
        self.trimmed_bytes = 0
        """What was dropped since unused topics were last looked for."""
        self._node_run = node_run
        self._insert = f"INSERT INTO {self.batch} VALUES (?, ?, ?, ?, ?, ?)"
        self._rows: list[StoredRow] = []
        self._load()

    def _load(self) -> None:
        execute = self.connection.execute
        self.next_offset, self.last_ms, next_topic_id = execute(
            "SELECT next_offset, last_ms, next_topic_id FROM stream WHERE id = ?", (self.stream_id,)
        ).fetchone()
        self.topic_ids = TopicIds(self.connection, self.stream_id, next_topic_id)
        self.chunks.extend(Chunk(*row) for row in execute(f"SELECT first, end, bytes FROM {self.chunk} ORDER BY first"))
        self.load_head()
        open_first = self.chunks[-1].end if self.chunks else 0
        self.open_rows = self.read_rows(open_first, None)
        self.stored_bytes = (
            sum(row.bytes for row in self.head_rows)
            + sum(chunk.bytes for chunk in list(self.chunks)[1:])
            + sum(row.bytes for row in self.open_rows)
        )
        last = self.open_rows[-1] if self.open_rows else (self.read_last_row() if self.chunks else None)
        if last is not None:
            self.next_offset = max(self.next_offset, last.end)
            self.last_ms = max(self.last_ms, last.time_max)

    def read_rows(self, first: int, end: int | None) -> list[Row]:
        """Rows with `first <= base < end`, without their bodies."""
        rows = self.connection.execute(
            f"SELECT base, count, length(body), time_min, time_max FROM {self.batch}"
            " WHERE base >= ? AND base < ? ORDER BY base",
            (first, end if end is not None else 1 << 62),
        )
        return [Row(*row) for row in rows]

    def read_topics(self, first: int, end: int) -> Iterator[int]:
        """The topics of each row with `first <= base < end`, as bitsets."""
        for count, column in self.connection.execute(
            f"SELECT count, topics FROM {self.batch} WHERE base >= ? AND base < ?", (first, end)
        ):
            yield RowTopics(column, count).bits

    def read_last_row(self) -> Row | None:
        row = self.connection.execute(
            f"SELECT base, count, length(body), time_min, time_max FROM {self.batch} ORDER BY base DESC LIMIT 1"
        ).fetchone()
        return Row(*row) if row is not None else None

    def load_head(self) -> None:
        """Have the rows of the oldest chunk at hand."""
        if self.chunks and not self.head_rows:
            self.head_rows.extend(self.read_rows(self.chunks[0].first, self.chunks[0].end))

    @property
    def oldest_row(self) -> Row | None:
        if self.head_rows:
            return self.head_rows[0]
        return self.open_rows[0] if self.open_rows else None

    def offset_keeping(self, bytes_max: int) -> int:
        """From which offset on there is no more than `bytes_max`, in whole rows."""
        size = 0
        for row in reversed(self.open_rows):
            size += row.bytes
            if size > bytes_max:
                return row.end
        for chunk in reversed(list(self.chunks)):
            if size + chunk.bytes <= bytes_max:
                size += chunk.bytes
                continue
            for row in reversed(self.read_rows(chunk.first, chunk.end)):
                size += row.bytes
                if size > bytes_max:
                    return row.end
        return 0

    def extent(self) -> Extent:
        oldest = self.oldest_row
        if oldest is None:
            return Extent(self.next_offset, self.next_offset, self.stored_bytes, None, None)
        return Extent(oldest.base, self.next_offset, self.stored_bytes, oldest.time_min, self.last_ms)

    # hot path: tests/bench/sqlite_log.py
    def prepare(self, runs: Sequence[PublishRun]) -> None:
        """Make the rows of one group out of `runs`, whose offsets become final here."""
        node_run = self._node_run
        offset = base = self.next_offset
        parts: list[bytes] = []
        routes: list[Route] = []
        count = size = versions = 0
        time_min = 0
        time_max = self.last_ms
        for run in runs:
            records = len(run.ends)
            frames_bytes = run.ends[-1] - run.start
            if count and (count + records > ROW_RECORDS_MAX or size + frames_bytes > ROW_BYTES_MAX):
                self._add_row(base, count, time_min, time_max, routes, versions, parts)
                base, parts, routes = offset, [], []
                count = size = versions = 0
            if not count:
                time_min = run.received_at_ms
            run.base_offset = offset
            offset += records
            count += records
            size += frames_bytes
            time_max = run.received_at_ms
            parts += encode_segment(run, node_run)
            routes += run.routes
            versions |= HAS_V5 if run.is_v5 else HAS_V3
        self._add_row(base, count, time_min, time_max, routes, versions, parts)

    def _add_row(
        self,
        base: int,
        count: int,
        time_min: int,
        time_max: int,
        routes: list[Route],
        versions: int,
        parts: list[bytes],
    ) -> None:
        counts = Counter(routes)
        topics: list[Topic] = [route.sink_topic for route in counts]  # type: ignore[misc]
        self.topic_ids.resolve(set(topics))
        ids = [topic.topic_id for topic in topics]
        count_by_id = dict(zip(ids, counts.values(), strict=True))
        if len(count_by_id) < len(ids):  # a topic had two routes, one after the other
            count_by_id = dict.fromkeys(ids, 0)
            for topic_id, number in zip(ids, counts.values(), strict=True):
                count_by_id[topic_id] += number
        if self.seen_topic_ids is not None:
            self.seen_topic_ids.update(count_by_id)
        self._rows.append((base, count, time_min, time_max, encode_row(count_by_id, versions), b"".join(parts)))

    @property
    def is_one_insert(self) -> bool:
        """The group is one row and needs no transaction of several statements."""
        return len(self._rows) == 1 and not self.topic_ids.has_new

    def write(self) -> None:
        """Write the prepared rows. Each statement lets go of the interpreter's lock and has to get it back."""
        if self.topic_ids.has_new:
            self.topic_ids.insert_new()
        if len(self._rows) == 1:
            self.connection.execute(self._insert, self._rows[0])
        else:
            self.connection.executemany(self._insert, self._rows)

    def committed(self) -> None:
        self.topic_ids.committed()
        for base, count, time_min, time_max, _, body in self._rows:
            self.open_rows.append(Row(base, count, len(body), time_min, time_max))
            self.stored_bytes += len(body)
            self.next_offset = base + count
            self.last_ms = time_max
        self._rows.clear()

    def rolled_back(self) -> None:
        self.topic_ids.rolled_back()
        self._rows.clear()

    def seal(self, rows: Sequence[Row]) -> None:
        """Make a chunk of the first open `rows`; commits."""
        first, end = rows[0].base, rows[-1].end
        bits = 0
        for row_bits in self.read_topics(first, end):
            bits |= row_bits
        size = sum(row.bytes for row in rows)
        self.connection.execute(
            f"INSERT INTO {self.chunk} VALUES (?, ?, ?, ?, ?)",
            (first, end, size, rows[-1].time_max, encode_chunk(bits)),
        )
        del self.open_rows[: len(rows)]
        self.chunks.append(Chunk(first, end, size))
        if len(self.chunks) == 1:
            self.head_rows.extend(rows)
