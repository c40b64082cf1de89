"""FaultyProxy: a TCP proxy on loopback that breaks connections on purpose, while everything else stays real."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

CHUNK_BYTES = 65_536
STEP_S = 0.02


class _Link:
    """One client connection and the connection to the target that belongs to it."""

    def __init__(self, client: socket.socket, target: socket.socket) -> None:
        self.client = client
        self.target = target
        self.is_open = True

    def close(self, *, with_reset: bool) -> None:
        self.is_open = False
        for end in (self.client, self.target):
            if with_reset:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                end.close()


class FaultyProxy:
    """Forwards `port` to `target_port` on loopback until told otherwise. All calls may be made from any thread."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.connections_total = 0
        self.bytes_to_target = 0
        self.bytes_to_client = 0
        self._refuses = False
        self._is_black_hole = False
        self._bytes_per_s = 0
        self.cuts_total = 0
        self._bytes_until_cut: dict[bool, int] = {}
        self._links: list[_Link] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._is_closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    # What can go wrong.

    def cut(self, *, with_reset: bool = False) -> int:
        """Close all connections now, with FIN or with RST; returns how many there were."""
        with self._lock:
            links, self._links = self._links, []
            self.cuts_total += bool(links)
        for link in links:
            link.close(with_reset=with_reset)
        return len(links)

    def cut_after(self, byte_count: int) -> None:
        """Cut all connections once `byte_count` more bytes have gone to clients; once only."""
        with self._lock:
            self._bytes_until_cut[False] = byte_count

    def cut_after_to_target(self, byte_count: int) -> None:
        """Cut all connections once `byte_count` more bytes have gone to the target; once only."""
        with self._lock:
            self._bytes_until_cut[True] = byte_count

    def black_hole(self, is_black_hole: bool = True) -> None:
        """Stay connected and forward nothing in either direction (nor read it)."""
        self._is_black_hole = is_black_hole

    def slow_down(self, bytes_per_s: int) -> None:
        """Forward to clients at most so fast; 0 is without a limit."""
        self._bytes_per_s = bytes_per_s

    def refuse(self, refuses: bool = True) -> None:
        """Close new connections at once with RST."""
        self._refuses = refuses

    @property
    def open_connections(self) -> int:
        """Connections that are forwarded at the moment."""
        with self._lock:
            return len(self._links)

    # Life.

    def close(self) -> None:
        """Close the port and all connections."""
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Forwarding.

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections_total += 1
            try:
                if self._refuses:
                    raise ConnectionRefusedError
                target = socket.create_connection(("127.0.0.1", self.target_port), 5)
            except OSError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                continue
            for end in (client, target):
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(client, target)
            with self._lock:
                self._links.append(link)
            threading.Thread(target=self._forward, args=(link, True), daemon=True).start()
            threading.Thread(target=self._forward, args=(link, False), daemon=True).start()

    def _forward(self, link: _Link, is_to_target: bool) -> None:
        source, sink = (link.client, link.target) if is_to_target else (link.target, link.client)
        try:
            while link.is_open:
                data = source.recv(4096 if self._bytes_per_s and not is_to_target else CHUNK_BYTES)
                if not data:
                    break
                while self._is_black_hole and link.is_open:
                    time.sleep(STEP_S)
                self._send(sink, data, is_to_target)
        except OSError:
            link.is_open = False
        finally:
            with self._lock:
                if link in self._links:
                    self._links.remove(link)
            link.close(with_reset=False)

    def _send(self, sink: socket.socket, data: bytes, is_to_target: bool) -> None:
        with self._lock:
            allowed = self._bytes_until_cut.pop(is_to_target, None)
            is_cut = allowed is not None and allowed <= len(data)
            if allowed is not None and not is_cut:
                self._bytes_until_cut[is_to_target] = allowed - len(data)
        part = data[:allowed] if is_cut else data
        sink.sendall(part)
        if is_to_target:
            self.bytes_to_target += len(part)
        else:
            self.bytes_to_client += len(part)
        if is_cut:
            self.cut()
            raise ConnectionAbortedError
        if self._bytes_per_s and not is_to_target:
            time.sleep(len(data) / self._bytes_per_s)
