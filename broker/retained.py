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
    from collections.abc import Callable, Iterable, Sequence

    from broker.codec.packets import Publish
    from broker.config import BrokerConfig
    from broker.publish_run import PublishRun
    from broker.store import RetainedRow
    from broker.topics.tree import TopicWalk

OVERHEAD_BYTES = 300
"""What a retained message costs beside its frame and topic, for the limit of bytes."""
STALE_EXPIRIES = 1_000
"""The queue of expiries is made anew when it has so many entries more than twice what is kept."""


class RetainedMessage:
    """One retained message; `frame` is its canonical record."""

    __slots__ = ("client_id", "expires_at_ms", "frame", "is_v5", "received_at_ms", "size", "topic_name")

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
        self.size = len(frame) + len(topic_name) + OVERHEAD_BYTES
        """Bytes that count against `retained_bytes_max`."""

    @classmethod
    def of(cls, run: PublishRun) -> Self:
        """The first row of a run."""
        frame = run.data[run.start : run.ends[0]]
        return cls(run.routes[0].topic_name, frame, run.is_v5, run.client_id, run.received_at_ms, run.expires_at_ms)

    def publish(self) -> Publish:
        """The message as a packet."""
        frame = next_frame(self.frame, 0, len(self.frame))
        assert frame is not None
        first_byte, body_start, end = frame
        packet: Publish = decode_packet(first_byte, self.frame[body_start:end], 5 if self.is_v5 else 4)
        return packet


# hot path: tests/bench/receive.py
def messages_of(run: PublishRun) -> dict[str, RetainedMessage | None]:
    """What a run with RETAIN leaves for each of its topics, the last row's; None: it is cleared. [MQTT-3.3.1-6]"""
    data, is_v5, client_id = run.data, run.is_v5, run.client_id
    received_at_ms, expires_at_ms = run.received_at_ms, run.expires_at_ms
    messages: dict[str, RetainedMessage | None] = {}
    start = run.start
    for route, payload_start, end in zip(run.routes, run.payload_starts, run.ends, strict=True):
        topic_name = route.topic_name
        if payload_start == end:
            messages[topic_name] = None
        else:
            messages[topic_name] = RetainedMessage(
                topic_name, data[start:end], is_v5, client_id, received_at_ms, expires_at_ms
            )
        start = end
    return messages


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

    def has_room_for(self, run: PublishRun) -> bool:
        """Whether there is room for the message of every row. Of several rows it may say so a little too late."""
        rows = len(run)
        if rows > 1:
            topic_names = [route.topic_name for route in run.routes]
            # A topic's name is counted twice, in its frame and by itself.
            size = 2 * (run.ends[-1] - run.start) + rows * OVERHEAD_BYTES
            return self._messages.have_room(topic_names, size)
        (message,) = messages_of(run).values()
        return message is None or self._messages.has_room(message.topic_name, message.size)

    def match(self, topic_filter: str, now_ms: int) -> list[RetainedMessage]:
        """The messages of every topic that the filter takes. Only the branches that can match are walked."""
        found = self._messages.match(topic_filter)
        if self._expiries and self._expiries[0][0] <= now_ms:
            found = [each for each in found if not each.expires_at_ms or now_ms < each.expires_at_ms]
        return found

    def walk(self, topic_filter: str) -> TopicWalk[str]:
        """The topic names whose messages a filter takes, piece by piece, with whole turns between them."""
        return self._messages.walk(topic_filter)

    def clear(self, topic_names: Sequence[str]) -> None:
        """Forget the messages of some topics. A QoS 2 publish that is not routed yet leaves its own after that."""
        self._messages.put(dict.fromkeys(topic_names))
        self._tell({topic_name: None for topic_name in topic_names if topic_name not in self._storing})

    def storing(self, run: PublishRun) -> None:
        """QoS 2 publishes have been taken: their messages commit with their records, and are shown after that."""
        messages = messages_of(run)
        self._storing.update(dict.fromkeys(messages, run))
        self._tell(messages)

    # hot path: tests/bench/receive.py
    def put(self, run: PublishRun) -> int:
        """Publishes with RETAIN are routed; returns for how many of their messages there is no room."""
        messages = messages_of(run)
        storing = self._storing
        if run.qos == 2:
            # Not those after which a publish of a lower QoS has come, which has been routed before them.
            messages = {name: message for name, message in messages.items() if name in storing}
        no_room = self._messages.put(messages)
        if no_room:
            for topic_name in no_room:
                del messages[topic_name]
            self._take_back(run, no_room)
        if run.expires_at_ms:
            for message in messages.values():
                if message is not None:
                    self._note_expiry(message)
        if run.qos == 2:
            for topic_name in messages:
                if storing[topic_name] is run:
                    del storing[topic_name]
        elif messages:
            if storing:
                for topic_name in messages:
                    storing.pop(topic_name, None)
            self._tell(messages)
        return len(no_room)

    def refused(self, run: PublishRun) -> None:
        """QoS 2 publishes that the store was told of are not kept after all: the store gets what is."""
        self._take_back(run, [route.topic_name for route in run.routes])

    def _take_back(self, run: PublishRun, topic_names: Iterable[str]) -> None:
        kept: dict[str, RetainedMessage | None] = {}
        for topic_name in topic_names:
            if self._storing.get(topic_name) is run:
                del self._storing[topic_name]
                kept[topic_name] = self._messages.get(topic_name)
        if kept:
            self._tell(kept)

    def expire(self, now_ms: int) -> None:
        """Forget the messages whose time is over."""
        expiries = self._expiries
        forgotten: dict[str, RetainedMessage | None] = {}
        while expiries and expiries[0][0] <= now_ms:
            expires_at_ms, topic_name = heappop(expiries)
            message = self._messages.get(topic_name)
            if message is not None and message.expires_at_ms == expires_at_ms:
                self._messages.put({topic_name: None})
                self.expired += 1
                if topic_name not in self._storing:
                    forgotten[topic_name] = None
        if forgotten:
            self._tell(forgotten)

    def restore(self, rows: Iterable[RetainedRow]) -> int:
        """Take what the store has; returns how many there was no room for."""
        left_out = 0
        for row in rows:
            message = RetainedMessage(*row)
            if self._messages.fill(message.topic_name, message):
                if message.expires_at_ms:
                    self._expiries.append((message.expires_at_ms, message.topic_name))
            else:
                left_out += 1
        heapify(self._expiries)
        return left_out

    def _note_expiry(self, message: RetainedMessage) -> None:
        heappush(self._expiries, (message.expires_at_ms, message.topic_name))
        if len(self._expiries) > 2 * len(self._messages) + STALE_EXPIRIES:
            self._expiries = [entry for entry in self._expiries if self._is_current(*entry)]
            heapify(self._expiries)

    def _is_current(self, expires_at_ms: int, topic_name: str) -> bool:
        message = self._messages.get(topic_name)
        return message is not None and message.expires_at_ms == expires_at_ms

    def _tell(self, messages: dict[str, RetainedMessage | None]) -> None:
        if self._put_down is not None:
            self._put_down(RetainedChange(messages))
