"""SqliteWriter: the one thread that writes to the file.

It takes everything that waits, writes it as one transaction (a group), and says so on the event loop; it never waits
to make a group larger. Between groups it does small steps of upkeep. When the disk refuses, the group goes back to
the head of the queue, in order, and is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar

from bridge.streams.retained_item import RetainedItem
from bridge.streams.sqlite_table import StreamTable
from bridge.streams.unreleased import KEEP_ID, kept_ids
from broker.publish_run import PublishRun

RETRY_S = 0.5
IDLE_S = 1.0
"""How often retention by age is looked at when nothing is written."""
GROUPS_PER_STEP = 8
"""While groups wait, one step of upkeep is done after so many of them: retention must go on under load."""
URGENT_STEPS = 16
"""Steps after each group while a stream is well over its bounds: more rows than the largest groups bring."""

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class WriteItem(Protocol):
    """Something that commits with the records of its group."""

    def apply(self, connection: sqlite3.Connection) -> None:
        """In the writer thread, within the transaction; it may be called again after a rollback."""

    def committed(self) -> None:
        """On the event loop, once it is durable."""


class Upkeep(Protocol):
    """Work that can wait, in steps of at most some 2 ms."""

    def step(self) -> bool:
        """Do one step; False when there is nothing to do for now."""

    def is_urgent(self) -> bool:
        """It must not wait for a pause: the stream is well over its bounds."""

    def idle(self) -> None:
        """Nothing has been written for a while."""

    def finish(self) -> None:
        """The end: do what the next start would miss."""


class AppendItem:
    """Runs of one stream, in order."""

    __slots__ = ("_committed", "runs", "table")

    def __init__(
        self, table: StreamTable, runs: list[PublishRun], committed: Callable[[StreamTable, list[PublishRun]], None]
    ) -> None:
        self.table = table
        self.runs = runs
        self._committed = committed

    def apply(self, connection: sqlite3.Connection) -> None:
        """QoS 2 packet ids of kept sessions; the records themselves are written for the whole group."""
        for run in self.runs:
            if run.keeps_packet_ids:
                connection.executemany(KEEP_ID, kept_ids(run))

    @property
    def is_plain(self) -> bool:
        return not any([run.keeps_packet_ids for run in self.runs])

    def committed(self) -> None:
        self._committed(self.table, self.runs)


class SqliteWriter:
    """See the module's docstring. Public methods are called on the event loop's thread."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        loop: asyncio.AbstractEventLoop,
        upkeep: Upkeep,
        on_failure: Callable[[str], None],
        on_recovered: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._upkeep = upkeep
        self._on_failure = on_failure
        self._on_recovered = on_recovered
        self._lock = threading.Lock()  # guards the next three
        self._waiting: list[WriteItem] = []
        self._calls: list[tuple[Callable[[], object], Future[object]]] = []
        self._is_stopping = False
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._is_failing = False
        self._groups_since_step = 0
        self._is_dirty = False
        self._is_upkeep_failing = False
        self._stopped: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="headrace-writer", daemon=True)
        self._thread.start()

    def submit(self, items: Sequence[WriteItem]) -> None:
        """Queue items; they commit in order."""
        with self._lock:
            was_empty = not self._waiting
            for item in items:
                last = self._waiting[-1] if self._waiting else None
                if type(item) is AppendItem and type(last) is AppendItem and last.table is item.table:
                    last.runs += item.runs  # few items, also while the disk is full for long
                elif type(item) is RetainedItem and type(last) is RetainedItem:
                    last.absorb(item)
                else:
                    self._waiting.append(item)
        if was_empty:
            self._wake.put(None)

    def withdraw(self, table: StreamTable, run: PublishRun) -> bool:
        """Take a run back that is not being written at this moment."""
        with self._lock:
            for item in self._waiting:
                if type(item) is AppendItem and item.table is table and run in item.runs:
                    item.runs.remove(run)
                    if not item.runs:
                        self._waiting.remove(item)
                    return True
        return False

    def call(self, function: Callable[[], Result]) -> Result:
        """Run `function` in the writer thread between groups and wait for it: for start-up and other rare work."""
        future: Future[Result] = Future()
        with self._lock:
            self._calls.append((function, future))  # type: ignore[arg-type]
        self._wake.put(None)
        return future.result()

    def call_soon(self, function: Callable[[], Result]) -> Future[Result]:
        """Run `function` in the writer thread between groups, without waiting for it."""
        future: Future[Result] = Future()
        with self._lock:
            self._calls.append((function, future))  # type: ignore[arg-type]
        self._wake.put(None)
        return future

    def tell(self, callback: Callable[[], None]) -> None:
        """Run `callback` on the event loop; called in the writer thread."""
        self._tell(callback)

    async def stop(self) -> None:
        """Write what waits (one try when the disk refuses), close the connection and end the thread."""
        with self._lock:
            self._is_stopping = True
        self._wake.put(None)
        await asyncio.wrap_future(self._stopped)
        self._thread.join()

    # Everything below runs in the writer thread.

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        finally:
            self._connection.close()
            self._stopped.set_result(None)

    def _turn(self) -> bool:
        """One group, call or step; False at the end."""
        with self._lock:
            group, self._waiting = self._waiting, []
            calls, self._calls = self._calls, []
            is_stopping = self._is_stopping
        for function, future in calls:
            self._answer(function, future)
        if group:
            self._drain_wake()  # what it announced has just been taken
            if self._commit(group):
                self._after_group()
                return True
            self._put_back(group)
            if not is_stopping:
                self._upkeep_step()  # retention may make the room that is missing
                self._sleep(RETRY_S)
                return True
        if is_stopping:
            self._finish()
            return False
        if not calls and not self._upkeep_step() and not self._sleep(IDLE_S):
            self._idle()
        return True

    def _finish(self) -> None:
        try:
            self._upkeep.finish()
        except sqlite3.Error as error:
            logger.warning("the last upkeep of the stored streams failed: %s", error)

    def _drain_wake(self) -> None:
        try:
            while True:
                self._wake.get_nowait()
        except Empty:
            return

    def _sleep(self, seconds: float) -> bool:
        """Wait for work; False when none came."""
        try:
            self._wake.get(timeout=seconds)
        except Empty:
            return False
        return True

    def _answer(self, function: Callable[[], object], future: Future[object]) -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # it belongs to the caller, who is waiting for it
            future.set_exception(error)

    def _put_back(self, group: list[WriteItem]) -> None:
        with self._lock:
            self._waiting[:0] = group

    def _commit(self, group: list[WriteItem]) -> bool:
        """Write one group; False when the disk refused and nothing of it is stored."""
        runs_by_table: dict[StreamTable, list[PublishRun]] = {}
        for item in group:
            if type(item) is AppendItem:
                runs = runs_by_table.get(item.table)
                if runs is None:
                    runs_by_table[item.table] = item.runs
                else:
                    runs_by_table[item.table] = runs + item.runs
        try:
            self._write(group, runs_by_table)
        except Exception as error:  # the disk's errors and our own: either way nothing may be acknowledged
            self._roll_back(runs_by_table, error)
            return False
        for table in runs_by_table:
            table.committed()
        self._is_dirty = True
        if self._is_failing:
            self._is_failing = False
            self._tell(self._on_recovered)
        self._tell(lambda: committed(group))
        return True

    def _write(self, group: list[WriteItem], runs_by_table: dict[StreamTable, list[PublishRun]]) -> None:
        for table, runs in runs_by_table.items():
            table.prepare(runs)
        extras = [item for item in group if type(item) is not AppendItem or not item.is_plain]
        if not extras and len(runs_by_table) == 1 and next(iter(runs_by_table)).is_one_insert:
            next(iter(runs_by_table)).write()  # one statement commits by itself
            return
        self._connection.execute("BEGIN IMMEDIATE")
        for table in runs_by_table:
            table.write()
        for item in _joined(extras):
            item.apply(self._connection)
        self._connection.execute("COMMIT")

    def _roll_back(self, tables: dict[StreamTable, list[PublishRun]], error: Exception) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as second:
            logger.warning("rollback failed: %s", second)
        for table in tables:
            table.rolled_back()
        if not self._is_failing:
            self._is_failing = True
            is_known = isinstance(error, sqlite3.OperationalError)
            logger.error("records cannot be stored: %s", error, exc_info=None if is_known else error)
            self._tell(lambda: self._on_failure(str(error)))

    def _after_group(self) -> None:
        self._groups_since_step += 1
        if self._groups_since_step >= GROUPS_PER_STEP:
            self._upkeep_step()
        for _ in range(URGENT_STEPS):
            if not self._upkeep.is_urgent() or not self._upkeep_step():
                break

    def _upkeep_step(self) -> bool:
        self._groups_since_step = 0
        try:
            is_done = self._upkeep.step()
        except sqlite3.Error as error:
            # It is tried again later; when the disk is full the next group says so.
            if not self._is_upkeep_failing:
                self._is_upkeep_failing = True
                logger.warning("upkeep of the stored streams failed: %s", error)
            return False
        self._is_upkeep_failing = False
        return is_done

    def _idle(self) -> None:
        """A second without a group: the WAL is copied now rather than during the next burst."""
        self._upkeep.idle()
        if self._is_dirty:
            self._is_dirty = False
            try:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            except sqlite3.Error as error:
                logger.warning("checkpoint failed: %s", error)

    def _tell(self, callback: Callable[[], None]) -> None:
        if self._loop.is_closed():
            return
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            logger.debug("the event loop has closed; a commit is not told")


def _joined(items: list[WriteItem]) -> list[WriteItem]:
    """Retained messages of many turns as one item: a topic's newest is written alone."""
    retained = [item for item in items if type(item) is RetainedItem]
    if len(retained) < 2:
        return items
    joined = RetainedItem()
    for item in retained:
        joined.absorb(item)
    return [joined, *[item for item in items if type(item) is not RetainedItem]]


def committed(group: Sequence[WriteItem]) -> None:
    """Tell each item of a group, on the loop; one that fails must not keep the others' acknowledgements."""
    for item in group:
        try:
            item.committed()
        except Exception:
            logger.exception("a callback after a commit failed")
