"""Keys and partitions: which record goes where, as the Java client would decide.

A key template is text with `{topic}`, `{topic[N]}` (level N of the topic, from 0; nothing where there is none) and
`{client_id}`. What it comes to is remembered, since murmur2 costs some 10 µs here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aiokafka.partitioner import murmur2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.records import Topic

PLACES_MAX = 100_000
"""Topics and clients whose key is remembered; beyond it all are forgotten and found again."""

_FIELD = re.compile(r"\{([^{}]*)\}")
_LEVEL = re.compile(r"topic\[(0|[1-9][0-9]{0,3})\]")


class KeyTemplateInvalid(ValueError):
    """The text is no key template; the message says what is wrong with it."""


class KeyTemplate:
    """`{topic}` and the like, ready to be filled in."""

    def __init__(self, text: str) -> None:
        """Raises: KeyTemplateInvalid"""
        self.text = text
        self._parts: list[tuple[str, str | int]] = []
        position = 0
        for field in _FIELD.finditer(text):
            self._parts.append((text[position : field.start()], _part(field[1])))
            position = field.end()
        self._rest = text[position:]
        if "{" in "".join([literal for literal, _ in self._parts]) + self._rest or "}" in self._rest:
            raise KeyTemplateInvalid(f"{text!r} has a brace without its partner")
        self.uses_client = any(part == "client_id" for _, part in self._parts)

    def key(self, topic_name: str, client_id: str) -> bytes:
        """The key of a record."""
        levels: Sequence[str] | None = None
        out = []
        for literal, part in self._parts:
            out.append(literal)
            if part == "topic":
                out.append(topic_name)
            elif part == "client_id":
                out.append(client_id)
            else:
                assert isinstance(part, int)
                levels = levels or topic_name.split("/")
                out.append(levels[part] if part < len(levels) else "")
        out.append(self._rest)
        return "".join(out).encode()


def _part(field: str) -> str | int:
    if field in ("topic", "client_id"):
        return field
    level = _LEVEL.fullmatch(field)
    if level is None:
        raise KeyTemplateInvalid(f"{{{field}}} is none of {{topic}}, {{topic[N]}}, {{client_id}}")
    return int(level[1])


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key; Java's `toPositive(murmur2(key)) % n`."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


class Placement:
    """Key and partition of each topic and client, remembered."""

    def __init__(self, template: KeyTemplate) -> None:
        self._template = template
        self._uses_client = template.uses_client
        self._partitions = 0
        self._by_topic: dict[str, tuple[bytes, int]] = {}
        self._by_client: dict[tuple[str, str], tuple[bytes, int]] = {}

    def set_partitions(self, partitions: int) -> None:
        """How many there are by now."""
        if partitions != self._partitions:
            self._partitions = partitions
            self._by_topic.clear()
            self._by_client.clear()

    def of(self, topic_name: str, client_id: str) -> tuple[bytes, int]:
        """Key and partition."""
        known = self._by_client.get((client_id, topic_name)) if self._uses_client else self._by_topic.get(topic_name)
        return known or self._learn(topic_name, client_id)

    # hot path: tests/bench/kafka_records.py
    def by_partition(
        self, topics: Sequence[Topic], rows: Sequence[int], client_id: str
    ) -> dict[int, tuple[Sequence[int], list[bytes]]]:
        """Rows of a client's run and their keys by partition; `topics` are of all rows of the run."""
        places: dict[Topic, tuple[bytes, int]] = {}
        partitions: set[int] = set()
        for topic in set(topics):
            place = self.of(topic.name, client_id)
            places[topic] = place
            partitions.add(place[1])
        if len(partitions) == 1:
            return {partitions.pop(): (rows, [places[topics[row]][0] for row in rows])}
        found: dict[int, tuple[list[int], list[bytes]]] = {}
        for row in rows:
            key, partition = places[topics[row]]
            part = found.get(partition)
            if part is None:
                part = found[partition] = ([], [])
            part[0].append(row)
            part[1].append(key)
        return found  # type: ignore[return-value]  # a list is a sequence

    def _learn(self, topic_name: str, client_id: str) -> tuple[bytes, int]:
        key = self._template.key(topic_name, client_id)
        place = (key, partition_of(key, self._partitions))
        if len(self._by_topic) + len(self._by_client) >= PLACES_MAX:
            self._by_topic.clear()
            self._by_client.clear()
        if self._uses_client:
            self._by_client[client_id, topic_name] = place
        else:
            self._by_topic[topic_name] = place
        return place
