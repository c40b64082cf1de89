"""StretchLoader: the stretches of a Kafka stream that a scan stands in, from what was kept or from Kafka.

For those who read on the next ones are fetched meanwhile, so that Kafka and this process work at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError

from bridge.history.stretches import Stretch, Stretches
from bridge.records import RecordRun
from bridge.streams.kafka.cluster import FetchedPart, TopicState, fetch
from bridge.streams.kafka.fetched import batches_of
from bridge.streams.kafka.readers import KafkaSource
from bridge.streams.kafka.records import Decoder
from bridge.streams.kafka.settings import KafkaSettings

FETCH_WAIT_MS = 100
FETCHES_MAX = 4
"""Answers that are asked for in one go: one holds eight partitions' megabytes, and the rest of them nothing."""
OFFSET_OUT_OF_RANGE = 1
FAR = 1 << 62


class StretchLoader:
    """See the module's docstring."""

    def __init__(
        self,
        settings: KafkaSettings,
        connected: Callable[[], Awaitable[AIOKafkaClient]],
        forget: Callable[[str], None],
    ) -> None:
        """`forget` is told of a Kafka topic that is not as it was: what is known of it has to be asked for again."""
        self._settings = settings
        self._connected = connected
        self._forget = forget
        self._stretches = Stretches(settings.cache_bytes_max)
        self._decoders: dict[tuple[str, str | None], Decoder] = {}
        self._coming: dict[tuple[str, int], asyncio.Task[None]] = {}
        """Fetches that nobody waits for yet, by epoch and partition."""
        self.fetched_ahead = 0
        """Stretches that were fetched before they were asked for."""

    def close(self) -> None:
        """Break off what nobody waits for."""
        for task in set(self._coming.values()):
            task.cancel()

    async def load(
        self, source: KafkaSource, state: TopicState, offsets: Mapping[int, int], *, reads_on: bool = False
    ) -> dict[int, Stretch | None]:
        """The stretch that holds each offset; None where there is nothing yet. `reads_on`: fetch the next ones too.

        Raises: what Kafka's calls raise.
        """
        found, missing = self._kept(source, offsets)
        coming = {self._coming[source.epoch, partition] for partition in missing if self._is_coming(source, partition)}
        if coming:
            await asyncio.wait(coming)
            found, missing = self._kept(source, offsets)
        for _ in range(FETCHES_MAX):
            if not missing:
                break
            left: dict[int, int] = {}
            for partition, part in (await self._fetch(source, state, missing)).items():
                stretch = found[partition] = await self._decode(source, partition, offsets[partition], part)
                if stretch is None and not part.data and part.end > offsets[partition] and not part.error_code:
                    left[partition] = offsets[partition]  # the others have filled the answer
            if len(left) == len(missing):
                break
            missing = left
        if reads_on:
            self._look_ahead(source, state, found)
        return found

    def _kept(
        self, source: KafkaSource, offsets: Mapping[int, int]
    ) -> tuple[dict[int, Stretch | None], dict[int, int]]:
        """What there is, and the offsets of which there is nothing."""
        found = {
            partition: self._stretches.find(source.epoch, partition, offset) for partition, offset in offsets.items()
        }
        return found, {partition: offsets[partition] for partition, stretch in found.items() if stretch is None}

    def _is_coming(self, source: KafkaSource, partition: int) -> bool:
        return (source.epoch, partition) in self._coming

    def _look_ahead(self, source: KafkaSource, state: TopicState, found: Mapping[int, Stretch | None]) -> None:
        """Begin to fetch what stands behind some stretches."""
        if 2 * len(found) * self._settings.fetch_partition_bytes_max > self._settings.cache_bytes_max:
            return  # it would push out what it stands behind
        wanted = {
            partition: stretch.end
            for partition, stretch in found.items()
            if stretch is not None
            and stretch.has_more
            and not self._is_coming(source, partition)
            and self._stretches.find(source.epoch, partition, stretch.end) is None
        }
        if not wanted:
            return
        task = asyncio.create_task(self._fetch_ahead(source, state, wanted), name="kafka-fetch-ahead")
        task.add_done_callback(_look_at)
        for partition in wanted:
            self._coming[source.epoch, partition] = task

    async def _fetch_ahead(self, source: KafkaSource, state: TopicState, offsets: Mapping[int, int]) -> None:
        try:
            for partition, part in (await self._fetch(source, state, offsets)).items():
                if await self._decode(source, partition, offsets[partition], part) is not None:
                    self.fetched_ahead += 1
        finally:
            for partition in offsets:
                del self._coming[source.epoch, partition]

    async def _fetch(
        self, source: KafkaSource, state: TopicState, offsets: Mapping[int, int]
    ) -> dict[int, FetchedPart]:
        by_node: dict[int, dict[int, int]] = {}
        for partition, offset in offsets.items():
            by_node.setdefault(state.leaders.get(partition, -1), {})[partition] = offset
        client = await self._connected()
        answers = await asyncio.gather(
            *[
                fetch(client, node, {source.topic: wanted}, self._settings, FETCH_WAIT_MS)
                for node, wanted in by_node.items()
            ]
        )
        return {partition: part for answer in answers for (_, partition), part in answer.items()}

    async def _decode(self, source: KafkaSource, partition: int, offset: int, part: FetchedPart) -> Stretch | None:
        """What was fetched from an offset on; kept for a while. Raises: KafkaConnectionError"""
        if part.error_code:
            self._forget(source.topic)
            if part.error_code == OFFSET_OUT_OF_RANGE:
                return None
            raise unreadable(partition, part.error_code)
        decoder = self._decoder(source)
        runs: list[RecordRun] = []
        base = end = offset
        for batch in batches_of(part.data, part.aborted):
            base = min(base, batch.base_offset)
            runs += decoder.runs(batch, partition, 0, FAR)
            end = batch.next_offset
            await asyncio.sleep(0)
        if end <= offset:
            return None
        stretch = Stretch(base, end, runs, has_more=part.end > end)
        self._stretches.add(source.epoch, partition, stretch)
        return stretch

    def _decoder(self, source: KafkaSource) -> Decoder:
        key = (source.topic, source.topic_template)
        decoder = self._decoders.get(key)
        if decoder is None:
            decoder = self._decoders[key] = Decoder(*key)
        return decoder


def unreadable(partition: int, error_code: int) -> KafkaConnectionError:
    """What is raised when Kafka does not give a partition's records."""
    return KafkaConnectionError(f"partition {partition} cannot be read now (error {error_code})")


def _look_at(task: asyncio.Future[None]) -> None:
    """What failed unasked concerns nobody: who needs it asks again, and is told."""
    if not task.cancelled():
        task.exception()
