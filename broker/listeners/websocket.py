"""MQTT over WebSocket (MQTT 5 §6, RFC 6455): the second door to the same `Connection`.

picows does the framing. This module judges handshakes, joins the frames of a read into one `receive`, and keeps the
WebSocket's own time: unfinished handshakes, pings, peers that are gone. One timer serves all connections.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from picows import (
    WSAutoPingStrategy,
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # not in its stub; tests/unit/listeners watches it

from broker.listeners.tcp import WRITE_BUFFER_BYTES_HIGH, peer_text, watch_peer
from broker.protocol.close_reason import CloseReason

if TYPE_CHECKING:
    import ssl

    from broker.config import BrokerConfig
    from broker.protocol.connection import Connection
    from broker.turn import Turn

PATH = "/mqtt"
SUBPROTOCOLS = ("mqtt", "mqttv3.1")
"""In the order of preference. [MQTT-6.0.0-3] The second is what 3.1 clients of old ask for."""
READ_BYTES_MAX = 65_536
"""One read takes no more: picows doubles its buffer for each read that fills it and never gives memory back."""
READ_BUFFER_BYTES = 4_096
"""What an idle connection keeps for reading."""
COPIED_FRAME_BYTES_MAX = 8_192
"""Larger frames picows would hand to the transport as a view of a header that it writes over with the next frame."""
FRAME_HEAD_BYTES_MAX = 14
PACKET_HEAD_BYTES_MAX = 5
LISTEN_BACKLOG = 1024

ECHOED_CLOSE_CODES = {
    code.value: code for code in WSCloseCode if code not in (WSCloseCode.NO_INFO, WSCloseCode.ABNORMAL_CLOSURE)
}
"""Others are answered with 1000: picows makes an object of each code that it is asked for and keeps it for good."""

log = logging.getLogger("headrace.websocket")


class _FramingLog(logging.LoggerAdapter[logging.Logger]):
    """picows' log: what peers do wrong is not our error, and its connection lines are ours to write.

    That it is an adapter matters: for a plain logger picows makes a child logger for each connection.
    """

    def info(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.debug(msg, *args, **kwargs)

    def warning(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.debug(msg, *args, **kwargs)

    def error(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.debug(msg, *args, **kwargs)

    def process(self, msg: object, kwargs: MutableMapping[str, Any]) -> tuple[object, MutableMapping[str, Any]]:
        return msg, kwargs


FRAMING_LOG = _FramingLog(logging.getLogger("headrace.websocket.framing"))


class WebSocketConnection(WSListener):
    """One upgraded connection: frames in, a `Connection` behind, and the `Transport` that it writes to."""

    __slots__ = ("_chunks", "_connection", "_is_closing", "_is_in_message", "_listener", "_turn", "_ws", "awaits_pong",
                 "has_sent", "is_heard", "is_reading_paused", "silent_visits")  # fmt: skip

    def __init__(self, listener: WebSocketListener) -> None:
        self._listener = listener
        self._turn = listener.turn
        self._ws: WSTransport | None = None
        self._connection: Connection | None = None
        self._chunks: list[bytes] = []
        """Payloads of this read's earlier frames."""
        self._is_in_message = False
        """A fragmented message has begun and not ended."""
        self._is_closing = False
        self.is_heard = True
        """Bytes have come since the last visit."""
        self.has_sent = False
        """MQTT has come since the last visit."""
        self.awaits_pong = False
        """A ping has been sent and no pong has come yet."""
        self.is_reading_paused = False
        self.silent_visits = 0

    # From picows

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._ws = transport
        self._connection = self._turn.engine.open(self, self._peer_text(), "websocket")
        self._listener.opened(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        message_type = frame.msg_type
        if message_type is WSMsgType.BINARY or message_type is WSMsgType.CONTINUATION:
            if self._is_closing:
                return
            if self._is_in_message is (message_type is WSMsgType.BINARY) or frame.rsv1 or frame.rsv2 or frame.rsv3:
                self._refuse(WSCloseCode.PROTOCOL_ERROR, "frame out of order")
                return
            self._is_in_message = not frame.fin
            self._chunks.append(frame.get_payload_as_bytes())
        elif message_type is WSMsgType.PONG:
            self.awaits_pong = False
        elif message_type is WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif message_type is WSMsgType.CLOSE:
            self._deliver()
            self._close_received(transport, frame)
            return
        elif message_type is WSMsgType.TEXT:
            self._refuse(WSCloseCode.UNSUPPORTED_DATA, "MQTT needs binary frames")  # [MQTT-6.0.0-1]
            return
        if frame.last_in_buffer:
            self._deliver()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._is_closing = True
        self._chunks.clear()
        self._listener.closed(self)
        if self._connection is not None:
            self._connection.lost()
            self._turn.schedule()

    def pause_writing(self) -> None:
        if self._connection is not None:
            self._connection.pause_writing()

    def resume_writing(self) -> None:
        if self._connection is not None:
            self._connection.resume_writing()
            self._turn.schedule()

    def _deliver(self) -> None:
        """Packets need not be aligned with frames, so a read's payloads are one piece of bytes. [MQTT-6.0.0-2]"""
        chunks = self._chunks
        if not chunks or self._connection is None:
            return
        data = b"".join(chunks) if len(chunks) > 1 else chunks[0]
        chunks.clear()
        if data:
            self.has_sent = True
            self._connection.receive(data, self._turn.now_ms())
            self._turn.schedule()

    def _close_received(self, transport: WSTransport, frame: WSFrame) -> None:
        if not transport.is_close_frame_sent:
            number = int.from_bytes(frame.get_payload_as_bytes()[:2], "big")
            transport.send_close(ECHOED_CLOSE_CODES.get(number, WSCloseCode.OK))
        self._is_closing = True
        transport.disconnect()

    def _refuse(self, code: WSCloseCode, reason: str) -> None:
        """The peer broke WebSocket's rules, or MQTT's for it: what came before in this read still counts."""
        self._deliver()
        transport = self._ws
        if transport is None or self._connection is None or self._is_closing:
            return
        self._is_closing = True
        log.debug("closed %s: %s", self._peer_text(), reason)
        transport.send_close(code, reason)
        self._connection.close(CloseReason.PROTOCOL_ERROR)  # cuts a peer that does not answer
        self._turn.schedule()

    # For the broker (broker.outbox.Transport)

    def write(self, data: bytes) -> None:
        """Send `data` as one binary frame."""
        transport = self._ws
        if transport is None:
            return
        if len(data) <= COPIED_FRAME_BYTES_MAX:
            transport.send(WSMsgType.BINARY, data)
        else:
            buffer = bytearray(FRAME_HEAD_BYTES_MAX)
            buffer += data
            transport.send_reuse_external_bytearray(WSMsgType.BINARY, buffer, FRAME_HEAD_BYTES_MAX)

    def close(self) -> None:
        """Say so and wait for the peer's answer (RFC 6455 §7.1.1); the broker's own time-out cuts who gives none."""
        transport = self._ws
        if transport is None or self._is_closing:
            return
        self._is_closing = True
        transport.send_close(WSCloseCode.OK)
        if self.is_reading_paused:
            transport.underlying_transport.resume_reading()

    def abort(self) -> None:
        """Close at once."""
        self._is_closing = True
        if self._ws is not None:
            self._ws.disconnect(graceful=False)

    def pause_reading(self) -> None:
        """Stop reading; what the read in hand holds still comes."""
        if self._ws is not None and not self.is_reading_paused:
            self.is_reading_paused = True
            self._ws.underlying_transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        if self._ws is not None and self.is_reading_paused:
            self.is_reading_paused = False
            self.is_heard = True
            if not self._ws.is_disconnected:
                self._ws.underlying_transport.resume_reading()

    # For the listener

    def visit(self) -> None:
        """Once an interval: ping who sent nothing but pongs, and cut a peer of which two intervals brought nothing.

        paho-mqtt's unmasked pong can be told only at the front of a read, and a busy client's would be in the middle.
        """
        transport = self._ws
        if transport is None or transport.is_disconnected:
            return
        if self.is_reading_paused and not self._is_closing:
            return  # we do not listen, so silence says nothing
        if self.is_heard:
            self.is_heard = False
            self.silent_visits = 0
        else:
            self.silent_visits += 1
        if self.silent_visits >= 2:
            log.debug("closed %s: no answer to pings", self._peer_text())
            self.abort()
        elif self.has_sent:
            self.has_sent = False
        else:
            self.awaits_pong = True
            transport.send_ping()

    def _peer_text(self) -> str:
        transport = self._ws
        return peer_text(transport.underlying_transport.get_extra_info("peername")) if transport is not None else ""

    @property
    def accepts_bytes(self) -> bool:
        """False after picows has refused a frame: nothing more is read then."""
        return self._ws is None or self._is_closing or not self._ws.is_close_frame_sent


UNMASKED_PONG = b"\x8a\x00"


class WebSocketProtocol(WSProtocol):  # type: ignore[misc]  # not in picows' stub
    """picows' protocol with bounds: reads of at most `READ_BYTES_MAX`, and handshakes that somebody counts."""

    def __init__(self, listener: WebSocketListener) -> None:
        self._owner = listener
        self._raw_transport: asyncio.Transport | None = None
        self._read: memoryview | None = None
        """Where the read in hand goes."""
        super().__init__(
            None,  # host and port, path: a client's
            None,
            False,  # not the client's side
            self._judge,
            FRAMING_LOG,
            True,  # disconnect on exceptions
            None,  # handshake time-out: ours, one timer for all; picows leaves an exception that nobody fetches
            False,  # automatic ping: a task for each connection
            20,
            20,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # automatic pong: would hide frames, and with them the end of a read
            listener.frame_bytes_max,
            None,  # extra headers: a client's
            READ_BUFFER_BYTES,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw_transport = cast("asyncio.Transport", transport)
        self._raw_transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_HIGH)
        super().connection_made(transport)
        watch_peer(self._raw_transport.get_extra_info("socket"))
        self._owner.handshake_begun(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.handshake_ended(self)
        super().connection_lost(exc)
        self._raw_transport = None

    def get_buffer(self, sizehint: int) -> memoryview:
        buffer: memoryview = super().get_buffer(sizehint)
        self._read = buffer[:READ_BYTES_MAX]
        return self._read

    def buffer_updated(self, nbytes: int) -> None:
        connection = self.listener
        if connection is not None and connection.awaits_pong:
            nbytes = self._without_unmasked_pong(connection, nbytes)
        self._read = None  # the buffer must be free to grow
        if nbytes:
            super().buffer_updated(nbytes)
        connection = self.listener
        if connection is not None:
            connection.is_heard = True
            if not connection.accepts_bytes and not self.transport.underlying_transport.is_closing():
                self.transport.underlying_transport.pause_reading()

    def take_over(self, transport: asyncio.Transport, request: bytes) -> None:
        """Go on with a connection on which another protocol has read `request`: a head, and what came behind it.

        Reading is paused meanwhile: uvloop chooses between its two kinds of protocol when it begins to read.
        """
        transport.pause_reading()
        transport.set_protocol(self)
        self.connection_made(transport)
        for start in range(0, len(request), READ_BYTES_MAX):
            piece = request[start : start + READ_BYTES_MAX]
            while piece and not transport.is_closing():
                buffer = self.get_buffer(len(piece))
                size = min(len(piece), len(buffer))
                buffer[:size] = piece[:size]
                self.buffer_updated(size)
                piece = piece[size:]
        connection = self.listener
        if not transport.is_closing() and not (connection is not None and connection.is_reading_paused):
            transport.resume_reading()

    def _without_unmasked_pong(self, connection: WebSocketConnection, nbytes: int) -> int:
        """Take an unmasked, empty pong from the front of the read in hand; returns the bytes that are left.

        paho-mqtt answers pings so, against RFC 6455 §5.3, and picows would close the connection for it. Only the
        answer to a ping of ours is taken, alone or before another masked frame.
        """
        read = self._read
        if read is None or nbytes < 2 or bytes(read[:2]) != UNMASKED_PONG:
            return nbytes
        if nbytes > 2 and not (nbytes >= 4 and read[2] & 0x70 == 0 and read[3] & 0x80):
            return nbytes
        connection.awaits_pong = False
        read[: nbytes - 2] = bytes(read[2:nbytes])
        return nbytes - 2

    def _judge(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        self._owner.handshake_ended(self)
        return self._owner.judge(request)

    def time_out(self) -> None:
        """The handshake took too long."""
        transport = self._raw_transport
        if transport is not None:
            transport.write(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            transport.close()

    def cut(self) -> None:
        """Close at once."""
        if self._raw_transport is not None:
            self._raw_transport.abort()


class WebSocketListener(asyncio.AbstractServer):
    """The WebSocket port: opens it, judges who may upgrade, visits its connections.

    `visit_interval_s` is the time between pings of one connection; connections are spread over as many buckets of a
    second each.
    """

    def __init__(self, turn: Turn, visit_interval_s: int = 30) -> None:
        config = turn.engine.config
        self.turn = turn
        self.frame_bytes_max = config.packet_bytes_max + PACKET_HEAD_BYTES_MAX
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
        headers = {"Sec-WebSocket-Protocol": next(name for name in SUBPROTOCOLS if name in offered(request))}
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
        if not any(name in offered(request) for name in SUBPROTOCOLS):
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


def offered(request: WSUpgradeRequest) -> list[str]:
    """The subprotocols that a client asks for."""
    return [name for value in request.headers.getall("Sec-WebSocket-Protocol", []) for name in listed(value)]
