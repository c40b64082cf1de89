"""Counters of the broker. They are added to once a read or a run, never for each message, and read when asked for."""

from __future__ import annotations

from collections import Counter


class Metrics:
    """Plain numbers since the start."""

    __slots__ = (
        "bytes_received",
        "bytes_sent",
        "connections_accepted",
        "connections_closed",
        "dropped_messages",
        "messages_delivered",
        "messages_received",
        "messages_replayed",
        "refused_publishes",
    )

    def __init__(self) -> None:
        self.connections_accepted = 0
        self.connections_closed: Counter[str] = Counter()
        """By `CloseReason`."""
        self.messages_received = 0
        self.messages_delivered = 0
        self.messages_replayed = 0
        """Those of them that came from what was stored."""
        self.bytes_received = 0
        self.bytes_sent = 0
        self.dropped_messages: Counter[str] = Counter()
        """By reason: `outbox_full`, `queue_full`, `packet_too_large`, `expired`, `log_stalled`."""
        self.refused_publishes: Counter[str] = Counter()
        """By reason: `reserved_topic`, `retained_full`, `log_stalled`."""
