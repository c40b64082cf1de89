"""What live readers may cost: every bound of bridge/live in one place."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """Bounds of the live side; sizes in bytes, times in seconds."""

    connections_max: int = 51_000
    """HTTP connections, live readers included. Over it: 503 with Retry-After."""
    readers_max: int = 50_000
    """Over it: 503 with Retry-After."""
    filters_per_reader_max: int = 256
    query_bytes_max: int = 7 * 1024
    """Proxies refuse more (nginx: 8 KiB for the whole request line)."""
    waiting_bytes_max: int = 4 * MIB
    """What may wait for one reader in this process; over it the reader's `overflow` policy begins."""
    conflate_from_bytes: int = 256 * 1024
    """A `conflate` or `drop_oldest` reader wants what is new, not a long queue: its policy begins at this much."""
    feed_bytes_max: int = 256 * 1024
    """One piece of history, and how much of it waits in the transport before the next is read."""
    replay_piece_bytes_max: int = MIB
    """One piece of history for an MQTT replay: four times the other gives a quarter more messages a second."""
    chunk_bytes_max: int = 256 * 1024
    """A group's events are written out once so many have gathered, before the turn ends."""
    scan_records_max: int = 20_000
    scan_work_max: int = 1_000_000
    park_records_max: int = 20_000
    """A reader so near to the end keeps what is committed meanwhile, to join after its last scan."""
    park_bytes_max: int = 4 * MIB
    """Over it that reader forgets what it kept and reads it from the log instead."""
    feeders: int = 4
    """Readers whose history is read at the same time; the others wait their turn."""
    heartbeat_s: float = 15.0
    """A comment is sent at least so often."""
    retry_ms: int = 2_000
    """How long a browser waits before it connects again."""
    latest_topics_max: int = 200_000
    latest_bytes_max: int = 128 * MIB
    head_bytes_max: int = 64 * 1024
    """HTTP request line and headers; over it 431."""
    head_timeout_s: float = 10.0
    """For a whole request head."""
    body_bytes_max: int = 2 * MIB
    """HTTP request body; over it 413."""
    poll_wait_s_max: float = 60.0
    poll_events_max: int = 10_000
    records_max: int = 10_000
    """Records in one JSON page."""
