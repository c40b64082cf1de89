"""MQTT over WebSocket for the load generator: a socket whose bytes travel in binary frames.

What is sent goes in one frame for each write, under a mask of zeros, which costs the sender nothing and the server as
much as any other. What comes is taken out of its frames many at a time while they are of one length.
Source: RFC 6455 §5.2, MQTT 5 §6.
"""

from __future__ import annotations

import base64
import os
import socket

import numpy as np

from devices.bench.frames import Column
from devices.bench.wire import RECEIVE_BUFFER_BYTES, PeerFailed, open_socket, read_http_head

BINARY_FRAME = 0x82
CLOSE = 8
CONTROL = 8
"""Opcodes from here on are not data."""
MASKED = 0x80
MASK = b"\0\0\0\0"
LENGTH_16, LENGTH_64 = 126, 127
EQUAL_FRAMES_MIN = 8
"""From so many short frames of one length on they are looked at as columns."""


def frame_head(length: int) -> bytes:
    """Of a final, masked, binary frame."""
    if length < LENGTH_16:
        return bytes([BINARY_FRAME, MASKED | length]) + MASK
    if length < 1 << 16:
        return bytes([BINARY_FRAME, MASKED | LENGTH_16]) + length.to_bytes(2, "big") + MASK
    return bytes([BINARY_FRAME, MASKED | LENGTH_64]) + length.to_bytes(8, "big") + MASK


class WebSocketConnection:
    """Stands in for a connected socket, as far as the load generator uses one."""

    def __init__(self, connection: socket.socket, received: bytes = b"") -> None:
        """`received`: what had come behind the answer to the request."""
        self._connection = connection
        self._unsent_head = b""
        self._promised = 0
        """Bytes that the last head has told of and that have not gone."""
        self._due = 0
        """Bytes of the frame in hands that have not come."""
        self._is_data = True
        self._raw = bytearray(RECEIVE_BUFFER_BYTES)
        self._raw_view = memoryview(self._raw)
        self._tail = received
        """A head that has not come whole."""
        self._ready = b""
        """Taken out of frames, and more than was asked for."""

    def fileno(self) -> int:
        return self._connection.fileno()

    def setblocking(self, flag: bool, /) -> None:
        self._connection.setblocking(flag)

    def close(self) -> None:
        self._connection.close()

    def send(self, data: memoryview, /) -> int:
        """How many bytes were taken; the rest must be what is sent next. Raises: BlockingIOError, OSError"""
        if self._unsent_head:
            self._unsent_head = self._unsent_head[self._connection.send(self._unsent_head) :]
            if self._unsent_head:
                raise BlockingIOError
        if self._promised:
            taken = self._connection.send(data[: self._promised])
            self._promised -= taken
            return taken
        head = frame_head(len(data))
        sent = self._connection.send(head + bytes(data))
        self._unsent_head = head[sent:]
        taken = max(0, sent - len(head))
        self._promised = len(data) - taken
        return taken

    def sendall(self, data: bytes, /) -> None:
        """Send one frame on a blocking socket."""
        self._connection.sendall(frame_head(len(data)) + data)

    def recv(self, count: int, /) -> bytes:
        """At most `count` bytes of what came in frames, on a blocking socket; nothing at the end."""
        if not self._ready:
            taken = memoryview(bytearray(RECEIVE_BUFFER_BYTES))
            while True:
                try:
                    self._ready = bytes(taken[: self.recv_into(taken)])
                except BlockingIOError:
                    continue  # a part of a head
                break
        data, self._ready = self._ready[:count], self._ready[count:]
        return data

    def recv_into(self, view: memoryview, /) -> int:
        """What came in frames; 0 at the end. Raises: BlockingIOError when nothing has come, OSError"""
        if self._ready:
            count = min(len(view), len(self._ready))
            view[:count], self._ready = self._ready[:count], self._ready[count:]
            return count
        raw, tail_bytes = self._raw_view, len(self._tail)
        raw[:tail_bytes] = self._tail
        count = self._connection.recv_into(raw[tail_bytes : max(tail_bytes + 1, min(len(raw), len(view)))])
        if count == 0:
            return 0
        taken, used = self._unframe(view, tail_bytes + count)
        self._tail = bytes(raw[used : tail_bytes + count])
        if not taken:
            raise BlockingIOError
        return taken

    def _unframe(self, view: memoryview, have: int) -> tuple[int, int]:
        """Bytes put into `view`, and how many of the raw ones are done with."""
        raw = self._raw_view
        position = taken = 0
        while position < have:
            if self._due:
                count = min(self._due, have - position)
                if self._is_data:
                    view[taken : taken + count] = raw[position : position + count]
                    taken += count
                position += count
                self._due -= count
                continue
            head_bytes, length = self._head(position, have)
            if not head_bytes:
                break
            rows = self._equal_frames(position, have, head_bytes + length) if length < LENGTH_16 else 0
            if rows:
                block: Column = np.ndarray((rows, head_bytes + length), "u1", self._raw, position)
                count = rows * length
                view[taken : taken + count] = block[:, head_bytes:].tobytes()
                taken += count
                position += rows * (head_bytes + length)
                continue
            opcode = raw[position] & 0x0F
            if opcode == CLOSE:
                raise PeerFailed("the server closed the WebSocket")
            self._is_data = opcode < CONTROL
            self._due = length
            position += head_bytes
        return taken, position

    def _head(self, position: int, have: int) -> tuple[int, int]:
        """(bytes of the head, of the payload); (0, 0) while it is not whole."""
        raw = self._raw_view
        if have - position < 2:
            return 0, 0
        second = raw[position + 1]
        length, mask_bytes = second & 0x7F, 4 if second & MASKED else 0
        more = 2 if length == LENGTH_16 else 8 if length == LENGTH_64 else 0
        if have - position < 2 + more + mask_bytes:
            return 0, 0
        if more:
            length = int.from_bytes(raw[position + 2 : position + 2 + more], "big")
        return 2 + more + mask_bytes, length

    def _equal_frames(self, position: int, have: int, stride: int) -> int:
        """How many frames begin as the one at `position` and are as long; 0 when they are few or not data."""
        rows = (have - position) // stride
        if rows < EQUAL_FRAMES_MIN or self._raw[position] != BINARY_FRAME:
            return 0
        heads: Column = np.ndarray((rows,), "<u2", self._raw, position, (stride,))
        others = heads != heads[0]
        rows = int(np.argmax(others)) if others.any() else rows
        return rows if rows >= EQUAL_FRAMES_MIN else 0


def open_websocket(port: int) -> WebSocketConnection:
    """A blocking WebSocket for MQTT at `/mqtt` of a loopback port. Raises: PeerFailed"""
    connection = open_socket(port)
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        (
            f"GET /mqtt HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
        ).encode()
    )
    head, rest = read_http_head(connection)
    if not head.startswith(b"HTTP/1.1 101"):
        connection.close()
        raise PeerFailed(f"the WebSocket was refused: {head[:200]!r}")
    return WebSocketConnection(connection, rest)
