"""Node: one Headrace in this process, without its HTTP side: store, streams, live hub, intake and broker.

It opens them in this order and closes them in reverse, so that nothing is handed to a part that is not there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from bridge import __version__
from bridge.disk_room import failure_text
from bridge.egress.mqtt_sink import MqttSink
from bridge.figures import Figures
from bridge.history.export import Exports
from bridge.ingest.intake import Intake
from bridge.ingest.mqtt_source import INGEST_CLIENT_ID, MqttSource
from bridge.limits import Limits
from bridge.live.hub import Hub
from bridge.live.latest import LatestValues
from bridge.live.replays import LogReplays
from bridge.presence.newest import NewestPresences
from bridge.presence.server_events import SERVER_PREFIX, ClockWatch, LimitsHit, ServerEvents
from bridge.presence.store import SqliteDevices
from bridge.presence.watch import Presences
from bridge.stream_map import StreamMap
from bridge.streams.broker_store import BrokerStore
from bridge.streams.kafka.side import KafkaSide
from bridge.streams.log import clock_ms
from bridge.streams.memory_log import BYTES_MAX, MemoryLog
from bridge.streams.notes import Notes
from bridge.streams.sqlite_store import SqliteStore
from broker.presence import PRESENCE_PREFIX
from broker.server import Broker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Any

    from bridge.config import Config, StreamConfig
    from bridge.live.reader import Reader
    from bridge.streams.log import StreamLog
    from bridge.streams.readers import Readers
    from broker.codec.properties import Properties
    from broker.presence import ConnectionChange
    from broker.publish_run import PublishRun

log = logging.getLogger("headrace.store")

HTTP_CLIENT_ID = "$http"
"""The client id that records of HTTP publishes carry."""


class PublishRefused(Exception):
    """A publish that the streams could not take; `reason_code` is MQTT's."""

    def __init__(self, reason_code: int) -> None:
        super().__init__(f"the log cannot take the record now (0x{reason_code:02x})")
        self.reason_code = reason_code


@dataclass(frozen=True, slots=True)
class PublishOutcome:
    """What became of a publish."""

    delivered_to: int
    """Subscriptions of this node that it matches."""
    stream: str | None
    """None: no stream takes the topic."""
    partition: int | None
    offset: int | None
    """None when the stream acknowledges on receipt and the record has no place yet."""


class _Publisher:
    """The origin of one publish from inside: a future that the acknowledgement ends."""

    def __init__(self) -> None:
        self.stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def acknowledge(self, run: PublishRun) -> None:
        run.is_done = True
        if not self.stored.done():
            self.stored.set_result(None)

    def refuse(self, run: PublishRun, reason_code: int) -> None:
        if not self.stored.done():
            self.stored.set_exception(PublishRefused(reason_code))

    def pause_reading(self) -> None:
        """Nothing to pause: who publishes this way waits for each publish."""

    def resume_reading(self) -> None:
        """See `pause_reading`."""


class Node:
    """`async with Node(config) as node: …`

    Raises (on entry): what `SqliteStore.open` raises, and `OSError` when an address cannot be listened on.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.streams: dict[str, StreamLog] = {}
        """By name, in configured order."""
        self.node_run = "n0"
        self.is_ready = False
        self.started_at_ms = 0
        self.stream_map: StreamMap
        self.latest: LatestValues
        self.hub: Hub
        self.limits = Limits(config)
        self.exports = Exports(config.history.exports_max)
        self.figures: Figures
        self.intake: Intake
        self.replays: LogReplays
        self.broker: Broker
        self.events = ServerEvents(clock_ms, config.presence.server_events_max)
        """Tells on `$server/{kind}` what happens to this node."""
        self.events.limit_hits = self.limits.hits
        self.presences: Presences
        self.limits_hit = LimitsHit(self.events, self.limits.counts)
        self.kafka: KafkaSide | None = None
        self.ingests: list[MqttSource] = []
        self.egresses: list[MqttSink] = []
        self._remotes: list[MqttSource | MqttSink] = []
        self._store: SqliteStore | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._clock_watch: ClockWatch

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def _open(self) -> None:
        config = self.config
        self.started_at_ms = time.time_ns() // 1_000_000
        self._store = store = SqliteStore.open(config.data_dir, holds_rows=True)
        store.on_failure = self._on_store_failure
        store.on_recovered = self._on_store_recovered
        self.node_run = store.node_run
        if config.uses_kafka:
            self.kafka = KafkaSide(config.kafka_settings(), store)
        placed: list[tuple[StreamLog, Sequence[str]]] = []
        for stream in config.streams:
            stream_log = self._open_log(store, stream)
            self.streams[stream.name] = stream_log
            placed.append((stream_log, stream.topics))
        if self.kafka is not None:
            await self.kafka.readers.start()
        await store.readers.start()  # now, or the first who asks for history waits for a process to start
        self.stream_map = StreamMap(placed)
        live_limits = config.live_limits()
        self.latest = LatestValues(
            self.node_run, topics_max=live_limits.latest_topics_max, bytes_max=live_limits.latest_bytes_max
        )
        await self.latest.open(self.streams.values())
        self.hub = Hub(self.streams.values(), self.node_run, self.latest, live_limits)
        self.hub.on_cut = self._on_reader_cut
        self.hub.limit_hits = self.latest.limit_hits = self.limits.hits
        self.hub.open()
        self.figures = Figures(self.streams.values(), time.monotonic)
        broker_store = BrokerStore(store, self._on_committed)
        self.intake = Intake(
            self.stream_map.stream_for,
            list(self.streams.values()),
            store,
            config.intake_limits(),
            time.monotonic,
            self.figures,
            broker_store.when_durable,
        )
        self.intake.limit_hits = self.limits.hits
        self.replays = LogReplays(self.hub, self.streams_for, lambda: self.broker.turn.schedule())
        self.replays.open_feeders()
        self.presences = Presences(config.presence_limits(), clock_ms, SqliteDevices(store), self._on_refused)
        self.presences.limit_hits = self.limits.hits
        self.broker = Broker(config.broker_config(), self.intake, self.replays, broker_store, self.presences)
        self.limits.of_broker = self.broker.metrics.limits
        self.hub.is_late = lambda: self.broker.engine.is_late()
        self.intake.connect(self.hub, self._on_committed)
        if self.kafka is not None:
            self.kafka.on_turn = self.hub.flush
            self.kafka.on_change = self._on_kafka_change
            await self.kafka.open(self.hub, self.latest)
        loop = asyncio.get_running_loop()
        presence_log = self.stream_for(PRESENCE_PREFIX)
        self.presences.connect(
            self.broker,
            loop.call_soon,
            loop.call_later,
            lambda: presence_log.pending_bytes if presence_log is not None else 0,
        )
        if presence_log is not None and not presence_log.reads_back:  # what a log reads back, other nodes have told too
            self.presences.newest = self.latest.own = NewestPresences(
                self.presences.device_by_client_id, presence_log, self.node_run
            )
        self.presences.load(lambda client_id: self.broker.session(client_id) is not None)
        await self.broker.start()
        self.presences.tell_all()
        server_log = self.stream_for(SERVER_PREFIX)
        self.events.connect(self.broker, lambda: server_log is not None and server_log.failure is not None)
        self.events.tell("started", version=__version__, node=self.node_run)
        self._clock_watch = ClockWatch(clock_ms, time.monotonic)
        if self.kafka is not None:
            self.kafka.on_turn = self._on_committed
        self._tick = loop.call_later(1, self._on_tick)
        self._open_remotes(store)
        self.is_ready = True

    def _open_remotes(self, store: SqliteStore) -> None:
        """Begin to connect to other brokers; nobody waits for them."""
        config = self.config
        if not config.ingest_tables and not config.egress_tables:
            return
        notes, bytes_max = Notes(store), config.mqtt.packet_bytes_max
        for ingest in config.ingest_tables:
            client_id = ingest.client_id or f"headrace-{notes.own_id()}-in-{ingest.name}"
            self.ingests.append(
                MqttSource(ingest, client_id, self.broker, notes, mark=notes.own_id(), packet_bytes_max=bytes_max)
            )
        for egress in config.egress_tables:
            same = [each for each in config.ingest_tables if each.broker.is_same_broker(egress.broker)]
            self.egresses.append(
                MqttSink(
                    egress,
                    egress.client_id or f"headrace-{notes.own_id()}-out-{egress.name}",
                    self.replays,
                    self.streams_for(egress.topics),
                    notes,
                    now_ms=self.started_at_ms,
                    left_out_client_ids=frozenset(INGEST_CLIENT_ID + each.name for each in same),
                    mark=notes.own_id() if any(map(egress.reaches, same)) else None,
                    packet_bytes_max=bytes_max,
                )
            )
        self._remotes = [*self.ingests, *self.egresses]
        for each in self._remotes:
            each.start()

    def _open_log(self, store: SqliteStore, stream: StreamConfig) -> StreamLog:
        on_receipt = stream.ack == "received"
        if stream.kafka is not None:
            assert self.kafka is not None  # some stream is on Kafka
            return self.kafka.open_log(stream.name, stream.kafka, acknowledges_on_receipt=on_receipt)
        if stream.storage == "memory":
            return MemoryLog(
                stream.name,
                bytes_max=stream.retention.bytes or BYTES_MAX,
                age_ms_max=stream.retention.age_ms,
                node_run=self.node_run,
            )
        return store.open_log(
            stream.name,
            retention_age_ms=stream.retention.age_ms,
            retention_bytes=stream.retention.bytes,
            acknowledges_on_receipt=on_receipt,
        )

    async def _close(self) -> None:
        """Take nothing new, store what came, then let go. A part that fails does not keep the others from ending."""
        self.is_ready = False
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        async with AsyncExitStack() as parts:  # the last one first
            if self._store is not None:
                parts.push_async_callback(self._close_store, self._store)
            if hasattr(self, "latest"):
                parts.push_async_callback(self.latest.close)
            if hasattr(self, "hub"):
                parts.push_async_callback(self.hub.close)
            if self.kafka is not None:
                parts.push_async_callback(self.kafka.close)
            if hasattr(self, "replays"):
                parts.push_async_callback(self.replays.close)
            if hasattr(self, "broker") and hasattr(self.broker, "turn"):
                parts.push_async_callback(self._stop_broker)
            await asyncio.gather(*(each.close() for each in self._remotes))

    async def _stop_broker(self) -> None:
        self.events.tell("stopped", version=__version__, node=self.node_run)
        await self.broker.stop()
        self.presences.tell_all()
        self.broker.turn.run()

    async def _close_store(self, store: SqliteStore) -> None:
        self._store = None
        await store.close()

    # Turns

    def _on_committed(self) -> None:
        """Acknowledgements and events are ready: one write for each connection and reader."""
        self.hub.flush()
        self.broker.turn.schedule()

    def _on_tick(self) -> None:
        self._tick = asyncio.get_running_loop().call_later(1, self._on_tick)
        self.intake.tick()
        self.figures.tick()
        self.presences.tick()
        self.limits_hit.tick()
        jump_ms = self._clock_watch.jump_ms()
        if jump_ms:
            words = "on" if jump_ms > 0 else "back; until the old time is reached new records carry it"
            log.warning("the clock went %.1f s %s", abs(jump_ms) / 1000, words)
            self.events.tell("clock_jump", jump_ms=jump_ms)
        self.events.tick()

    def _on_refused(self, change: ConnectionChange) -> None:
        connection = change.connection
        self.events.tell(
            "connect_refused",
            reason=change.reason,
            client_id=change.client_id or None,
            username=connection.username if connection is not None else None,
            address=connection.peer if connection is not None else None,
            transport=connection.transport_kind if connection is not None else None,
        )

    def _on_reader_cut(self, reader: Reader) -> None:
        filters = list(reader.group.filters)
        self.events.tell("reader_cut", reason="overflow", subject=reader.subject, filters=filters, sent=reader.sent)

    def _on_kafka_change(self, kind: str, fields: dict[str, Any]) -> None:
        if kind == "dead_letter":
            self.events.tell("spool", state="dead_letter", **fields)
        else:
            self.events.tell(kind, **fields)

    def _on_store_failure(self, text: str) -> None:
        log.error(
            "%s Nothing is acknowledged that is not stored: QoS 1 and 2 publishers wait or get 0x97. "
            "Free space, or lower retention; this resumes by itself.",
            failure_text(self.config.data_dir, text),
        )
        self.events.tell("disk_full", state="failing", reason=text)

    def _on_store_recovered(self) -> None:
        log.info("records are stored again")
        self.events.tell("disk_full", state="recovered")
        self.intake.tick()

    # What the HTTP side asks for

    @property
    def store(self) -> SqliteStore:
        """The data directory's file."""
        assert self._store is not None, "the node is open"
        return self._store

    @property
    def readers(self) -> Readers:
        """The processes that read stored history."""
        return self.store.readers

    @property
    def failure(self) -> str | None:
        """Why nothing is stored at the moment; None when all is well."""
        return next((each.failure for each in self.streams.values() if each.failure is not None), None)

    def stream_for(self, topic_name: str) -> StreamLog | None:
        """The stream that takes a topic."""
        return self.stream_map.stream_for(topic_name)

    def streams_for(self, filters: Sequence[str]) -> list[StreamLog]:
        """The streams that can hold a topic which the filters match."""
        return self.stream_map.streams_for(filters)

    async def publish(
        self,
        topic_name: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> PublishOutcome:
        """Publish like a device; returns once the record is as safe as its stream promises.

        Raises:
            MqttError: the topic name is not valid.
            PublishRefused: the log could not take it for too long.
        """
        publisher = _Publisher()
        run, delivered_to = self.broker.publish(
            topic_name,
            payload,
            qos=qos,
            retain=retain,
            properties=properties,
            client_id=HTTP_CLIENT_ID,
            origin=publisher,
        )
        await publisher.stored
        stream: StreamLog | None = run.stream  # type: ignore[assignment]
        if stream is None:
            return PublishOutcome(delivered_to, None, None, None)
        is_placed = run.base_offset >= 0
        place = (run.partition, run.base_offset) if is_placed else (None if stream.reads_back else 0, None)
        return PublishOutcome(delivered_to, stream.name, *place)
