"""Retained messages of many topics, counted and cleared by a topic filter; clearing needs the right `manage`."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from bridge.errors import ParameterInvalid, Unavailable
from bridge.node import Node
from bridge.routes.commands import tell_command
from bridge.routes.parameters import parse_filters, parse_flag, refuse_later, single_value
from broker.routing import is_reserved

router = APIRouter(prefix="/api/v1", tags=["operations"])

TOPICS_A_STEP = 500
"""Topics cleared before the loop has its turn."""
DURABLE_WAIT_S = 20.0
NO_STORE = {"Cache-Control": "no-store"}


@router.delete("/retained", summary="Clear the retained messages of the topics that a filter takes")
async def clear_retained(
    request: Request,
    topic: Annotated[str | None, Query(description="MQTT topic filter; # is all that do not begin with $")] = None,
    dry_run: Annotated[str | None, Query(description="1: count, and clear nothing")] = None,
) -> Response:
    """`{"cleared": n}` once they are gone from the disk too; with `dry_run` `{"matched": n}`.

    Subscribers are told nothing, as when a message expires; to tell them, publish an empty payload with RETAIN. A
    message that is published meanwhile may stay. What the server makes itself (`$presence/…`, `$SYS/…`) is not cleared.
    """
    node: Node = request.app.state.node
    refuse_later(request, (), node.hub.limits)
    for name in ("topic", "dry_run"):
        single_value(request, name)
    (topic_filter,) = parse_filters("topic", [topic] if topic is not None else [], node.hub.limits)
    if is_reserved(topic_filter):
        raise ParameterInvalid(
            "topic", f"topic: what {topic_filter!r} takes is the server's own and cannot be cleared."
        )
    is_dry_run = parse_flag("dry_run", dry_run) if dry_run is not None else False
    found = node.broker.retained_topics(topic_filter)
    count = 0
    while topic_names := found.take(TOPICS_A_STEP):
        count += len(topic_names)
        if not is_dry_run:
            node.broker.clear_retained(topic_names)
        await asyncio.sleep(0)
    if is_dry_run:
        return JSONResponse({"matched": count}, headers=NO_STORE)
    tell_command(node, request, "clear_retained", topic=topic_filter, cleared=count)
    try:
        async with asyncio.timeout(DURABLE_WAIT_S):
            await node.broker.changes_durable()
    except TimeoutError as error:
        raise Unavailable(
            f"{count} retained messages are cleared, but the disk takes nothing: they may be back after a restart."
        ) from error
    return JSONResponse({"cleared": count}, headers=NO_STORE)
