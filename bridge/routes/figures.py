"""What operators want to know of a stream: rates, times of commits, Kafka, spool, dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bridge.encoding import rfc3339
from bridge.streams.kafka.log import KafkaLog

if TYPE_CHECKING:
    from bridge.node import Node
    from bridge.streams.log import StreamLog


def operating_figures(node: Node, log: StreamLog) -> dict[str, Any]:
    """Beside the envelope of a stream; null where a storage has none."""
    figures = node.figures.of(log.name)
    found: dict[str, Any] = {
        "rate": round(figures.rate, 3),
        "bytes_rate": round(figures.bytes_rate, 1),
        "commit_ms": figures.commit_ms(),
        "failure": log.failure,
        "lag": None,
        "kafka": None,
        "spool": None,
        "dead_letters": None,
    }
    if isinstance(log, KafkaLog):
        found |= kafka_figures(node, log)
    return found


def kafka_figures(node: Node, log: KafkaLog) -> dict[str, Any]:
    """Of a stream on Kafka."""
    cluster, spool = log.cluster, log.spool
    letters = spool.newest_dead_letter_ms
    return {
        "lag": log.lag,
        "kafka": {
            "topic": log.kafka.topic,
            "state": "down" if not cluster.is_up else log.topic_state,
            "since": rfc3339(cluster.since_ms),
            "error": cluster.error or log.state_text or None,
            "brokers": cluster.brokers,
            "partitions": log.partitions,
            "replication": log.topic.replication,
            "mismatch": log.topic.mismatch,
            "left_out": log.left_out,
        },
        "spool": spool_figures(node, log),
        "dead_letters": {"records": spool.dead_letters, "newest": rfc3339(letters) if letters is not None else None},
    }


def spool_figures(node: Node, log: KafkaLog) -> dict[str, Any]:
    """What waits outside Kafka, and how long there is room for it."""
    spool, most = log.spool, log.cluster.settings.spool_bytes_max
    size = spool.log.stored_bytes if spool.records > 0 else 0
    bytes_rate = node.figures.of(log.name).bytes_rate
    is_filling = log.spool_state == "spooling" and bytes_rate > 0
    oldest_ms = log.oldest_spooled_ms
    return {
        "epoch": spool.epoch,
        "state": log.spool_state,
        "records": max(0, spool.records),
        "bytes": size,
        "bytes_max": most,
        "oldest": rfc3339(oldest_ms) if oldest_ms is not None else None,
        "rate": round(node.figures.of(log.name).rate, 3) if log.spool_state == "spooling" else 0.0,
        "full_in_s": round(max(0, most - size) / bytes_rate) if is_filling else None,
    }


def kafka_state(node: Node) -> dict[str, Any] | None:
    """The cluster; None when no stream is on Kafka."""
    if node.kafka is None:
        return None
    cluster = node.kafka.cluster
    return {
        "state": "up" if cluster.is_up else "down" if cluster.error else "starting",
        "since": rfc3339(cluster.since_ms),
        "bootstrap_servers": list(cluster.settings.bootstrap_servers),
        "brokers": cluster.brokers,
        "error": cluster.error,
    }


def spool_state(node: Node) -> dict[str, Any] | None:
    """The spools of all streams together; None when no stream is on Kafka."""
    if node.kafka is None:
        return None
    logs = node.kafka.logs
    states = {log.spool_state for log in logs}
    waiting = [log for log in logs if log.spool.records > 0]
    return {
        "records": sum(max(0, log.spool.records) for log in logs),
        "bytes": sum(log.spool.log.stored_bytes for log in waiting),
        "bytes_max": node.kafka.settings.spool_bytes_max * len(logs),
        "state": next((state for state in ("spooling", "draining") if state in states), "empty"),
    }
