"""What a replay reads from: a range of one stream, as pieces of text or as messages, with the position behind each.

`bridge.replay.directory` reads a data directory, `bridge.replay.topic` Kafka, `bridge.replay.server` a server; who
writes what was read knows none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from bridge.cursors import SPOOL, Offsets, StreamPosition
from bridge.replay.text_records import Place, RecordText

RETRY_S = 60.0
"""So long what is read from may be away in the middle of a range."""
RETRY_PAUSE_S = 0.5


class ReplayFailed(Exception):
    """A replay cannot begin or go on; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records are wanted."""

    stream: str
    filters: tuple[str, ...]
    """MQTT topic filters; none at all: every topic."""
    from_ms: int | None
    """None: from the oldest on."""
    to_ms: int


class Piece(NamedTuple):
    """Some whole records as text."""

    data: bytes
    records: int
    position: StreamPosition
    """Behind them, and behind what lay between them and did not match."""


@dataclass(frozen=True, slots=True)
class Message:
    """One record, as it was published."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    time_ms: int
    place: Place
    properties: dict[str, Any] = field(default_factory=dict)
    """As contract §5.1 names them."""


class Source(Protocol):
    """One range of one stream, read once from its beginning or from a position in it."""

    position: StreamPosition
    """Where reading goes on, after `begin`."""
    end: Offsets
    """Where the range ends, as far as it is known."""
    lost: int
    """Records of the range that retention had dropped before they were read."""

    def begin(self, wanted: Wanted, position: StreamPosition | None) -> None:
        """Find the range; `position` is where an earlier run came to.

        Raises: ReplayFailed
        """

    def text(self, form: RecordText) -> Iterator[Piece]:
        """The rest of the range as text, without a head line.

        Raises: ReplayFailed
        """

    def parquet(self) -> Iterator[Piece]:
        """The whole range as a Parquet file; what a piece of it covers need not be known.

        Raises: ReplayFailed
        """

    def messages(self) -> Iterator[Message]:
        """The rest of the range as messages.

        Raises: ReplayFailed
        """

    def close(self) -> None:
        """Let go of what it reads from."""


def behind(position: StreamPosition, place: Place) -> StreamPosition:
    """A position behind one more record."""
    is_spooled = position.spool_epoch is not None and place.epoch == position.spool_epoch
    partition = SPOOL if is_spooled else place.partition
    offsets = {**position.offset_by_partition, partition: place.offset + 1}
    return StreamPosition(position.epoch, offsets, position.spool_epoch)


def check_epoch(stream: str, position: StreamPosition, epoch: str) -> None:
    """Raises: ReplayFailed, when a position is of another life of the stream."""
    if position.epoch != epoch:
        raise ReplayFailed(
            f"stream {stream} has begun anew since (epoch {epoch}, before it was {position.epoch}): "
            "what was replayed so far is of the old one. Begin again without --resume."
        )
