"""TopicSource: a stream's range from its topic on Kafka, asked without a server in between.

It has what Kafka has. What waits in the spool of a data directory is not part of it: where those records belong, and
which of them Kafka has taken already, is known to the server that drains them; how many they are is said.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterator
from typing import TypeVar

from bridge.cursors import Offsets, StreamPosition, distance
from bridge.history.kafka_reader import KafkaReader
from bridge.history.scan import Encoding, Scan, StreamScan, StreamScanResult
from bridge.replay.scanned import PIECE_BYTES, PIECE_RECORDS, ScannedSource
from bridge.replay.source import RETRY_PAUSE_S, RETRY_S, ReplayFailed, Wanted, check_epoch
from bridge.streams.kafka.cluster import LATEST, KafkaFailure, list_offsets, topic_states
from bridge.streams.kafka.readers import KafkaSource
from bridge.streams.kafka.settings import KafkaSettings, KafkaTopicSettings

T = TypeVar("T")

IDLE_S = 0.05
IDLE_S_MAX = 10.0
"""A leader that gives nothing below the end of its partition is asked again, and so long believed to come round."""


class TopicSource(ScannedSource):
    """See `bridge.replay.source.Source`."""

    def __init__(self, settings: KafkaSettings, topic: KafkaTopicSettings) -> None:
        super().__init__()
        self.position: StreamPosition
        self.end: Offsets = {}
        self.lost = 0
        self._settings = settings
        self._topic = topic
        self._wanted: Wanted
        self._source: KafkaSource
        self._first: Offsets = {}
        """The oldest records that Kafka kept when the range was looked up."""
        self._runner = asyncio.Runner()
        self._reader = KafkaReader(settings, None)
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what goes wrong is said once, and by us

    def begin(self, wanted: Wanted, position: StreamPosition | None) -> None:
        self._wanted = wanted
        try:
            self._run(self._find(wanted))
            if position is not None:
                check_epoch(wanted.stream, position, self._source.epoch)
                self._go_on(position)
        except KafkaFailure as error:
            raise self._away(error) from error

    async def _find(self, wanted: Wanted) -> None:
        """The range, as Kafka has it now. Raises: ReplayFailed, KafkaFailure"""
        client = await self._reader.connected()
        name = self._topic.topic
        state = (await topic_states(client, [name])).get(name)
        if state is None:
            raise ReplayFailed(f"stream {wanted.stream} is on topic {name}, which {self._servers} does not have.")
        if state.refusal:
            raise ReplayFailed(f"Kafka at {self._servers} does not show topic {name}: {state.refusal}.")
        epoch = f"k{state.topic_id}"
        self._source = KafkaSource(wanted.stream, name, epoch, "", 0, self._topic.topic_template, is_up=True)
        first = await self._reader.first_offsets(name, state)
        latest = await list_offsets(client, name, state.leaders, LATEST)
        ends = {partition: end for partition, (end, _) in latest.items()}
        start = first if wanted.from_ms is None else await self._reader.offsets_at(name, epoch, ends, wanted.from_ms)
        end = await self._reader.offsets_at(name, epoch, ends, wanted.to_ms)
        self._first = first
        self.end = {partition: max(start[partition], offset) for partition, offset in end.items()}
        self.position = StreamPosition(epoch, {partition: start[partition] for partition in end})

    def _go_on(self, position: StreamPosition) -> None:
        """From where an earlier run came to; a partition that was added since is read from its start."""
        earlier = position.offset_by_partition
        offsets = dict(self.position.offset_by_partition)
        for partition, start in offsets.items():
            at = earlier.get(partition, start)
            first = min(self._first.get(partition, 0), self.end[partition])
            self.lost += max(0, first - at)
            offsets[partition] = min(max(at, first), self.end[partition])
        self.position = StreamPosition(position.epoch, offsets)

    def _scan(self, encoding: Encoding) -> Iterator[StreamScanResult]:
        wanted, epoch = self._wanted, self._source.epoch
        what = Scan(
            wanted.stream,
            epoch,
            wanted.filters,
            0,
            0,
            encoding,
            # A producer may set what time it likes: a range of offsets is not yet one of times.
            from_ms=wanted.from_ms,
            until_ms=wanted.to_ms,
            records_max=PIECE_RECORDS,
            bytes_max=PIECE_BYTES,
        )
        moved_at = time.monotonic()
        while distance(at := self.position.offset_by_partition, self.end):
            result = self._read(StreamScan(what, at, self.end))
            if not result.is_epoch_current:
                raise ReplayFailed(f"topic {self._source.topic} was made anew while it was read. Begin again.")
            offsets = {
                partition: max(offset, result.next_offsets.get(partition, 0)) for partition, offset in at.items()
            }
            for partition, first in result.first_offsets.items():
                self.lost += max(0, min(first, self.end.get(partition, 0)) - at.get(partition, first))
            if offsets == at:
                if time.monotonic() - moved_at > IDLE_S_MAX:
                    raise ReplayFailed(f"Kafka at {self._servers} gives nothing more of topic {self._source.topic}.")
                time.sleep(IDLE_S)
                continue
            moved_at = time.monotonic()
            self.position = StreamPosition(epoch, offsets)
            yield result

    def _read(self, request: StreamScan) -> StreamScanResult:
        """Raises: ReplayFailed, when Kafka stays away."""
        given_up_at = time.monotonic() + RETRY_S
        while True:
            try:
                return self._run(self._reader.scan(self._source, request))
            except KafkaFailure as error:
                if time.monotonic() > given_up_at:
                    raise self._away(error) from error
            self._run(self._reader.forget_client())
            time.sleep(RETRY_PAUSE_S)

    def _run(self, work: Coroutine[None, None, T]) -> T:
        # Not `Runner.run`: it would take over Ctrl-C, which is kept for a place between two pieces.
        return self._runner.get_loop().run_until_complete(work)

    @property
    def _servers(self) -> str:
        return ", ".join(self._settings.bootstrap_servers)

    def _away(self, error: BaseException) -> ReplayFailed:
        return ReplayFailed(
            f"Kafka at {self._servers} does not answer ({str(error) or type(error).__name__}). "
            "Is it running? A server can be asked in its place: --url http://HOST:8000"
        )

    def close(self) -> None:
        self._run(self._reader.close())
        self._runner.close()
