"""KafkaReaders: the event loop's end of the process that reads history from Kafka.

The other end is `bridge.history.kafka_reader_process`. Each request carries all that the process has to know, so one
that was started again needs no telling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bridge.history.scan import Answer, AnswerT, StreamQuestion, StreamScan, StreamScanResult
from bridge.streams.kafka.cluster import KafkaUnreachable
from bridge.streams.kafka.settings import KafkaSettings
from bridge.streams.readers import ReaderGone, ReaderProcess

if TYPE_CHECKING:
    from bridge.streams.kafka.log import KafkaLog

Identity = tuple[str, int]
"""Node run and number: an `mqtt.id`."""


@dataclass(frozen=True, slots=True)
class KafkaSource:
    """One stream, as the reader process has to know it."""

    stream: str
    topic: str
    epoch: str
    spool_epoch: str
    spool_table: int
    topic_template: str | None
    is_up: bool
    """Whether Kafka answered when it was last asked; else it is not waited for."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """In place of an answer: Kafka does not answer."""

    reason: str


class KafkaReaders:
    """One process for all Kafka streams of a node."""

    def __init__(self, settings: KafkaSettings, store_path: Path) -> None:
        self._settings = settings
        self._store_path = store_path
        self._process = ReaderProcess("bridge.history.kafka_reader_process", str(store_path))

    @property
    def pids(self) -> list[int]:
        """Of the process, while it runs."""
        return [self._process.pid] if self._process.pid is not None else []

    async def start(self) -> None:
        """Start it now rather than with the first request."""
        await self._process.start()

    async def scan(self, log: KafkaLog, request: StreamScan) -> StreamScanResult:
        """Raises: KafkaUnreachable, ReaderGone, ReadFailed"""
        result = await self._ask("scan", _source(log), request)
        assert isinstance(result, StreamScanResult)
        return result

    async def ask(self, log: KafkaLog, request: StreamQuestion[AnswerT]) -> AnswerT:
        """Raises: as `scan`."""
        result = await self._ask("ask", _source(log), request)
        assert isinstance(result, Answer)
        return cast("AnswerT", result)

    async def offsets_at(self, topic: str, epoch: str, ends: Mapping[int, int], time_ms: int) -> dict[int, int]:
        """By partition the first offset at or after a time, else its end. Raises: as `scan`."""
        result = await self._ask("offsets_at", topic, epoch, dict(ends), time_ms)
        assert isinstance(result, dict)
        return result

    async def locate(
        self, topic: str, epoch: str, start: Mapping[int, int], identities: set[Identity]
    ) -> dict[Identity, tuple[int, int]]:
        """Partition and offset of the records with these ids, of those from `start` on. Raises: as `scan`."""
        result = await self._ask("locate", topic, epoch, dict(start), identities)
        assert isinstance(result, dict)
        return result

    async def _ask(self, *question: object) -> object:
        for is_last_try in (False, True):
            try:
                result = await self._process.ask((self._settings, *question))
                break
            except ReaderGone:
                if is_last_try:
                    raise
        if isinstance(result, Unreachable):
            raise KafkaUnreachable(result.reason)
        return result

    async def close(self) -> None:
        """End the process."""
        await self._process.close()


def _source(log: KafkaLog) -> KafkaSource:
    return KafkaSource(
        log.name,
        log.kafka.topic,
        log.epoch,
        log.spool.epoch,
        log.spool.table_id,
        log.kafka.topic_template,
        log.cluster.is_up,
    )
