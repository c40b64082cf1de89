"""Counters of the broker. They are added to once a read or a run, never for each message, and read when asked for."""

from __future__ import annotations

from collections import Counter

from broker.limit_hits import LimitHits


class Metrics:
    """Plain numbers since the start."""

    __slots__ = (
        "answer_bytes_sent",
        "bytes_received",
        "bytes_sent",
        "connections_accepted",
        "connections_closed",
        "control_bytes_received",
        "dropped_messages",
        "limits",
        "messages_delivered",
        "messages_received",
        "messages_replayed",
        "packets_received",
        "queued_bytes",
        "queued_messages",
        "refused_publishes",
        "reliable_received",
        "sessions_expired",
    )

    def __init__(self) -> None:
        self.limits = LimitHits()
        """By the names of `BrokerConfig`."""
        self.connections_accepted = 0
        self.connections_closed: Counter[str] = Counter()
        """By `CloseReason`."""
        self.messages_received = 0
        self.messages_delivered = 0
        self.messages_replayed = 0
        """Those of them that came from what was stored."""
        self.packets_received = [0] * 16
        """By packet type; PUBLISH is in `messages_received`."""
        self.reliable_received = 0
        """Publishes of QoS 1 and 2, each of which is answered."""
        self.control_bytes_received = 0
        """Of packets other than PUBLISH."""
        self.answer_bytes_sent = 0
        """CONNACK, SUBACK and UNSUBACK; other answers have a fixed size."""
        self.queued_messages = 0
        """In the queues of all sessions, now."""
        self.queued_bytes = 0
        self.sessions_expired = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.dropped_messages: Counter[str] = Counter()
        """By reason: `outbox_full`, `connection_lost`, `queue_full`, `session_ended`, `packet_too_large`, `expired`, …

        `connection_lost` are QoS 0 that waited for a connection that broke; they were counted as delivered before.
        """
        self.refused_publishes: Counter[str] = Counter()
        """By reason: `reserved_topic`, `retained_full`, `log_stalled`, `hook`."""
