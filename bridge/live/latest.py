"""LatestValues: the newest record of each topic, with how many there were and how often they come.

A commit only notes in a window which row is the newest of its topic; every quarter of a second, or when it holds much,
the window is settled into entries, in slices, so that no read buffer stays alive and the loop is never held for long.
What is settled is the state at a committed position.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from bridge.cursors import distance
from bridge.encoding import decode_stored
from bridge.ending import end
from bridge.history.scan import Scan, StreamScan
from bridge.live.entries import ENTRY_BYTES, Entries, Entry
from bridge.live.window import Window
from bridge.streams.frames import decode_body
from bridge.streams.upkeep import LatestEntry
from broker.topics.names import matches

if TYPE_CHECKING:
    from bridge.cursors import Offsets
    from bridge.records import RecordRun, Topic
    from bridge.streams.log import StreamLog
    from broker.limit_hits import LimitHits
    from broker.publish_run import PublishRun

logger = logging.getLogger(__name__)

SETTLE_S = 0.25
WINDOW_BYTES_MAX = 16 * 1024 * 1024
WINDOW_TOPICS_MAX = 100_000
"""A window is closed when it holds so much; a larger one spares more topics from being settled again and again."""
SLICE_TOPICS = 300
SELECT_TOPICS = 1_000
"""Topics settled, and compared with filters, in one step of the loop."""
SAVE_S = 30.0
SAVE_RECORDS = 1_000_000
LOAD_BYTES = 64 * 1024
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


OwnT = TypeVar("OwnT")


class OwnValues(Protocol[OwnT]):
    """The newest records of this server's own topics in one embedded log, kept by who publishes them in a form of its
    own. What was committed counts when the window that it came in is settled, as everything does."""

    @property
    def log(self) -> StreamLog:
        """Where they are stored."""

    def committed(self, runs: Sequence[PublishRun]) -> Sequence[PublishRun]:
        """Take its own runs; returns the others."""

    @property
    def has_open(self) -> bool:
        """Something was committed since a window was closed."""

    def take_open(self) -> Any:
        """What was committed since the last call, for `settle`: it belongs to the window that is closed now."""

    def settle(self, taken: Any) -> list[str]:
        """The window is settled; returns topics that may have an entry, which is older."""

    def capture(self) -> list[OwnT]:
        """All as they are now; they never change, they are replaced."""

    def take_unsaved(self) -> list[OwnT]:
        """Those that have changed since the last call."""

    def topic_name(self, value: OwnT, /) -> str:
        """The topic of one."""

    def entry(self, value: OwnT, /) -> Entry:
        """One as an entry."""


class LatestValues:
    """Bounded: at most `topics_max` topics and `bytes_max` bytes; the one that was silent longest goes first."""

    def __init__(self, node_run: str, *, topics_max: int = 200_000, bytes_max: int = 128 * 1024 * 1024) -> None:
        self.offsets: dict[str, Offsets] = {}
        """By stream: the entries are what the log held below this, once nothing is being settled."""
        self._node_run = node_run
        self._entries = Entries(topics_max, bytes_max)
        self._window = Window()
        self._settling: deque[tuple[Window, Any]] = deque()
        """Closed windows, each with what `own` has beside it."""
        self._timer: asyncio.TimerHandle | None = None
        self._unsaved_records = 0
        self._logs: dict[str, SavesLatest] = {}
        self._checkpoints: dict[str, Offsets] = {}
        """Of logs that what was saved of them has still to be completed from."""
        self._saver: asyncio.Task[None] | None = None
        self._save_now = asyncio.Event()
        self.own: OwnValues[Any] | None = None
        """Who keeps some topics otherwise; set before the first of them is committed."""

    def __len__(self) -> int:
        return len(self._entries.by_topic)

    @property
    def bytes(self) -> int:
        """What the entries cost in memory."""
        return self._entries.bytes

    @property
    def records(self) -> int:
        """How many records the entries are the newest of."""
        return self._entries.records

    @property
    def evicted(self) -> int:
        """How many topics were forgotten; their records are still in the log."""
        return self._entries.evicted

    @property
    def limit_hits(self) -> LimitHits:
        """Who counts forgotten topics."""
        return self._entries.limit_hits

    @limit_hits.setter
    def limit_hits(self, hits: LimitHits) -> None:
        self._entries.limit_hits = hits

    # The live feed

    # hot path: tests/bench/fan_out.py
    def committed(self, log: StreamLog, runs: Sequence[PublishRun]) -> None:
        """Note what was committed."""
        if not runs:
            return
        window = self._window
        last = runs[-1]
        window.add(runs if self.own is None or log is not self.own.log else self.own.committed(runs), log)
        window.offsets[log.name] = {0: last.base_offset + len(last)}
        self._settle_later(window)

    def read(self, log: StreamLog, runs: Sequence[RecordRun]) -> None:
        """Note what was read back from a log."""
        window = self._window
        offsets = dict(window.offsets.get(log.name) or self.offsets.get(log.name) or {})
        window.add(runs, log)
        for run in runs:
            offsets[run.partition] = run.base_offset + len(run)
        window.offsets[log.name] = offsets
        self._settle_later(window)

    def moved(self, log: StreamLog) -> None:
        """The log's position has changed without a record."""
        self._window.offsets[log.name] = log.offsets
        if not self._settling and not self._has_open:
            self.offsets[log.name] = log.offsets

    def _settle_later(self, window: Window) -> None:
        if window.bytes > WINDOW_BYTES_MAX or len(window) > WINDOW_TOPICS_MAX:
            self._close_window()
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_soon(self._settle_some)  # type: ignore[assignment]
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_S, self._settle_some)

    @property
    def _has_open(self) -> bool:
        return len(self._window) > 0 or (self.own is not None and self.own.has_open)

    def _close_window(self) -> None:
        if self._has_open:
            self._window.close()
            self._settling.append((self._window, self.own.take_open() if self.own is not None else None))
            self._window = Window()

    def _settle_some(self) -> None:
        self._timer = None
        if not self._settling:
            self._close_window()
        if self._settle_slice():
            self._timer = asyncio.get_running_loop().call_soon(self._settle_some)  # type: ignore[assignment]

    def _settle_slice(self) -> bool:
        """Settle a slice; True when there is more."""
        if not self._settling:
            return False
        window, own_values = self._settling[0]
        # The more windows wait the more is done at once, for each keeps what was read in memory.
        if window.settle(self._entries, self._node_run, SLICE_TOPICS * len(self._settling) ** 2):
            return True
        self._settling.popleft()
        self.offsets.update(window.offsets)
        if self.own is not None and own_values is not None:
            for topic_name in self.own.settle(own_values):
                self._entries.drop(topic_name)
        self._unsaved_records += window.records
        if self._unsaved_records >= SAVE_RECORDS:
            self._save_now.set()
        self._save_evicted()
        return bool(self._settling)

    def _save_evicted(self) -> None:
        """What was forgotten unsaved is kept until it is saved; not for long."""
        entries = self._entries
        if entries.evicted_bytes > min(entries.bytes_max, entries.topics_max * ENTRY_BYTES):
            self._save_now.set()

    # Reading

    async def settled(self) -> None:
        """Settle all that was committed before this call; on return the entries are those of `offsets`."""
        self._close_window()
        while True:
            if not self._settle_slice():
                return
            await asyncio.sleep(0)

    def capture(self) -> list[Any]:
        """All entries as they are now, for `select`, the longest silent first; entries never change, they are replaced.

        Right after `settled`, without an await between, they are those of `offsets`.
        """
        entries: list[Any] = list(self._entries.by_topic.values())
        if self.own is not None:
            entries += self.own.capture()
        return entries

    async def select(self, entries: Sequence[Any], filters: Sequence[str]) -> AsyncIterator[list[Entry]]:
        """Those of captured entries that any filter matches, in slices between which the loop runs."""
        takes_all = "#" in filters and len(filters) == 1
        exact = frozenset(filters) if not any("+" in each or "#" in each for each in filters) else None
        first, end = 0, len(entries)
        while first < end:
            piece: Sequence[Entry]
            if self.own is None or isinstance(entries[first], Entry):
                piece = [each for each in entries[first : first + SELECT_TOPICS] if isinstance(each, Entry)]
                first += len(piece)
            else:
                piece = self._made(self.own, entries[first : first + SLICE_TOPICS], filters)
                first += SLICE_TOPICS
            if exact is not None:
                yield [entry for entry in piece if entry.topic.name in exact]
            elif takes_all:
                yield [entry for entry in piece if not entry.topic.name.startswith("$")]
            else:
                yield [entry for entry in piece if any([matches(each, entry.topic.name) for each in filters])]
            await asyncio.sleep(0)

    def _made(self, own: OwnValues[Any], values: Sequence[Any], filters: Sequence[str]) -> list[Entry]:
        """Entries of what is kept otherwise, where a filter matches it."""
        return [own.entry(value) for value in values if any([matches(each, own.topic_name(value)) for each in filters])]

    # Over a restart

    async def open(self, logs: Iterable[StreamLog]) -> None:
        """Load what the logs have saved, read what came after it, and begin to save.

        Raises: StreamLogError.
        """
        for log in logs:
            self.offsets[log.name] = log.offsets
            if isinstance(log, SavesLatest):
                self._logs[log.name] = log
                self._entries.unsaved[log.name] = {}
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
        self._entries.forget(log)
        self._checkpoints.pop(log.name, None)

    async def _load(self, log: StreamLog, saved: SavesLatest) -> Offsets:
        entries, checkpoint = saved.load_latest()
        for number, (topic, at, _, count, interval_ms, segment, partition) in enumerate(entries, 1):
            topic.stream = log
            self._put(topic, log, decode_body(segment, at, {})[0], partition, count)
            self._entries.by_topic[topic.name].interval_ms = interval_ms
            if number % SLICE_TOPICS == 0:
                await asyncio.sleep(0)
        self._entries.unsaved[log.name] = {}
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
                known = self._entries.by_topic.get(topic.name)
                if known is None or known.log is not log or known.time_ms <= run.received_at_ms:
                    self._put(topic, log, run, partition)
            if len(topics) > self._entries.topics_max:
                topics.clear()
            if result.next_offsets == start:
                break
            start = dict(result.next_offsets)

    def _put(self, topic: Topic, log: StreamLog, run: RecordRun, partition: int, count: int = 1) -> None:
        """A stored record, a run of one row."""
        run.partition = partition
        entry = Entry(topic, log, run, 0, "")
        entry.count = count
        self._entries.put(entry)
        self._save_evicted()

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
        self._unsaved_records = self._entries.evicted_bytes = 0
        own = self.own
        values = own.take_unsaved() if own is not None else []
        for name, log in self._logs.items():
            changed, self._entries.unsaved[name] = self._entries.unsaved[name], {}
            checkpoint = self.offsets[name]
            if name in self._checkpoints:
                continue
            rows = [entry.saved() for entry in changed.values()]
            if own is not None and name == own.log.name:
                for first in range(0, len(values), SLICE_TOPICS):
                    rows += [own.entry(value).saved() for value in values[first : first + SLICE_TOPICS]]
                    await asyncio.sleep(0)
            if rows:
                log.save_latest(rows, checkpoint)

    async def close(self) -> None:
        """Save and stop."""
        await end([self._saver])
        self._saver = None
        await self.save()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
