"""Frozen settings of the broker: addresses and limits. The bridge makes one from its configuration file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """All that the broker may be told. A limit's unit is its name's last word."""

    tcp_bind: tuple[str, int] | None = ("127.0.0.1", 1883)
    """Host and port for MQTT over TCP; port 0 takes a free one; None: no such listener."""
    websocket_bind: tuple[str, int] | None = None
    """Host and port for MQTT over WebSocket, path `/mqtt`."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of web pages, beside the server's own, that may open a WebSocket."""

    websocket_frame_bytes_max: int = 16 * MIB
    """Largest WebSocket frame, which may hold many packets; one packet of `packet_bytes_max` always fits."""
    packet_bytes_max: int = MIB
    """Largest inbound packet, announced as Maximum Packet Size (MQTT 5 §3.2.2.3.6)."""
    connections_max: int = 50_000
    connects_per_s_max: int = 0
    """CONNECTs taken in a second; 0: no limit. Above it they are refused."""
    loop_delay_ms_max: int = 1_000
    """While the event loop is later than this, new connections are refused, so that those there are served."""
    client_bytes_per_s_max: int = 0
    """Bytes that one client may send in a second, with a burst of one second; 0: no limit. Above it reading pauses."""
    client_messages_per_s_max: int = 0
    """The same in publishes."""
    connect_timeout_s: int = 10
    """A connection without a complete CONNECT is closed after this."""
    close_timeout_s: int = 5
    """A closed connection whose peer does not take the last bytes is cut after this."""
    receive_maximum: int = 1_000
    """QoS 1 and 2 publishes that an MQTT 5 client may have unacknowledged (§3.2.2.3.3)."""
    topic_alias_maximum: int = 100
    topic_aliases_sent_max: int = 100
    """Topic aliases given to what is sent to one client that takes them."""
    inflight_messages_max: int = 1_000
    """QoS 1 and 2 messages sent to one client and not yet acknowledged by it."""
    queued_messages_max: int = 10_000
    queued_bytes_max: int = 16 * MIB
    """What one session keeps beyond `inflight_messages_max`."""
    queued_drop: Literal["newest", "oldest"] = "newest"
    """Which of its messages are dropped above that."""
    outbox_bytes_max: int = 8 * MIB
    """Bytes waiting for a subscriber that reads slowly; above it QoS 0 is dropped for it."""
    outbox_reliable_bytes_max: int = MIB
    """Above so many waiting bytes QoS 1 and 2 messages stay in the session's queue."""
    sys_interval_s: int = 10
    """Time between publications of `$SYS/broker/…`; 0: none."""
    session_expiry_s_max: int = 7 * 86_400
    sessions_max: int = 200_000
    """Sessions, connected or kept."""
    keep_alive_s_max: int = 65_535
    routes_max: int = 250_000
    """Topic names whose subscribers are cached."""
    routes_bytes_max: int = 64 * MIB
    """Bytes of these names; each is kept some five times, as text and as it stands in frames."""
    retained_messages_max: int = 1_000_000
    retained_bytes_max: int = 256 * MIB
    retained_fan_outs_max: int = 100
    """Subscriptions that are sent retained messages in slices at a time; publishes with RETAIN look at each. Others
    are sent theirs in one go."""
    subscriptions_per_client_max: int = 10_000
    topic_levels_max: int = 201
    """Levels of a topic name."""
    subscription_topic_levels_max: int = 201
    shared_choice: Literal["round_robin", "least_outstanding"] = "round_robin"
    """Which member of a shared subscription gets a message: the next one, or the one with the fewest unacknowledged."""
    shared_groups_max: int = 10_000
    """Shared subscriptions: pairs of a share name and a topic filter, however many members each has."""
    shared_members_max: int = 1_000
    """Sessions in one shared subscription."""
    replays_max: int = 10_000
    """Replay subscriptions, of kept sessions too."""
    replays_per_client_max: int = 16
    replay_pieces_max: int = 2
    """Pieces of stored messages read ahead for one replay."""
    replay_waiting_bytes_max: int = 256 * 1024
    """A replay waits while more than this waits for its connection."""
    unreleased_per_client_max: int = 10_000
    """QoS 2 packet ids of one client that wait for its PUBREL."""
