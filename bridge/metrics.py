"""Prometheus metrics, read from plain counters when someone asks; nothing is updated for each message."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bridge import __version__
from bridge.limits import COUNTED
from bridge.remote.figures import remote_metrics
from broker.compiled import how_it_runs

if TYPE_CHECKING:
    from bridge.node import Node
    from bridge.streams.kafka.log import KafkaLog


class NodeCollector(Collector):
    """What a node counts."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        """Read every counter once."""
        node = self._node
        about = {"version": __version__, "node": node.node_run, "modules": how_it_runs()}
        yield _gauge("headrace_info", "Version and run of the node, and whether it runs compiled", 1, **about)
        yield _gauge("headrace_ready", "1 while the node takes and stores messages", int(node.is_ready))
        yield _gauge("headrace_uptime_seconds", "Since the start", time.time() - node.started_at_ms / 1000)
        yield from self._broker()
        yield from self._kept()
        yield from self._replays()
        yield from self._shared()
        yield from self._streams()
        yield from self._kafka()
        yield from self._live()
        yield from remote_metrics(self._node)
        yield from self._presence()

    def _broker(self) -> Iterator[Metric]:
        metrics = self._node.broker.metrics
        plain = (
            ("headrace_messages_received", "Publishes taken from clients", metrics.messages_received),
            ("headrace_messages_delivered", "Publishes sent to subscribers", metrics.messages_delivered),
            ("headrace_messages_replayed", "Those of them that came from streams", metrics.messages_replayed),
            ("headrace_received_bytes", "Bytes read from MQTT clients", metrics.bytes_received),
            ("headrace_sent_bytes", "Bytes written to MQTT clients", metrics.bytes_sent),
            ("headrace_connections_accepted", "MQTT connections", metrics.connections_accepted),
        )
        for name, text, value in plain:
            yield CounterMetricFamily(name, text, value=value)
        yield from self._present()
        yield _counter_by("headrace_connections_closed", "By reason", metrics.connections_closed)
        intake = self._node.intake
        dropped = {**metrics.dropped_messages, "log_failing": intake.dropped_qos0}
        yield _counter_by("headrace_dropped_messages", "Messages not delivered or not stored, by reason", dropped)
        yield _counter_by("headrace_refused_publishes", "Publishes not taken, by reason", metrics.refused_publishes)
        handshakes = {str(status): count for status, count in self._node.broker.refused_handshakes.items()}
        yield _counter_by("headrace_refused_handshakes", "WebSocket handshakes refused, by HTTP status", handshakes)
        yield CounterMetricFamily(
            "headrace_reading_pauses", "Connections not read from because a log could not follow", value=intake.pauses
        )

    def _present(self) -> Iterator[Metric]:
        """What there is of each thing, and how hard it is."""
        engine, delay = self._node.broker.engine, self._node.broker.loop_delay
        gauges = (
            ("headrace_connections", "MQTT connections now, unfinished ones included", len(engine.connections)),
            ("headrace_clients_connected", "Sessions with a connection", engine.clients_connected),
            ("headrace_sessions", "Sessions, connected or kept", len(engine.sessions)),
            ("headrace_subscriptions", "Subscriptions of all sessions", engine.router.subscriptions.count),
            ("headrace_retained_messages", "Retained messages", len(engine.retained)),
            ("headrace_retained_bytes", "What these take", engine.retained.bytes),
            ("headrace_queued_messages", "Messages in the queues of sessions", engine.metrics.queued_messages),
            ("headrace_queued_bytes", "What these take", engine.metrics.queued_bytes),
            ("headrace_loop_delay_seconds", "How late the event loop is", delay.now_s),
            ("headrace_loop_delay_seconds_max", "The same at its worst, since the start", delay.most_s),
        )
        for name, text, value in gauges:
            yield _gauge(name, text, value)
        hits = CounterMetricFamily("headrace_limit_hits", "How often a limit was reached, by its key", labels=["limit"])
        counts = self._node.limits.counts()
        for key in sorted(COUNTED):
            hits.add_metric([key], counts.get(key, 0))
        yield hits

    def _kept(self) -> Iterator[Metric]:
        engine = self._node.broker.engine
        yield CounterMetricFamily(
            "headrace_retained_expired", "Retained messages whose time was over", value=engine.retained.expired
        )
        if engine.owed is not None:
            yield CounterMetricFamily(
                "headrace_session_copies",
                "Messages copied for sessions: no log can be referred to",
                value=engine.owed.copies,
            )
            yield CounterMetricFamily(
                "headrace_retention_copies", "Messages copied before retention dropped them", value=engine.owed.copied
            )

    def _replays(self) -> Iterator[Metric]:
        source, replays = self._node.replays, self._node.broker.engine.replays
        if replays is not None:
            yield _gauge("headrace_replays", "Replay subscriptions, of kept sessions too", replays.count)
            yield CounterMetricFamily("headrace_replays_refused", "Those over a limit", value=replays.refused)
        yield CounterMetricFamily("headrace_replay_gaps", "Gaps told to replay subscribers", value=source.gaps)
        yield CounterMetricFamily(
            "headrace_replay_read_failures", "Times that history could not be read for them", value=source.read_failures
        )

    def _shared(self) -> Iterator[Metric]:
        shared = self._node.broker.engine.router.shared
        yield _gauge("headrace_shared_groups", "Shared subscriptions: share name and filter", len(shared.groups))
        yield _gauge("headrace_shared_members", "Sessions in them, kept ones too", shared.members)
        yield CounterMetricFamily("headrace_shared_refused", "Shared subscriptions over a limit", value=shared.refused)
        yield CounterMetricFamily(
            "headrace_shared_redelivered", "Messages of an ended session given to another", value=shared.redelivered
        )

    def _streams(self) -> Iterator[Metric]:
        pending = GaugeMetricFamily("headrace_log_pending_bytes", "Appended and not yet committed", labels=["stream"])
        stored = GaugeMetricFamily("headrace_log_stored_bytes", "Bytes of frames kept", labels=["stream"])
        kept = GaugeMetricFamily("headrace_log_records", "Records kept", labels=["stream"])
        committed = CounterMetricFamily(
            "headrace_log_offset", "One past the newest committed record, summed over partitions", labels=["stream"]
        )
        failing = GaugeMetricFamily("headrace_log_failing", "1 while nothing can be committed", labels=["stream"])
        for name, log in self._node.streams.items():
            pending.add_metric([name], log.pending_bytes)
            stored.add_metric([name], log.stored_bytes)
            kept.add_metric([name], log.records)
            committed.add_metric([name], sum(log.offsets.values()))
            failing.add_metric([name], int(log.failure is not None))
        yield from (pending, stored, kept, committed, failing)
        yield from self._commits()

    def _commits(self) -> Iterator[Metric]:
        names = ("stream", "quantile")
        seconds = GaugeMetricFamily("headrace_log_commit_seconds", "Of the latest commits", labels=names)
        commits = CounterMetricFamily("headrace_log_commits", "Groups of records committed", labels=["stream"])
        acknowledged = CounterMetricFamily("headrace_log_acknowledged", "Records that are safe", labels=["stream"])
        for name in self._node.streams:
            figures = self._node.figures.of(name)
            commits.add_metric([name], figures.commits)
            acknowledged.add_metric([name], figures.records_total)
            for share in (0.5, 0.99):
                value = figures.percentile_s(share)
                if value is not None:
                    seconds.add_metric([name, str(share)], value)
        yield from (seconds, commits, acknowledged)

    def _kafka(self) -> Iterator[Metric]:
        kafka = self._node.kafka
        if kafka is None:
            return
        yield _gauge("headrace_kafka_up", "1 while Kafka answers", int(kafka.cluster.is_up))
        yield CounterMetricFamily(
            "headrace_kafka_tail_stalls", "Times that reading from Kafka had stalled", value=kafka.tail.heals
        )
        gauges = (
            ("headrace_kafka_lag", "Records in Kafka that live readers have not been shown yet", "lag"),
            ("headrace_spool_records", "Records that wait outside Kafka", "spooled"),
            ("headrace_spool_bytes", "Bytes that the spool takes, moved records that are still kept included", "bytes"),
        )
        counters = (
            ("headrace_spooled_records", "Records that went to the spool", "spooled_total"),
            ("headrace_moved_records", "Records that moved from the spool to Kafka", "moved_total"),
            ("headrace_kafka_records", "Records that Kafka has confirmed", "stored_total"),
            ("headrace_dead_letters", "Records that Kafka refused", "dead_letters"),
            ("headrace_kafka_left_out", "Records of other producers that name no topic", "left_out"),
        )
        for family, found in (
            (GaugeMetricFamily, gauges),
            (CounterMetricFamily, counters),
        ):
            for name, text, what in found:
                metric = family(name, text, labels=["stream"])
                for log in kafka.logs:
                    metric.add_metric([log.name], kafka_count(log, what))
                yield metric

    def _live(self) -> Iterator[Metric]:
        hub, latest = self._node.hub, self._node.latest
        by_place: dict[str, int] = {}
        for reader in list(hub.readers):
            by_place[reader.place.value] = by_place.get(reader.place.value, 0) + 1
        readers = GaugeMetricFamily("headrace_live_readers", "SSE readers, by where they are", labels=["state"])
        for place, count in by_place.items():
            readers.add_metric([place], count)
        yield readers
        yield _gauge("headrace_live_polls", "Long polls that wait", hub.polls)
        yield CounterMetricFamily("headrace_live_events", "Events encoded, each once for all readers", value=hub.events)
        yield CounterMetricFamily("headrace_live_readers_behind", "How often a reader was too slow", value=hub.behind)
        yield CounterMetricFamily("headrace_live_readers_refused", "Readers over the limit", value=hub.refused)
        yield CounterMetricFamily("headrace_live_conflated", "Values replaced by newer ones", value=hub.conflated)
        yield CounterMetricFamily("headrace_live_dropped", "Events that slow readers were told of", value=hub.dropped)
        yield CounterMetricFamily("headrace_live_cut", "Readers closed for being too slow", value=hub.cut)
        yield _gauge("headrace_latest_topics", "Topics whose latest value is in memory", len(latest))
        yield _gauge("headrace_latest_bytes", "What these take", latest.bytes)
        yield CounterMetricFamily("headrace_latest_evicted", "Topics forgotten over the limit", value=latest.evicted)

    def _presence(self) -> Iterator[Metric]:
        presences, events = self._node.presences, self._node.events
        devices = GaugeMetricFamily("headrace_devices", "Clients known, by state", labels=["state"])
        for state, count in (
            ("online", presences.online),
            ("session", presences.with_session),
            ("gone", presences.gone),
        ):
            devices.add_metric([state], count)
        yield devices
        yield _gauge("headrace_presence_waiting", "Changes of presence that are still to be told", presences.waiting)
        plain = (
            ("headrace_presence_changes", "Changes of presence told", presences.changes),
            ("headrace_presence_not_stored", "Those of them not stored, the log being behind", presences.not_stored),
            ("headrace_presence_not_published", "Those of clients whose id is too long", presences.not_published),
            ("headrace_devices_forgotten", "Gone clients forgotten over the limit", presences.forgotten),
        )
        for name, text, value in plain:
            yield CounterMetricFamily(name, text, value=value)
        told = CounterMetricFamily("headrace_server_events", "Events on $server, by kind", labels=["kind"])
        left_out = CounterMetricFamily("headrace_server_events_left_out", "Those over the limit", labels=["kind"])
        for family, counts in ((told, events.told), (left_out, events.left_out)):
            for kind, count in sorted(counts.items()):
                family.add_metric([kind], count)
            yield family


def kafka_count(log: KafkaLog, what: str) -> float:
    """One figure of a Kafka stream by its name."""
    if what == "spooled":
        return max(0, log.spool.records)
    if what == "bytes":
        return log.spool.log.stored_bytes
    if what == "dead_letters":
        return log.spool.dead_letters
    return float(getattr(log.intake if what.endswith("_total") else log, what))


def registry_for(node: Node) -> CollectorRegistry:
    """A registry of this node's own, with the process's figures."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(node))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def _gauge(name: str, text: str, value: float, **labels: str) -> Metric:
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _counter_by(name: str, text: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=["reason"])
    for reason, count in sorted(counts.items()):
        family.add_metric([reason], count)
    return family
