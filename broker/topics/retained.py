"""RetainedMessages: the last message with RETAIN of each topic, within limits (MQTT 5 §3.3.1.3).

It knows topic names and sizes; what a message is, and when it expires, is its owner's business.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from broker.topics.tree import TopicTree

MessageT = TypeVar("MessageT")


class _Retained(Generic[MessageT]):
    __slots__ = ("message", "size")

    def __init__(self, message: MessageT, size: int) -> None:
        self.message = message
        self.size = size


class RetainedMessages(Generic[MessageT]):
    """One message for each topic name; at most `messages_max` of them and `bytes_max` bytes."""

    __slots__ = ("_tree", "bytes", "bytes_max", "messages_max")

    def __init__(self, messages_max: int, bytes_max: int) -> None:
        self.messages_max = messages_max
        self.bytes_max = bytes_max
        self.bytes = 0
        """The sizes of all messages kept."""
        self._tree: TopicTree[_Retained[MessageT]] = TopicTree()

    def __len__(self) -> int:
        return self._tree.count

    def get(self, topic_name: str) -> MessageT | None:
        """The message of one topic."""
        kept = self._tree.get(topic_name)
        return kept.message if kept is not None else None

    def has_room(self, topic_name: str, size: int) -> bool:
        """Whether a message of `size` bytes could be kept now, in place of its topic's message if there is one."""
        kept = self._tree.get(topic_name)
        if kept is not None:
            return self.bytes - kept.size + size <= self.bytes_max
        return self._tree.count < self.messages_max and self.bytes + size <= self.bytes_max

    def fill(self, topic_name: str, message: MessageT, size: int) -> bool:
        """As `put`, for a topic that has no message: a start with a million of them looks each up only once."""
        if self._tree.count >= self.messages_max or self.bytes + size > self.bytes_max:
            return False
        self._tree.add(topic_name, _Retained(message, size))
        self.bytes += size
        return True

    def put(self, topic_name: str, message: MessageT, size: int) -> bool:
        """Keep the message of `size` bytes in place of its topic's; False when there is no room."""
        if not self.has_room(topic_name, size):
            return False
        kept = self._tree.get(topic_name)
        if kept is not None:
            self.bytes += size - kept.size
            kept.message = message
            kept.size = size
            return True
        self._tree.add(topic_name, _Retained(message, size))
        self.bytes += size
        return True

    def remove(self, topic_name: str) -> bool:
        """Forget a topic's message; returns whether there was one. [MQTT-3.3.1-6]"""
        kept = self._tree.discard(topic_name)
        if kept is None:
            return False
        self.bytes -= kept.size
        return True

    def match(self, topic_filter: str) -> list[MessageT]:
        """The messages of every topic that the filter takes, as a list: one may be removed while it is read."""
        return [kept.message for kept in self._tree.taken_by(topic_filter)]
