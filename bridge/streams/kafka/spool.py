"""Spool: what Kafka does not take at the moment, kept in the store's file, and what is known of where it went.

It is an embedded log (ADR 10) with three more tables: `kafka_N` (where the stream stood), `drained_N` (which spooled
record is which in Kafka) and `dead_letter` (what Kafka will never take). All of it changes in the writer's order, so
what is read back after a crash is a moment that there was.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from bisect import bisect_right, insort
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.cursors import UNKNOWN
from bridge.records import RecordRun, Topic
from bridge.streams.frames import decode_body
from bridge.streams.kafka.spool_tables import (
    SPOOL_PREFIX,
    TABLES,
    Copies,
    copies_of_spooled,
    decode_offsets,
    encode_offsets,
    read_bodies,
)
from bridge.streams.sqlite_schema import open_reader

if TYPE_CHECKING:
    from bridge.streams.sqlite_log import SqliteLog
    from bridge.streams.sqlite_store import SqliteStore

TOPICS_MAX = 200_000
DEAD_LETTERS_MAX = 100_000
"""Over all streams; beyond it the oldest go. Their bytes are bounded by this and the largest packet."""


class Standing(NamedTuple):
    """Where a stream stood, as it is kept over a restart."""

    epoch: str
    offsets: dict[int, int]
    """Shown to live readers, by partition of Kafka."""
    contact: dict[int, int]
    """Where the partitions ended when this node saw them first."""


class Statements:
    """SQL that commits in order with the records, and what to call then."""

    __slots__ = ("_committed", "_statements")

    def __init__(self, statements: Sequence[tuple[str, Sequence[Any]]], committed: Callable[[], None] | None) -> None:
        self._statements = statements
        self._committed = committed

    def apply(self, connection: sqlite3.Connection) -> None:
        for sql, parameters in self._statements:
            connection.execute(sql, parameters)

    def committed(self) -> None:
        if self._committed is not None:
            self._committed()


class Spool:
    """One stream's; see the module's docstring. Made at start-up: opening blocks."""

    def __init__(self, store: SqliteStore, stream: str) -> None:
        self.stream = stream
        self._store = store
        self.log: SqliteLog = store.open_log(SPOOL_PREFIX + stream)
        self.table_id = self.log.table.stream_id
        connection = self.log.table.connection
        values: dict[str, Any] = store.writer.call(lambda: self._open(connection))
        self.epoch = f"spool-{values['number']}"
        self.standing = Standing(
            values.get("epoch", UNKNOWN), _offsets(values.get("offsets")), _offsets(values.get("contact"))
        )
        self.moved_to: int = values.get("moved_to", 0)
        """Every spooled record before this is in Kafka, or a dead letter."""
        self.sent_until: int = values.get("sent_until", 0)
        """No record from here on was ever sent."""
        self.gate: tuple[int, dict[int, int]] | None = _gate(values.get("gate"))
        """See `bridge.streams.kafka.gate`: the first spooled record not shown, and which ends have to be before it."""
        self.search_from = _offsets(values.get("search_from"))
        """By partition of Kafka: the copies of what `moved_to` and `sent_until` enclose stand there or behind."""
        self.checkpoint: tuple[str, dict[int, int]] = (
            values.get("latest_epoch", UNKNOWN),
            _offsets(values.get("latest_offsets")),
        )
        """Epoch and place up to which saved latest values know all records."""
        self.times: tuple[int, int | None] = (values.get("written_ms", 0), values.get("newest_ms"))
        """The newest time that this node has given a record of the stream, and the newest that was seen in it."""
        self.dead_letters: int = values["dead_letters"]
        self.newest_dead_letter_ms: int | None = values["newest_dead_letter_ms"]
        self._beyond: set[int] = set(values["beyond"])
        """Records from `moved_to` on that are in Kafka already."""
        self.moved_end = max(self._beyond, default=self.moved_to - 1) + 1
        """From here on no record has moved."""
        self._unkept: list[Copies] = []
        """Copies of this turn, which are written down together."""
        self._unkept_then: list[Callable[[], None]] = []
        self._reading: tuple[ThreadPoolExecutor, sqlite3.Connection] | None = None
        self._topics: dict[bytes, Topic] = {}
        self.copies_by_partition: dict[int, list[Copies]] = values["copies"]
        """Copies that the live side has not passed in Kafka yet, in order."""

    def _open(self, connection: sqlite3.Connection) -> dict[str, Any]:
        for statement in TABLES:
            connection.execute(statement.format(id=self.table_id))
        connection.execute(
            f"INSERT OR IGNORE INTO kafka_{self.table_id} VALUES ('number', ?)", (str(int(time.time())),)
        )
        values: dict[str, Any] = {
            key: json.loads(value)
            for key, value in connection.execute(f"SELECT key, value FROM kafka_{self.table_id}")
            if key != "epoch"
        }
        epoch = connection.execute(f"SELECT value FROM kafka_{self.table_id} WHERE key = 'epoch'").fetchone()
        if epoch is not None:
            values["epoch"] = epoch[0]
        moved_to = values.get("moved_to", 0)
        offsets = _offsets(values.get("offsets"))
        beyond: list[int] = []
        copies: dict[int, list[Copies]] = {}
        for found in connection.execute(
            f"SELECT partition, base, spool_first, offsets FROM drained_{self.table_id} ORDER BY partition, base"
        ):
            batch = Copies(found[0], found[1], decode_offsets(found[2], found[3]))
            beyond += [offset for offset in batch.offsets if offset >= moved_to]
            if batch.end > offsets.get(batch.partition, 0):
                copies.setdefault(batch.partition, []).append(batch)
        letters = connection.execute(
            "SELECT count(*), max(time_ms) FROM dead_letter WHERE stream = ?", (self.stream,)
        ).fetchone()
        values |= {
            "beyond": beyond,
            "copies": copies,
            "dead_letters": letters[0],
            "newest_dead_letter_ms": letters[1],
        }
        return values

    # What is in it

    @property
    def next_offset(self) -> int:
        """One past the newest record that is on disk."""
        return self.log.next_offset

    @property
    def records(self) -> int:
        """Records that are not in Kafka yet."""
        return self.log.next_offset - self.moved_to - len(self._beyond)

    @property
    def is_empty(self) -> bool:
        """Nothing waits, neither on disk nor on its way there."""
        return self.moved_to >= self.log.next_offset and not self.log.pending_bytes

    def is_moved(self, offset: int) -> bool:
        """Whether a spooled record is in Kafka, or a dead letter."""
        return offset < self.moved_to or offset in self._beyond

    async def oldest_ms(self) -> int | None:
        """Time of the oldest record that waits."""
        if self.moved_to >= self.log.next_offset:
            return None
        runs = await self.read(self.moved_to, self.moved_to + 1)
        return runs[0].received_at_ms if runs else None

    async def read(self, start: int, end: int) -> list[RecordRun]:
        """Runs with the records from `start` on, some megabytes at most; the first may begin before it.

        Raises: sqlite3.Error
        """
        executor, connection = await self._reader()
        bodies = await asyncio.get_running_loop().run_in_executor(
            executor, read_bodies, connection, self.table_id, start, end
        )
        if len(self._topics) > TOPICS_MAX:
            self._topics.clear()
        runs: list[RecordRun] = []
        for base, body in bodies:
            runs += decode_body(body, base, self._topics)
        return [run for run in runs if run.base_offset + len(run) > start and run.base_offset < end]

    async def copy_of(self, offset: int) -> tuple[int, int] | None:
        """Partition and offset in Kafka of a spooled record; None when that is not known, or not any more.

        Raises: sqlite3.Error
        """
        executor, connection = await self._reader()
        copies = await asyncio.get_running_loop().run_in_executor(
            executor, copies_of_spooled, connection, self.table_id, offset, offset + 1
        )
        places = [(each.partition, each.base + each.offsets.index(offset)) for each in copies if offset in each.offsets]
        return places[0] if places else None

    async def _reader(self) -> tuple[ThreadPoolExecutor, sqlite3.Connection]:
        """What reads beside the writer, and its thread."""
        if self._reading is None:
            executor = ThreadPoolExecutor(1, thread_name_prefix="headrace-spool")
            connection = await asyncio.get_running_loop().run_in_executor(executor, open_reader, self._store.path)
            self._reading = (executor, connection)
        return self._reading

    # What becomes of it

    def stand(self, standing: Standing, then: Callable[[], None] | None = None) -> None:
        """Keep where the stream stands."""
        self.standing = standing
        self._submit(
            [
                self._set("epoch", standing.epoch, is_text=True),
                self._set("offsets", standing.offsets),
                self._set("contact", standing.contact),
            ],
            then,
        )

    def keep_gate(self, spool_from: int, ends: Mapping[int, int] | None) -> None:
        """Keep what the gate waits for; None: it is open."""
        self.gate = None if ends is None else (spool_from, dict(ends))
        self._submit([self._set("gate", None if ends is None else {"from": spool_from, "ends": ends})], None)

    def keep_checkpoint(self, epoch: str, offsets: Mapping[int, int]) -> None:
        """Latest values have been handed over to be saved, as they were at this place."""
        self.checkpoint = (epoch, dict(offsets))
        self._submit([self._set("latest_epoch", epoch), self._set("latest_offsets", offsets)], None)

    def keep_times(self, written_ms: int, newest_ms: int | None) -> None:
        """Keep the newest times over a restart: no record of this node may be older than the one before."""
        if self.times != (written_ms, newest_ms):
            self.times = (written_ms, newest_ms)
            self._submit([self._set("written_ms", written_ms), self._set("newest_ms", newest_ms)], None)

    def begin_sending(self, sent_until: int, search_from: Mapping[int, int], then: Callable[[], None]) -> None:
        """Records before `sent_until` may be sent once this is on disk."""
        self.sent_until = max(self.sent_until, sent_until)
        self.search_from = {
            partition: max(offset, self.search_from.get(partition, 0)) for partition, offset in search_from.items()
        }
        self._submit([self._set("sent_until", self.sent_until), self._set("search_from", self.search_from)], then)

    def moved(self, copies: Sequence[Copies], then: Callable[[], None] | None = None) -> None:
        """These records are in Kafka. The batches of one answer are written down together, at the end of the turn."""
        for each in copies:
            insort(self.copies_by_partition.setdefault(each.partition, []), each)
            self._done(each.offsets)
        if not self._unkept:
            asyncio.get_running_loop().call_soon(self._keep_moved)
        self._unkept += copies
        if then is not None:
            self._unkept_then.append(then)

    def _keep_moved(self) -> None:
        copies, self._unkept = self._unkept, []
        callbacks, self._unkept_then = self._unkept_then, []
        if not copies:
            return  # something else was written, and they with it

        def kept() -> None:
            for callback in callbacks:
                callback()

        insert = f"INSERT OR REPLACE INTO drained_{self.table_id} VALUES (?, ?, ?, ?, ?, ?)"
        statements: list[tuple[str, Sequence[Any]]] = [
            (insert, (each.partition, each.base, len(found), found[0], found[-1], encode_offsets(found)))
            for each in copies
            for found in (each.offsets,)
        ]
        self._store.submit(Statements([*statements, self._set("moved_to", self.moved_to)], kept))

    def bury(self, run: RecordRun, segments: Sequence[bytes], partition: int, reason: str) -> None:
        """Rows of a run that Kafka will never take become dead letters; of those in the spool, `forget` says so."""
        now_ms = time.time_ns() // 1_000_000
        self.dead_letters += len(segments)
        self.newest_dead_letter_ms = now_ms
        statements: list[tuple[str, Sequence[Any]]] = [
            (
                "INSERT INTO dead_letter(stream, time_ms, partition, reason, topic, segment) VALUES (?, ?, ?, ?, ?, ?)",
                (self.stream, now_ms, partition, reason, run.topics[row].name, segment),
            )
            for row, segment in enumerate(segments)
        ]
        statements.append(
            ("DELETE FROM dead_letter WHERE id <= (SELECT max(id) FROM dead_letter) - ?", (DEAD_LETTERS_MAX,))
        )
        self._store.submit(Statements(statements, None))

    def forget(self, offsets: Sequence[int], then: Callable[[], None] | None = None) -> None:
        """These records will not be sent: they are dead letters."""
        self._done(offsets)
        self._submit([self._set("moved_to", self.moved_to)], then)

    def forget_copies(self, then: Callable[[], None] | None = None) -> None:
        """The topic has begun anew: where records stood in the old one says nothing any more."""
        self.copies_by_partition.clear()
        self.search_from = {}
        self._submit([(f"DELETE FROM drained_{self.table_id}", ()), self._set("search_from", {})], then)

    def prune(self, first_offsets: Mapping[int, int]) -> None:
        """Kafka has dropped what stood before these offsets. Of what is still here too it stays known that it had a
        copy: who has seen that one must not be shown this one."""
        self._submit(
            [
                (
                    f"DELETE FROM drained_{self.table_id} WHERE partition = ? AND base + count <= ? AND spool_last < ?",
                    (partition, offset, self.log.first_offset),
                )
                for partition, offset in first_offsets.items()
                if partition >= 0
            ],
            None,
        )

    def drop_before(self, offset: int) -> None:
        """The bodies of moved records are not needed any more."""
        self._keep_moved()
        self.log.drop_before(min(offset, self.moved_to))

    def _done(self, offsets: Sequence[int]) -> None:
        beyond = self._beyond
        moved_to = self.moved_to
        self.moved_end = max(self.moved_end, max(offsets, default=-1) + 1)
        beyond.update([offset for offset in offsets if offset >= moved_to])
        while moved_to in beyond:
            beyond.remove(moved_to)
            moved_to += 1
        self.moved_to = moved_to

    def _set(self, key: str, value: object, *, is_text: bool = False) -> tuple[str, Sequence[Any]]:
        text = str(value) if is_text else json.dumps(value)
        return f"INSERT OR REPLACE INTO kafka_{self.table_id} VALUES (?, ?)", (key, text)

    def _submit(self, statements: Sequence[tuple[str, Sequence[Any]]], then: Callable[[], None] | None) -> None:
        self._keep_moved()  # in this order
        self._store.submit(Statements(statements, then))

    def close(self) -> None:
        """Write down what is left, and let go of the reading connection."""
        self._keep_moved()
        if self._reading is not None:
            executor, connection = self._reading
            executor.submit(connection.close)
            executor.shutdown(wait=True)
            self._reading = None

    # The live side passes them in Kafka

    def copies_at(self, partition: int, offset: int) -> Copies | None:
        """The batch of copies that holds an offset of Kafka, of those that were not passed yet."""
        batches = self.copies_by_partition.get(partition)
        if not batches:
            return None
        index = bisect_right(batches, offset, key=_base) - 1
        return batches[index] if index >= 0 and offset < batches[index].end else None

    def next_copies(self, partition: int, offset: int) -> int | None:
        """Where the next batch of copies begins, at or behind an offset."""
        batches = self.copies_by_partition.get(partition)
        if not batches:
            return None
        index = bisect_right(batches, offset - 1, key=_base)
        return batches[index].base if index < len(batches) else None

    def passed(self, partition: int, offset: int) -> None:
        """Live readers stand at `offset` by now."""
        batches = self.copies_by_partition.get(partition)
        while batches and batches[0].end <= offset:
            del batches[0]


def _base(copies: Copies) -> int:
    return copies.base


def _offsets(value: Mapping[str, int] | None) -> dict[int, int]:
    return {int(partition): offset for partition, offset in (value or {}).items()}


def _gate(value: Mapping[str, Any] | None) -> tuple[int, dict[int, int]] | None:
    """(First spooled record that waits, ends by partition) as they were kept."""
    if not value:
        return None
    return int(value["from"]), _offsets(value["ends"])
