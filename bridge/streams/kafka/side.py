"""KafkaSide: everything of a node that has to do with Kafka, opened and closed together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from bridge.ending import end
from bridge.records import RecordRun
from bridge.streams.kafka.cluster import KafkaCluster, KafkaUnreachable
from bridge.streams.kafka.log import KafkaLog
from bridge.streams.kafka.mode import Mode
from bridge.streams.kafka.readers import KafkaReaders
from bridge.streams.kafka.settings import KafkaSettings, KafkaTopicSettings
from bridge.streams.kafka.tail import Tail
from bridge.streams.log import StreamLogError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.streams.sqlite_store import SqliteStore

logger = logging.getLogger("headrace.kafka")

HEAL_S = 5.0
RETRY_S = 0.5
START_S = 5.0
"""How long a start waits for Kafka to say where its topics end; without an answer it goes on."""


class LiveSide(Protocol):
    """The hub, as far as Kafka's logs speak to it."""

    def read(self, log: Any, runs: Sequence[RecordRun]) -> None:
        """Records that were read back."""

    def moved(self, log: Any) -> None:
        """The position has changed without a record."""

    def cursors_of(self, log: Any) -> dict[tuple[str, ...], str]:
        """The position as cursors."""

    def begin_anew(
        self,
        log: Any,
        before: Mapping[tuple[str, ...], str],
        reason: Literal["epoch", "retention"] = "epoch",
        lost: int | None = None,
    ) -> None:
        """The log goes on elsewhere."""


class LatestSide(Protocol):
    """The latest values, as far as Kafka's logs complete them."""

    async def read_up(self, log: Any) -> None:
        """Read what came after what was saved. Raises: StreamLogError"""


class KafkaSide:
    """Cluster, tail, reader process and logs of one node."""

    def __init__(self, settings: KafkaSettings, store: SqliteStore) -> None:
        self.settings = settings
        self.cluster = KafkaCluster(settings)
        self.tail = Tail(self.cluster)
        self.readers = KafkaReaders(settings, store.path)
        self.logs: list[KafkaLog] = []
        self.on_change: Callable[[str, dict[str, Any]], None] = lambda _kind, _fields: None
        self._store = store
        self._timer: asyncio.TimerHandle | None = None
        self._reading_up: asyncio.Task[None] | None = None
        self.cluster.on_change = self._cluster_changed

    @property
    def on_turn(self) -> Callable[[], None]:
        """Called when acknowledgements and events are ready to be written."""
        return self.tail.on_turn

    @on_turn.setter
    def on_turn(self, callback: Callable[[], None]) -> None:
        self.tail.on_turn = callback

    def open_log(self, name: str, kafka: KafkaTopicSettings, *, acknowledges_on_receipt: bool) -> KafkaLog:
        """A stream's log; it begins to work with `open`."""
        log = KafkaLog(
            name,
            kafka,
            self.cluster,
            self.tail,
            self.readers,
            self._store,
            acknowledges_on_receipt=acknowledges_on_receipt,
        )
        self.logs.append(log)
        return log

    async def open(self, live: LiveSide, latest: LatestSide) -> None:
        """Begin to work.

        Raises: KafkaUnreachable, when Kafka is required and does not answer.
        """
        for log in self.logs:
            self._connect(log, live)
            log.open()
        self.cluster.start()
        if self.settings.required:
            await self.cluster.first_answer()
            if not self.cluster.is_up:
                raise KafkaUnreachable(f"{self.cluster.error}, and [kafka] required = true")
        deadline = time.monotonic() + START_S
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.cluster.first_answer(), START_S)
        while self.cluster.is_up and time.monotonic() < deadline:
            if all(log.mode is not Mode.STARTING for log in self.logs):
                break
            await asyncio.sleep(0.01)
        self._reading_up = asyncio.create_task(self._read_up(latest), name="kafka-latest")
        await asyncio.wait([self._reading_up], timeout=max(0.0, deadline - time.monotonic()))
        self._timer = asyncio.get_running_loop().call_later(HEAL_S, self._heal)

    async def _read_up(self, latest: LatestSide) -> None:
        """Complete the latest values of each stream as soon as its topic can be read."""
        waiting = list(self.logs)
        while waiting:
            for log in tuple(waiting):
                if log.topic.is_known:
                    try:
                        await latest.read_up(log)
                    except StreamLogError as error:
                        logger.debug("the latest values of %s are not complete yet: %s", log.name, error)
                        continue
                    waiting.remove(log)
            await asyncio.sleep(RETRY_S)

    def _heal(self) -> None:
        """A line that does not move although Kafka has more gets new connections."""
        self._timer = asyncio.get_running_loop().call_later(HEAL_S, self._heal)
        if self.tail.heal() and self.cluster.is_up:
            self.cluster.reconnect()

    def _connect(self, log: KafkaLog, live: LiveSide) -> None:
        before: dict[tuple[str, ...], str] = {}

        def remember() -> None:
            before.clear()
            before.update(live.cursors_of(log))

        log.on_read = lambda runs: live.read(log, runs)
        log.on_moved = lambda: live.moved(log)
        log.before_new_epoch = remember
        log.on_lost = lambda lost: live.begin_anew(log, before, "retention", lost)
        log.on_new_epoch = lambda: live.begin_anew(log, before)
        log.on_change = lambda kind, fields: self.on_change(kind, fields)

    def _cluster_changed(self, is_up: bool, error: str | None) -> None:
        if is_up:
            logger.info("Kafka at %s answers", ", ".join(self.settings.bootstrap_servers))
            self.on_change("kafka_up", {})
        else:
            names = ", ".join(log.name for log in self.logs)
            logger.warning(
                "%s. What stream %s takes is spooled to %s until it does", error, names, self._store.path.parent
            )
            self.on_change("kafka_down", {"reason": error})

    async def close(self) -> None:
        """Spool what Kafka has not confirmed, and let go of everything."""
        if self._timer is not None:
            self._timer.cancel()
        await end([self._reading_up])
        for log in self.logs:
            await log.close()
        await self.tail.close()
        await self.cluster.close()
        await self.readers.close()
