"""Limits: every limit of the configuration with its value, how often it was reached and when last.

The broker counts its own by name; whatever else refuses, drops or pauses something says so here by key. A limit that
is reached in the normal course of work (the size of a piece, a time between two looks) is shown without a count.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bridge.config_section import Section
from bridge.encoding import rfc3339_or_none
from broker.limit_hits import LimitHits

if TYPE_CHECKING:
    from bridge.config import Config

COUNTED = frozenset(
    (
        *("mqtt.packet_bytes_max", "mqtt.connections_max", "mqtt.connects_per_s_max", "mqtt.loop_delay_ms_max"),
        *("mqtt.client_bytes_per_s_max", "mqtt.client_messages_per_s_max", "mqtt.connect_timeout_s"),
        *("mqtt.close_timeout_s", "mqtt.keep_alive_s_max", "mqtt.receive_maximum", "mqtt.topic_alias_maximum"),
        *("mqtt.queued_messages_max", "mqtt.queued_bytes_max", "mqtt.outbox_bytes_max", "mqtt.session_expiry_s_max"),
        *("mqtt.sessions_max", "mqtt.subscriptions_per_client_max", "mqtt.topic_levels_max"),
        *("mqtt.subscription_topic_levels_max", "mqtt.unreleased_per_client_max", "mqtt.replays_max"),
        *("mqtt.replays_per_client_max", "mqtt.retained_messages_max", "mqtt.retained_bytes_max"),
        *("mqtt.retained_fan_outs_max", "mqtt.routes_max", "mqtt.routes_bytes_max"),
        *("mqtt.shared_groups_max", "mqtt.shared_members_max"),
        *("http.connections_max", "http.head_bytes_max", "http.head_timeout_s", "http.body_bytes_max"),
        *("live.readers_max", "live.filters_per_reader_max", "live.query_bytes_max", "live.waiting_bytes_max"),
        *("live.latest_topics_max", "live.latest_bytes_max", "live.poll_wait_s_max", "live.poll_events_max"),
        *("live.records_max", "history.exports_max", "history.buckets_max", "history.points_max", "history.snapshot_s"),
        *(
            "presence.gone_devices_max",
            "presence.pending_bytes_max",
            "presence.server_events_max",
            "store.pending_bytes_max",
            "store.held_bytes_max",
            "store.held_publishes_max",
            "store.hold_s",
        ),
    )
)
"""Keys whose hits are counted."""


class Limits:
    """One node's."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.hits = LimitHits(lambda: time.time_ns() // 1_000_000)
        """By key, of all but the broker's."""
        self.of_broker = LimitHits()
        """By the names of `[mqtt]`."""

    def counts(self) -> dict[str, int]:
        """How often each limit was reached since the start; those that never were are not in it."""
        return {**self.hits.count, **{f"mqtt.{name}": count for name, count in self.of_broker.count.items()}}

    def last_ms(self, key: str) -> int | None:
        """When a limit was reached last, in epoch milliseconds."""
        found = self.of_broker.last_ms.get(key.removeprefix("mqtt.")) if key.startswith("mqtt.") else None
        return found if found is not None else self.hits.last_ms.get(key)

    def rows(self) -> list[dict[str, Any]]:
        """Every limit as the API shows it; `hits` is null where it is not counted."""
        counts = self.counts()
        found = []
        for section_name in type(self._config).model_fields:
            section = getattr(self._config, section_name)
            for name in type(section).model_fields if isinstance(section, Section) else ():
                key, value = f"{section_name}.{name}", getattr(section, name)
                if isinstance(value, bool) or not isinstance(value, int | float):
                    continue
                hits = counts.get(key, 0) if key in COUNTED else None
                found.append({"name": key, "value": value, "hits": hits, "last": rfc3339_or_none(self.last_ms(key))})
        return found
