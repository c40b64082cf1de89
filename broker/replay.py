"""Replay: the broker's port to what was stored. A subscription with a `since` gets its messages from here alone.

The broker asks a `ReplaySource` (the bridge has one) to open a feed for a reader, and pulls: each `pull` brings one
piece, soon while there is history, else when something that matches has been committed. All calls are plain, happen on
the event loop's thread, and never call back from inside. Positions are texts that only the source understands.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from broker.codec.constants import LEVEL_3_1_1, LEVEL_5
from broker.codec.decode import decode_packet, next_frame
from broker.codec.encode import PACKET_IDS, encode_publish

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.codec.packets import Publish

REPLAY_PREFIX = "$replay/"


class ReplayRefused(ValueError):
    """A replay that cannot begin; `reason_code` is what SUBACK says."""

    def __init__(self, reason_code: int, text: str) -> None:
        super().__init__(text)
        self.reason_code = reason_code


@dataclass(frozen=True, slots=True)
class ReplayState:
    """A replay subscription that can be gone on with: all of it, as plain values."""

    name: str
    """The topic filter of its SUBSCRIBE, which UNSUBSCRIBE names."""
    topic_filter: str
    """What it looks for."""
    since: str
    """As it was asked for; a SUBSCRIBE that says the same goes on where this one stands."""
    position: str
    """Everything before it has been sent, or is in flight."""
    qos: int
    no_local: bool
    retain_as_published: bool
    subscription_identifier: int


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """What a feed is to give, and in which form."""

    name: str
    topic_filter: str
    position: str
    is_v5: bool
    qos: int
    """The highest that frames may have; a record published with a lower one keeps that."""
    retain_as_published: bool
    subscription_identifier: int
    """0: none."""
    left_out_client_id: str | None
    """No Local: records of this client are left out. [MQTT-3.8.3-3]"""
    packet_bytes_max: int
    """Frames larger than this are left out and counted; 0: no limit. [MQTT-3.1.2-25]"""


class PublishRows:
    """Columns beside PUBLISH frames that stand back to back, for those that have QoS 1 or 2 among them."""

    __slots__ = ("ends", "id_places", "stretches")

    def __init__(self, ends: Sequence[int], id_places: Sequence[int], stretches: Sequence[tuple[int, int]]) -> None:
        self.ends = ends
        """One past the last byte of each frame."""
        self.id_places = id_places
        """Where the two bytes of each frame's packet id stand; anything for QoS 0."""
        self.stretches = stretches
        """(end row, QoS) of each stretch of frames with the same QoS, in order."""

    def __reduce__(self) -> tuple[type[PublishRows], tuple[Sequence[int], Sequence[int], Sequence[tuple[int, int]]]]:
        """It comes from another process, and a compiled class is not made anew without its arguments."""
        return PublishRows, (self.ends, self.id_places, self.stretches)


class ReplayPiece:
    """Some messages of a replay as ready PUBLISH frames. It does not change, and may serve many readers."""

    __slots__ = ("count", "data", "is_v5", "left_out", "position_at", "rows", "way")

    def __init__(
        self,
        data: bytes,
        count: int,
        rows: PublishRows | None,
        is_v5: bool,
        position_at: Callable[[int], str],
        left_out: int = 0,
    ) -> None:
        self.data = data
        self.count = count
        self.rows = rows
        """None: every frame has QoS 0, so that `data` can leave as it stands."""
        self.is_v5 = is_v5
        self.position_at = position_at
        """The position of a reader that was sent so many of the frames."""
        self.left_out = left_out
        """Messages that are not among them because the client does not take packets so large."""
        self.way: object | None = None
        """Of the replay that has taken it: what is in flight of that is known by it."""

    def stretch(self, row: int) -> tuple[int, int]:
        """End row and QoS of the stretch that `row` is in."""
        assert self.rows is not None
        stretches = self.rows.stretches
        return stretches[bisect_right(stretches, row, key=_end_row)]

    def frames(self, row: int, end_row: int) -> bytes:
        """The frames of some rows, as they stand."""
        assert self.rows is not None
        return self.data[self._start(row) : self.rows.ends[end_row - 1]]

    def numbered(self, row: int, end_row: int, first_id: int) -> bytes:
        """The frames of some rows with the packet ids from `first_id` on."""
        assert self.rows is not None
        data = self.data
        count = end_row - row
        places = self.rows.id_places[row:end_row]
        starts = [self._start(row), *[place + 2 for place in places]]
        stops = [*places, self.rows.ends[end_row - 1]]
        parts = [b""] * (2 * count + 1)
        parts[0::2] = [data[start:stop] for start, stop in zip(starts, stops, strict=True)]
        parts[1::2] = PACKET_IDS[first_id : first_id + count]
        return b"".join(parts)

    def split(self, row: int, is_v5: bool) -> tuple[bytes, bytes]:
        """One frame of QoS 1 or 2, cut where the packet id belongs.

        A client that comes back with another version of MQTT gets it in that one: to 3.1.1 without its properties.
        """
        assert self.rows is not None
        start = self._start(row)
        place = self.rows.id_places[row] - start
        frame = self.data[start : self.rows.ends[row]]
        if is_v5 != self.is_v5:
            frame, place = _converted(frame[:place] + PACKET_IDS[1] + frame[place + 2 :], is_v5)
        return frame[:place], frame[place + 2 :]

    def _start(self, row: int) -> int:
        assert self.rows is not None
        return self.rows.ends[row - 1] if row else 0


def _end_row(stretch: tuple[int, int]) -> int:
    return stretch[0]


def _converted(frame: bytes, is_v5: bool) -> tuple[bytes, int]:
    """A frame of the other version, and where its packet id stands."""
    found = next_frame(frame, 0, len(frame))
    assert found is not None
    first_byte, body_start, end = found
    packet: Publish = decode_packet(first_byte, frame[body_start:end], LEVEL_3_1_1 if is_v5 else LEVEL_5)
    packet.properties = None
    converted = encode_publish(packet, LEVEL_5 if is_v5 else LEVEL_3_1_1)
    after_id = len(packet.payload) + (1 if is_v5 else 0)
    return converted, len(converted) - after_id - 2


class ReplayReader(Protocol):
    """Who is fed."""

    def take(self, piece: ReplayPiece) -> None:
        """The next piece, one for each `ReplayFeed.pull`."""


class ReplayFeed(Protocol):
    """One reader's way through the streams that its filter reaches."""

    def pull(self) -> None:
        """Give the reader one more piece when there is one."""

    def position(self) -> str:
        """Where the reader stands once it has sent all that it was given."""

    def close(self) -> None:
        """Nothing more is wanted."""


class ReplaySource(Protocol):
    """What was stored, and what is stored from now on."""

    def start(self, topic_filter: str, since: str, now_ms: int) -> str:
        """The position at which a replay from `since` begins.

        Raises:
            ReplayRefused: `since` is no time, or the filter reaches more than one replay can follow.
        """

    def open(self, request: ReplayRequest, reader: ReplayReader) -> ReplayFeed:
        """Feed a reader from `request.position` on, in order, without gap or repeat; what is gone is told."""
