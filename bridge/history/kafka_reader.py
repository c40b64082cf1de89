"""KafkaReader: answers questions about a Kafka stream: its partitions merged by time, then its spool (ADR 10).

What was fetched is kept for a while, decoded, so that readers at the same place cost one fetch. It runs in a process of
its own (`kafka_reader_process`), where nothing else waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError

from bridge.cursors import SPOOL, Offsets, StreamPosition
from bridge.history.answers import collector_for
from bridge.history.scan import AnswerT, Question, StreamQuestion, StreamScan, StreamScanResult
from bridge.records import RecordRun, Topic
from bridge.streams.collect import ScanCollector, TopicChoice
from bridge.streams.frames import decode_body
from bridge.streams.kafka.cluster import (
    EARLIEST,
    LATEST,
    KafkaFailure,
    TopicState,
    fetch,
    list_offsets,
    topic_states,
)
from bridge.streams.kafka.fetched import batches_of
from bridge.streams.kafka.readers import Identity, KafkaSource
from bridge.streams.kafka.records import Decoder
from bridge.streams.kafka.settings import KafkaSettings
from bridge.streams.kafka.spool import copies_in_kafka, copies_of_spooled, read_bodies
from bridge.streams.sqlite_schema import open_reader

logger = logging.getLogger(__name__)

STATE_S = 1.0
"""How long what Kafka said of a topic is believed."""
DESCEND_RECORDS = 500
"""Records of each partition that a descending scan looks at in one step."""
FETCH_WAIT_MS = 100
CHOICES_MAX = 64
TOPICS_MAX = 200_000
OFFSET_OUT_OF_RANGE = 1
FAR = 1 << 62
RUN_BYTES = 700
"""What a decoded run costs beside its frames."""


class AnotherEpoch(Exception):
    """The topic is not the one that was asked about."""


class Stretch:
    """Records of one partition that were fetched together."""

    __slots__ = ("base", "bytes", "end", "runs")

    def __init__(self, base: int, end: int, runs: list[RecordRun]) -> None:
        self.base = base
        self.end = end
        self.runs = runs
        self.bytes = sum([run.ends[-1] - run.start + RUN_BYTES + 24 * len(run.ends) for run in runs])


class Stretches:
    """Fetched stretches, the least recently used of which go."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._stretches: OrderedDict[tuple[str, int, int], Stretch] = OrderedDict()
        self._bases: dict[tuple[str, int], list[int]] = {}

    def find(self, epoch: str, partition: int, offset: int) -> Stretch | None:
        """The stretch that holds an offset."""
        bases = self._bases.get((epoch, partition))
        index = bisect_right(bases, offset) - 1 if bases else -1
        if bases is None or index < 0:
            return None
        key = (epoch, partition, bases[index])
        stretch = self._stretches[key]
        if offset >= stretch.end:
            return None
        self._stretches.move_to_end(key)
        return stretch

    def add(self, epoch: str, partition: int, stretch: Stretch) -> None:
        key = (epoch, partition, stretch.base)
        older = self._stretches.pop(key, None)
        bases = self._bases.setdefault((epoch, partition), [])
        if older is not None:
            self._bytes -= older.bytes
        else:
            bases.insert(bisect_right(bases, stretch.base), stretch.base)
        self._stretches[key] = stretch
        self._bytes += stretch.bytes
        while self._bytes > self._bytes_max and len(self._stretches) > 1:
            (other_epoch, other_partition, base), dropped = self._stretches.popitem(last=False)
            self._bytes -= dropped.bytes
            self._bases[other_epoch, other_partition].remove(base)


class KafkaReader:
    """See the module's docstring."""

    def __init__(self, settings: KafkaSettings, store_path: Path) -> None:
        self._settings = settings
        self._store_path = store_path
        self._connection: sqlite3.Connection | None = None
        self._client: AIOKafkaClient | None = None
        self._connecting = asyncio.Lock()
        self._states: dict[str, tuple[float, TopicState]] = {}
        self._firsts: dict[str, tuple[float, dict[int, int]]] = {}
        self._stretches = Stretches(settings.cache_bytes_max)
        self._decoders: dict[tuple[str, str | None], Decoder] = {}
        self._choices: OrderedDict[tuple[str, tuple[str, ...]], TopicChoice] = OrderedDict()
        self._spool_topics: dict[bytes, Topic] = {}

    async def close(self) -> None:
        await self._forget_client()
        if self._connection is not None:
            self._connection.close()

    # Kafka

    async def _connected(self) -> AIOKafkaClient:
        async with self._connecting:
            if self._client is None:
                client = AIOKafkaClient(**self._settings.client_arguments(), client_id="headrace-history")
                try:
                    await client.bootstrap()
                except BaseException:
                    with contextlib.suppress(*KafkaFailure):
                        await client.close()
                    raise
                self._client = client
            return self._client

    async def _forget_client(self) -> None:
        client, self._client = self._client, None
        self._states.clear()
        self._firsts.clear()
        if client is not None:
            with contextlib.suppress(*KafkaFailure):
                await asyncio.wait_for(client.close(), 2)

    async def _state(self, topic: str, epoch: str) -> TopicState:
        """Raises: AnotherEpoch, and what Kafka's calls raise."""
        known = self._states.get(topic)
        now = time.monotonic()
        if known is None or now - known[0] > STATE_S:
            client = await self._connected()
            client.add_topic(topic)
            found = (await topic_states(client, [topic])).get(topic)
            if found is None:
                raise AnotherEpoch
            known = self._states[topic] = (now, found)
        if f"k{known[1].topic_id}" != epoch:
            raise AnotherEpoch
        return known[1]

    async def _first_offsets(self, topic: str, state: TopicState) -> dict[int, int]:
        known = self._firsts.get(topic)
        now = time.monotonic()
        if known is None or now - known[0] > STATE_S:
            ends = await list_offsets(await self._connected(), topic, state.leaders, EARLIEST)
            known = self._firsts[topic] = (now, {partition: offset for partition, (offset, _) in ends.items()})
        return known[1]

    async def offsets_at(self, topic: str, epoch: str, ends: Mapping[int, int], time_ms: int) -> dict[int, int]:
        """See `KafkaReaders.offsets_at`."""
        state = await self._state(topic, epoch)
        found = await list_offsets(await self._connected(), topic, state.leaders, max(0, time_ms))
        return {
            partition: end if found.get(partition, (-1, 0))[0] < 0 else min(end, found[partition][0])
            for partition, end in ends.items()
        }

    async def locate(
        self, topic: str, epoch: str, start: Mapping[int, int], identities: set[Identity]
    ) -> dict[Identity, tuple[int, int]]:
        """See `KafkaReaders.locate`."""
        state = await self._state(topic, epoch)
        client = await self._connected()
        first = {partition: offset for partition, (offset, _) in
                 (await list_offsets(client, topic, state.leaders, EARLIEST)).items()}  # fmt: skip
        last = {partition: offset for partition, (offset, _) in
                (await list_offsets(client, topic, state.leaders, LATEST)).items()}  # fmt: skip
        source = KafkaSource("", topic, epoch, "", 0, None, True)
        found: dict[Identity, tuple[int, int]] = {}
        for partition, begin in start.items():
            offset = max(begin, first.get(partition, 0))
            while offset < last.get(partition, 0):
                (stretch,) = (await self._load(source, state, {partition: offset})).values()
                if stretch is None:
                    break
                for run in stretch.runs:
                    for row in range(len(run)):
                        identity = (run.node_run, run.number(row))
                        if run.base_offset + row >= offset and identity in identities:
                            found.setdefault(identity, (partition, run.base_offset + row))
                offset = stretch.end
        return found

    async def _load(
        self, source: KafkaSource, state: TopicState, offsets: Mapping[int, int]
    ) -> dict[int, Stretch | None]:
        """The stretch that holds each offset; None where there is nothing yet."""
        found = {
            partition: self._stretches.find(source.epoch, partition, offset) for partition, offset in offsets.items()
        }
        by_node: dict[int, dict[int, int]] = {}
        for partition, stretch in found.items():
            if stretch is None:
                by_node.setdefault(state.leaders.get(partition, -1), {})[partition] = offsets[partition]
        if not by_node:
            return found
        client = await self._connected()
        answers = await asyncio.gather(
            *[
                fetch(client, node, {source.topic: wanted}, self._settings, FETCH_WAIT_MS)
                for node, wanted in by_node.items()
            ]
        )
        decoder = self._decoder(source)
        for answer in answers:
            for (_, partition), part in answer.items():
                if part.error_code == OFFSET_OUT_OF_RANGE:
                    self._firsts.pop(source.topic, None)
                    continue
                if part.error_code:
                    self._states.pop(source.topic, None)
                    raise KafkaConnectionError(f"partition {partition} cannot be read now (error {part.error_code})")
                runs: list[RecordRun] = []
                base = end = offsets[partition]
                for batch in batches_of(part.data):
                    base = min(base, batch.base_offset)
                    runs += decoder.runs(batch, partition, 0, FAR)
                    end = batch.next_offset
                    await asyncio.sleep(0)
                if end > offsets[partition]:
                    stretch = found[partition] = Stretch(base, end, runs)
                    self._stretches.add(source.epoch, partition, stretch)
        return found

    def _decoder(self, source: KafkaSource) -> Decoder:
        key = (source.topic, source.topic_template)
        decoder = self._decoders.get(key)
        if decoder is None:
            decoder = self._decoders[key] = Decoder(*key)
        return decoder

    def _choice(self, source: KafkaSource, filters: tuple[str, ...]) -> TopicChoice:
        choice = self._choices.pop((source.topic, filters), None) or TopicChoice(filters)
        self._choices[source.topic, filters] = choice
        if len(self._choices) > CHOICES_MAX:
            self._choices.popitem(last=False)
        return choice

    # Scans

    async def scan(self, source: KafkaSource, request: StreamScan) -> StreamScanResult:
        """See `StreamLog.scan_stream`."""
        scan = _StreamScan(self, source, request)
        try:
            await scan.run()
        except AnotherEpoch:
            return StreamScanResult(b"", 0, request.start, {}, None, is_epoch_current=False)
        return scan.result()

    async def ask(self, source: KafkaSource, request: StreamQuestion[AnswerT]) -> AnswerT:
        """See `StreamLog.ask_stream`: one answer for all partitions."""
        scan = _StreamScan(self, source, request)
        try:
            await scan.run()
        except AnotherEpoch:
            return cast("AnswerT", scan.collector.nothing())
        return cast("AnswerT", scan.answer())

    async def forget_client(self) -> None:
        """After a failure: connect anew at the next request."""
        await self._forget_client()

    @property
    def store(self) -> sqlite3.Connection:
        """The file of the store, to read."""
        if self._connection is None:
            self._connection = open_reader(self._store_path)
        return self._connection

    def spool_topics(self) -> dict[bytes, Topic]:
        """Topics of spooled records, by their bytes in a frame."""
        if len(self._spool_topics) > TOPICS_MAX:
            self._spool_topics.clear()
        return self._spool_topics


class _StreamScan:
    """One scan under way."""

    def __init__(self, reader: KafkaReader, source: KafkaSource, request: StreamScan | StreamQuestion[Any]) -> None:
        self.reader = reader
        self.source = source
        self.request = request
        self.what: Question[Any] = request.what
        self.is_ascending = self.what.order == "asc"
        self.start = dict(request.start)
        self.end = {partition: request.end.get(partition, 0) for partition in request.start}
        self.position: dict[int, int] = dict(self.start if self.is_ascending else self.end)
        self.first: dict[int, int] = {}
        filters = self.what.filters
        self.collector = collector_for(self.what, (0, FAR), 0, FAR, reader._choice(source, filters))
        self.partitions = [p for p in sorted(self.start) if p != SPOOL and self.start[p] < self.end[p]]

    async def run(self) -> None:
        if not self.is_ascending:
            self._spool_down()
            if not self.collector.is_bound_reached:
                await self._descend()
            return
        is_unreachable = False
        if self.partitions:
            try:
                await self._ascend()
            except KafkaFailure:
                # The spool's part of a position goes on alone; Kafka's part waits.
                await self.reader.forget_client()
                is_unreachable = True
                if not self._has_spool():
                    raise
        if not self.collector.is_bound_reached:
            self._spool_up()
        if is_unreachable and not self._has_moved():
            raise KafkaConnectionError("Kafka does not answer")

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
        if not self.source.is_up and self.reader._client is None:
            raise KafkaConnectionError("Kafka does not answer")
        state = await self.reader._state(self.source.topic, self.source.epoch)
        self.first = dict(await self.reader._first_offsets(self.source.topic, state))
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
            stretches = await self.reader._load(self.source, state, active)
            if all(stretch is None for stretch in stretches.values()):
                return  # a replica that has not got so far; the next scan finds more
            watermark = FAR
            runs: list[tuple[int, int, int, RecordRun]] = []
            covered: dict[int, int] = {}
            for partition, stretch in stretches.items():
                if stretch is None:
                    watermark = -1  # nobody knows its times; the others wait, unless none is behind it
                    continue
                covered[partition] = min(stretch.end, end[partition])
                time_ms = 0
                for run in stretch.runs:
                    time_ms = max(time_ms, run.received_at_ms)  # in a partition the order of offsets counts
                    if run.base_offset + len(run) > position[partition] and run.base_offset < end[partition]:
                        runs.append((time_ms, partition, run.base_offset, run))
                if stretch.end < end[partition]:
                    watermark = min(watermark, time_ms)
            if watermark < 0:
                return
            runs.sort(key=_place)
            rest: set[int] = set()
            for time_ms, partition, _, run in runs:
                if time_ms > watermark:
                    rest.add(partition)
                    continue
                self._take_up(partition, run)
                if self.collector.is_bound_reached:
                    return
            for partition, offset in covered.items():
                if partition not in rest:
                    position[partition] = max(position[partition], offset)

    def _take_up(self, partition: int, run: RecordRun) -> None:
        position = self.position
        low = max(position[partition], run.base_offset)
        high = min(run.base_offset + len(run), self.end[partition])
        if low >= high:
            return
        if self._is_in_time(run):
            for first, last in self._not_seen_in_spool(partition, low, high):
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
            head, tail = self._position_at(partition).around(self.source.stream, partition)
            head, tail = self.request.before + head, tail + self.request.after
        epoch = self.source.spool_epoch if partition == SPOOL else self.source.epoch
        self.collector.turn_to(low, high, epoch, head, tail)
        self.collector.add(run)

    def _position_at(self, partition: int) -> StreamPosition:
        offsets: Offsets = self.position if SPOOL in self.position else {**self.position, SPOOL: 0}
        return StreamPosition(self.source.epoch, offsets, self.source.spool_epoch)

    def _not_seen_in_spool(self, partition: int, low: int, high: int) -> Iterable[tuple[int, int]]:
        """The ranges of `low <= offset < high` that are no copies of what the position has seen in the spool."""
        seen_before = self.position.get(SPOOL, 0)
        if not seen_before:
            return [(low, high)]
        copies = copies_in_kafka(self.reader.store, self.source.spool_table, partition, low, high)
        seen = {
            batch.base + number
            for batch in copies
            for number, offset in enumerate(batch.offsets)
            if offset < seen_before
        }
        return _without(low, high, seen)

    # Kafka, downwards

    async def _descend(self) -> None:
        if not self.partitions:
            return
        state = await self._prepare()
        position = self.position
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
            stretch = (await self.reader._load(self.source, state, {partition: offset}))[partition]
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

    def _seen_in_kafka(self, low: int, high: int, position: Mapping[int, int]) -> set[int]:
        """Spool offsets whose copies lie below a position in Kafka."""
        return {
            offset
            for batch in copies_of_spooled(self.reader.store, self.source.spool_table, low, high)
            for number, offset in enumerate(batch.offsets)
            if batch.base + number < position.get(batch.partition, 0) and low <= offset < high
        }

    def _unseen_copies(self, low: int, high: int) -> bool:
        """Some record that is gone from the spool stands in Kafka where this position has not been."""
        return any(
            batch.base + number >= self.position.get(batch.partition, 0)
            for batch in copies_of_spooled(self.reader.store, self.source.spool_table, low, high)
            for number, offset in enumerate(batch.offsets)
            if low <= offset < high
        )

    def _spool_down(self) -> None:
        """Newest first: what will be shown from Kafka is left out here."""
        position, start = self.position, self.start.get(SPOOL, 0)
        while position.get(SPOOL, 0) > start and not self.collector.is_bound_reached:
            at = position[SPOOL]
            low = max(start, at - DESCEND_RECORDS)
            runs = [
                run
                for base, body in read_bodies(self.reader.store, self.source.spool_table, low, at)
                for run in decode_body(body, base, self.reader.spool_topics())
            ]
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


def _without(low: int, high: int, hidden: set[int]) -> Sequence[tuple[int, int]]:
    """`low <= offset < high` without some offsets, as ranges."""
    if not hidden:
        return [(low, high)]
    ranges = []
    first = low
    for offset in sorted(hidden):
        if first < offset:
            ranges.append((first, offset))
        first = offset + 1
    if first < high:
        ranges.append((first, high))
    return ranges
