"""History at a glance: `/api/v1/histogram` and `/api/v1/series`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from bridge.encoding import rfc3339, rfc3339_or_none
from bridge.errors import ParameterInvalid
from bridge.history.buckets import Buckets
from bridge.history.numbers import PointerInvalid, parse_pointer
from bridge.history.overview import Reach, histogram, holes, series
from bridge.node import Node
from bridge.routes.parameters import parse_filters, parse_number, parse_range, refuse_later, single_value

router = APIRouter(prefix="/api/v1", tags=["history"])

JSON: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"schema": {"type": "object"}}}}}
WINDOW_MS = 24 * 3_600_000
"""Without `from`: so much before `to`."""
BUCKETS = 240
POINTS = 1_000
TIMES_A_STEP = 1_000


@router.get("/histogram", summary="How many records a time had", response_class=Response, responses=JSON)
async def histogram_route(
    request: Request,
    topic: Annotated[
        list[str] | None, Query(description="MQTT topic filter; repeatable; # without it: all but $ topics")
    ] = None,
    client_id: Annotated[str | None, Query(description="Only what this client sent")] = None,
    from_: Annotated[str | None, Query(alias="from", description="Not before this time; 24 h before `to`")] = None,
    to: Annotated[str | None, Query(description="Before this time; now without it")] = None,
    buckets: Annotated[str | None, Query(description="In so many parts of the time, 240 by default")] = None,
) -> Response:
    """`{"from", "to", "buckets": [{"time", "count"}], "gaps": [{"from", "to", "reason"}], "oldest", "complete",
    "scanned_to"}`.

    Every bucket is listed under its first moment. A gap is a time of which records may be missing: `retention` (they
    were deleted) or `epoch` (before a stream in memory began). A range of fewer milliseconds than buckets has fewer.
    """
    node: Node = request.app.state.node
    limits = node.hub.limits
    refuse_later(request, (), limits)
    for name in ("client_id", "from", "to", "buckets"):
        single_value(request, name)
    filters = parse_filters("topic", topic or ["#"], limits)
    most = node.config.history.buckets_max
    count = (
        parse_number("buckets", buckets, 1, most, "history.buckets_max") if buckets is not None else min(BUCKETS, most)
    )
    now_ms = time.time_ns() // 1_000_000
    parts = Buckets.over(*_range(from_, to, now_ms), count)
    logs = node.streams_for(filters)
    counts, reach = await histogram(logs, filters, parts, node.config.history.search_s, client_id)
    oldest = [log.oldest_ms for log in logs if log.oldest_ms is not None]
    times = await _times(parts, range(parts.count))
    shown = {
        "from": rfc3339(parts.from_ms),
        "to": rfc3339(parts.until_ms),
        "buckets": [{"time": text, "count": number} for text, number in zip(times, counts, strict=True)],
        "gaps": [
            {"from": rfc3339(hole.from_ms), "to": rfc3339(hole.until_ms), "reason": hole.reason}
            for hole in holes(logs, parts.from_ms, parts.until_ms, now_ms)
        ],
        "oldest": rfc3339_or_none(min(oldest, default=None)),
    }
    return _json(shown | _reached(reach))


@router.get("/series", summary="What a number in the payloads did", response_class=Response, responses=JSON)
async def series_route(
    request: Request,
    topic: Annotated[list[str] | None, Query(description="MQTT topic filter; repeatable, at least one")] = None,
    field: Annotated[str, Query(description="JSON Pointer (RFC 6901) to the number; empty: the payload is one")] = "",
    from_: Annotated[str | None, Query(alias="from", description="Not before this time; 24 h before `to`")] = None,
    to: Annotated[str | None, Query(description="Before this time; now without it")] = None,
    points: Annotated[str | None, Query(description="At most so many points, 1000 by default")] = None,
) -> Response:
    """`{"time": […], "min": […], "max": […], "last": […], "count": […], "complete", "scanned_to"}`.

    The time is cut into `points` equal parts; one without a number is left out, the others stand under their first
    moment. What is no JSON, or no number at `field`, does not count; `true` is no number.
    """
    node: Node = request.app.state.node
    limits = node.hub.limits
    refuse_later(request, (), limits)
    for name in ("field", "from", "to", "points"):
        single_value(request, name)
    filters = parse_filters("topic", topic or (), limits)
    try:
        pointer = parse_pointer(field)
    except PointerInvalid as error:
        raise ParameterInvalid("field", f"field: {field!r} is no JSON Pointer: {error}.") from error
    most = node.config.history.points_max
    count = parse_number("points", points, 1, most, "history.points_max") if points is not None else min(POINTS, most)
    parts = Buckets.over(*_range(from_, to, time.time_ns() // 1_000_000), count)
    seconds_max = node.config.history.search_s
    found, columns, reach = await series(node.streams_for(filters), filters, pointer, parts, seconds_max)
    least, largest, last, _, total = columns
    shown = {"time": await _times(parts, found), "min": least, "max": largest, "last": last, "count": total}
    return _json(shown | _reached(reach))


def _range(from_: str | None, to: str | None, now_ms: int) -> tuple[int, int]:
    """Raises: ParameterInvalid."""
    from_ms, to_ms = parse_range(from_, to, now_ms)
    if to_ms is None:
        to_ms = now_ms if from_ms is None else max(now_ms, from_ms + 1)
    if from_ms is None:
        from_ms = max(0, to_ms - WINDOW_MS)
    if from_ms >= to_ms:
        raise ParameterInvalid("to", "to: this is not after `from`.")
    return from_ms, to_ms


async def _times(parts: Buckets, indexes: Sequence[int]) -> list[str]:
    """When some buckets begin; the loop runs in between."""
    times: list[str] = []
    for first in range(0, len(indexes), TIMES_A_STEP):
        times += [rfc3339(parts.start_ms(index)) for index in indexes[first : first + TIMES_A_STEP]]
        await asyncio.sleep(0)
    return times


def _json(shown: dict[str, Any]) -> Response:
    return Response(orjson.dumps(shown), media_type="application/json", headers={"Cache-Control": "no-store"})


def _reached(reach: Reach) -> dict[str, Any]:
    return {"complete": reach.is_complete, "scanned_to": rfc3339_or_none(reach.scanned_to_ms)}
