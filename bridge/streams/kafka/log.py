"""KafkaLog: a stream on Kafka as the event loop sees it, with the spool beside it (ADR 10).

Its `mode` says where records go, and `intake.py` sends them there. The topic (`topic.py`), the way back from the spool
(`drain.py`) and the consumer (`tail.py`) tell it what has happened, and it tells live readers. These see what Kafka has
confirmed in Kafka's order, and what is in the spool as soon as it is on disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bridge.cursors import SPOOL, UNKNOWN, Offsets, StreamPosition
from bridge.records import RecordRun, Topic
from bridge.streams.kafka.cluster import KafkaCluster, KafkaUnreachable, TopicState
from bridge.streams.kafka.drain import Drain
from bridge.streams.kafka.gate import Gate
from bridge.streams.kafka.intake import Intake
from bridge.streams.kafka.mode import Mode
from bridge.streams.kafka.progress import Progress
from bridge.streams.kafka.records import Decoder
from bridge.streams.kafka.spool import Spool
from bridge.streams.kafka.spool_upkeep import SpoolUpkeep
from bridge.streams.kafka.tail import Line, Tail
from bridge.streams.kafka.topic import StreamTopic
from bridge.streams.log import ignore_commits
from bridge.streams.one_partition import ignore_runs
from broker.publish_run import PublishRun

if TYPE_CHECKING:
    from bridge.history.scan import AnswerT, StreamQuestion, StreamScan, StreamScanResult
    from bridge.streams.kafka.fetched import Batch as FetchedBatch
    from bridge.streams.kafka.readers import KafkaReaders
    from bridge.streams.kafka.settings import KafkaTopicSettings
    from bridge.streams.sqlite_store import SqliteStore
    from bridge.streams.upkeep import LatestEntry

logger = logging.getLogger("headrace.kafka")

TICK_S = 0.25
STAND_S = 1.0
"""How often the place of the live side is kept for the next start."""
FAR = 1 << 62
PARTITION_SHIFT = 48
"""No partition has more than 2^48 records."""


class KafkaLog:
    """A stream on Kafka; see `bridge.streams.log.StreamLog`."""

    storage = "kafka"
    reads_back = True

    def __init__(
        self,
        name: str,
        kafka: KafkaTopicSettings,
        cluster: KafkaCluster,
        tail: Tail,
        readers: KafkaReaders,
        store: SqliteStore,
        *,
        acknowledges_on_receipt: bool = False,
    ) -> None:
        self.name = name
        self.kafka = kafka
        self.acknowledges_on_receipt = acknowledges_on_receipt
        self.on_committed: Callable[[Sequence[PublishRun]], None] = ignore_commits
        self.on_read: Callable[[Sequence[RecordRun]], None] = ignore_runs
        self.on_moved: Callable[[], None] = lambda: None
        """The position has changed without a record to show."""
        self.on_lost: Callable[[int], None] = lambda _lost: None
        """Kafka has dropped so many records that live readers have not seen; `offsets` is behind them."""
        self.before_new_epoch: Callable[[], None] = lambda: None
        """The topic is another one; what is known of the position is still the old one's."""
        self.on_new_epoch: Callable[[], None] = lambda: None
        """And now `offsets` is where the new one begins."""
        self.on_change: Callable[[str, dict[str, Any]], None] = lambda _kind, _fields: None
        """Something that an operator wants to know: `spool`, …"""
        self.cluster = cluster
        self.spool = Spool(store, name)
        self.mode = Mode.STARTING
        self.state_text = ""
        """Why records do not go to Kafka."""
        self.tail = tail
        self.readers = readers
        self.lines: dict[int, Line] = {}
        """The partitions that the tail follows, or will."""
        self.topic = StreamTopic(self, self.spool.standing)
        self.drain = Drain(self)
        newest = [each for each in (self.spool.log.newest_ms, self.spool.times[1]) if each is not None]
        self.newest_ms: int | None = max(newest, default=None)
        """See `StreamLog`."""
        self.intake = Intake(self, store)
        self.upkeep = SpoolUpkeep(self)
        self._decoder = Decoder(kafka.topic, kafka.topic_template, lambda name: Topic(name, self))
        self.gate = Gate(self)
        gate = self.spool.gate if self.gate.is_shut else None
        self.shown_spool = self.spool.next_offset if gate is None else gate[0]
        """One past the newest spooled record that live readers were shown."""
        self._position: Offsets = {}
        self.set_position()
        self.progress = Progress()
        self._stood_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    # Life

    def open(self) -> None:
        """Begin; the cluster tells of the topic from then on. Needs a running loop."""
        self.intake.sender.start()
        self.cluster.follow(self)
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    async def close(self) -> None:
        """Let what is under way end for a moment, spool the rest, and stop."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        sender = self.intake.sender
        if self.mode is Mode.DIRECT and sender.unconfirmed:
            await self.progress.wait_for(lambda: not sender.unconfirmed, self.cluster.settings.spool_after_s)
        await self.drain.close()
        await self.gate.close()
        await self.topic.close()
        await self.upkeep.close()
        if not self.intake.is_empty:
            self.intake.begin_spooling("the server stops")
        for line in self.lines.values():
            self.tail.leave(line)
        await sender.close()
        if self.topic.epoch != UNKNOWN:
            self.spool.stand(self.topic.standing())
        self.spool.keep_times(self.intake.written_ms, self.newest_ms)
        self.spool.close()

    # StreamLog: where it stands

    @property
    def epoch(self) -> str:
        """That of what is in Kafka."""
        return self.topic.epoch

    @property
    def contact_offsets(self) -> Offsets:
        return self.topic.contact_offsets

    @property
    def offsets(self) -> Offsets:
        return self._position

    @property
    def first_offsets(self) -> Offsets:
        """In the spool 0: what is gone from there is in Kafka, so nothing before it is lost."""
        first = {
            partition: min(self.topic.first.get(partition, 0), offset)
            for partition, offset in self.topic.offsets.items()
        }
        first[SPOOL] = 0
        return first

    @property
    def ends(self) -> Offsets:
        if not self.topic.is_end_known:
            return {**dict.fromkeys(self.topic.offsets, FAR), SPOOL: self.spool.next_offset}
        ends = {partition: max(line.high_watermark, line.position) for partition, line in self.lines.items()}
        return {**ends, SPOOL: self.spool.next_offset}

    @property
    def records(self) -> int:
        """In Kafka as far as the live side has read, and in the spool."""
        first = self.topic.first
        kept = [offset - min(first.get(partition, 0), offset) for partition, offset in self.topic.offsets.items()]
        return sum(kept) + max(0, self.spool.records)

    @property
    def pending_bytes(self) -> int:
        return self.intake.pending_bytes

    @property
    def stored_bytes(self) -> int:
        """On Kafka's disks, and in the spool."""
        return self.topic.stored_bytes + (self.spool.log.stored_bytes if self.spool.records > 0 else 0)

    @property
    def oldest_ms(self) -> int | None:
        return self.topic.oldest_ms

    @property
    def failure(self) -> str | None:
        """Why nothing can be stored: the spool is full or fails, and Kafka does not take records."""
        if self.mode in (Mode.DIRECT, Mode.STARTING):
            return None
        return self.upkeep.limit or self.spool.log.failure

    def epoch_of(self, partition: int) -> str:
        return self.spool.epoch if partition == SPOOL else self.epoch

    def position(self, offsets: Offsets) -> StreamPosition:
        if SPOOL not in offsets:
            offsets = {**offsets, SPOOL: self.shown_spool}
        return StreamPosition(self.epoch, offsets, self.spool.epoch)

    @property
    def lag(self) -> int:
        """Records in Kafka that the live side has not read yet."""
        return sum([max(0, line.high_watermark - line.position) for line in self.lines.values()])

    @property
    def partitions(self) -> int:
        """How many the topic has; 0 before it was seen."""
        return len(self.lines)

    @property
    def topic_state(self) -> str:
        """`up`, `starting` or `gone`, while Kafka answers."""
        return "gone" if self.topic.is_missing else "up" if self.topic.is_end_known else "starting"

    @property
    def spool_state(self) -> str:
        """`empty`, `spooling` or `draining`."""
        if self.mode is Mode.SPOOLING:
            return "spooling"
        return "draining" if self.mode in (Mode.DRAINING, Mode.CLOSING) and self.spool.records > 0 else "empty"

    @property
    def oldest_spooled_ms(self) -> int | None:
        """Time of the oldest record in the spool."""
        return self.upkeep.oldest_ms if self.spool.records > 0 else None

    @property
    def left_out(self) -> int:
        """Records of other producers that name no topic."""
        return self._decoder.left_out

    # StreamLog: writing

    def append(self, run: PublishRun) -> None:
        self.intake.append(run)

    def flush(self) -> None:
        self.intake.flush()

    def withdraw(self, run: PublishRun) -> bool:
        return self.intake.withdraw(run)

    def show_spooled(self, runs: Sequence[RecordRun], end_offset: int) -> None:
        """Live readers are shown spooled records, up to an offset."""
        self.shown_spool = end_offset
        self.set_position()
        if runs:
            self.on_read(runs)

    # What the cluster tells

    def kafka_lost(self, error: str) -> None:
        if self._is_closed:
            return
        if self.mode is Mode.STARTING or (self.mode is Mode.DIRECT):
            self.intake.begin_spooling(error)

    def topic_seen(self, state: TopicState | None) -> None:
        if not self._is_closed:
            self.topic.seen(state)

    def go_on(self) -> None:
        """Kafka answers and the topic is there: go direct, or drain."""
        if self.mode is Mode.STARTING and self.spool.is_empty and not self.drain.must_recover and not self.gate.is_shut:
            self.intake.go_direct()
        elif self.mode in (Mode.STARTING, Mode.SPOOLING) and not self.drain.is_running:
            if self.mode is Mode.STARTING:
                self.mode = Mode.SPOOLING
                self.intake.release_held()
            self.drain.start()

    async def leave_epoch(self, why: str) -> None:
        """The topic is another one. What Kafka has not confirmed waits in the spool, and is looked for there first: a
        request names its topic, so the last ones may have found the new one."""
        if self.mode is Mode.DIRECT:
            self.intake.begin_spooling(why)
        await self.drain.leave_epoch()
        await self.intake.sender.forget()
        self.intake.retained.clear()

    # What the tail asks and tells

    def read(self, line: Line, runs: Sequence[RecordRun], position: int) -> None:
        if self.lines.get(line.partition) is not line:
            return
        self.topic.offsets[line.partition] = position
        self.spool.passed(line.partition, position)
        self.set_position()
        if self.gate.is_shut:
            self.gate.look()
        if runs:
            self.newest_ms = max(self.newest_ms or 0, runs[-1].received_at_ms)
            self.on_read(runs)
        else:
            self.on_moved()

    def decode(self, line: Line, batch: FetchedBatch, high: int) -> list[RecordRun]:
        return self._decoder.runs(batch, line.partition, line.position, high)

    def copies_end(self, line: Line, position: int) -> tuple[int, int]:
        copies = self.spool.copies_at(line.partition, position)
        if copies is not None:
            return position, copies.end
        first = self.spool.next_copies(line.partition, position)
        return (FAR, FAR) if first is None else (first, first)

    def ends_seen(self, line: Line, first_offset: int, high_watermark: int) -> None:
        if first_offset > self.topic.first.get(line.partition, 0):
            self.topic.first[line.partition] = first_offset
            self.spool.prune({line.partition: first_offset})

    def out_of_range(self, line: Line) -> None:
        """Retention has passed the line, or the topic is another one: look at it again."""
        self.topic.is_end_known = False
        self.cluster.check_now()

    def is_own(self, line: Line, producer_id: int) -> bool:
        return self.intake.sender.is_own(line.partition, producer_id)

    def is_sending(self, line: Line) -> bool:
        return self.intake.sender.is_under_way(line.partition)

    def set_position(self) -> None:
        """Where live readers stand has changed."""
        self._position = {**self.topic.offsets, SPOOL: self.shown_spool}

    # Times

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        settings = self.cluster.settings
        if self.mode is Mode.DIRECT and self.intake.sender.oldest_wait_s() > settings.spool_after_s:
            self.intake.begin_spooling(
                self.cluster.error or f"Kafka has confirmed nothing for {settings.spool_after_s:g} s"
            )
            self.cluster.check_now()
        now = time.monotonic()
        if now - self._stood_at > STAND_S:
            self._stood_at = now
            standing = self.spool.standing
            if self.topic.is_end_known and dict(standing.offsets) != self.topic.offsets:
                self.spool.stand(self.topic.standing())
            self.spool.keep_times(self.intake.written_ms, self.newest_ms)
            self.upkeep.look(now)
        self.upkeep.judge()
        self.gate.look()

    # Latest values over a restart

    def save_latest(self, entries: Sequence[LatestEntry], checkpoint: Offsets) -> None:
        """See `SqliteLog.save_latest`; the partition stands in the upper bits of the offset."""
        log = self.spool.log
        packed = [
            entry._replace(offset=(entry.partition + 1) << PARTITION_SHIFT | entry.offset, partition=0)
            for entry in entries
        ]
        log.save_latest(packed, {0: max(1, sum(checkpoint.values()))})
        self.spool.keep_checkpoint(self.epoch, checkpoint)

    def load_latest(self) -> tuple[list[LatestEntry], Offsets]:
        """See `SqliteLog.load_latest`. Without a checkpoint, or one of another epoch, nothing was saved."""
        epoch, checkpoint = self.spool.checkpoint
        if epoch != self.epoch or epoch == UNKNOWN:
            return [], {}
        entries, _ = self.spool.log.load_latest()
        mask = (1 << PARTITION_SHIFT) - 1
        return [
            entry._replace(partition=(entry.offset >> PARTITION_SHIFT) - 1, offset=entry.offset & mask)
            for entry in entries
        ], checkpoint

    # StreamLog: reading

    async def offsets_at(self, time_ms: int) -> Offsets:
        found = dict(self.topic.offsets)
        if self.topic.epoch != UNKNOWN:
            found |= await self.readers.offsets_at(self.kafka.topic, self.epoch, dict(self.topic.offsets), time_ms)
        found[SPOOL] = await self._spool_offset_at(time_ms)
        return found

    async def _spool_offset_at(self, time_ms: int) -> int:
        spool = self.spool
        start = spool.log.first_offset if self.spool.log.oldest_ms is not None else spool.next_offset
        if spool.records > 0 or start < spool.next_offset:
            return await spool.log.offset_at(time_ms)
        return self.shown_spool

    @property
    def begun_ms(self) -> int | None:
        return None

    async def ask_stream(self, request: StreamQuestion[AnswerT]) -> Sequence[AnswerT]:
        what = request.what
        if what.from_ms is not None:
            try:
                first = await self.offsets_at(what.from_ms)
            except KafkaUnreachable:  # what has no order is answered from the spool alone meanwhile
                first = {SPOOL: await self._spool_offset_at(what.from_ms)}
            start = {partition: max(offset, first.get(partition, 0)) for partition, offset in request.start.items()}
            request = replace(request, start=start)
        return [await self.readers.ask(self, request)]

    async def copy_of_spooled(self, offset: int) -> tuple[int, int] | None:
        """Partition and offset in Kafka of a record that has moved there from the spool. Raises: sqlite3.Error"""
        return await self.spool.copy_of(offset) if self.spool.is_moved(offset) else None

    async def scan_stream(self, request: StreamScan) -> StreamScanResult:
        return await self.readers.scan(self, request)
