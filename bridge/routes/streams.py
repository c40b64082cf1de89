"""Streams: `/api/v1/streams` and `/streams/{name}`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from bridge.encoding import rfc3339
from bridge.errors import NotFound
from bridge.node import Node
from bridge.routes.figures import operating_figures
from bridge.streams.log import StreamLog

router = APIRouter(prefix="/api/v1", tags=["history"])


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
