"""Replay over MQTT with the real server and real clients: history, then live, each message once and in order."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually
from tests.support.faulty_proxy import FaultyProxy
from tests.support.http_client import metrics
from tests.support.mqtt_client import RawClient
from tests.support.paho_client import PahoClient
from tests.support.replayer import KEPT, Replayer
from tests.support.server import ServerProcess

COUNTER = itertools.count(1)

TWO_STREAMS = """
[[streams]]
name = "fast"
topics = ["fast/#"]
storage = "memory"

[[streams]]
name = "kept"
topics = ["kept/#"]
storage = "sqlite"
"""


@pytest.fixture(scope="module")
def running() -> Iterator[ServerProcess]:
    """One server with a memory stream, an sqlite stream and the default one."""
    with ServerProcess(config=TWO_STREAMS) as server:
        yield server


@pytest.fixture(params=["fast", "kept"])
def topic(request: pytest.FixtureRequest) -> str:
    """In the memory stream, and in the sqlite stream."""
    return f"{request.param}/{next(COUNTER)}"


class Numbers(threading.Thread):
    """Publishes numbers until it is stopped, a few hundred a second."""

    def __init__(self, server: ServerProcess, topics: list[str], qos: int = 1, pause_s: float = 0.002) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self._client = RawClient(server.mqtt_port)
        self._client.connect(f"numbers-{next(COUNTER)}")
        self._topics = topics
        self._qos = qos
        self._pause_s = pause_s
        self._stopped = threading.Event()

    def publish(self, count: int) -> None:
        for _ in range(count):
            topic = self._topics[self.sent % len(self._topics)]
            self._client.publish_acknowledged(topic, b"%d" % self.sent, self._qos)
            self.sent += 1

    def run(self) -> None:
        while not self._stopped.wait(self._pause_s):
            self.publish(1)

    def stop(self) -> int:
        """How many were published in all."""
        self._stopped.set()
        if self.is_alive():
            self.join(10)
        self._client.disconnect()
        return self.sent


@contextmanager
def publishing(server: ServerProcess, *topics: str, before: int = 300, qos: int = 1) -> Iterator[Numbers]:
    """Some history, and more while the block runs."""
    numbers = Numbers(server, list(topics), qos)
    numbers.publish(before)
    numbers.start()
    try:
        yield numbers
    finally:
        numbers.stop()


def in_order(numbers: Numbers, received: Callable[[], list[int]]) -> None:
    """Everything that was published has come, once and in order, some of it after the end of history."""
    eventually(lambda: len(received()) > 350, what="history and some of what came live")
    count = numbers.stop()
    eventually(lambda: len(received()) >= count, what=f"all {count}")
    assert received() == list(range(count))


def more_than(count: int, received: Sized) -> None:
    eventually(lambda: len(received) > count, timeout_s=20, what=f"more than {count}")


# Clients


@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5], ids=["v3.1.1", "v5"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_paho_gets_history_then_live(running: ServerProcess, topic: str, version: int, qos: int) -> None:
    with publishing(running, topic, qos=2) as numbers, PahoClient(running, version=version) as client:
        client.subscribe((f"$replay/-1h/{topic}", qos))
        in_order(numbers, lambda: [int(message.payload) for message in list(client.messages)])
        assert {(message.topic, message.qos, message.retain) for message in client.messages} == {(topic, qos, False)}
        if version == paho.MQTTv5:
            fields = [dict(message.properties.UserProperty) for message in client.messages]  # type: ignore[attr-defined]
            offsets = [int(each["offset"]) for each in fields]
            assert offsets == sorted(offsets)
            assert {each["stream"] for each in fields} == {topic.split("/")[0]}
            assert {each["partition"] for each in fields} == {"0"}
            assert len({each["epoch"] for each in fields}) == 1
            age_s = datetime.now(UTC).timestamp() - datetime.fromisoformat(fields[0]["time"]).timestamp()
            assert 0 < age_s < 60


def test_user_property_since_replays_every_filter_of_its_subscribe(running: ServerProcess) -> None:
    name = next(COUNTER)
    topics = [f"fast/{name}", f"kept/{name}", f"else/{name}"]
    with publishing(running, *topics) as numbers, PahoClient(running) as client:
        properties = Properties(PacketTypes.SUBSCRIBE)  # type: ignore[no-untyped-call]
        properties.UserProperty = ("since", "-1h")
        client.client.subscribe(
            [(each, paho.SubscribeOptions(qos=1)) for each in topics],
            properties=properties,  # type: ignore[arg-type]
        )
        eventually(lambda: len(client.messages) > 400)
        count = numbers.stop()
        eventually(lambda: len(client.messages) >= count)
        for index, each in enumerate(topics):
            of_topic = [int(message.payload) for message in client.messages if message.topic == each]
            assert of_topic == list(range(index, count, 3))
        client.unsubscribe(topics[0])
        client.publish(topics[0], b"9", 1)
        client.publish(topics[1], b"10", 1)
        eventually(lambda: client.messages[-1].payload == b"10")
        assert len(client.messages) == count + 1


def test_filter_over_two_streams(running: ServerProcess) -> None:
    name = next(COUNTER)
    topics = [f"fast/{name}", f"kept/{name}"]
    with publishing(running, *topics) as numbers, PahoClient(running) as client:
        client.subscribe((f"$replay/-1h/+/{name}", 1))
        eventually(lambda: len(client.messages) > 350)
        count = numbers.stop()
        eventually(lambda: len(client.messages) >= count)
        for index, each in enumerate(topics):
            of_topic = [int(message.payload) for message in client.messages if message.topic == each]
            assert of_topic == list(range(index, count, 2))


@pytest.mark.skipif(
    not all(shutil.which(program) for program in ("mosquitto_sub", "stdbuf")),
    reason="mosquitto_sub and stdbuf are not both installed",
)
@pytest.mark.parametrize(
    ("version", "by_property"), [("31", False), ("311", False), ("5", False), ("5", True)], ids=str
)
def test_mosquitto_sub(running: ServerProcess, topic: str, version: str, by_property: bool) -> None:
    arguments = ["-t", f"$replay/-1h/{topic}"]
    if by_property:
        arguments = ["-t", topic, "-D", "subscribe", "user-property", "since", "-1h"]
    lines: list[str] = []
    with publishing(running, topic) as numbers:
        process = subprocess.Popen(
            # stdbuf: into a pipe mosquitto_sub would keep lines back.
            ["stdbuf", "-oL", "mosquitto_sub", "-p", str(running.mqtt_port), "-V", version, "-q", "1", *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        output = process.stdout
        reading = threading.Thread(target=lambda: lines.extend(output), daemon=True)
        reading.start()
        try:
            in_order(numbers, lambda: [int(line) for line in list(lines)])
        finally:
            process.terminate()
            process.wait(10)
            reading.join(10)
            output.close()


@pytest.mark.parametrize("protocol", [aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5], ids=["v3.1.1", "v5"])
async def test_aiomqtt(running: ServerProcess, topic: str, protocol: aiomqtt.ProtocolVersion) -> None:
    numbers = await asyncio.to_thread(Numbers, running, [topic])
    await asyncio.to_thread(numbers.publish, 300)
    numbers.start()
    received: list[int] = []
    async with aiomqtt.Client("127.0.0.1", running.mqtt_port, protocol=protocol) as client:
        await client.subscribe(f"$replay/-1h/{topic}", qos=1)
        async with asyncio.timeout(20):
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                received.append(int(message.payload))
                if len(received) == 400:
                    await asyncio.to_thread(numbers.stop)
                if len(received) >= 400 and len(received) >= numbers.sent:
                    break
    assert received == list(range(numbers.sent))


# Kept sessions


@pytest.mark.parametrize("version", [wire.V311, wire.V5], ids=["v3.1.1", "v5"])
@pytest.mark.parametrize("qos", [1, 2])
def test_kept_session_that_is_cut_gets_each_message_once(
    running: ServerProcess, topic: str, version: int, qos: int
) -> None:
    with publishing(running, topic, before=2_000, qos=2) as numbers, FaultyProxy(running.mqtt_port) as proxy:
        proxy.cut_after(20_000)
        replayer = Replayer(proxy.port, f"$replay/-1h/{topic}", qos, version, f"cut-{next(COUNTER)}")
        for round_number in range(12):
            more_than(0 if not round_number else len(replayer.seen), replayer.seen)
            if round_number % 2:
                proxy.cut(with_reset=round_number % 4 == 1)
            else:
                proxy.cut_after(3_000 + 997 * round_number)
        more_than(len(replayer.seen), replayer.seen)
        count = numbers.stop()
        eventually(lambda: len(replayer.seen) >= count, timeout_s=30)
        replayer.stop()
    assert replayer.seen == list(range(count))
    assert replayer.connections > 5
    assert replayer.surprises == []


def test_session_that_was_away_goes_on_at_its_own_place(running: ServerProcess, topic: str) -> None:
    client_id = f"away-{next(COUNTER)}"
    numbers = Numbers(running, [topic])
    numbers.publish(50)
    with RawClient(running.mqtt_port) as client:
        client.connect(client_id, clean=False, properties=KEPT)
        assert client.subscribe((f"$replay/-1h/{topic}", 1)) == [1]
        for number in range(50):
            client.expect_publish(topic, b"%d" % number)
        client.disconnect()
    numbers.publish(30)
    numbers.stop()
    with RawClient(running.mqtt_port) as client:
        assert client.connect(client_id, clean=False, properties=KEPT).session_present
        for number in range(50, 80):
            client.expect_publish(topic, b"%d" % number)
        # As most clients do, it subscribes again at each connect.
        assert client.subscribe((f"$replay/-1h/{topic}", 1)) == [1]
        client.expect_nothing()


CLIENT_TO_BE_KILLED = """
import sys
import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

port, client_id, name, is_new = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] == "new"
client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5)
client.on_message = lambda client, data, message: print(message.payload.decode(), message.dup, flush=True)
if is_new:
    client.on_connect = lambda client, *_: client.subscribe(name, 1)
properties = Properties(PacketTypes.CONNECT)
properties.SessionExpiryInterval = 600
client.connect("127.0.0.1", port, clean_start=is_new, properties=properties)
client.loop_forever()
"""


def test_client_that_is_killed_and_comes_back_misses_nothing(running: ServerProcess, topic: str) -> None:
    """What it printed before the kill may come again with DUP; nothing else does, and nothing is missing."""
    client_id = f"killed-{next(COUNTER)}"
    printed: list[tuple[int, bool]] = []

    @contextmanager
    def client(kind: str) -> Iterator[subprocess.Popen[str]]:
        name = f"$replay/-1h/{topic}"
        process = subprocess.Popen(
            [sys.executable, "-c", CLIENT_TO_BE_KILLED, str(running.mqtt_port), client_id, name, kind],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        output = process.stdout

        def read() -> None:
            for line in output:
                number, _, is_dup = line.partition(" ")
                printed.append((int(number), is_dup.strip() == "True"))

        reading = threading.Thread(target=read, daemon=True)
        reading.start()
        try:
            yield process
        finally:
            process.kill()
            process.wait(10)
            reading.join(10)
            output.close()

    with publishing(running, topic, before=3_000) as numbers:
        for kind in ("new", "again", "again"):
            with client(kind):
                more_than(len(printed) + 300, printed)
        count = numbers.stop()
        with client("again"):
            eventually(lambda: printed[-1][0] == count - 1, timeout_s=20)
    seen: list[int] = []
    for number, is_dup in printed:
        if number in seen[-3_000:]:
            assert is_dup, f"{number} came again without DUP"
        else:
            seen.append(number)
    assert seen == list(range(count))


# Flow


@pytest.mark.parametrize("qos", [0, 1])
def test_subscriber_that_reads_slowly_loses_nothing_and_holds_up_nobody(server: ServerProcess, qos: int) -> None:
    payload = b"." * 4_000
    with RawClient(server.mqtt_port) as publisher, RawClient(server.mqtt_port) as slow:
        publisher.connect("publisher")
        for number in range(8_000):  # 32 MB: far more than outbox and socket hold
            publisher.publish("slow/a", b"%d" % number + payload, 1)
            if number % 500 == 499:
                for _ in range(500):
                    publisher.expect(wire.PUBACK)
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        slow.connect("slow")
        slow.subscribe(("$replay/-1h/slow/#", qos), ("live", 1))
        publisher.publish_acknowledged("slow/a", b"8000" + payload)
        publisher.publish_acknowledged("live", b"beside")
        seen, beside = 0, 0
        while seen < 8_001:
            packet = slow.next_packet()
            if packet.topic == "live":
                beside += 1
            else:
                assert packet.payload == b"%d" % seen + payload
                seen += 1
            if packet.qos:
                slow.send(wire.acknowledgement(wire.PUBACK, packet.packet_id))
        assert beside == 1
        assert not any(
            value for name, value in metrics(server.http_url).items() if name.startswith("headrace_dropped_messages")
        )
    server.terminate()
    assert "Traceback" not in server.stderr_text


@pytest.mark.parametrize("version", [wire.V311, wire.V5], ids=["v3.1.1", "v5"])
def test_a_kept_session_gets_qos_1_and_2_in_the_order_of_the_stream(running: ServerProcess, version: int) -> None:
    topic = f"kept/{next(COUNTER)}"
    with RawClient(running.mqtt_port, version) as client:
        client.connect(f"mixed-{version}", clean=False, properties=KEPT if version == wire.V5 else None)
        for number in range(12):
            client.publish_acknowledged(topic, b"%d" % number, 2 - number % 2)
        client.subscribe((f"$replay/-1h/{topic}", 2))
        found = [client.expect(wire.PUBLISH) for _ in range(12)]
        assert [(int(packet.payload), packet.qos) for packet in found] == [
            (number, 2 - number % 2) for number in range(12)
        ]


def test_receive_maximum_of_one(running: ServerProcess, topic: str) -> None:
    with publishing(running, topic, before=40) as numbers:
        count = numbers.stop()
    with RawClient(running.mqtt_port) as client:
        client.connect(properties={wire.RECEIVE_MAXIMUM: 1})
        client.subscribe((f"$replay/-1h/{topic}", 1))
        for number in range(count):
            packet = client.expect(wire.PUBLISH)
            assert packet.payload == b"%d" % number
            client.expect_nothing()
            client.send(wire.acknowledgement(wire.PUBACK, packet.packet_id))


# What is refused, and what is told


@pytest.mark.parametrize(("version", "code"), [(wire.V311, 0x80), (wire.V5, 0x8F)], ids=["v3.1.1", "v5"])
def test_refusals(running: ServerProcess, version: int, code: int) -> None:
    with RawClient(running.mqtt_port, version) as client:
        client.connect(clean=True)
        names = ["$replay/yesterday/a", "$replay/-1h", "$share/g/$replay/-1h/a", "$replay/-1h/a"]
        assert client.subscribe(*names) == [code, code, code, 0]


@pytest.mark.parametrize(
    "since", ["-1h", "-3600s", lambda: str(time.time_ns() // 1_000_000 - 3_600_000), "2026-01-01T00:00:00Z"]
)
def test_every_way_to_say_since(running: ServerProcess, topic: str, since: Any) -> None:
    with RawClient(running.mqtt_port) as client:
        client.connect()
        client.publish_acknowledged(topic, b"old")
        client.subscribe(f"$replay/{since() if callable(since) else since}/{topic}")
        client.expect_publish(topic, b"old")
        client.unsubscribe(f"$replay/{since() if callable(since) else since}/{topic}")


def test_now_has_no_history(running: ServerProcess, topic: str) -> None:
    with RawClient(running.mqtt_port) as client:
        client.connect()
        client.publish_acknowledged(topic, b"old")
        client.subscribe((f"$replay/now/{topic}", 1))
        client.publish(topic, b"new", 0)
        assert client.expect_publish(topic).payload == b"new"


def test_gap_of_retention_is_told(tmp_path: Path) -> None:
    config = """
[[streams]]
name = "small"
topics = ["small/#"]
storage = "memory"
retention = { bytes = "256KiB" }
"""
    with ServerProcess(tmp_path / "data", config) as server, RawClient(server.mqtt_port) as publisher:
        publisher.connect()
        with RawClient(server.mqtt_port) as client:
            client.connect("kept", clean=False, properties=KEPT)
            client.subscribe(("$replay/-1h/small/#", 1))
            publisher.publish_acknowledged("small/a", b"0")
            client.expect_publish("small/a", b"0")
        for number in range(1, 600):
            publisher.publish_acknowledged("small/a", b"%d" % number + b" " * 2_000)
        with RawClient(server.mqtt_port) as client:
            client.connect("kept", clean=False, properties=KEPT)
            gap = client.expect_publish("$replay/gap")
            assert ("reason", "retention") in gap.properties[wire.USER_PROPERTY]
            first = int(client.expect_publish("small/a").payload)
            assert b'"lost":%d' % (first - 1) in gap.payload
            for number in range(first + 1, 600):
                assert int(client.expect_publish("small/a").payload) == number
