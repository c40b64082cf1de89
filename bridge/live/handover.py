"""The transport of a live reader leaves uvicorn: after the head of the response our own protocol takes it over.
That of an MQTT client leaves after the head of its request: `/mqtt` is a WebSocket on this port too.

`Http` is uvicorn's httptools protocol with bounds on the request's head. It puts itself into `scope["extensions"]`, so
that a response can ask it for its transport. What it touches of uvicorn's inside is not public; tests/integration/http
holds the installed uvicorn to it. On any other server the response keeps to plain ASGI.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING, Any, Protocol, cast

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bridge.live.events import LAST_CHUNK
from bridge.live.limits import LiveLimits

if TYPE_CHECKING:
    from asyncio import Transport
    from collections.abc import Callable

    from bridge.live.reader import Reader
    from broker.limit_hits import LimitHits

EXTENSION = "headrace.http"
WEBSOCKETS = "headrace_websockets"
"""In the state of the application's lifespan: who takes over the connections of MQTT clients."""
ROOT_PATH = "headrace_root_path"
"""In the same state: below which path a proxy shows this server."""
LIMIT_HITS = "headrace_limit_hits"
"""In the same state: who counts."""
LIMIT_BY_STATUS = {408: "http.head_timeout_s", 431: "http.head_bytes_max", 503: "http.connections_max"}
MQTT_PATH = b"/mqtt"
NOT_SENT_BYTES_MAX = 64 * 1024
"""What the kernel takes beyond what the peer's window lets it send: seconds of stale events otherwise."""
_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if hasattr(socket, "TCP_INFO") else None)


class WebSockets(Protocol):
    """`broker.listeners.websocket.WebSocketListener`, as it is seen from here."""

    def take_over(self, transport: Transport, request: bytes) -> None:
        """Judge the request and serve the connection from now on."""


class HeadTooLarge(Exception):
    """The request line and headers are longer than `head_bytes_max`."""


class QuietTransport:
    """uvicorn's transport: what is written to it when it is closing is left out, as nobody hears it.

    uvloop raises for such a write, between the break of a connection and the call that tells of it.
    """

    __slots__ = ("transport",)

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def write(self, data: bytes) -> None:
        """Write unless it is closing."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)


class Http(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with bounded heads, whose transport can be taken over."""

    limits = LiveLimits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._pending_bytes = 0
        self._is_head_open = True
        self._refusal = 400
        self._head_timer: asyncio.TimerHandle | None = None
        self._on_end: Callable[[], None] | None = None
        self._read = b""

    # Bounds of a request's head

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(cast("Transport", QuietTransport(transport)))
        if len(self.connections) > self.limits.connections_max:
            self._refusal = 503
            self.send_400_response("")
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_complete()
        super().connection_lost(exc)
        self._end()  # uvicorn tells only the last of several pipelined requests

    def eof_received(self) -> None:
        """The peer sends no more, and the transport closes: nothing is written to it between this and its loss."""
        self._give_up()

    def data_received(self, data: bytes) -> None:
        self._read = data
        super().data_received(data)
        self._read = b""
        if not self._is_head_open or self.transport.is_closing() or self.parser is None:
            return
        # httptools gathers a header line until its end, so what has no end yet is counted here.
        self._pending_bytes += len(data)
        if self._pending_bytes > self.limits.head_bytes_max:
            self._refusal = 431
            self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = self._pending_bytes = 0
        self._is_head_open = True
        if self._head_timer is None:
            self._await_head()
        cast("dict[str, Any]", self.scope)["extensions"] = {EXTENSION: self}

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_is_complete()
        self._is_head_open = False
        super().on_headers_complete()

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.limits.head_bytes_max:
            self._refusal = 431
            raise HeadTooLarge  # the parser turns it into a parse error, which ends in `send_400_response`

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.limits.head_timeout_s, self._head_is_late)

    def _head_is_complete(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self._refusal = 408
            self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be answered by the application, as problem+json; then close."""
        self._head_is_complete()
        status = self._refusal
        hits: LimitHits | None = self.app_state.get(LIMIT_HITS)
        if hits is not None and status in LIMIT_BY_STATUS:
            hits.hit(LIMIT_BY_STATUS[status])
        is_answering = self._give_up()
        if is_answering or self.transport.is_closing():
            self.transport.close()
            return
        title, detail = _REFUSALS[status]
        body = orjson.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail})
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n%b"
            b"connection: close\r\n\r\n%b"
            % (status, title.encode(), len(body), b"retry-after: 5\r\n" if status == 503 else b"", body)
        )
        self.transport.close()

    def _give_up(self) -> bool:
        """Answer no request that is under way: the connection ends. Returns whether a response had begun."""
        self.pipeline.clear()
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        cycle.disconnected = True  # else it would write to a transport that is closed
        cycle.message_event.set()
        is_answering: bool = cycle.response_started
        return is_answering

    # Handing over

    def can_hand_over(self, scope: Any) -> bool:
        """Whether the request of `scope` is all that this connection has to say: HTTP/1.1 and nothing behind it."""
        cycle = self.cycle
        return (
            scope["http_version"] == "1.1"
            and scope["method"] == "GET"
            and self.scope is cycle.scope
            and cycle.scope.get("extensions") is scope.get("extensions")
            and not self.pipeline
            and not self.flow.read_paused
            and not cycle.more_body
            and not cycle.disconnected
            and not self.transport.is_closing()
        )

    def hand_over(self) -> Transport:
        """Let go of the transport after the response's head was sent; the caller sets its protocol at once."""
        self.connections.discard(self)
        self._unset_keepalive_if_required()
        self._head_is_complete()
        self.cycle.response_complete = True
        self.cycle.message_event.set()
        self.server_state.total_requests += 1
        return cast("QuietTransport", self.transport).transport

    # MQTT over WebSocket

    @property
    def websockets(self) -> WebSockets | None:
        """Who speaks MQTT over WebSocket; None: nobody does here."""
        return cast("WebSockets | None", self.app_state.get(WEBSOCKETS))

    def _should_upgrade(self) -> bool:
        return (
            self._get_upgrade() == b"websocket"
            and self._own_url().partition(b"?")[0] == MQTT_PATH
            and self.websockets is not None
        )

    def _own_url(self) -> bytes:
        """That of the request, without the path that a proxy may have left before it."""
        root: str = self.app_state.get(ROOT_PATH, "")
        return self.url.removeprefix(root.encode())

    def _unsupported_upgrade_warning(self) -> None:
        """The request is answered as if it did not ask for an upgrade (RFC 9110 §7.8), and nobody need know."""

    def handle_websocket_upgrade(self) -> None:
        """uvicorn calls this when a head that `_should_upgrade` is complete, while the parser's exception is at hand.

        picows wants the request itself, so it is put together again; what came behind it belongs to the WebSocket.
        """
        transport, websockets = self.transport, self.websockets
        assert websockets is not None  # `_should_upgrade`
        if self.cycle is not None and not self.cycle.response_complete:
            self._give_up()  # pipelined behind a request that is not answered yet
            transport.close()
            return
        parsed = sys.exc_info()[1]
        behind = self._read[parsed.args[0] :] if parsed is not None and parsed.args else b""
        lines = [b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), self._own_url())]
        lines += [b"%b: %b\r\n" % header for header in self.headers]
        self.connections.discard(self)
        self._unset_keepalive_if_required()
        self.server_state.total_requests += 1
        self.parser = None  # type: ignore[assignment]  # it knows us as we know it
        websockets.take_over(cast("QuietTransport", transport).transport, b"".join(lines) + b"\r\n" + behind)

    # The end

    def on_end(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when the connection is lost or the server stops, so that a long response can end."""
        self._on_end = callback

    def shutdown(self) -> None:
        super().shutdown()
        self._end()

    def _end(self) -> None:
        callback, self._on_end = self._on_end, None
        if callback is not None:
            callback()


def http_class(limits: LiveLimits) -> type[Http]:
    """`Http` with these bounds, for `uvicorn.Config(http=…)`."""
    return type("BoundedHttp", (Http,), {"limits": limits})


_REFUSALS = {
    400: ("Bad Request", "This is not an HTTP/1.1 request."),
    408: ("Request Timeout", "The head of the request did not arrive in time."),
    431: ("Request Header Fields Too Large", "The request line and headers are longer than this server takes."),
    503: ("Service Unavailable", "No further connection is taken now."),
}


class SseConnection(asyncio.Protocol):
    """A transport that only writes events. It stands in uvicorn's set of connections, to be told of its shutdown."""

    __slots__ = ("_connections", "_transport", "reader")

    is_framed = True

    def __init__(self, transport: Transport, connections: set[Any], reader: Reader) -> None:
        self._transport = transport
        self._connections = connections
        self.reader = reader
        connections.add(self)
        transport.set_protocol(self)
        bound_kernel_buffer(transport)

    # Outlet

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def set_water_marks(self, high: int, low: int) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def close(self) -> None:
        transport = self._transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size():
            transport.abort()  # it is full: the end would wait for a reader that does not read
        else:
            transport.write(LAST_CHUNK)
            transport.close()

    # asyncio.Protocol

    def pause_writing(self) -> None:
        self.reader.pause()

    def resume_writing(self) -> None:
        self.reader.resume()

    def data_received(self, data: bytes) -> None:
        """What a client sends behind its request is never answered, as the response has no end."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self.reader.close()

    def shutdown(self) -> None:
        """uvicorn stops."""
        self.reader.close()


def bound_kernel_buffer(transport: Transport) -> None:
    """Keep stale events out of the kernel's buffer, and find out about peers that are gone."""
    connected = transport.get_extra_info("socket")
    if connected is None or connected.family == getattr(socket, "AF_UNIX", None):
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    if _TCP_NOTSENT_LOWAT is not None:
        connected.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOT_SENT_BYTES_MAX)
