"""SqliteLog: one stored stream as the event loop sees it; `SqliteStore` owns the file and the writer thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bridge.cursors import Offsets
from bridge.history.scan import AnswerT, Question, StreamQuestion
from bridge.records import RecordRun
from bridge.streams.log import ignore_commits
from bridge.streams.one_partition import OnePartition, ignore_runs
from bridge.streams.sqlite_table import Extent, StreamTable
from bridge.streams.upkeep import LatestEntry
from broker.publish_run import PublishRun

if TYPE_CHECKING:
    from bridge.streams.sqlite_store import SqliteStore


class SqliteLog(OnePartition):
    """A stream in the store's file; see `bridge.streams.log.StreamLog`."""

    storage = "sqlite"

    def __init__(
        self,
        store: SqliteStore,
        name: str,
        epoch: str,
        table: StreamTable,
        *,
        acknowledges_on_receipt: bool,
    ) -> None:
        self.name = name
        self.epoch = epoch
        self.acknowledges_on_receipt = acknowledges_on_receipt
        self.on_committed: Callable[[Sequence[PublishRun]], None] = ignore_commits
        self.on_read: Callable[[Sequence[RecordRun]], None] = ignore_runs
        self.failure: str | None = None
        self.table = table
        self._store = store
        self._extent = table.extent()
        self._next_offset = self._extent.next_offset
        self._append_offset = self._next_offset
        self._last_ms = table.last_ms
        self._newest_ms = self._extent.newest_ms
        self._pending: list[PublishRun] = []
        self._pending_bytes = 0
        self._is_trimmed = asyncio.Event()
        self.wanted_first = 0
        """Not 0: retention would begin here, and waits for `hold`."""

    @property
    def first_offset(self) -> int:
        return min(self._extent.first_offset, self._next_offset)

    @property
    def next_offset(self) -> int:
        return self._next_offset

    @property
    def pending_bytes(self) -> int:
        return self._pending_bytes

    @property
    def stored_bytes(self) -> int:
        return self._extent.stored_bytes

    @property
    def oldest_ms(self) -> int | None:
        return self._extent.oldest_ms

    @property
    def newest_ms(self) -> int | None:
        return self._newest_ms if self._extent.oldest_ms is not None else None

    # hot path: tests/bench/sqlite_log.py
    def append(self, run: PublishRun) -> None:
        """See `StreamLog.append`. The offset is final unless an earlier queued run is withdrawn."""
        ends = run.ends
        run.base_offset = self._append_offset
        self._append_offset += len(ends)
        if run.received_at_ms < self._last_ms:
            run.received_at_ms = self._last_ms
        else:
            self._last_ms = run.received_at_ms
        self._pending_bytes += ends[-1] - run.start
        if run.keeps_packet_ids:
            self._store.expect_ids(run.client_id)
        if not self._pending:
            self._store.touched.append(self)
        self._pending.append(run)

    def flush(self) -> None:
        self._store.hand_over()

    def withdraw(self, run: PublishRun) -> bool:
        if run in self._pending:
            self._pending.remove(run)
            if not self._pending:
                self._store.touched.remove(self)
        elif not self._store.writer.withdraw(self.table, run):
            return False
        self._append_offset -= len(run.ends)
        self._pending_bytes -= run.ends[-1] - run.start
        run.base_offset = -1
        return True

    async def offset_at(self, time_ms: int) -> int:
        return await self._store.readers.offset_at(self.table.stream_id, time_ms)

    async def scan(self, request: Question[AnswerT]) -> AnswerT:
        return await self._store.readers.scan(self.table.stream_id, request)

    async def ask_stream(self, request: StreamQuestion[AnswerT]) -> Sequence[AnswerT]:
        what = replace(request.what, start=request.start.get(0, 0), end=request.end.get(0, 0))
        return await self._store.readers.ask(self.table.stream_id, what)

    def save_latest(self, entries: Sequence[LatestEntry], checkpoint: Offsets) -> None:
        """Save the newest record of each of some topics, in small steps, for the next start.

        Once all are stored, `load_latest` gives them with `checkpoint`: every record before it is reflected
        in what was saved, so that only later ones have to be read.
        """
        self._store.save_latest(self.table, entries, checkpoint[0])

    def load_latest(self) -> tuple[list[LatestEntry], Offsets]:
        """What was saved, and from where on records are not reflected in it. For start-up: it blocks."""
        entries, checkpoint_offset = self._store.load_latest(self.table)
        return entries, {0: checkpoint_offset}

    def drop_before(self, offset: int) -> None:
        """Records before an offset are no longer wanted: their rows go in small steps, whole ones only."""
        table = self.table

        def drop() -> None:
            table.drop_before = max(table.drop_before, offset)

        self._store.writer.call_soon(drop)

    async def trim(self, before: int) -> None:
        """Drop every record before an offset; returns when they are gone. Cancelled, it goes on all the same."""
        table = self.table
        before = min(before, self._next_offset)

        def cut() -> None:
            table.drop_before = max(table.drop_before, before)
            table.cut_before = max(table.cut_before, before)

        self._store.writer.call_soon(cut)
        while self.first_offset < before:
            self._is_trimmed.clear()
            await self._is_trimmed.wait()

    async def offset_keeping(self, bytes_max: int) -> int:
        """The offset from which on there is no more than `bytes_max`."""
        return await asyncio.wrap_future(self._store.writer.call_soon(lambda: self.table.offset_keeping(bytes_max)))

    def hold(self, first: int) -> None:
        """Records from `first` on are referred to, and none before them: retention goes no farther."""
        self.table.held_from = first
        if self.wanted_first <= first:
            self.wanted_first = 0

    def held_back(self, wanted_first: int) -> None:
        """For the store, on the loop: retention has come to what is held."""
        self.wanted_first = max(self.wanted_first, wanted_first)

    def take_pending(self) -> list[PublishRun]:
        """For the store: the queued runs, which now belong to the writer."""
        runs, self._pending = self._pending, []
        return runs

    def runs_committed(self, table: StreamTable, runs: list[PublishRun]) -> None:
        """For the store, on the loop, after a commit."""
        self._pending_bytes -= sum([run.ends[-1] - run.start for run in runs])
        last = runs[-1]
        self._next_offset = last.base_offset + len(last.ends)
        self._newest_ms = last.received_at_ms
        extent = self._extent
        if extent.oldest_ms is None:
            extent = extent._replace(first_offset=runs[0].base_offset, oldest_ms=runs[0].received_at_ms)
        self._extent = extent._replace(stored_bytes=table.stored_bytes)
        self.on_committed(runs)

    def trimmed(self, extent: Extent) -> None:
        """For the store, on the loop, after the oldest rows were dropped."""
        self._extent = extent
        self._is_trimmed.set()
