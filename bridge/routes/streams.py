"""Streams and their records: `/api/v1/streams`, `/streams/{name}` and `/streams/{name}/records`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from bridge.cursors import Cursor, Offsets, distance
from bridge.encoding import CSV_HEAD, rfc3339
from bridge.errors import CursorGone, NotFound, ParameterInvalid
from bridge.history.scan import Encoding, Scan, StreamScan
from bridge.node import Node
from bridge.routes.figures import operating_figures
from bridge.routes.parameters import (
    parse_choice,
    parse_cursor,
    parse_filters,
    parse_number,
    parse_time,
    refuse_later,
    single_value,
)
from bridge.streams.log import StreamLog

router = APIRouter(prefix="/api/v1", tags=["history"])

LATER = ("client_id", "contains", "until", "speed", "exact", "stats")
LIMIT = 1_000
SEARCH_S = 5.0
"""A JSON page is answered after this, with what was found."""
EXPORT_BYTES = 512 * 1024
MEDIA_TYPE = {"ndjson": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}


def stream_named(node: Node, name: str) -> StreamLog:
    """A configured stream. Raises: NotFound."""
    log = node.streams.get(name)
    if log is None:
        raise NotFound(f"There is no stream {name!r}; there are {', '.join(node.streams)}.")
    return log


def describe(node: Node, log: StreamLog) -> dict[str, Any]:
    """A stream as the API shows it."""
    settings = next(each for each in node.config.streams if each.name == log.name)
    first_offsets, offsets = log.first_offsets, log.offsets
    age_ms, retention_bytes = settings.retention.age_ms, settings.retention.bytes
    return {
        "name": log.name,
        "storage": log.storage,
        "topics": list(settings.topics),
        "ack": "received" if log.acknowledges_on_receipt else "stored",
        "epoch": log.epoch,
        "records": log.records,
        "bytes": log.stored_bytes,
        "oldest": rfc3339(log.oldest_ms) if log.oldest_ms is not None else None,
        "newest": rfc3339(log.newest_ms) if log.newest_ms is not None else None,
        "retention": {"age_s": age_ms // 1000 if age_ms is not None else None, "bytes": retention_bytes},
        "partitions": [
            {"partition": partition, "first_offset": first_offsets[partition], "next_offset": offsets[partition]}
            for partition in sorted(first_offsets)
            if partition >= 0
        ],
    } | operating_figures(node, log)


@router.get("/streams", summary="All streams")
async def streams(request: Request) -> dict[str, Any]:
    """Every stream with its storage, extent and retention, in the order in which topics look for theirs."""
    node: Node = request.app.state.node
    return {"streams": [describe(node, log) for log in node.streams.values()]}


@router.get("/streams/{name}", summary="One stream")
async def stream(request: Request, name: str) -> dict[str, Any]:
    """One stream with its storage, extent and retention."""
    node: Node = request.app.state.node
    return describe(node, stream_named(node, name))


@router.get(
    "/streams/{name}/records",
    summary="Records of a stream",
    response_class=Response,
    responses={
        200: {
            "description": "A JSON page, or the whole range as NDJSON or CSV.",
            "content": {"application/json": {}, "application/x-ndjson": {}, "text/csv": {}},
        }
    },
)
async def records(
    request: Request,
    name: str,
    topic: Annotated[
        list[str] | None, Query(description="MQTT topic filter; repeatable; all topics without it")
    ] = None,
    from_: Annotated[str | None, Query(alias="from", description="Not before this time")] = None,
    to: Annotated[str | None, Query(description="Before this time")] = None,
    cursor: Annotated[str | None, Query(description="Go on after the page that gave this cursor")] = None,
    limit: Annotated[str | None, Query(description="At most so many records; a JSON page has 1000 by default")] = None,
    order: Annotated[str, Query(description="asc or desc")] = "asc",
    format_: Annotated[str, Query(alias="format", description="json, ndjson or csv")] = "json",
) -> Response:
    """Records in order of offset. NDJSON and CSV are streamed, whole ranges in bounded memory."""
    node: Node = request.app.state.node
    limits = node.hub.limits
    log = stream_named(node, name)
    refuse_later(request, LATER, limits)
    for parameter in ("from", "to", "cursor", "limit", "order", "format"):
        single_value(request, parameter)
    form = parse_choice("format", format_, ("json", "ndjson", "csv"), later=("parquet",))
    direction: Literal["asc", "desc"] = "asc" if parse_choice("order", order, ("asc", "desc")) == "asc" else "desc"
    settings = next(each for each in node.config.streams if each.name == name)
    filters = parse_filters("topic", topic, limits) if topic else tuple(settings.topics)
    now_ms = time.time_ns() // 1_000_000
    from_ms = parse_time("from", from_, now_ms) if from_ is not None else None
    to_ms = parse_time("to", to, now_ms) if to is not None else None
    if from_ms is not None and to_ms is not None and to_ms < from_ms:
        raise ParameterInvalid("to", "to: this is before `from`.")
    most = limits.records_max if form == "json" else 10**15
    count = parse_number("limit", limit, 1, most) if limit is not None else (LIMIT if form == "json" else most)
    start = await log.offsets_at(from_ms) if from_ms is not None else log.first_offsets
    end = await log.offsets_at(to_ms) if to_ms is not None else log.offsets
    if cursor is not None:
        at = _offsets_of(cursor, log)
        if direction == "asc":
            start = {partition: max(offset, at.get(partition, 0)) for partition, offset in start.items()}
        else:
            end = {partition: min(offset, at.get(partition, offset)) for partition, offset in end.items()}
    search = _Search(log, filters, start, end, direction, count)
    if form == "json":
        return await _page(search)
    filename = f"{name}.{form}"
    return StreamingResponse(
        search.export("csv" if form == "csv" else "json"),
        media_type=MEDIA_TYPE[form],
        headers={"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{filename}"'},
    )


def _offsets_of(text: str, log: StreamLog) -> Offsets:
    position = parse_cursor(text).position_by_stream.get(log.name)
    if position is None:
        raise ParameterInvalid("cursor", f"cursor: this one says nothing about stream {log.name!r}.")
    if position.epoch != log.epoch or position.spool_epoch != log.position(log.offsets).spool_epoch:
        raise CursorGone(f"The cursor is of epoch {position.epoch!r}; stream {log.name!r} began anew since.")
    return position.offset_by_partition


class _Search:
    """A range of one stream, read in bounded pieces from one end."""

    def __init__(
        self,
        log: StreamLog,
        filters: tuple[str, ...],
        start: Offsets,
        end: Offsets,
        order: Literal["asc", "desc"],
        limit: int,
    ) -> None:
        self.log = log
        self.filters = filters
        self.start = start
        self.end = end
        self.order: Literal["asc", "desc"] = order
        self.left = limit
        self.scanned_to_ms: int | None = None

    @property
    def is_over(self) -> bool:
        return not distance(self.start, self.end)

    async def step(self, encoding: Encoding, bytes_max: int) -> bytes:
        """The next piece; moves the range behind it."""
        what = Scan(
            self.log.name,
            self.log.epoch,
            self.filters,
            0,
            0,
            encoding,
            order=self.order,
            records_max=min(self.left, 20_000),
            bytes_max=bytes_max,
        )
        result = await self.log.scan_stream(StreamScan(what, self.start, self.end))
        self.left -= result.count
        if result.last_ms is not None:
            self.scanned_to_ms = result.last_ms
        if self.order == "asc":
            self.start = _further(self.start, result.next_offsets, max)
        else:
            self.end = _further(self.end, result.next_offsets, min)
            self.start = _further(self.start, result.first_offsets, max)
        return result.data

    async def export(self, encoding: Encoding) -> AsyncIterator[bytes]:
        """The whole range, piece by piece."""
        if encoding == "csv":
            yield CSV_HEAD
        while not self.is_over and self.left > 0:
            if data := await self.step(encoding, EXPORT_BYTES):
                yield data

    def cursor(self) -> str:
        """Where to go on in the same order."""
        return str(Cursor({self.log.name: self.log.position(self.start if self.order == "asc" else self.end)}))


def _further(offsets: Offsets, found: Offsets, choose: Callable[[int, int], int]) -> Offsets:
    return {partition: choose(offset, found.get(partition, offset)) for partition, offset in offsets.items()}


async def _page(search: _Search) -> Response:
    until = time.monotonic() + SEARCH_S
    lines: list[bytes] = []
    bytes_left = 8 * 1024 * 1024
    while not search.is_over and search.left > 0 and bytes_left > 0 and time.monotonic() < until:
        data = await search.step("json", min(bytes_left, EXPORT_BYTES))
        lines += data.splitlines()
        bytes_left -= len(data)
    envelope: dict[str, Any] = {"cursor": search.cursor(), "complete": search.is_over}
    if not search.is_over:
        envelope["scanned_to"] = rfc3339(search.scanned_to_ms) if search.scanned_to_ms is not None else None
    body = b'{"records":[%b],%b' % (b",".join(lines), orjson.dumps(envelope)[1:])
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})
