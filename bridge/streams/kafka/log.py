"""KafkaLog: a stream on Kafka, with the spool beside it. ADR 10 has the names; this is where the states change.

    STARTING  Kafka has not been reached yet, and it is not known whether it will be; records wait in memory
    DIRECT    records go to Kafka and are acknowledged when it has confirmed them
    SPOOLING  records go to the spool and are acknowledged when they are on disk
    DRAINING  as SPOOLING, while the spool's head goes to Kafka
    CLOSING   the spool's rest is on its way; new records wait in memory until it is confirmed

Live readers see what Kafka has confirmed in Kafka's order (`tail`), and what is in the spool as soon as it is on disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from bridge.cursors import SPOOL, UNKNOWN, Offsets, StreamPosition
from bridge.records import RecordRun, Topic, as_record_run
from bridge.streams.frames import encode_record
from bridge.streams.kafka.cluster import EARLIEST, LATEST, KafkaCluster, KafkaFailure, TopicState
from bridge.streams.kafka.keys import KeyTemplate, Placement
from bridge.streams.kafka.records import Decoder, part_of
from bridge.streams.kafka.sender import Batch, Portion, Sender
from bridge.streams.kafka.spool import Copies, Spool, Standing
from bridge.streams.kafka.tail import Confirmed, Line, Tail
from bridge.streams.log import StreamLogError, ignore_commits
from bridge.streams.one_partition import ignore_runs
from broker.publish_run import PublishRun

if TYPE_CHECKING:
    from bridge.history.scan import AnswerT, StreamQuestion, StreamScan, StreamScanResult
    from bridge.streams.kafka.readers import KafkaReaders
    from bridge.streams.kafka.records import Batch as FetchedBatch
    from bridge.streams.kafka.settings import KafkaTopicSettings
    from bridge.streams.sqlite_store import SqliteStore
    from bridge.streams.upkeep import LatestEntry

logger = logging.getLogger("headrace.kafka")

TICK_S = 0.25
STAND_S = 1.0
"""How often the place of the live side is kept for the next start."""
CLOSE_RECORDS = 2_000
"""With so few records left in the spool, new ones wait for the way to be free."""
KEEP_MOVED_S = 30.0
"""Bodies of moved records stay so long: a reader in the middle of a piece may still want them."""
FAR = 1 << 62
PARTITION_SHIFT = 48
"""No partition has more than 2^48 records."""
SETTLE_S = 1.0
"""After a crash: for what the last run has sent and the broker has not taken from its socket yet."""


class Mode(Enum):
    """See the module's docstring."""

    STARTING = "starting"
    DIRECT = "direct"
    SPOOLING = "spooling"
    DRAINING = "draining"
    CLOSING = "closing"


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
        self.spool.log.on_committed = self._spooled
        self.mode = Mode.STARTING
        self.mismatch: list[str] = []
        """How the topic differs from what the configuration says."""
        self.state_text = ""
        self.spooled_total = 0
        self.moved_total = 0
        self.stored_total = 0
        self._store = store
        self._node_run = store.node_run
        self._tail = tail
        self._readers = readers
        self._placement = Placement(KeyTemplate(kafka.key))
        self._sender = Sender(cluster, kafka.topic, self)
        self._decoder = Decoder(kafka.topic, kafka.topic_template, lambda name: Topic(name, self))
        standing = self.spool.standing
        self.epoch = standing.epoch
        self.contact_offsets: Offsets = standing.contact
        self.is_end_known = False
        self.is_known = False
        """The topic was seen in this run."""
        self._offsets: dict[int, int] = dict(standing.offsets)
        self._shown_spool = self.spool.next_offset
        self._position: Offsets = {**self._offsets, SPOOL: self._shown_spool}
        self._first: dict[int, int] = dict(standing.offsets)
        self._lines: dict[int, Line] = {}
        self._leaders: Mapping[int, int] = {}
        self._turn: list[PublishRun] = []
        self._held: list[PublishRun] = []
        self._open_rows: dict[PublishRun, int] = {}
        """Rows of each run that are neither in Kafka nor on disk."""
        self._parents: dict[PublishRun, PublishRun] = {}
        """Pieces of runs in the spool, and what they are of."""
        self._pending_bytes = 0
        self._last_ms = max(self.spool.log.newest_ms or 0, 0)
        self._newest_ms: int | None = self.spool.log.newest_ms
        self._oldest_ms: int | None = None
        self._drain_task: asyncio.Task[None] | None = None
        self._epoch_task: asyncio.Task[None] | None = None
        self._drained_until = self.spool.moved_to
        """The drain has read the spool up to here."""
        self._retained: set[int] = set()
        """Spooled records in batches that were under way when spooling began."""
        self._progress = asyncio.Event()
        self._must_recover = self.spool.sent_until > self.spool.moved_to
        self._spool_limit: str | None = None
        self._oldest_spooled_ms: int | None = None
        self._age_task: asyncio.Task[None] | None = None
        self._drop_marks: list[tuple[float, int]] = []
        self._stood_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._creating = False
        self._is_missing = False
        self.replication = 0
        self._is_closed = False

    # Life

    def open(self) -> None:
        """Begin; the cluster tells of the topic from then on. Needs a running loop."""
        self._sender.start()
        self.cluster.follow(self)
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    async def close(self) -> None:
        """Let what is under way end for a moment, spool the rest, and stop."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self.mode is Mode.DIRECT and self._sender.unconfirmed:
            await self._wait_for_progress(lambda: not self._sender.unconfirmed, self.cluster.settings.spool_after_s)
        for task in (self._drain_task, self._epoch_task, self._age_task):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._sender.unconfirmed or self._held or self._turn:
            self._begin_spooling("the server stops")
        for line in self._lines.values():
            self._tail.leave(line)
        await self._sender.close()
        if self.epoch != UNKNOWN:
            self.spool.stand(Standing(self.epoch, dict(self._offsets), dict(self.contact_offsets)))
        self.spool.close()

    # StreamLog: where it stands

    @property
    def offsets(self) -> Offsets:
        return self._position

    @property
    def first_offsets(self) -> Offsets:
        """In the spool 0: what is gone from there is in Kafka, so nothing before it is lost."""
        first = {partition: min(self._first.get(partition, 0), offset) for partition, offset in self._offsets.items()}
        first[SPOOL] = 0
        return first

    @property
    def ends(self) -> Offsets:
        if not self.is_end_known:
            return {**dict.fromkeys(self._offsets, FAR), SPOOL: self._shown_spool}
        ends = {partition: max(line.high_watermark, line.position) for partition, line in self._lines.items()}
        return {**ends, SPOOL: self._shown_spool}

    @property
    def records(self) -> int:
        """In Kafka as far as the live side has read, and in the spool."""
        kept = [offset - min(self._first.get(partition, 0), offset) for partition, offset in self._offsets.items()]
        return sum(kept) + max(0, self.spool.records)

    @property
    def pending_bytes(self) -> int:
        return self._pending_bytes

    @property
    def stored_bytes(self) -> int:
        return self.spool.log.stored_bytes

    @property
    def oldest_ms(self) -> int | None:
        return self._oldest_ms

    @property
    def newest_ms(self) -> int | None:
        return self._newest_ms

    @property
    def failure(self) -> str | None:
        """Why nothing can be stored: the spool is full or fails, and Kafka does not take records."""
        if self.mode in (Mode.DIRECT, Mode.STARTING):
            return None
        return self._spool_limit or self.spool.log.failure

    def epoch_of(self, partition: int) -> str:
        return self.spool.epoch if partition == SPOOL else self.epoch

    def position(self, offsets: Offsets) -> StreamPosition:
        if SPOOL not in offsets:
            offsets = {**offsets, SPOOL: self._shown_spool}
        return StreamPosition(self.epoch, offsets, self.spool.epoch)

    @property
    def lag(self) -> int:
        """Records in Kafka that the live side has not read yet."""
        return sum([max(0, line.high_watermark - line.position) for line in self._lines.values()])

    @property
    def partitions(self) -> int:
        """How many the topic has; 0 before it was seen."""
        return len(self._lines)

    @property
    def topic_state(self) -> str:
        """`up`, `starting` or `gone`, while Kafka answers."""
        return "gone" if self._is_missing else "up" if self.is_end_known else "starting"

    @property
    def spool_state(self) -> str:
        """`empty`, `spooling` or `draining`."""
        if self.mode is Mode.SPOOLING:
            return "spooling"
        return "draining" if self.mode in (Mode.DRAINING, Mode.CLOSING) and self.spool.records > 0 else "empty"

    @property
    def oldest_spooled_ms(self) -> int | None:
        """Time of the oldest record in the spool."""
        return self._oldest_spooled_ms if self.spool.records > 0 else None

    @property
    def left_out(self) -> int:
        """Records of other producers that name no topic."""
        return self._decoder.left_out

    @property
    def commit_s(self) -> Sequence[float]:
        """How long the latest requests to Kafka took."""
        return self._sender.commit_s

    # StreamLog: writing

    def append(self, run: PublishRun) -> None:
        if run.received_at_ms < self._last_ms:
            run.received_at_ms = self._last_ms
        else:
            self._last_ms = run.received_at_ms
        self._pending_bytes += run.ends[-1] - run.start
        self._turn.append(run)

    def flush(self) -> None:
        runs, self._turn = self._turn, []
        if runs:
            self._dispatch(runs)

    def _dispatch(self, runs: list[PublishRun]) -> None:
        if self.mode is Mode.DIRECT:
            for run in runs:
                self._put(run)
        elif self.mode in (Mode.SPOOLING, Mode.DRAINING) and self._spool_limit is None:
            for run in runs:
                self.spool.log.append(run)
            self.spool.log.flush()
        else:
            self._held += runs

    def withdraw(self, run: PublishRun) -> bool:
        for queue in (self._held, self._turn):
            if run in queue:
                queue.remove(run)
                break
        else:
            if run in self._open_rows or not self.spool.log.withdraw(run):
                return False
        self._pending_bytes -= run.ends[-1] - run.start
        return True

    def _put(self, run: PublishRun) -> None:
        """Queue a run's rows for their partitions."""
        topics: list[Topic] = [route.sink_topic for route in run.routes]  # type: ignore[misc]  # the bridge opened it
        self._open_rows[run] = len(topics)
        for partition, (rows, keys) in self._by_partition(topics, range(len(topics)), run.client_id).items():
            self._sender.put(partition, Portion(run, rows, topics, keys, self._node_run))

    # hot path: tests/bench/kafka_records.py
    def _by_partition(
        self, topics: Sequence[Topic], rows: Sequence[int], client_id: str
    ) -> dict[int, tuple[Sequence[int], list[bytes]]]:
        """Rows and their keys by partition."""
        place = self._placement.of
        places = {topic: place(topic.name, client_id) for topic in set(topics)}
        if len({partition for _, partition in places.values()}) == 1:
            key_of = {topic: key for topic, (key, _) in places.items()}
            partition = next(iter(places.values()))[1]
            return {partition: (rows, [key_of[topics[row]] for row in rows])}
        found: dict[int, tuple[list[int], list[bytes]]] = {}
        for row in rows:
            key, partition = places[topics[row]]
            part = found.get(partition)
            if part is None:
                part = found[partition] = ([], [])
            part[0].append(row)
            part[1].append(key)
        return found  # type: ignore[return-value]  # a list is a sequence

    # What the sender tells

    def confirmed(self, partition: int, base_offset: int, batch: Batch) -> None:
        line = self._lines.get(partition)
        offset = base_offset
        runs: list[RecordRun] = []
        copies: list[int] = []
        committed: list[PublishRun] = []
        for portion in batch.portions:
            if portion.offsets is None:
                assert isinstance(portion.run, PublishRun)
                shown = part_of(portion.run, portion.rows, portion.topics, portion.node_run, partition, offset)
                runs.append(shown)
                self._newest_ms = shown.received_at_ms
                if len(portion.run) == 1:
                    portion.run.base_offset, portion.run.partition = offset, partition
                if self._rows_done(portion.run, len(portion)):
                    committed.append(portion.run)
            else:
                copies += portion.offsets
            offset += len(portion)
        self.stored_total += batch.count
        self._acknowledge(committed)
        if copies:
            # The table knows of them before a live reader passes them.
            entry = Confirmed(base_offset, offset, (), is_ready=False)
            self.moved_total += len(copies)
            self._retained.difference_update(copies)
            self.spool.moved([Copies(partition, base_offset, copies)], lambda: self._ready(line, entry))
        else:
            entry = Confirmed(base_offset, offset, runs)
        if line is not None:
            line.confirmed.append(entry)
            line.waits_for_own = False
            line.advance()
            self._tail.wake()
            self._tail.on_turn()
        self._progress.set()

    def _ready(self, line: Line | None, entry: Confirmed) -> None:
        entry.is_ready = True
        if line is not None:
            line.advance()
            self._tail.wake()
            self._tail.on_turn()
        self._progress.set()

    def refused(self, partition: int, batch: Batch, reason: str) -> None:
        """Kafka will never take these: they become dead letters, and only then are acknowledged."""
        logger.error(
            "Kafka refuses records of stream %s: %s; they are kept as dead letters "
            "(headrace streams dead-letters %s)", self.name, reason, self.name,
        )  # fmt: skip
        offsets: list[int] = []
        rows: list[tuple[PublishRun, int]] = []
        for portion in batch.portions:
            run = part_of(portion.run, portion.rows, portion.topics, portion.node_run, partition, 0)
            self.spool.bury(run, [encode_record(run, row) for row in range(len(run))], partition, reason)
            if portion.offsets is not None:
                offsets += portion.offsets
            else:
                assert isinstance(portion.run, PublishRun)
                rows.append((portion.run, len(portion)))

        def buried() -> None:
            self._acknowledge([run for run, count in rows if self._rows_done(run, count)])
            self._tail.on_turn()
            self._progress.set()

        self._retained.difference_update(offsets)
        self.spool.forget(offsets, buried)
        self.on_change("dead_letter", {"stream": self.name, "records": batch.count, "reason": reason})

    async def locate(self, batch: Batch) -> int | None:
        partition = batch.lane.partition
        line = self._lines[partition]
        portion = batch.portions[0]
        identity = (portion.node_run, portion.number(portion.rows[0]))
        found = await self._readers.locate(self.kafka.topic, self.epoch, {partition: line.position}, {identity})
        place = found.get(identity)
        return None if place is None else place[1]

    def _rows_done(self, run: PublishRun, count: int) -> bool:
        """Rows of a run are safe; True when all of it is."""
        left = self._open_rows.get(run, 0) - count
        if left > 0:
            self._open_rows[run] = left
            return False
        self._open_rows.pop(run, None)
        return True

    def _acknowledge(self, runs: list[PublishRun]) -> None:
        """These runs are safe, whether in Kafka or on disk."""
        if not runs:
            return
        self._pending_bytes -= sum([run.ends[-1] - run.start for run in runs])
        keeping = [run for run in runs if run.keeps_packet_ids]
        if not keeping:
            self.on_committed(runs)
            return
        # QoS 2 of kept sessions: the packet ids are on disk before PUBREC.
        self._store.keep_ids(keeping, lambda: self.on_committed(runs))

    # What the spool tells

    def _spooled(self, runs: Sequence[PublishRun]) -> None:
        """Runs are on disk."""
        committed: list[PublishRun] = []
        shown: list[RecordRun] = []
        for run in runs:
            topics: list[Topic] = [route.sink_topic for route in run.routes]  # type: ignore[misc]
            record_run = as_record_run(run, topics, self._node_run)
            record_run.partition = SPOOL
            shown.append(record_run)
            parent = self._parents.pop(run, None)
            if parent is None:
                self._open_rows.pop(run, None)
                committed.append(run)
            elif self._rows_done(parent, len(run)):
                committed.append(parent)
            self.spooled_total += len(run)
        last = runs[-1]
        self._shown_spool = last.base_offset + len(last)
        self._newest_ms = last.received_at_ms
        self._set_position()
        for run in committed:
            run.base_offset = -1  # its place in the spool is none in the stream
        self._pending_bytes -= sum([run.ends[-1] - run.start for run in committed])
        self.on_committed(committed)
        self.on_read(shown)
        self._tail.on_turn()
        self._progress.set()

    def _begin_spooling(self, why: str) -> None:
        """From here on records go to the spool, those first that Kafka has not confirmed."""
        was_direct = self.mode is Mode.DIRECT
        self.mode = Mode.SPOOLING
        self.state_text = why
        logger.warning("stream %s is spooled: %s", self.name, why)
        if was_direct:
            rows_by_run: dict[PublishRun, list[int]] = {}
            under_way = [portion for batch in self._sender.under_way() for portion in batch.portions]
            for portion in [*under_way, *self._sender.take_back()]:
                assert isinstance(portion.run, PublishRun)
                rows_by_run.setdefault(portion.run, []).extend(portion.rows)
            runs = sorted(rows_by_run, key=_first_number)
            size = sum(map(len, rows_by_run.values()))
            if self.epoch != UNKNOWN:
                self.spool.stand(Standing(self.epoch, dict(self._offsets), dict(self.contact_offsets)))
            self.spool.begin_sending(
                self.spool.log.next_offset + size,
                {partition: line.position for partition, line in self._lines.items()},
                lambda: None,
            )
            offset_by_row: dict[tuple[PublishRun, int], int] = {}
            for run in runs:
                for piece, first in pieces_of(run, sorted(rows_by_run[run])):
                    if piece is not run:
                        self._parents[piece] = run
                    self.spool.log.append(piece)
                    for row in range(len(piece)):
                        offset_by_row[run, first + row] = piece.base_offset + row
            for portion in under_way:
                assert isinstance(portion.run, PublishRun)
                portion.offsets = [offset_by_row[portion.run, row] for row in portion.rows]
                self._retained.update(portion.offsets)
            self.spool.log.flush()
        held, self._held = self._held, []
        self._dispatch(held)
        self.on_change("spool", {"stream": self.name, "state": "spooling", "reason": why})

    # What the cluster tells

    def kafka_lost(self, error: str) -> None:
        if self._is_closed:
            return
        if self.mode is Mode.STARTING or (self.mode is Mode.DIRECT):
            self._begin_spooling(error)

    def topic_seen(self, state: TopicState | None) -> None:
        if self._is_closed:
            return
        self._is_missing = state is None
        if state is None:
            self._topic_missing()
            return
        self.replication = state.replication
        epoch = f"k{state.topic_id}"
        if epoch == self.epoch and self.is_end_known and len(state.leaders) == len(self._lines):
            self._set_leaders(state)
        elif self._epoch_task is None or self._epoch_task.done():
            self._epoch_task = asyncio.create_task(self._begin_epoch(epoch, state), name=f"kafka-epoch-{self.name}")

    def _topic_missing(self) -> None:
        if self.mode is Mode.STARTING and not self.kafka.create:
            self._begin_spooling(f"topic {self.kafka.topic} does not exist, and may not be created")
        elif self.mode is Mode.DIRECT:
            self._begin_spooling(f"topic {self.kafka.topic} does not exist any more")
        if self.kafka.create and not self._creating:
            self._creating = True
            self._epoch_task = asyncio.create_task(self._create(), name=f"kafka-create-{self.name}")

    async def _create(self) -> None:
        try:
            problem = await self.cluster.create_topic(self.kafka)
        except KafkaFailure as error:
            problem = str(error) or type(error).__name__
        finally:
            self._creating = False
        self._is_missing = False
        self.replication = 0
        if problem is None:
            logger.info("topic %s was created", self.kafka.topic)
            self.cluster.check_now()
        else:
            text = f"topic {self.kafka.topic} cannot be created: {problem}"
            if self.mode is Mode.STARTING:
                self._begin_spooling(text)
            elif self.state_text != text:
                self.state_text = text
                logger.error("%s", text)

    async def _begin_epoch(self, epoch: str, state: TopicState) -> None:
        """Stand in a topic that is new to us, to this run, or has more partitions."""
        topic = self.kafka.topic
        if any(node < 0 for node in state.leaders.values()):
            self.cluster.check_now()
            return
        try:
            last = await self.cluster.ends(topic, state.leaders, LATEST)
            first = await self.cluster.ends(topic, state.leaders, EARLIEST)
        except KafkaFailure as error:
            logger.debug("the ends of %s could not be read: %r", topic, error)
            self.cluster.check_now()
            return
        is_another = self.epoch not in (UNKNOWN, epoch)
        is_growth = epoch == self.epoch and self.is_end_known
        self._first = {partition: offset for partition, (offset, _) in first.items()}
        if is_another:
            logger.warning("topic %s was created anew; its old records are gone", topic)
            self.spool.forget_copies()
            offsets = dict(self._first)
            contact = dict(self._first)
        elif self.epoch == UNKNOWN:
            offsets = {partition: offset for partition, (offset, _) in last.items()}
            contact = dict(offsets)
        else:
            known = self._offsets
            offsets = {
                partition: min(max(known.get(partition, 0), self._first[partition]), max(end, known.get(partition, 0)))
                for partition, (end, _) in last.items()
            }
            contact = dict(self.contact_offsets)
        lost = 0
        if self.is_known and not is_another:
            lost = sum([max(0, offset - self._offsets.get(partition, 0)) for partition, offset in self._first.items()])
        if is_another or lost:
            self.before_new_epoch()
        self.epoch = epoch
        self.contact_offsets = contact
        self._offsets = offsets
        self._set_position()
        self.is_end_known = True
        self.spool.stand(Standing(epoch, dict(offsets), contact))
        self._placement.set_partitions(len(state.leaders))
        for partition in sorted(offsets):
            line = self._lines.get(partition)
            if line is None or is_another or line.position < offsets[partition]:
                if line is not None:
                    self._tail.leave(line)
                line = self._lines[partition] = Line(self, topic, partition, offsets[partition])
            line.high_watermark = max(line.high_watermark, last[partition][0])
        self._set_leaders(state)
        self.is_known = True
        if is_another:
            self.on_new_epoch()
        elif lost:
            logger.warning("%d records of %s were dropped by Kafka's retention before they were read", lost, topic)
            self.on_lost(lost)
        else:
            self.on_moved()
        if not is_growth:
            await self._look_at_configs(state)
        self._sender_may_go()

    async def _look_at_configs(self, state: TopicState) -> None:
        """Say how the topic differs from the configuration; nothing of it is changed."""
        wanted = self.kafka
        mismatch = []
        if len(state.leaders) != wanted.partitions:
            mismatch.append(f"it has {len(state.leaders)} partitions, the configuration says {wanted.partitions}")
        if wanted.replication is not None and state.replication != wanted.replication:
            mismatch.append(f"its replication is {state.replication}, the configuration says {wanted.replication}")
        try:
            configs = await self.cluster.topic_configs(wanted.topic)
        except KafkaFailure as error:
            logger.debug("the configuration of %s could not be read: %r", wanted.topic, error)
            configs = {}
        retention = configs.get("retention.ms")
        if wanted.retention_age_ms is not None and retention not in (None, str(wanted.retention_age_ms)):
            mismatch.append(f"its retention.ms is {retention}, the configuration says {wanted.retention_age_ms}")
        age_ms = self.cluster.settings.spool_age_s_max * 1000
        if retention is not None and 0 <= int(retention) <= age_ms:
            mismatch.append(f"its retention.ms {retention} is not above the spool's age limit of {age_ms} ms")
        for text in mismatch:
            if text not in self.mismatch:
                logger.warning("topic %s differs: %s", wanted.topic, text)
        self.mismatch = mismatch
        earliest = await self._earliest(state)
        if earliest is not None:
            self._oldest_ms = earliest

    async def _earliest(self, state: TopicState) -> int | None:
        try:
            found = await self.cluster.ends(self.kafka.topic, state.leaders, 0)
        except KafkaFailure as error:
            logger.debug("the oldest records of %s could not be found: %r", self.kafka.topic, error)
            return None
        return min([time_ms for offset, time_ms in found.values() if offset >= 0], default=None)

    def _set_leaders(self, state: TopicState) -> None:
        self._leaders = state.leaders
        self._sender.set_leaders(state.leaders)
        self._follow()
        self._sender_may_go()

    def _follow(self) -> None:
        """Have the tail follow every partition, once it is known which records of a crash are copies."""
        if self._must_recover:
            return
        for partition, line in self._lines.items():
            self._tail.follow(line, self._leaders.get(partition, -1))

    def _sender_may_go(self) -> None:
        """Kafka answers and the topic is there: go direct, or drain."""
        if self.mode is Mode.STARTING and self.spool.is_empty:
            self._go_direct()
        elif self.mode in (Mode.STARTING, Mode.SPOOLING) and (self._drain_task is None or self._drain_task.done()):
            if self.mode is Mode.STARTING:
                self.mode = Mode.SPOOLING
                held, self._held = self._held, []
                self._dispatch(held)
            self._drain_task = asyncio.create_task(self._drain(), name=f"kafka-drain-{self.name}")

    def _go_direct(self) -> None:
        was = self.mode
        self.mode = Mode.DIRECT
        self.state_text = ""
        held, self._held = self._held, []
        self._dispatch(held)
        if was is not Mode.STARTING:
            logger.info("stream %s goes to Kafka directly again", self.name)
            self.on_change("spool", {"stream": self.name, "state": "empty"})

    # Draining

    async def _drain(self) -> None:
        try:
            if self._must_recover:
                await self._recover()
            self._drained_until = self.spool.moved_to
            self.mode = Mode.DRAINING
            self.on_change("spool", {"stream": self.name, "state": "draining", "records": self.spool.records})
            while not await self._drain_some():
                pass
        except (*KafkaFailure, StreamLogError) as error:
            logger.debug("draining %s was interrupted: %r", self.name, error)
            self.mode = Mode.SPOOLING
            self._release_held()
            await asyncio.sleep(self.cluster.settings.retry_s)
        except Exception:
            logger.exception("draining stream %s failed; it is tried again", self.name)
            self.mode = Mode.SPOOLING
            self._release_held()
            await asyncio.sleep(1)

    def _release_held(self) -> None:
        held, self._held = self._held, []
        self._dispatch(held)

    async def _drain_some(self) -> bool:
        """One round; True when the spool is empty and records go to Kafka again."""
        spool, sender = self.spool, self._sender
        limit = self.cluster.settings.drain_records_max
        position, end = self._drained_until, spool.next_offset
        if position < end:
            if sender.unconfirmed > limit // 2:
                await self._wait_for_progress(lambda: sender.unconfirmed <= limit // 2, TICK_S)
                return False
            end = min(end, position + limit // 2)
            if end > spool.sent_until:
                await self._may_send(end + limit)
            runs = await spool.read(position, end)
            if not runs:
                logger.error("spooled records %d to %d of %s are missing", position, end, self.name)
                self._drained_until = end
                return False
            for run in runs:
                self._put_spooled(run, position, end)
            self._drained_until = min(end, runs[-1].base_offset + len(runs[-1]))
            await asyncio.sleep(0)
            return False
        if self.mode is Mode.DRAINING:
            if spool.log.pending_bytes and spool.next_offset - position > CLOSE_RECORDS:
                return False
            self.mode = Mode.CLOSING
        is_over = await self._wait_for_progress(
            lambda: (spool.is_empty and not sender.unconfirmed) or self._drained_until < spool.next_offset,
            self.cluster.settings.spool_after_s,
        )
        if spool.is_empty and not sender.unconfirmed:
            self._retained.clear()
            self._go_direct()
            return True
        if not is_over:  # Kafka has become slow, or is away: nobody waits for it
            self.mode = Mode.DRAINING
            self._release_held()
            await self._wait_for_progress(lambda: not sender.unconfirmed, TICK_S)
        return False

    def _put_spooled(self, run: RecordRun, position: int, end: int) -> None:
        base = run.base_offset
        low, high = max(0, position - base), min(len(run), end - base)
        rows = [
            row for row in range(low, high) if base + row not in self._retained and not self.spool.is_moved(base + row)
        ]
        if not rows:
            return
        for partition, (chosen, keys) in self._by_partition(run.topics, rows, run.client_id).items():
            offsets = [base + row for row in chosen]
            self._sender.put(partition, Portion(run, chosen, run.topics, keys, run.node_run, offsets))

    async def _may_send(self, sent_until: int) -> None:
        done = asyncio.get_running_loop().create_future()
        self.spool.begin_sending(
            sent_until,
            {partition: line.position for partition, line in self._lines.items()}
            if self.spool.moved_to >= self.spool.sent_until
            else self.spool.search_from,
            lambda: None if done.done() else done.set_result(None),
        )
        await done

    async def _recover(self) -> None:
        """After a crash: find which of the records that may have been sent are in Kafka."""
        spool = self.spool
        await asyncio.sleep(SETTLE_S)
        wanted: dict[tuple[str, int], int] = {}
        position, end = spool.moved_to, min(spool.sent_until, spool.next_offset)
        while position < end:
            runs = await spool.read(position, end)
            if not runs:
                break
            for run in runs:
                for row in range(len(run)):
                    offset = run.base_offset + row
                    if position <= offset < end and not spool.is_moved(offset):
                        wanted[run.node_run, run.number(row)] = offset
            position = runs[-1].base_offset + len(runs[-1])
        if wanted:
            start = {partition: spool.search_from.get(partition, 0) for partition in self._lines}
            found = await self._readers.locate(self.kafka.topic, self.epoch, start, set(wanted))
            copies = copies_of({identity: (wanted[identity], *place) for identity, place in found.items()}.values())
            logger.info("stream %s: %d of %d records were in Kafka already", self.name, len(found), len(wanted))
            if copies:
                done = asyncio.get_running_loop().create_future()
                spool.moved(copies, lambda: None if done.done() else done.set_result(None))
                await done
        self._must_recover = False
        self._follow()

    async def _wait_for_progress(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition():
            self._progress.clear()
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            try:
                await asyncio.wait_for(self._progress.wait(), left)
            except TimeoutError:
                return condition()
        return True

    # What the tail asks and tells

    def read(self, line: Line, runs: Sequence[RecordRun], position: int) -> None:
        if self._lines.get(line.partition) is not line:
            return
        self._offsets[line.partition] = position
        self.spool.passed(line.partition, position)
        self._set_position()
        if runs:
            self._newest_ms = max(self._newest_ms or 0, runs[-1].received_at_ms)
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
        if first_offset > self._first.get(line.partition, 0):
            self._first[line.partition] = first_offset
            self.spool.prune({line.partition: first_offset})

    def out_of_range(self, line: Line) -> None:
        """Retention has passed the line, or the topic is another one: look at it again."""
        self.is_end_known = False
        self.cluster.check_now()

    def is_own(self, line: Line, producer_id: int) -> bool:
        return producer_id == self._sender.producer_id and self._sender.is_under_way(line.partition)

    def is_sending(self, line: Line) -> bool:
        return self._sender.is_under_way(line.partition)

    def _set_position(self) -> None:
        self._position = {**self._offsets, SPOOL: self._shown_spool}

    # Times

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        settings = self.cluster.settings
        if self.mode is Mode.DIRECT and self._sender.oldest_wait_s() > settings.spool_after_s:
            self._begin_spooling(self.cluster.error or f"Kafka has confirmed nothing for {settings.spool_after_s:g} s")
            self.cluster.check_now()
        now = time.monotonic()
        if now - self._stood_at > STAND_S:
            self._stood_at = now
            standing = self.spool.standing
            if self.is_end_known and dict(standing.offsets) != self._offsets:
                self.spool.stand(Standing(self.epoch, dict(self._offsets), dict(self.contact_offsets)))
            self._drop_moved(now)
            if self.spool.records > 0 and (self._age_task is None or self._age_task.done()):
                self._age_task = asyncio.create_task(self._look_at_age())
        self._judge_limits()

    async def _look_at_age(self) -> None:
        """Find the time of the oldest record in the spool."""
        self._oldest_spooled_ms = await self.spool.oldest_ms()

    def _drop_moved(self, now: float) -> None:
        """Let go of the bodies of what was moved a while ago and is behind the live side."""
        marks = self._drop_marks
        passed = self.spool.moved_to if not any(self.spool.copies_by_partition.values()) else 0
        if passed and (not marks or marks[-1][1] < passed):
            marks.append((now + KEEP_MOVED_S, passed))
        while marks and marks[0][0] <= now:
            self.spool.drop_before(marks.pop(0)[1])

    def _judge_limits(self) -> None:
        """The spool's bounds: over them nothing is acknowledged until there is room."""
        settings = self.cluster.settings
        was, self._spool_limit = self._spool_limit, None
        if self.spool.records > 0:
            if self.spool.log.stored_bytes > settings.spool_bytes_max:
                self._spool_limit = f"the spool of stream {self.name} is full ([kafka] spool_bytes_max)"
            elif self._oldest_spooled_ms is not None and (
                time.time() * 1000 - self._oldest_spooled_ms > settings.spool_age_s_max * 1000
            ):
                self._spool_limit = f"the spool of stream {self.name} is too old ([kafka] spool_age_s_max)"
        if was != self._spool_limit:
            if self._spool_limit is not None:
                logger.error("%s; nothing is acknowledged that is not stored", self._spool_limit)
                self.on_change("limit_hit", {"limit": "kafka.spool_bytes_max", "stream": self.name})
            elif self.mode in (Mode.SPOOLING, Mode.DRAINING):
                self._release_held()

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
        found = dict(self._offsets)
        if self.epoch != UNKNOWN:
            found |= await self._readers.offsets_at(self.kafka.topic, self.epoch, dict(self._offsets), time_ms)
        spool = self.spool
        start = spool.log.first_offset if self.spool.log.oldest_ms is not None else spool.next_offset
        if spool.records > 0 or start < spool.next_offset:
            found[SPOOL] = await spool.log.offset_at(time_ms)
        else:
            found[SPOOL] = self._shown_spool
        return found

    @property
    def begun_ms(self) -> int | None:
        return None

    async def ask_stream(self, request: StreamQuestion[AnswerT]) -> Sequence[AnswerT]:
        what = request.what
        if what.from_ms is not None:
            first = await self.offsets_at(what.from_ms)
            start = {partition: max(offset, first.get(partition, 0)) for partition, offset in request.start.items()}
            request = replace(request, start=start)
        return [await self._readers.ask(self, request)]

    async def scan_stream(self, request: StreamScan) -> StreamScanResult:
        return await self._readers.scan(self, request)


def pieces_of(run: PublishRun, rows: Sequence[int]) -> Iterable[tuple[PublishRun, int]]:
    """Some rows of a run as runs of rows that follow one another, each with the first row's number in the run."""
    if len(rows) == len(run):
        yield run, 0
        return
    first = 0
    while first < len(rows):
        last = first
        while last + 1 < len(rows) and rows[last + 1] == rows[last] + 1:
            last += 1
        low, high = rows[first], rows[last] + 1
        piece = PublishRun(
            run.data,
            run.frame_start(low),
            run.routes[low:high],
            run.payload_starts[low:high],
            run.ends[low:high],
            run.packet_ids[low:high],
            is_v5=run.is_v5,
            client_id=run.client_id,
            received_at_ms=run.received_at_ms,
            qos=run.qos,
            retain=run.retain,
            is_plain=run.is_plain,
        )
        piece.first_number = run.first_number + low
        piece.keeps_packet_ids = run.keeps_packet_ids
        yield piece, low
        first = last + 1


def copies_of(found: Iterable[tuple[int, int, int]]) -> list[Copies]:
    """(spool offset, partition, offset) of records, as batches in which both rise."""
    batches: list[Copies] = []
    offsets: list[int] = []
    base = partition = last = -1
    for spool_offset, at_partition, offset in sorted(found, key=lambda each: (each[1], each[2])):
        if at_partition != partition or offset != last + 1 or (offsets and spool_offset < offsets[-1]):
            if offsets:
                batches.append(Copies(partition, base, offsets))
            partition, base, offsets = at_partition, offset, []
        offsets.append(spool_offset)
        last = offset
    if offsets:
        batches.append(Copies(partition, base, offsets))
    return batches


def _first_number(run: PublishRun) -> int:
    return run.first_number


def partitions_of(offsets: Mapping[int, int]) -> dict[int, int]:
    """The part of a position that is in Kafka."""
    return {partition: offset for partition, offset in offsets.items() if partition != SPOOL}
