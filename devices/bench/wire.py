"""Sockets of the load generator: connecting, the MQTT handshake, an HTTP answer's head; all before the clock runs."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import time
from typing import Any

from devices.bench.frames import encode_connect, encode_subscribe

HANDSHAKE_TIMEOUT_S = 20.0
RECEIVE_BUFFER_BYTES = 256 * 1024
LISTEN_PORTS = range(20_000, 32_000)
HTTP_HEAD_BYTES_MAX = 64 * 1024
IP_BIND_ADDRESS_NO_PORT = 24
"""Linux's number; Python names it from 3.12 on."""


class PeerFailed(Exception):
    """A server under test did not start, refused a connection or closed it."""


class Refused(PeerFailed):
    """A server's answer to a request was an error; the text has its status and its body."""

    @property
    def is_not_available(self) -> bool:
        """What was asked for is something that this version of the server does not do."""
        return "not available" in str(self)


def open_socket(port: int, source: str | None = None) -> socket.socket:
    """A connected blocking socket to a loopback port, without Nagle's delay.

    `source` is the loopback address to connect from: each has its own local ports.
    """
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.settimeout(HANDSHAKE_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if source is not None:
        # The port is chosen when the peer is known: ports that wait out an earlier run's connections are free for it.
        connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        connection.bind((source, 0))
    try:
        connection.connect(("127.0.0.1", port))
    except OSError as error:
        connection.close()
        raise PeerFailed(f"no connection to port {port}: {error}") from error
    return connection


def receive_exactly(connection: socket.socket, count: int) -> bytes:
    """`count` bytes from a blocking socket.

    Raises: PeerFailed when the peer closes or stays silent.
    """
    data = b""
    while len(data) < count:
        try:
            piece = connection.recv(count - len(data))
        except OSError as error:
            raise PeerFailed(f"the handshake got no answer: {error}") from error
        if not piece:
            raise PeerFailed("the server closed the connection during the handshake")
        data += piece
    return data


def connect_mqtt(port: int, client_id: str, *, keepalive_s: int = 0, source: str | None = None) -> socket.socket:
    """A blocking socket on which MQTT 3.1.1's CONNECT has been accepted."""
    connection = open_socket(port, source)
    connection.sendall(encode_connect(client_id, keepalive_s))
    expect_connack(connection)
    return connection


def expect_connack(connection: socket.socket) -> None:
    """Read CONNACK. Raises: PeerFailed"""
    connack = receive_exactly(connection, 4)
    if connack[0] != 0x20 or connack[3] != 0:
        raise PeerFailed(f"CONNECT was answered {connack.hex()}")


def subscribe(connection: socket.socket, topic_filter: str, qos: int) -> None:
    """Subscribe and wait for SUBACK. Raises: PeerFailed"""
    connection.sendall(encode_subscribe(1, topic_filter, qos))
    suback = receive_exactly(connection, 5)
    if suback[0] != 0x90 or suback[4] != qos:
        raise PeerFailed(f"SUBSCRIBE was answered {suback.hex()}")


def open_events(port: int, query: str, *, source: str | None = None) -> tuple[socket.socket, bytes, bool]:
    """GET /api/v1/events; see `open_answer`. Raises: PeerFailed"""
    return open_answer(port, f"/api/v1/events?{query}", source=source)


def open_answer(port: int, path: str, *, source: str | None = None) -> tuple[socket.socket, bytes, bool]:
    """GET something long; the socket, what of the body came with the head, and whether the body is chunked.

    Raises: PeerFailed
    """
    connection = open_socket(port, source)
    _request(connection, path)
    try:
        body, is_chunked = read_events_head(connection)
    except PeerFailed:
        connection.close()
        raise
    return connection, body, is_chunked


def request_events(connection: socket.socket, query: str) -> None:
    """Send the request for a stream of events."""
    _request(connection, f"/api/v1/events?{query}")


def _request(connection: socket.socket, path: str) -> None:
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())


def read_events_head(connection: socket.socket) -> tuple[bytes, bool]:
    """Read the head of the answer; see `open_answer`."""
    data = b""
    while b"\r\n\r\n" not in data:
        try:
            piece = connection.recv(4096)
        except OSError as error:
            raise PeerFailed(f"no answer: {error}") from error
        if not piece or len(data) > HTTP_HEAD_BYTES_MAX:
            raise PeerFailed(f"the answer was {data[:200]!r}")
        data += piece
    head, body = data.split(b"\r\n\r\n", 1)
    if not head.startswith(b"HTTP/1.1 200"):
        with contextlib.suppress(OSError):
            body = body or connection.recv(4096)
        raise Refused(f"{head.splitlines()[0].decode(errors='replace')} {body[:500].decode(errors='replace')}")
    return body, b"transfer-encoding: chunked" in head.lower()


def get_json(port: int, path: str, timeout_s: float = HANDSHAKE_TIMEOUT_S) -> Any:
    """GET a JSON document from the server under test. Raises: PeerFailed"""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise PeerFailed(f"GET {path}: {error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise Refused(f"GET {path}: {response.status} {body[:500].decode(errors='replace')}")
    return json.loads(body)


def wait_for_port(port: int, is_alive: Any, timeout_s: float = 20.0) -> None:
    """Return when a loopback port accepts connections. Raises: PeerFailed when `is_alive()` ends or time is up."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not is_alive():
            raise PeerFailed("it ended while starting")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise PeerFailed(f"port {port} did not open in {timeout_s:.0f} s")


def free_ports(count: int) -> list[int]:
    """Different loopback ports that nothing listens on right now.

    From below the range that the kernel takes for outgoing connections, so that none of those gets there first.
    """
    free: list[int] = []
    for port in random.sample(LISTEN_PORTS, len(LISTEN_PORTS)):
        if len(free) == count:
            return free
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
    raise PeerFailed(f"no free ports in {LISTEN_PORTS}")
