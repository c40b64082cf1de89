"""What the hand-over relies on in the installed uvicorn, and that everything else falls back to plain ASGI."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bridge.live.handover import SseConnection
from bridge.live.response import AsgiOutlet
from tests.integration.http.conftest import RunningServer, Start
from tests.support.conditions import eventually_async

EVENTS = b"GET /api/v1/events?topic=%23 HTTP/1.1\r\nHost: x\r\n\r\n"


def outlets(server: RunningServer) -> list[type]:
    return [type(reader.outlet) for reader in server.node.hub.readers]


async def test_transport_is_handed_over_and_no_task_stays(server: RunningServer) -> None:
    before = len(asyncio.all_tasks())
    client = await server.events("topic=%23")
    await server.settle(1)
    assert outlets(server) == [SseConnection]
    await eventually_async(lambda: not server.uvicorn.server_state.tasks, what="the request's task has ended")
    assert len(asyncio.all_tasks()) == before
    await server.publish("a", 1)
    assert [event.data["payload"] for event in await client.messages(1)] == [1]


async def test_nothing_of_the_request_stays_alive(server: RunningServer) -> None:
    await server.events("topic=%23")
    await server.settle(1)
    await eventually_async(lambda: not server.uvicorn.server_state.tasks)
    gc.collect()
    cycles = [each for each in gc.get_objects() if type(each).__name__ == "RequestResponseCycle"]
    assert cycles == []


async def test_second_request_on_a_connection_is_handed_over_too(server: RunningServer) -> None:
    client = await server.connect(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await client.read_head() == 200
    assert await client.reader.readexactly(15) == b'{"status":"ok"}'
    client.writer.write(EVENTS)
    assert await client.read_head() == 200
    await server.settle(1)
    assert outlets(server) == [SseConnection]
    await server.publish("a", 1)
    await client.messages(1)


async def test_request_behind_another_response_is_served(server: RunningServer) -> None:
    client = await server.connect(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + EVENTS)
    assert await client.read_head() == 200
    assert await client.reader.readexactly(15) == b'{"status":"ok"}'
    assert await client.read_head() == 200
    await server.settle(1)
    await server.publish("a", 1)
    await client.messages(1)


async def test_pipelined_request_keeps_the_reader_with_asgi(server: RunningServer) -> None:
    client = await server.connect(EVENTS + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await client.read_head() == 200
    await server.settle(1)
    assert outlets(server) == [AsgiOutlet]
    await server.publish("a", 1)
    await client.messages(1)


async def test_request_sent_into_a_running_stream_is_ignored(server: RunningServer) -> None:
    client = await server.events("topic=%23")
    await server.settle(1)
    client.writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    await server.publish("a", 1)
    await server.publish("a", 2)
    assert len(await client.messages(2)) == 2


async def test_http_1_0_keeps_the_reader_with_asgi(server: RunningServer) -> None:
    client = await server.connect(b"GET /api/v1/events?topic=%23 HTTP/1.0\r\n\r\n")
    assert await client.read_head() == 200
    assert "connection: close" in client.head.lower()
    await server.settle(1)
    assert outlets(server) == [AsgiOutlet]
    await server.publish("a", 1)
    await client.messages(1)


@pytest.mark.parametrize("http", [HttpToolsProtocol, H11Protocol], ids=["httptools", "h11"])
async def test_any_other_server_class_works_by_asgi(start_server: Start, http: type) -> None:
    server = await start_server(http_protocol=http)
    client = await server.events("topic=%23&since=-1m")
    await server.settle(1)
    assert outlets(server) == [AsgiOutlet]
    await server.publish("a", 1)
    await client.messages(1)
    client.close()
    await server.settle(0)


@pytest.mark.parametrize("request_line", [EVENTS, EVENTS.replace(b"1.1", b"1.0")], ids=["handed over", "ASGI"])
async def test_reader_leaves_with_its_connection(server: RunningServer, request_line: bytes) -> None:
    client = await server.connect(request_line)
    await client.read_head()
    await server.settle(1)
    client.close()
    await server.settle(0)
    await eventually_async(lambda: not server.uvicorn.server_state.connections)
    assert not server.node.hub._group_by_key


async def test_wrong_query_is_a_plain_400_and_the_connection_goes_on(server: RunningServer) -> None:
    client = await server.connect(EVENTS.replace(b"%23", b"a/%23/b"))
    assert await client.read_head() == 400
    length = int(client.head.lower().split("content-length: ")[1].split("\r\n")[0])
    await client.reader.readexactly(length)
    client.writer.write(EVENTS)
    assert await client.read_head() == 200


async def test_head_over_the_limit_is_431(server: RunningServer) -> None:
    client = await server.connect(
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X-A: %b\r\n" % (b"a" * 1000) * 70 + b"\r\n"
    )
    assert await client.read_head() == 431
    assert "application/problem+json" in client.head
    endless = await server.connect(b"GET /healthz HTTP/1.1\r\nX-A: " + b"a" * 80_000)
    assert await endless.read_head() == 431


async def test_late_head_is_408(start_server: Start) -> None:
    server = await start_server(http={"head_timeout_s": 1})
    client = await server.connect(b"GET /healthz HTTP/1.1\r\nHost")
    assert await client.read_head() == 408


async def test_no_http_at_all_is_400(server: RunningServer) -> None:
    client = await server.connect(b"\x16\x03\x01\x02\x00")
    assert await client.read_head() == 400
    assert "application/problem+json" in client.head


async def test_stopping_ends_every_stream_and_poll(server: RunningServer) -> None:
    handed, asgi = await server.events("topic=%23"), await server.connect(EVENTS.replace(b"1.1", b"1.0"))
    await asgi.read_head()
    await server.settle(2)
    poll = asyncio.create_task(server.http.get("/api/v1/poll?topic=%23&wait=60", timeout=60))
    await eventually_async(lambda: server.node.hub.polls == 1)
    server.uvicorn.should_exit = True
    async with asyncio.timeout(5):
        while await handed.read_chunk():
            continue
        await asgi.reader.read()
        assert (await poll).json()["events"] == []
    assert handed.is_ended
    assert not server.node.hub.readers


PROGRAM = """
import sys, uvicorn
from bridge.app import create_app
from bridge.config import Config
from bridge.live.handover import Http
config = Config.model_validate(
    {"data": sys.argv[1], "mqtt": {"bind": "127.0.0.1:0"}, "websocket": {"bind": "127.0.0.1:0"}})
uvicorn.run(create_app(config), port=int(sys.argv[2]), http=Http, ws="none", loop="uvloop", log_level="warning")
"""


@pytest.fixture
def program(tmp_path: Path, unused_tcp_port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process of its own, on uvloop."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path), str(unused_tcp_port)])
    yield process
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


async def test_sigterm_ends_a_server_with_readers_at_once(
    program: subprocess.Popen[bytes], unused_tcp_port: int
) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{unused_tcp_port}") as http:

        async def answers() -> bool:
            try:
                return (await http.get("/readyz")).status_code == 200
            except httpx.ConnectError:
                return False

        await eventually_async(answers, timeout_s=20, what="the server answers")
        streams = []
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", unused_tcp_port)
            writer.write(EVENTS)
            await reader.readuntil(b"id: ")
            streams.append((reader, writer))
        program.send_signal(signal.SIGTERM)
        # uvicorn itself takes two of its ticks of 0.1 s; a stream that kept it would take for ever.
        assert await asyncio.to_thread(program.wait, 5) in (0, -signal.SIGTERM)
        for reader, writer in streams:
            assert (await reader.read()).endswith(b"0\r\n\r\n")
            writer.close()
