"""paho-mqtt over TCP and WebSocket against the real server."""

from __future__ import annotations

import itertools

import paho.mqtt.client as paho
import pytest

from tests.support.conditions import eventually
from tests.support.paho_client import PahoClient
from tests.support.server import ServerProcess

COUNTER = itertools.count(1)


@pytest.fixture
def name() -> str:
    return f"paho-{next(COUNTER)}"


@pytest.fixture(params=["tcp", "websockets"])
def transport(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(params=[paho.MQTTv31, paho.MQTTv311, paho.MQTTv5], ids=["v3.1", "v3.1.1", "v5"])
def version(request: pytest.FixtureRequest) -> int:
    chosen: int = request.param
    return chosen


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_publish_and_subscribe(shared_server: ServerProcess, name: str, transport: str, version: int, qos: int) -> None:
    with (
        PahoClient(shared_server, f"{name}s", transport, version) as subscriber,
        PahoClient(shared_server, f"{name}p", transport, version) as publisher,
    ):
        subscriber.subscribe((f"{name}/+/temp", 2))
        for number in range(20):
            publisher.publish(f"{name}/{number % 3}/temp", b"%d" % number, qos)
        eventually(lambda: len(subscriber.received) == 20)
        assert subscriber.received == [
            (f"{name}/{number % 3}/temp", b"%d" % number, qos, False) for number in range(20)
        ]


def test_overlapping_filters_bring_one_copy(shared_server: ServerProcess, name: str, transport: str) -> None:
    with PahoClient(shared_server, name, transport) as client:
        client.subscribe((f"{name}/#", 0), (f"{name}/+", 2), (f"{name}/a", 1))
        client.publish(f"{name}/a", b"x", 2)
        client.publish(f"{name}/b", b"marker", 2)
        eventually(lambda: len(client.received) == 2)
        assert client.received == [(f"{name}/a", b"x", 2, False), (f"{name}/b", b"marker", 2, False)]


def test_retained(shared_server: ServerProcess, name: str, transport: str, version: int) -> None:
    with PahoClient(shared_server, f"{name}p", transport, version) as publisher:
        publisher.publish(f"{name}/a", b"first", 1, True)
        publisher.publish(f"{name}/a", b"last", 1, True)
        with PahoClient(shared_server, f"{name}s", transport, version) as subscriber:
            subscriber.subscribe((f"{name}/#", 1))
            eventually(lambda: subscriber.received == [(f"{name}/a", b"last", 1, True)])
        publisher.publish(f"{name}/a", b"", 1, True)


def test_will_of_a_lost_connection(shared_server: ServerProcess, name: str, transport: str, version: int) -> None:
    with PahoClient(shared_server, f"{name}s", transport, version) as watcher:
        watcher.subscribe((f"{name}/will", 1))
        lost = PahoClient(shared_server, name, transport, version, will=(f"{name}/will", b"gone", 1, False))
        lost.lose_connection()
        eventually(lambda: watcher.received == [(f"{name}/will", b"gone", 1, False)])


@pytest.mark.parametrize("qos", [1, 2])
def test_kept_session(shared_server: ServerProcess, name: str, transport: str, version: int, qos: int) -> None:
    first = PahoClient(shared_server, name, transport, version, clean=False)
    first.subscribe((f"{name}/#", 2))
    first.close()
    with PahoClient(shared_server, f"{name}p", transport, version) as publisher:
        for number in range(10):
            publisher.publish(f"{name}/{number}", b"%d" % number, qos)
    with PahoClient(shared_server, name, transport, version, clean=False) as again:
        eventually(lambda: len(again.received) == 10)
        assert [payload for _, payload, _, _ in again.received] == [b"%d" % number for number in range(10)]
        if version != paho.MQTTv31:
            assert again.session_present
        again.unsubscribe(f"{name}/#")
    PahoClient(shared_server, name, transport, version, clean=True).close()


def test_take_over(shared_server: ServerProcess, name: str, transport: str) -> None:
    first = PahoClient(shared_server, name, transport)
    first.client.reconnect_delay_set(60, 60)
    with PahoClient(shared_server, name, transport) as second:
        eventually(lambda: bool(first.disconnect_reasons))
        assert first.disconnect_reasons == ["Session taken over"]
        second.subscribe((name, 1))
        second.publish(name, b"mine", 1)
        eventually(lambda: second.received == [(name, b"mine", 1, False)])
    first.close()


def test_unsubscribe(shared_server: ServerProcess, name: str, transport: str, version: int) -> None:
    with PahoClient(shared_server, name, transport, version) as client:
        client.subscribe((f"{name}/a", 1), (f"{name}/b", 1))
        client.unsubscribe(f"{name}/a")
        client.publish(f"{name}/a", b"no", 1)
        client.publish(f"{name}/b", b"yes", 1)
        eventually(lambda: client.received == [(f"{name}/b", b"yes", 1, False)])


@pytest.mark.slow
def test_keep_alive_pings_keep_it_connected(shared_server: ServerProcess, name: str, transport: str) -> None:
    with PahoClient(shared_server, name, transport, keep_alive=1) as client:
        client.subscribe((name, 1))
        pings = [0]
        client.client.on_log = lambda c, d, level, text: pings.__setitem__(0, pings[0] + ("PINGRESP" in text))
        eventually(lambda: pings[0] >= 3, timeout_s=20)
        assert not client.disconnect_reasons


def test_large_messages(shared_server: ServerProcess, name: str, transport: str) -> None:
    with PahoClient(shared_server, name, transport) as client:
        client.subscribe((name, 1))
        payloads = [bytes((size & 0xFF,)) * size for size in (0, 125, 126, 8_192, 65_535, 65_536, 1_000_000)]
        for payload in payloads:
            client.publish(name, payload, 1)
        eventually(lambda: len(client.received) == len(payloads))
        assert [payload for _, payload, _, _ in client.received] == payloads


def test_shared_subscription(shared_server: ServerProcess, name: str, transport: str, version: int) -> None:
    with (
        PahoClient(shared_server, f"{name}a", transport, version) as first,
        PahoClient(shared_server, f"{name}b", transport, version) as second,
        PahoClient(shared_server, f"{name}p", transport, version) as publisher,
    ):
        first.subscribe((f"$share/g/{name}/#", 1))
        second.subscribe((f"$share/g/{name}/#", 2))
        for number in range(20):
            publisher.publish(f"{name}/a", b"%d" % number, 2)
        eventually(lambda: len(first.received) + len(second.received) == 20)
        assert first.received == [(f"{name}/a", b"%d" % number, 1, False) for number in range(0, 20, 2)]
        assert second.received == [(f"{name}/a", b"%d" % number, 2, False) for number in range(1, 20, 2)]
