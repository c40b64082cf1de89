"""State: `/api/v1/topics`, the latest record of each topic, now or at a time, or the inner nodes of their tree."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from bridge.encoding import rfc3339, rfc3339_or_none
from bridge.errors import ParameterInvalid
from bridge.history.overview import Reach, ends_about, state
from bridge.history.state import PastRecord
from bridge.live.entries import Entry
from bridge.live.snapshots import TopicNodes, topic_object
from bridge.node import Node
from bridge.routes.parameters import (
    parse_age,
    parse_filters,
    parse_number,
    parse_time,
    refuse_later,
    single_value,
)

router = APIRouter(prefix="/api/v1", tags=["state"])

LIMIT = 1_000
LIMIT_MAX = 10_000
DEPTH_MAX = 32
RECORDS_A_STEP = 500


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which topics are asked about."""

    filters: tuple[str, ...]
    name_part: str
    """In lower case."""
    client_id: str | None
    after: str
    limit: int

    def takes(self, entry: Entry) -> bool:
        """Whether it is an entry of these; the filters have been asked."""
        name = entry.topic.name
        return (
            name > self.after
            and (not self.name_part or self.name_part in name.lower())
            and (self.client_id is None or entry.client_id == self.client_id)
        )


@router.get(
    "/topics",
    summary="Latest record of each topic, now or at a time",
    response_class=Response,
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def topics(
    request: Request,
    topic: Annotated[list[str] | None, Query(description="MQTT topic filter; repeatable; # without it")] = None,
    q: Annotated[str | None, Query(description="Only topics with this in their name, whatever the case")] = None,
    client_id: Annotated[str | None, Query(description="Only topics whose record is of this client")] = None,
    depth: Annotated[str | None, Query(description="Inner nodes so many levels down, in place of topics")] = None,
    limit: Annotated[str | None, Query(description="At most so many, 1000 by default")] = None,
    after: Annotated[str | None, Query(description="Go on after this topic or node: the last answer's `next`")] = None,
    at: Annotated[str | None, Query(description="The records as they were at this time, found in history")] = None,
    lookback: Annotated[
        str | None, Query(description="With `at`: look no further back than this (24h); else all that is kept")
    ] = None,
) -> Response:
    """`{"topics": […], "next"}` in order of the topics' names, or with `depth` `{"nodes": […]}`.

    With `at` also `"at"`, `"complete"` and `"scanned_to"`: not complete, the search ended before it had looked
    through all of `lookback`, and topics that were silent since `scanned_to` may be missing. Ages are those at that
    time; `count` and `interval_s` are null.
    """
    node: Node = request.app.state.node
    refuse_later(request, (), node.hub.limits)
    for name in ("q", "client_id", "depth", "limit", "after", "at", "lookback"):
        single_value(request, name)
    levels = parse_number("depth", depth, 1, DEPTH_MAX) if depth is not None else None
    behind = after or ""
    wanted = _Wanted(
        parse_filters("topic", topic or ["#"], node.hub.limits),
        (q or "").lower(),
        client_id,
        behind if levels is None else "",  # a node counts all its topics
        parse_number("limit", limit, 1, LIMIT_MAX) if limit is not None else LIMIT,
    )
    now_ms = time.time_ns() // 1_000_000
    if at is not None:
        lookback_ms = parse_age("lookback", lookback) if lookback is not None else None
        return await _topics_at(node, wanted, parse_time("at", at, now_ms), lookback_ms, levels, behind)
    if lookback is not None:
        raise ParameterInvalid("lookback", "lookback: this goes with `at`.")
    await node.latest.settled()
    slices = node.latest.select(node.latest.capture(), wanted.filters)
    if levels is not None:
        tree = TopicNodes(levels, now_ms)
        async for entries in slices:
            tree.add([entry for entry in entries if wanted.takes(entry)])
        return _json(orjson.dumps(tree.page(wanted.limit, behind)))
    page, following = await _page(slices, wanted)
    objects = b",".join([topic_object(entry, now_ms) for entry in page])
    return _json(b'{"topics":[%b],"next":%b}' % (objects, orjson.dumps(following)))


async def _page(slices: AsyncIterator[list[Entry]], wanted: _Wanted) -> tuple[list[Entry], str | None]:
    """The first entries by name, and the last of their names when there are more."""
    count = wanted.limit
    page: list[Entry] = []
    async for entries in slices:
        page += [entry for entry in entries if wanted.takes(entry)]
        if len(page) > 2 * count:
            page = heapq.nsmallest(count + 1, page, key=_name)
    page = heapq.nsmallest(count + 1, page, key=_name)
    return page[:count], page[count - 1].topic.name if len(page) > count else None


async def _topics_at(
    node: Node, wanted: _Wanted, at_ms: int, lookback_ms: int | None, levels: int | None, behind: str
) -> Response:
    logs = node.streams_for(wanted.filters)
    topics_max = node.hub.limits.latest_topics_max
    records, is_all, reach = await state(
        logs,
        wanted.filters,
        await ends_about(logs, at_ms + 1),
        node.config.history.search_s,
        topics_max=topics_max,
        limit=wanted.limit if levels is None else topics_max,
        from_ms=max(0, at_ms - lookback_ms) if lookback_ms is not None else None,
        until_ms=at_ms + 1,
        after=wanted.after,
        name_part=wanted.name_part,
        last_client_id=wanted.client_id,
    )
    told = _told(at_ms, reach)
    tree = TopicNodes(levels or 1, at_ms)
    objects: list[bytes] = []
    last = ""
    for number, record in enumerate(records, 1):
        if levels is None:
            last = record.topic
            objects.append(_object(record, at_ms))
        else:
            tree.count(record.topic, 0.0, len(record.line))
        if number % RECORDS_A_STEP == 0:
            await asyncio.sleep(0)
    if levels is not None:
        return _json(orjson.dumps(tree.page(wanted.limit, behind) | told))
    following = last if objects and not is_all else None
    return _json(b'{"topics":[%b],"next":%b,%b' % (b",".join(objects), orjson.dumps(following), orjson.dumps(told)[1:]))


def _told(at_ms: int, reach: Reach) -> dict[str, Any]:
    scanned_to = rfc3339_or_none(reach.scanned_to_ms)
    return {"at": rfc3339(at_ms), "complete": reach.is_complete, "scanned_to": scanned_to}


def _object(record: PastRecord, at_ms: int) -> bytes:
    return b'%b,"age_ms":%d,"count":null,"interval_s":null}' % (record.line, max(0, at_ms - record.time_ms))


def _name(entry: Entry) -> str:
    return entry.topic.name


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})
