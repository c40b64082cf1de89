"""MQTT over TCP: an asyncio protocol that moves bytes between a transport and a Connection."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from broker.listeners.quiet import Move
    from broker.outbox import Transport
    from broker.protocol.connection import Connection
    from broker.turn import Turn

WRITE_BUFFER_BYTES_HIGH = 256 * 1024
"""A transport with more bytes than this waiting is full: from there on they gather in the outbox, where limits act."""


KERNEL_KEEP_ALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
"""Seconds of silence, seconds between probes, and probes without an answer."""
REFUSALS_MAX = 1_000
"""Connections beyond `connections_max` that are kept to be told why they are refused; further ones are cut."""


class TcpConnection(asyncio.Protocol):
    """One accepted socket."""

    __slots__ = ("_connection", "_move", "_turn")

    def __init__(self, turn: Turn, move: Move | None = None) -> None:
        """`move`: the connection is there, and comes from a quiet one."""
        self._turn = turn
        self._move = move
        self._connection: Connection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open the MQTT side. The socket has its options from the one that is listened on."""
        transport = cast("asyncio.Transport", transport)
        engine = self._turn.engine
        if self._move is not None:
            transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_HIGH)
            self._connection = self._move.connection
            self._move.arrived(transport)
            self._move = None
            return
        if len(engine.connections) >= engine.config.connections_max + REFUSALS_MAX:
            engine.metrics.limits.hit("connections_max")
            transport.abort()
            return
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_HIGH)
        self._connection = self._turn.engine.open(
            cast("Transport", transport), peer_text(transport.get_extra_info("peername")), "tcp"
        )

    def data_received(self, data: bytes) -> None:
        """One read."""
        turn = self._turn
        if self._connection is not None:
            self._connection.receive(data, turn.now_ms())
        turn.schedule()

    def pause_writing(self) -> None:
        """The transport is full."""
        if self._connection is not None:
            self._connection.pause_writing()

    def resume_writing(self) -> None:
        """The transport has room again."""
        if self._connection is not None:
            self._connection.resume_writing()
            self._turn.schedule()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if self._connection is not None:
            self._connection.lost()
            self._connection = None
            self._turn.schedule()


def set_options(raw_socket: socket.socket) -> None:
    """The options of a socket that listens, which those that it accepts have from it.

    Each turn writes once, so waiting for an ACK to join writes (Nagle) would only delay.
    """
    raw_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    watch_peer(raw_socket)


def watch_peer(raw_socket: socket.socket) -> None:
    """Have the kernel find out about a peer that is gone without a word: two minutes of silence, or of unread data.

    A client with a keep alive of 0 is never missed otherwise.
    """
    raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KERNEL_KEEP_ALIVE:
        if hasattr(socket, name):
            raw_socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def peer_text(peername: object) -> str:
    """The peer's address as `host:port`; empty when the transport does not know it."""
    if isinstance(peername, tuple) and len(peername) >= 2:
        host, port = peername[0], peername[1]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return ""
