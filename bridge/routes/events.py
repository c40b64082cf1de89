"""Live events: `/api/v1/events` (Server-Sent Events) and `/api/v1/poll` (the same by long polling)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_args

import orjson
from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from bridge.cursors import CursorTooLong, Offsets, distance
from bridge.errors import ParameterInvalid, Unavailable
from bridge.history.overview import state
from bridge.history.scan import Scan, StreamScan
from bridge.live.events import gap_data
from bridge.live.group import Bell
from bridge.live.handover import EXTENSION, Http
from bridge.live.held import Overflow
from bridge.live.hub import Hub
from bridge.live.pacing import ends_at, now_ms
from bridge.live.response import EventStream
from bridge.live.snapshots import PastSnapshot, Snapshot
from bridge.live.start import Start, start_at_cursor, start_at_time, start_live
from bridge.node import Node
from bridge.routes.parameters import (
    parse_choice,
    parse_cursor,
    parse_filters,
    parse_flag,
    parse_number,
    parse_speed,
    parse_time,
    refuse_later,
    single_value,
)
from bridge.streams.log import StreamLog

router = APIRouter(prefix="/api/v1", tags=["live"])

LATER = ("max_rate", "exact", "stats", "client_id", "contains", "at")
POLL_WAIT_S = 30
POLL_LIMIT = 1_000

EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-Sent Events: message, snapshot, live, gap, end; what moves the reader has an id.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "The cursor is at or beyond `until`: there is nothing more. It stops an EventSource."},
}


@router.get("/events", summary="Live events (SSE)", responses=EVENT_STREAM, response_class=Response)
async def events(
    request: Request,
    topic: Annotated[list[str] | None, Query(description="MQTT topic filter; repeatable, at least one")] = None,
    since: Annotated[str | None, Query(description="Begin with history: RFC 3339, epoch ms, -15m or now")] = None,
    until: Annotated[str | None, Query(description="End with what was received before this time")] = None,
    speed: Annotated[
        str, Query(description="History so many times as fast as it happened; max: as fast as it can be read")
    ] = "max",
    snapshot: Annotated[
        str | None, Query(description="1: first the latest value of every matching topic; with since as it was then")
    ] = None,
    overflow: Annotated[
        str, Query(description="What a slow reader gets: replay, conflate, drop_oldest, drop_newest or disconnect")
    ] = "replay",
    cursor: Annotated[str | None, Query(description="Resume after this cursor")] = None,
    last_event_id: Annotated[str | None, Header(description="Resume after this cursor; wins over `cursor`")] = None,
) -> Response:
    """History if wanted, then live, without gap or repeat.

    `Last-Event-ID` wins over `cursor`, both win over `since` and `snapshot`. With `until` the last event is `end`. A
    paced replay begins with its first event at once, keeps the order of time over all streams, and becomes live when
    it comes to the present.
    """
    node: Node = request.app.state.node
    hub = node.hub
    refuse_later(request, LATER, hub.limits)
    for name in ("since", "until", "speed", "snapshot", "overflow", "cursor"):
        single_value(request, name)
    filters = parse_filters("topic", topic or (), hub.limits)
    policy = parse_choice("overflow", overflow, get_args(Overflow))
    has_snapshot = snapshot is not None and parse_flag("snapshot", snapshot)
    now = now_ms()
    since_ms = parse_time("since", since, now) if since is not None else None
    until_ms = parse_time("until", until, now) if until is not None else None
    pace = parse_speed("speed", speed)
    is_resumed = bool(last_event_id) or cursor is not None
    if until_ms is not None and not is_resumed and until_ms <= (since_ms if since_ms is not None else now):
        raise ParameterInvalid("until", "until: this is not after `since`, or after now without it.")
    logs = node.streams_for(filters)
    try:
        start = await _start(node, logs, filters, cursor, last_event_id, since_ms, has_snapshot)
    except CursorTooLong as error:
        raise ParameterInvalid("topic", f"topic: these filters reach too many streams: {error}.") from error
    start.until_ms, start.speed = until_ms, pace
    # A gap has to be told first: whoever comes back behind it is beyond the end.
    if is_resumed and until_ms is not None and not start.gaps and await _is_over(logs, start, until_ms):
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    return EventStream(hub, filters, tuple(log.name for log in logs), policy, start)  # type: ignore[arg-type]


async def _is_over(logs: Sequence[StreamLog], start: Start, until_ms: int) -> bool:
    """Whether a start is at or beyond the end, and nothing that belongs before that can come any more."""
    ends = await ends_at(logs, until_ms)
    return ends is not None and not any(distance(start.offsets[name], end) for name, end in ends.items())


async def _start(
    node: Node,
    logs: Sequence[StreamLog],
    filters: tuple[str, ...],
    cursor: str | None,
    last_event_id: str | None,
    since_ms: int | None,
    has_snapshot: bool,
) -> Start:
    if last_event_id:  # an empty one is what a browser sends that has none
        return start_at_cursor(node.hub, logs, parse_cursor(last_event_id, "Last-Event-ID"))
    if cursor is not None:
        return start_at_cursor(node.hub, logs, parse_cursor(cursor))
    if since_ms is not None:
        start = await start_at_time(logs, since_ms)
        if has_snapshot:
            topics_max, seconds_max = node.hub.limits.latest_topics_max, node.config.history.snapshot_s
            records, is_all, reach = await state(
                logs, filters, start.offsets, seconds_max, topics_max=topics_max, limit=topics_max
            )
            if not reach.is_complete or not is_all:
                raise Unavailable(
                    f"The state at that time was not found within {seconds_max:g} s and {topics_max:,} topics: "
                    "ask for fewer topics.",
                    limit="history.snapshot_s",
                )
            start.snapshot, start.is_live_after_snapshot = PastSnapshot(records), False
        return start
    if has_snapshot:
        await node.latest.settled()
        offsets = {log.name: node.latest.offsets[log.name] for log in logs}
        captured = node.latest.capture()  # with no await since `settled`: both are of one position
        chosen = [entry async for entries in node.latest.select(captured, filters) for entry in entries]
        return Start(offsets, says_live=True, snapshot=Snapshot(chosen))
    return start_live(node.hub, logs)


@router.get("/poll", summary="Live events by long polling")
async def poll(
    request: Request,
    topic: Annotated[list[str] | None, Query(description="MQTT topic filter; repeatable, at least one")] = None,
    cursor: Annotated[str | None, Query(description="Go on after this cursor; without it: begin now")] = None,
    wait: Annotated[str | None, Query(description="Seconds to wait for a first event, 30 by default")] = None,
    limit: Annotated[str | None, Query(description="At most so many events, 1000 by default")] = None,
) -> Response:
    """The events after `cursor`, or those that come within `wait` seconds; the answer's `cursor` is the next one's."""
    node: Node = request.app.state.node
    hub = node.hub
    limits = hub.limits
    refuse_later(request, (*LATER, "since", "until", "speed", "snapshot", "overflow"), limits)
    for name in ("cursor", "wait", "limit"):
        single_value(request, name)
    filters = parse_filters("topic", topic or (), limits)
    wait_s_max, events_max = int(limits.poll_wait_s_max), limits.poll_events_max
    wait_s = (
        parse_number("wait", wait, 0, wait_s_max, "live.poll_wait_s_max")
        if wait is not None
        else min(POLL_WAIT_S, wait_s_max)
    )
    count = (
        parse_number("limit", limit, 1, events_max, "live.poll_events_max")
        if limit is not None
        else min(POLL_LIMIT, events_max)
    )
    logs = node.streams_for(filters)
    start = start_live(hub, logs) if cursor is None else start_at_cursor(hub, logs, parse_cursor(cursor))
    hub.check_room(hub.polls, "polls are waiting")
    hub.polls += 1
    try:
        lines = await _Poll(hub, filters, start, count).run(wait_s, request)
    finally:
        hub.polls -= 1
    body = b'{"events":[%b],"cursor":%b}' % (b",".join(lines), orjson.dumps(hub.cursor_text(start.offsets)))
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})


class _Poll:
    """One long poll: reads the log, and when it has nothing waits for the bell."""

    def __init__(self, hub: Hub, filters: tuple[str, ...], start: Start, limit: int) -> None:
        self._hub = hub
        self._filters = filters
        self._offsets = start.offsets
        self._limit = limit
        self._rung = asyncio.Event()
        self._is_over = False
        self._lines = [
            orjson.dumps({"event": "gap", "cursor": gap.after} | gap_data(gap.before, gap.after, gap.lost, gap.reason))
            for gap in start.gaps
        ]

    async def run(self, wait_s: float, request: Request) -> list[bytes]:
        """The events as JSON objects; `start.offsets` has moved behind the last of them."""
        hub = self._hub
        clock = asyncio.get_running_loop().time
        deadline = clock() + wait_s
        take_down = hub.hang(Bell(self._filters, self._rung.set))
        take_off = hub.on_close(self._end)
        http = request.scope.get("extensions", {}).get(EXTENSION)
        if isinstance(http, Http):
            http.on_end(self._end)
        try:
            while True:
                self._rung.clear()
                await self._read(deadline, clock)
                if self._lines or self._is_over or clock() >= deadline:
                    return self._lines
                try:
                    await asyncio.wait_for(self._rung.wait(), deadline - clock())
                except TimeoutError:
                    if self._rung.is_set():
                        continue  # in the moment in which the time was up
                    # What was committed meanwhile matched nothing: the bell would have rung.
                    self._offsets.update(hub.offsets_of(self._offsets))
                    return self._lines
        finally:
            take_down()
            take_off()

    def _end(self) -> None:
        self._is_over = True
        self._rung.set()

    async def _read(self, deadline: float, clock: Callable[[], float]) -> None:
        """Read what the log has beyond the offsets, up to the limit."""
        hub = self._hub
        bytes_left = hub.limits.waiting_bytes_max
        for stream in self._offsets:
            while distance(self._offsets[stream], hub.offsets[stream]):
                if len(self._lines) >= self._limit or bytes_left <= 0:
                    return
                log = hub.log_by_name[stream]
                before, after = hub.beside(self._offsets, stream)
                end = hub.offsets[stream]
                start = {partition: self._offsets[stream].get(partition, 0) for partition in end}
                what = Scan(
                    stream,
                    log.epoch,
                    self._filters,
                    0,
                    0,
                    "poll",
                    records_max=self._limit - len(self._lines),
                    bytes_max=hub.limits.feed_bytes_max,
                    work_max=hub.limits.scan_work_max,
                )
                result = await log.scan_stream(StreamScan(what, start, end, before, after))
                self._note_gap(stream, start, result.first_offsets)
                self._lines += result.data.splitlines()
                bytes_left -= len(result.data)
                so_far = self._offsets[stream]
                self._offsets[stream] = {
                    partition: max(so_far.get(partition, 0), offset)
                    for partition, offset in result.next_offsets.items()
                }
                if clock() >= deadline and self._lines:
                    return

    def _note_gap(self, stream: str, start: Offsets, first_offsets: Offsets) -> None:
        lost = distance(start, {partition: first_offsets.get(partition, 0) for partition in start})
        if not lost:
            return
        before = self._hub.cursor_text(self._offsets)
        self._offsets[stream] = {
            partition: max(offset, first_offsets.get(partition, 0)) for partition, offset in start.items()
        }
        after = self._hub.cursor_text(self._offsets)
        gap = gap_data(before, after, lost, "retention")
        self._lines.append(orjson.dumps({"event": "gap", "cursor": after} | gap))
