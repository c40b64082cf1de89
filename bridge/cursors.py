"""Cursor: where a reader stands in every stream that it follows, and its text.

The text is opaque to the outside: `stream~epoch~partition.offset_partition.offset`, streams parted by `~~`, one `~`
alone when there is no stream. It needs no escaping in a URL, a header or JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

CURSOR_BYTES_MAX = 2048

_CURSOR_TEXT = re.compile(r"[A-Za-z0-9._~-]+")
_STREAM_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EPOCH = re.compile(r"[A-Za-z0-9-]+")
_PLACE = re.compile(r"(0|[1-9][0-9]{0,9})\.(0|[1-9][0-9]{0,18})")
_NO_STREAM = "~"


class CursorInvalid(ValueError):
    """The text is no cursor at all; the message says what is wrong with it."""


class CursorTooLong(ValueError):
    """The positions of so many streams and partitions do not fit into a cursor."""


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """The next offset to read in each partition of one stream, in one epoch of it."""

    epoch: str
    offset_by_partition: Mapping[int, int]

    def text(self, stream: str) -> str:
        places = "_".join(f"{partition}.{offset}" for partition, offset in sorted(self.offset_by_partition.items()))
        return f"{stream}~{self.epoch}~{places}"


@dataclass(frozen=True, slots=True)
class Cursor:
    """Everything before these positions was sent to the reader or is of no interest to it."""

    position_by_stream: Mapping[str, StreamPosition]

    def __str__(self) -> str:
        """The text form. Raises: CursorTooLong."""
        return _checked("~~".join(position.text(name) for name, position in self.position_by_stream.items()))

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read a text form. Raises: CursorInvalid."""
        if len(text) > CURSOR_BYTES_MAX:
            raise CursorInvalid(f"a cursor has at most {CURSOR_BYTES_MAX} characters, this has {len(text)}")
        if _CURSOR_TEXT.fullmatch(text) is None:
            raise CursorInvalid("a cursor holds only letters, digits and . _ ~ -")
        positions: dict[str, StreamPosition] = {}
        if text == _NO_STREAM:
            return cls(positions)
        for part in text.split("~~"):
            stream, position = _parse_position(part)
            if stream in positions:
                raise CursorInvalid(f"stream {stream!r} is named twice")
            positions[stream] = position
        return cls(positions)

    def around(self, stream: str, partition: int = 0) -> tuple[str, str]:
        """Head and tail of the text with `stream`'s offset in `partition` left out between them.

        Raises: CursorTooLong, so that head + any offset + tail is never longer than a cursor may be.
        """
        before: list[str] = []
        after: list[str] = []
        side = before
        head = tail = ""
        for name, position in self.position_by_stream.items():
            if name != stream:
                side.append(position.text(name))
                continue
            places = sorted(position.offset_by_partition.items())
            lower = "".join(f"{number}.{offset}_" for number, offset in places if number < partition)
            higher = "".join(f"_{number}.{offset}" for number, offset in places if number > partition)
            head, tail = f"{name}~{position.epoch}~{lower}{partition}.", higher
            side = after
        head = "~~".join([*before, head])
        tail = "~~".join([tail, *after])
        _checked(head + "9" * 19 + tail)
        return head, tail


def is_stream_name(name: str) -> bool:
    """Whether a cursor can carry this stream name."""
    return _STREAM_NAME.fullmatch(name) is not None and len(name) <= 200


def _checked(text: str) -> str:
    if len(text) > CURSOR_BYTES_MAX:
        raise CursorTooLong(f"a cursor of {len(text)} characters is longer than {CURSOR_BYTES_MAX}")
    return text or _NO_STREAM


def _parse_position(part: str) -> tuple[str, StreamPosition]:
    fields = part.split("~")
    if len(fields) != 3 or not is_stream_name(fields[0]) or _EPOCH.fullmatch(fields[1]) is None:
        raise CursorInvalid(f"{part!r} is not stream~epoch~offsets")
    offsets: dict[int, int] = {}
    for place in fields[2].split("_"):
        match = _PLACE.fullmatch(place)
        if match is None:
            raise CursorInvalid(f"{place!r} is not partition.offset")
        partition = int(match[1])
        if partition in offsets:
            raise CursorInvalid(f"partition {partition} is named twice")
        offsets[partition] = int(match[2])
    return fields[0], StreamPosition(fields[1], offsets)
