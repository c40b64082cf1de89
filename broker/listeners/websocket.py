"""MQTT over WebSocket (MQTT 5 §6, RFC 6455): the second door to the same `Connection`.

picows does the framing. This module opens the port, judges handshakes, and keeps the WebSocket's own time: unfinished
handshakes, pings, peers that are gone. One timer serves all connections.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from picows import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener

from broker.listeners.websocket_connection import WebSocketConnection, WebSocketProtocol

if TYPE_CHECKING:
    import ssl

    from broker.config import BrokerConfig
    from broker.turn import Turn

PATH = "/mqtt"
SUBPROTOCOLS = ("mqtt", "mqttv3.1")
"""In the order of preference. [MQTT-6.0.0-3] The second is what 3.1 clients of old ask for."""
PACKET_HEAD_BYTES_MAX = 5
LISTEN_BACKLOG = 1024


class WebSocketListener(asyncio.AbstractServer):
    """The WebSocket port: opens it, judges who may upgrade, visits its connections.

    `visit_interval_s` is the time between pings of one connection; connections are spread over as many buckets of a
    second each.
    """

    def __init__(self, turn: Turn, visit_interval_s: int = 30) -> None:
        config = turn.engine.config
        self.turn = turn
        self.frame_bytes_max = max(config.websocket_frame_bytes_max, config.packet_bytes_max + PACKET_HEAD_BYTES_MAX)
        self._connections_max = config.connections_max
        self._handshake_timeout_s = config.connect_timeout_s
        self._allowed_origins = frozenset(origin.rstrip("/").lower() for origin in config.allowed_origins)
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._seconds = 0
        self._handshakes: dict[WebSocketProtocol, int] = {}
        """Unfinished ones, by the second they began, oldest first."""
        self._buckets: list[set[WebSocketConnection]] = [set() for _ in range(visit_interval_s)]
        self._bucket_of: dict[WebSocketConnection, int] = {}
        self._opened_total = 0
        self.refused_handshakes: dict[int, int] = {}
        """Counted by HTTP status."""

    # The port (asyncio.AbstractServer)

    async def open(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Listen; port 0 takes a free one.

        Raises:
            OSError: the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: WebSocketProtocol(self), host, port, ssl=tls, backlog=LISTEN_BACKLOG
        )
        self._timer = loop.call_later(1, self._beat)

    @property
    def _opened_server(self) -> asyncio.Server:
        assert self._server is not None, "open() comes first"
        return self._server

    @property
    def sockets(self) -> tuple[Any, ...]:
        """What it listens on."""
        return tuple(self._opened_server.sockets)

    def close(self) -> None:
        """Take no new connections; those there are the broker's to close."""
        if self._timer is not None:
            self._timer.cancel()
        self._opened_server.close()
        for protocol in list(self._handshakes):
            protocol.cut()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop it runs in."""
        return self._opened_server.get_loop()

    def is_serving(self) -> bool:
        """Whether new connections are taken."""
        return self._opened_server.is_serving()

    async def start_serving(self) -> None:
        """Nothing to do: `open` has begun."""

    async def serve_forever(self) -> None:
        """Until cancelled."""
        await self._opened_server.serve_forever()

    async def wait_closed(self) -> None:
        """Until the port is closed and its connections are gone."""
        await self._opened_server.wait_closed()

    # Time

    def _beat(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(1, self._beat)
        self.beat()

    def beat(self) -> None:
        """A second has passed."""
        self._seconds += 1
        overdue = self._seconds - self._handshake_timeout_s
        while self._handshakes:
            protocol, begun = next(iter(self._handshakes.items()))
            if begun > overdue:
                break
            del self._handshakes[protocol]
            self.turn.engine.metrics.limits.hit("connect_timeout_s")
            protocol.time_out()
        for connection in list(self._buckets[self._seconds % len(self._buckets)]):
            connection.visit()

    # Its connections

    @property
    def open_connections(self) -> int:
        """Upgraded connections."""
        return len(self._bucket_of)

    def handshake_begun(self, protocol: WebSocketProtocol) -> None:
        """A peer has connected; it has `handshake_timeout_s` for its request."""
        if len(self._handshakes) >= self._connections_max:
            protocol.cut()
        else:
            self._handshakes[protocol] = self._seconds

    def handshake_ended(self, protocol: WebSocketProtocol) -> None:
        """Its request is complete, or it is gone."""
        self._handshakes.pop(protocol, None)

    def opened(self, connection: WebSocketConnection) -> None:
        """Visit it from now on."""
        self._opened_total += 1
        index = self._opened_total % len(self._buckets)
        self._bucket_of[connection] = index
        self._buckets[index].add(connection)

    def closed(self, connection: WebSocketConnection) -> None:
        """Forget it."""
        index = self._bucket_of.pop(connection, None)
        if index is not None:
            self._buckets[index].discard(connection)

    # Handshakes

    def take_over(self, transport: asyncio.Transport, request: bytes) -> None:
        """Serve a connection of another port, whose first request asks for an upgrade at `PATH`."""
        WebSocketProtocol(self).take_over(transport, request)

    def judge(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        """Answer an upgrade request (RFC 6455 §4.2): 101 with the subprotocol, or a reason in words."""
        refusal = self._refusal(request)
        if refusal is not None:
            status, text, headers = refusal
            self.refused_handshakes[status] = self.refused_handshakes.get(status, 0) + 1
            answer = WSUpgradeResponse.create_error_response(status, text.encode() + b"\n", headers)
            return WSUpgradeResponseWithListener(answer, None)
        request.headers["Connection"] = "upgrade"  # picows takes no list; Firefox sends `keep-alive, Upgrade`
        headers = {"Sec-WebSocket-Protocol": chosen(request) or ""}
        answer = WSUpgradeResponse.create_101_response(headers)
        return WSUpgradeResponseWithListener(answer, WebSocketConnection(self))

    def _refusal(self, request: WSUpgradeRequest) -> tuple[int, str, dict[str, str]] | None:
        headers = request.headers
        if request.path.split(b"?", 1)[0] != PATH.encode():
            return 404, f"MQTT over WebSocket is at {PATH}.", {}
        if "websocket" not in listed(headers.get("Upgrade", "")) or "upgrade" not in listed(
            headers.get("Connection", "")
        ):
            return 426, "This is MQTT over WebSocket: upgrade to it.", {"Upgrade": "websocket"}
        if headers.get("Sec-WebSocket-Version") != "13":
            return 426, "Only version 13 of WebSocket is spoken.", {"Sec-WebSocket-Version": "13"}
        if not self._is_origin_allowed(request):
            return 403, "Pages of this origin may not connect: name it in allowed_origins.", {}
        if chosen(request) is None:
            return 400, "Ask for the subprotocol mqtt.", {}
        if self.turn.engine.is_full():
            return 503, "No further connection is taken now.", {"Retry-After": "10"}
        return None

    def _is_origin_allowed(self, request: WSUpgradeRequest) -> bool:
        """Programs send no Origin; a page of the same host (the dashboard, on its own port) is at home."""
        origins = request.headers.getall("Origin", [])
        hosts = request.headers.getall("Host", [])
        if not origins:
            return True
        if len(origins) != 1 or len(hosts) != 1:
            return False
        origin = origins[0].lower()
        if origin in self._allowed_origins or "*" in self._allowed_origins:
            return True
        try:
            origin_host, own_host = urlsplit(origin).hostname, urlsplit("//" + hosts[0].lower()).hostname
        except ValueError:
            return False
        return origin_host is not None and origin_host == own_host


async def start_websocket_server(turn: Turn, config: BrokerConfig) -> WebSocketListener:
    """Listen on the configured address.

    Raises:
        OSError: the address cannot be had.
    """
    assert config.websocket_bind is not None
    listener = WebSocketListener(turn)
    await listener.open(*config.websocket_bind)
    return listener


def listed(value: str) -> list[str]:
    """The members of a comma-separated header, in lower case."""
    return [member.strip().lower() for member in value.split(",")]


def chosen(request: WSUpgradeRequest) -> str | None:
    """The best of the subprotocols that a client asks for, as it writes it (RFC 6455 §4.2.2); None: none will do."""
    values = request.headers.getall("Sec-WebSocket-Protocol", [])
    offered = [name.strip() for value in values for name in value.split(",")]
    return next((name for wanted in SUBPROTOCOLS for name in offered if name.lower() == wanted), None)
