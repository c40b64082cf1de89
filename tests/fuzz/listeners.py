"""Fuzzing over real sockets: many connections at once to every listener of the real server, beside bystanders.

The bystanders (MQTT over TCP and over WebSocket, and a live reader) count every message of each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import threading
import time
from collections.abc import Callable

import psutil

from tests.fuzz import inputs
from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually, eventually_async
from tests.support.http_client import SseReader, metrics
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess
from tests.support.websocket_client import WebSocketMqttClient

CONFIG = """
[mqtt]
sessions_max = 500
routes_max = 1000
routes_bytes_max = "1MiB"
retained_messages_max = 200
queued_messages_max = 100
connect_timeout_s = 2
close_timeout_s = 1
session_expiry_s_max = 5

[live]
latest_topics_max = 1000
latest_bytes_max = "1MiB"

[http]
head_timeout_s = 2

[presence]
gone_devices_max = 200

[[streams]]
name = "fuzz"
topics = ["#"]
storage = "memory"
retention = { bytes = "1MiB" }
"""
"""Low limits, so that memory is full of what may be kept soon, and more of it would be seen."""
BOUNDED = {
    'headrace_devices{state="gone"}': 200,
    "headrace_retained_messages": 200,
    "headrace_latest_topics": 1_000,
}
"""What stays when all clients are gone, and how much of it at most."""
GONE = (
    "headrace_connections",
    "headrace_sessions",
    "headrace_subscriptions",
    "headrace_queued_messages",
    "headrace_replays",
    "headrace_shared_groups",
    "headrace_presence_waiting",
    'headrace_devices{state="online"}',
    'headrace_devices{state="session"}',
)
"""What is 0 again then: sessions are over within `session_expiry_s_max`."""
AT_ONCE = 20
"""Connections."""
GROWTH_BYTES_MAX = 48 << 20
"""What memory may have grown by between the first third and the end: Python's allocator gives little back."""
ANSWER_S = 0.5
"""A server that waits for more is left after this."""


class Bystanders:
    """Clients that do everything right, in a thread of their own."""

    def __init__(self, server: ServerProcess) -> None:
        self._tcp = RawClient(server.mqtt_port)
        self._websocket = WebSocketMqttClient(server.http_port)
        self._reader = SseReader(server.http_url, [("topic", "bystander/#")])
        self.rounds = 0
        self.slowest_s = 0.0
        self.error: BaseException | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Connect, then go round and round."""
        self._tcp.connect("bystander-tcp")
        self._websocket.connect("bystander-ws")
        for client in (self._tcp, self._websocket):
            client.subscribe("bystander/#")
        self._reader.start()
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._is_over.wait(0.05):
                begun = time.monotonic()
                for publisher in (self._tcp, self._websocket):
                    self._round(publisher)
                self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
        except BaseException as error:
            self.error = error

    def _round(self, publisher: RawClient) -> None:
        payload = b"%d" % self.rounds
        packet_id = publisher.publish("bystander/a", payload, 1)
        for client in (self._tcp, self._websocket):
            due = {(wire.PUBLISH, payload)} | ({(wire.PUBACK, packet_id)} if client is publisher else set())
            while due:
                found = client.next_packet()
                due.remove((found.packet_type, found.payload if found.packet_type == wire.PUBLISH else found.packet_id))
        self.rounds += 1

    def stop(self) -> None:
        """Judge: nobody was disturbed and nothing is missing."""
        self._is_over.set()
        self._thread.join(30)
        if self.error is not None:
            raise AssertionError(f"a bystander was disturbed after {self.rounds} messages") from self.error
        eventually(lambda: len(self._reader.messages) == self.rounds, what="all messages with the live reader")
        assert [event["payload"] for event in self._reader.messages] == list(range(self.rounds))
        self._reader.stop()
        for client in (self._tcp, self._websocket):
            client.send(wire.disconnect())
            client.close()


async def throw(port: int, reads: list[bytes]) -> None:
    """One connection: send the reads, see what comes, be gone."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return
    with contextlib.suppress(OSError, TimeoutError):
        for read in reads:
            writer.write(read)
            await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(ANSWER_S):
            while await reader.read(65_536):
                continue
    if not writer.is_closing():
        writer.transport.abort()


async def run(seed: int, duration_s: float) -> str:
    """Fuzz for so long; returns what was done. Raises: AssertionError."""
    with ServerProcess(config=CONFIG) as server:
        ports: list[tuple[int, Callable[[random.Random], list[bytes]]]] = [
            (server.mqtt_port, inputs.mqtt),
            (server.ws_port, lambda chance: inputs.websocket(chance, server.ws_port)),
            (server.http_port, lambda chance: inputs.websocket(chance, server.http_port)),
            (server.http_port, inputs.http),
        ]
        bystanders = Bystanders(server)
        bystanders.start()
        deadline = time.monotonic() + duration_s
        numbers = itertools.count()
        memory = psutil.Process(server.pid).memory_info
        early: list[int] = []

        async def worker() -> None:
            for number in numbers:
                if time.monotonic() > deadline:
                    return
                if not early and time.monotonic() > deadline - 2 * duration_s / 3:
                    early.append(memory().rss)
                chance = random.Random(f"{seed}-{number}")
                port, make = chance.choice(ports)
                await throw(port, make(chance))
                assert server.is_running, f"the server ended\n{server.stderr_text[-5_000:]}"
                assert bystanders.error is None, f"seed {seed}, about input {number}: {bystanders.error!r}"

        async with asyncio.TaskGroup() as workers:
            for _ in range(AT_ONCE):
                workers.create_task(worker())
        await asyncio.to_thread(bystanders.stop)

        def is_calm() -> bool:
            found = metrics(server.http_url)
            return not any(found[name] for name in GONE)

        await eventually_async(lambda: asyncio.to_thread(is_calm), 30, "nothing that is left of a client")
        left = metrics(server.http_url)
        for name, most in BOUNDED.items():
            assert left[name] <= most, f"{name} is {left[name]}"
        grown = memory().rss - (early[0] if early else 0)
        assert grown < GROWTH_BYTES_MAX, f"memory has grown by {grown:,} bytes"
        server.terminate()
        for sign in ("Traceback", "error of the server", "Exception"):
            assert sign not in server.stderr_text, server.stderr_text[server.stderr_text.index(sign) - 500 :][:5_000]
        return (
            f"listeners: {next(numbers):,} connections, {bystanders.rounds:,} messages of bystanders, the slowest "
            f"round {bystanders.slowest_s:.2f} s, memory {grown / (1 << 20):+.1f} MiB since the first third"
        )
