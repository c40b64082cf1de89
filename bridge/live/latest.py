"""LatestValues: the newest record of each topic, with how many there were and how often they come.

A commit costs two C-speed updates of dictionaries whose keys are routes; every quarter of a second, or when it holds
many bytes, the window that they make is settled into entries, in slices, so that no read buffer stays alive and the
loop is never held for long. What is settled is the state at a committed position.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from bridge.cursors import distance
from bridge.encoding import decode_stored, encode_rows, encode_snapshot
from bridge.ending import end
from bridge.history.scan import Scan, StreamScan
from bridge.history.state import PastRecord
from bridge.records import RecordRun, Topic, as_record_run
from bridge.streams.frames import decode_body, encode_record
from bridge.streams.upkeep import LatestEntry
from broker.limit_hits import LimitHits
from broker.topics.names import matches

if TYPE_CHECKING:
    from bridge.cursors import Offsets
    from bridge.streams.log import StreamLog
    from broker.publish_run import PublishRun
    from broker.routing import Route

logger = logging.getLogger(__name__)

SETTLE_S = 0.25
WINDOW_BYTES_MAX = 8 * 1024 * 1024
SLICE_TOPICS = 300
SLICE_ROWS = 5_000
RUN_ROWS = 20
"""Records sorted out in one step of the loop; a run costs as much as so many more."""
RUN_BYTES = 500
"""What a run costs beside its bytes."""
SELECT_TOPICS = 1_000
"""Topics settled, and compared with filters, in one step of the loop."""
ENTRY_BYTES = 400
"""What an entry costs beside its segment: object, key, dictionary slot."""
SAVE_S = 30.0
SAVE_RECORDS = 1_000_000
LOAD_BYTES = 64 * 1024
INTERVAL_WEIGHT = 0.2
READ_UP_RECORDS = 20_000
"""Of each partition, when nothing was saved."""
EVERY_TOPIC = ("#", "$presence/#", "$server/#")


@runtime_checkable
class SavesLatest(Protocol):
    """A log that can keep latest values over a restart."""

    def save_latest(self, entries: Sequence[LatestEntry], checkpoint: Offsets) -> None:
        """Save entries; every record before the checkpoint is reflected in what was saved."""

    def load_latest(self) -> tuple[list[LatestEntry], Offsets]:
        """What was saved, and the checkpoint."""


class Entry:
    """The newest record of one topic."""

    __slots__ = ("count", "epoch", "interval_ms", "log", "offset", "partition", "segment", "time_ms", "topic")

    def __init__(self, topic: Topic, log: StreamLog) -> None:
        self.topic = topic
        self.log = log
        self.epoch = ""
        self.partition = 0
        self.offset = -1
        self.time_ms = 0
        self.count = 0
        self.interval_ms = 0.0
        """Usual time between two records; 0 until there are two."""
        self.segment = b""

    def run(self) -> RecordRun:
        """The record as a run of one row."""
        run = decode_body(self.segment, self.offset, {})[0]
        run.topics = (self.topic,)
        run.partition = self.partition
        return run

    def json(self) -> bytes:
        """The record's object without a line end."""
        return encode_rows("json", self.log.name, self.epoch, self.run())[0][:-1]

    def snapshot_event(self) -> bytes:
        """The record as an SSE `snapshot`."""
        return encode_snapshot(self.log.name, self.epoch, self.run(), 0)


class _Window:
    """What was committed since the last settling; keeps read buffers alive, so not for long."""

    __slots__ = ("bytes", "counts", "newest", "offsets", "runs")

    def __init__(self) -> None:
        self.runs: list[PublishRun] = []
        """In order; what is in them is sorted out by `fold`, once for all of them."""
        self.newest: dict[Any, tuple[PublishRun | RecordRun, int]] = {}
        """By `Route` for what this node has just committed, else by `Topic`: whatever leads to the topic quickest."""
        self.counts: Counter[Any] = Counter()
        self.offsets: dict[str, Offsets] = {}
        self.bytes = 0

    @property
    def is_empty(self) -> bool:
        return not self.runs and not self.newest

    # hot path: tests/bench/new_topics.py
    def fold(self) -> Iterator[None]:
        """Fill `newest` and `counts` from the runs, the last one first: of most only the topics are looked at."""
        newest, counts = self.newest, self.counts
        rows = 0
        while self.runs:
            run = self.runs.pop()
            routes = run.routes
            rows += len(routes) + RUN_ROWS
            if rows > SLICE_ROWS:
                rows = 0
                yield
            if len(routes) == 1:
                counts[routes[0]] += 1
                newest.setdefault(routes[0], (run, 0))
                continue
            counts.update(routes)
            topics = set(routes)
            fresh = topics.difference(newest)
            if len(fresh) == len(topics) and 4 * len(fresh) > len(routes):
                last = dict(zip(routes, range(len(routes)), strict=True))
                newest.update(zip(last, zip(repeat(run), last.values())))  # noqa: B905  # one is endless
            elif fresh:
                newest.update(last_rows(run, fresh))


def last_rows(run: PublishRun, wanted: set[Route]) -> dict[Route, tuple[PublishRun, int]]:
    """The last row of each of some routes of a run; most come again near its end, so few rows are looked at."""
    routes = run.routes
    rows: dict[Route, tuple[PublishRun, int]] = {}
    for row in range(len(routes) - 1, -1, -1):
        route = routes[row]
        if route in wanted and route not in rows:
            rows[route] = (run, row)
            if len(rows) == len(wanted):
                break
    return rows


class LatestValues:
    """Bounded: at most `topics_max` topics and `bytes_max` bytes; the one that was silent longest goes first."""

    def __init__(self, node_run: str, *, topics_max: int = 200_000, bytes_max: int = 128 * 1024 * 1024) -> None:
        self.limit_hits = LimitHits()
        self.evicted = 0
        """How many topics were forgotten; their records are still in the log."""
        self.records = 0
        self.bytes = 0
        self.offsets: dict[str, Offsets] = {}
        """By stream: the entries are what the log held below this, once nothing is being settled."""
        self._node_run = node_run
        self._topics_max = topics_max
        self._bytes_max = bytes_max
        self._entry_by_topic: dict[str, Entry] = {}
        """The most recently written is last."""
        self._window = _Window()
        self._settling: deque[_Window] = deque()
        self._step: Iterator[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unsaved: dict[str, dict[Topic, Entry]] = {}
        """By stream. What leaves memory unsaved has to be saved all the same, but not to be kept for long."""
        self._unsaved_records = 0
        self._evicted_bytes = 0
        """Since the last save; what was not saved of them is still in `_unsaved`."""
        self._logs: dict[str, SavesLatest] = {}
        self._checkpoints: dict[str, Offsets] = {}
        """Of logs that what was saved of them has still to be completed from."""
        self._saver: asyncio.Task[None] | None = None
        self._save_now = asyncio.Event()

    def __len__(self) -> int:
        return len(self._entry_by_topic)

    # The live feed

    # hot path: tests/bench/fan_out.py
    def committed(self, log: StreamLog, runs: Sequence[PublishRun]) -> None:
        """Note what was committed."""
        if not runs:
            return
        window = self._window
        window.runs += runs
        window.bytes += sum([len(run.data) for run in runs]) + RUN_BYTES * len(runs)
        last = runs[-1]
        window.offsets[log.name] = {0: last.base_offset + len(last)}
        self._settle_later(window)

    def read(self, log: StreamLog, runs: Sequence[RecordRun]) -> None:
        """Note what was read back from a log."""
        window = self._window
        offsets = dict(window.offsets.get(log.name) or self.offsets.get(log.name) or {})
        for run in runs:
            window.bytes += run.ends[-1] - run.start
            topics = run.topics
            window.counts.update(topics)
            window.newest.update({topic: (run, row) for row, topic in enumerate(topics)})
            offsets[run.partition] = run.base_offset + len(run)
        window.offsets[log.name] = offsets
        self._settle_later(window)

    def moved(self, log: StreamLog) -> None:
        """The log's position has changed without a record."""
        self._window.offsets[log.name] = log.offsets
        if not self._settling and self._window.is_empty:
            self.offsets[log.name] = log.offsets

    def _settle_later(self, window: _Window) -> None:
        if window.bytes > WINDOW_BYTES_MAX:
            self._close_window()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_S, self._settle_some)

    def _close_window(self) -> None:
        if not self._window.is_empty:
            self._settling.append(self._window)
            self._window = _Window()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_soon(self._settle_some)  # type: ignore[assignment]

    def _settle_some(self) -> None:
        self._timer = None
        if not self._settling and not self._window.is_empty:
            self._settling.append(self._window)
            self._window = _Window()
        if self._settle_slice():
            self._timer = asyncio.get_running_loop().call_soon(self._settle_some)  # type: ignore[assignment]

    def _settle_slice(self) -> bool:
        """Settle a slice; True when there is more."""
        if self._step is None:
            if not self._settling:
                return False
            self._step = self._settle(self._settling[0])
        try:
            next(self._step)
        except StopIteration:
            self._step = None
            self._settling.popleft()
        return bool(self._settling)

    def _settle(self, window: _Window) -> Iterator[None]:
        is_folded = bool(window.runs)
        yield from window.fold()
        runs: dict[int, RecordRun] = {}
        counts = window.counts
        # What came last is put last, and forgotten last: `fold` has begun with it.
        items = reversed(window.newest.items()) if is_folded else window.newest.items()
        for number, (key, (run, row)) in enumerate(items, 1):
            topic: Topic = key if isinstance(key, Topic) else key.sink_topic
            if isinstance(run, RecordRun):
                record_run = run
            else:
                record_run = runs.get(id(run)) or as_record_run(run, (), self._node_run)
                runs[id(run)] = record_run
            log: StreamLog = topic.stream  # type: ignore[assignment]  # every topic that was opened has one
            place = (record_run.partition, run.base_offset + row)
            self._put(topic, log, place, run.received_at_ms, counts[key], encode_record(record_run, row))
            if number % SLICE_TOPICS == 0:
                yield
        self.offsets.update(window.offsets)
        self._unsaved_records += counts.total()
        if self._unsaved_records >= SAVE_RECORDS:
            self._save_now.set()

    def _put(
        self, topic: Topic, log: StreamLog, place: tuple[int, int], time_ms: int, count: int, segment: bytes
    ) -> None:
        entries = self._entry_by_topic
        older = entries.pop(topic.name, None)
        entry = Entry(topic, log)
        entries[topic.name] = entry
        entry.partition, entry.offset = place
        entry.epoch = log.epoch_of(entry.partition)
        entry.time_ms, entry.count, entry.segment = time_ms, count, segment
        if older is not None:
            self.bytes -= len(older.segment) + ENTRY_BYTES
            entry.count += older.count
            is_older = time_ms < older.time_ms or (older.partition, older.epoch) == (entry.partition, entry.epoch)
            if older.log is log and is_older and (time_ms, entry.offset) < (older.time_ms, older.offset):
                # Two routes of one topic in one window, or two partitions.
                entry.partition, entry.offset, entry.epoch = older.partition, older.offset, older.epoch
                entry.time_ms, entry.segment = older.time_ms, older.segment
            sample = max(0, entry.time_ms - older.time_ms) / max(1, count)
            weight = 1 - (1 - INTERVAL_WEIGHT) ** count
            entry.interval_ms = (
                older.interval_ms + weight * (sample - older.interval_ms) if older.interval_ms else sample
            )
        self.bytes += len(entry.segment) + ENTRY_BYTES
        self.records += count
        if log.name in self._logs:
            self._unsaved.setdefault(log.name, {})[topic] = entry
        while len(entries) > self._topics_max or self.bytes > self._bytes_max:
            is_by_count = len(entries) > self._topics_max
            self.limit_hits.hit("live.latest_topics_max" if is_by_count else "live.latest_bytes_max")
            evicted = entries.pop(next(iter(entries)))
            evicted_bytes = len(evicted.segment) + ENTRY_BYTES
            self.bytes -= evicted_bytes
            self._evicted_bytes += evicted_bytes
            self.evicted += 1
        if self._evicted_bytes > min(self._bytes_max, self._topics_max * ENTRY_BYTES):
            self._save_now.set()

    # Reading

    async def settled(self) -> None:
        """Settle all that was committed before this call; on return the entries are those of `offsets`."""
        if not self._window.is_empty:
            self._settling.append(self._window)
            self._window = _Window()
        while True:
            if not self._settle_slice():
                return
            await asyncio.sleep(0)

    def capture(self) -> list[Entry]:
        """All entries as they are now, the longest silent first; entries never change, they are replaced.

        Right after `settled`, without an await between, they are those of `offsets`.
        """
        return list(self._entry_by_topic.values())

    async def select(self, entries: Sequence[Entry], filters: Sequence[str]) -> AsyncIterator[list[Entry]]:
        """Those of captured entries that any filter matches, in slices between which the loop runs."""
        takes_all = "#" in filters and len(filters) == 1
        exact = frozenset(filters) if not any("+" in each or "#" in each for each in filters) else None
        for first in range(0, len(entries), SELECT_TOPICS):
            piece = entries[first : first + SELECT_TOPICS]
            if exact is not None:
                yield [entry for entry in piece if entry.topic.name in exact]
            elif takes_all:
                yield [entry for entry in piece if not entry.topic.name.startswith("$")]
            else:
                yield [entry for entry in piece if any([matches(each, entry.topic.name) for each in filters])]
            await asyncio.sleep(0)

    # Over a restart

    async def open(self, logs: Iterable[StreamLog]) -> None:
        """Load what the logs have saved, read what came after it, and begin to save.

        Raises: StreamLogError.
        """
        for log in logs:
            self.offsets[log.name] = log.offsets
            if isinstance(log, SavesLatest):
                self._logs[log.name] = log
                checkpoint = await self._load(log, log)
                if log.reads_back:
                    self._checkpoints[log.name] = checkpoint
                else:
                    await self._read_up(log, checkpoint)
        self._saver = asyncio.create_task(self._save_at_times())

    async def read_up(self, log: StreamLog) -> None:
        """Read what came after the checkpoint of a log that can be read only now.

        Raises: StreamLogError.
        """
        checkpoint = self._checkpoints.get(log.name)
        if checkpoint is None:
            return
        if not checkpoint:  # nothing was ever saved: the newest are enough, of a topic that may be very long
            checkpoint = {
                partition: max(offset, log.offsets.get(partition, 0) - READ_UP_RECORDS)
                for partition, offset in log.first_offsets.items()
            }
        await self._read_up(log, checkpoint)
        self._checkpoints.pop(log.name, None)

    def forget(self, log: StreamLog) -> None:
        """The log has begun anew: what it held is gone."""
        for name in [name for name, entry in self._entry_by_topic.items() if entry.log is log]:
            self.bytes -= len(self._entry_by_topic.pop(name).segment) + ENTRY_BYTES
        self._unsaved.pop(log.name, None)
        self._checkpoints.pop(log.name, None)

    async def _load(self, log: StreamLog, saved: SavesLatest) -> Offsets:
        entries, checkpoint = saved.load_latest()
        for number, (topic, at, time_ms, count, interval_ms, segment, partition) in enumerate(entries, 1):
            topic.stream = log
            self._put(topic, log, (partition, at), time_ms, count, segment)
            self._entry_by_topic[topic.name].interval_ms = interval_ms
            if number % SLICE_TOPICS == 0:
                await asyncio.sleep(0)
        self._unsaved.pop(log.name, None)
        return checkpoint

    async def _read_up(self, log: StreamLog, checkpoint: Offsets) -> None:
        topics: dict[bytes, Topic] = {}
        first, end = log.first_offsets, log.offsets
        start = {partition: max(checkpoint.get(partition, 0), offset) for partition, offset in first.items()}
        while distance(start, end):
            what = Scan(log.name, log.epoch, EVERY_TOPIC, 0, 0, "stored", records_max=10_000, bytes_max=LOAD_BYTES)
            result = await log.scan_stream(StreamScan(what, start, end))
            for partition, at, segment in decode_stored(result.data):
                run = decode_body(segment, at, topics)[0]
                topic = run.topics[0]
                topic.stream = log
                known = self._entry_by_topic.get(topic.name)
                if known is None or known.log is not log or known.time_ms <= run.received_at_ms:
                    self._put(topic, log, (partition, at), run.received_at_ms, 1, segment)
            if len(topics) > self._topics_max:
                topics.clear()
            if result.next_offsets == start:
                break
            start = dict(result.next_offsets)

    async def _save_at_times(self) -> None:
        while True:
            try:
                await asyncio.wait_for(self._save_now.wait(), SAVE_S)
            except TimeoutError:
                logger.debug("saving latest values on time")
            self._save_now.clear()
            await self.save()

    async def save(self) -> None:
        """Hand what has changed to the logs, which write it in small steps."""
        await self.settled()
        self._unsaved_records = self._evicted_bytes = 0
        unsaved, self._unsaved = self._unsaved, {}
        for name, changed in unsaved.items():
            rows = [
                LatestEntry(
                    entry.topic,
                    entry.offset,
                    entry.time_ms,
                    entry.count,
                    int(entry.interval_ms),
                    entry.segment,
                    entry.partition,
                )
                for entry in changed.values()
            ]
            if name not in self._checkpoints:
                self._logs[name].save_latest(rows, self.offsets[name])

    async def close(self) -> None:
        """Save and stop."""
        await end([self._saver])
        self._saver = None
        await self.save()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Snapshot:
    """Snapshot events of some entries, made when they are taken."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = iter(entries)

    def take(self, bytes_max: int) -> bytes:
        """Some whole events; empty when there are no more."""
        events = []
        size = 0
        for entry in self._entries:
            event = entry.snapshot_event()
            events.append(event)
            size += len(event)
            if size >= bytes_max or len(events) >= SLICE_TOPICS:
                break
        return b"".join(events)


class PastSnapshot:
    """Snapshot events of the records that topics had at a time."""

    def __init__(self, records: Iterator[PastRecord]) -> None:
        self._records = records

    def take(self, bytes_max: int) -> bytes:
        """Some whole events; empty when there are no more."""
        events = []
        size = 0
        for record in self._records:
            event = b"event: snapshot\ndata: %b}\n\n" % record.line
            events.append(event)
            size += len(event)
            if size >= bytes_max or len(events) >= SLICE_TOPICS:
                break
        return b"".join(events)


def topic_object(entry: Entry, now_ms: int) -> bytes:
    """One element of `topics` in the API: the record with its age, count and usual interval."""
    interval = b"%.3f" % (entry.interval_ms / 1000) if entry.interval_ms else b"null"
    return b'%b,"age_ms":%d,"count":%d,"interval_s":%b}' % (
        entry.json()[:-1],
        max(0, now_ms - entry.time_ms),
        entry.count,
        interval,
    )


class TopicNodes:
    """Inner nodes of the tree of topics, `depth` levels down."""

    def __init__(self, depth: int, now_ms: int) -> None:
        self._depth = depth
        self._now_ms = now_ms
        self._totals: dict[str, list[float]] = {}

    def add(self, entries: Iterable[Entry]) -> None:
        """Count some topics under their prefix: themselves, their messages a second, the bytes of their values."""
        for entry in entries:
            interval_ms = entry.interval_ms
            rate = 1000 / max(interval_ms, self._now_ms - entry.time_ms) if interval_ms else 0.0
            self.count(entry.topic.name, rate, len(entry.segment))

    def count(self, topic: str, rate: float, size: int) -> None:
        """Count one topic with its messages a second and the bytes of its value."""
        total = self._totals.setdefault("/".join(topic.split("/", self._depth)[: self._depth]), [0, 0.0, 0])
        total[0] += 1
        total[1] += rate
        total[2] += size

    def nodes(self, limit: int) -> list[dict[str, object]]:
        """The first `limit` nodes by prefix."""
        return [
            {"prefix": prefix, "topics": int(topics), "rate": round(rate, 3), "bytes": int(size)}
            for prefix, (topics, rate, size) in heapq.nsmallest(limit, self._totals.items())
        ]
