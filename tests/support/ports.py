"""Ports for what is started again on the same ones: below those that the system gives to clients, a part a worker.

While a killed server is down, nobody else comes to have its port: no client by chance, and no other worker's server.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache

from scripts.kafka.node import free_ports

PARTS = 4
"""As many as there are workers at most (`WORKERS` in the Makefile)."""
SERVER_PORTS = range(10_000, 20_000)


def of_this_worker(ports: range) -> range:
    """The part of some ports that this worker of pytest has for itself."""
    size = len(ports) // PARTS
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return ports[worker % PARTS * size :][:size]


@cache
def _server_ports() -> Iterator[int]:
    return free_ports(of_this_worker(SERVER_PORTS))


def free_server_port() -> int:
    """One that nobody listens on, and that this worker has not given out before."""
    return next(_server_ports())
