"""The bridge's errors and their one mapping to problem+json (RFC 9457).

Whatever goes wrong behind an HTTP request leaves as `application/problem+json`: our own errors, wrong parameters, paths
and methods that do not exist, and bugs, whose traceback is logged and of which the peer learns nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar

import orjson
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match

from bridge.history.export import TooManyExports
from bridge.live.hub import TooManyReaders
from bridge.streams.log import StreamLogError

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger("headrace.http")

PROBLEM_JSON = "application/problem+json"
PROBLEM_SCHEMA = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "parameter": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail"],
}


class BridgeError(Exception):
    """Something that a client is told; the message is the problem's `detail`."""

    status: ClassVar[int] = 500
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, detail: str, *, limit: str | None = None) -> None:
        super().__init__(detail)
        self.limit = limit
        """The key of the limit that was reached, if it was one."""

    def members(self) -> dict[str, Any]:
        """Further members of the problem."""
        return {}


class ParameterInvalid(BridgeError):
    """A parameter or a field of the body is wrong."""

    status = 400

    def __init__(self, parameter: str, detail: str, *, limit: str | None = None) -> None:
        super().__init__(detail, limit=limit)
        self.parameter = parameter

    def members(self) -> dict[str, Any]:
        return {"parameter": self.parameter}


class NotAvailable(ParameterInvalid):
    """This server does not do that."""

    def __init__(self, parameter: str, what: str | None = None) -> None:
        super().__init__(parameter, f"{what or parameter} is not available on this server.")


class NotFound(BridgeError):
    """There is no such thing."""

    status = 404


class Forbidden(BridgeError):
    """It may not be done."""

    status = 403


class Conflict(BridgeError):
    """Not as things are."""

    status = 409


class CursorGone(BridgeError):
    """A page's cursor points into an epoch that is no more."""

    status = 410


class RecordGone(BridgeError):
    """The record is no longer kept."""

    status = 410


class BodyTooLarge(BridgeError):
    """The request's body, or the payload in it, is too large."""

    status = 413


class Unavailable(BridgeError):
    """Not now; try again."""

    status = 503
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "2"}


def problem(
    status: int, detail: str, instance: str, headers: Mapping[str, str] | None = None, **members: Any
) -> Response:
    """A problem+json response. `instance` is the path of the request."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "instance": instance}
    no_store = {"Cache-Control": "no-store"}
    return Response(
        orjson.dumps(body | members), status, headers=no_store | dict(headers or {}), media_type=PROBLEM_JSON
    )


def install(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Have `app`, whose routes are those of `routers`, answer every error as a problem."""

    @app.exception_handler(BridgeError)
    async def told(request: Request, error: BridgeError) -> Response:
        if error.limit is not None:
            request.app.state.node.limits.hits.hit(error.limit)
        return problem(error.status, str(error), request.url.path, error.headers, **error.members())

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        parameter, detail = _first_mistake(error.errors())
        return problem(400, detail, request.url.path, parameter=parameter)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        detail = error.detail
        if error.status_code == 404:
            detail = f"There is nothing at {request.url.path}."
        elif error.status_code == 405:
            detail = f"{request.method} is not possible at {request.url.path}."
            return problem(405, detail, request.url.path, {"Allow": ", ".join(_methods_at(request, routers))})
        return problem(error.status_code, detail, request.url.path, error.headers)

    @app.exception_handler(TooManyReaders)
    async def full(request: Request, error: TooManyReaders) -> Response:
        return problem(503, f"{error}; no more are taken.", request.url.path, {"Retry-After": "5"})

    @app.exception_handler(TooManyExports)
    async def busy(request: Request, error: TooManyExports) -> Response:
        request.app.state.node.limits.hits.hit("history.exports_max")
        return problem(503, f"{error}; try again when one has ended.", request.url.path, {"Retry-After": "10"})

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return problem(400, "The request ended before its body did.", request.url.path)  # which nobody hears

    @app.exception_handler(StreamLogError)
    async def log_failed(request: Request, error: StreamLogError) -> Response:
        logger.error("the log could not be read for %s: %s", request.url.path, error)
        return problem(503, "The log cannot be read at the moment.", request.url.path, {"Retry-After": "5"})

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return problem(500, "The server could not answer; its log says why.", request.url.path)


def _methods_at(request: Request, routers: Sequence[APIRouter]) -> list[str]:
    """What is possible at the path of a request (RFC 9110 §15.5.6)."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    found = [route.methods or set() for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted(set[str]().union(*found))


def _first_mistake(mistakes: Sequence[Any]) -> tuple[str, str]:
    """The name and the words of the first mistake that FastAPI found."""
    mistake = mistakes[0]
    path = [str(part) for part in mistake["loc"][1:] if not isinstance(part, int)]
    name = ".".join(path) or "body"
    return name, f"{name}: {mistake['msg']}"
