"""Quiet connections: accepted TCP sockets that say little, held for a tenth of what a transport of the loop takes.

Most devices say something now and then. All of these share one `epoll`, which the loop watches like one more socket,
and each is a descriptor with a few words beside it. A connection that reads or writes often, or has more to write than
its socket takes, moves to a transport of the loop, with its buffers and limits, and stays there. Where there is no
`epoll` every connection has such a transport from the beginning.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
from typing import TYPE_CHECKING

from broker.listeners.tcp import REFUSALS_MAX, TcpConnection, peer_text

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from broker.protocol.connection import Connection
    from broker.turn import Turn

log = logging.getLogger("headrace.mqtt")

ACCEPTS_MAX = 64
"""Connections accepted in one round of the loop: those that are there come before those that knock."""
READS_MAX = 256
"""Connections read from in one round."""
READ_BYTES = 64 * 1024
EVENTS_MAX = 64
"""Reads and writes within a window; who has more moves."""
WINDOW_SHIFT = 4
"""A window is 16 seconds of the engine's."""
RETRY_S = 0.1
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class QuietTransport:
    """A descriptor as `broker.outbox.Transport`."""

    __slots__ = ("_events", "_fd", "_is_reading", "_quiet", "_window", "connection", "move")

    def __init__(self, quiet: QuietConnections, fd: int) -> None:
        self._quiet = quiet
        self._fd = fd
        self._is_reading = True
        self._events = 0
        self._window = 0
        self.connection: Connection
        self.move: Move | None = None
        """Not None: it is on its way to a transport of the loop, or there."""

    def read(self) -> None:
        """There is something to read, or the peer is gone."""
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.abort()
            return
        turn = self._quiet.turn
        self.connection.receive(data, turn.now_ms())
        turn.schedule()
        if self._is_busy() or len(data) == READ_BYTES:
            self._begin_move(b"")

    def write(self, data: bytes) -> None:
        """Send `data`; what the socket does not take moves with the connection."""
        if self.move is not None:
            self.move.write(data)
            return
        if self._fd < 0:
            return
        try:
            sent = os.write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.abort()
            return
        if sent < len(data):
            self.connection.pause_writing()
            self._begin_move(data[sent:])
        elif self._is_busy():
            self._begin_move(b"")

    def _is_busy(self) -> bool:
        window = self._quiet.turn.engine.seconds >> WINDOW_SHIFT
        if window != self._window:
            self._window, self._events = window, 0
        self._events += 1
        return self._events > EVENTS_MAX

    def _begin_move(self, rest: bytes) -> None:
        if self._fd >= 0 and self.move is None:
            self.pause_reading()
            self.move = Move(self._quiet, self.connection, rest)
            self._quiet.move(self.move, self._fd)
            self._fd = -1

    def close(self) -> None:
        """Close; nothing is buffered here."""
        if self.move is not None:
            self.move.close()
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once; the connection is told in the next round of the loop."""
        if self.move is not None:
            self.move.abort()
        elif self._fd >= 0:
            self.pause_reading()
            os.close(self._fd)
            self._fd = -1
            self._quiet.closed(self.connection)

    def pause_reading(self) -> None:
        """Stop reading."""
        if self.move is not None:
            self.move.pause_reading()
        elif self._is_reading and self._fd >= 0:
            self._is_reading = False
            self._quiet.unwatch(self._fd)

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        if self.move is not None:
            self.move.resume_reading()
        elif not self._is_reading and self._fd >= 0:
            self._is_reading = True
            self._quiet.watch(self._fd, self)


class Move:
    """A connection's way from its descriptor to a transport of the loop, some rounds later; `broker.outbox.Transport`
    meanwhile, and after that for those who still have this one."""

    __slots__ = ("_chunks", "_closes", "_quiet", "connection", "transport")

    def __init__(self, quiet: QuietConnections, connection: Connection, rest: bytes) -> None:
        self._quiet = quiet
        self.connection = connection
        self._chunks = [rest] if rest else []
        self._closes = False
        self.transport: asyncio.Transport | None = None

    def arrived(self, transport: asyncio.Transport) -> None:
        """The transport is there: it takes over what waits. It begins to read after this call."""
        self.transport = transport
        connection = self.connection
        if connection.outbox.transport is not None:
            connection.outbox.transport = transport
        if connection.outbox.is_blocked:
            connection.resume_writing()
        for chunk in self._chunks:
            transport.write(chunk)
        self._chunks.clear()
        if self._closes:
            transport.close()
        else:
            self._quiet.loop.call_soon(self._pause)
        self._quiet.turn.schedule()

    def _pause(self) -> None:
        """Who has stopped reading from the connection did so before there was a transport that reads."""
        if self.connection.is_paused and self.transport is not None:
            self.transport.pause_reading()

    def write(self, data: bytes) -> None:
        """Send `data` when there is a transport."""
        if self.transport is not None:
            self.transport.write(data)
        else:
            self._chunks.append(data)

    def close(self) -> None:
        """Close when what waits has left."""
        self._closes = True
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close, and send nothing more."""
        if self.transport is not None:
            self.transport.abort()
        else:
            self._closes = True
            self._chunks.clear()

    def pause_reading(self) -> None:
        """Stop reading; nothing is read on the way."""
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        if self.transport is not None:
            self.transport.resume_reading()


class QuietConnections:
    """Accepts on listening sockets, and reads from all that are quiet."""

    def __init__(self, turn: Turn, loop: asyncio.AbstractEventLoop, sockets: Sequence[socket.socket]) -> None:
        """`sockets`: bound, listening and not blocking; they are its own from here on."""
        self.turn = turn
        self.loop = loop
        self.sockets = list(sockets)
        self._epoll = select.epoll()
        self._transports: list[QuietTransport | None] = []
        """By descriptor, of those that are read from."""
        self._moves: set[asyncio.Task[None]] = set()
        self._spare_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        """Given up for a moment when there are no descriptors left, to tell a peer so by closing."""
        loop.add_reader(self._epoll.fileno(), self._read_some)
        for each in self.sockets:
            loop.add_reader(each.fileno(), self._accept_some, each)

    def close(self) -> None:
        """Take no new connections."""
        for each in self.sockets:
            self.loop.remove_reader(each.fileno())
            each.close()
        self.sockets.clear()
        if self._spare_fd >= 0:
            os.close(self._spare_fd)
            self._spare_fd = -1

    def end(self) -> None:
        """All connections are closed."""
        if not self._epoll.closed:
            self.loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    # The sockets that listen

    def _accept_some(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_MAX):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    self._turn_away(listening)
                elif error.errno != errno.ECONNABORTED:
                    log.warning("a connection could not be accepted: %s", error)
                return
            accepted.setblocking(False)
            self._open(accepted.detach(), address)

    def _open(self, fd: int, address: object) -> None:
        engine = self.turn.engine
        if len(engine.connections) >= engine.config.connections_max + REFUSALS_MAX:
            engine.metrics.limits.hit("connections_max")
            os.close(fd)
            return
        transport = QuietTransport(self, fd)
        transport.connection = engine.open(transport, peer_text(address), "tcp")
        self.watch(fd, transport)

    def _turn_away(self, listening: socket.socket) -> None:
        """There are no descriptors: with the spare one a peer is accepted and closed, rather than left to wait."""
        if self._spare_fd >= 0:
            os.close(self._spare_fd)
            self._spare_fd = -1
        try:
            accepted, _ = listening.accept()
            accepted.close()
            self._spare_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:  # others were quicker to take it: a while later there may be some
            log.debug("no connection could be turned away: %s", error)
            self.loop.remove_reader(listening.fileno())
            self.loop.call_later(RETRY_S, self._accept_again, listening)

    def _accept_again(self, listening: socket.socket) -> None:
        if listening in self.sockets:
            self.loop.add_reader(listening.fileno(), self._accept_some, listening)

    # The connections

    def _read_some(self) -> None:
        transports = self._transports
        for fd, _ in self._epoll.poll(0, READS_MAX):
            transport = transports[fd]
            if transport is not None:
                transport.read()

    def watch(self, fd: int, transport: QuietTransport) -> None:
        """Read from a connection."""
        missing = fd + 1 - len(self._transports)
        if missing > 0:
            self._transports += [None] * missing
        self._transports[fd] = transport
        self._epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """Do not read from it any more."""
        self._transports[fd] = None
        self._epoll.unregister(fd)

    def closed(self, connection: Connection) -> None:
        """Tell a connection that its socket is gone, in the next round of the loop."""
        self.loop.call_soon(self._lost, connection)

    def _lost(self, connection: Connection) -> None:
        connection.lost()
        self.turn.schedule()

    def move(self, move: Move, fd: int) -> None:
        """Have a transport of the loop made for a descriptor."""
        accepted = socket.socket(fileno=fd)
        accepted.setblocking(False)
        task = self.loop.create_task(self._move(move, accepted))
        self._moves.add(task)
        task.add_done_callback(self._moves.discard)

    async def _move(self, move: Move, accepted: socket.socket) -> None:
        try:
            await self.loop.connect_accepted_socket(lambda: TcpConnection(self.turn, move), accepted)
        except OSError as error:
            log.debug("a connection broke on its way to a transport: %s", error)
        finally:
            if move.transport is None:
                accepted.close()
                self._lost(move.connection)
