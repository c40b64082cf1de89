"""What the way from uvicorn to picows relies on in the installed versions of both, on asyncio's own loop."""

from __future__ import annotations

import asyncio
import gc

import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bridge.live.handover import Http
from tests.integration.http.conftest import RunningServer, SseClient, Start
from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually_async
from tests.support.websocket_client import BINARY, CLOSE, encode_frame

UPGRADE = (
    b"GET /mqtt HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
)
CONNECT = encode_frame(BINARY, wire.connect("upgraded", wire.V311))


async def upgraded(server: RunningServer) -> SseClient:
    client = await server.connect(UPGRADE)
    assert await client.read_head() == 101
    assert "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=" in client.head.lower()
    client.writer.write(CONNECT)
    assert await client.reader.readexactly(6) == b"\x82\x04\x20\x02\0\0"
    return client


async def test_nothing_of_uvicorn_stays_with_the_connection(server: RunningServer) -> None:
    client = await upgraded(server)
    assert not server.uvicorn.server_state.tasks
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, Http) and each.url == b"/mqtt"]
    assert server.node.broker.websockets is not None
    assert server.node.broker.websockets.open_connections == 1
    client.close()
    await eventually_async(lambda: not server.node.broker.engine.connections, what="the connection is gone")
    assert server.node.broker.websockets.open_connections == 0


async def test_silent_connection_outlives_the_times_of_http(start_server: Start) -> None:
    server = await start_server(http={"head_timeout_s": 1})
    server.uvicorn.config.timeout_keep_alive = 0
    client = await upgraded(server)
    engine = server.node.broker.engine
    opened_s = engine.seconds
    await eventually_async(lambda: engine.seconds >= opened_s + 3, what="three seconds")
    client.writer.write(encode_frame(BINARY, wire.pingreq()))
    answer = await client.reader.readuntil(b"\xd0\0")
    assert answer.removeprefix(b"\x89\0") == b"\x82\x02\xd0\0"  # perhaps a ping of the WebSocket's came first


async def test_upgrade_behind_a_request_that_is_not_answered_closes(server: RunningServer) -> None:
    client = await server.connect(b"GET /api/v1/events?topic=%23 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + UPGRADE)
    await client.reader.read()
    await eventually_async(lambda: not server.uvicorn.server_state.connections)
    assert not server.node.broker.engine.connections


async def test_below_the_path_of_a_proxy(start_server: Start) -> None:
    """Whether the proxy takes the path away or not."""
    server = await start_server(http={"root_path": "/headrace"})
    for path, status in ((b"/headrace/mqtt", 101), (b"/mqtt", 101), (b"/other/mqtt", 404)):
        client = await server.connect(UPGRADE.replace(b"/mqtt", path, 1))
        assert await client.read_head() == status
    listen = (await server.http.get("/api/v1/system")).json()["listen"]
    assert listen[-1]["url"] == f"ws://127.0.0.1:{server.port}/headrace/mqtt"


async def test_limit_of_connections_counts_it(start_server: Start) -> None:
    server = await start_server(mqtt={"bind": "127.0.0.1:0", "connections_max": 1})
    await upgraded(server)
    second = await server.connect(UPGRADE)
    assert await second.read_head() == 503
    assert "retry-after: 10" in second.head.lower()


@pytest.mark.parametrize("http", [HttpToolsProtocol, H11Protocol], ids=["httptools", "h11"])
async def test_any_other_server_class_offers_none(start_server: Start, http: type) -> None:
    server = await start_server(http_protocol=http)
    listen = (await server.http.get("/api/v1/system")).json()["listen"]
    assert [each["kind"] for each in listen] == ["mqtt", "mqtt-ws", "http"]
    client = await server.connect(UPGRADE)
    assert await client.read_head() == 404


async def test_server_that_stops_closes_it(start_server: Start) -> None:
    server = await start_server()
    client = await upgraded(server)
    stopping = asyncio.create_task(server.node.broker.stop())
    assert await client.reader.readexactly(4) == b"\x88\x02\x03\xe8"
    client.writer.write(encode_frame(CLOSE, b"\x03\xe8"))
    await stopping
