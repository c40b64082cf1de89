"""Limits of the real server over real sockets: overload, rates of clients, connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import Broker, BrokerConfig
from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually_async
from tests.support.http_client import metrics
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess
from tests.support.websocket_client import WebSocketMqttClient

CONFIG = """
[mqtt]
client_messages_per_s_max = 400
client_bytes_per_s_max = "1MiB"
"""


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server on which no client may be fast."""
    directory: Path = tmp_path_factory.mktemp("limited") / "data"
    with ServerProcess(directory, config=CONFIG) as running:
        yield running


@pytest.mark.parametrize("kind", ["tcp", "websocket"])
@pytest.mark.parametrize("qos", [0, 1])
def test_fast_client_is_slowed_down_and_loses_nothing(limited: ServerProcess, kind: str, qos: int) -> None:
    held_before = metrics(limited.http_url)['headrace_limit_hits_total{limit="mqtt.client_messages_per_s_max"}']
    publisher = RawClient(limited.mqtt_port) if kind == "tcp" else WebSocketMqttClient(limited.ws_port)
    with publisher, RawClient(limited.mqtt_port) as subscriber:
        subscriber.connect(f"rate-subscriber-{kind}-{qos}")
        subscriber.subscribe((f"rate/{kind}/{qos}", 0))
        publisher.connect(f"rate-{kind}-{qos}", keep_alive=1)
        for first in range(0, 900, 50):
            packets = (wire.publish(f"rate/{kind}/{qos}", b"%d" % n, qos, n + 1) for n in range(first, first + 50))
            publisher.send(b"".join(packets))
        publisher.send(wire.pingreq())
        for number in range(900):
            assert subscriber.next_packet().payload == b"%d" % number
        answers = [publisher.next_packet().packet_type for _ in range(1 + (900 if qos else 0))]
        assert answers.count(wire.PINGRESP) == 1  # and the rest are PUBACKs
    held = metrics(limited.http_url)['headrace_limit_hits_total{limit="mqtt.client_messages_per_s_max"}']
    assert held > held_before


async def test_blocked_loop_refuses_who_is_new_and_recovers() -> None:
    async with Broker(BrokerConfig(tcp_bind=("127.0.0.1", 0), loop_delay_ms_max=50)) as broker:
        port = broker.listening[0].port
        time.sleep(0.4)  # noqa: ASYNC251 - what is measured
        await eventually_async(broker.engine.is_late, what="that it was noticed")
        assert await answer(port, wire.connect("new", wire.V311)) == b"\x20\x02\x00\x03"
        await eventually_async(lambda: not broker.engine.is_late(), what="that it is over")
        assert await answer(port, wire.connect("new", wire.V311)) == b"\x20\x02\x00\x00"


async def answer(port: int, connect: bytes) -> bytes:
    """The CONNACK to a CONNECT."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(connect)
    try:
        return await reader.readexactly(4)
    finally:
        writer.close()


async def test_connections_far_beyond_the_limit_are_cut_at_once() -> None:
    """Some are kept to be told why; a crowd that says nothing takes no more than these."""
    from broker.listeners import tcp

    config = BrokerConfig(tcp_bind=("127.0.0.1", 0), connections_max=2)
    async with Broker(config) as broker:
        port = broker.listening[0].port
        connected = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2 + tcp.REFUSALS_MAX)]
        await eventually_async(lambda: len(broker.engine.connections) == 2 + tcp.REFUSALS_MAX, 20)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()
        for _, each in connected:
            each.close()
        await eventually_async(lambda: not broker.engine.connections, 20, "that all are gone")
