"""Current state: `/api/v1/topics`, the latest record of each topic, or the inner nodes of their tree."""

from __future__ import annotations

import heapq
import time
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from bridge.live.latest import Entry, TopicNodes, topic_object
from bridge.node import Node
from bridge.routes.parameters import parse_filters, parse_number, refuse_later, single_value

router = APIRouter(prefix="/api/v1", tags=["state"])

LATER = ("q", "client_id", "at")
LIMIT = 1_000
LIMIT_MAX = 10_000
DEPTH_MAX = 32


@router.get("/topics", summary="Latest record of each topic")
async def topics(
    request: Request,
    topic: Annotated[list[str] | None, Query(description="MQTT topic filter; repeatable; # without it")] = None,
    depth: Annotated[str | None, Query(description="Inner nodes so many levels down, in place of topics")] = None,
    limit: Annotated[str | None, Query(description="At most so many, 1000 by default")] = None,
    after: Annotated[str | None, Query(description="Go on after this topic: the last answer's `next`")] = None,
) -> Response:
    """`{"topics": […], "next"}` in order of the topics' names, or with `depth` `{"nodes": […]}`."""
    node: Node = request.app.state.node
    refuse_later(request, LATER, node.hub.limits)
    for name in ("depth", "limit", "after"):
        single_value(request, name)
    filters = parse_filters("topic", topic or ["#"], node.hub.limits)
    count = parse_number("limit", limit, 1, LIMIT_MAX) if limit is not None else LIMIT
    levels = parse_number("depth", depth, 1, DEPTH_MAX) if depth is not None else None
    latest = node.latest
    await latest.settled()
    slices = latest.select(latest.capture(), filters)
    now_ms = time.time_ns() // 1_000_000
    if levels is not None:
        tree = TopicNodes(levels, now_ms)
        async for entries in slices:
            tree.add(entries)
        return _json(orjson.dumps({"nodes": tree.nodes(LIMIT_MAX)}))
    page: list[Entry] = []
    async for entries in slices:
        page += [entry for entry in entries if after is None or entry.topic.name > after]
        if len(page) > 2 * count:
            page = heapq.nsmallest(count + 1, page, key=_name)
    page = heapq.nsmallest(count + 1, page, key=_name)
    following = page[count - 1].topic.name if len(page) > count else None
    objects = b",".join([topic_object(entry, now_ms) for entry in page[:count]])
    return _json(b'{"topics":[%b],"next":%b}' % (objects, orjson.dumps(following)))


def _name(entry: Entry) -> str:
    return entry.topic.name


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})
