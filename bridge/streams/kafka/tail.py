"""Tail: the node's one consumer. It follows every partition of every Kafka stream, for the live side.

There is no consumer group: a node needs all of it. Batches that this node has produced are not decoded: what they hold
is known since Kafka has confirmed their offsets (`Line.confirmed`), and until then a batch of our own producer id waits
for that. What a fetch says of the partition's ends is passed on, so that retention, a new epoch and a reader that has
stalled are seen.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiokafka.errors import CorruptRecordException

from bridge.ending import end
from bridge.records import RecordRun
from bridge.streams.kafka.cluster import FetchedPart, KafkaCluster, KafkaFailure
from bridge.streams.kafka.fetched import Batch, batches_of

logger = logging.getLogger("headrace.kafka")

OFFSET_OUT_OF_RANGE = 1
SLICE_S = 0.002
"""Records are decoded for so long before the loop goes on."""
IDLE_S = 0.25
STALL_S = 10.0
"""A line that is behind Kafka's end and has not moved for so long gets new connections."""
OWN_WAIT_S = 0.5
"""While a batch of ours is under way its partition is not fetched, but at most for so long."""


@dataclass(slots=True)
class Confirmed:
    """A batch of this node, as Kafka stored it."""

    base: int
    end: int
    runs: Sequence[RecordRun]
    """What to show; empty when the records were shown from the spool."""
    is_ready: bool = True
    """False while what has to be on disk first is not."""


class LineOwner(Protocol):
    """The stream that a line belongs to."""

    def read(self, line: Line, runs: Sequence[RecordRun], position: int) -> None:
        """Records in order, after which the line stands at `position`."""

    def decode(self, line: Line, batch: Batch, high: int) -> list[RecordRun]:
        """The records of a batch from the line's position on, below `high`."""

    def copies_end(self, line: Line, position: int) -> tuple[int, int]:
        """(first, end) of the next stretch of copies at or behind a position; both far away when there is none."""

    def ends_seen(self, line: Line, first_offset: int, high_watermark: int) -> None:
        """What a fetch said of the partition."""

    def out_of_range(self, line: Line) -> None:
        """Kafka does not have the line's position."""

    def is_own(self, line: Line, producer_id: int) -> bool:
        """A batch of this producer is ours and is not confirmed yet."""

    def is_sending(self, line: Line) -> bool:
        """A batch of ours is under way to the partition."""


class Line:
    """One partition, followed."""

    __slots__ = (
        "begun_end",
        "confirmed",
        "high_watermark",
        "limit",
        "moved_at",
        "needs_fetch",
        "own_since",
        "owner",
        "partition",
        "position",
        "topic",
        "waits_for_own",
    )

    def __init__(self, owner: LineOwner, topic: str, partition: int, position: int) -> None:
        self.owner = owner
        self.topic = topic
        self.partition = partition
        self.position = position
        """One past the last record that was given to the live side."""
        self.confirmed: deque[Confirmed] = deque()
        """Batches of this node at or behind the position, in order."""
        self.high_watermark = position
        """Kafka's, as far as no transaction is open."""
        self.begun_end = position
        """Kafka's end when the line was made."""
        self.limit: int | None = None
        """Where it has to wait until it is told to go on."""
        self.moved_at = time.monotonic()
        self.waits_for_own = False
        """A fetch came upon a batch of ours before its confirmation did."""
        self.needs_fetch = False
        """Records of others stand before the first confirmed batch."""
        self.own_since = 0.0

    def advance(self) -> None:
        """Show what was confirmed and stands next."""
        confirmed = self.confirmed
        while confirmed and confirmed[0].base <= self.position:
            first = confirmed[0]
            if first.end <= self.position:
                confirmed.popleft()
                continue
            if not first.is_ready or self.is_held:
                return
            confirmed.popleft()
            self._move(first.runs, first.end)
        self.needs_fetch = bool(confirmed)

    @property
    def known_end(self) -> int:
        """Up to here Kafka has records that are known of."""
        confirmed_end = self.confirmed[-1].end if self.confirmed else 0
        return max(self.position, self.begun_end, confirmed_end)

    @property
    def is_held(self) -> bool:
        """It has come to its limit."""
        return self.limit is not None and self.position >= self.limit

    @property
    def waits_for_disk(self) -> bool:
        """What stands next may be passed once it is on disk that it is a copy."""
        return bool(self.confirmed) and self.confirmed[0].base <= self.position and not self.confirmed[0].is_ready

    def _move(self, runs: Sequence[RecordRun], position: int) -> None:
        self.position = position
        self.high_watermark = max(self.high_watermark, position)
        self.moved_at = time.monotonic()
        self.owner.read(self, runs, position)

    def take(self, batch: Batch) -> bool:
        """One fetched batch; False when the rest of the fetch cannot be used now."""
        self.advance()
        if batch.next_offset <= self.position:
            return True
        if self.owner.is_own(self, batch.producer_id):
            self.waits_for_own = True
            return False
        # Up to what is known already: a confirmed batch, or copies of what was shown from the spool.
        while self.position < batch.next_offset:
            if self.is_held:
                return False
            if self.confirmed and self.confirmed[0].base <= self.position:
                return False  # it waits for the disk
            stop = batch.next_offset if self.limit is None else min(batch.next_offset, self.limit)
            first, end = self.owner.copies_end(self, self.position)
            if first <= self.position:
                self._move((), min(end, stop))
                continue
            high = min(stop, first)
            if self.confirmed:
                high = min(high, self.confirmed[0].base)
            self._move(self.owner.decode(self, batch, high), high)
            self.advance()
        return True


class Tail:
    """See the module's docstring."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self.on_turn: Callable[[], None] = lambda: None
        """Called after each round of what was read: events may be written."""
        self.heals = 0
        """How often a line had stalled."""
        self._cluster = cluster
        self._lines: dict[Line, int] = {}
        """The node that leads each; -1: nobody at the moment."""
        self._loops: dict[int, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()

    def follow(self, line: Line, node: int) -> None:
        """Follow a partition, or follow it at another node from now on."""
        if self._lines.get(line) == node:
            return
        self._lines[line] = node
        if node >= 0 and node not in self._loops:
            self._loops[node] = asyncio.create_task(self._run(node), name=f"kafka-tail-{node}")
        self._wake.set()

    def leave(self, line: Line) -> None:
        """Follow a partition no more."""
        self._lines.pop(line, None)

    def wake(self) -> None:
        """Something can be fetched again."""
        self._wake.set()

    async def close(self) -> None:
        """Stop."""
        loops, self._loops = self._loops, {}
        await end(loops.values())
        self._lines.clear()

    def heal(self) -> bool:
        """Whether a line is behind Kafka's end and does not move though it could; it is given new time to."""
        now = time.monotonic()
        for line in self._lines:
            if line.position >= line.high_watermark or line.waits_for_disk or line.is_held or not self._cluster.is_up:
                line.moved_at = now
        stalled = [line for line in self._lines if now - line.moved_at > STALL_S]
        for line in stalled:
            logger.warning("reading %s/%d had stalled at %d", line.topic, line.partition, line.position)
            line.moved_at = now
            line.waits_for_own = False
        self.heals += len(stalled)
        return bool(stalled)

    async def _run(self, node: int) -> None:
        while True:
            lines = {
                (line.topic, line.partition): line
                for line, leader in self._lines.items()
                if leader == node and self._is_fetchable(line)
            }
            if not lines or not self._cluster.is_up:
                self._wake.clear()
                try:
                    await asyncio.wait_for(self._wake.wait(), IDLE_S)
                except TimeoutError:
                    if not any(leader == node for leader in self._lines.values()):
                        self._loops.pop(node, None)
                        return
                continue
            try:
                await self._fetch(node, lines)
            except KafkaFailure as error:
                logger.debug("a fetch from node %d failed: %r", node, error)
                self._cluster.check_now()
                await asyncio.sleep(self._cluster.settings.retry_s)
            except Exception:
                logger.exception("reading from Kafka failed; it goes on")
                await asyncio.sleep(1)

    def _is_fetchable(self, line: Line) -> bool:
        """Own batches under way will be known without a fetch."""
        if line.waits_for_disk or line.is_held:
            return False
        if line.needs_fetch and not line.waits_for_own:
            return True
        if not line.waits_for_own and not line.owner.is_sending(line):
            line.own_since = 0.0
            return True
        now = time.monotonic()
        line.own_since = line.own_since or now
        if now - line.own_since > OWN_WAIT_S:
            line.own_since = 0.0
            line.waits_for_own = False
            return True
        return False

    async def _fetch(self, node: int, lines: dict[tuple[str, int], Line]) -> None:
        topics: dict[str, dict[int, int]] = {}
        for (topic, partition), line in lines.items():
            topics.setdefault(topic, {})[partition] = line.position
        parts = await self._cluster.fetch(node, topics)
        is_lost = False
        slice_end = time.perf_counter() + SLICE_S
        for place, part in parts.items():
            line = lines[place]
            if self._lines.get(line) != node:
                continue  # it has moved, or is followed no more
            if part.error_code:
                is_lost = True
                if part.error_code == OFFSET_OUT_OF_RANGE:
                    line.owner.out_of_range(line)
                continue
            slice_end = await self._take(node, line, part, slice_end)
        self.on_turn()
        if is_lost:
            self._cluster.leaders_moved()
            await asyncio.sleep(self._cluster.settings.retry_s)

    async def _take(self, node: int, line: Line, part: FetchedPart, slice_end: float) -> float:
        # It never falls: a new leader does not know at once how far the old one was.
        line.high_watermark = max(line.high_watermark, part.end)
        line.owner.ends_seen(line, part.first_offset, part.end)
        try:
            for batch in batches_of(part.data, part.aborted):
                if self._lines.get(line) != node or not line.take(batch):
                    break
                if time.perf_counter() > slice_end:
                    self.on_turn()
                    await asyncio.sleep(0)
                    slice_end = time.perf_counter() + SLICE_S
        except CorruptRecordException as error:
            logger.error("%s/%d: a record of Kafka is damaged: %s", line.topic, line.partition, error)
            await asyncio.sleep(self._cluster.settings.retry_s)
        return slice_end
