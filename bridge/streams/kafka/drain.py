"""Drain: the spool's records on their way to Kafka, in order for each key, each once (ADR 10).

It reads the spool from its head, no more than `drain_records_max`, or 32 MiB, ahead of what Kafka has confirmed. After
a crash it first finds the records that had reached Kafka already. When the rest is small, new records wait until it is
confirmed, and the stream goes direct again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bridge.ending import end
from bridge.records import RecordRun
from bridge.streams.kafka.cluster import KafkaFailure
from bridge.streams.kafka.lanes import Portion
from bridge.streams.kafka.mode import Mode
from bridge.streams.kafka.pieces import copies_of
from bridge.streams.log import StreamLogError

if TYPE_CHECKING:
    from bridge.streams.kafka.log import KafkaLog

logger = logging.getLogger("headrace.kafka")

CLOSE_RECORDS = 2_000
"""With so few records left in the spool, new ones wait for the way to be free."""
BYTES_MAX = 32 * 1024 * 1024
"""Of records on their way at a time, about."""
RECORDS_MIN = 100
LOOK_S = 0.25
"""How long one round waits for confirmations."""
SETTLE_S = 1.0
"""After a crash: for what the last run has sent and the broker has not taken from its socket yet."""


class Drain:
    """Of one stream; see the module's docstring."""

    def __init__(self, log: KafkaLog) -> None:
        self.must_recover = min(log.spool.sent_until, log.spool.next_offset) > log.spool.moved_to
        """Records may stand in Kafka that the table of copies does not know: nobody may be shown Kafka's until then."""
        self._is_new_epoch = False
        """What has moved is looked for too: it may have moved to the new topic, or have gone with the old one."""
        self._log = log
        self._read_until = log.spool.moved_to
        self._record_bytes = 1
        """Of the largest records of the piece that was read last, about."""
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin, or go on."""
        if not self.is_running:
            self._task = asyncio.create_task(self._run(), name=f"kafka-drain-{self._log.name}")

    async def close(self) -> None:
        """Stop where it stands."""
        await end([self._task])

    async def leave_epoch(self) -> None:
        """Stop, and begin as after a crash: what may be in the new topic is not known."""
        await self.close()
        if self._log.mode in (Mode.DRAINING, Mode.CLOSING):
            self._log.mode = Mode.SPOOLING
            self._log.intake.release_held()
        spool = self._log.spool
        self.must_recover = self._is_new_epoch = spool.log.first_offset < spool.next_offset

    async def _run(self) -> None:
        """Until the spool is empty, or Kafka is away again."""
        try:
            if self.must_recover:
                await self._recover()
            self._begin()
            self._log.mode = Mode.DRAINING
            waiting = self._log.spool.records
            self._log.on_change("spool", {"stream": self._log.name, "state": "draining", "records": waiting})
            while not await self._drain_some():
                pass
        except (*KafkaFailure, StreamLogError) as error:
            logger.debug("draining %s was interrupted: %r", self._log.name, error)
            self._log.mode = Mode.SPOOLING
            self._log.intake.release_held()
            await asyncio.sleep(self._log.cluster.settings.retry_s)
        except Exception:
            logger.exception("draining stream %s failed; it is tried again", self._log.name)
            self._log.mode = Mode.SPOOLING
            self._log.intake.release_held()
            await asyncio.sleep(1)

    def _begin(self) -> None:
        """Whatever an interrupted drain has queued is read again, but for the batches that are under way."""
        self._log.intake.sender.take_back()
        self._log.intake.retained = {
            offset
            for batch in self._log.intake.sender.under_way()
            for portion in batch.portions
            for offset in portion.offsets or ()
        }
        self._read_until = self._log.spool.moved_to

    async def _drain_some(self) -> bool:
        """One round; True when the spool is empty and records go to Kafka again."""
        spool, sender = self._log.spool, self._log.intake.sender
        limit = self._limit()
        position, end = self._read_until, spool.next_offset
        if position < end:
            if sender.unconfirmed > limit // 2:
                await self._log.progress.wait_for(lambda: sender.unconfirmed <= limit // 2, LOOK_S)
                return False
            end = min(end, position + limit // 2)
            if end > spool.sent_until:
                await self._may_send(end + limit)
            runs = await spool.read(position, end)
            if not runs:
                logger.error("spooled records %d to %d of %s are missing", position, end, self._log.name)
                self._read_until = end
                return False
            for run in runs:
                self._put_spooled(run, position, end)
            self._record_bytes = max(1, max([(run.ends[-1] - run.start) // len(run) for run in runs]))
            self._read_until = min(end, runs[-1].base_offset + len(runs[-1]))
            await asyncio.sleep(0)
            return False
        if self._log.mode is Mode.DRAINING:
            if spool.log.pending_bytes and spool.next_offset - position > CLOSE_RECORDS:
                return False
            if self._log.gate.is_shut:  # what goes direct would be shown before what is spooled
                await self._log.progress.wait_for(
                    lambda: not self._log.gate.is_shut or self._read_until < spool.next_offset, LOOK_S
                )
                return False
            self._log.mode = Mode.CLOSING
        is_over = await self._log.progress.wait_for(
            lambda: (spool.is_empty and not sender.unconfirmed) or self._read_until < spool.next_offset,
            self._log.cluster.settings.spool_after_s,
        )
        if spool.is_empty and not sender.unconfirmed:
            self._log.intake.retained.clear()
            self._log.intake.go_direct()
            return True
        if not is_over:  # Kafka has become slow, or is away: nobody waits for it
            self._log.mode = Mode.DRAINING
            self._log.intake.release_held()
            await self._log.progress.wait_for(lambda: not sender.unconfirmed, LOOK_S)
        return False

    def _limit(self) -> int:
        """How many records may be on their way, of the size that they had last."""
        most = self._log.cluster.settings.drain_records_max
        return max(RECORDS_MIN, min(most, BYTES_MAX // self._record_bytes))

    def _put_spooled(self, run: RecordRun, position: int, end: int) -> None:
        base = run.base_offset
        low, high = max(0, position - base), min(len(run), end - base)
        retained, spool = self._log.intake.retained, self._log.spool
        rows: Sequence[int] = range(low, high)
        if retained or base + low < spool.moved_end:
            rows = [row for row in rows if base + row not in retained and not spool.is_moved(base + row)]
        if not rows:
            return
        placement = self._log.intake.placement
        for partition, (chosen, keys) in placement.by_partition(run.topics, rows, run.client_id).items():
            offsets: Sequence[int] = (
                range(base + chosen.start, base + chosen.stop)
                if isinstance(chosen, range)
                else [base + row for row in chosen]
            )
            self._log.intake.sender.put(partition, Portion(run, chosen, run.topics, keys, run.node_run, offsets))

    async def _may_send(self, sent_until: int) -> None:
        done = asyncio.get_running_loop().create_future()
        self._log.spool.begin_sending(
            sent_until,
            {partition: line.position for partition, line in self._log.lines.items()}
            if self._log.spool.moved_to >= self._log.spool.sent_until
            else self._log.spool.search_from,
            lambda: None if done.done() else done.set_result(None),
        )
        await done

    async def _recover(self) -> None:
        """After a crash: find which of the records that may have been sent are in Kafka."""
        spool = self._log.spool
        await asyncio.sleep(SETTLE_S)
        wanted: dict[tuple[str, int], int] = {}
        position = spool.log.first_offset if self._is_new_epoch else spool.moved_to
        end = min(spool.sent_until, spool.next_offset)
        while position < end:
            runs = await spool.read(position, end)
            if not runs:
                break
            for run in runs:
                for row in range(len(run)):
                    offset = run.base_offset + row
                    if position <= offset < end and (self._is_new_epoch or not spool.is_moved(offset)):
                        wanted[run.node_run, run.number(row)] = offset
            position = runs[-1].base_offset + len(runs[-1])
        if wanted:
            start = {partition: spool.search_from.get(partition, 0) for partition in self._log.lines}
            found = await self._log.readers.locate(self._log.kafka.topic, self._log.topic.epoch, start, set(wanted))
            copies = copies_of({identity: (wanted[identity], *place) for identity, place in found.items()}.values())
            logger.info("stream %s: %d of %d records were in Kafka already", self._log.name, len(found), len(wanted))
            if copies:
                done = asyncio.get_running_loop().create_future()
                spool.moved(copies, lambda: None if done.done() else done.set_result(None))
                await done
        self.must_recover = self._is_new_epoch = False
        self._log.topic.follow()
