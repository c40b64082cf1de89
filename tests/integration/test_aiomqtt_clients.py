"""aiomqtt over TCP and WebSocket against the real server."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import aiomqtt
import pytest

from tests.support.server import ServerProcess

COUNTER = itertools.count(1)


@pytest.fixture(params=["tcp", "websockets"])
def address(request: pytest.FixtureRequest, shared_server: ServerProcess) -> dict[str, Any]:
    """Arguments for `aiomqtt.Client`."""
    if request.param == "tcp":
        return {"hostname": "127.0.0.1", "port": shared_server.mqtt_port}
    return {
        "hostname": "127.0.0.1",
        "port": shared_server.ws_port,
        "transport": "websockets",
        "websocket_path": "/mqtt",
    }


@pytest.fixture(params=[aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5], ids=["v3.1.1", "v5"])
def protocol(request: pytest.FixtureRequest) -> aiomqtt.ProtocolVersion:
    chosen: aiomqtt.ProtocolVersion = request.param
    return chosen


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_messages_arrive_in_order(address: dict[str, Any], protocol: aiomqtt.ProtocolVersion, qos: int) -> None:
    name = f"aiomqtt-{next(COUNTER)}"
    async with aiomqtt.Client(**address, protocol=protocol) as client:
        await client.subscribe(f"{name}/#", qos=2)
        for number in range(50):
            await client.publish(f"{name}/{number % 5}", number, qos=qos)
        received = []
        async with asyncio.timeout(15):
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                received.append((int(message.payload), message.qos))
                if len(received) == 50:
                    break
    assert received == [(number, qos) for number in range(50)]


async def test_many_clients_at_once(address: dict[str, Any]) -> None:
    """Each of 20 clients publishes 20 messages, one hears all of them."""
    name = f"aiomqtt-{next(COUNTER)}"

    async def publish(index: int) -> None:
        async with aiomqtt.Client(**address, identifier=f"{name}-{index}") as client:
            for number in range(20):
                await client.publish(f"{name}/{index}", number, qos=1)

    async with aiomqtt.Client(**address) as listener:
        await listener.subscribe(f"{name}/+", qos=1)
        received: dict[str, list[int]] = {}
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            for index in range(20):
                tasks.create_task(publish(index))
            async for message in listener.messages:
                assert isinstance(message.payload, bytes)
                received.setdefault(message.topic.value, []).append(int(message.payload))
                if sum(map(len, received.values())) == 400:
                    break
    assert received == {f"{name}/{index}": list(range(20)) for index in range(20)}
