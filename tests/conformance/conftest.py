"""Parts for conformance tests: connections to one shared server, names of one's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import mqtt_wire as wire
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess

COUNTER = itertools.count(1)

Connect = Callable[..., RawClient]


@pytest.fixture(scope="session")
def mqtt_port(request: pytest.FixtureRequest) -> int:
    """Port of the broker under test."""
    given: int = request.config.getoption("--mqtt-port")
    if given:
        return given
    server: ServerProcess = request.getfixturevalue("shared_server")
    return server.mqtt_port


@pytest.fixture
def name() -> str:
    """A topic level and client id that no other test uses."""
    return f"conformance-{next(COUNTER)}"


@pytest.fixture(params=[wire.V311, wire.V5], ids=["v3.1.1", "v5"])
def version(request: pytest.FixtureRequest) -> int:
    """Each protocol version that the test is for."""
    chosen: int = request.param
    return chosen


@pytest.fixture
def opened(mqtt_port: int) -> Iterator[Callable[..., RawClient]]:
    """Opens TCP connections without a CONNECT; they are closed at the end."""
    clients: list[RawClient] = []

    def open_one(version: int = wire.V5) -> RawClient:
        clients.append(RawClient(mqtt_port, version))
        return clients[-1]

    yield open_one
    for client in clients:
        client.close()


@pytest.fixture
def connected(opened: Callable[..., RawClient], name: str) -> Connect:
    """Opens connections with a CONNECT that is accepted; arguments as `RawClient.connect`."""

    def connect_one(client_id: str = "", version: int = wire.V5, **arguments: Any) -> RawClient:
        client = opened(version)
        client.connect(client_id or f"{name}-{next(COUNTER)}", **arguments)
        return client

    return connect_one
