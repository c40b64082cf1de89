"""Route: what the broker knows about one topic name, cached by the topic's bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.sink import SinkTopic


class Route:
    """One topic name with its subscribers and its place in the sink.

    `encoded_topic` is the topic as it stands on the wire: two bytes of length, then UTF-8.
    """

    __slots__ = ("encoded_topic", "sink_topic", "stream", "targets", "topic_name")

    def __init__(self, topic_name: str, encoded_topic: bytes, sink_topic: SinkTopic | None) -> None:
        self.topic_name = topic_name
        self.encoded_topic = encoded_topic
        self.sink_topic = sink_topic
        self.stream = sink_topic.stream if sink_topic is not None else None
        self.targets: object | None = None
