"""StreamMap: which stream takes a topic, and which streams a filter has to be looked for in.

A topic belongs to the first stream, in configured order, one of whose filters matches it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.streams.log import StreamLog


class StreamMap:
    """Streams in their order, each with its topic filters."""

    def __init__(self, streams: Sequence[tuple[StreamLog, Sequence[str]]]) -> None:
        self._streams = [(log, tuple(filters)) for log, filters in streams]
        groups = ["(" + "|".join(map(_pattern, filters)) + ")" for _, filters in self._streams]
        self._stream_of = re.compile("|".join(groups), re.DOTALL)
        """The first stream that takes a topic, as the group that matches it: every new topic asks."""

    def stream_for(self, topic_name: str) -> StreamLog | None:
        """The stream that takes a topic; None: no stream does."""
        found = self._stream_of.fullmatch(topic_name)
        return None if found is None or found.lastindex is None else self._streams[found.lastindex - 1][0]

    def filters_of(self, name: str) -> tuple[str, ...]:
        """The topic filters of a stream."""
        return next(filters for log, filters in self._streams if log.name == name)

    def streams_for(self, topic_filters: Sequence[str]) -> list[StreamLog]:
        """The streams that can hold a topic which any of the filters matches, in configured order."""
        wanted: set[str] = set()
        for topic_filter in topic_filters:
            for log, filters in self._streams:
                if any(overlaps(each, topic_filter) for each in filters):
                    wanted.add(log.name)
                if any(covers(each, topic_filter) for each in filters):
                    break  # nothing of this filter gets past this stream
        return [log for log, _ in self._streams if log.name in wanted]


def _pattern(topic_filter: str) -> str:
    """A valid filter as a regular expression for whole topic names; agrees with `broker.topics.names.matches`."""
    is_deep = topic_filter.endswith("#")
    levels = topic_filter.split("/")[: -1 if is_deep else None]
    pattern = "/".join("[^/]*" if level == "+" else re.escape(level) for level in levels)
    if is_deep:
        pattern = f"{pattern}(?:/.*)?" if levels else ".*"
    return rf"(?!\$){pattern}" if topic_filter[0] in "#+" else pattern  # [MQTT-4.7.2-1]


def overlaps(first: str, second: str) -> bool:
    """Some topic is matched by both filters."""
    return _overlaps(first.split("/"), second.split("/"), True)


def _overlaps(first: list[str], second: list[str], is_root: bool) -> bool:
    if not first or not second:
        # `a/#` also matches `a`.
        return (not first or first == ["#"]) and (not second or second == ["#"])
    head, other = first[0], second[0]
    if is_root and ((head in ("#", "+") and other.startswith("$")) or (other in ("#", "+") and head.startswith("$"))):
        return False
    if head == "#" or other == "#":
        return True
    if head != other and head != "+" and other != "+":
        return False
    return _overlaps(first[1:], second[1:], False)


def covers(wide: str, narrow: str) -> bool:
    """Every topic that `narrow` matches is matched by `wide`."""
    return _covers(wide.split("/"), narrow.split("/"), True)


def _covers(wide: list[str], narrow: list[str], is_root: bool) -> bool:
    if wide == ["#"]:
        return not (is_root and narrow[0].startswith("$"))
    if not wide or not narrow:
        return wide == narrow
    head, other = wide[0], narrow[0]
    if other == "#":
        return False
    if head == "+":
        if is_root and other.startswith("$"):
            return False
    elif head != other:
        return False
    return _covers(wide[1:], narrow[1:], False)
