"""Prometheus metrics of the connections to other brokers, read from plain counters when someone asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
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


def remote_metrics(node: Node) -> Iterator[Metric]:
    """Nothing, where no other broker is configured."""
    if not node.ingests:
        return
    for family, name, text, value in INGEST:
        metric = family(f"headrace_ingest_{name}", text, labels=["name"])
        for each in node.ingests:
            metric.add_metric([each.name], float(value(each)))
        yield metric
    dropped = CounterMetricFamily(
        "headrace_ingest_dropped", "Messages acknowledged and not taken, by reason", labels=["name", "reason"]
    )
    for each in node.ingests:
        for reason, count in sorted(each.dropped.items()):
            dropped.add_metric([each.name, reason], count)
    yield dropped
