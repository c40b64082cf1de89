"""A server that stops while requests are under way which do not end by themselves."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from tests.integration.http.conftest import RunningServer, Start
from tests.support.conditions import eventually_async

PATIENCE_S = 0.2
HALF = (
    b"POST /api/v1/publish HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    b'{"topic": "half'
)


@pytest.fixture
async def server(start_server: Start) -> RunningServer:
    """With as little patience as possible."""
    server = await start_server()
    server.uvicorn.config.timeout_graceful_shutdown = PATIENCE_S  # type: ignore[assignment]  # it need not be whole
    return server


async def stop(server: RunningServer) -> None:
    """Until every request has ended."""
    server.uvicorn.should_exit = True
    await eventually_async(lambda: not server.uvicorn.server_state.tasks)


async def test_request_whose_body_does_not_come_is_told_that_the_server_stops(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    client = await server.connect(HALF)
    await eventually_async(lambda: len(server.uvicorn.server_state.tasks) == 1)
    await stop(server)
    assert await client.read_head() == 503
    assert "content-type: application/problem+json" in client.head
    assert "retry-after: 5" in client.head
    assert json.loads(await client.reader.read())["detail"] == "The server is stopping."
    assert [record for record in caplog.records if record.exc_info] == []


async def test_export_that_nobody_reads_is_broken_off(server: RunningServer, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(20):
        await server.node.publish(f"large/{number}", b"x" * 1_000_000, qos=1)
    loop = asyncio.get_running_loop()
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stuck.setblocking(False)
        await loop.sock_connect(stuck, ("127.0.0.1", server.port))
        await loop.sock_sendall(stuck, b"GET /api/v1/streams/default/records?format=ndjson HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually_async(
            lambda: any(
                each.flow.write_paused  # type: ignore[union-attr]
                for each in server.uvicorn.server_state.connections
            )
        )
        await stop(server)
        received = bytearray()
        while data := await loop.sock_recv(stuck, 1 << 20):
            received += data
    assert received.startswith(b"HTTP/1.1 200")
    assert not received.endswith(b"0\r\n\r\n")
    assert [record.message for record in caplog.records if record.exc_info or record.levelname == "ERROR"] == [
        "Cancel 1 running task(s), timeout graceful shutdown exceeded"
    ]
    assert server.node.exports.count == 0
