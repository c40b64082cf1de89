"""The two ways to run Headrace inside another program (the broker alone, the whole application)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiomqtt
import httpx

from bridge import create_app
from bridge.config import Config
from broker import Broker, BrokerConfig
from tests.support.conditions import eventually_async


async def test_broker_alone_in_an_asyncio_program() -> None:
    async with Broker(BrokerConfig(tcp_bind=("127.0.0.1", 0))) as broker:
        port = broker.listening[0].port
        async with aiomqtt.Client("127.0.0.1", port) as client:
            await client.subscribe("a/#", qos=1)
            await client.publish("a/b", b"x", qos=1)
            message = await asyncio.wait_for(anext(aiter(client.messages)), 10)
            assert (str(message.topic), message.payload) == ("a/b", b"x")
            broker.publish("a/c", b"from inside")
            message = await asyncio.wait_for(anext(aiter(client.messages)), 10)
            assert message.payload == b"from inside"
        await eventually_async(lambda: not broker.engine.connections)


async def test_application_opens_and_closes_the_node_in_its_lifespan(tmp_path: Path) -> None:
    config = Config.model_validate(
        {"data": str(tmp_path), "mqtt": {"bind": "127.0.0.1:0"}, "websocket": {"bind": "127.0.0.1:0"}}
    )
    app = create_app(config)
    async with app.router.lifespan_context(app):
        node = app.state.node
        async with aiomqtt.Client("127.0.0.1", node.broker.listening[0].port) as client:
            await client.publish("embedded/a", b"1", qos=1)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
            answer = await http.get("/api/v1/streams/default/records", params={"topic": "embedded/#"})
        assert [record["payload"] for record in answer.json()["records"]] == [1]
    assert not node.is_ready
