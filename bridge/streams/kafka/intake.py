"""Intake: a stream's records from when they are taken until they are safe, in Kafka or on disk (ADR 10).

Where they go is what the log's `mode` says: to the sender, to the spool, or they wait in memory. Both tell it what is
safe, and it has devices acknowledged.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bridge.cursors import SPOOL, UNKNOWN
from bridge.records import RecordRun, Topic, as_record_run
from bridge.streams.frames import encode_record
from bridge.streams.kafka.keys import KeyTemplate, Placement
from bridge.streams.kafka.lanes import Batch, Portion
from bridge.streams.kafka.mode import Mode
from bridge.streams.kafka.pieces import pieces_of
from bridge.streams.kafka.records import part_of
from bridge.streams.kafka.sender import Sender
from bridge.streams.kafka.spool_tables import Copies
from bridge.streams.kafka.tail import Confirmed, Line
from broker.publish_run import PublishRun

if TYPE_CHECKING:
    from bridge.streams.kafka.log import KafkaLog
    from bridge.streams.sqlite_store import SqliteStore

logger = logging.getLogger("headrace.kafka")


class Intake:
    """Of one stream; see the module's docstring."""

    def __init__(self, log: KafkaLog, store: SqliteStore) -> None:
        self.placement = Placement(KeyTemplate(log.kafka.key))
        self.sender = Sender(log.cluster, log.kafka.topic, self)
        self.pending_bytes = 0
        """Of frames taken and not safe yet."""
        self.retained: set[int] = set()
        """Spooled records in batches that were under way when spooling began."""
        self.spooled_total = 0
        self.moved_total = 0
        self.stored_total = 0
        self._log = log
        self._spool = log.spool
        self._spool.log.on_committed = self._spooled
        self._store = store
        self._turn: list[PublishRun] = []
        self._held: list[PublishRun] = []
        self._open_rows: dict[PublishRun, int] = {}
        """Rows of each run that are neither in Kafka nor on disk."""
        self._parents: dict[PublishRun, PublishRun] = {}
        """Pieces of runs in the spool, and what they are of."""
        self.written_ms = max(log.spool.times[0], log.spool.log.newest_ms or 0)
        """The newest time of a record that was taken; of a run before this one too."""

    @property
    def is_empty(self) -> bool:
        """Everything taken is on its way to the spool, or safe."""
        return not (self.sender.unconfirmed or self._held or self._turn)

    # See `StreamLog`

    def append(self, run: PublishRun) -> None:
        if run.received_at_ms < self.written_ms:
            run.received_at_ms = self.written_ms
        else:
            self.written_ms = run.received_at_ms
        self.pending_bytes += run.ends[-1] - run.start
        self._turn.append(run)

    def flush(self) -> None:
        runs, self._turn = self._turn, []
        if runs:
            self._dispatch(runs)

    def _dispatch(self, runs: list[PublishRun]) -> None:
        if self._log.mode is Mode.DIRECT:
            for run in runs:
                self._put(run)
        elif self._log.mode in (Mode.SPOOLING, Mode.DRAINING) and self._log.upkeep.limit is None:
            for run in runs:
                self._spool.log.append(run)
            self._spool.log.flush()
        else:
            self._held += runs

    def withdraw(self, run: PublishRun) -> bool:
        for queue in (self._held, self._turn):
            if run in queue:
                queue.remove(run)
                break
        else:
            if run in self._open_rows or not self._spool.log.withdraw(run):
                return False
        self.pending_bytes -= run.ends[-1] - run.start
        return True

    def _put(self, run: PublishRun) -> None:
        """Queue a run's rows for their partitions."""
        topics: list[Topic] = [route.sink_topic for route in run.routes]  # type: ignore[misc]  # the bridge opened it
        self._open_rows[run] = len(topics)
        for partition, (rows, keys) in self.placement.by_partition(topics, range(len(topics)), run.client_id).items():
            self.sender.put(partition, Portion(run, rows, topics, keys, self._store.node_run))

    # What the sender tells

    def confirmed(self, partition: int, base_offset: int, batch: Batch) -> None:
        line = self._log.lines.get(partition)
        offset = base_offset
        runs: list[RecordRun] = []
        copies: list[int] = []
        committed: list[PublishRun] = []
        for portion in batch.portions:
            if portion.offsets is None:
                assert isinstance(portion.run, PublishRun)
                shown = part_of(portion.run, portion.rows, portion.topics, portion.node_run, partition, offset)
                runs.append(shown)
                self._log.newest_ms = shown.received_at_ms
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
            if self.retained:
                self.retained.difference_update(copies)
            self._spool.moved([Copies(partition, base_offset, copies)], lambda: self._ready(line, entry))
        else:
            entry = Confirmed(base_offset, offset, runs)
        if line is not None:
            line.confirmed.append(entry)
            line.waits_for_own = False
            line.advance()
            self._log.tail.wake()
            self._log.tail.on_turn()
        self._log.progress.note()

    def _ready(self, line: Line | None, entry: Confirmed) -> None:
        entry.is_ready = True
        if line is not None:
            line.advance()
            self._log.tail.wake()
            self._log.tail.on_turn()
        self._log.progress.note()

    def refused(self, partition: int, batch: Batch, reason: str) -> None:
        """Kafka will never take these: they become dead letters, and only then are acknowledged."""
        logger.error(
            "Kafka refuses records of stream %s: %s; they are kept as dead letters "
            "(headrace streams dead-letters %s)", self._log.name, reason, self._log.name,
        )  # fmt: skip
        offsets: list[int] = []
        rows: list[tuple[PublishRun, int]] = []
        for portion in batch.portions:
            run = part_of(portion.run, portion.rows, portion.topics, portion.node_run, partition, 0)
            self._spool.bury(run, [encode_record(run, row) for row in range(len(run))], partition, reason)
            if portion.offsets is not None:
                offsets += portion.offsets
            else:
                assert isinstance(portion.run, PublishRun)
                rows.append((portion.run, len(portion)))

        def buried() -> None:
            self._acknowledge([run for run, count in rows if self._rows_done(run, count)])
            self._log.tail.on_turn()
            self._log.progress.note()

        self.retained.difference_update(offsets)
        self._spool.forget(offsets, buried)
        self._log.on_change("dead_letter", {"stream": self._log.name, "records": batch.count, "reason": reason})

    async def locate(self, batch: Batch) -> int | None:
        partition = batch.lane.partition
        line = self._log.lines[partition]
        portion = batch.portions[0]
        identity = (portion.node_run, portion.number(portion.rows[0]))
        found = await self._log.readers.locate(
            self._log.kafka.topic, self._log.epoch, {partition: line.position}, {identity}
        )
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
        self.pending_bytes -= sum([run.ends[-1] - run.start for run in runs])
        keeping = [run for run in runs if run.keeps_packet_ids]
        if not keeping:
            self._log.on_committed(runs)
            return
        # QoS 2 of kept sessions: the packet ids are on disk before PUBREC.
        self._store.keep_ids(keeping, lambda: self._log.on_committed(runs))

    # What the spool tells

    def _spooled(self, runs: Sequence[PublishRun]) -> None:
        """Runs are on disk."""
        committed: list[PublishRun] = []
        shown: list[RecordRun] = []
        for run in runs:
            topics: list[Topic] = [route.sink_topic for route in run.routes]  # type: ignore[misc]
            record_run = as_record_run(run, topics, self._store.node_run)
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
        self._log.newest_ms = last.received_at_ms
        for run in committed:
            run.base_offset = -1  # its place in the spool is none in the stream
        self.pending_bytes -= sum([run.ends[-1] - run.start for run in committed])
        self._log.on_committed(committed)
        if not self._log.gate.is_shut:
            self._log.show_spooled(shown, end_offset)
        self._log.tail.on_turn()
        self._log.progress.note()

    # Changes of the way

    def begin_spooling(self, why: str) -> None:
        """From here on records go to the spool, those first that Kafka has not confirmed."""
        was_direct = self._log.mode is Mode.DIRECT
        self._log.mode = Mode.SPOOLING
        self._log.state_text = why
        logger.warning("stream %s is spooled: %s", self._log.name, why)
        if was_direct:
            rows_by_run: dict[PublishRun, list[int]] = {}
            under_way = [portion for batch in self.sender.under_way() for portion in batch.portions]
            for portion in [*under_way, *self.sender.take_back()]:
                assert isinstance(portion.run, PublishRun)
                rows_by_run.setdefault(portion.run, []).extend(portion.rows)
            runs = sorted(rows_by_run, key=_first_number)
            size = sum(map(len, rows_by_run.values()))
            if self._log.topic.epoch != UNKNOWN:
                self._spool.stand(self._log.topic.standing())
            self._log.gate.shut()
            self._spool.begin_sending(
                self._spool.log.next_offset + size,
                {partition: line.position for partition, line in self._log.lines.items()},
                lambda: None,
            )
            offset_by_row: dict[tuple[PublishRun, int], int] = {}
            for run in runs:
                for piece, first in pieces_of(run, sorted(rows_by_run[run])):
                    if piece is not run:
                        self._parents[piece] = run
                    self._spool.log.append(piece)
                    for row in range(len(piece)):
                        offset_by_row[run, first + row] = piece.base_offset + row
            for portion in under_way:
                assert isinstance(portion.run, PublishRun)
                portion.offsets = [offset_by_row[portion.run, row] for row in portion.rows]
                self.retained.update(portion.offsets)
            self._spool.log.flush()
        self.release_held()
        self._log.on_change("spool", {"stream": self._log.name, "state": "spooling", "reason": why})

    def release_held(self) -> None:
        """Records that have waited in memory go where records go by now."""
        held, self._held = self._held, []
        self._dispatch(held)

    def go_direct(self) -> None:
        """The spool is empty: records go to Kafka."""
        was = self._log.mode
        self._log.mode = Mode.DIRECT
        self._log.state_text = ""
        self.release_held()
        if was is not Mode.STARTING:
            logger.info("stream %s goes to Kafka directly again", self._log.name)
            self._log.on_change("spool", {"stream": self._log.name, "state": "empty"})


def _first_number(run: PublishRun) -> int:
    return run.first_number
