"""Quiet connections and their way to a transport of the loop, over real sockets; what passes meanwhile is not lost."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import aiomqtt
import pytest
import uvloop

from broker import Broker, BrokerConfig
from broker.listeners.quiet import EVENTS_MAX, QuietTransport
from broker.protocol.connection import Connection
from devices.bench.frames import encode_connect, encode_subscribe
from tests.support.conditions import eventually_async

LARGE = 900_000
"""Bytes of a payload; a few of them are more than a socket takes."""
Beside = Callable[[Broker], Awaitable[None]]
Run = Callable[[Beside], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test beside a broker in either loop."""

    async def with_broker(test: Beside) -> None:
        async with Broker(BrokerConfig(tcp_bind=("127.0.0.1", 0))) as broker:
            await asyncio.wait_for(test(broker), 20)

    def run_test(test: Beside) -> None:
        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(with_broker(test))

    return run_test


class Peer:
    """A client of `a` that reads no more than it is asked to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def subscribed(cls, broker: Broker, level: int = 4) -> AsyncIterator[Peer]:
        peer = cls(*await asyncio.open_connection("127.0.0.1", broker.port, limit=1024))
        peer.writer.write(encode_connect("peer", level=level) + encode_subscribe(1, "a", 0, level=level))
        assert [(await peer.packet())[0], (await peer.packet())[0]] == [0x20, 0x90]
        try:
            yield peer
        finally:
            peer.writer.close()
            with contextlib.suppress(OSError):
                await peer.writer.wait_closed()

    async def packet(self) -> tuple[int, bytes]:
        first, size, shift = (await self.reader.readexactly(1))[0], 0, 0
        while True:
            byte = (await self.reader.readexactly(1))[0]
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return first, await self.reader.readexactly(size)


def connection_of(broker: Broker, client_id: str) -> Connection:
    return next(each for each in broker.engine.connections if each.client_id == client_id)


def is_quiet(connection: Connection) -> bool:
    return isinstance(connection.outbox.transport, QuietTransport)


def test_a_busy_one_moves_and_nothing_is_lost_or_comes_in_another_order(run: Run) -> None:
    async def test(broker: Broker) -> None:
        async with (
            aiomqtt.Client("127.0.0.1", broker.port, identifier="idle"),
            aiomqtt.Client("127.0.0.1", broker.port, identifier="reads") as reads,
            aiomqtt.Client("127.0.0.1", broker.port, identifier="sends") as sends,
        ):
            await reads.subscribe("a", qos=1)
            assert all(map(is_quiet, broker.engine.connections))
            for number in range(2 * EVENTS_MAX):
                await sends.publish("a", number, qos=1)
            messages = aiter(reads.messages)
            got = [(await anext(messages)).payload for _ in range(2 * EVENTS_MAX)]
            assert got == [str(number).encode() for number in range(2 * EVENTS_MAX)]
            quiet = {each.client_id: is_quiet(each) for each in broker.engine.connections}
            assert quiet == {"idle": True, "reads": False, "sends": False}
        await eventually_async(lambda: not broker.engine.connections)

    run(test)


def test_what_a_socket_does_not_take_moves_with_its_connection(run: Run) -> None:
    async def test(broker: Broker) -> None:
        async with Peer.subscribed(broker) as peer:
            for number in range(7):
                broker.publish("a", b"%d" % number * LARGE)
            await eventually_async(lambda: not is_quiet(connection_of(broker, "peer")))
            broker.publish("a", b"7" * LARGE)
            for number in range(8):
                assert await peer.packet() == (0x30, b"\0\x01a" + b"%d" % number * LARGE)
            connection = connection_of(broker, "peer")
            await eventually_async(lambda: not connection.outbox.is_blocked)
            peer.writer.close()
            await eventually_async(lambda: not broker.engine.connections)

    run(test)


def test_a_connection_that_is_closed_on_its_way_has_all_that_was_before(run: Run) -> None:
    async def test(broker: Broker) -> None:
        async with Peer.subscribed(broker, level=5) as peer:
            for _ in range(5):
                broker.publish("a", b"x" * LARGE)
            assert broker.close_by_admin("peer")
            for _ in range(5):
                assert await peer.packet() == (0x30, b"\0\x01a\0" + b"x" * LARGE)
            assert await peer.packet() == (0xE0, b"\x98")
            assert await peer.reader.read() == b""
            await eventually_async(lambda: not broker.engine.connections)

    run(test)


def test_one_that_is_cut_on_its_way_is_gone(run: Run) -> None:
    async def test(broker: Broker) -> None:
        async with Peer.subscribed(broker) as peer:
            connection = connection_of(broker, "peer")
            for _ in range(5):
                broker.publish("a", b"x" * LARGE)
            broker.turn.run()
            assert isinstance(connection.outbox.transport, QuietTransport)
            assert connection.outbox.transport.move is not None
            connection.cut()
            await eventually_async(lambda: not broker.engine.connections)
            assert len(await peer.reader.read()) < 5 * LARGE

    run(test)


@pytest.mark.parametrize("moves", [False, True])
def test_who_is_not_read_from_is_not_read_from_on_its_way_either(run: Run, moves: bool) -> None:
    async def test(broker: Broker) -> None:
        async with Peer.subscribed(broker) as peer:
            connection = connection_of(broker, "peer")
            connection.pause_reading()
            if moves:
                for _ in range(5):
                    broker.publish("a", b"x" * LARGE)
                await eventually_async(lambda: not is_quiet(connection))
                for _ in range(5):
                    await peer.packet()
            before = connection.bytes_in
            peer.writer.write(b"\xc0\0")
            async with aiomqtt.Client("127.0.0.1", broker.port) as other:  # some rounds of the loop
                await other.publish("b", b"", qos=1)
            assert connection.bytes_in == before
            connection.resume_reading()
            assert await peer.packet() == (0xD0, b"")
            connection.pause_reading()
            connection.resume_reading()
            peer.writer.write(b"\xc0\0")
            assert await peer.packet() == (0xD0, b"")

    run(test)


def test_a_peer_that_resets_its_connection_is_gone(run: Run) -> None:
    async def test(broker: Broker) -> None:
        async with Peer.subscribed(broker) as peer:
            raw = peer.writer.get_extra_info("socket").dup()
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.close()
            peer.writer.transport.abort()
            await eventually_async(lambda: not broker.engine.connections)
            broker.publish("a", b"nobody is there")

    run(test)


def test_nothing_of_a_broker_stays_open(run: Run) -> None:
    async def test(broker: Broker) -> None:
        async with Peer.subscribed(broker) as peer:
            quiet = broker._quiet
            assert quiet is not None
            await broker.stop()
            assert await peer.reader.read() == b""
            assert (quiet.sockets, broker.engine.connections) == ([], {})
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", broker.port)

    run(test)
