"""A whole server in this process, on port 0: uvicorn with our HTTP class around a real node."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from bridge.app import create_app
from bridge.config import Config
from bridge.live.handover import http_class
from bridge.node import Node
from tests.support.conditions import eventually_async
from tests.unit.live.parts import Event, parse_sse


class SseClient:
    """A reader over a socket of its own; it reads only when told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = ""
        self.body = bytearray()
        self.is_ended = False
        self._events: list[Event] = []
        self._parsed_bytes = 0
        self.message_count = 0
        """Messages in `events`, as far as these were looked at."""

    async def read_head(self) -> int:
        """The response's head; returns the status."""
        self.head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        return int(self.head.split(" ", 2)[1])

    async def read_chunk(self) -> bool:
        """One HTTP chunk; False at the end."""
        try:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.is_ended = True
            return False
        assert data.endswith(b"\r\n")
        self.body += data[:-2]
        if size == 0:
            self.is_ended = True
        return size > 0

    @property
    def events(self) -> list[Event]:
        """What has come, whole events only."""
        end = self.body.rfind(b"\n\n", self._parsed_bytes) + 2
        if end > 1:
            new = parse_sse(self.body[self._parsed_bytes : end].decode())
            self._events += new
            self.message_count += sum(event.name == "message" for event in new)
            self._parsed_bytes = end
        return self._events

    async def until(self, condition: Callable[[list[Event]], Any], timeout_s: float = 10) -> Any:
        """Read until something is true of the events; returns it."""
        async with asyncio.timeout(timeout_s):
            while True:
                if found := condition(self.events):
                    return found
                assert await self.read_chunk(), f"the stream ended after {self.body[-500:]!r}"

    async def messages(self, count: int, timeout_s: float = 10) -> list[Event]:
        """Read until there are so many messages."""
        async with asyncio.timeout(timeout_s):
            while len(self.events) < count or self.message_count < count:
                assert await self.read_chunk(), f"the stream ended after {self.body[-500:]!r}"
        return [event for event in self.events if event.name == "message"]

    def close(self) -> None:
        self.writer.close()


@dataclass
class RunningServer:
    """A started server and what it consists of."""

    port: int
    node: Node
    uvicorn: uvicorn.Server
    http: httpx.AsyncClient
    clients: list[SseClient] = field(default_factory=list)

    async def connect(self, request: bytes) -> SseClient:
        """Send raw bytes over a new connection."""
        client = SseClient(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20))
        self.clients.append(client)
        client.writer.write(request)
        return client

    async def events(self, query: str, headers: dict[str, str] | None = None) -> SseClient:
        """An SSE reader whose head has come."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        request = f"GET /api/v1/events?{query} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{lines}\r\n"
        client = await self.connect(request.encode())
        assert await client.read_head() == 200, client.head
        return client

    async def publish(self, topic: str, payload: object, **fields: object) -> dict[str, Any]:
        """Over the API."""
        response = await self.http.post("/api/v1/publish", json={"topic": topic, "payload": payload, "qos": 1} | fields)
        assert response.status_code == 202, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def settle(self, readers: int) -> None:
        """Until the hub has so many readers."""
        await eventually_async(lambda: len(self.node.hub.readers) == readers, what=f"{readers} readers")


Start = Callable[..., Awaitable[RunningServer]]


@pytest.fixture
async def start_server(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts servers with some settings; all stop at the end."""
    stack = contextlib.AsyncExitStack()

    async def start(http_protocol: type | None = None, data: str = "data", **settings: Any) -> RunningServer:
        # A machine that runs tests side by side may make a server late; it takes readers all the same.
        mqtt = {"bind": "127.0.0.1:0", "loop_delay_ms_max": 60_000, **settings.pop("mqtt", {})}
        config = Config.model_validate(
            {"data": tmp_path / data, "mqtt": mqtt, "websocket": {"bind": "127.0.0.1:0"}} | settings
        )
        node = await stack.enter_async_context(Node(config))
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(config, node),
                port=0,
                http=http_protocol or http_class(config.live_limits()),
                ws="none",
                log_config=None,
                access_log=False,
            )
        )
        task = asyncio.create_task(server._serve())
        await eventually_async(lambda: server.started, what="uvicorn")
        port = server.servers[0].sockets[0].getsockname()[1]
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10))
        running = RunningServer(port, node, server, client)

        async def stop() -> None:
            for each in running.clients:
                each.close()
            server.should_exit = True
            await asyncio.wait_for(task, 10)
            for each in running.clients:
                with contextlib.suppress(ConnectionError):
                    await each.writer.wait_closed()

        stack.push_async_callback(stop)
        return running

    yield start
    await stack.aclose()


@pytest.fixture
async def server(start_server: Start) -> RunningServer:
    """A server with no configuration but free ports."""
    return await start_server()
