"""Republisher: messages to a broker, in order, bounded in flight; the position moves when they are acknowledged.

QoS 1 and 2 count as sent when the broker has acknowledged them, QoS 0 when it is written. After a lost connection what
was in flight is sent again, first: a broker may then have it twice, and never not at all.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from paho.mqtt.reasoncodes import ReasonCode

from bridge.cursors import StreamPosition
from bridge.replay.interrupts import Interrupts
from bridge.replay.mqtt_client import ConnectFailed, ConnectionLost, MqttClient
from bridge.replay.mqtt_target import MqttTarget
from bridge.replay.pace import Pacer
from bridge.replay.source import Message, ReplayFailed, behind

INFLIGHT_MESSAGES_MAX = 500
"""More would not be faster: a broker that answers in 10 ms lets 50,000 a second through."""
INFLIGHT_BYTES_MAX = 16 * 1024 * 1024
"""One message may have more."""
READ_EVERY = 50
"""Acknowledgements are read after so many messages, also when more may be in flight."""
AWAY_S = 60.0
"""So long a broker may be away."""
CUTS_MAX = 5
"""Connections that a broker may end one after the other without having acknowledged anything."""
RETRY_PAUSE_S = 0.5
DRAIN_S = 3.0
"""For what is in flight when a replay is interrupted."""
TOPIC_BYTES_MAX = 65_535
FIELDS_BYTES_MAX = 16
"""Of a PUBLISH, beside topic, properties and payload."""


@dataclass(slots=True)
class _Outgoing:
    message: Message
    topic: str
    qos: int
    is_done: bool = False
    """Acknowledged, or left out."""


class Republisher:
    """See the module's docstring."""

    def __init__(
        self,
        target: MqttTarget,
        prefix: str,
        qos: int | None,
        position: StreamPosition,
        interrupts: Interrupts,
        on_moved: Callable[[], None],
    ) -> None:
        """`qos` None: that of each message. `on_moved` is called when `position` has moved."""
        self.position = position
        self.acknowledged = 0
        self.left_out: Counter[str] = Counter()
        """Messages that cannot be sent to this target, by reason."""
        self._target = target
        self._prefix = prefix
        self._qos = qos
        self._interrupts = interrupts
        self._on_moved = on_moved
        self._client = MqttClient(target, self._done)
        self._queue: deque[_Outgoing] = deque()
        """All that the position is not behind, in order."""
        self._unsent: deque[_Outgoing] = deque()
        self._bytes = 0
        """Payloads in `_queue`."""
        self._by_mid: dict[int, _Outgoing] = {}
        self._qos_2_in_flight = 0
        self._done_early: set[int] = set()
        self._unread = 0
        self._refused: str | None = None
        self._cuts = 0

    @property
    def keeps_properties(self) -> bool:
        """The broker speaks MQTT 5."""
        return self._client.is_v5

    def connect(self) -> None:
        """Raises: ReplayFailed"""
        try:
            self._client.connect()
        except ConnectFailed as error:
            raise ReplayFailed(f"{error} Is it the right address? --to-mqtt URL") from error

    def run(self, messages: Iterable[Message], pacer: Pacer) -> None:
        """Send all of them, each in its time, and wait for the last acknowledgement.

        Raises: ReplayFailed
        """
        for message in messages:
            pacer.wait_for(message.time_ms)
            self._send(message)
        while self._queue:
            self.wait(1.0)

    def wait(self, seconds: float) -> None:
        """Take acknowledgements for a while; a lost connection is made again.

        Raises: ReplayFailed
        """
        self._unread = 0
        try:
            self._client.turn(seconds)
            self._pump()
        except ConnectionLost:
            self._connect_again()
        self._settle()

    def drain(self) -> None:
        """At an interruption: what is in flight may still be acknowledged, for a moment."""
        until = time.monotonic() + DRAIN_S
        try:
            while self._by_mid and time.monotonic() < until:
                self._client.turn(0.1)
                self._settle()
        except (ConnectionLost, ReplayFailed):
            return  # what is not acknowledged is sent again by the next run

    def close(self) -> None:
        """Disconnect."""
        self._client.close()

    def _send(self, message: Message) -> None:
        topic = self._prefix + message.topic
        size = len(message.payload)
        while self._queue and (len(self._queue) >= INFLIGHT_MESSAGES_MAX or self._bytes + size > INFLIGHT_BYTES_MAX):
            self.wait(1.0)
        outgoing = _Outgoing(message, topic, message.qos if self._qos is None else self._qos)
        if reason := self._obstacle(topic, size):
            self.left_out[reason] += 1
            outgoing.is_done = True
        with self._interrupts.held():
            self._bytes += size
            self._queue.append(outgoing)
            if not outgoing.is_done:
                self._unsent.append(outgoing)
        self._unread += 1
        if self._unread >= READ_EVERY:
            self.wait(0)
            return
        try:
            self._pump()
        except ConnectionLost:
            self._connect_again()
        self._settle()

    def _obstacle(self, topic: str, payload_bytes: int) -> str | None:
        """Why a message cannot be sent, or None."""
        if topic.startswith("$"):
            return "their topic begins with $, where clients may not publish: give --prefix"
        topic_bytes = len(topic.encode())
        if topic_bytes > TOPIC_BYTES_MAX:
            return "their topic is too long with --prefix"
        if topic_bytes + payload_bytes + FIELDS_BYTES_MAX > self._client.packet_bytes_max:
            return f"{self._target} takes packets up to {self._client.packet_bytes_max:,} bytes"
        return None

    def _pump(self) -> None:
        """Send what waits, as far as the broker lets.

        Raises: ConnectionLost
        """
        while self._unsent and self._has_turn(self._unsent[0]):
            with self._interrupts.held():
                outgoing = self._unsent[0]
                message = outgoing.message
                mid = self._client.publish(
                    outgoing.topic, message.payload, outgoing.qos, message.retain, message.properties
                )
                self._unsent.popleft()
                if mid in self._done_early:
                    self._done_early.discard(mid)
                    self._finish(outgoing)
                else:
                    self._by_mid[mid] = outgoing
                    self._qos_2_in_flight += outgoing.qos == 2

    def _has_turn(self, outgoing: _Outgoing) -> bool:
        """The broker may be given this one now. It passes on QoS 2 later than what came behind it with less."""
        is_held_back = outgoing.qos < 2 and self._qos_2_in_flight > 0
        return len(self._by_mid) < self._client.inflight_max and not is_held_back

    def _done(self, mid: int, reason: ReasonCode) -> None:
        """For the client: the broker has taken a message, or refused it."""
        outgoing = self._by_mid.pop(mid, None)
        self._qos_2_in_flight -= outgoing is not None and outgoing.qos == 2
        if reason.is_failure:
            topic = outgoing.topic if outgoing is not None else "a message"
            self._refused = self._refused or f"{self._target} refuses {topic}: {str(reason).lower()}."
        elif outgoing is None:
            self._done_early.add(mid)  # within `publish`, which has not said yet which mid it has
        else:
            self._finish(outgoing)

    def _finish(self, outgoing: _Outgoing) -> None:
        outgoing.is_done = True
        self.acknowledged += 1
        self._cuts = 0

    def _settle(self) -> None:
        """Move the position behind the messages that are done, as far as all before them are.

        Raises: ReplayFailed, when the broker has refused one.
        """
        queue = self._queue
        has_moved = bool(queue) and queue[0].is_done
        while queue and queue[0].is_done:
            message = queue.popleft().message
            self._bytes -= len(message.payload)
            self.position = behind(self.position, message.place)
        if has_moved:
            self._on_moved()
        if self._refused is not None:
            raise ReplayFailed(f"{self._refused} It was not sent, nor was what comes after it.")

    def _connect_again(self) -> None:
        """Connect, and send first what was in flight.

        Raises: ReplayFailed
        """
        self._settle()
        self._cuts += 1
        if self._cuts > CUTS_MAX:
            topic = self._queue[0].topic if self._queue else "nothing"
            raise ReplayFailed(f"{self._target} ends each connection; the first message it does not take is {topic}.")
        until = time.monotonic() + AWAY_S
        while True:
            self._by_mid.clear()
            self._qos_2_in_flight = 0
            self._done_early.clear()
            self._unsent = deque(outgoing for outgoing in self._queue if not outgoing.is_done)
            try:
                self._client.connect()
                self._pump()
                return
            except ConnectionLost as error:
                text, is_final = f"{self._target} has gone: {error}.", False
            except ConnectFailed as error:
                text, is_final = str(error), error.is_final
            if is_final or time.monotonic() > until:
                raise ReplayFailed(text)
            time.sleep(RETRY_PAUSE_S)
