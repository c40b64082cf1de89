"""One MQTT connection over WebSocket: picows' frames in, a `Connection` behind, and the `Transport` that it writes to.

It joins the frames of a read into one `receive`, bounds what picows keeps, and says which peers are gone when it is
visited. `broker.listeners.websocket` opens the port, judges the handshakes and does the visiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, cast

from picows import (
    WSAutoPingStrategy,
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # not in its stub; tests/unit/listeners watches it

from broker.listeners.tcp import WRITE_BUFFER_BYTES_HIGH, peer_text, watch_peer
from broker.protocol.close_reason import CloseReason

if TYPE_CHECKING:
    from broker.listeners.websocket import WebSocketListener
    from broker.protocol.connection import Connection

READ_BYTES_MAX = 65_536
"""One read takes no more: picows doubles its buffer for each read that fills it and never gives memory back."""
READ_BUFFER_BYTES = 4_096
"""What an idle connection keeps for reading."""
COPIED_FRAME_BYTES_MAX = 8_192
"""Larger frames picows would hand to the transport as a view of a header that it writes over with the next frame."""
FRAME_HEAD_BYTES_MAX = 14
UNMASKED_PONG = b"\x8a\x00"

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
