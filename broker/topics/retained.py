"""RetainedMessages: the last message with RETAIN of each topic, within limits (MQTT 5 §3.3.1.3).

It knows topic names and sizes; what a message is, and when it expires, is its owner's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from broker.topics.tree import TopicTree

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from broker.topics.tree import TopicWalk


class Sized(Protocol):
    """A message, as far as it is looked at here."""

    @property
    def size(self) -> int:
        """Bytes that count against the limit; not 0."""


MessageT = TypeVar("MessageT", bound=Sized)


class RetainedMessages(Generic[MessageT]):
    """One message for each topic name; at most `messages_max` of them and `bytes_max` bytes."""

    __slots__ = ("_by_topic", "_tree", "bytes", "bytes_max", "messages_max")

    def __init__(self, messages_max: int, bytes_max: int) -> None:
        self.messages_max = messages_max
        self.bytes_max = bytes_max
        self.bytes = 0
        """The sizes of all messages kept."""
        self._by_topic: dict[str, MessageT] = {}
        self._tree: TopicTree[str] = TopicTree()
        """Their topic names: a filter is looked for in it, while a message is replaced without a walk."""

    def __len__(self) -> int:
        return len(self._by_topic)

    def get(self, topic_name: str) -> MessageT | None:
        """The message of one topic."""
        return self._by_topic.get(topic_name)

    def has_room(self, topic_name: str, size: int) -> bool:
        """Whether a message of `size` bytes could be kept now, in place of its topic's message if there is one."""
        before = self._by_topic.get(topic_name)
        if before is not None:
            return self.bytes - before.size + size <= self.bytes_max
        return len(self._by_topic) < self.messages_max and self.bytes + size <= self.bytes_max

    def have_room(self, topic_names: Collection[str], size: int) -> bool:
        """Whether there is room in any case for messages of these topics of `size` bytes together."""
        if self.bytes + size > self.bytes_max:
            return False
        room = self.messages_max - len(self._by_topic)
        return len(topic_names) <= room or len(set(topic_names) - self._by_topic.keys()) <= room

    def fill(self, topic_name: str, message: MessageT) -> bool:
        """Keep the message of a topic that has none; False when there is no room."""
        if len(self._by_topic) >= self.messages_max or self.bytes + message.size > self.bytes_max:
            return False
        self._by_topic[topic_name] = message
        self._tree.add(topic_name, topic_name)
        self.bytes += message.size
        return True

    # hot path: tests/bench/receive.py
    def put(self, messages: Mapping[str, MessageT | None]) -> list[str]:
        """Keep messages by topic name in place of those before, None: forget it. [MQTT-3.3.1-6]

        Returns the topic names of those for which there was no room.
        """
        by_topic = self._by_topic
        size_of_all = self.bytes
        no_room: list[str] = []
        for topic_name, message in messages.items():
            before = by_topic.get(topic_name)
            if message is None:
                if before is not None:
                    size_of_all -= before.size
                    del by_topic[topic_name]
                    self._tree.discard(topic_name)
                continue
            size = size_of_all + message.size
            if before is not None:
                size -= before.size
            if size > self.bytes_max or (before is None and len(by_topic) >= self.messages_max):
                no_room.append(topic_name)
                continue
            if before is None:
                self._tree.add(topic_name, topic_name)
            by_topic[topic_name] = message
            size_of_all = size
        self.bytes = size_of_all
        return no_room

    def walk(self, topic_filter: str) -> TopicWalk[str]:
        """The topic names whose messages `match` finds, piece by piece; messages may be put and removed meanwhile."""
        return self._tree.walk(topic_filter)

    def match(self, topic_filter: str) -> list[MessageT]:
        """The messages of every topic that the filter takes, as a list: one may be removed while it is read."""
        by_topic = self._by_topic
        return [by_topic[topic_name] for topic_name in self._tree.taken_by(topic_filter)]
