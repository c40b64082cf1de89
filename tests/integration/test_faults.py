"""What goes wrong around the server hurts nobody else: bad peers, slow peers, a full disk, a second start."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually
from tests.support.faulty_proxy import FaultyProxy
from tests.support.http_client import SseReader, metrics, records
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess
from tests.support.small_disk import SmallDisk, fill


class TestSecondServer:
    """One data directory has one server."""

    def test_is_refused_with_the_pid_of_the_first(self, server: ServerProcess) -> None:
        second = ServerProcess(server.data_directory)
        second.spawn()
        assert second.wait() == 1
        assert str(server.pid) in second.stderr_text
        assert "in use" in second.stderr_text
        assert "Traceback" not in second.stderr_text
        with RawClient(server.mqtt_port) as client:
            client.connect()
            client.publish_acknowledged("still/here", b"1")

    def test_may_start_after_the_first_was_killed(self, server: ServerProcess) -> None:
        server.kill()
        server.start()
        with RawClient(server.mqtt_port) as client:
            client.connect()
            client.publish_acknowledged("here/again", b"1")


class TestVanishingPublishers:
    """A commit that returns after its connection closed must not stop anybody's acknowledgements."""

    @pytest.mark.parametrize("qos", [1, 2])
    def test_send_and_reset(self, server: ServerProcess, qos: int) -> None:
        with RawClient(server.mqtt_port) as steady:
            steady.connect("steady")
            for round_number in range(30):
                hasty = RawClient(server.mqtt_port)
                hasty.connect(f"hasty-{round_number}")
                hasty.send(
                    b"".join(wire.publish(f"hasty/{round_number}", b"x", qos, number) for number in range(1, 201))
                )
                steady.publish("steady", b"%d" % round_number, 1)
                hasty.reset()
                steady.expect(wire.PUBACK)
            for number in range(100):
                steady.publish_acknowledged("steady", b"%d" % number)
        server.terminate()
        assert "Traceback" not in server.stderr_text


class TestSlowReaders:
    """Who does not read loses what may be lost, is counted, and hurts nobody."""

    def test_stopped_subscriber(self, server: ServerProcess) -> None:
        payload = b"x" * 10_000
        with RawClient(server.mqtt_port) as stopped, RawClient(server.mqtt_port) as publisher:
            stopped.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            stopped.connect("stopped")
            stopped.subscribe("load/#")
            publisher.connect("publisher")
            for number in range(4_000):
                publisher.publish("load/a", payload)
                if number % 500 == 499:
                    publisher.ping()
            with RawClient(server.mqtt_port) as other:
                other.connect("other")
                other.subscribe(("load/#", 1))
                publisher.publish_acknowledged("load/b", b"quick")
                other.expect_publish("load/b", b"quick")
            dropped = {
                name: value
                for name, value in metrics(server.http_url).items()
                if name.startswith("headrace_dropped_messages_total")
            }
            assert sum(dropped.values()) > 1_000, dropped
            assert len(records(server.http_url, topic="load/b")) == 1
            # It is still connected, and gets what comes once it reads again.
            seen = 0
            stopped.send(wire.pingreq())
            while stopped.next_packet().packet_type == wire.PUBLISH:
                seen += 1
            assert 0 < seen < 4_000
            publisher.publish_acknowledged("load/c", b"again")
            stopped.expect_publish("load/c", b"again")

    def test_qos_0_that_waited_for_a_subscriber_whose_connection_breaks_is_counted(self, server: ServerProcess) -> None:
        count = 900
        name = 'headrace_dropped_messages_total{reason="connection_lost"}'
        before = metrics(server.http_url).get(name, 0)
        with RawClient(server.mqtt_port) as stopped, RawClient(server.mqtt_port) as publisher:
            stopped.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            stopped.connect("breaks")
            stopped.subscribe("load/#")
            publisher.connect("publisher")
            for number in range(count):
                publisher.publish("load/a", b"x" * 12_000)
                if number % 100 == 99:
                    publisher.ping()
            stopped.reset()
        eventually(lambda: metrics(server.http_url).get(name, 0) > before)
        dropped = metrics(server.http_url)[name] - before
        assert 0 < dropped < count, "some were with the operating system already"

    def test_stopped_subscriber_keeps_qos_1_in_its_session(self, server: ServerProcess) -> None:
        with RawClient(server.mqtt_port) as stopped, RawClient(server.mqtt_port) as publisher:
            stopped.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            stopped.connect("stopped")
            stopped.subscribe(("load/#", 1))
            publisher.connect("publisher")
            for number in range(1_500):
                publisher.publish_acknowledged("load/a", b"%04d" % number + b"x" * 4_000)
            for number in range(1_500):
                assert stopped.expect_publish("load/a").payload[:4] == b"%04d" % number

    def test_stopped_sse_reader(self, server: ServerProcess) -> None:
        """Its socket fills up; another reader and the publisher do not notice."""
        stopped = socket.create_connection(("127.0.0.1", server.http_port))
        stopped.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        stopped.sendall(b"GET /api/v1/events?topic=%23 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
        with SseReader(server.http_url, [("topic", "load/#")]) as reader, RawClient(server.mqtt_port) as publisher:
            publisher.connect()
            for number in range(2_000):
                publisher.publish("load/a", b'{"n":%d,"fill":"%s"}' % (number, b"x" * 5_000), 1)
                if number % 500 == 499:
                    for _ in range(500):
                        publisher.expect(wire.PUBACK)
            eventually(lambda: len(reader.messages) == 2_000, timeout_s=30)
            assert [event["payload"]["n"] for event in reader.messages] == list(range(2_000))
            # The stopped one, when it reads again, loses nothing either: it is fed from the log.
            stopped.settimeout(20)
            received = bytearray()
            while received.count(b"\nevent: message") + received.count(b"event:message") < 2_000:
                data = stopped.recv(1 << 20)
                assert data, "the slow reader was cut"
                received += data
        stopped.close()
        assert b"event: gap" not in received


class TestBrokenNetwork:
    """Through a proxy that breaks connections."""

    def test_reader_cut_at_random_sees_each_record_once(self, server: ServerProcess) -> None:
        with (
            FaultyProxy(server.http_port) as proxy,
            SseReader(f"http://127.0.0.1:{proxy.port}", [("topic", "cut/#")]) as reader,
            RawClient(server.mqtt_port) as publisher,
        ):
            publisher.connect()
            for number in range(2_000):
                publisher.publish_acknowledged(f"cut/{number % 7}", b"%d" % number)
                if number == 0:
                    eventually(lambda: bool(reader.last_event_id))  # before, it has no place to come back to
                elif number % 100 == 50:
                    proxy.cut_after(number % 1_000 + 1)
                elif number % 100 == 0:
                    proxy.cut(with_reset=number % 200 == 0)
            eventually(lambda: len(reader.messages) >= 2_000, timeout_s=30, what=reader)
            assert [event["payload"] for event in reader.messages] == list(range(2_000))
            assert proxy.connections_total > 15

    def test_cut_publisher_is_noticed(self, server: ServerProcess) -> None:
        with (
            FaultyProxy(server.mqtt_port) as proxy,
            RawClient(server.mqtt_port) as watcher,
            RawClient(proxy.port) as client,
        ):
            watcher.connect()
            watcher.subscribe(("will", 1))
            client.connect("cut", will=wire.Will("will", b"gone", 1))
            proxy.cut(with_reset=True)
            watcher.expect_publish("will", b"gone")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB that is the test's own."""
    with SmallDisk(tmp_path / "small", "12m") as disk:
        yield disk.path


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_full_disk_stops_acknowledgements_and_not_the_server(small_disk: Path) -> None:
    with ServerProcess(small_disk / "data") as server:
        filler = small_disk / "filler"
        with RawClient(server.mqtt_port, wire.V311) as client, RawClient(server.mqtt_port) as watcher:
            client.connect("client")
            watcher.connect("watcher")
            watcher.subscribe(("full/#", 0))
            client.publish_acknowledged("full/before", b"0")
            watcher.expect_publish("full/before")
            assert httpx.get(f"{server.http_url}/readyz").status_code == 200
            fill(filler)

            # Until the log says that it cannot write; some publishes still fit into what SQLite has.
            sent = acknowledged = 0
            deadline = time.monotonic() + 30
            while httpx.get(f"{server.http_url}/readyz").status_code == 200:
                assert time.monotonic() < deadline, "the disk is full and the server says it is ready"
                if sent - acknowledged < 20:
                    client.publish("full/a", b"%06d" % sent + b"x" * 2_000, 1, packet_id=sent + 1)
                    sent += 1
                try:
                    assert client.next_packet(timeout_s=0.05).packet_id == acknowledged + 1
                    acknowledged += 1
                except TimeoutError:
                    continue
            assert sent > acknowledged
            assert httpx.get(f"{server.http_url}/readyz").status_code == 503
            assert httpx.get(f"{server.http_url}/healthz").status_code == 200
            assert re.search(
                rf"{small_disk}/data is full \([\d.]+ k?B free\)\. Nothing is acknowledged that is not stored: QoS",
                server.stderr_text,
            )

            # The server lives: pings are answered, QoS 0 goes round.
            client.send(wire.pingreq())
            while client.next_packet().packet_type != wire.PINGRESP:
                acknowledged += 1
            with RawClient(server.mqtt_port) as newcomer:
                newcomer.connect("newcomer")

            filler.unlink()
            while acknowledged < sent:
                assert client.expect(wire.PUBACK).packet_id == acknowledged + 1
                acknowledged += 1
            eventually(lambda: httpx.get(f"{server.http_url}/readyz").status_code == 200)
        stored = records(server.http_url, topic="full/a")
        assert [int(record["payload"][:6]) for record in stored] == list(range(sent))
        server.terminate()
