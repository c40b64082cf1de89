"""Devices: who is there, what their connections are like, what happened to them, and two ways to end that."""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from bridge.encoding import rfc3339
from bridge.errors import Conflict, NotFound
from bridge.history.overview import kept
from bridge.history.search import RecordSearch, Wanted
from bridge.node import Node
from bridge.presence.device import Device
from bridge.presence.state import presence_topic
from bridge.routes.commands import tell_command
from bridge.routes.download import json_response
from bridge.routes.parameters import (
    parse_choice,
    parse_cursor,
    parse_number,
    parse_range,
    refuse_later,
    single_value,
)

router = APIRouter(prefix="/api/v1", tags=["devices"])

LIMIT = 100
LIMIT_MAX = 1_000
DEVICES_A_STEP = 5_000
"""Devices looked at before the loop has its turn."""
SUBSCRIPTIONS_SHOWN = 100
"""Of each device of a page; all of them stand at the device's own address."""
STATES = ("online", "session", "gone")
PROTOCOL_NAMES = {3: "3.1", 4: "3.1.1", 5: "5.0"}
NO_STORE = {"Cache-Control": "no-store"}
CHANGES = 1_000
TOLD_WITHIN_MS = 60_000
"""A change is recorded in its turn, or some turns later when many wait: its record is younger than what it says."""


@router.get("/devices", summary="Devices, here and gone")
async def devices(
    request: Request,
    q: Annotated[str | None, Query(description="Only clients with this in their id, whatever the case")] = None,
    state: Annotated[str | None, Query(description="online; session: away, its session is kept; gone: neither")] = None,
    limit: Annotated[str | None, Query(description="At most so many, 100 by default")] = None,
    after: Annotated[str | None, Query(description="Go on after this client: the last answer's `next`")] = None,
) -> Response:
    """`{"devices": […], "next", "counts": {"online", "session", "gone"}}` in order of the client ids.

    Each has at most 100 of its subscriptions; all of them stand at `/devices/{client_id}`.
    """
    node: Node = request.app.state.node
    refuse_later(request, (), node.hub.limits)
    for name in ("q", "state", "limit", "after"):
        single_value(request, name)
    count = parse_number("limit", limit, 1, LIMIT_MAX) if limit is not None else LIMIT
    wanted_state = parse_choice("state", state, STATES) if state is not None else None
    presences = node.presences
    presences.catch_up()
    page = await _page(node, (q or "").lower(), wanted_state, after or "", count + 1)
    now_ms = _now_ms()
    found = (presences.device_by_client_id.get(client_id) for client_id in page[:count])
    answer = {
        "devices": [describe(node, device, now_ms, SUBSCRIPTIONS_SHOWN) for device in found if device is not None],
        "next": page[count - 1] if len(page) > count else None,
        "counts": {"online": presences.online, "session": presences.with_session, "gone": presences.gone},
    }
    return await json_response(request, orjson.dumps(answer))


async def _page(node: Node, part: str, state: str | None, after: str, count: int) -> list[str]:
    """The first client ids in order."""
    page: list[str] = []
    device_by_client_id = node.presences.device_by_client_id
    client_ids = list(device_by_client_id)
    for start in range(0, len(client_ids), DEVICES_A_STEP):
        if start:
            await asyncio.sleep(0)
        page += [
            client_id
            for client_id in client_ids[start : start + DEVICES_A_STEP]
            if client_id > after
            and part in client_id.lower()
            and (state is None or state == _state(device_by_client_id.get(client_id)))
        ]
        page = heapq.nsmallest(count, page)
    return page


def _state(device: Device | None) -> str:
    if device is None:
        return ""
    presence = device.presence
    return "online" if presence.online else "session" if presence.session else "gone"


def describe(node: Node, device: Device, now_ms: int, subscriptions_max: int | None) -> dict[str, Any]:
    """A device as the API shows it."""
    presence = device.presence
    session = node.broker.session(presence.client_id)
    subscriptions = session.subscriptions if session is not None else None
    counted = device.counted()
    return {
        "client_id": presence.client_id,
        "online": presence.online,
        "since": rfc3339(device.since_ms),
        "last_seen": rfc3339(device.seen_ms(now_ms)),
        "address": device.address or None,
        "transport": device.transport or None,
        "protocol": PROTOCOL_NAMES.get(device.protocol_level & 0x7F),
        "keep_alive_s": device.keep_alive_s,
        "session": {
            "clean": device.expiry_s == 0,
            "expiry_s": device.expiry_s,
            "queued": session.queued_messages if session is not None else 0,
        }
        if presence.session
        else None,
        "subscriptions": [
            {"filter": topic_filter, "qos": each.qos}
            for topic_filter, each in list((subscriptions or {}).items())[:subscriptions_max]
        ],
        "counters": counted._asdict(),
        "seq": presence.seq,
        "reason": presence.reason,
        "by": presence.by,
        "connects_10min": device.connects(now_ms),
    }


@router.get("/devices/{client_id:path}/timeline", summary="What happened to a device")
async def timeline(
    request: Request,
    client_id: str,
    from_: Annotated[str | None, Query(alias="from", description="Not before this time")] = None,
    to: Annotated[str | None, Query(description="Before this time")] = None,
    limit: Annotated[str | None, Query(description="At most so many, 1000 by default")] = None,
    order: Annotated[str, Query(description="asc or desc")] = "asc",
    after: Annotated[str | None, Query(description="Go on after the page that gave this: its `next`")] = None,
) -> Response:
    """`{"changes": […], "next"}`: its presence messages as they were stored, in order; `next` until all was looked at.

    A device that the server has forgotten has its changes still, as long as the stream keeps them.
    """
    if not _names(request, "timeline"):
        return await device(request, f"{client_id}/timeline")
    node: Node = request.app.state.node
    refuse_later(request, (), node.hub.limits)
    for name in ("from", "to", "limit", "order", "after"):
        single_value(request, name)
    topic_name = presence_topic(client_id)
    log = node.stream_for(topic_name)
    if log is None:
        raise NotFound("Presence is kept in no stream.")
    count = parse_number("limit", limit, 1, LIMIT_MAX) if limit is not None else CHANGES
    is_descending = parse_choice("order", order, ("asc", "desc")) == "desc"
    from_ms, to_ms = parse_range(from_, to, _now_ms())
    start, end = kept(log)
    if from_ms is not None:
        start = {**start, **await log.offsets_at(from_ms)}
    if to_ms is not None:
        end = {**end, **await log.offsets_at(to_ms + TOLD_WITHIN_MS)}
    end = {partition: end.get(partition, log.offsets.get(partition, 0)) for partition in start}
    position = parse_cursor(after, "after").position_by_stream.get(log.name) if after is not None else None
    if position is not None and position.epoch == log.epoch:
        at = position.offset_by_partition
        if is_descending:
            end = {partition: min(offset, at.get(partition, offset)) for partition, offset in end.items()}
        else:
            start = {partition: max(offset, at.get(partition, 0)) for partition, offset in start.items()}
    search = RecordSearch(log, Wanted((topic_name,)), start, end, "desc" if is_descending else "asc", count)
    until = time.monotonic() + node.config.history.search_s
    lines: list[bytes] = []
    while search.has_more and time.monotonic() < until:
        lines += (await search.step("json")).splitlines()
    changes = [orjson.loads(line)["payload"] for line in lines]
    first, last = (None if bound is None else rfc3339(bound) for bound in (from_ms, to_ms))
    changes = [
        each for each in changes if (first is None or each["time"] >= first) and (last is None or each["time"] < last)
    ]
    answer = {"changes": changes, "next": None if search.is_over else search.cursor}
    return await json_response(request, orjson.dumps(answer))


@router.delete("/devices/{client_id:path}/connection", summary="Close a device's connection")
async def close_connection(request: Request, client_id: str) -> Response:
    """MQTT 5 clients are told 0x98. Its session stays as after any other end of the connection; it may come back."""
    node: Node = request.app.state.node
    node.presences.catch_up()
    if client_id not in node.presences.device_by_client_id or not _names(request, "connection"):
        raise NotFound(f"There is no device {client_id!r}.")
    if not node.broker.close_by_admin(client_id):
        raise Conflict(f"Device {client_id!r} is not connected.")
    tell_command(node, request, "close_connection", client_id=client_id)
    return JSONResponse({"closed": client_id}, headers=NO_STORE)


@router.delete("/devices/{client_id:path}/session", summary="Forget a device's session")
async def forget_session(request: Request, client_id: str) -> Response:
    """Its connection is closed, its subscriptions and what is queued for it are gone; a delayed will is published."""
    node: Node = request.app.state.node
    node.presences.catch_up()
    session = node.broker.session(client_id)
    is_known = session is not None or client_id in node.presences.device_by_client_id
    if not is_known or not _names(request, "session"):
        raise NotFound(f"There is no device {client_id!r}.")
    queued = session.queued_messages if session is not None else 0
    if not node.broker.forget_by_admin(client_id):
        raise Conflict(f"Device {client_id!r} has no session.")
    tell_command(node, request, "forget_session", client_id=client_id, queued=queued)
    return JSONResponse({"forgotten": client_id, "queued": queued}, headers=NO_STORE)


def _names(request: Request, word: str) -> bool:
    """The path ends with this word, and not with a client id that does: a `/` of an id comes as %2F."""
    raw_path: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    return raw_path.endswith(b"/" + word.encode())


@router.get("/devices/{client_id:path}", summary="One device")
async def device(request: Request, client_id: str) -> Response:
    """With all of its subscriptions. 404 once it is forgotten: 24 h after its session has ended."""
    node: Node = request.app.state.node
    node.presences.catch_up()
    found = node.presences.device_by_client_id.get(client_id)
    if found is None:
        raise NotFound(f"There is no device {client_id!r}.")
    return await json_response(request, orjson.dumps(describe(node, found, _now_ms(), None)))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
