"""Sockets of the load generator: connecting, the MQTT handshake, an HTTP answer's head; all before the clock runs."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from devices.bench.frames import encode_connect, encode_subscribe

HANDSHAKE_TIMEOUT_S = 20.0
RECEIVE_BUFFER_BYTES = 256 * 1024
LISTEN_PORTS = range(20_000, 32_000)
HTTP_HEAD_BYTES_MAX = 64 * 1024
IP_BIND_ADDRESS_NO_PORT = 24
"""Linux's number; Python names it from 3.12 on."""


RECEIVE_MAXIMUM_DEFAULT = 65_535
_CONNACK_PROPERTY_BYTES = {0x11: 4, 0x13: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1}
"""Of those with a fixed length; the others are texts."""


class Connection(Protocol):
    """A socket, or what stands in for one."""

    def fileno(self) -> int: ...
    def setblocking(self, flag: bool, /) -> None: ...
    def close(self) -> None: ...
    def send(self, data: memoryview, /) -> int: ...
    def sendall(self, data: bytes, /) -> None: ...
    def recv(self, count: int, /) -> bytes: ...
    def recv_into(self, view: memoryview, /) -> int: ...


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


def receive_exactly(connection: Connection, count: int) -> bytes:
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


def receive_packet(connection: Connection) -> tuple[int, bytes]:
    """First byte and body of one MQTT packet from a blocking socket. Raises: PeerFailed"""
    first, digit = receive_exactly(connection, 2)
    length, shift = digit & 127, 7
    while digit & 128:
        digit = receive_exactly(connection, 1)[0]
        length |= (digit & 127) << shift
        shift += 7
    return first, receive_exactly(connection, length)


@dataclass(frozen=True)
class Connack:
    """What of it matters to a load."""

    is_session_present: bool
    receive_maximum: int = RECEIVE_MAXIMUM_DEFAULT


def connect_mqtt(
    port: int,
    client_id: str,
    *,
    keepalive_s: int = 0,
    source: str | None = None,
) -> socket.socket:
    """A blocking socket on which MQTT 3.1.1's CONNECT has been accepted."""
    connection = open_socket(port, source)
    connection.sendall(encode_connect(client_id, keepalive_s))
    expect_connack(connection)
    return connection


def expect_connack(connection: Connection) -> Connack:
    """Read CONNACK, of MQTT 3.1.1 or 5. Raises: PeerFailed"""
    first, body = receive_packet(connection)
    if first != 0x20 or len(body) < 2 or body[1] != 0:
        raise PeerFailed(f"CONNECT was answered {first:02x} {body.hex()}")
    return Connack(bool(body[0] & 1), _receive_maximum(body[3:]) if len(body) > 2 else RECEIVE_MAXIMUM_DEFAULT)


def _receive_maximum(properties: bytes) -> int:
    """That of a CONNACK's properties, up to those that this does not know. Source: MQTT 5 §3.2.2.3"""
    position = 0
    while position < len(properties):
        identifier = properties[position]
        if identifier == 0x21:
            return int.from_bytes(properties[position + 1 : position + 3], "big")
        size = _CONNACK_PROPERTY_BYTES.get(identifier)
        if size is None:
            text_bytes = int.from_bytes(properties[position + 1 : position + 3], "big")
            size = 2 + text_bytes
        position += 1 + size
    return RECEIVE_MAXIMUM_DEFAULT


def subscribe(connection: Connection, topic_filters: str | Sequence[str], qos: int, *, level: int = 4) -> None:
    """Subscribe to one filter or several and wait for SUBACK. Raises: PeerFailed"""
    count = 1 if isinstance(topic_filters, str) else len(topic_filters)
    connection.sendall(encode_subscribe(1, topic_filters, qos, level=level))
    first, body = receive_packet(connection)
    if first != 0x90 or body[-count:] != bytes([qos]) * count:
        raise PeerFailed(f"SUBSCRIBE was answered {first:02x} {body[:40].hex()}")


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


def read_http_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """The head of an answer without its empty line, and what came behind it. Raises: PeerFailed"""
    data = b""
    while b"\r\n\r\n" not in data:
        try:
            piece = connection.recv(4096)
        except OSError as error:
            raise PeerFailed(f"no answer: {error}") from error
        if not piece or len(data) > HTTP_HEAD_BYTES_MAX:
            raise PeerFailed(f"the answer was {data[:200]!r}")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def read_events_head(connection: socket.socket) -> tuple[bytes, bool]:
    """Read the head of the answer; see `open_answer`."""
    head, body = read_http_head(connection)
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
