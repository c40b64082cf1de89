"""A process that pumps bytes between the generator's own sockets and parses nothing: the generator's ceiling.

Run as `python -m devices.bench.relay KIND SENDERS RECEIVERS`; it prints its two ports, one for each side. `fan` sends
what the first sender says to all receivers; `pairs` joins sender i with receiver i. What a receiver says goes back to
its sender, so a subscriber's PUBACKs are the publisher's; of many receivers only the first one's do.
"""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from devices.bench.wire import RECEIVE_BUFFER_BYTES, PeerFailed

ACCEPT_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Relay:
    """A running relay."""

    sender_port: int
    receiver_port: int
    process: subprocess.Popen[bytes]

    def cpu_s(self) -> float:
        """CPU time used so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)


@contextlib.contextmanager
def relaying(kind: str, senders: int, receivers: int) -> Iterator[Relay]:
    """A relay for so many connections of each side; it is ended on leaving."""
    process = subprocess.Popen(
        [sys.executable, "-m", "devices.bench.relay", kind, str(senders), str(receivers)], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        ports = process.stdout.readline().split()
        if len(ports) != 2:
            raise PeerFailed("the relay did not start")
        yield Relay(int(ports[0]), int(ports[1]), process)
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _accept(listener: socket.socket, count: int) -> list[socket.socket]:
    connections = []
    for _ in range(count):
        connection, _ = listener.accept()
        connection.setblocking(True)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connections.append(connection)
    return connections


def _listen() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.settimeout(ACCEPT_TIMEOUT_S)
    return listener


def pump(targets: dict[int, tuple[socket.socket, list[socket.socket]]]) -> None:
    """Send what each socket (by descriptor) says to its targets until one closes.

    Sends block: a receiver that does not read stops its sender, which is all the flow control there is.
    """
    epoll = select.epoll()
    for descriptor in targets:
        epoll.register(descriptor, select.EPOLLIN)
    buffer = memoryview(bytearray(RECEIVE_BUFFER_BYTES))
    with epoll, contextlib.suppress(ConnectionError):
        while True:
            for descriptor, _ in epoll.poll():
                source, sinks = targets[descriptor]
                count = source.recv_into(buffer)
                if count == 0:
                    return
                data = buffer[:count]
                for sink in sinks:
                    sink.sendall(data)


def main(kind: str, senders: int, receivers: int) -> None:
    """Accept the connections of both sides and pump until one closes."""
    with _listen() as sender_side, _listen() as receiver_side:
        print(sender_side.getsockname()[1], receiver_side.getsockname()[1], flush=True)
        sending = _accept(sender_side, senders)
        receiving = _accept(receiver_side, receivers)
    targets = {connection.fileno(): (connection, list[socket.socket]()) for connection in (*sending, *receiving)}
    if kind == "fan":
        targets[sending[0].fileno()] = (sending[0], receiving)
        for number, receiver in enumerate(receiving):
            targets[receiver.fileno()] = (receiver, [] if number else sending[:1])
    else:
        for sender, receiver in zip(sending, receiving, strict=True):
            targets[sender.fileno()] = (sender, [receiver])
            targets[receiver.fileno()] = (receiver, [sender])
    pump(targets)
    for connection in (*sending, *receiving):
        connection.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
