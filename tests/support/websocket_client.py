"""RawWebSocket: a blocking WebSocket client that sends any handshake and any frame, also wrong ones (RFC 6455)."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.support import mqtt_wire as wire
from tests.support.mqtt_client import TIMEOUT_S, RawClient

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


@dataclass
class Answer:
    """An HTTP answer's head and body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Frame:
    """A frame from the server."""

    opcode: int
    payload: bytes
    is_final: bool = True

    @property
    def close_code(self) -> int:
        """Of a CLOSE."""
        return int.from_bytes(self.payload[:2], "big")


def encode_frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, is_masked: bool = True) -> bytes:
    """A frame as a client sends it (§5.2)."""
    length = len(payload)
    mask_bit = 0x80 if is_masked else 0
    head = bytes(((0x80 if fin else 0) | rsv << 4 | opcode,))
    if length < 126:
        head += bytes((mask_bit | length,))
    elif length < 65_536:
        head += bytes((mask_bit | 126,)) + struct.pack(">H", length)
    else:
        head += bytes((mask_bit | 127,)) + struct.pack(">Q", length)
    if not is_masked:
        return head + payload
    mask = os.urandom(4)
    repeated = (mask * (length // 4 + 1))[:length]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(length, "big")
    return head + mask + masked


class RawWebSocket:
    """A connection to a WebSocket port."""

    def __init__(self, port: int, timeout_s: float = TIMEOUT_S) -> None:
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()

    def request(
        self,
        path: str = "/mqtt",
        subprotocol: str | None = "mqtt",
        headers: Sequence[tuple[str, str]] = (),
        without: Sequence[str] = (),
    ) -> bytes:
        """The bytes of an upgrade request; `headers` replace, `without` leaves out."""
        own = {
            "Host": f"127.0.0.1:{self.port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Version": "13",
        }
        if subprotocol is not None:
            own["Sec-WebSocket-Protocol"] = subprotocol
        own |= dict(headers)
        lines = [f"{name}: {value}" for name, value in own.items() if name not in without]
        return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()

    def handshake(self, *, raw: bytes | None = None, **request: object) -> Answer:
        """Send a request (see `request`, or its bytes) and read the answer."""
        self.socket.sendall(raw if raw is not None else self.request(**request))  # type: ignore[arg-type]
        return self.read_answer()

    def read_answer(self) -> Answer:
        """The HTTP answer that comes next."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._fill():
                raise ConnectionError(f"closed before an answer: {bytes(self._buffer)!r}")
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        answer = Answer(int(first.split()[1]))
        for line in lines:
            name, _, value = line.partition(":")
            answer.headers[name.lower()] = value.strip()
        length = int(answer.headers.get("content-length", "0"))
        while len(rest) < length:
            self._buffer.clear()
            assert self._fill(), "body cut short"
            rest += bytes(self._buffer)
        answer.body = rest[:length]
        self._buffer[:] = rest[length:]
        return answer

    def open(self) -> Self:
        """A handshake that must succeed."""
        answer = self.handshake()
        assert answer.status == 101, answer
        assert answer.headers["sec-websocket-protocol"] == "mqtt", answer
        return self

    def send(self, payload: bytes, opcode: int = BINARY, **frame: object) -> None:
        """Send one frame."""
        self.socket.sendall(encode_frame(opcode, payload, **frame))  # type: ignore[arg-type]

    def _fill(self) -> bool:
        data = self.socket.recv(65_536)
        self._buffer += data
        return bool(data)

    def next_frame(self) -> Frame | None:
        """The next frame from the server; None when it has closed the connection."""
        while True:
            found = self._take()
            if found is not None:
                return found
            try:
                if not self._fill():
                    return None
            except ConnectionError:
                return None

    def _take(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        assert not buffer[1] & 0x80, "a server's frames are not masked [§5.1]"
        length, start = buffer[1], 2
        if length == 126:
            if len(buffer) < 4:
                return None
            length, start = int.from_bytes(buffer[2:4], "big"), 4
        elif length == 127:
            if len(buffer) < 10:
                return None
            length, start = int.from_bytes(buffer[2:10], "big"), 10
        if len(buffer) < start + length:
            return None
        found = Frame(buffer[0] & 0x0F, bytes(buffer[start : start + length]), bool(buffer[0] & 0x80))
        del buffer[: start + length]
        return found

    def expect_close(self, code: int) -> None:
        """The next frame but pings is a CLOSE with `code`; it is answered and the server then closes."""
        found = self.next_frame()
        while found is not None and found.opcode == PING:
            found = self.next_frame()
        assert found is not None, "closed without a CLOSE frame"
        assert found.opcode == CLOSE, found
        assert found.close_code == code, found
        with contextlib.suppress(OSError):
            self.send(found.payload[:2], CLOSE)
        assert self.next_frame() is None

    def close(self) -> None:
        """Close without a word."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class WebSocketMqttClient(RawClient):
    """A `RawClient` whose every `send` is one binary frame."""

    def __init__(self, port: int, version: int = wire.V5, timeout_s: float = TIMEOUT_S) -> None:
        self.websocket = RawWebSocket(port, timeout_s).open()
        self.version = version
        self.timeout_s = timeout_s
        self.socket = self.websocket.socket
        self._buffer = bytearray()
        self._next_packet_id = 0
        self._kept_back = deque()

    def send(self, data: bytes) -> None:
        """Send raw bytes as one binary frame."""
        self.websocket.send(data)

    def _read(self) -> bytes:
        while True:
            found = self.websocket.next_frame()
            if found is None or found.opcode == CLOSE:
                return b""
            if found.opcode == BINARY and found.payload:
                return found.payload
