"""What every request passes: root path, host, origin, HEAD, size of the body, headers of the answer. Plain ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bridge.errors import problem
from bridge.live.handover import EXTENSION, Http

if TYPE_CHECKING:
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
        headers: dict[bytes, bytes] = dict(scope["headers"])
        is_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                message["headers"] = [*message.get("headers", ()), *SECURITY_HEADERS]
            await send(message)

        path = scope["path"]
        if scope.get("http_version") == "1.1" and sum(name == b"host" for name, _ in scope["headers"]) != 1:
            refusal = problem(400, "A request of HTTP/1.1 has one Host (RFC 9112 §3.2).", path)
            await refusal(scope, receive, send_with_headers)
            return
        if b"origin" in headers and not self.is_allowed(headers[b"origin"], headers.get(b"host", b"")):
            refusal = problem(
                403, "Pages of other origins are refused; [http] allowed_origins in the configuration names them.", path
            )
            await refusal(scope, receive, send_with_headers)
            return
        if scope["method"] == "HEAD" and not path.endswith(STREAMED):
            scope = {**scope, "method": "GET"}  # the server leaves the body of the answer out
        too_large = problem(413, f"A request body may have {self._body_bytes_max} bytes.", path)
        length = headers.get(b"content-length", b"0")
        received = 0

        async def refuse_body() -> None:
            """Answer behind the body, of which a little more is read: a client that still sends hears nothing."""
            nonlocal received
            scope["app"].state.node.limits.hits.hit("http.body_bytes_max")
            while received <= 4 * self._body_bytes_max:
                message = await receive()
                received += len(message.get("body", b""))
                if not message.get("more_body", False):
                    break
            too_large.headers["connection"] = "close"
            await too_large(scope, receive, send_with_headers)

        if length.isdigit() and int(length) > self._body_bytes_max:
            await refuse_body()
            return

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._body_bytes_max:
                    raise BodyOverLimit
            return message

        try:
            await self._app(scope, receive_bounded, send_with_headers)
        except BodyOverLimit:
            if is_started:
                raise
            await refuse_body()
        except asyncio.CancelledError:
            http = scope.get("extensions", {}).get(EXTENSION)
            if not isinstance(http, Http):
                raise
            # The server stops and has waited long enough for this one: its body does not come, or nobody reads.
            if is_started or http.flow.write_paused:
                await _break_off(http, receive)
            else:
                advice = {"Retry-After": RETRY_AFTER_S, "Connection": "close"}
                await problem(503, "The server is stopping.", path, advice)(scope, receive, send_with_headers)

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


async def _break_off(http: Http, receive: Receive) -> None:
    """End a connection in the middle of an answer, which must not look whole."""
    http.transport.abort()
    while (await receive())["type"] != "http.disconnect":
        continue
