"""Upkeep of the stored streams, in small steps of the writer thread: trim, merge, seal, drop unused topics, and save
the latest values.

Each step is one transaction of at most some 2 ms, so that a group that arrives meanwhile hardly waits. A step that
does not happen because the process dies is done again later: nothing here is needed for what was acknowledged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

from bridge.records import Topic
from bridge.streams.retention import Row, finished_rows, rows_to_drop, rows_to_merge
from bridge.streams.row_cut import cut_row
from bridge.streams.sqlite_table import Extent, StreamTable
from bridge.streams.sqlite_writer import Upkeep
from bridge.streams.topic_index import RowTopics, chunk_bits, merge_rows

CHUNK_ROWS = 64
TRIM_ROWS = 10
TRIM_BYTES = 1024 * 1024
"""Dropping long rows takes 2 ms a megabyte: each of their pages is read."""
MERGE_LOOK_ROWS = 16
"""Open rows are looked through for merges when so many have been added."""
SWEEP_SHARE = 16
"""Unused topics are looked for when a 16th of a stream has been dropped since the last time."""
SWEEP_CHUNKS = 8
SWEEP_ROWS = 64
SWEEP_TOPICS = 200
LATEST_ROWS = 100
LATEST_ROWS_AT_END = 5_000
URGENT_RATIO = 1.05
HELD_SHARE = 16
"""So much of a stream is asked for beyond what retention would drop, when a session refers to it."""


class LatestEntry(NamedTuple):
    """The newest record of one topic, as it is saved for the next start."""

    topic: Topic
    offset: int
    time_ms: int
    total: int
    """How many records the topic has had."""
    interval_ms: int
    segment: bytes
    """A stored segment (`frames.encode_record`) with exactly one frame."""
    partition: int = 0
    """Of a log that has several; it keeps this within `offset` (`KafkaLog.save_latest`)."""


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


class TableUpkeep:
    """Upkeep of one stream."""

    def __init__(
        self,
        table: StreamTable,
        on_trimmed: Callable[[Extent], None],
        on_held_back: Callable[[int], None] = lambda _first: None,
    ) -> None:
        self.table = table
        self._on_trimmed = on_trimmed
        self._on_held_back = on_held_back
        self._asked_at: int | None = None
        self._merge_looked_at = -1
        self._sweep: Iterator[None] | None = None
        # By topic name: as many as the caller's own table of latest values has, which is bounded.
        self._latest: dict[str, LatestEntry] = {}
        self._latest_offset = self._saved_offset = 0

    def step(self) -> bool:
        """Do the most pressing step; False when there is none."""
        # The search for unused topics walks the rows in steps, so nothing is merged while it is under way.
        return self._trim() or self._cut() or self._sweep_step() or self._merge() or self._save_latest()

    def is_urgent(self) -> bool:
        table = self.table
        return table.bytes_max is not None and table.stored_bytes > table.bytes_max * URGENT_RATIO

    def idle(self) -> None:
        """After a pause also the last few rows are looked at."""
        self._merge_looked_at = -1

    # Retention

    def _trim(self) -> bool:
        table = self.table
        if table.age_ms_max is None and table.bytes_max is None and not table.drop_before:
            return False
        table.load_head()
        oldest = self._oldest_rows()
        count = rows_to_drop(
            oldest, table.stored_bytes, table.clock(), table.age_ms_max, table.bytes_max, table.drop_before
        )
        count = self._not_held(oldest, count)
        if not count:
            return False
        end = oldest[count - 1].end
        is_chunk_gone = bool(table.chunks) and end >= table.chunks[0].end
        with transaction(table.connection):
            table.connection.execute(f"DELETE FROM {table.batch} WHERE base < ?", (end,))
            if is_chunk_gone:
                table.connection.execute(f"DELETE FROM {table.chunk} WHERE first = ?", (table.chunks[0].first,))
            # Offsets and topic ids are never given again, also when no row is left to tell the last one.
            table.connection.execute(
                "UPDATE stream SET next_offset = ?, last_ms = ?, next_topic_id = ? WHERE id = ?",
                (table.next_offset, table.last_ms, table.topic_ids.next_id, table.stream_id),
            )
        size = sum(row.bytes for row in oldest[:count])
        table.stored_bytes -= size
        table.trimmed_bytes += size
        if table.head_rows:
            for _ in range(count):
                table.head_rows.popleft()
        else:
            del table.open_rows[:count]
        if is_chunk_gone:
            table.chunks.popleft()
            table.load_head()
        self._on_trimmed(table.extent())
        return True

    def _not_held(self, oldest: list[Row], count: int) -> int:
        """How many of the rows that retention would drop it may drop; who holds the others is told, each time once."""
        held_from = self.table.held_from
        if held_from is None or not count or oldest[count - 1].end <= held_from:
            return count
        # A little more than this step needs, so that the next ones need not ask.
        more = (self.table.next_offset - oldest[0].base) // HELD_SHARE
        self._ask(held_from, min(oldest[count - 1].end + more, self.table.next_offset))
        return sum(row.end <= held_from for row in oldest[:count])

    def _ask(self, held_from: int, first: int) -> None:
        if held_from != self._asked_at:
            self._asked_at = held_from
            self._on_held_back(first)

    def _oldest_rows(self) -> list[Row]:
        """As many as one step may drop."""
        oldest: list[Row] = []
        size = 0
        for row in islice(self.table.head_rows or self.table.open_rows, TRIM_ROWS):
            size += row.bytes
            if oldest and size > TRIM_BYTES:
                break
            oldest.append(row)
        return oldest

    def _cut(self) -> bool:
        """The oldest row, when it holds records on both sides of where it shall begin."""
        table = self.table
        row = table.oldest_row
        if row is None or not row.base < table.cut_before < row.end:
            return False
        if table.held_from is not None and table.held_from < table.cut_before:
            self._ask(table.held_from, table.cut_before)
            return False
        with transaction(table.connection):
            cut = cut_row(table, row, table.cut_before)
        rows = table.head_rows or table.open_rows
        rows[0] = cut
        table.stored_bytes += cut.bytes - row.bytes
        self._on_trimmed(table.extent())
        return True

    # Merging and sealing

    def _merge(self) -> bool:
        table = self.table
        rows = table.open_rows
        if len(rows) < 2 or abs(len(rows) - self._merge_looked_at) < MERGE_LOOK_ROWS:
            return False
        found = rows_to_merge(rows)
        if found is not None:
            self._merge_rows(*found)
            return True
        if len(rows) > CHUNK_ROWS and finished_rows(rows) >= CHUNK_ROWS:
            with transaction(table.connection):
                table.seal(rows[:CHUNK_ROWS])
            return True
        self._merge_looked_at = len(rows)
        return False

    def _merge_rows(self, first: int, end: int) -> None:
        table = self.table
        rows = table.open_rows[first:end]
        between = (rows[0].base, rows[-1].base)
        execute = table.connection.execute
        columns: list[tuple[bytes, int]] = []
        bodies = []
        where = "WHERE base BETWEEN ? AND ?"
        for count, column, body in execute(
            f"SELECT count, topics, body FROM {table.batch} {where} ORDER BY base", between
        ):
            columns.append((column, count))
            bodies.append(body)
        merged = Row(
            rows[0].base,
            sum(row.records for row in rows),
            sum(row.bytes for row in rows),
            rows[0].time_min,
            rows[-1].time_max,
        )
        with transaction(table.connection):
            execute(f"DELETE FROM {table.batch} {where}", between)
            execute(
                f"INSERT INTO {table.batch} VALUES (?, ?, ?, ?, ?, ?)",
                (merged.base, merged.records, merged.time_min, merged.time_max, merge_rows(columns), b"".join(bodies)),
            )
        table.open_rows[first:end] = [merged]

    # Topics that no record has any more

    def _sweep_step(self) -> bool:
        table = self.table
        if self._sweep is None:
            if not table.trimmed_bytes or table.trimmed_bytes * SWEEP_SHARE < table.stored_bytes:
                return False
            table.trimmed_bytes = 0
            table.seen_topic_ids = set()
            self._sweep = self._drop_unused_topics()
        try:
            next(self._sweep)
        except StopIteration:
            self._end_sweep()
        except sqlite3.Error:
            self._end_sweep()
            raise
        return True

    def _end_sweep(self) -> None:
        self._sweep = None
        self.table.seen_topic_ids = None

    def _drop_unused_topics(self) -> Iterator[None]:
        """Each `next` is one step: first gather what is used, then delete the rest."""
        table = self.table
        execute = table.connection.execute
        end_id = table.topic_ids.next_id  # a newer one is in use
        used = 0
        position = 0
        while True:
            chunks = execute(
                f"SELECT first, topics FROM {table.chunk} WHERE first >= ? ORDER BY first LIMIT {SWEEP_CHUNKS}",
                (position,),
            ).fetchall()
            if not chunks:
                break
            for _, column in chunks:
                bits, shift = chunk_bits(column)
                used |= bits << shift
            position = chunks[-1][0] + 1
            yield
        position = table.chunks[-1].first if table.chunks else 0
        while True:
            rows = execute(
                f"SELECT base, count, topics FROM {table.batch} WHERE base >= ? ORDER BY base LIMIT {SWEEP_ROWS}",
                (position,),
            ).fetchall()
            if not rows:
                break
            for _, count, column in rows:
                used |= RowTopics(column, count).bits
            position = rows[-1][0] + 1
            yield
        used &= (1 << end_id) - 1
        yield from self._delete_topics(used.to_bytes(end_id // 8 + 1, "little"), end_id)

    def _delete_topics(self, used_bits: bytes, end_id: int) -> Iterator[None]:
        table = self.table
        execute = table.connection.execute
        position = 0
        while True:
            ids = [
                row[0]
                for row in execute(
                    f"SELECT id FROM topic_{table.stream_id} WHERE id > ? AND id < ? ORDER BY id LIMIT {SWEEP_TOPICS}",
                    (position, end_id),
                )
            ]
            if not ids:
                return
            position = ids[-1]
            seen = table.seen_topic_ids or set()
            unused = [
                topic_id
                for topic_id in ids
                if not used_bits[topic_id >> 3] & 1 << (topic_id & 7) and topic_id not in seen
            ]
            if unused:
                marks = ", ".join("?" * len(unused))
                with transaction(table.connection):
                    execute(f"DELETE FROM topic_{table.stream_id} WHERE id IN ({marks})", unused)
                    execute(f"DELETE FROM latest_{table.stream_id} WHERE topic_id IN ({marks})", unused)
                    execute(
                        "UPDATE stream SET next_topic_id = ? WHERE id = ?", (table.topic_ids.next_id, table.stream_id)
                    )
                table.topic_ids.drop(unused)
            yield

    # Latest values

    def save_latest(self, entries: Sequence[LatestEntry], checkpoint_offset: int) -> None:
        """Take entries to save; `checkpoint_offset` counts once all of them are stored."""
        self._latest.update({entry.topic.name: entry for entry in entries})
        self._latest_offset = checkpoint_offset

    def finish(self) -> None:
        """The end: what waits to be saved is saved."""
        while self._save_latest(LATEST_ROWS_AT_END):
            pass

    def _save_latest(self, rows_max: int = LATEST_ROWS) -> bool:
        table = self.table
        if self._latest_offset <= self._saved_offset:
            return False
        entries = list(islice(self._latest.values(), rows_max))
        is_last = len(entries) == len(self._latest)
        topics = {entry.topic for entry in entries}
        try:
            table.topic_ids.resolve(topics)
            with transaction(table.connection):
                if table.topic_ids.has_new:
                    table.topic_ids.insert_new()
                table.connection.executemany(
                    f"INSERT OR REPLACE INTO latest_{table.stream_id} VALUES (?, ?, ?, ?, ?, ?)",
                    [(entry.topic.topic_id, *entry[1:6]) for entry in entries],
                )
                if is_last:
                    table.connection.execute(
                        "UPDATE stream SET latest_offset = ? WHERE id = ?", (self._latest_offset, table.stream_id)
                    )
        except sqlite3.Error:
            table.topic_ids.rolled_back()
            raise
        table.topic_ids.committed()
        for entry in entries:
            del self._latest[entry.topic.name]
        if is_last:
            self._saved_offset = self._latest_offset
        return True


class StoreUpkeep:
    """Upkeep of all streams of a store, in turn."""

    def __init__(self) -> None:
        self._tables: list[Upkeep] = []

    def add(self, upkeep: Upkeep) -> None:
        self._tables.append(upkeep)

    def remove(self, upkeep: Upkeep) -> None:
        self._tables.remove(upkeep)

    def step(self) -> bool:
        for upkeep in tuple(self._tables):
            if upkeep.step():
                if upkeep in self._tables:  # the others come first next time
                    self._tables.remove(upkeep)
                    self._tables.append(upkeep)
                return True
        return False

    def is_urgent(self) -> bool:
        return any([upkeep.is_urgent() for upkeep in self._tables])

    def idle(self) -> None:
        for upkeep in self._tables:
            upkeep.idle()

    def finish(self) -> None:
        for upkeep in self._tables:
            upkeep.finish()
