"""MemoryLog: a stream that lives as long as its process, bounded in bytes and, when wanted, in age.

It commits inside `flush`, begins a new epoch at each start and answers scans in slices of at most `SLICE_S` between
which the event loop runs. Runs are kept without their connection, so that nothing of a closed one stays alive.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence

from bridge.history.answers import collector_for
from bridge.history.scan import Answer, AnswerT, Question
from bridge.records import RecordRun, Topic
from bridge.streams.collect import TopicChoice, lowest_at
from bridge.streams.log import clock_ms, ignore_commits
from bridge.streams.one_partition import OnePartition, ignore_runs
from broker.publish_run import PublishRun

BYTES_MAX = 64 * 1024 * 1024
SLICE_S = 0.002
CHOICES_MAX = 16
"""Filter lists whose answers are remembered between scans."""

RUN_BYTES = 640
"""What a kept run costs beside its frames, as measured; it counts towards `bytes_max`."""
ROW_BYTES = 16
"""What a row costs beside its frame: an entry in each of three columns."""
SLACK_BYTES = 16 * 1024
"""A run whose read holds so much more than the run's frames gets bytes of its own."""

SHORT_ROWS = 8

KeptRun = tuple[bytes, int, tuple[Topic, ...], Sequence[int], Sequence[int], int, int, str, bool]
"""data, start, topics, payload starts, ends, first number, time, client id, is v5: a `RecordRun` in the making."""


def _pack(column: Sequence[int]) -> Sequence[int]:
    return array("I", column)


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
        self._bytes_max = bytes_max
        self._age_ms_max = age_ms_max
        self._node_run = node_run
        self._clock = clock
        self._pending: list[PublishRun] = []
        self._pending_bytes = 0
        self._append_offset = 0
        self._last_ms = 0
        # Kept runs, oldest first, with the offset of each one's first record; those before `_head` are dropped.
        self._runs: list[KeptRun | None] = []
        self._bases: list[int] = []
        self._head = 0
        self._next_offset = 0
        self._stored_bytes = 0
        self._kept_bytes = 0
        self._choice_by_filters: dict[tuple[str, ...], TopicChoice] = {}

    @property
    def first_offset(self) -> int:
        self._drop_old()
        return self._bases[self._head] if self._head < len(self._bases) else self._next_offset

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
        return self._stored_bytes

    @property
    def kept_bytes(self) -> int:
        """What the kept records cost in memory, columns included; at most `bytes_max` but for one run."""
        return self._kept_bytes

    @property
    def oldest_ms(self) -> int | None:
        self._drop_old()
        return self._time(self._head) if self._head < len(self._runs) else None

    @property
    def newest_ms(self) -> int | None:
        return self._time(-1) if self._head < len(self._runs) else None

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
        self._stored_bytes += self._pending_bytes
        self._pending_bytes = 0
        for run in runs:
            self._keep(run)
        self._next_offset = self._append_offset
        while self._kept_bytes > self._bytes_max and self._head < len(self._runs) - 1:
            self._drop_oldest()
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
            if before - self._bases[self._head] >= len(self._kept(self._head)[4]):
                self._drop_oldest()
            else:
                self._cut_oldest(before)
            if time.perf_counter() > slice_end:
                await asyncio.sleep(0)
                slice_end = time.perf_counter() + SLICE_S

    def _cut_oldest(self, first: int) -> None:
        """The oldest run begins with offset `first`, which is in it."""
        data, start, topics, payload_starts, ends, first_number, time_ms, client_id, is_v5 = self._kept(self._head)
        count = first - self._bases[self._head]
        new_start = ends[count - 1]
        self._stored_bytes -= new_start - start
        self._kept_bytes -= new_start - start + ROW_BYTES * count
        self._runs[self._head] = (
            data,
            new_start,
            topics[count:],
            payload_starts[count:],
            ends[count:],
            first_number + count,
            time_ms,
            client_id,
            is_v5,
        )
        self._bases[self._head] = first

    async def offset_keeping(self, bytes_max: int) -> int:
        """The offset from which on there is no more than `bytes_max`, in whole runs."""
        size = 0
        for index in range(len(self._runs) - 1, self._head - 1, -1):
            _, start, _, _, ends, *_ = self._kept(index)
            size += ends[-1] - start
            if size > bytes_max:
                return self._bases[index] + len(ends)
        return 0

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
            collector.add(self._run(bisect_right(self._bases, wanted) - 1))
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
        index = lowest_at(time_ms, self._head, len(self._runs), self._time)
        return self._bases[index] if index < len(self._bases) else self._next_offset

    def _kept(self, index: int) -> KeptRun:
        kept = self._runs[index]
        assert kept is not None, "a dropped run was asked for"
        return kept

    def _time(self, index: int) -> int:
        return self._kept(index)[6]

    def _run(self, index: int) -> RecordRun:
        data, start, topics, payload_starts, ends, first_number, received_at_ms, client_id, is_v5 = self._kept(index)
        return RecordRun(
            data,
            start,
            topics,
            payload_starts,
            ends,
            base_offset=self._bases[index],
            first_number=first_number,
            node_run=self._node_run,
            received_at_ms=received_at_ms,
            client_id=client_id,
            is_v5=is_v5,
        )

    def _keep(self, run: PublishRun) -> None:
        data, start, ends = run.data, run.start, run.ends
        frames_bytes = ends[-1] - start
        payload_starts = run.payload_starts
        if len(data) > 2 * frames_bytes + SLACK_BYTES:
            data = run.frames()
            payload_starts = [payload_start - start for payload_start in payload_starts]
            ends = [end - start for end in ends]
            start = 0
        topics = [route.sink_topic for route in run.routes]
        # An array is a fifth of a list of ints, and nothing for the collector to walk; a tuple is made sooner.
        pack = tuple if len(ends) <= SHORT_ROWS else _pack
        self._runs.append(
            (
                data,
                start,
                tuple(topics),  # type: ignore[arg-type]
                pack(payload_starts),
                pack(ends),
                run.first_number,
                run.received_at_ms,
                run.client_id,
                run.is_v5,
            )
        )
        self._bases.append(run.base_offset)
        self._kept_bytes += frames_bytes + RUN_BYTES + ROW_BYTES * len(ends)

    def _drop_old(self) -> None:
        if self._age_ms_max is None:
            return
        limit_ms = self._clock() - self._age_ms_max
        while self._head < len(self._runs) and self._time(self._head) < limit_ms:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, start, _, _, ends, *_ = self._kept(self._head)
        frames_bytes = ends[-1] - start
        self._stored_bytes -= frames_bytes
        self._kept_bytes -= frames_bytes + RUN_BYTES + ROW_BYTES * len(ends)
        self._runs[self._head] = None
        self._head += 1
        if self._head * 2 > len(self._runs) and self._head > 1_000:
            del self._runs[: self._head]
            del self._bases[: self._head]
            self._head = 0
