"""SysTopics: `$SYS/broker/…` with the names, values and units of Mosquitto 2.

They are retained and of QoS 2 as Mosquitto's, published each `sys_interval_s` when they have changed, and never
handed to the sink. They are kept beside the retained messages of clients, in no file, and take none of their room.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from broker import __version__
from broker.codec import constants
from broker.codec.packets import Publish
from broker.protocol.handlers.publish import make_run
from broker.retained import RetainedMessage
from broker.topics.retained import RetainedMessages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.engine import Engine
    from broker.metrics import Metrics

PREFIX = "$SYS/"
ROOT = "$SYS/broker/"
MESSAGES_MAX = 64
"""More than the list below has."""
BYTES_MAX = 64 * 1024
LOAD_MINUTES = (1, 5, 15)
"""Moving averages are over these."""
ANSWERED = (constants.CONNECT, constants.SUBSCRIBE, constants.UNSUBSCRIBE, constants.PINGREQ, constants.PUBREC,
            constants.PUBREL)  # fmt: skip
"""Packets of clients each of which is answered by one of ours; PUBLISH is, when it is of QoS 1 or 2."""


class Load:
    """Moving averages of a counter's growth a minute, as Mosquitto has them: they begin at 0."""

    __slots__ = ("_averages", "_latest")

    def __init__(self) -> None:
        self._latest = 0
        self._averages = [0.0] * len(LOAD_MINUTES)

    def add(self, total: int, passed_s: int) -> list[float]:
        """Take the counter's value, `passed_s` seconds after the one before; returns an average for each span."""
        a_minute = (total - self._latest) * 60 / passed_s
        self._latest = total
        for index, minutes in enumerate(LOAD_MINUTES):
            self._averages[index] = a_minute + math.exp(-passed_s / (60 * minutes)) * (self._averages[index] - a_minute)
        return self._averages


class SysTopics:
    """What the broker says about itself."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._interval_s = engine.config.sys_interval_s
        self._told: dict[str, str] = {}
        """What was published last, by topic name below `ROOT`."""
        self._load_by_name: dict[str, Load] = {}
        self._clients_most = 0
        self._heap_most = 0
        self._updated_s = 0
        self.retained: RetainedMessages[RetainedMessage] = RetainedMessages(MESSAGES_MAX, BYTES_MAX)

    def match(self, topic_filter: str) -> list[RetainedMessage]:
        """What a new subscription gets at once."""
        return self.retained.match(topic_filter) if topic_filter.startswith(PREFIX) else []

    def tick(self) -> None:
        """A second has passed."""
        if self._interval_s and self._engine.seconds - self._updated_s >= self._interval_s:
            self.publish()

    def publish(self) -> None:
        """Tell what has changed."""
        if not self._interval_s:
            return
        for name, value in self._values():
            if self._told.get(name) != value:
                self._told[name] = value
                self._publish(ROOT + name, value.encode())

    def _publish(self, topic_name: str, payload: bytes) -> None:
        engine = self._engine
        route = engine.router.add_route(topic_name, topic_name.encode())
        packet = Publish(topic_name, payload, 2, True, False, 1, None)
        run = make_run(packet, route, False, "", engine.now_ms, None)
        run.stream = None
        message = RetainedMessage.of(run)
        self.retained.put({topic_name: message})
        engine.router.route(run)

    def _values(self) -> Iterator[tuple[str, str]]:
        engine = self._engine
        metrics = engine.metrics
        passed_s = engine.seconds - self._updated_s
        self._updated_s = engine.seconds
        packets = metrics.packets_received
        published = metrics.messages_received
        received = published + sum(packets)
        acknowledged = sum(packets[packet_type] for packet_type in ANSWERED) + metrics.reliable_received
        dropped = sum(metrics.dropped_messages.values())
        yield "version", f"headrace version {__version__}"
        yield "uptime", f"{engine.seconds} seconds"
        yield from self._clients()
        counters = {
            "messages/received": received,
            "messages/sent": metrics.messages_delivered + acknowledged,
            "publish/dropped": dropped,
            "publish/received": published,
            "publish/sent": metrics.messages_delivered,
            "bytes/received": metrics.bytes_received,
            "bytes/sent": metrics.bytes_sent,
            "sockets": metrics.connections_accepted,
            "connections": packets[constants.CONNECT],
        }
        for name, total in counters.items():
            load = self._load_by_name.setdefault(name, Load())
            averages = load.add(total, passed_s) if passed_s else [0.0] * len(LOAD_MINUTES)
            for minutes, average in zip(LOAD_MINUTES, averages, strict=True):
                yield f"load/{name}/{minutes}min", f"{average:.2f}"
        stored = len(engine.retained) + metrics.queued_messages
        yield "messages/stored", str(stored)
        yield "store/messages/count", str(stored)
        yield "store/messages/bytes", str(engine.retained.bytes + metrics.queued_bytes)
        replays = engine.replays.count if engine.replays is not None else 0
        shared = engine.router.shared
        yield "subscriptions/count", str(engine.router.subscriptions.count - len(shared.groups) + replays)
        yield "shared_subscriptions/count", str(shared.members)
        yield "retained messages/count", str(len(engine.retained) + len(self.retained))
        heap = engine.heap_bytes()
        self._heap_most = max(self._heap_most, heap)
        if heap:
            yield "heap/current", str(heap)
            yield "heap/maximum", str(self._heap_most)
        yield "messages/received", str(received)
        yield "messages/sent", str(metrics.messages_delivered + acknowledged)
        yield "publish/messages/dropped", str(dropped)
        yield "publish/messages/received", str(published)
        yield "publish/messages/sent", str(metrics.messages_delivered)
        yield "publish/bytes/received", str(metrics.bytes_received - metrics.control_bytes_received)
        yield "publish/bytes/sent", str(_publish_bytes_sent(metrics))
        yield "bytes/received", str(metrics.bytes_received)
        yield "bytes/sent", str(metrics.bytes_sent)

    def _clients(self) -> Iterator[tuple[str, str]]:
        engine = self._engine
        total, connected = len(engine.sessions), engine.clients_connected
        self._clients_most = max(self._clients_most, total)
        yield "clients/total", str(total)
        yield "clients/maximum", str(self._clients_most)
        yield "clients/inactive", str(total - connected)
        yield "clients/disconnected", str(total - connected)
        yield "clients/active", str(connected)
        yield "clients/connected", str(connected)
        yield "clients/expired", str(engine.metrics.sessions_expired)


def _publish_bytes_sent(metrics: Metrics) -> int:
    """All bytes but those of answers: counting PUBLISH packets themselves would cost every delivery.

    PUBACK, PUBREC, PUBREL and PUBCOMP have four bytes, PINGRESP two.
    """
    packets = metrics.packets_received
    acknowledgements = metrics.reliable_received + packets[constants.PUBREC] + packets[constants.PUBREL]
    answers = metrics.answer_bytes_sent + 4 * acknowledgements + 2 * packets[constants.PINGREQ]
    return max(0, metrics.bytes_sent - answers)
