"""Questions to one stream's history, as values that can be sent to a reader process, and what is found.

A `Question` names a bounded range of one partition and which of its records count. `Scan` asks for the records
themselves, encoded. Whatever is asked, the answer says how far it came: the caller goes on from `next_offset`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from math import inf
from typing import ClassVar, Generic, Literal, TypeVar

from bridge.cursors import Offsets
from broker.replay import PublishRows

Encoding = Literal["event", "poll", "json", "csv", "stored", "publish", "columns"]
Order = Literal["asc", "desc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How far a question was answered."""

    next_offset: int
    """Ascending: everything below it in the range was looked at; go on there. Descending: everything at or above it
    was looked at; go on below it (as the next question's `end`)."""
    first_offset: int
    """The oldest record kept when it was asked. Larger than the question's `start`: records in between are gone."""
    last_ms: int | None
    """Time of the last record looked at (how far a search came), epoch milliseconds; None when there was none."""
    is_epoch_current: bool = True
    """False: the stream has another epoch by now; nothing was read."""
    is_complete: bool = False
    """All that is kept of the range was looked at."""


AnswerT = TypeVar("AnswerT", bound=Answer)
AnswerT_co = TypeVar("AnswerT_co", bound=Answer, covariant=True)


@dataclass(frozen=True, slots=True)
class BareForm:
    """What another broker is given records as; see `bridge.bare_frames`."""

    removed_prefix: str = ""
    """Taken away from the front of each topic."""
    prefix: str = ""
    """Put before it then."""
    properties: bytes = b""
    """Encoded MQTT 5 properties that stand behind the publisher's."""
    left_out_client_ids: frozenset[str] = frozenset()
    """Records of these clients are left out: they came from there."""


@dataclass(frozen=True, slots=True)
class PublishForm:
    """How an MQTT subscriber takes records; see `broker.replay.ReplayRequest`."""

    is_v5: bool
    qos: int
    retain_as_published: bool = False
    subscription_identifier: int = 0
    left_out_client_id: str | None = None
    packet_bytes_max: int = 0
    bare: BareForm | None = None
    """Not None: for another broker; every frame then has `qos`."""


@dataclass(frozen=True, slots=True)
class PublishColumns:
    """What stands beside the frames of a scan in the `publish` encoding."""

    rows: PublishRows | None
    """None: every frame has QoS 0; then `offsets` and `places` are empty."""
    offsets: Sequence[int]
    """Of each frame's record."""
    places: Sequence[tuple[int, str, str]]
    """(end row, head, tail): the cursor behind a record in the rows before is head + (offset + 1) + tail."""
    left_out: int
    """Records larger than the client takes."""

    def cursor_behind(self, row: int) -> str:
        """The position of a reader that was sent all rows up to this one."""
        _, head, tail = self.places[bisect_right(self.places, row, key=_end_row)]
        return f"{head}{self.offsets[row] + 1}{tail}"


def _end_row(place: tuple[int, str, str]) -> int:
    return place[0]


@dataclass(frozen=True, slots=True)
class Question(Generic[AnswerT_co]):
    """What to look at in one partition of one stream.

    Ascending: offsets `start <= o < end`, lowest first. Descending: the same range, highest first.
    """

    stream: str
    epoch: str
    filters: tuple[str, ...]
    """MQTT topic filters; a record that any of them matches is taken. None at all: every record is, whatever its topic.
    `$share` and `$replay` do not occur here."""
    start: int
    end: int
    is_divisible: ClassVar[bool] = False
    """Parts of the range can be answered side by side, and their answers put together."""
    _: KW_ONLY
    from_ms: int | None = None
    """Leave out records received before this time (epoch milliseconds)."""
    until_ms: int | None = None
    """Leave out records received at or after this time."""
    client_id: str | None = None
    """Leave out what other clients sent."""
    contains: bytes = b""
    """Leave out records whose payload does not have these bytes in it."""
    order: Order = "asc"
    work_max: int = 1_000_000
    """Look at no more than so many records, matching or not."""
    seconds_max: float = inf
    """Answer after this, however far the search has come."""


@dataclass(frozen=True, slots=True)
class ScanResult(Answer):
    """The records that a scan found."""

    data: bytes
    """The encoded records, concatenated."""
    count: int
    """How many records `data` holds."""
    publishes: PublishColumns | None = None
    """For `publish`."""


@dataclass(frozen=True, slots=True)
class Scan(Question[ScanResult]):
    """Records, encoded. It never returns more than its bounds ask for."""

    encoding: Encoding
    """`event`: SSE `message` events, each with its `id:`. `poll`: the same as JSON objects with `event` and `cursor`.
    `json`: the objects of contract §5.1 `data`. `csv`: rows of contract §5.3's columns, without the head line.
    `json` and `poll` records are one to a line (NDJSON). `stored`: what the server itself reads
    (`bridge.encoding.decode_stored`). `publish`: MQTT PUBLISH frames in the form that `form` asks for.
    `columns`: for Parquet (`bridge.history.columns`)."""
    _: KW_ONLY
    records_max: int = 1_000
    """Return at most so many matching records."""
    bytes_max: int = 262_144
    """Stop after the record that makes the encoded result reach so many bytes."""
    cursor_head: str = ""
    """For `event`, `poll` and `publish`: the cursor of a record is head + (offset + 1) + tail."""
    cursor_tail: str = ""
    form: PublishForm | None = None
    """For `publish`."""


@dataclass(frozen=True, slots=True)
class StreamScan:
    """A bounded piece of one stream's history over all its partitions."""

    what: Scan
    """What to read, and how much at most; its own range and cursor text are not looked at."""
    start: Offsets
    end: Offsets
    """In each partition offsets `start <= o < end`; a partition that either does not name is left out."""
    before: str = ""
    """For `event`, `poll` and `publish`: the cursor's text before what it says of this stream."""
    after: str = ""
    """And behind it."""


@dataclass(frozen=True, slots=True)
class StreamScanResult:
    """What a `StreamScan` found; the fields are those of `ScanResult`, over partitions."""

    data: bytes
    count: int
    next_offsets: Offsets
    """Where to go on, in every partition of the range."""
    first_offsets: Offsets
    """The oldest record kept in each partition when the scan ran."""
    last_ms: int | None
    is_epoch_current: bool = True
    publishes: PublishColumns | None = None


@dataclass(frozen=True, slots=True)
class StreamQuestion(Generic[AnswerT_co]):
    """A question to one stream's history over all its partitions, each of which is answered by itself."""

    what: Question[AnswerT_co]
    """What is asked of a partition; its own range is not looked at."""
    start: Offsets
    end: Offsets
    """In each partition offsets `start <= o < end`; a partition that either does not name is left out."""
