"""The HTTP application: routes, errors and headers around a node that its lifespan opens and closes.

    uvicorn.run(create_app(config), http=Http)

It runs on any ASGI server; with `bridge.live.handover.Http` live readers cost less.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware.cors import CORSMiddleware

from bridge import __version__, errors
from bridge.live.handover import LIMIT_HITS, ROOT_PATH, WEBSOCKETS
from bridge.metrics import registry_for
from bridge.node import Node
from bridge.routes import (
    devices,
    events,
    history,
    operations,
    pages,
    publish,
    records,
    retained,
    stream_operations,
    streams,
    system,
    topics,
)
from bridge.routes.guard import Guard

if TYPE_CHECKING:
    from pathlib import Path

    from bridge.config import Config

MODULES = (
    events,
    streams,
    stream_operations,
    records,
    history,
    topics,
    devices,
    retained,
    publish,
    system,
    operations,
    pages,
)
DESCRIPTION = "Devices in by MQTT, live in the browser, everything replayable. Errors are problem+json (RFC 9457)."


def create_app(config: Config, node: Node | None = None, *, dashboard: Path = pages.DIST) -> FastAPI:
    """The application for a configuration; its lifespan opens a node, unless it is given one that is open."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        if node is not None:
            _attach(app, node)
            try:
                yield _state(node)
            finally:
                node.hub.close_readers()
            return
        async with Node(config) as opened:
            _attach(app, opened)
            yield _state(opened)

    app = FastAPI(
        title="Headrace",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        lifespan=lifespan,
    )
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.state.pages = pages.Pages(dashboard)
    if node is not None:
        _attach(app, node)
    routers = [module.router for module in MODULES]
    errors.install(app, routers)
    for router in routers:
        app.include_router(router)
    app.include_router(pages.static_files(app.state.pages))
    if config.http.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.http.allowed_origins),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Last-Event-ID"],
        )
    app.add_middleware(
        Guard,
        root_path=config.http.root_path,
        allowed_origins=config.http.allowed_origins,
        body_bytes_max=config.live_limits().body_bytes_max,
    )
    return app


def _state(node: Node) -> dict[str, Any]:
    """What our HTTP class needs to know of the node."""
    return {
        WEBSOCKETS: node.broker.websockets,
        ROOT_PATH: node.config.http.root_path,
        LIMIT_HITS: node.limits.hits,
    }


def _attach(app: FastAPI, node: Node) -> None:
    app.state.node = node
    app.state.registry = registry_for(node)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, in which mistakes are what they are here: 400 as problem+json."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
        )
        for operations in schema["paths"].values():
            for operation in operations.values():
                if operation["responses"].pop("422", None) is not None:
                    operation["responses"]["400"] = {
                        "description": "A parameter is wrong; `parameter` names it.",
                        "content": {errors.PROBLEM_JSON: {"schema": errors.PROBLEM_SCHEMA}},
                    }
        for name in ("HTTPValidationError", "ValidationError"):
            schema.get("components", {}).get("schemas", {}).pop(name, None)
        app.openapi_schema = schema
    return app.openapi_schema
