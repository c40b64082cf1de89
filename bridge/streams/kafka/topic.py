"""StreamTopic: a stream's topic as it is at the moment, and where the live side stands in it.

It creates the topic where that is allowed, begins another epoch when it is another one, takes partitions that were
added, tells how it differs from the configuration, and has the tail follow it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bridge.cursors import UNKNOWN, Offsets
from bridge.ending import end
from bridge.streams.kafka.cluster import EARLIEST, LATEST, KafkaFailure, TopicState
from bridge.streams.kafka.mode import Mode
from bridge.streams.kafka.spool import Standing
from bridge.streams.kafka.tail import Line

if TYPE_CHECKING:
    from bridge.streams.kafka.log import KafkaLog

logger = logging.getLogger("headrace.kafka")


MEASURE_S = 30.0
"""How often the topic's size is asked for."""


class StreamTopic:
    """Of one stream; see the module's docstring."""

    def __init__(self, log: KafkaLog, standing: Standing) -> None:
        self.epoch = standing.epoch
        self.contact_offsets: Offsets = standing.contact
        self.offsets: dict[int, int] = dict(standing.offsets)
        """Shown to live readers, by partition."""
        self.first: dict[int, int] = {}
        """Oldest that Kafka keeps, by partition; before that is known nothing is taken for gone."""
        self.oldest_ms: int | None = None
        self.stored_bytes = 0
        """On the disks of Kafka's leaders."""
        self.replication = 0
        self.mismatch: list[str] = []
        """How the topic differs from what the configuration says."""
        self.is_missing = False
        self.is_known = False
        """It was seen in this run."""
        self.is_end_known = False
        """What is known of its ends is true; else it is being looked at."""
        self._log = log
        self._leaders: Mapping[int, int] = {}
        self._is_creating = False
        self._task: asyncio.Task[None] | None = None
        self._measuring: asyncio.Task[None] | None = None
        self._measured_at = -MEASURE_S

    async def close(self) -> None:
        """Stop looking."""
        await end([self._task, self._measuring])

    def standing(self) -> Standing:
        """What is kept over a restart."""
        return Standing(self.epoch, dict(self.offsets), dict(self.contact_offsets))

    def seen(self, state: TopicState | None) -> None:
        """The topic as the cluster describes it; None: it does not exist."""
        self.is_missing = state is None or bool(state.refusal)
        if self.is_missing:
            self._stop_following()
        if state is None:
            self._topic_missing()
            return
        if state.refusal:
            self._hidden(state.refusal)
            return
        self.replication = state.replication
        epoch = f"k{state.topic_id}"
        if epoch == self.epoch and self.is_end_known and len(state.leaders) == len(self._log.lines):
            self._set_leaders(state)
        elif self._task is None or self._task.done():
            self._task = asyncio.create_task(self._begin_epoch(epoch, state), name=f"kafka-epoch-{self._log.name}")

    async def _create(self) -> None:
        try:
            problem = await self._log.cluster.create_topic(self._log.kafka)
        except KafkaFailure as error:
            problem = str(error) or type(error).__name__
        finally:
            self._is_creating = False
        if problem is None:
            logger.info("topic %s was created", self._log.kafka.topic)
            self._log.cluster.check_now()
        else:
            text = f"topic {self._log.kafka.topic} cannot be created: {problem}"
            if self._log.mode is Mode.STARTING:
                self._log.intake.begin_spooling(text)
            elif self._log.state_text != text:
                self._log.state_text = text
                logger.error("%s", text)

    async def _begin_epoch(self, epoch: str, state: TopicState) -> None:
        """Stand in a topic that is new to us, to this run, or has more partitions."""
        topic = self._log.kafka.topic
        if any(node < 0 for node in state.leaders.values()):
            self._log.cluster.check_now()
            return
        try:
            last = await self._log.cluster.ends(topic, state.leaders, LATEST)
            first = await self._log.cluster.ends(topic, state.leaders, EARLIEST)
        except KafkaFailure as error:
            logger.debug("the ends of %s could not be read: %r", topic, error)
            self._log.cluster.check_now()
            return
        is_another = self.epoch not in (UNKNOWN, epoch)
        self.first = {partition: offset for partition, (offset, _) in first.items()}
        if is_another:
            logger.warning("topic %s was created anew; its old records are gone", topic)
            await self._log.leave_epoch(f"topic {topic} was created anew")
            self._log.spool.forget_copies()
            offsets = dict(self.first)
            contact = dict(self.first)
        elif self.epoch == UNKNOWN:
            offsets = {partition: offset for partition, (offset, _) in last.items()}
            contact = dict(offsets)
        else:
            known = self.offsets
            offsets = {
                partition: min(max(known.get(partition, 0), self.first[partition]), max(end, known.get(partition, 0)))
                for partition, (end, _) in last.items()
            }
            contact = dict(self.contact_offsets)
        lost = 0
        if self.is_known and not is_another:
            lost = sum([max(0, offset - self.offsets.get(partition, 0)) for partition, offset in self.first.items()])
        if is_another or lost:
            self._log.before_new_epoch()
        self.epoch = epoch
        self.contact_offsets = contact
        self.offsets = offsets
        self._log.set_position()
        self.is_end_known = True
        self._log.spool.stand(Standing(epoch, dict(offsets), contact))
        self._log.intake.placement.set_partitions(len(state.leaders))
        for partition in self._log.lines.keys() - offsets.keys():
            self._log.tail.leave(self._log.lines.pop(partition))
        for partition in sorted(offsets):
            line = self._log.lines.get(partition)
            if line is None or is_another or line.position < offsets[partition]:
                if line is not None:
                    self._log.tail.leave(line)
                line = self._log.lines[partition] = Line(self._log, topic, partition, offsets[partition])
                line.begun_end = max(last[partition][0], offsets[partition])
            line.high_watermark = max(line.high_watermark, last[partition][0])
        if is_another:
            self._log.gate.forget_ends()
        self._log.gate.hold_lines()
        self._log.gate.look()
        self._set_leaders(state)
        self.is_known = True
        if is_another:
            self._log.on_new_epoch()
        elif lost:
            logger.warning("%d records of %s were dropped by Kafka's retention before they were read", lost, topic)
            self._log.on_lost(lost)
        else:
            self._log.on_moved()
        await self._look_at_configs(state)
        self._log.go_on()

    async def _look_at_configs(self, state: TopicState) -> None:
        """Say how the topic differs from the configuration; nothing of it is changed."""
        wanted = self._log.kafka
        mismatch = []
        if len(state.leaders) != wanted.partitions:
            mismatch.append(f"it has {len(state.leaders)} partitions, the configuration says {wanted.partitions}")
        if wanted.replication is not None and state.replication != wanted.replication:
            mismatch.append(f"its replication is {state.replication}, the configuration says {wanted.replication}")
        try:
            configs = await self._log.cluster.topic_configs(wanted.topic)
        except KafkaFailure as error:
            logger.debug("the configuration of %s could not be read: %r", wanted.topic, error)
            configs = {}
        for name, value in wanted.configs().items():
            if configs.get(name, value) != value:
                mismatch.append(f"its {name} is {configs[name]}, the configuration says {value}")
        retention = configs.get("retention.ms")
        age_ms = self._log.cluster.settings.spool_age_s_max * 1000
        if retention is not None and 0 <= int(retention) <= age_ms:
            mismatch.append(f"its retention.ms {retention} is not above the spool's age limit of {age_ms} ms")
        for text in mismatch:
            if text not in self.mismatch:
                logger.warning("topic %s differs: %s", wanted.topic, text)
        self.mismatch = mismatch

    async def _earliest(self, state: TopicState) -> int | None:
        try:
            found = await self._log.cluster.ends(self._log.kafka.topic, state.leaders, 0)
        except KafkaFailure as error:
            logger.debug("the oldest records of %s could not be found: %r", self._log.kafka.topic, error)
            return None
        return min([time_ms for offset, time_ms in found.values() if offset >= 0], default=None)

    def _stop_following(self) -> None:
        """Should there be another topic of this name soon, nobody may read it by the offsets of this one."""
        self.is_end_known = False
        for line in self._log.lines.values():
            self._log.tail.leave(line)

    def _hidden(self, refusal: str) -> None:
        text = f"Kafka does not show topic {self._log.kafka.topic} ({refusal})"
        if self._log.mode in (Mode.STARTING, Mode.DIRECT):
            self._log.intake.begin_spooling(text)
        elif self._log.state_text != text:
            self._log.state_text = text
            logger.error("%s", text)

    def _topic_missing(self) -> None:
        if self._log.mode is Mode.STARTING and not self._log.kafka.create:
            self._log.intake.begin_spooling(f"topic {self._log.kafka.topic} does not exist, and may not be created")
        elif self._log.mode is Mode.DIRECT:
            self._log.intake.begin_spooling(f"topic {self._log.kafka.topic} does not exist any more")
        if self._log.kafka.create and not self._is_creating:
            self._is_creating = True
            self._task = asyncio.create_task(self._create(), name=f"kafka-create-{self._log.name}")

    async def _measure(self, state: TopicState) -> None:
        """What the topic takes on Kafka's disks, and how old its oldest record is."""
        try:
            self.stored_bytes = await self._log.cluster.stored_bytes(self._log.kafka.topic, state.leaders)
        except (*KafkaFailure, NotImplementedError) as error:  # a broker too old, or not allowed to us
            logger.debug("the size of %s could not be read: %r", self._log.kafka.topic, error)
        earliest = await self._earliest(state)
        if earliest is not None:
            self.oldest_ms = earliest

    def _set_leaders(self, state: TopicState) -> None:
        self._leaders = state.leaders
        now = time.monotonic()
        if now - self._measured_at > MEASURE_S and (self._measuring is None or self._measuring.done()):
            self._measured_at = now
            self._measuring = asyncio.create_task(self._measure(state), name=f"kafka-size-{self._log.name}")
        self._log.intake.sender.set_leaders(state.leaders)
        self.follow()
        self._log.go_on()

    def follow(self) -> None:
        """Have the tail follow every partition, once it is known which records of a crash are copies."""
        if self._log.drain.must_recover:
            return
        for partition, line in self._log.lines.items():
            self._log.tail.follow(line, self._leaders.get(partition, -1))
