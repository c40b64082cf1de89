"""KafkaStreamScan: one question to a Kafka stream under way: its partitions merged by time, then its spool (ADR 10).

Upwards the spool comes last, downwards first; of a record with two copies one is passed over, by the two rules of the
position. What is spooled is newer than what the position has not seen in Kafka: records wait for that, for a key would
be out of order otherwise. A count or a curve has no order; while Kafka cannot be reached it has the spool's part.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaConnectionError

from bridge.cursors import SPOOL, MovingPosition
from bridge.history.answers import collector_for
from bridge.history.moved_rows import MovedRows
from bridge.history.scan import Question, StreamQuestion, StreamScan, StreamScanResult
from bridge.history.stretches import Stretch
from bridge.records import RecordRun
from bridge.streams.collect import ScanCollector
from bridge.streams.frames import decode_body
from bridge.streams.kafka.cluster import (
    LATEST,
    KafkaFailure,
    TopicState,
    list_offsets,
)
from bridge.streams.kafka.readers import KafkaSource
from bridge.streams.kafka.spool_tables import copies_in_kafka, copies_of_spooled, read_bodies

if TYPE_CHECKING:
    from bridge.history.kafka_reader import KafkaReader

DESCEND_RECORDS = 500
"""Records of each partition that a descending scan looks at in one step."""
FAR = 1 << 62


class AnotherEpoch(Exception):
    """The topic is not the one that was asked about."""


class KafkaStreamScan:
    """One scan under way."""

    def __init__(
        self,
        reader: KafkaReader,
        source: KafkaSource,
        request: StreamScan | StreamQuestion[Any],
        *,
        reads_on: bool = False,
    ) -> None:
        """`reads_on`: the next scan will go on where this one ends."""
        self.reader = reader
        self.source = source
        self.request = request
        self._reads_on = reads_on
        self.what: Question[Any] = request.what
        self.is_ascending = self.what.order == "asc"
        self.start = dict(request.start)
        self.end = {partition: request.end.get(partition, 0) for partition in request.start}
        self.position: dict[int, int] = dict(self.start if self.is_ascending else self.end)
        self.first: dict[int, int] = {}
        filters = self.what.filters
        self.collector = collector_for(self.what, (0, FAR), 0, FAR, reader.choice(source, filters))
        self._hidden: dict[int, Sequence[int]] = {}
        """Of the stretches in hand, by partition: offsets of copies that are passed over."""
        self._moving = MovingPosition(source.stream, source.epoch, source.spool_epoch, self.start)
        self.partitions = [p for p in sorted(self.start) if p != SPOOL and self.start[p] < self.end[p]]

    async def run(self) -> None:
        if self.what.epoch != self.source.epoch:
            raise AnotherEpoch
        if not self.is_ascending:
            try:
                await self._spool_down()
                if not self.collector.is_bound_reached:
                    await self._descend()
            except KafkaFailure:
                await self.reader.forget_client()
                if self._is_records or not self._has_spool():
                    raise
            return
        try:
            if self.partitions:
                await self._ascend()
        except KafkaFailure:
            await self.reader.forget_client()
            if self._is_records or not self._has_spool():
                if self._has_moved():
                    return
                raise
        else:
            if self._is_records and not self._has_all_of_kafka():
                return
        if not self.collector.is_bound_reached:
            self._spool_up()

    @property
    def _is_records(self) -> bool:
        return isinstance(self.request, StreamScan)

    def _has_all_of_kafka(self) -> bool:
        """Whether nothing is left there that is older than the spool's part, as far as anybody knows.

        Who stands beyond the end, after a crash, knows more than the live side: what is between them is not known yet.
        """
        return all(self.position[p] >= self.end[p] >= offset for p, offset in self.start.items() if p != SPOOL)

    def _has_moved(self) -> bool:
        return any(self.position[partition] != offset for partition, offset in self.start.items())

    def _has_spool(self) -> bool:
        return self.start.get(SPOOL, 0) < self.end.get(SPOOL, 0)

    def result(self) -> StreamScanResult:
        assert isinstance(self.collector, ScanCollector)
        data, count = self.collector.taken()
        return StreamScanResult(
            data,
            count,
            self.position,
            {**self.first, SPOOL: 0} if SPOOL in self.start else self.first,
            self.collector.last_ms,
            publishes=self.collector.publishes(),
        )

    def answer(self) -> Any:
        """What the collector has, of all partitions."""
        goal = self.end if self.is_ascending else self.start
        is_complete = all(self.position[partition] == offset for partition, offset in goal.items())
        return replace(self.collector.result(), is_complete=is_complete)

    # Kafka, upwards

    async def _prepare(self) -> TopicState:
        if not self.source.is_up and self.reader.client is None:
            raise KafkaConnectionError("Kafka does not answer")
        state = await self.reader.state(self.source.topic, self.source.epoch)
        self.first = dict(await self.reader.first_offsets(self.source.topic, state))
        return state

    async def _ascend(self) -> None:
        state = await self._prepare()
        position, end = self.position, self.end
        for partition in self.partitions:
            position[partition] = min(max(position[partition], self.first.get(partition, 0)), end[partition])
        while not self.collector.is_bound_reached:
            active = {p: position[p] for p in self.partitions if position[p] < end[p]}
            if not active:
                return
            stretches = await self.reader.stretches.load(self.source, state, active, reads_on=self._reads_on)
            if all(stretch is None for stretch in stretches.values()):
                return  # a replica that has not got so far; the next scan finds more
            self._hidden = {}
            watermark = FAR
            heads: list[tuple[int, int, int]] = []
            """Time, partition and number of the next run of each stretch that has one."""
            for partition, stretch in stretches.items():
                if stretch is None:
                    return  # nobody knows its times; the others wait, unless none is behind it
                index = stretch.index_at(position[partition])
                if index < len(stretch.runs) and stretch.runs[index].base_offset < end[partition]:
                    heads.append((stretch.times[index], partition, index))
                if stretch.end < end[partition]:
                    watermark = min(watermark, stretch.times[-1] if stretch.times else 0)
            heapify(heads)
            while heads and heads[0][0] <= watermark:
                _, partition, index = heads[0]
                stretch = stretches[partition]
                assert stretch is not None
                self._take_up(partition, stretch.runs[index], stretch)
                if self.collector.is_bound_reached:
                    return
                index += 1
                if index < len(stretch.runs) and stretch.runs[index].base_offset < end[partition]:
                    heapreplace(heads, (stretch.times[index], partition, index))
                else:
                    heappop(heads)
            rest = {partition for _, partition, _ in heads}
            for partition, stretch in stretches.items():
                if partition not in rest:
                    assert stretch is not None
                    position[partition] = max(position[partition], min(stretch.end, end[partition]))

    def _take_up(self, partition: int, run: RecordRun, stretch: Stretch) -> None:
        position = self.position
        low = max(position[partition], run.base_offset)
        high = min(run.base_offset + len(run), self.end[partition])
        if low >= high:
            return
        if self._is_in_time(run):
            hidden = self._hidden.get(partition)
            if hidden is None:
                hidden = self._hidden[partition] = self._seen_in_spool(partition, stretch.base, stretch.end)
            for first, last in _without(low, high, hidden):
                self._collect(partition, run, first, last)
                if self.collector.is_bound_reached:
                    position[partition] = self.collector.position
                    return
        else:
            self.collector.work_left -= high - low
        position[partition] = high

    def _is_in_time(self, run: RecordRun) -> bool:
        what = self.what
        time_ms = run.received_at_ms
        return (what.from_ms is None or time_ms >= what.from_ms) and (what.until_ms is None or time_ms < what.until_ms)

    def _collect(self, partition: int, run: RecordRun, low: int, high: int) -> None:
        """Rows of a run that are wanted, as far as the bounds let."""
        head = tail = ""
        if isinstance(self.request, StreamScan) and self.request.what.encoding in ("event", "poll", "publish"):
            head, tail = self._moving.around(self.position, partition)
            head, tail = self.request.before + head, tail + self.request.after
        epoch = self.source.spool_epoch if partition == SPOOL else self.source.epoch
        self.collector.turn_to(low, high, epoch, head, tail)
        self.collector.add(run)

    def _seen_in_spool(self, partition: int, low: int, high: int) -> Sequence[int]:
        """Offsets at `low <= offset < high` that hold copies of what the position has seen in the spool, rising."""
        seen_before = self.position.get(SPOOL, 0)
        if not seen_before:
            return ()
        copies = copies_in_kafka(self.reader.store, self.source.spool_table, partition, low, high)
        return sorted(
            batch.base + number
            for batch in copies
            for number, offset in enumerate(batch.offsets)
            if offset < seen_before
        )

    # Kafka, downwards

    async def _descend(self) -> None:
        if not self.partitions:
            return
        state = await self._prepare()
        position = self.position
        last = await list_offsets(await self.reader.connected(), self.source.topic, state.leaders, LATEST)
        for partition in self.partitions:  # whoever asks may name a place where nothing has ever been
            position[partition] = min(position[partition], last.get(partition, (0, 0))[0])
        low_end = {p: min(max(self.start[p], self.first.get(p, 0)), self.end[p]) for p in self.partitions}
        while not self.collector.is_bound_reached:
            active = [p for p in self.partitions if position[p] > low_end[p]]
            if not active:
                break
            watermark = -1
            runs: list[tuple[int, int, int, RecordRun]] = []
            lows: dict[int, int] = {}
            for partition in active:
                low = lows[partition] = max(low_end[partition], position[partition] - DESCEND_RECORDS)
                found = await self._between(state, partition, low, position[partition])
                time_ms = FAR
                for run in reversed(found):
                    time_ms = min(time_ms, run.received_at_ms)
                    runs.append((time_ms, partition, run.base_offset, run))
                if low > low_end[partition] and found:
                    watermark = max(watermark, time_ms)
            runs.sort(key=_place, reverse=True)
            rest: set[int] = set()
            for time_ms, partition, _, run in runs:
                if time_ms < watermark:
                    rest.add(partition)
                    continue
                self._take_down(partition, run, lows[partition])
                if self.collector.is_bound_reached:
                    return
            for partition in active:
                if partition not in rest:
                    position[partition] = lows[partition]
        for partition in self.partitions:
            if position[partition] <= low_end[partition]:
                position[partition] = min(position[partition], self.start[partition])

    async def _between(self, state: TopicState, partition: int, low: int, high: int) -> list[RecordRun]:
        runs: list[RecordRun] = []
        offset = low
        while offset < high:
            stretch = (await self.reader.stretches.load(self.source, state, {partition: offset}))[partition]
            if stretch is None:
                break
            runs += [run for run in stretch.runs if run.base_offset + len(run) > offset and run.base_offset < high]
            offset = stretch.end
        return runs

    def _take_down(self, partition: int, run: RecordRun, low_end: int) -> None:
        position = self.position
        low, high = max(low_end, run.base_offset), min(run.base_offset + len(run), position[partition])
        if low >= high:
            return
        if self._is_in_time(run):
            self._collect(partition, run, low, high)
            if self.collector.is_bound_reached:
                position[partition] = self.collector.position
                return
        else:
            self.collector.work_left -= high - low
        position[partition] = low

    # The spool

    def _spool_up(self) -> None:
        position, end = self.position, self.end.get(SPOOL, 0)
        while position.get(SPOOL, 0) < end and not self.collector.is_bound_reached:
            at = position[SPOOL]
            bodies = read_bodies(self.reader.store, self.source.spool_table, at, end)
            first = bodies[0][0] if bodies else end
            if first > at:
                # Rows that are gone are in Kafka; one whose copy this position has not reached stops the scan.
                if self._unseen_copies(at, min(first, end)):
                    return
                position[SPOOL] = min(first, end)
                continue
            for base, body in bodies:
                for run in decode_body(body, base, self.reader.spool_topics()):
                    self._take_spooled(run, end)
                    if self.collector.is_bound_reached:
                        return

    def _take_spooled(self, run: RecordRun, end: int) -> None:
        position = self.position
        low, high = max(position[SPOOL], run.base_offset), min(run.base_offset + len(run), end)
        if low >= high:
            return
        run.partition = SPOOL
        if self._is_in_time(run):
            for first, last in _without(low, high, self._seen_in_kafka(low, high, position)):
                self._collect(SPOOL, run, first, last)
                if self.collector.is_bound_reached:
                    position[SPOOL] = self.collector.position
                    return
        position[SPOOL] = high

    def _seen_in_kafka(self, low: int, high: int, position: Mapping[int, int]) -> Sequence[int]:
        """Spool offsets whose copies lie below a position in Kafka, rising."""
        return sorted(
            offset
            for batch in copies_of_spooled(self.reader.store, self.source.spool_table, low, high)
            for number, offset in enumerate(batch.offsets)
            if batch.base + number < position.get(batch.partition, 0) and low <= offset < high
        )

    def _unseen_copies(self, low: int, high: int) -> bool:
        """Some record that is gone from the spool stands in Kafka where this position has not been."""
        return any(
            batch.base + number >= self.position.get(batch.partition, 0)
            for batch in copies_of_spooled(self.reader.store, self.source.spool_table, low, high)
            for number, offset in enumerate(batch.offsets)
            if low <= offset < high
        )

    async def _spool_down(self) -> None:
        """Newest first: what will be shown from Kafka is left out here."""
        position, start = self.position, self.start.get(SPOOL, 0)
        if position.get(SPOOL, 0) <= start:
            return
        moved = MovedRows(self.reader, self.source, self.end)
        while position.get(SPOOL, 0) > start and not self.collector.is_bound_reached:
            at = position[SPOOL]
            low = max(start, at - DESCEND_RECORDS)
            runs = [
                run
                for base, body in read_bodies(self.reader.store, self.source.spool_table, low, at)
                for run in decode_body(body, base, self.reader.spool_topics())
            ]
            places = moved.places(low, at, runs)
            if places:
                runs = sorted([*runs, *await moved.runs(await self._prepare(), places)], key=_base)
            for run in reversed(runs):
                high = min(position[SPOOL], run.base_offset + len(run))
                bottom = max(low, run.base_offset)
                if bottom >= high:
                    continue
                run.partition = SPOOL
                if self._is_in_time(run):
                    hidden = self._seen_in_kafka(bottom, high, self.end)
                    for first, last in reversed(list(_without(bottom, high, hidden))):
                        self._collect(SPOOL, run, first, last)
                        if self.collector.is_bound_reached:
                            position[SPOOL] = self.collector.position
                            return
                position[SPOOL] = bottom
            position[SPOOL] = min(position[SPOOL], low)


def _place(entry: tuple[int, int, int, RecordRun]) -> tuple[int, int, int]:
    return entry[:3]


def _base(run: RecordRun) -> int:
    return run.base_offset


def _without(low: int, high: int, hidden: Sequence[int]) -> Sequence[tuple[int, int]]:
    """`low <= offset < high` without some offsets, given rising, as ranges."""
    if not hidden:
        return [(low, high)]
    ranges = []
    first = low
    for offset in hidden[bisect_left(hidden, low) : bisect_left(hidden, high)]:
        if first < offset:
            ranges.append((first, offset))
        first = offset + 1
    if first < high:
        ranges.append((first, high))
    return ranges
