"""A small real live side: memory streams, a hub over them, and outlets that keep what is written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.cursors import Cursor
from bridge.live.held import Overflow
from bridge.live.hub import Hub
from bridge.live.latest import LatestValues
from bridge.live.limits import LiveLimits
from bridge.live.reader import Reader
from bridge.live.start import Start, start_at_cursor, start_live
from bridge.records import Topic
from bridge.streams.memory_log import MemoryLog
from broker.publish_run import PublishRun
from broker.routing import Route


@dataclass(frozen=True)
class Event:
    """One SSE event as a client sees it; a comment has neither name nor id."""

    name: str
    id: str | None
    data: Any
    comment: bool = False


def parse_sse(text: str) -> list[Event]:
    """The whole blocks of an event stream, in the way of WHATWG HTML §9.2.6 as far as this server needs it."""
    events = []
    for block in text.split("\n\n")[:-1]:
        fields: dict[str, str] = {}
        comment = False
        for line in block.split("\n"):
            if line.startswith(":"):
                comment = True
                continue
            name, _, value = line.partition(":")
            assert name in ("event", "id", "data", "retry"), line
            assert name not in fields, f"{name} twice in {block!r}"
            fields[name] = value.removeprefix(" ")
        data = json.loads(fields["data"]) if "data" in fields else None
        events.append(Event(fields.get("event", ""), fields.get("id"), data, comment))
    return events


class MemoryOutlet:
    """An outlet whose reader takes bytes only when told to."""

    is_framed = False

    def __init__(self) -> None:
        self.reader: Reader | None = None
        self.written = bytearray()
        self.waiting = 0
        self.high = self.low = 1 << 30
        self.is_paused = False
        self.is_closed = False
        self.is_reading = True
        self.waiting_most = 0

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.written += data
        if not self.is_reading:
            self.waiting += len(data)
            self.waiting_most = max(self.waiting_most, self.waiting)
            self._compare()

    def set_water_marks(self, high: int, low: int) -> None:
        self.high, self.low = high, low
        self._compare()

    def close(self) -> None:
        self.is_closed = True

    def stop_reading(self) -> None:
        self.is_reading = False

    def read(self) -> None:
        """Take all that waits."""
        self.is_reading = True
        self.waiting = 0
        self._compare()

    def _compare(self) -> None:
        if self.waiting > self.high and not self.is_paused:
            self.is_paused = True
            assert self.reader is not None
            self.reader.pause()
        elif self.waiting <= self.low and self.is_paused:
            self.is_paused = False
            assert self.reader is not None
            self.reader.resume()

    @property
    def events(self) -> list[Event]:
        return parse_sse(self.written.decode())

    def messages(self) -> list[Event]:
        return [event for event in self.events if event.name == "message"]

    def offsets(self) -> list[int]:
        return [event.data["offset"] for event in self.messages()]

    def last_id(self) -> str:
        return next(event.id for event in reversed(self.events) if event.id is not None)


class Side:
    """Streams and a hub; `publish` is a turn of the server."""

    def __init__(self, *logs: MemoryLog, limits: LiveLimits | None = None) -> None:
        self.logs = {log.name: log for log in logs or (MemoryLog("default", node_run="n7"),)}
        self.latest = LatestValues("n7")
        self.limits = limits or LiveLimits()
        self.hub = Hub(self.logs.values(), "n7", self.latest, self.limits)
        self.routes: dict[tuple[str, str], Route] = {}
        for log in self.logs.values():
            log.on_committed = self._committed_to(log)

    async def __aenter__(self) -> Side:
        await self.latest.open(self.logs.values())
        self.hub.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hub.close()
        await self.latest.close()

    def _committed_to(self, log: MemoryLog) -> Callable[[Sequence[PublishRun]], None]:
        return lambda runs: self.hub.committed(log, runs)

    def append(self, rows: Sequence[tuple[str, bytes]], stream: str = "default", time_ms: int = 1795374000000) -> None:
        """Append one run; it is committed by `turn`."""
        data = bytearray()
        routes, payload_starts, ends = [], [], []
        for name, payload in rows:
            encoded = len(name.encode()).to_bytes(2) + name.encode()
            remaining = len(encoded) + len(payload)
            data.append(0x30)
            while remaining > 127:
                data.append(remaining & 0x7F | 0x80)
                remaining >>= 7
            data.append(remaining)
            data += encoded
            payload_starts.append(len(data))
            data += payload
            ends.append(len(data))
            key = (stream, name)
            if key not in self.routes:
                self.routes[key] = Route(name, encoded, Topic(name, self.logs[stream]))
            routes.append(self.routes[key])
        run = PublishRun(
            bytes(data),
            0,
            routes,
            payload_starts,
            ends,
            [],
            is_v5=False,
            client_id="p1",
            received_at_ms=time_ms,
            qos=0,
        )
        run.first_number = self.logs[stream].next_offset + 1
        self.logs[stream].append(run)

    def turn(self) -> None:
        """Commit and flush."""
        for log in self.logs.values():
            log.flush()
        self.hub.flush()

    def publish(self, *rows: tuple[str, bytes], stream: str = "default", time_ms: int = 1795374000000) -> None:
        self.append(rows, stream, time_ms)
        self.turn()

    def open(
        self,
        *filters: str,
        overflow: Overflow = "replay",
        start: Start | None = None,
        cursor: str | None = None,
        streams: Sequence[str] | None = None,
        outlet: MemoryOutlet | None = None,
    ) -> MemoryOutlet:
        """A reader; live unless told otherwise."""
        logs = [self.logs[name] for name in streams or self.logs]
        outlet = outlet or MemoryOutlet()
        reader = self.hub.open_reader(tuple(sorted(filters)), tuple(log.name for log in logs), overflow, outlet)
        outlet.reader = reader
        if cursor is not None:
            start = start_at_cursor(self.hub, logs, Cursor.parse(cursor))
        reader.start(start or start_live(self.hub, logs))
        return outlet


async def until(condition: Callable[[], object], turns: int = 20_000) -> None:
    """Let the loop run until the condition holds."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition never held")


async def turns(count: int) -> None:
    """Let the loop run so many times."""
    for _ in range(count):
        await asyncio.sleep(0)
