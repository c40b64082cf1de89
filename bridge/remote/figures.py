"""Prometheus metrics of the connections to other brokers, read from plain counters when someone asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from bridge.egress.mqtt_sink import MqttSink
    from bridge.ingest.mqtt_source import MqttSource
    from bridge.node import Node

Family = type[CounterMetricFamily] | type[GaugeMetricFamily]

INGEST: tuple[tuple[Family, str, str, Callable[[MqttSource], float]], ...] = (
    (GaugeMetricFamily, "connected", "1 while there is a connection", lambda each: each.client.state == "connected"),
    (CounterMetricFamily, "connections", "Connections made", lambda each: each.client.connections),
    (CounterMetricFamily, "messages", "Messages taken, repeats left out", lambda each: each.inlet.received),
    (CounterMetricFamily, "received_bytes", "Their bytes", lambda each: each.bytes_received),
    (CounterMetricFamily, "repeated", "QoS 2 messages that were here already", lambda each: each.inlet.repeated),
    (GaugeMetricFamily, "unstored", "QoS 1 and 2 messages that wait to be stored", lambda each: each.inlet.unstored),
    (CounterMetricFamily, "pauses", "Times that reading was paused", lambda each: each.pauses),
    (CounterMetricFamily, "stalls", "Connections ended because a log failed too long", lambda each: each.stalls),
)


EGRESS: tuple[tuple[Family, str, str, Callable[[MqttSink], float]], ...] = (
    (GaugeMetricFamily, "connected", "1 while there is a connection", lambda each: each.client.state == "connected"),
    (CounterMetricFamily, "connections", "Connections made", lambda each: each.client.connections),
    (CounterMetricFamily, "messages", "Messages that the other broker has", lambda each: each.acknowledged),
    (GaugeMetricFamily, "in_flight", "Messages sent and not acknowledged", lambda each: each.in_flight),
    (GaugeMetricFamily, "behind", "Records of its streams behind its place", lambda each: each.behind or 0),
    (CounterMetricFamily, "gaps", "Times that records were gone before they were sent", lambda each: each.gaps),
    (CounterMetricFamily, "lost", "Those records, as far as they can be counted", lambda each: each.lost),
)


def remote_metrics(node: Node) -> Iterator[Metric]:
    """Nothing, where no other broker is configured."""
    if node.ingests:
        yield from _of("ingest", "Messages acknowledged and not taken, by reason", INGEST, node.ingests)
    if node.egresses:
        yield from _of("egress", "Messages not sent or not taken, by reason", EGRESS, node.egresses)


def _of(
    kind: str, drop_text: str, rows: Sequence[tuple[Family, str, str, Any]], each: Sequence[Any]
) -> Iterator[Metric]:
    for family, name, text, value in rows:
        metric = family(f"headrace_{kind}_{name}", text, labels=["name"])
        for one in each:
            metric.add_metric([one.name], float(value(one)))
        yield metric
    dropped = CounterMetricFamily(f"headrace_{kind}_dropped", drop_text, labels=["name", "reason"])
    for one in each:
        for reason, count in sorted(one.dropped.items()):
            dropped.add_metric([one.name, reason], count)
    yield dropped
