"""Cursor: where a reader stands in every stream that it follows, and its text.

The text is opaque to the outside: `stream~epoch~partition.offset_partition.offset`, streams parted by `~~`, one `~`
alone when there is no stream. A stream with a spool has two fields more, the spool's epoch and offset; `-` stands for
an epoch and offsets that are not known yet. It needs no escaping in a URL, a header or JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CURSOR_BYTES_MAX = 2048

SPOOL = -1
"""The number under which `Offsets` hold the place in a stream's spool."""

Offsets = Mapping[int, int]
"""Next offset to read, by partition. Never changed: whoever moves a position makes a new one."""

_CURSOR_TEXT = re.compile(r"[A-Za-z0-9._~-]+")
_STREAM_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EPOCH = re.compile(r"[A-Za-z0-9_-]+")
_PLACE = re.compile(r"(0|[1-9][0-9]{0,9})\.(0|[1-9][0-9]{0,18})")
_OFFSET = re.compile(r"0|[1-9][0-9]{0,18}")
_NO_STREAM = "~"
UNKNOWN = "-"
"""In place of an epoch: the stream's Kafka topic has not been seen yet."""


class CursorInvalid(ValueError):
    """The text is no cursor at all; the message says what is wrong with it."""


class CursorTooLong(ValueError):
    """The positions of so many streams and partitions do not fit into a cursor."""


def distance(start: Offsets, end: Offsets) -> int:
    """How many offsets lie between two places; a partition that `start` does not name counts from its beginning."""
    return sum([max(0, offset - start.get(partition, 0)) for partition, offset in end.items()])


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """The next offset to read in each partition of one stream, in one epoch of it, and in its spool."""

    epoch: str
    offset_by_partition: Offsets
    """With `SPOOL` among the partitions exactly when `spool_epoch` is set."""
    spool_epoch: str | None = None

    def text(self, stream: str) -> str:
        offsets = self.offset_by_partition
        places = "_".join([f"{partition}.{offsets[partition]}" for partition in sorted(offsets) if partition >= 0])
        text = f"{stream}~{self.epoch}~{places or UNKNOWN}"
        return text if self.spool_epoch is None else f"{text}~{self.spool_epoch}~{offsets[SPOOL]}"

    def around(self, stream: str, partition: int) -> tuple[str, str]:
        """The text with the offset in `partition` left out between its two parts."""
        offsets = self.offset_by_partition
        spool = "" if self.spool_epoch is None else f"~{self.spool_epoch}~"
        head = f"{stream}~{self.epoch}~"
        if partition == SPOOL:
            places = "_".join([f"{number}.{offsets[number]}" for number in sorted(offsets) if number >= 0])
            return head + (places or UNKNOWN) + spool, ""
        lower = "".join([f"{number}.{offsets[number]}_" for number in sorted(offsets) if 0 <= number < partition])
        higher = "".join([f"_{number}.{offsets[number]}" for number in sorted(offsets) if number > partition])
        return f"{head}{lower}{partition}.", higher + (f"{spool}{offsets[SPOOL]}" if spool else "")


class MovingPosition:
    """`StreamPosition.around` for who moves from record to record: of many partitions few have moved since the last."""

    __slots__ = ("_epoch", "_partitions", "_spool_epoch", "_stream", "_texts")

    def __init__(self, stream: str, epoch: str, spool_epoch: str, partitions: Iterable[int]) -> None:
        self._stream = stream
        self._epoch = epoch
        self._spool_epoch = spool_epoch
        self._partitions = sorted(partition for partition in partitions if partition != SPOOL)
        self._texts: dict[int, tuple[int, str]] = {}
        """Of each partition the offset, and how the cursor says it."""

    def around(self, offsets: Offsets, partition: int) -> tuple[str, str]:
        """The text with the offset in `partition` left out between its two parts; the spool's is 0 when not given."""
        texts = self._texts
        places = []
        for number in self._partitions:
            offset = offsets[number]
            text = texts.get(number)
            if text is None or text[0] != offset:
                text = texts[number] = (offset, f"{number}.{offset}")
            places.append(text[1])
        head, spool = f"{self._stream}~{self._epoch}~", f"~{self._spool_epoch}~"
        if partition == SPOOL:
            return f"{head}{'_'.join(places) or UNKNOWN}{spool}", ""
        index = self._partitions.index(partition)
        head += "_".join([*places[:index], f"{partition}."])
        return head, "_".join(["", *places[index + 1 :]]) + f"{spool}{offsets.get(SPOOL, 0)}"


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
        before, after = self.beside(stream)
        head, tail = self.position_by_stream[stream].around(stream, partition)
        head, tail = before + head, tail + after
        _checked(head + "9" * 19 + tail)
        return head, tail

    def beside(self, stream: str) -> tuple[str, str]:
        """The text before and behind what it says of `stream`."""
        before: list[str] = []
        after: list[str] = []
        side = before
        for name, position in self.position_by_stream.items():
            if name == stream:
                side = after
            else:
                side.append(position.text(name))
        return "".join([f"{text}~~" for text in before]), "".join([f"~~{text}" for text in after])


def is_stream_name(name: str) -> bool:
    """Whether a cursor can carry this stream name."""
    return _STREAM_NAME.fullmatch(name) is not None and len(name) <= 200


def _checked(text: str) -> str:
    if len(text) > CURSOR_BYTES_MAX:
        raise CursorTooLong(f"a cursor of {len(text)} characters is longer than {CURSOR_BYTES_MAX}")
    return text or _NO_STREAM


def _parse_position(part: str) -> tuple[str, StreamPosition]:
    fields = part.split("~")
    if len(fields) not in (3, 5) or not is_stream_name(fields[0]) or _EPOCH.fullmatch(fields[1]) is None:
        raise CursorInvalid(f"{part!r} is not stream~epoch~offsets")
    offsets: dict[int, int] = {}
    for place in fields[2].split("_") if fields[2] != UNKNOWN or len(fields) == 3 else ():
        match = _PLACE.fullmatch(place)
        if match is None:
            raise CursorInvalid(f"{place!r} is not partition.offset")
        partition = int(match[1])
        if partition in offsets:
            raise CursorInvalid(f"partition {partition} is named twice")
        offsets[partition] = int(match[2])
    if len(fields) == 3:
        return fields[0], StreamPosition(fields[1], offsets)
    if _EPOCH.fullmatch(fields[3]) is None or _OFFSET.fullmatch(fields[4]) is None:
        raise CursorInvalid(f"{part!r} does not end in the epoch and offset of a spool")
    offsets[SPOOL] = int(fields[4])
    return fields[0], StreamPosition(fields[1], offsets, fields[3])
