"""For those who run the server: `/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from bridge.errors import Unavailable
from bridge.node import Node

router = APIRouter(tags=["operations"])

NO_STORE = {"Cache-Control": "no-store"}


@router.get("/healthz", summary="The process answers")
async def healthz() -> Response:
    """200 while the process runs its loop."""
    return JSONResponse({"status": "ok"}, headers=NO_STORE)


@router.get("/readyz", summary="Messages are taken and stored")
async def readyz(request: Request) -> Response:
    """200 when the node takes messages and stores them, 503 with the reason otherwise."""
    node: Node = request.app.state.node
    if not node.is_ready:
        raise Unavailable("The node is starting or stopping.")
    failing = [f"{name}: {log.failure}" for name, log in node.streams.items() if log.failure is not None]
    if failing:
        raise Unavailable("; ".join(failing))
    return JSONResponse({"status": "ready"}, headers=NO_STORE)


@router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """In Prometheus's text format."""
    return Response(generate_latest(request.app.state.registry), media_type=CONTENT_TYPE_LATEST, headers=NO_STORE)
