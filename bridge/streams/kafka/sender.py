"""Sender: records of one stream to its Kafka topic, idempotent, in order in each partition, each once.

A partition is a lane: a queue and at most one batch under way. All lanes with the same leader share a request, and one
request is under way to a node; what comes meanwhile makes the next batches. A batch is repeated with its producer id
and sequence number until Kafka answers for it, so Kafka stores it once (KIP-98). A batch that Kafka refuses does not
use up its sequence number, so the ones behind it are taken. When it may be for some of its records only, these make
smaller batches, down to one record: that is what Kafka does not take.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any, Protocol

from aiokafka.errors import for_code
from aiokafka.protocol.produce import ProduceRequest

from bridge.ending import end
from bridge.streams.kafka.batches import BatchBuilder, Heads
from bridge.streams.kafka.cluster import KafkaCluster, KafkaFailure
from bridge.streams.kafka.lanes import Batch, Lane, Portion
from bridge.streams.log import StreamLogError

logger = logging.getLogger("headrace.kafka")

SEQUENCE_END = 1 << 31
"""Sequence numbers begin again at 0 after this (Kafka's `DefaultRecordBatch.incrementSequence`)."""
BUILD_S = 0.002
"""Batches are built for so long before the loop goes on."""
TIMER_S = 0.001
"""Timers are no finer."""

_COMPRESSION = {None: 0, "none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
_REFUSALS = {10, 18, 29, 31, 32, 38, 43, 44, 76, 87}
"""Too large (10, 18), not authorised (29, 31), bad timestamp (32), policy (44), compression (76), invalid (87)."""
_TOO_LARGE = {10, 18}
_OF_SOME_RECORD = {32, 87}
"""One record may be why the whole batch is refused."""
_LOST_SEQUENCE = {45, 46, 47, 49, 59, 90}
"""Out of order (45), duplicate of long ago (46), producer epoch (47, 90), producer id unknown (49, 59)."""


class Receiver(Protocol):
    """Who has put the records."""

    def confirmed(self, partition: int, base_offset: int, batch: Batch) -> None:
        """Kafka has stored a batch, from `base_offset` on."""

    def refused(self, partition: int, batch: Batch, reason: str) -> None:
        """Kafka will never take these."""

    async def locate(self, batch: Batch) -> int | None:
        """The offset at which a batch stands in Kafka, None when it was not stored.

        Raises: KafkaError, OSError, TimeoutError, StreamLogError
        """


class Sender:
    """See the module's docstring."""

    def __init__(self, cluster: KafkaCluster, topic: str, receiver: Receiver) -> None:
        self.producer_id = -1
        self.unconfirmed = 0
        """Records put and not yet confirmed or refused."""
        self._producer_epoch = -1
        self._cluster = cluster
        self._settings = cluster.settings
        self._compression = _COMPRESSION[cluster.settings.compression]
        self._heads = Heads()
        self._topic = topic
        self._receiver = receiver
        self._leaders: Mapping[int, int] = {}
        self._lanes: dict[int, Lane] = {}
        self._ready: dict[Lane, None] = {}
        """Lanes with something to send or to build."""
        self._busy: set[int] = set()
        self._is_resting = False
        self._life = 0
        """How often all was forgotten."""
        self._wake = asyncio.Event()
        self._requests: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    # What the stream calls

    def start(self) -> None:
        """Begin to send; needs a running loop."""
        self._task = asyncio.create_task(self._run(), name=f"kafka-sender-{self._topic}")

    async def close(self) -> None:
        """Stop. What is not confirmed by now may be stored, or not."""
        await end([self._task])
        await end(self._requests)
        self._task = None

    def set_leaders(self, leaders: Mapping[int, int]) -> None:
        """The nodes that lead the partitions by now."""
        if leaders != self._leaders:
            self._leaders = leaders
            self._wake.set()

    def put(self, partition: int, portion: Portion) -> None:
        """Queue rows for a partition."""
        lane = self._lanes.get(partition)
        if lane is None:
            lane = self._lanes[partition] = Lane(partition)
        if not lane.waits_since:
            lane.waits_since = time.monotonic()
        lane.queue.append(portion)
        lane.queued += len(portion)
        self.unconfirmed += len(portion)
        self._ready[lane] = None
        self._wake.set()

    def take_back(self) -> list[Portion]:
        """Whatever is not in a finished batch, out of all queues; it is the caller's again."""
        portions: list[Portion] = []
        for lane in self._lanes.values():
            if lane.next_batch is not None:
                portions += lane.next_batch.portions
                lane.next_batch = None
            portions += lane.queue
            lane.queue.clear()
            lane.queued = 0
            if lane.under_way is None:
                lane.waits_since = 0.0
        self.unconfirmed -= sum(map(len, portions))
        return portions

    async def forget(self) -> None:
        """Let the last requests end, and forget whatever was put and is not confirmed then: it is the caller's."""
        self._is_resting = True
        try:
            while self._requests:
                await asyncio.wait(self._requests)
            self._life += 1
            self._lanes.clear()
            self._ready.clear()
            self.unconfirmed = 0
            self.producer_id = -1  # sequences begin anew
        finally:
            self._is_resting = False
            self._wake.set()

    def under_way(self) -> list[Batch]:
        """Batches that may be stored or not."""
        return [lane.under_way for lane in self._lanes.values() if lane.under_way is not None]

    def is_own(self, partition: int, producer_id: int) -> bool:
        """The batch under way to this partition is of this producer: it may be found in Kafka before it is confirmed.

        It keeps the id that it was made with when another one is taken.
        """
        lane = self._lanes.get(partition)
        return lane is not None and lane.under_way is not None and lane.under_way.producer_id == producer_id

    def is_under_way(self, partition: int) -> bool:
        """A batch of this partition was sent and is not confirmed."""
        lane = self._lanes.get(partition)
        return lane is not None and lane.under_way is not None

    def oldest_wait_s(self) -> float:
        """How long the oldest unconfirmed record has waited; 0.0 when there is none."""
        since = min([lane.waits_since for lane in self._lanes.values() if lane.waits_since], default=0.0)
        return time.monotonic() - since if since else 0.0

    # Sending

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._round()
            except Exception:  # as in `_request`: what waits is tried again
                logger.exception("sending to Kafka failed; it goes on")
                await asyncio.sleep(self._settings.retry_s)
                self._wake.set()

    async def _round(self) -> None:
        """Build what can be built, and send to each node that has no request under way."""
        if self._is_resting:
            return
        if self.producer_id < 0 and not await self._renew_producer():
            await asyncio.sleep(self._settings.retry_s)
            self._wake.set()
            return
        build_end = time.perf_counter() + BUILD_S
        by_node: dict[int, list[Lane]] = {}
        now = time.monotonic()
        next_try = inf
        life = self._life
        for lane in tuple(self._ready):
            if lane.under_way is not None:
                self._build(lane)  # the next one, while that is under way
                if lane.is_sending:
                    self._ready.pop(lane, None)
                    continue
            elif not self._build(lane):
                self._ready.pop(lane, None)
                continue
            node = self._leaders.get(lane.partition, -1)
            if node < 0 and lane.retry_at <= now:
                lane.retry_at = now + self._settings.retry_s
                self._cluster.check_now()
            if lane.retry_at > now:
                next_try = min(next_try, lane.retry_at)
            elif node not in self._busy:
                by_node.setdefault(node, []).append(lane)
            if time.perf_counter() > build_end:
                await asyncio.sleep(0)
                build_end = time.perf_counter() + BUILD_S
        if life != self._life:
            return  # all of this was forgotten meanwhile
        for node, lanes in by_node.items():
            self._send(node, lanes)
        if next_try < inf:
            # Timers may be early by a millisecond; then the next round sets another one.
            asyncio.get_running_loop().call_later(max(TIMER_S, next_try - now), self._wake.set)

    def _build(self, lane: Lane) -> bool:
        """Fill the lane's next batch; False when there is nothing to send."""
        settings = self._settings
        batch = lane.next_batch
        queue = lane.queue
        while queue:
            if batch is None:
                batch = lane.next_batch = self._new_batch(lane)
            portion = queue[0]
            taken = batch.add(portion, min(settings.batch_records_max, lane.records_max))
            lane.queued -= taken
            if taken == len(portion):
                queue.popleft()
                continue
            if taken:
                queue[0] = portion.split(taken)[1]
            break
        return batch is not None

    def _new_batch(self, lane: Lane) -> Batch:
        bytes_max = min(self._settings.batch_bytes_max, lane.bytes_max)
        return Batch(lane, BatchBuilder(self._heads, self._compression, bytes_max))

    def _send(self, node: int, lanes: list[Lane]) -> None:
        batches = []
        for lane in lanes:
            if lane.under_way is None:
                batch = lane.next_batch
                if batch is None:
                    continue
                lane.next_batch = None
                batch.finish(self.producer_id, self._producer_epoch, lane.sequence)
                lane.under_way = batch
            lane.is_sending = True
            self._ready.pop(lane, None)
            if lane.queue:
                self._ready[lane] = None
            batches.append(lane.under_way)
        if not batches:
            return
        self._busy.add(node)
        task = asyncio.create_task(self._request(node, batches), name="kafka-produce")
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)
        self._wake.set()

    async def _request(self, node: int, batches: list[Batch]) -> None:
        try:
            await self._ask(node, batches)
        except KafkaFailure as error:
            logger.debug("a request to Kafka's node %d failed: %r", node, error)
        except Exception:  # a bug of ours or of the library: it must not end the way of these partitions
            logger.exception("a request to Kafka failed; it is sent again")
        finally:
            self._busy.discard(node)
            self._wake.set()
            left = [batch for batch in batches if batch.lane.under_way is batch and batch.lane.is_sending]
            for batch in left:
                self._try_again(batch)
            if left:
                self._cluster.check_now()

    async def _ask(self, node: int, batches: list[Batch]) -> None:
        """One request, and what becomes of its batches; those of which nothing was said are still being sent."""
        parts = [(batch.lane.partition, batch.data) for batch in batches]
        timeout_ms = int(self._settings.request_timeout_s * 1000)
        answer = await self._cluster.send(node, ProduceRequest(None, -1, timeout_ms, [(self._topic, parts)]))
        batch_by_partition = {batch.lane.partition: batch for batch in batches}
        for _, partitions in answer.topics:
            for partition, error_code, base_offset, *rest in partitions:
                answered = batch_by_partition.pop(partition, None)
                if answered is not None:
                    await self._answered(answered, error_code, base_offset, rest)

    async def _answered(self, batch: Batch, error_code: int, base_offset: int, rest: Sequence[Any]) -> None:
        if error_code == 0 and base_offset >= 0:
            self._confirm(batch, base_offset)
        elif error_code in _TOO_LARGE and batch.count > 1:
            batch.lane.bytes_max = batch.size // 2
            self._queue_again(batch)
        elif error_code in _OF_SOME_RECORD and batch.count > 1:
            batch.lane.records_max = batch.count // 2
            self._queue_again(batch)
        elif error_code in _REFUSALS:
            self._refuse(batch, _reason(error_code, rest))
        elif error_code == 0 or error_code in _LOST_SEQUENCE:
            await self._resolve(batch, error_code)
        else:
            logger.debug("Kafka answers %s for partition %d", for_code(error_code).__name__, batch.lane.partition)
            self._try_again(batch)
            if getattr(for_code(error_code), "invalid_metadata", False):
                self._cluster.leaders_moved()
            else:
                self._cluster.check_now()

    def _try_again(self, batch: Batch) -> None:
        lane = batch.lane
        lane.is_sending = False
        lane.retry_at = time.monotonic() + self._settings.retry_s
        self._ready[lane] = None
        self._wake.set()

    def _confirm(self, batch: Batch, base_offset: int) -> None:
        lane = batch.lane
        if batch.producer_id == self.producer_id:
            lane.sequence = (batch.sequence + batch.count) % SEQUENCE_END
        lane.widen()
        self._leave(lane, batch)
        self._receiver.confirmed(lane.partition, base_offset, batch)

    def _leave(self, lane: Lane, batch: Batch) -> None:
        """The batch is no longer under way."""
        lane.under_way = None
        lane.is_sending = False
        self.unconfirmed -= batch.count
        lane.waits_since = 0.0 if lane.is_empty else time.monotonic()
        if not lane.is_empty:
            self._ready[lane] = None

    def _refuse(self, batch: Batch, reason: str) -> None:
        self._leave(batch.lane, batch)
        self._receiver.refused(batch.lane.partition, batch, reason)

    def _queue_again(self, batch: Batch) -> None:
        """Its records, and those built behind it, make new batches, of the bounds that the lane has by now."""
        lane = batch.lane
        lane.under_way = None
        lane.is_sending = False
        behind = lane.next_batch.portions if lane.next_batch is not None else []
        lane.next_batch = None
        portions = [*batch.portions, *behind]
        lane.queue.extendleft(reversed(portions))
        lane.queued += sum(map(len, portions))
        self._ready[lane] = None

    # Lost sequences

    async def _renew_producer(self) -> bool:
        try:
            self.producer_id, self._producer_epoch = await self._cluster.producer_id()
        except KafkaFailure as error:
            logger.debug("no producer id: %r", error)
            self._cluster.check_now()
            return False
        for lane in self._lanes.values():
            lane.sequence = 0
        return True

    async def _resolve(self, batch: Batch, error_code: int) -> None:
        """Kafka does not know the sequence: look whether the batch is stored, and go on as a new producer if not."""
        try:
            base_offset = await self._receiver.locate(batch)
        except (*KafkaFailure, StreamLogError) as error:
            logger.debug("whether a batch is stored could not be found out: %r", error)
            self._try_again(batch)
            return
        if base_offset is not None:
            self._confirm(batch, base_offset)
            return
        if error_code and batch.producer_id == self.producer_id:
            name = for_code(error_code).__name__
            logger.info("Kafka lost the sequence of partition %d (%s)", batch.lane.partition, name)
            self.producer_id = -1  # the next round asks for another; batches under way keep theirs
        self._queue_again(batch)


def _reason(error_code: int, rest: Sequence[Any]) -> str:
    """What Kafka says, with the words of its broker when it gives any."""
    error = for_code(error_code)
    message = rest[-1] if rest and isinstance(rest[-1], str) else error.description
    return f"{error.__name__}: {message}"
