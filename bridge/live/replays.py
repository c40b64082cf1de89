"""Replays: what was stored, then what is stored from now on, for MQTT subscriptions with a `since`.

A feed stands at a position and reads the log piece by piece, as far as the hub has come; then it waits until the hub
rings. So history and live are one reading, without gap or repeat, and a subscriber costs nothing while nothing matches.
Those who stand at the same place share what is read. The broker keeps the positions; what they say is known here alone.
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections import deque
from typing import TYPE_CHECKING

import orjson

from bridge.cursors import Cursor, CursorTooLong, distance
from bridge.history.scan import PublishForm, Scan, StreamScan
from bridge.live.events import gap_data
from bridge.live.group import Bell
from bridge.live.pieces import LIFE_S, Pieces
from bridge.live.start import Gap, start_at_cursor, start_at_time
from bridge.quantities import parse_time_ms
from bridge.streams.log import StreamLogError
from broker.codec.encode import encode_publish
from broker.codec.packets import Publish
from broker.codec.properties import Properties
from broker.replay import PublishRows, ReplayPiece, ReplayRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridge.cursors import Offsets
    from bridge.history.scan import BareForm, PublishColumns
    from bridge.live.hub import Hub
    from bridge.streams.log import StreamLog
    from broker.replay import ReplayReader, ReplayRequest

logger = logging.getLogger("headrace.replay")

GAP_TOPIC = "$replay/gap"
TOPIC_FILTER_INVALID = 0x8F
QUOTA_EXCEEDED = 0x97
RETRY_S = 1.0
"""When history could not be read, the replay tries again after this."""
SLICE_S = 0.002
"""Pieces that were read for others are handed on without waiting; the loop runs in between after this."""

PIECES_MAX = 8
"""Pieces that others may share; they are large, and those who stand at the same place come soon."""

_AT = "@"
"""Before the epoch milliseconds of a position whose offsets are not known yet."""
_OFFSET_MOST = 10**12


class LogReplays:
    """Implements `broker.replay.ReplaySource` over the streams' logs."""

    def __init__(
        self,
        hub: Hub,
        streams_for: Callable[[Sequence[str]], Sequence[StreamLog]],
        on_given: Callable[[], None],
        retry_s: float = RETRY_S,
    ) -> None:
        self.hub = hub
        self._retry_s = retry_s
        self.gaps = 0
        """Gaps that were told."""
        self.read_failures = 0
        self.pieces = Pieces(PIECES_MAX)
        self._streams_for = streams_for
        self._on_given = on_given
        """Called when a connection has something to be written."""
        self._hungry: deque[LogFeed] = deque()
        self._fed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._dropping: asyncio.TimerHandle | None = None

    # Life

    def open_feeders(self) -> None:
        """Begin to read for feeds; needs a running loop."""
        self._tasks = [asyncio.create_task(self._feed()) for _ in range(self.hub.limits.feeders)]

    async def close(self) -> None:
        """Stop reading."""
        if self._dropping is not None:
            self._dropping.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    # broker.replay.ReplaySource

    def start(self, topic_filter: str, since: str, now_ms: int) -> str:
        """The position at which a replay begins. Raises: ReplayRefused."""
        return self.start_of((topic_filter,), since, now_ms)

    def start_of(self, filters: Sequence[str], since: str, now_ms: int) -> str:
        """The same for several filters. Raises: ReplayRefused."""
        streams = [log.name for log in self._streams_for(filters)]
        present = self.hub.offsets_of(streams)
        try:
            longest = {name: dict.fromkeys(offsets, _OFFSET_MOST) for name, offsets in present.items()}
            self.hub.cursor_text(longest)
        except CursorTooLong as error:
            raise ReplayRefused(QUOTA_EXCEEDED, f"the filter reaches too many streams: {error}") from error
        if since == "now":  # a record of this very millisecond may be older
            return self.hub.cursor_text(present)
        try:
            return f"{_AT}{parse_since_ms(since, now_ms)}"
        except ValueError as error:
            raise ReplayRefused(TOPIC_FILTER_INVALID, str(error)) from error

    def open(self, request: ReplayRequest, reader: ReplayReader) -> LogFeed:
        """Feed a reader from its position on."""
        return LogFeed(self, self._streams_for((request.topic_filter,)), request, reader)

    # Reading

    def queue(self, feed: LogFeed) -> None:
        """A feed wants its next piece; they take turns."""
        if not feed.is_queued:
            feed.is_queued = True
            self._hungry.append(feed)
            self._fed.set()

    async def _feed(self) -> None:
        loop = asyncio.get_running_loop()
        slice_end = loop.time() + SLICE_S
        while True:
            while not self._hungry:
                self._fed.clear()
                await self._fed.wait()
                slice_end = loop.time() + SLICE_S
            feed = self._hungry.popleft()
            try:
                piece = await feed.read()
            except Exception as error:
                self._failed(feed, error)
                loop.call_later(self._retry_s, self._retry, feed)
                continue
            feed.is_queued = False  # only now: two feeders must never hold one feed
            if piece is not None and not feed.is_closed:
                self._give(feed, piece)
            if feed.wanted and not feed.is_waiting and not feed.is_closed:
                self.queue(feed)
            if loop.time() > slice_end:
                await asyncio.sleep(0)
                slice_end = loop.time() + SLICE_S

    def _give(self, feed: LogFeed, piece: ReplayPiece) -> None:
        try:
            feed.give(piece)
        except Exception:  # one connection's failure must not stop the feeder of the others
            logger.exception("a replay could not be sent")
        self._on_given()
        if self._dropping is None:
            self._dropping = asyncio.get_running_loop().call_later(2 * LIFE_S, self._drop_old)

    def _drop_old(self) -> None:
        self._dropping = None
        self.pieces.drop_old()

    def _failed(self, feed: LogFeed, error: Exception) -> None:
        """Said once for a feed: the disk that cannot be read now may be read later."""
        self.read_failures += 1
        if not feed.has_failed:
            feed.has_failed = True
            is_expected = isinstance(error, StreamLogError)
            logger.error("%s waits: %s", feed.request.name, error, exc_info=None if is_expected else error)

    def _retry(self, feed: LogFeed) -> None:
        feed.is_queued = False
        if not feed.is_closed:
            self.queue(feed)


class LogFeed:
    """One replay's way through the streams that its filter reaches (`broker.replay.ReplayFeed`)."""

    __slots__ = (
        "_filters",
        "_form",
        "_hub",
        "_logs",
        "_offsets",
        "_reader",
        "_replays",
        "_take_down",
        "has_failed",
        "is_closed",
        "is_queued",
        "is_waiting",
        "request",
        "wanted",
    )

    def __init__(
        self,
        replays: LogReplays,
        logs: Sequence[StreamLog],
        request: ReplayRequest,
        reader: ReplayReader,
        filters: tuple[str, ...] | None = None,
        bare: BareForm | None = None,
    ) -> None:
        """`filters`: instead of the request's one. `bare`: for another broker."""
        self.request = request
        self.wanted = 0
        """Pieces that the reader has asked for and not got."""
        self.is_queued = False
        self.is_waiting = False
        """It has all that was committed: its position is the hub's until something that matches comes."""
        self.is_closed = False
        self.has_failed = False
        self._replays = replays
        self._hub = replays.hub
        self._logs = logs
        self._reader = reader
        self._filters = filters or (request.topic_filter,)
        self._form = PublishForm(
            request.is_v5,
            request.qos,
            request.retain_as_published,
            request.subscription_identifier,
            request.left_out_client_id,
            request.packet_bytes_max,
            bare,
        )
        self._offsets: dict[str, Offsets] | None = None
        self._take_down = self._hub.hang(Bell(self._filters, self._ring))

    # What the broker calls

    def pull(self) -> None:
        self.wanted += 1
        if not self.is_waiting:
            self._replays.queue(self)

    def position(self) -> str:
        if self.is_waiting:
            return self._hub.cursor_text(self._hub.offsets_of([log.name for log in self._logs]))
        return self.request.position if self._offsets is None else self._hub.cursor_text(self._offsets)

    def close(self) -> None:
        self.is_closed = True
        self._take_down()

    # What the hub and the feeders call

    def _ring(self) -> None:
        """Something that matches was committed. Whatever came before it did not, or the bell would have rung."""
        if self.is_waiting:
            self.is_waiting = False
            self._offsets = self._hub.offsets_of([log.name for log in self._logs])
            self._replays.queue(self)

    def give(self, piece: ReplayPiece) -> None:
        """Hand over a piece that was asked for."""
        self.wanted -= 1
        self._reader.take(piece)

    async def read(self) -> ReplayPiece | None:
        """Take one step: the next piece, or None when this step found none.

        Raises: StreamLogError and whatever else reading the log may raise.
        """
        if self.is_closed:
            return None
        if self._offsets is None:
            gaps = await self._begin()
            if gaps:
                return self._gap_piece(gaps)
        behind = self._streams_behind()
        self.is_waiting = not behind
        error: StreamLogError | None = None
        for log in behind:
            try:
                piece = await self._read_stream(log, self._offsets or {})
            except StreamLogError as failure:  # it holds up none of the others
                if not failure.retriable:
                    raise
                error = failure
            else:
                if piece is not None or self.is_closed:
                    return piece
        if error is not None:
            raise error
        return None

    async def _begin(self) -> list[Gap]:
        """Find the offsets of the position."""
        position = self.request.position
        if position.startswith(_AT):
            start = await start_at_time(self._logs, int(position[len(_AT) :]))
        else:
            start = start_at_cursor(self._hub, self._logs, Cursor.parse(position))
        self._offsets = start.offsets
        return start.gaps

    def _streams_behind(self) -> list[StreamLog]:
        """Those that have more than was read of them."""
        present, offsets = self._hub.offsets, self._offsets or {}
        return [log for log in self._logs if distance(offsets[log.name], present[log.name])]

    async def _read_stream(self, log: StreamLog, offsets: dict[str, Offsets]) -> ReplayPiece | None:
        hub, limits, name = self._hub, self._hub.limits, log.name
        end = hub.offsets[name]
        start = {partition: offsets[name].get(partition, 0) for partition in end}
        before, after = hub.beside(offsets, name)
        what = Scan(
            name,
            log.epoch,
            self._filters,
            0,
            0,
            "publish",
            records_max=limits.scan_records_max,
            bytes_max=limits.replay_piece_bytes_max,
            work_max=limits.scan_work_max,
            form=self._form,
        )
        result = await self._replays.pieces.read(log, StreamScan(what, start, end, before, after))
        if self.is_closed:
            return None
        stood_at = hub.cursor_text(offsets)
        first = result.first_offsets
        lost = distance(start, {partition: first[partition] for partition in start if partition in first})
        if not result.is_epoch_current or lost:
            offsets[name] = (
                {partition: max(offset, first.get(partition, 0)) for partition, offset in start.items()}
                if result.is_epoch_current
                else {**start, **first}
            )
            stands_at = hub.cursor_text(offsets)
            # What was found behind the gap is read again: a piece has one kind of rows, and this is rare.
            if result.is_epoch_current:
                return self._gap_piece([Gap(stood_at, stands_at, lost, "retention")])
            return self._gap_piece([Gap(stood_at, stands_at, None, "epoch")])
        offsets[name] = {
            partition: max(offset, result.next_offsets.get(partition, 0)) for partition, offset in start.items()
        }
        columns = result.publishes
        assert columns is not None  # the scan asked for it
        if not result.count and not columns.left_out:
            return None
        return ReplayPiece(
            result.data,
            result.count,
            columns.rows,
            self._form.is_v5,
            _positions(stood_at, columns),
            columns.left_out,
        )

    def _gap_piece(self, gaps: Sequence[Gap]) -> ReplayPiece:
        """Each gap as a message to this subscriber, so that none is silent."""
        request = self.request
        self._replays.gaps += len(gaps)
        frames: list[bytes] = []
        payloads = [orjson.dumps(gap_data(gap.before, gap.after, gap.lost, gap.reason)) for gap in gaps]
        limit = request.packet_bytes_max
        for gap, payload in zip(gaps, payloads, strict=True):
            properties = Properties() if request.is_v5 else None
            if properties is not None:
                properties.content_type = "application/json"
                properties.user_properties = [("reason", gap.reason), ("filter", request.name)]
                if request.subscription_identifier:
                    properties.subscription_identifiers = [request.subscription_identifier]
            packet = Publish(GAP_TOPIC, payload, request.qos, False, False, 1 if request.qos else 0, properties)
            frame = encode_publish(packet, 5 if request.is_v5 else 4)
            if not limit or len(frame) <= limit:
                frames.append(frame)
        ends, id_places = array("I"), array("I")
        position = 0
        for frame in frames:
            id_places.append(position + frame.index(GAP_TOPIC.encode()) + len(GAP_TOPIC))
            position += len(frame)
            ends.append(position)
        rows = PublishRows(ends, id_places, ((len(frames), request.qos),)) if request.qos and frames else None
        first, last = gaps[0].before, gaps[-1].after
        return ReplayPiece(
            b"".join(frames),
            len(frames),
            rows,
            request.is_v5,
            lambda row: last if row == len(frames) else first,
            len(gaps) - len(frames),
        )


def parse_since_ms(text: str, now_ms: int) -> int:
    """Epoch milliseconds of a `since` in a topic filter, where a `+` would be a wildcard: RFC 3339 has to say `Z`.

    Raises: ValueError.
    """
    is_plain = text.startswith("-") or text.isdecimal() or text.upper().endswith("Z")
    if not is_plain or "+" in text:
        raise ValueError(f"{text!r} is no time; write -15m, epoch milliseconds, now, or RFC 3339 with Z")
    return parse_time_ms(text, now_ms)


def _positions(stood_at: str, columns: PublishColumns) -> Callable[[int], str]:
    return lambda row: columns.cursor_behind(row - 1) if row else stood_at
