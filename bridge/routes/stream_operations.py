"""What operators do to a stream: trim it, delete one that is no longer configured, look at its dead letters.

All of it needs the right `manage`.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from bridge.errors import Conflict, NotFound, ParameterInvalid
from bridge.node import Node
from bridge.routes.commands import tell_command
from bridge.routes.parameters import parse_number, parse_time
from bridge.routes.streams import stream_named
from bridge.streams.kafka.dead_letters import dead_letter_json, read_dead_letters
from bridge.streams.memory_log import MemoryLog
from bridge.streams.sqlite_log import SqliteLog
from bridge.streams.stored_streams import StoredStream, open_stored, stored_streams

router = APIRouter(prefix="/api/v1", tags=["operations"])

TRIM_WAIT_S = 20.0
"""A trim that takes longer goes on; the answer then says that it is not complete."""
LETTERS = 100
LETTERS_MAX = 1_000
LETTERS_BYTES_MAX = 8 * 1024 * 1024


class TrimRequest(BaseModel):
    """Where a stream shall begin: exactly one of these."""

    model_config = ConfigDict(extra="forbid", strict=True)

    before: str | int | None = Field(None, description="Drop what was received before this time.")
    before_offset: int | None = Field(None, ge=0, description="Drop what lies before this offset.")
    keep_bytes: int | None = Field(None, ge=0, description="Drop the oldest until no more than this is kept.")


@router.post("/streams/{name}/trim", summary="Drop the oldest records of a stream")
async def trim(request: Request, name: str, wanted: TrimRequest) -> dict[str, Any]:
    """Records before a time or an offset go at once, exactly; to a size, in whole rows. What is trimmed is a `gap`
    (`retention`) to readers that had not seen it.
    """
    node: Node = request.app.state.node
    log = stream_named(node, name)
    if not isinstance(log, SqliteLog | MemoryLog):
        raise Conflict(
            f"Stream {name!r} is on Kafka, which drops by the retention of its topic; kafka-delete-records trims that."
        )
    first = log.first_offset
    before = await _offset_of(log, wanted)
    is_complete = True
    try:
        async with asyncio.timeout(TRIM_WAIT_S):
            await log.trim(before)
    except TimeoutError:
        is_complete = False
    answer = {
        "stream": name,
        "first_offset": log.first_offset,
        "deleted": max(0, log.first_offset - first),
        "bytes": log.stored_bytes,
        "complete": is_complete,
    }
    tell_command(node, request, "trim_stream", **answer)
    return answer


async def _offset_of(log: SqliteLog | MemoryLog, wanted: TrimRequest) -> int:
    given = [key for key in TrimRequest.model_fields if getattr(wanted, key) is not None]
    if len(given) != 1:
        raise ParameterInvalid("before", "Give one of before (a time), before_offset and keep_bytes.")
    if wanted.before_offset is not None:
        return wanted.before_offset
    if wanted.keep_bytes is not None:
        return await log.offset_keeping(wanted.keep_bytes)
    return await log.offset_at(parse_time("before", str(wanted.before)))


@router.delete("/streams/{name}", summary="Delete a stream that is not configured any more")
async def delete(request: Request, name: str) -> dict[str, Any]:
    """It is gone at once; its room on the disk is given back in small steps and used again."""
    node: Node = request.app.state.node
    if name in node.streams:
        raise Conflict(
            f"Stream {name!r} is configured, and devices may write to it. Take it out of the configuration and "
            "restart, then delete it; to empty it, trim it."
        )
    found = [stream for stream in await asyncio.to_thread(_stored, node.store.path) if stream.base_name == name]
    if not found or not await node.store.delete_stream(name):
        raise NotFound(f"There is no stream {name!r} on disk that is not configured.")
    lost = {"records": sum(stream.records for stream in found), "bytes": sum(stream.bytes for stream in found)}
    tell_command(node, request, "delete_stream", stream=name, **lost)
    return {"deleted": name, **lost}


def _stored(path: Path) -> list[StoredStream]:
    with closing(open_stored(path.parent)) as connection:
        return stored_streams(connection)


@router.get(
    "/streams/{name}/dead-letters",
    summary="Records that Kafka will never take",
    response_class=Response,
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def dead_letters(
    request: Request,
    name: str,
    after: Annotated[str, Query(description="Behind this id")] = "0",
    limit: Annotated[str, Query(description="At most so many")] = str(LETTERS),
) -> Response:
    """`{"dead_letters": [{"id", "time", "partition", "reason", "record"}], "next"}`, oldest first; `next` is what
    `after` is for the next page, null at the end.
    """
    node: Node = request.app.state.node
    stream_named(node, name)
    after_id = parse_number("after", after, 0, 2**62)
    count = parse_number("limit", limit, 1, LETTERS_MAX)
    body = await asyncio.to_thread(_letters_page, node.store.path, name, after_id, count)
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})


def _letters_page(path: Path, stream: str, after_id: int, count: int) -> bytes:
    with closing(open_stored(path.parent)) as connection:
        letters = read_dead_letters(connection, stream, after_id, count, LETTERS_BYTES_MAX)
        last_id = letters[-1].letter_id if letters else after_id
        has_more = bool(read_dead_letters(connection, stream, last_id, 1, 0))
    lines = b",".join(dead_letter_json(stream, letter) for letter in letters)
    return b'{"dead_letters":[%b],"next":%b}' % (lines, b"%d" % last_id if has_more else b"null")
