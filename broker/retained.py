"""Retained messages: the last one with RETAIN of each topic (MQTT 5 §3.3.1.3), until it expires or is cleared.

They are held in memory, and each change is put down for the store, when there is one: with QoS 0 and 1 when the
publish is routed, with QoS 2 when it is taken, so that it commits with its record though it is routed after that. Of
two publishes to a topic the one that came last stays, whichever is routed last.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Self

from broker.codec.decode import decode_packet, next_frame
from broker.store import RetainedChange
from broker.topics.retained import RetainedMessages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from broker.codec.packets import Publish
    from broker.config import BrokerConfig
    from broker.publish_run import PublishRun
    from broker.store import RetainedRow

OVERHEAD_BYTES = 300
"""What a retained message costs beside its frame and topic, for the limit of bytes."""
STALE_EXPIRIES = 1_000
"""The queue of expiries is made anew when it has so many entries more than twice what is kept."""


class RetainedMessage:
    """One retained message; `frame` is its canonical record."""

    __slots__ = ("client_id", "expires_at_ms", "frame", "is_v5", "received_at_ms", "topic_name")

    def __init__(
        self, topic_name: str, frame: bytes, is_v5: bool, client_id: str, received_at_ms: int, expires_at_ms: int
    ) -> None:
        self.topic_name = topic_name
        self.frame = frame
        self.is_v5 = is_v5
        self.client_id = client_id
        self.received_at_ms = received_at_ms
        self.expires_at_ms = expires_at_ms
        """Epoch milliseconds; 0: never."""

    @classmethod
    def of(cls, run: PublishRun) -> Self:
        """The first row of a run."""
        frame = run.data[run.start : run.ends[0]]
        return cls(run.routes[0].topic_name, frame, run.is_v5, run.client_id, run.received_at_ms, run.expires_at_ms)

    @property
    def size(self) -> int:
        """Bytes that count against `retained_bytes_max`."""
        return len(self.frame) + len(self.topic_name) + OVERHEAD_BYTES

    def publish(self) -> Publish:
        """The message as a packet."""
        frame = next_frame(self.frame, 0, len(self.frame))
        assert frame is not None
        first_byte, body_start, end = frame
        packet: Publish = decode_packet(first_byte, self.frame[body_start:end], 5 if self.is_v5 else 4)
        return packet


def message_of(run: PublishRun) -> RetainedMessage | None:
    """What a run of one row with RETAIN leaves for its topic: None when it clears it. [MQTT-3.3.1-6]"""
    if run.payload_starts[0] == run.ends[0]:
        return None
    return RetainedMessage.of(run)


class Retained:
    """The retained messages of one broker."""

    def __init__(self, config: BrokerConfig, put_down: Callable[[RetainedChange], None] | None) -> None:
        """`put_down` takes each change for the store; None: there is no store."""
        self._messages: RetainedMessages[RetainedMessage] = RetainedMessages(
            config.retained_messages_max, config.retained_bytes_max
        )
        self._put_down = put_down
        self._expiries: list[tuple[int, str]] = []
        """A heap of (epoch ms, topic name); entries of messages that were replaced since are passed over."""
        self._storing: dict[str, PublishRun] = {}
        """By topic name: the QoS 2 publish that came last and is not routed yet."""
        self.expired = 0
        """Messages that were dropped because their time was over."""

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def bytes(self) -> int:
        """What they take, as counted against `retained_bytes_max`."""
        return self._messages.bytes

    def get(self, topic_name: str) -> RetainedMessage | None:
        """The message of one topic."""
        return self._messages.get(topic_name)

    def has_room(self, topic_name: str, size: int) -> bool:
        """Whether a message of `size` bytes could be kept now."""
        return self._messages.has_room(topic_name, size)

    def match(self, topic_filter: str, now_ms: int) -> list[RetainedMessage]:
        """The messages of every topic that the filter takes. Only the branches that can match are walked."""
        found = self._messages.match(topic_filter)
        if self._expiries and self._expiries[0][0] <= now_ms:
            found = [each for each in found if not each.expires_at_ms or now_ms < each.expires_at_ms]
        return found

    def storing(self, run: PublishRun) -> None:
        """A QoS 2 publish has been taken: its message commits with its record, and is shown after that."""
        self._storing[run.routes[0].topic_name] = run
        self._tell(run.routes[0].topic_name, message_of(run))

    def put(self, run: PublishRun) -> bool:
        """A publish with RETAIN is routed; False when there is no room for its message."""
        topic_name = run.routes[0].topic_name
        if run.qos == 2:
            latest = self._storing.get(topic_name)
            if latest is None:  # a publish that came later, with a lower QoS, has been routed before this one
                return True
        message = message_of(run)
        if message is None:
            self._messages.remove(topic_name)
        elif not self._messages.put(topic_name, message, message.size):
            self.refused(run)
            return False
        else:
            self._note_expiry(message)
        if run.qos < 2:
            self._storing.pop(topic_name, None)
            self._tell(topic_name, message)
        elif latest is run:
            del self._storing[topic_name]
        return True

    def refused(self, run: PublishRun) -> None:
        """A publish that the store may have been told of is not kept after all: the store gets what is."""
        topic_name = run.routes[0].topic_name
        if self._storing.get(topic_name) is run:
            del self._storing[topic_name]
            self._tell(topic_name, self._messages.get(topic_name))

    def expire(self, now_ms: int) -> None:
        """Forget the messages whose time is over."""
        expiries = self._expiries
        while expiries and expiries[0][0] <= now_ms:
            expires_at_ms, topic_name = heappop(expiries)
            message = self._messages.get(topic_name)
            if message is not None and message.expires_at_ms == expires_at_ms:
                self._messages.remove(topic_name)
                self.expired += 1
                if topic_name not in self._storing:
                    self._tell(topic_name, None)

    def restore(self, rows: Iterable[RetainedRow]) -> int:
        """Take what the store has; returns how many there was no room for."""
        left_out = 0
        for row in rows:
            message = RetainedMessage(*row)
            if self._messages.fill(message.topic_name, message, message.size):
                if message.expires_at_ms:
                    self._expiries.append((message.expires_at_ms, message.topic_name))
            else:
                left_out += 1
        heapify(self._expiries)
        return left_out

    def _note_expiry(self, message: RetainedMessage) -> None:
        if not message.expires_at_ms:
            return
        heappush(self._expiries, (message.expires_at_ms, message.topic_name))
        if len(self._expiries) > 2 * len(self._messages) + STALE_EXPIRIES:
            self._expiries = [entry for entry in self._expiries if self._is_current(*entry)]
            heapify(self._expiries)

    def _is_current(self, expires_at_ms: int, topic_name: str) -> bool:
        message = self._messages.get(topic_name)
        return message is not None and message.expires_at_ms == expires_at_ms

    def _tell(self, topic_name: str, message: RetainedMessage | None) -> None:
        if self._put_down is not None:
            self._put_down(RetainedChange(topic_name, message))
