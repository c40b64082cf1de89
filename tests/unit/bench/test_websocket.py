"""The load generator's WebSocket: frames of every length, cut anywhere, and sockets that take a part."""

from __future__ import annotations

import contextlib
import socket

import pytest

from devices.bench.websocket import WebSocketConnection, frame_head
from devices.bench.wire import PeerFailed


def frame(data: bytes, first: int = 0x82) -> bytes:
    """As a server sends it: without a mask."""
    if len(data) < 126:
        head = bytes([first, len(data)])
    elif len(data) < 1 << 16:
        head = bytes([first, 126]) + len(data).to_bytes(2, "big")
    else:
        head = bytes([first, 127]) + len(data).to_bytes(8, "big")
    return head + data


PAYLOADS = [b"", b"x", *[b"%02d" % n * 30 for n in range(40)], b"y" * 126, b"z" * 70_000, b"end"]


@pytest.mark.parametrize("piece_bytes", [1, 2, 63, 4_096])
def test_what_comes_in_frames_comes_out_whole(pair: tuple[socket.socket, socket.socket], piece_bytes: int) -> None:
    ours, theirs = pair
    connection = WebSocketConnection(ours)
    connection.setblocking(False)
    data = b"".join(map(frame, PAYLOADS[:44])) + frame(b"ping", 0x89) + b"".join(map(frame, PAYLOADS[44:]))
    if piece_bytes < 63:
        data = data[: data.index(b"z")]
    view = memoryview(bytearray(262_144))
    came = b""
    for start in range(0, len(data), piece_bytes):
        theirs.sendall(data[start : start + piece_bytes])
        try:
            came += view[: connection.recv_into(view)]
        except BlockingIOError:
            continue
    assert came == b"".join(PAYLOADS if b"z" in data else PAYLOADS[:-2])


def test_many_equal_frames_are_taken_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(frame(b"abcd") * 500 + frame(b"other") + frame(b"abcd") * 20)
    view = memoryview(bytearray(65_536))
    connection = WebSocketConnection(ours)
    assert bytes(view[: connection.recv_into(view)]) == b"abcd" * 500 + b"other" + b"abcd" * 20


def test_a_handshake_reads_no_more_than_it_asks_for(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    connection = WebSocketConnection(ours, received=frame(b"abcdef")[:1])
    theirs.sendall(frame(b"abcdef")[1:])
    assert connection.recv(4) == b"abcd"
    view = memoryview(bytearray(10))
    assert bytes(view[: connection.recv_into(view)]) == b"ef"


def test_a_closed_websocket_is_told(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(frame(b"\x03\xe8", 0x88))
    with pytest.raises(PeerFailed, match="closed the WebSocket"):
        WebSocketConnection(ours).recv_into(memoryview(bytearray(10)))


@pytest.mark.parametrize("size", [1, 125, 126, 65_535, 65_536, 300_000])
def test_a_write_is_one_frame_however_little_the_socket_takes(
    pair: tuple[socket.socket, socket.socket], size: int
) -> None:
    ours, theirs = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    connection = WebSocketConnection(ours)
    connection.setblocking(False)
    data = memoryview(bytes(number % 251 for number in range(size)))
    expected = frame_head(size) + bytes(data)
    came = b""
    while data or len(came) < len(expected):
        with contextlib.suppress(BlockingIOError):
            data = data[connection.send(data) :] if data else data
        came += theirs.recv(65_536)
    assert came == expected
