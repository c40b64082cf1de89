"""Records of a stream: `/api/v1/streams/{name}/records`, and one of them by its place."""

from __future__ import annotations

import re
import time
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from bridge.cursors import SPOOL, Offsets
from bridge.encoding import decode_stored, read_properties, rfc3339_or_none
from bridge.errors import CursorGone, NotFound, ParameterInvalid, RecordGone
from bridge.history.export import ExportForm, export, gzipped
from bridge.history.overview import kept
from bridge.history.scan import Encoding, Order, Scan, StreamScan, StreamScanResult
from bridge.history.search import PIECE_BYTES, RecordSearch, Wanted
from bridge.node import Node
from bridge.routes.download import Download, accepts_gzip, json_response
from bridge.routes.parameters import (
    parse_choice,
    parse_cursor,
    parse_filters,
    parse_flag,
    parse_number,
    parse_range,
    refuse_later,
    single_value,
)
from bridge.routes.streams import stream_named
from bridge.streams.frames import decode_body
from bridge.streams.kafka.log import KafkaLog
from bridge.streams.log import StreamLog

router = APIRouter(prefix="/api/v1", tags=["history"])

LATER = ("until", "speed", "exact", "stats")
LIMIT = 1_000
PAGE_BYTES_MAX = 8 * 1024 * 1024
MEDIA_TYPE: dict[str, str] = {
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
NO_STORE = {"Cache-Control": "no-store"}
EVERYTHING = 10**15

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_CONTENT_TYPE = re.compile(rf'{_TOKEN}/{_TOKEN}(?:[ \t]*;[ \t]*{_TOKEN}=(?:{_TOKEN}|"[^"\\\x00-\x1f\x7f-\uffff]*"))*')
_SCRIPT_TYPE = re.compile(r"[a-z]+/(?:x-)?(?:javascript|ecmascript|jscript|livescript)", re.IGNORECASE)


@router.get(
    "/streams/{name}/records",
    summary="Records of a stream",
    response_class=Response,
    responses={
        200: {
            "description": "A JSON page, or the whole range as NDJSON, CSV or Parquet.",
            "content": {
                "application/json": {},
                "application/x-ndjson": {},
                "text/csv": {},
                "application/vnd.apache.parquet": {},
            },
        },
        410: {"description": "The cursor is of an epoch of the stream that is no more."},
    },
)
async def records(
    request: Request,
    name: str,
    topic: Annotated[
        list[str] | None, Query(description="MQTT topic filter; repeatable; all topics without it")
    ] = None,
    client_id: Annotated[str | None, Query(description="Only what this client sent")] = None,
    contains: Annotated[str | None, Query(description="Only records with this text in their payload")] = None,
    from_: Annotated[str | None, Query(alias="from", description="Not before this time")] = None,
    to: Annotated[str | None, Query(description="Before this time")] = None,
    cursor: Annotated[str | None, Query(description="Go on after the page that gave this cursor")] = None,
    limit: Annotated[str | None, Query(description="At most so many records; a JSON page has 1000 by default")] = None,
    order: Annotated[str, Query(description="asc or desc")] = "asc",
    format_: Annotated[str, Query(alias="format", description="json, ndjson, csv or parquet")] = "json",
) -> Response:
    """Records in order of offset. NDJSON, CSV and Parquet are streamed, whole ranges in bounded memory.

    NDJSON, CSV and JSON are compressed for clients that accept gzip; Parquet is compressed in itself.

    A JSON page says with `complete` whether there may be more after it, and then with `scanned_to` how far it came.
    """
    node: Node = request.app.state.node
    limits = node.hub.limits
    log = stream_named(node, name)
    refuse_later(request, LATER, limits)
    for parameter in ("client_id", "contains", "from", "to", "cursor", "limit", "order", "format"):
        single_value(request, parameter)
    form = parse_choice("format", format_, ("json", "ndjson", "csv", "parquet"))
    direction: Order = "asc" if parse_choice("order", order, ("asc", "desc")) == "asc" else "desc"
    from_ms, to_ms = parse_range(from_, to, time.time_ns() // 1_000_000)
    filters = parse_filters("topic", topic, limits) if topic else ()
    wanted = Wanted(filters, client_id, (contains or "").encode(), from_ms, to_ms)
    most = limits.records_max if form == "json" else EVERYTHING
    count = (
        parse_number("limit", limit, 1, most, "live.records_max")
        if limit is not None
        else (min(LIMIT, most) if form == "json" else most)
    )
    start, end = kept(log)
    if from_ms is not None:
        start = {**start, **await log.offsets_at(from_ms)}
    if to_ms is not None:
        end = {**end, **await log.offsets_at(to_ms)}
    end = {partition: end.get(partition, log.offsets.get(partition, 0)) for partition in start}
    if cursor is not None:
        at = _offsets_of(cursor, log)
        if direction == "asc":
            start = {partition: max(offset, at.get(partition, 0)) for partition, offset in start.items()}
        else:
            end = {partition: min(offset, at.get(partition, offset)) for partition, offset in end.items()}
    search = RecordSearch(log, wanted, start, end, direction, count)
    if form == "json":
        return await json_response(request, await _page(search, node.config.history.search_s))
    # Parquet is compressed in itself.
    return _download(node, search, form, is_compressed=form != "parquet" and accepts_gzip(request))  # type: ignore[arg-type]


def _download(node: Node, search: RecordSearch, form: ExportForm, *, is_compressed: bool) -> Download:
    """Raises: TooManyExports."""
    node.exports.begin()
    file = export(search, form, node.readers)
    return Download(
        gzipped(file) if is_compressed else file,
        name=f"{search.log.name}.{form}",
        media_type=MEDIA_TYPE[form],
        encoding="gzip" if is_compressed else None,
        on_end=node.exports.end,
    )


def _offsets_of(text: str, log: StreamLog) -> Offsets:
    position = parse_cursor(text).position_by_stream.get(log.name)
    if position is None:
        raise ParameterInvalid("cursor", f"cursor: this one says nothing about stream {log.name!r}.")
    if position.epoch != log.epoch or position.spool_epoch != log.position(log.offsets).spool_epoch:
        raise CursorGone(f"The cursor is of epoch {position.epoch!r}; stream {log.name!r} began anew since.")
    return position.offset_by_partition


async def _page(search: RecordSearch, seconds_max: float) -> bytes:
    until = time.monotonic() + seconds_max
    lines: list[bytes] = []
    bytes_left = PAGE_BYTES_MAX
    while search.has_more and bytes_left > 0 and time.monotonic() < until:
        data = await search.step("json", min(bytes_left, PIECE_BYTES))
        lines += data.splitlines()
        bytes_left -= len(data)
    envelope: dict[str, Any] = {"cursor": search.cursor, "complete": search.is_over}
    if not search.is_over:
        envelope["scanned_to"] = rfc3339_or_none(search.scanned_to_ms)
    return b'{"records":[%b],%b' % (b",".join(lines), orjson.dumps(envelope)[1:])


@router.get(
    "/streams/{name}/records/{partition}/{offset}",
    summary="One record",
    response_class=Response,
    responses={
        200: {
            "description": "The record, or with raw=1 its payload under the content type that it was published with.",
            "content": {"application/json": {}, "application/octet-stream": {}},
        },
        404: {"description": "There is no such record yet, or no such stream or partition."},
        410: {"description": "It is no longer kept, or it was of another epoch."},
    },
)
async def record(
    request: Request,
    name: str,
    partition: str,
    offset: str,
    raw: Annotated[str | None, Query(description="1: the bytes of the payload")] = None,
    epoch: Annotated[
        str | None, Query(description="The record's epoch; 410 when the stream has another by now")
    ] = None,
) -> Response:
    """One record by its place."""
    node: Node = request.app.state.node
    log = stream_named(node, name)
    for parameter in ("raw", "epoch"):
        single_value(request, parameter)
    is_raw = raw is not None and parse_flag("raw", raw)
    number = parse_number("partition", partition, 0, 2**31 - 1)
    at = parse_number("offset", offset, 0, 2**63 - 1)
    result = await _record_at(log, _partition(log, number, epoch), at, "stored" if is_raw else "json")
    if not is_raw:
        return Response(result.data[:-1], media_type="application/json", headers=NO_STORE)
    ((_, _, segment),) = decode_stored(result.data)
    (run,) = decode_body(segment, at, {})
    content_type = read_properties(run.data, run.start).get("content_type", "") if run.is_v5 else ""
    return Response(
        run.data[run.payload_starts[0] : run.ends[0]],
        headers=NO_STORE | {"Content-Type": safe_content_type(content_type), "Content-Security-Policy": "sandbox"},
    )


def _partition(log: StreamLog, number: int, epoch: str | None) -> int:
    """The partition whose records are shown under this number and epoch. Raises: NotFound, RecordGone."""
    if number == 0 and SPOOL in log.offsets and epoch == log.epoch_of(SPOOL):
        return SPOOL
    if number not in log.offsets:
        raise NotFound(f"Stream {log.name!r} has no partition {number}.")
    if epoch is not None and epoch != log.epoch:
        raise RecordGone(f"The record was of epoch {epoch!r}; stream {log.name!r} began anew since.")
    return number


async def _record_at(log: StreamLog, partition: int, offset: int, encoding: Encoding) -> StreamScanResult:
    """Raises: NotFound, RecordGone."""
    next_offset = log.offsets[partition]
    if offset >= next_offset:
        raise NotFound(f"Stream {log.name!r} has no record {offset} yet; the next is {next_offset}.")
    if partition == SPOOL and isinstance(log, KafkaLog):
        place = await log.copy_of_spooled(offset)
        if place is not None:
            partition, offset = place
    # A scan names Kafka's epoch for the spool too.
    what = Scan(log.name, log.epoch, (), 0, 0, encoding, records_max=1)
    result = await log.scan_stream(StreamScan(what, {partition: offset}, {partition: offset + 1}))
    if result.count == 0:
        first = log.first_offsets[partition]
        raise RecordGone(f"Record {offset} is not kept any more; the oldest of stream {log.name!r} is {first}.")
    return result


def safe_content_type(text: str) -> str:
    """What a publisher calls its payload, when it is a content type (RFC 9110 §8.3) and no script.

    Whoever may publish could otherwise put scripts where pages of this server may load them from.
    """
    if _CONTENT_TYPE.fullmatch(text) is None or _SCRIPT_TYPE.match(text) is not None:
        return "application/octet-stream"
    return text
