"""Ports for what is started again on the same ones: below those that the system gives to clients, a part a worker.

While a killed server is down, nobody else comes to have its port: no client by chance, and no other worker's server.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from itertools import cycle

PARTS = 8
SERVER_PORTS = range(12_000, 20_000)


def of_this_worker(ports: range) -> range:
    """The part of some ports that this worker of pytest has for itself."""
    size = len(ports) // PARTS
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return ports[worker % PARTS * size :][:size]


@cache
def _ports(pid: int) -> cycle[int]:
    """Begins somewhere else in each process, for there may be other runs of the tests beside this one."""
    ports = of_this_worker(SERVER_PORTS)
    first = pid % len(ports)
    return cycle([*ports[first:], *ports[:first]])


def free_server_port() -> int:
    """One that nobody listens on, and that this worker has not given out for long."""
    for port in _ports(os.getpid()):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("there are always more")
