"""Peers that behave as badly as networks and devices do, and a machine that has run out of something.

Each has a sentence in docs/faults.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import time
from pathlib import Path

import psutil
import pytest

from broker import Broker, BrokerConfig
from broker.listeners.tcp import KERNEL_KEEP_ALIVE
from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually, eventually_async
from tests.support.faulty_proxy import FaultyProxy
from tests.support.http_client import metrics, records
from tests.support.mqtt_client import ConnectionEnded, RawClient
from tests.support.server import HEADRACE, ServerProcess


def dropped(server: ServerProcess, reason: str) -> float:
    """Messages dropped for a reason."""
    return metrics(server.http_url).get(f'headrace_dropped_messages_total{{reason="{reason}"}}', 0.0)


class TestHalfOpenPeer:
    """The peer is gone and nobody has said so."""

    def test_is_missed_after_its_keep_alive(self, shared_server: ServerProcess) -> None:
        with (
            FaultyProxy(shared_server.mqtt_port) as proxy,
            RawClient(shared_server.mqtt_port) as watcher,
            RawClient(proxy.port) as gone,
        ):
            watcher.connect("half-open-watcher")
            watcher.subscribe(("half-open/will", 1))
            gone.connect("half-open", keep_alive=1, will=wire.Will("half-open/will", b"gone", 1))
            proxy.black_hole()
            watcher.expect_publish("half-open/will", b"gone")

    async def test_without_a_keep_alive_the_kernel_asks(self) -> None:
        config = BrokerConfig(tcp_bind=("127.0.0.1", 0), websocket_bind=("127.0.0.1", 0))
        async with Broker(config) as broker:
            for listening in broker.listening:
                reader, writer = await asyncio.open_connection("127.0.0.1", listening.port)
                own = writer.get_extra_info("sockname")
                accepted = await eventually_async(lambda own=own: accepted_from(own))
                with accepted:
                    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                    for name, value in KERNEL_KEEP_ALIVE:
                        assert accepted.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value
                writer.write_eof()
                await reader.read()
                writer.close()

    def test_another_connection_takes_its_place(self, shared_server: ServerProcess) -> None:
        with FaultyProxy(shared_server.mqtt_port) as proxy, RawClient(proxy.port) as gone:
            kept: wire.Properties = {wire.SESSION_EXPIRY: 60}
            gone.connect("half-open-again", clean=False, properties=kept)
            gone.subscribe(("half-open/again", 1))
            proxy.black_hole()
            with RawClient(shared_server.mqtt_port) as back:
                assert back.connect("half-open-again", clean=False, properties=kept).session_present
                back.publish("half-open/again", b"x", 1)
                assert back.expect(wire.PUBLISH).payload == b"x"


def accepted_from(address: tuple[str, int]) -> socket.socket | None:
    """The socket of this process that is connected to `address`."""
    for each in psutil.Process().net_connections("tcp"):
        if each.raddr and tuple(each.raddr) == tuple(address[:2]):
            return socket.socket(fileno=os.dup(each.fd))
    return None


class TestStorm:
    """Everybody comes back at once."""

    @pytest.mark.slow
    @pytest.mark.timeout(120)
    async def test_five_thousand_reconnect_at_once(self, server: ServerProcess) -> None:
        count = 5_000
        needed = count + 500
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert hard == resource.RLIM_INFINITY or hard >= needed, f"this test opens {needed} files: ulimit -n"
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
        try:
            with RawClient(server.mqtt_port, timeout_s=30) as bystander:
                bystander.connect("bystander")
                bystander.subscribe(("calm", 1))
                first = await storm(server.mqtt_port, count)
                assert not any(first)
                traffic = asyncio.create_task(asyncio.to_thread(go_round, bystander, 100))
                again = await storm(server.mqtt_port, count)
                await traffic
                assert all(again), "a session was lost"
                await eventually_async(
                    lambda: asyncio.to_thread(lambda: metrics(server.http_url)["headrace_connections"] == 1), 30
                )
            assert "Traceback" not in server.stderr_text
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def storm(port: int, count: int) -> list[bool]:
    """So many clients connect at once and break off together; returns whether each found its session."""
    writers: list[asyncio.StreamWriter] = []
    found = await asyncio.gather(*(reconnect(port, number, writers) for number in range(count)))
    for writer in writers:
        writer.transport.abort()
    return found


async def reconnect(port: int, number: int, writers: list[asyncio.StreamWriter]) -> bool:
    """Connect until it is let in, as devices do."""
    connect = wire.connect(f"storm-{number}", wire.V311, clean=False)
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            is_in = False
            try:
                writer.write(connect)
                connack = await reader.readexactly(4)
                is_in = connack[3] == 0
            finally:
                if not is_in:
                    writer.transport.abort()
            if is_in:
                writers.append(writer)
                return connack[2] == 1
        await asyncio.sleep(0.1 + number % 100 / 100)


def go_round(client: RawClient, count: int) -> None:
    """Publish, and get it back, so many times."""
    for number in range(count):
        packet_id = client.publish("calm", b"%d" % number, 1)
        due = {(wire.PUBACK, packet_id), (wire.PUBLISH, b"%d" % number)}
        while due:
            found = client.next_packet()
            is_publish = found.packet_type == wire.PUBLISH
            due.remove((found.packet_type, found.payload if is_publish else found.packet_id))
            if is_publish:
                client.send(wire.acknowledgement(wire.PUBACK, found.packet_id))


class TestClientThatNeverAcknowledges:
    """It gets what its Receive Maximum allows; the rest waits for it within limits, and for nobody else."""

    def test_is_sent_no_more_and_others_are_not_delayed(self, tmp_path: Path) -> None:
        with (
            ServerProcess(tmp_path / "data", "[mqtt]\nqueued_messages_max = 50\n") as server,
            RawClient(server.mqtt_port) as publisher,
            RawClient(server.mqtt_port) as quick,
            RawClient(server.mqtt_port) as deaf,
        ):
            publisher.connect("publisher")
            quick.connect("quick")
            quick.subscribe(("load", 1))
            kept: wire.Properties = {wire.RECEIVE_MAXIMUM: 10, wire.SESSION_EXPIRY: 60}
            deaf.connect("deaf", clean=False, properties=kept)
            deaf.subscribe(("load", 1))
            for number in range(100):
                publisher.publish_acknowledged("load", b"%d" % number)
                quick.expect_publish("load", b"%d" % number)
            sent = [deaf.expect(wire.PUBLISH).payload for _ in range(10)]
            deaf.expect_nothing()
            assert dropped(server, "queue_full") == 40
            limits = {row["name"]: row for row in system(server)["limits"]}
            assert limits["mqtt.queued_messages_max"]["hits"] > 0
            deaf.reset()
            with RawClient(server.mqtt_port) as back:
                assert back.connect("deaf", clean=False, properties={wire.SESSION_EXPIRY: 60}).session_present
                again = [back.expect_publish("load") for _ in range(60)]
                assert [each.payload for each in again[:10]] == sent
                assert [each.payload for each in again] == [b"%d" % number for number in range(60)]
                assert all(each.flags & 8 for each in again[:10])


def system(server: ServerProcess) -> dict[str, list[dict[str, object]]]:
    """What the server says about itself."""
    import json
    from urllib.request import urlopen

    with urlopen(f"{server.http_url}/api/v1/system") as answer:
        found: dict[str, list[dict[str, object]]] = json.load(answer)
        return found


class TestFilesRunOut:
    """No further connection can be accepted; those there do not notice."""

    def test_those_there_are_served_and_later_ones_get_in_again(self, tmp_path: Path) -> None:
        with ServerProcess(tmp_path / "data") as server, RawClient(server.mqtt_port) as there:
            there.connect("there")
            there.subscribe(("there", 1))
            process = psutil.Process(server.pid)
            _, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (process.num_fds() + 10, hard))
            crowd = [socket.create_connection(("127.0.0.1", server.mqtt_port), 5) for _ in range(60)]
            eventually(lambda: process.num_fds() >= resource.prlimit(server.pid, resource.RLIMIT_NOFILE)[0] - 1)
            busy_before = process.cpu_times().user
            begun = time.monotonic()
            go_round_on(there, "there", 200)
            # It does not spin over connections that it cannot take.
            assert process.cpu_times().user - busy_before < 0.5 * (time.monotonic() - begun) + 1
            for each in crowd:
                each.close()
            with RawClient(server.mqtt_port, timeout_s=10) as late:
                eventually(lambda: connects(server.mqtt_port), 20, "a newcomer is let in")
                del late
            assert len(records(server.http_url, topic="there")) == 200
            assert "Traceback" not in server.stderr_text
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (hard, hard))

    def test_fewer_files_than_connections_is_said_and_kept_to(self, tmp_path: Path) -> None:
        limited = ("prlimit", f"--nofile={FILES}:{FILES}", *HEADRACE)
        with ServerProcess(tmp_path / "data", program=limited) as server:
            rows = {row["name"]: row for row in system(server)["limits"]}
            assert rows["mqtt.connections_max"]["value"] == FILES - 200
            assert f"ulimit -n {50_000 + 200}" in server.stderr_text


FILES = 300


def go_round_on(client: RawClient, topic: str, count: int) -> None:
    """Publish, each acknowledged, and have each back."""
    for number in range(count):
        client.publish(topic, b"%d" % number, 1)
        kinds = {client.next_packet().packet_type for _ in range(2)}
        assert kinds == {wire.PUBACK, wire.PUBLISH}
        client.send(wire.acknowledgement(wire.PUBACK, number + 1))


def connects(port: int) -> bool:
    """Whether a new client is let in."""
    try:
        with RawClient(port, timeout_s=2) as client:
            return client.connect("late").reason_code == 0
    except (OSError, ConnectionEnded, TimeoutError):
        return False
