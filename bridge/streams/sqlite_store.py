"""SqliteStore: the data directory's one file, shared by all stored streams and by the QoS 2 packet ids.

It owns the lock, the writer thread and the reader processes. Its methods are called on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from bridge.records import Topic
from bridge.streams.kafka.spool_tables import SPOOL_PREFIX
from bridge.streams.log import clock_ms
from bridge.streams.new_life import begin_new_life, new_epoch
from bridge.streams.readers import Readers
from bridge.streams.removal import DELETED_PREFIX, StreamRemoval, next_stream_id, rename_deleted
from bridge.streams.sqlite_log import SqliteLog
from bridge.streams.sqlite_schema import (
    FILE_NAME,
    DataDirectoryLock,
    create_stream_tables,
    next_node_run,
    open_reader,
    open_writer,
)
from bridge.streams.sqlite_table import StreamTable
from bridge.streams.sqlite_writer import AppendItem, SqliteWriter, WriteItem
from bridge.streams.unreleased import UnreleasedIds
from bridge.streams.upkeep import LatestEntry, StoreUpkeep, TableUpkeep, transaction
from broker.publish_run import PublishRun

READER_PROCESSES = min(2, os.cpu_count() or 1)


def _ignore(*_: object) -> None:
    """A callback that nobody has set."""


class SqliteStore:
    """All that is kept in one data directory. Make it with `open`."""

    def __init__(
        self,
        path: Path,
        lock: DataDirectoryLock,
        connection: sqlite3.Connection,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], int],
        reader_processes: int,
        holds_rows: bool,
    ) -> None:
        self.path = path
        self._holds_rows = holds_rows
        self.on_failure: Callable[[str], None] = _ignore
        """Called with a text when the disk refuses records; they stay queued."""
        self.on_recovered: Callable[[], None] = _ignore
        self.failure: str | None = None
        self.touched: list[SqliteLog] = []
        """Logs with runs that were not handed over yet."""
        self.logs: dict[str, SqliteLog] = {}
        self._queued: list[WriteItem] = []
        """What commits with the next runs that are handed over."""
        self.is_closed = False
        self._lock = lock
        self._loop = loop
        self._clock = clock
        self._connection = connection
        self._node_run = next_node_run(connection)
        self._upkeep = StoreUpkeep()
        self._upkeep_by_table: dict[StreamTable, TableUpkeep] = {}
        self._removals: list[StreamRemoval] = []
        self._unreleased = UnreleasedIds(connection)
        self.readers = Readers(path, reader_processes)
        for (stream_id,) in connection.execute(
            "SELECT id FROM stream WHERE substr(name, 1, ?) = ?", (len(DELETED_PREFIX), DELETED_PREFIX)
        ).fetchall():
            self._remove_rows(stream_id)
        self.writer = SqliteWriter(connection, loop, self._upkeep, self._failed, self._recovered)

    @classmethod
    def open(
        cls,
        data_dir: Path,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        clock: Callable[[], int] = clock_ms,
        reader_processes: int = READER_PROCESSES,
        holds_rows: bool = False,
    ) -> SqliteStore:
        """Open or create the file of `data_dir`. It blocks for some milliseconds: for start-up.

        With `holds_rows` retention drops nothing before `SqliteLog.hold` says what may go.

        Raises: DataDirectoryInUse, StoreNewer, StoreUnusable
        """
        data_dir = Path(data_dir)
        lock = DataDirectoryLock(data_dir)
        try:
            connection = open_writer(data_dir / FILE_NAME)
            begin_new_life(connection)
            return cls(
                data_dir / FILE_NAME,
                lock,
                connection,
                loop or asyncio.get_running_loop(),
                clock,
                reader_processes,
                holds_rows,
            )
        except BaseException:
            lock.release()
            raise

    @property
    def node_run(self) -> str:
        """This start of the node, for `mqtt.id`: `n2748810563`."""
        return f"n{self._node_run}"

    def open_log(
        self,
        name: str,
        *,
        retention_age_ms: int | None = None,
        retention_bytes: int | None = None,
        acknowledges_on_receipt: bool = False,
    ) -> SqliteLog:
        """The log of stream `name`, created when it is new. It blocks: for start-up and reload."""
        epoch, table = self.writer.call(lambda: self._open_table(name, retention_age_ms, retention_bytes))
        log = SqliteLog(self, name, epoch, table, acknowledges_on_receipt=acknowledges_on_receipt)
        log.failure = self.failure
        self.logs[name] = log
        return log

    def _open_table(self, name: str, age_ms_max: int | None, bytes_max: int | None) -> tuple[str, StreamTable]:
        execute = self._connection.execute
        with transaction(self._connection):
            row = execute("SELECT id, epoch FROM stream WHERE name = ?", (name,)).fetchone()
            if row is None:
                epoch = new_epoch()
                stream_id = next_stream_id(self._connection)
                execute("INSERT INTO stream(id, name, epoch) VALUES (?, ?, ?)", (stream_id, name, epoch))
                create_stream_tables(self._connection, stream_id)
            else:
                stream_id, epoch = row
            execute(
                "UPDATE stream SET retention_age_ms = ?, retention_bytes = ? WHERE id = ?",
                (age_ms_max, bytes_max, stream_id),
            )
        table = StreamTable(self._connection, stream_id, self._node_run, age_ms_max, bytes_max, self._clock)
        if self._holds_rows and not name.startswith(SPOOL_PREFIX):
            table.held_from = 0
        upkeep = TableUpkeep(
            table,
            lambda extent: self._on_loop(lambda: self.logs[name].trimmed(extent)),
            lambda first: self._on_loop(lambda: self.logs[name].held_back(first)),
        )
        self._upkeep_by_table[table] = upkeep
        self._upkeep.add(upkeep)
        return epoch, table

    async def delete_stream(self, name: str) -> bool:
        """Delete a stream that is not open, with its spool; False when there is none.

        It is gone at once; its room is given back in small steps, during which `is_removing`.
        """
        if name in self.logs or SPOOL_PREFIX + name in self.logs:
            raise ValueError(f"stream {name} is open")
        return await asyncio.wrap_future(self.writer.call_soon(lambda: self._delete_stream(name)))

    def _delete_stream(self, name: str) -> bool:
        with transaction(self._connection):
            found = self._connection.execute(
                "SELECT id FROM stream WHERE name IN (?, ?)", (name, SPOOL_PREFIX + name)
            ).fetchall()
            for (stream_id,) in found:
                rename_deleted(self._connection, stream_id, name)
        for (stream_id,) in found:
            self._remove_rows(stream_id)
        return bool(found)

    def _remove_rows(self, stream_id: int) -> None:
        removal = StreamRemoval(self._connection, stream_id, self._removed)
        self._removals.append(removal)
        self._upkeep.add(removal)

    def _removed(self, removal: StreamRemoval) -> None:
        self._upkeep.remove(removal)
        self._removals.remove(removal)

    @property
    def is_removing(self) -> bool:
        """Rows of deleted streams are still there."""
        return bool(self._removals)

    def hand_over(self) -> None:
        """Give the writer what all logs have queued, behind whatever else is queued, as one group."""
        if self.touched or self._queued:
            items, self._queued = self._queued, []
            items += [AppendItem(log.table, log.take_pending(), self._committing(log)) for log in self.touched]
            self.touched.clear()
            self.writer.submit(items)

    def queue(self, item: WriteItem) -> None:
        """Have something else commit in one transaction with what is handed over next, and not after it."""
        self._queued.append(item)

    def read_rows(self, sql: str, rows_max: int) -> Iterator[tuple[Any, ...]]:
        """The committed rows of a SELECT, read in pieces of `rows_max`. It blocks: for start-up."""
        with closing(open_reader(self.path)) as connection:
            cursor = connection.execute(sql)
            while rows := cursor.fetchmany(rows_max):
                yield from rows

    def submit(self, item: WriteItem) -> None:
        """Queue something else that commits in order with the records."""
        self.hand_over()
        self.writer.submit([item])

    def release(self, client_id: str, packet_id: int, done: Callable[[], None]) -> None:
        """Forget a QoS 2 packet id durably, then call `done`."""
        self.submit(self._unreleased.releasing(client_id, packet_id, done))

    def expect_ids(self, client_id: str) -> None:
        """For the logs: a run that keeps its packet ids has been queued."""
        self._unreleased.expect(client_id)

    def keep_ids(self, runs: Sequence[PublishRun], done: Callable[[], None]) -> None:
        """Keep the QoS 2 packet ids of runs that are stored elsewhere, then call `done`."""
        for run in runs:
            self.expect_ids(run.client_id)
        self.submit(self._unreleased.keeping(runs, done))

    def unreleased(self, client_id: str) -> dict[int, int]:
        """See `broker.sink.Sink`."""
        return self._unreleased.of(client_id)

    def forget(self, client_id: str) -> None:
        """The session of `client_id` has ended."""
        if self._unreleased.knows(client_id):
            self.submit(self._unreleased.forgetting(client_id))

    def save_latest(self, table: StreamTable, entries: Sequence[LatestEntry], checkpoint_offset: int) -> None:
        """See `SqliteLog.save_latest`."""
        self.writer.call_soon(lambda: self._upkeep_by_table[table].save_latest(entries, checkpoint_offset))

    def load_latest(self, table: StreamTable) -> tuple[list[LatestEntry], int]:
        """See `SqliteLog.load_latest`."""

        def load() -> tuple[list[LatestEntry], int]:
            stream_id = table.stream_id
            rows = self._connection.execute(
                "SELECT name, topic_id, offset, time_ms, count, interval_ms, segment"
                f" FROM latest_{stream_id} JOIN topic_{stream_id} ON id = topic_id"
            )
            entries = []
            for name, topic_id, *columns in rows:
                topic = Topic(name)
                topic.topic_id = topic_id
                entries.append(LatestEntry(topic, *columns))
            found = self._connection.execute("SELECT latest_offset FROM stream WHERE id = ?", (stream_id,)).fetchone()
            return entries, found[0]

        return self.writer.call(load)

    def all_notes(self) -> list[tuple[str, str]]:
        """Keys and texts of `Notes`, for the writer's thread."""
        found = self._connection.execute("SELECT key, value FROM meta WHERE substr(key, 1, 5) = 'note.'")
        return found.fetchall()

    def tell_address(self, http_url: str) -> None:
        """Say in the data directory where this server answers."""
        self._lock.tell_address(http_url)

    async def close(self) -> None:
        """Write what is queued, then close the file and let go of the data directory."""
        self.is_closed = True
        self.hand_over()
        await self.readers.close()
        await self.writer.stop()
        self._lock.release()

    def _committing(self, log: SqliteLog) -> Callable[[StreamTable, list[PublishRun]], None]:
        def committed(table: StreamTable, runs: list[PublishRun]) -> None:
            self._unreleased.stored(runs)
            log.runs_committed(table, runs)

        return committed

    def _on_loop(self, callback: Callable[[], None]) -> None:
        self.writer.tell(callback)

    def _failed(self, text: str) -> None:
        self.failure = text
        for log in self.logs.values():
            log.failure = text
        self.on_failure(text)

    def _recovered(self) -> None:
        self.failure = None
        for log in self.logs.values():
            log.failure = None
        self.on_recovered()
