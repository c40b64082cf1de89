"""MemoryLog: a stream that lives as long as its process, bounded in bytes and, when wanted, in age.

It commits inside `flush`, begins a new epoch at each start and answers scans in slices of at most `SLICE_S` between
which the event loop runs.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence

from bridge.history.answers import collector_for
from bridge.history.scan import Answer, AnswerT, Question
from bridge.records import RecordRun
from bridge.streams.collect import TopicChoice
from bridge.streams.kept_runs import KeptRuns
from bridge.streams.log import clock_ms, ignore_commits
from bridge.streams.one_partition import OnePartition, ignore_runs
from broker.publish_run import PublishRun

BYTES_MAX = 64 * 1024 * 1024
SLICE_S = 0.002
CHOICES_MAX = 16
"""Filter lists whose answers are remembered between scans."""


class MemoryLog(OnePartition):
    """A stream in memory; see `bridge.streams.log.StreamLog`."""

    storage = "memory"

    def __init__(
        self,
        name: str,
        *,
        bytes_max: int = BYTES_MAX,
        age_ms_max: int | None = None,
        node_run: str = "n0",
        clock: Callable[[], int] = clock_ms,
        acknowledges_on_receipt: bool = True,
    ) -> None:
        self.name = name
        self._begun_ms = clock()
        self.epoch = f"m{self._begun_ms:x}{secrets.token_hex(2)}"
        self.acknowledges_on_receipt = acknowledges_on_receipt
        self.on_committed: Callable[[Sequence[PublishRun]], None] = ignore_commits
        self.on_read: Callable[[Sequence[RecordRun]], None] = ignore_runs
        self.failure: str | None = None
        self._age_ms_max = age_ms_max
        self._node_run = node_run
        self._clock = clock
        self._pending: list[PublishRun] = []
        self._pending_bytes = 0
        self._append_offset = 0
        self._last_ms = 0
        self._next_offset = 0
        self._kept = KeptRuns(bytes_max)
        self._choice_by_filters: dict[tuple[str, ...], TopicChoice] = {}

    @property
    def first_offset(self) -> int:
        self._drop_old()
        return self._kept.first_offset if len(self._kept) else self._next_offset

    @property
    def next_offset(self) -> int:
        return self._next_offset

    @property
    def begun_ms(self) -> int | None:
        return self._begun_ms

    @property
    def pending_bytes(self) -> int:
        return self._pending_bytes

    @property
    def stored_bytes(self) -> int:
        return self._kept.stored_bytes

    @property
    def kept_bytes(self) -> int:
        """What the kept records cost in memory; at most `bytes_max` but for one run."""
        return self._kept.kept_bytes

    @property
    def oldest_ms(self) -> int | None:
        self._drop_old()
        return self._kept.oldest_ms if len(self._kept) else None

    @property
    def newest_ms(self) -> int | None:
        return self._kept.newest_ms if len(self._kept) else None

    # hot path: tests/bench/sqlite_log.py
    def append(self, run: PublishRun) -> None:
        ends = run.ends
        run.base_offset = self._append_offset
        self._append_offset += len(ends)
        if run.received_at_ms < self._last_ms:
            run.received_at_ms = self._last_ms
        else:
            self._last_ms = run.received_at_ms
        self._pending_bytes += ends[-1] - run.start
        self._pending.append(run)

    def flush(self) -> None:
        runs = self._pending
        if not runs:
            return
        self._pending = []
        self._pending_bytes = 0
        self._kept.keep(runs)
        self._next_offset = self._append_offset
        self._drop_old()
        self.on_committed(runs)

    def withdraw(self, run: PublishRun) -> bool:
        if run not in self._pending:
            return False
        index = self._pending.index(run)
        del self._pending[index]
        self._pending_bytes -= run.ends[-1] - run.start
        self._append_offset -= len(run.ends)
        for later in self._pending[index:]:
            later.base_offset -= len(run.ends)
        return True

    async def trim(self, before: int) -> None:
        """Drop every record before an offset."""
        before = min(before, self._next_offset)
        slice_end = time.perf_counter() + SLICE_S
        while self.first_offset < before:
            self._kept.cut_oldest(before)
            if time.perf_counter() > slice_end:
                await asyncio.sleep(0)
                slice_end = time.perf_counter() + SLICE_S

    async def offset_keeping(self, bytes_max: int) -> int:
        """The offset from which on there is no more than `bytes_max`, in whole runs."""
        return self._kept.offset_keeping(bytes_max)

    async def offset_at(self, time_ms: int) -> int:
        return self._offset_at(time_ms)

    async def scan(self, request: Question[AnswerT]) -> AnswerT:
        await asyncio.sleep(0)  # a caller that reads piece after piece must not keep the loop
        start, end = self._range(request)
        kept = (self.first_offset, self._next_offset)
        collector = collector_for(request, kept, start, end, self._choice(request.filters))
        if request.epoch != self.epoch:
            return collector.nothing()
        slice_end = time.perf_counter() + SLICE_S
        while not collector.is_done:
            # Looked up anew each time: while the loop ran, the oldest runs may have gone.
            first_offset = self.first_offset
            wanted = collector.position if collector.is_ascending else collector.position - 1
            if wanted < first_offset:
                collector.lose(first_offset)
                continue
            collector.add(self._kept.run_with(wanted, self._node_run))
            if time.perf_counter() > slice_end:
                await asyncio.sleep(0)
                slice_end = time.perf_counter() + SLICE_S
        return collector.result()

    def _range(self, request: Question[Answer]) -> tuple[int, int]:
        """The offsets to look at. Times never fall, so a range of time is a range of offsets."""
        start = max(request.start, self.first_offset)
        end = min(request.end, self._next_offset)
        if request.from_ms is not None:
            start = max(start, self._offset_at(request.from_ms))
        if request.until_ms is not None:
            end = min(end, self._offset_at(request.until_ms))
        return start, max(start, end)

    def _choice(self, filters: tuple[str, ...]) -> TopicChoice:
        choice = self._choice_by_filters.pop(filters, None) or TopicChoice(filters)
        self._choice_by_filters[filters] = choice  # the most recently used is last
        if len(self._choice_by_filters) > CHOICES_MAX:
            del self._choice_by_filters[next(iter(self._choice_by_filters))]
        return choice

    def _offset_at(self, time_ms: int) -> int:
        self._drop_old()
        offset = self._kept.offset_at(time_ms)
        return offset if offset >= 0 else self._next_offset

    def _drop_old(self) -> None:
        if self._age_ms_max is not None:
            self._kept.drop_before(self._clock() - self._age_ms_max)
