"""KafkaLog: a stream on Kafka as the event loop sees it, with the spool beside it (ADR 10).

Its `mode` says where records go; the topic (`topic.py`), the way back from the spool (`drain.py`), the batches
(`sender.py`) and the consumer (`tail.py`) tell it what has happened, and it tells devices and live readers. These see
what Kafka has confirmed in Kafka's order, and what is in the spool as soon as it is on disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bridge.cursors import SPOOL, UNKNOWN, Offsets, StreamPosition
from bridge.ending import end
from bridge.records import RecordRun, Topic, as_record_run
from bridge.streams.frames import encode_record
from bridge.streams.kafka.cluster import KafkaCluster, TopicState
from bridge.streams.kafka.drain import Drain
from bridge.streams.kafka.gate import Gate
from bridge.streams.kafka.keys import KeyTemplate, Placement
from bridge.streams.kafka.mode import Mode
from bridge.streams.kafka.pieces import pieces_of
from bridge.streams.kafka.records import Decoder, part_of
from bridge.streams.kafka.sender import Batch, Portion, Sender
from bridge.streams.kafka.spool import Copies, Spool
from bridge.streams.kafka.tail import Confirmed, Line, Tail
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
KEEP_MOVED_S = 30.0
"""Bodies of moved records stay so long: a reader in the middle of a piece may still want them."""
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
        self.spool.log.on_committed = self._spooled
        self.mode = Mode.STARTING
        self.state_text = ""
        """Why records do not go to Kafka."""
        self.spooled_total = 0
        self.moved_total = 0
        self.stored_total = 0
        self.tail = tail
        self.readers = readers
        self.placement = Placement(KeyTemplate(kafka.key))
        self.sender = Sender(cluster, kafka.topic, self)
        self.lines: dict[int, Line] = {}
        """The partitions that the tail follows, or will."""
        self.topic = StreamTopic(self, self.spool.standing)
        self.drain = Drain(self)
        self.retained: set[int] = set()
        """Spooled records in batches that were under way when spooling began."""
        self._store = store
        self._node_run = store.node_run
        self._decoder = Decoder(kafka.topic, kafka.topic_template, lambda name: Topic(name, self))
        self.gate = Gate(self)
        gate = self.spool.gate if self.gate.is_shut else None
        self.shown_spool = self.spool.next_offset if gate is None else gate[0]
        """One past the newest spooled record that live readers were shown."""
        self._position: Offsets = {}
        self.set_position()
        self._turn: list[PublishRun] = []
        self._held: list[PublishRun] = []
        self._open_rows: dict[PublishRun, int] = {}
        """Rows of each run that are neither in Kafka nor on disk."""
        self._parents: dict[PublishRun, PublishRun] = {}
        """Pieces of runs in the spool, and what they are of."""
        self._pending_bytes = 0
        self._newest_ms: int | None = self.spool.log.newest_ms
        self._last_ms = self._newest_ms or 0
        self._progress = asyncio.Event()
        self._spool_limit: str | None = None
        self._oldest_spooled_ms: int | None = None
        self._age_task: asyncio.Task[None] | None = None
        self._drop_marks: list[tuple[float, int]] = []
        self._stood_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    # Life

    def open(self) -> None:
        """Begin; the cluster tells of the topic from then on. Needs a running loop."""
        self.sender.start()
        self.cluster.follow(self)
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    async def close(self) -> None:
        """Let what is under way end for a moment, spool the rest, and stop."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self.mode is Mode.DIRECT and self.sender.unconfirmed:
            await self.wait_for_progress(lambda: not self.sender.unconfirmed, self.cluster.settings.spool_after_s)
        await self.drain.close()
        await self.gate.close()
        await self.topic.close()
        await end([self._age_task])
        if self.sender.unconfirmed or self._held or self._turn:
            self.begin_spooling("the server stops")
        for line in self.lines.values():
            self.tail.leave(line)
        await self.sender.close()
        if self.topic.epoch != UNKNOWN:
            self.spool.stand(self.topic.standing())
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
        return self._pending_bytes

    @property
    def stored_bytes(self) -> int:
        """On Kafka's disks, and in the spool."""
        return self.topic.stored_bytes + (self.spool.log.stored_bytes if self.spool.records > 0 else 0)

    @property
    def oldest_ms(self) -> int | None:
        return self.topic.oldest_ms

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
        return self._oldest_spooled_ms if self.spool.records > 0 else None

    @property
    def left_out(self) -> int:
        """Records of other producers that name no topic."""
        return self._decoder.left_out

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
        for partition, (rows, keys) in self.by_partition(topics, range(len(topics)), run.client_id).items():
            self.sender.put(partition, Portion(run, rows, topics, keys, self._node_run))

    # hot path: tests/bench/kafka_records.py
    def by_partition(
        self, topics: Sequence[Topic], rows: Sequence[int], client_id: str
    ) -> dict[int, tuple[Sequence[int], list[bytes]]]:
        """Rows and their keys by partition."""
        place = self.placement.of
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
        line = self.lines.get(partition)
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
            self.retained.difference_update(copies)
            self.spool.moved([Copies(partition, base_offset, copies)], lambda: self._ready(line, entry))
        else:
            entry = Confirmed(base_offset, offset, runs)
        if line is not None:
            line.confirmed.append(entry)
            line.waits_for_own = False
            line.advance()
            self.tail.wake()
            self.tail.on_turn()
        self._progress.set()

    def _ready(self, line: Line | None, entry: Confirmed) -> None:
        entry.is_ready = True
        if line is not None:
            line.advance()
            self.tail.wake()
            self.tail.on_turn()
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
            self.tail.on_turn()
            self._progress.set()

        self.retained.difference_update(offsets)
        self.spool.forget(offsets, buried)
        self.on_change("dead_letter", {"stream": self.name, "records": batch.count, "reason": reason})

    async def locate(self, batch: Batch) -> int | None:
        partition = batch.lane.partition
        line = self.lines[partition]
        portion = batch.portions[0]
        identity = (portion.node_run, portion.number(portion.rows[0]))
        found = await self.readers.locate(self.kafka.topic, self.epoch, {partition: line.position}, {identity})
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
        end_offset = last.base_offset + len(last)
        self._newest_ms = last.received_at_ms
        for run in committed:
            run.base_offset = -1  # its place in the spool is none in the stream
        self._pending_bytes -= sum([run.ends[-1] - run.start for run in committed])
        self.on_committed(committed)
        if not self.gate.is_shut:
            self.show_spooled(shown, end_offset)
        self.tail.on_turn()
        self._progress.set()

    def show_spooled(self, runs: Sequence[RecordRun], end_offset: int) -> None:
        """Live readers are shown spooled records, up to an offset."""
        self.shown_spool = end_offset
        self.set_position()
        if runs:
            self.on_read(runs)

    def note_progress(self) -> None:
        """Something has changed that someone may wait for."""
        self._progress.set()

    def begin_spooling(self, why: str) -> None:
        """From here on records go to the spool, those first that Kafka has not confirmed."""
        was_direct = self.mode is Mode.DIRECT
        self.mode = Mode.SPOOLING
        self.state_text = why
        logger.warning("stream %s is spooled: %s", self.name, why)
        if was_direct:
            rows_by_run: dict[PublishRun, list[int]] = {}
            under_way = [portion for batch in self.sender.under_way() for portion in batch.portions]
            for portion in [*under_way, *self.sender.take_back()]:
                assert isinstance(portion.run, PublishRun)
                rows_by_run.setdefault(portion.run, []).extend(portion.rows)
            runs = sorted(rows_by_run, key=_first_number)
            size = sum(map(len, rows_by_run.values()))
            if self.topic.epoch != UNKNOWN:
                self.spool.stand(self.topic.standing())
            self.gate.shut()
            self.spool.begin_sending(
                self.spool.log.next_offset + size,
                {partition: line.position for partition, line in self.lines.items()},
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
                self.retained.update(portion.offsets)
            self.spool.log.flush()
        self.release_held()
        self.on_change("spool", {"stream": self.name, "state": "spooling", "reason": why})

    # What the cluster tells

    def kafka_lost(self, error: str) -> None:
        if self._is_closed:
            return
        if self.mode is Mode.STARTING or (self.mode is Mode.DIRECT):
            self.begin_spooling(error)

    def topic_seen(self, state: TopicState | None) -> None:
        if not self._is_closed:
            self.topic.seen(state)

    def go_on(self) -> None:
        """Kafka answers and the topic is there: go direct, or drain."""
        if self.mode is Mode.STARTING and self.spool.is_empty and not self.drain.must_recover and not self.gate.is_shut:
            self.go_direct()
        elif self.mode in (Mode.STARTING, Mode.SPOOLING) and not self.drain.is_running:
            if self.mode is Mode.STARTING:
                self.mode = Mode.SPOOLING
                self.release_held()
            self.drain.start()

    async def leave_epoch(self, why: str) -> None:
        """The topic is another one. What Kafka has not confirmed waits in the spool, and is looked for there first: a
        request names its topic, so the last ones may have found the new one."""
        if self.mode is Mode.DIRECT:
            self.begin_spooling(why)
        await self.drain.leave_epoch()
        await self.sender.forget()
        self.retained.clear()

    def release_held(self) -> None:
        """Records that have waited in memory go where records go by now."""
        held, self._held = self._held, []
        self._dispatch(held)

    def go_direct(self) -> None:
        """The spool is empty: records go to Kafka."""
        was = self.mode
        self.mode = Mode.DIRECT
        self.state_text = ""
        self.release_held()
        if was is not Mode.STARTING:
            logger.info("stream %s goes to Kafka directly again", self.name)
            self.on_change("spool", {"stream": self.name, "state": "empty"})

    async def wait_for_progress(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Until something has been confirmed and the condition holds; False after the time."""
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
        if self.lines.get(line.partition) is not line:
            return
        self.topic.offsets[line.partition] = position
        self.spool.passed(line.partition, position)
        self.set_position()
        if self.gate.is_shut:
            self.gate.look()
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
        if first_offset > self.topic.first.get(line.partition, 0):
            self.topic.first[line.partition] = first_offset
            self.spool.prune({line.partition: first_offset})

    def out_of_range(self, line: Line) -> None:
        """Retention has passed the line, or the topic is another one: look at it again."""
        self.topic.is_end_known = False
        self.cluster.check_now()

    def is_own(self, line: Line, producer_id: int) -> bool:
        return self.sender.is_own(line.partition, producer_id)

    def is_sending(self, line: Line) -> bool:
        return self.sender.is_under_way(line.partition)

    def set_position(self) -> None:
        """Where live readers stand has changed."""
        self._position = {**self.topic.offsets, SPOOL: self.shown_spool}

    # Times

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        settings = self.cluster.settings
        if self.mode is Mode.DIRECT and self.sender.oldest_wait_s() > settings.spool_after_s:
            self.begin_spooling(self.cluster.error or f"Kafka has confirmed nothing for {settings.spool_after_s:g} s")
            self.cluster.check_now()
        now = time.monotonic()
        if now - self._stood_at > STAND_S:
            self._stood_at = now
            standing = self.spool.standing
            if self.topic.is_end_known and dict(standing.offsets) != self.topic.offsets:
                self.spool.stand(self.topic.standing())
            self._drop_moved(now)
            if self.spool.records > 0 and (self._age_task is None or self._age_task.done()):
                self._age_task = asyncio.create_task(self._look_at_age())
        self._judge_limits()
        self.gate.look()

    async def _look_at_age(self) -> None:
        """Find the time of the oldest record in the spool."""
        self._oldest_spooled_ms = await self.spool.oldest_ms()

    def _drop_moved(self, now: float) -> None:
        """Let go of the bodies of what was moved a while ago and is behind the live side."""
        marks = self._drop_marks
        is_behind = self.gate.is_shut or any(self.spool.copies_by_partition.values())
        passed = 0 if is_behind else self.spool.moved_to
        if passed and (not marks or marks[-1][1] < passed):
            marks.append((now + KEEP_MOVED_S, passed))
        while marks and marks[0][0] <= now:
            self.spool.prune(self.topic.first)
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
                self.release_held()

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
        spool = self.spool
        start = spool.log.first_offset if self.spool.log.oldest_ms is not None else spool.next_offset
        if spool.records > 0 or start < spool.next_offset:
            found[SPOOL] = await spool.log.offset_at(time_ms)
        else:
            found[SPOOL] = self.shown_spool
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
        return [await self.readers.ask(self, request)]

    async def scan_stream(self, request: StreamScan) -> StreamScanResult:
        return await self.readers.scan(self, request)


def _first_number(run: PublishRun) -> int:
    return run.first_number
