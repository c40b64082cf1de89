"""Every listener of the real server under bytes that are nearly right: nobody notices. `make fuzz` does it longer."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import inputs
from tests.support import mqtt_wire as wire
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess

Make = Callable[[ServerProcess, random.Random], tuple[int, list[bytes]]]
LISTENERS: dict[str, Make] = {
    "mqtt": lambda server, chance: (server.mqtt_port, inputs.mqtt(chance)),
    "websocket": lambda server, chance: (server.ws_port, inputs.websocket(chance, server.ws_port)),
    "mqtt on http": lambda server, chance: (server.http_port, inputs.websocket(chance, server.http_port)),
    "http": lambda server, chance: (server.http_port, inputs.http(chance)),
}


@pytest.fixture(scope="module")
def bystander(shared_server: ServerProcess) -> Iterator[RawClient]:
    """A client that pings and subscribes to what it alone publishes."""
    with RawClient(shared_server.mqtt_port) as client:
        client.connect("fuzz-bystander")
        yield client


@pytest.mark.parametrize("listener", LISTENERS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_mistakes_stay_with_who_makes_them(
    shared_server: ServerProcess, bystander: RawClient, listener: str, seed: int
) -> None:
    port, reads = LISTENERS[listener](shared_server, random.Random(seed))
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as peer:
        for read in reads:
            peer.sendall(read)
        peer.shutdown(socket.SHUT_WR)
        peer.settimeout(0.2)
        while peer.recv(65_536):
            continue
    bystander.ping()
    for sign in ("Traceback", "error of the server"):
        assert sign not in shared_server.stderr_text


def test_request_that_ends_in_its_body_is_no_error_of_the_server(shared_server: ServerProcess) -> None:
    """Found by fuzzing."""
    head = b"POST /api/v1/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    with socket.create_connection(("127.0.0.1", shared_server.http_port), 5) as peer:
        peer.sendall(head + b"{")
        peer.shutdown(socket.SHUT_WR)
        peer.recv(65_536)
    assert "Traceback" not in shared_server.stderr_text


def test_request_behind_which_nonsense_comes_is_no_error_of_the_server(shared_server: ServerProcess) -> None:
    """Found by fuzzing: its answer would be written to a connection that is closed."""
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", shared_server.http_port), 5) as peer:
            peer.sendall(b"GET /api/v1/system HTTP/1.1\r\nHost: x\r\n\r\n\0\0\0")
            assert peer.recv(65_536).startswith(b"HTTP/1.1 400 ")
    with RawClient(shared_server.mqtt_port) as client:
        client.connect()
        client.publish_acknowledged("after/nonsense", b"x")
        client.send(wire.disconnect())
    assert "Traceback" not in shared_server.stderr_text
