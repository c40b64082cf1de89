"""EventStream: the response of a live reader, by hand-over where the server allows it, else by plain ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.responses import Response

from bridge.live.handover import EXTENSION, Http, SseConnection
from bridge.live.held import Overflow
from bridge.live.hub import Hub
from bridge.live.reader import Reader
from bridge.live.start import Start

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}


class AsgiOutlet:
    """Waiting bytes of a reader whose server does not let go of its transport."""

    is_framed = False

    def __init__(self) -> None:
        self.reader: Reader | None = None
        self._chunks: list[bytes] = []
        self._bytes = 0
        self._high = self._low = 64 * 1024
        self._is_paused = False
        self.is_closed = False
        self._is_ready = asyncio.Event()

    def write(self, data: bytes) -> None:
        self._chunks.append(data)
        self._bytes += len(data)
        self._is_ready.set()
        self._compare()

    def set_water_marks(self, high: int, low: int) -> None:
        self._high, self._low = high, low
        self._compare()

    def close(self) -> None:
        if self._is_paused:
            self._chunks.clear()  # it is full: the end would wait for a reader that does not read
        self.is_closed = True
        self._is_ready.set()

    async def take(self) -> bytes:
        """All that waits, once there is something; empty at the end. It counts as waiting until the next call."""
        self._bytes = sum(map(len, self._chunks))
        self._compare()
        while not self._chunks and not self.is_closed:
            self._is_ready.clear()
            await self._is_ready.wait()
        body = b"".join(self._chunks)
        self._chunks.clear()
        return body

    def _compare(self) -> None:
        if self.reader is None:
            return
        if self._bytes > self._high and not self._is_paused:
            self._is_paused = True
            self.reader.pause()
        elif self._bytes <= self._low and self._is_paused:
            self._is_paused = False
            self.reader.resume()


class _NoOutlet:
    """Before the head is sent; nothing is written yet."""

    is_framed = False

    def write(self, data: bytes) -> None:
        raise RuntimeError("an event was written before the response's head")

    def set_water_marks(self, high: int, low: int) -> None:
        raise RuntimeError("water marks were set before the response's head")

    def close(self) -> None:
        """There is nothing to close."""


class EventStream(Response):
    """Server-Sent Events from a hub."""

    media_type = "text/event-stream"

    def __init__(
        self, hub: Hub, filters: tuple[str, ...], streams: tuple[str, ...], overflow: Overflow, start: Start
    ) -> None:
        """Raises: TooManyReaders."""
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._hub = hub
        self._start = start
        self._reader = hub.open_reader(filters, streams, overflow, _NoOutlet())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reader = self._reader
        try:
            http = scope.get("extensions", {}).get(EXTENSION)
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if isinstance(http, Http) and http.can_hand_over(scope):
                transport = http.hand_over()
                reader.outlet = SseConnection(transport, http.connections, reader)
                reader.start(self._start)
                return
        except BaseException:
            reader.close()
            raise
        await self._run(reader, http, receive, send)

    async def _run(self, reader: Reader, http: object, receive: Receive, send: Send) -> None:
        outlet = AsgiOutlet()
        outlet.reader = reader
        reader.outlet = outlet
        if isinstance(http, Http):
            http.on_end(reader.close)
        watcher = asyncio.create_task(_close_when_gone(receive, reader.close))
        try:
            reader.start(self._start)
            while body := await outlet.take():
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            watcher.cancel()
            reader.close()


async def _close_when_gone(receive: Receive, close: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
    close()
