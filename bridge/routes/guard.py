"""What every request passes: root path, host, origin, HEAD, size of the body, headers of the answer. Plain ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bridge.errors import problem
from bridge.live.handover import EXTENSION, Http

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)
STREAMED = ("/events", "/poll", "/records")
"""How paths end whose answers take their time or have any length: HEAD is refused there (405)."""
RETRY_AFTER_S = "5"


class BodyOverLimit(Exception):
    """The body grew over the limit while it was read."""


class Guard:
    """Middleware around the whole application."""

    def __init__(
        self, app: ASGIApp, *, root_path: str = "", allowed_origins: Sequence[str], body_bytes_max: int
    ) -> None:
        self._app = app
        self._root_path = root_path
        self._allowed_origins = frozenset(allowed_origins)
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._root_path:
            scope["root_path"] = self._root_path
        answer = _Answer(send)
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, answer.send)
            return
        body = _Body(receive, self._body_bytes_max)
        if _content_length(scope) > self._body_bytes_max:
            await self._refuse_body(scope, body, answer)
            return
        if scope["method"] == "HEAD" and not scope["path"].endswith(STREAMED):
            scope = {**scope, "method": "GET"}  # the server leaves the body of the answer out
        try:
            await self._app(scope, body.receive, answer.send)
        except BodyOverLimit:
            if answer.is_started:
                raise
            await self._refuse_body(scope, body, answer)
        except asyncio.CancelledError:
            http = scope.get("extensions", {}).get(EXTENSION)
            if not isinstance(http, Http):
                raise
            # The server stops and has waited long enough for this one: its body does not come, or nobody reads.
            if answer.is_started or http.flow.write_paused:
                await _break_off(http, receive)
            else:
                advice = {"Retry-After": RETRY_AFTER_S, "Connection": "close"}
                stopping = problem(503, "The server is stopping.", scope["path"], advice)
                await stopping(scope, receive, answer.send)

    def _refusal(self, scope: Scope) -> Response | None:
        """What is wrong with a request's head."""
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if scope.get("http_version") == "1.1" and len(hosts) != 1:
            return problem(400, "A request of HTTP/1.1 has one Host (RFC 9112 §3.2).", scope["path"])
        origin = dict(scope["headers"]).get(b"origin")
        if origin is not None and not self.is_allowed(origin, hosts[-1] if hosts else b""):
            detail = "Pages of other origins are refused; [http] allowed_origins in the configuration names them."
            return problem(403, detail, scope["path"])
        return None

    async def _refuse_body(self, scope: Scope, body: _Body, answer: _Answer) -> None:
        scope["app"].state.node.limits.hits.hit("http.body_bytes_max")
        await body.pass_over()
        detail = f"A request body may have {self._body_bytes_max} bytes."
        refusal = problem(413, detail, scope["path"], {"Connection": "close"})
        await refusal(scope, body.receive, answer.send)

    def is_allowed(self, origin: bytes, host: bytes) -> bool:
        """Whether a page of `origin` may ask a server that it calls `host`."""
        text = origin.decode("latin-1")
        if text in self._allowed_origins or "*" in self._allowed_origins:
            return True
        try:
            own = urlsplit(text).netloc.lower()
        except ValueError:
            return False
        return own == host.decode("latin-1").lower() != ""


class _Answer:
    """The answer to one request, with the headers that all have."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_started = False

    async def send(self, message: Message) -> None:
        """As ASGI's."""
        if message["type"] == "http.response.start":
            self.is_started = True
            message["headers"] = [*message.get("headers", ()), *SECURITY_HEADERS]
        await self._send(message)


class _Body:
    """The body of one request, up to its limit."""

    def __init__(self, receive: Receive, bytes_max: int) -> None:
        self._receive = receive
        self._bytes_max = bytes_max
        self._received = 0

    async def receive(self) -> Message:
        """As ASGI's. Raises: BodyOverLimit"""
        message = await self._next()
        if message["type"] == "http.request" and self._received > self._bytes_max:
            raise BodyOverLimit
        return message

    async def pass_over(self) -> None:
        """Read a little more of it: a client that still sends hears nothing."""
        while self._received <= 4 * self._bytes_max and (await self._next()).get("more_body", False):
            continue

    async def _next(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        return message


def _content_length(scope: Scope) -> int:
    """What a request says of its body's length; 0 when that is no number."""
    length: bytes = dict(scope["headers"]).get(b"content-length", b"")
    return int(length) if length.isdigit() else 0


async def _break_off(http: Http, receive: Receive) -> None:
    """End a connection in the middle of an answer, which must not look whole."""
    http.transport.abort()
    while (await receive())["type"] != "http.disconnect":
        continue
