"""The client of another broker, against brokers on real sockets that do what real ones do, and worse."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bridge.config_remote import IngestTable
from bridge.remote.client import RemoteClient
from bridge.remote.link import Link
from broker.codec.encode import encode
from broker.codec.packets import Connack, Connect, Disconnect, Packet, Pingreq, Publish
from broker.config import BrokerConfig
from broker.server import Broker
from tests.support.conditions import eventually_async
from tests.support.other_broker import OtherBroker, Script, welcome

BYTES_MAX = 4_096


class User:
    """Keeps what a link told."""

    def __init__(self) -> None:
        self.connacks: list[Connack] = []
        self.packets: list[Packet] = []
        self.too_large: list[tuple[int, int]] = []
        self.ends = 0
        self.link: Link | None = None

    def opened(self, link: Link, connack: Connack) -> None:
        self.link = link
        self.connacks.append(connack)

    def closed(self) -> None:
        self.ends += 1

    def receive_run(self, data: bytes, position: int) -> int:
        return position

    def receive(self, packet: Packet) -> None:
        self.packets.append(packet)

    def receive_too_large(self, first_byte: int, packet_id: int, size: int) -> None:
        self.too_large.append((packet_id, size))

    def has_room(self) -> None:
        """Nothing waits here."""


@asynccontextmanager
async def connected_to(script: Script, **table: Any) -> AsyncIterator[tuple[OtherBroker, RemoteClient, User]]:
    """A client that tries to connect to a scripted broker."""
    broker = OtherBroker(script)
    port = await broker.open()
    async with client_of(port, **table) as (client, user):
        yield broker, client, user
    await broker.close()


@asynccontextmanager
async def client_of(port: int, **table: Any) -> AsyncIterator[tuple[RemoteClient, User]]:
    values = {"name": "x", "broker": f"mqtt://127.0.0.1:{port}", "topics": ("#",), "reconnect_s_max": 0.1, **table}
    user = User()
    client = RemoteClient(
        IngestTable(**values),
        "me",
        user,
        logging.getLogger("test"),
        keeps_session=True,
        session_expiry_s=60,
        receive_maximum=10,
        packet_bytes_max=BYTES_MAX,
    )
    client.start()
    try:
        yield client, user
    finally:
        await client.close()


async def test_connect_says_what_is_configured() -> None:
    async with connected_to(welcome, keep_alive_s=60) as (broker, client, user):
        await eventually_async(lambda: client.state == "connected")
        connect = broker.packets[0]
        assert isinstance(connect, Connect)
        assert (connect.protocol_level, connect.clean_start, connect.keep_alive_s) == (5, False, 60)
        assert connect.properties is not None
        assert connect.properties.present() == {
            "session_expiry_interval": 60,
            "receive_maximum": 10,
            "maximum_packet_size": BYTES_MAX,
        }
        assert client.protocol == "5.0"
        await client.close()
        await eventually_async(lambda: Disconnect() in broker.packets)
        assert user.ends == 1


@pytest.mark.parametrize("says_so", [True, False])
async def test_an_old_broker_gets_3_1_1(says_so: bool) -> None:
    """One that answers with a return code of 3.1.1, and one that just closes the connection."""

    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        if isinstance(packet, Connect) and level == 5:
            writer.write(encode(Connack(False, 1), 4) if says_so else b"")
            writer.close()
        else:
            welcome(writer, packet, level)

    async with connected_to(script) as (broker, client, _):
        await eventually_async(lambda: client.state == "connected")
        assert [each.protocol_level for each in broker.packets if isinstance(each, Connect)] == [5, 4]
        assert client.protocol == "3.1.1"


async def test_version_5_alone_stays_5() -> None:
    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        writer.write(encode(Connack(False, 0x84), level))

    async with connected_to(script, version="5") as (broker, client, _):
        await eventually_async(lambda: len(broker.packets) > 1)
        assert {each.protocol_level for each in broker.packets if isinstance(each, Connect)} == {5}
        assert client.failure is not None
        assert "unsupported protocol version" in client.failure


async def test_a_refusal_is_told_and_tried_again() -> None:
    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        if isinstance(packet, Connect):
            refusals.append(1)
            writer.write(encode(Connack(False, 0 if len(refusals) > 2 else 0x87), level))

    refusals: list[int] = []
    async with connected_to(script) as (_, client, user):
        await eventually_async(lambda: client.failure)
        assert "not authorized" in str(client.failure)
        await eventually_async(lambda: client.state == "connected")
        assert client.failure is None
        assert len(user.connacks) == 1


async def test_publishes_in_the_read_of_connack_find_their_user() -> None:
    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        if isinstance(packet, Connect):
            writer.write(encode(Connack(True), level) + encode(Publish("a", b"1"), level))

    async with connected_to(script) as (_, _, user):
        await eventually_async(lambda: user.packets)
        assert user.packets == [Publish("a", b"1")]


@pytest.mark.parametrize("cut", [1, 3, 9, 100, 5_000])
async def test_a_message_that_is_too_large_is_passed_over_in_3_1_1(cut: int) -> None:
    """However its bytes come; what stands behind it is taken."""
    large = encode(Publish("large", b"x" * 10_000, 1, packet_id=5), 4)
    parts = [large[:cut], large[cut:] + encode(Publish("small", b"1"), 4)]

    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        if isinstance(packet, Connect):
            writer.write(encode(Connack(), level) + parts[0])
        elif isinstance(packet, Pingreq):
            writer.write(parts.pop())

    async with connected_to(script, version="3.1.1") as (_, _, user):
        await eventually_async(lambda: user.packets)
        assert user.too_large == [(5, len(large))]
        assert user.packets == [Publish("small", b"1")]


async def test_a_broker_that_breaks_the_protocol_is_left_and_told() -> None:
    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        if isinstance(packet, Connect):
            writer.write(encode(Connack(), level) + b"\xc0\x00")

    async with connected_to(script) as (broker, client, user):
        await eventually_async(lambda: Disconnect(0x82) in broker.packets)
        await eventually_async(lambda: user.ends)
        await eventually_async(lambda: client.connections > 1)


async def test_a_server_of_our_own_takes_it_over_when_another_has_the_same_name() -> None:
    async with (
        Broker(BrokerConfig(tcp_bind=("127.0.0.1", 0))) as broker,
        client_of(broker.listening[0].port) as (first, _),
    ):
        await eventually_async(lambda: first.state == "connected")
        async with client_of(broker.listening[0].port) as (second, _):
            await eventually_async(lambda: second.state == "connected")
            await eventually_async(lambda: first.failure)
            assert "session taken over" in str(first.failure)
            assert "give client_id" in str(first.failure)


async def test_nobody_there_is_said_plainly() -> None:
    broker = OtherBroker(welcome)
    port = await broker.open()
    await broker.close()
    async with client_of(port) as (client, _):
        await eventually_async(lambda: client.failure)
        assert str(client.failure).startswith(f"nobody answers at mqtt://127.0.0.1:{port}: ")


async def test_a_password_that_is_missing_is_said_and_looked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with connected_to(welcome, username="u", password_env="REMOTE_PASSWORD") as (broker, client, _):
        await eventually_async(lambda: client.failure)
        assert "REMOTE_PASSWORD" in str(client.failure)
        monkeypatch.setenv("REMOTE_PASSWORD", "p")
        await eventually_async(lambda: client.state == "connected")
        connect = broker.packets[0]
        assert isinstance(connect, Connect)
        assert (connect.username, connect.password) == ("u", b"p")
