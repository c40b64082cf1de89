"""OutboundAliases: topic aliases that the server gives to the topics of one connection (MQTT 5 §3.3.2.3.4).

While there are free ones, each topic gets one with its first message. After that traffic decides: a topic that comes
more often than the rarest of those with an alias takes it over.
"""

from __future__ import annotations

CONTEST_MESSAGES = 8
"""A topic without an alias asks for another's with its 8th message, its 16th, its 32nd, …: the look for the rarest is
a walk over all."""


class OutboundAliases:
    """At most `maximum` topics; they are keyed as they stand on the wire."""

    __slots__ = ("_alias_by_topic", "_free", "_messages", "_waiting", "maximum")

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        """What the client takes, or our own bound if that is lower. [MQTT-3.1.2-26]"""
        self._alias_by_topic: dict[bytes, int] = {}
        self._free: list[int] = []
        """Aliases below the highest that was given which nobody has."""
        self._messages: dict[bytes, int] = {}
        """Messages of each topic with an alias; halved at each contest, so that the past weighs less."""
        self._waiting: dict[bytes, int] = {}
        """The same of topics without one; at most `maximum`, then the count begins anew."""

    def choose(self, topic: bytes) -> tuple[int, bool]:
        """The alias for the next message of a topic, and whether the client knows it; 0: send it without one."""
        alias = self._alias_by_topic.get(topic)
        if alias is not None:
            self._messages[topic] += 1
            return alias, True
        if self._free:
            return self._give(topic, self._free.pop(), 1)
        if len(self._alias_by_topic) < self.maximum:
            return self._give(topic, len(self._alias_by_topic) + 1, 1)
        return self._contest(topic)

    def _contest(self, topic: bytes) -> tuple[int, bool]:
        waiting = self._waiting
        if len(waiting) >= self.maximum and topic not in waiting:
            waiting.clear()
        count = waiting[topic] = waiting.get(topic, 0) + 1
        if count < CONTEST_MESSAGES or count & (count - 1):
            return 0, False
        messages = self._messages
        rarest = min(messages, key=messages.__getitem__)
        is_won = messages[rarest] < count
        for each in messages:
            messages[each] >>= 1
        if not is_won:
            return 0, False
        del waiting[topic], messages[rarest]
        return self._give(topic, self._alias_by_topic.pop(rarest), count)

    def _give(self, topic: bytes, alias: int, count: int) -> tuple[int, bool]:
        self._alias_by_topic[topic] = alias
        self._messages[topic] = count
        return alias, False

    def take_back(self, topic: bytes) -> None:
        """The message that should have told the client of the topic's alias was not sent."""
        self._free.append(self._alias_by_topic.pop(topic))
        del self._messages[topic]
