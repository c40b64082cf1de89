"""[[egress]] to a real mosquitto: what goes out, over outages and kills of either side, and that nothing circles."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import pytest

from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually
from tests.support.faulty_proxy import FaultyProxy
from tests.support.http_client import metrics, records
from tests.support.mosquitto import MOSQUITTO, MosquittoProcess, free_port
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess

pytestmark = pytest.mark.skipif(not Path(MOSQUITTO).exists(), reason="mosquitto is not installed")


def egress(port: int, *lines: str, name: str = "cloud", topics: str = "out/#", kind: str = "egress") -> str:
    """The table for a mosquitto on loopback."""
    return "\n".join(
        [
            f"[[{kind}]]",
            f'name = "{name}"',
            f'broker = "mqtt://127.0.0.1:{port}"',
            f'topics = ["{topics}"]',
            "reconnect_s_max = 0.3",
            *lines,
            "",
        ]
    )


def figure(server: ServerProcess, name: str, of: str = "cloud", kind: str = "egress") -> float | None:
    return metrics(server.http_url).get(f'headrace_{kind}_{name}{{name="{of}"}}')


def publish(server: ServerProcess, numbers: Sequence[int], topic: str = "out/n") -> None:
    """All acknowledged by Headrace."""
    with RawClient(server.mqtt_port, wire.V311) as client:  # which has no Receive Maximum
        client.connect("d")
        for number in numbers:
            client.publish(topic, b"%d" % number, 1, packet_id=number + 1)
        for number in numbers:
            assert client.expect(wire.PUBACK).packet_id == number + 1


class Collector:
    """A kept session at mosquitto that takes what comes, and acknowledges it."""

    def __init__(self, mosquitto: MosquittoProcess, topic_filter: str = "#") -> None:
        self.packets: list[wire.Packet] = []
        self._client = RawClient(mosquitto.port)
        connack = self._client.connect("collector", clean=False, properties={wire.SESSION_EXPIRY: 3_600})
        if not connack.session_present:
            self._client.subscribe((topic_filter, 1))

    def until(self, number: int) -> None:
        """Take until the payload `number` has come."""
        while not self.packets or self.packets[-1].payload != b"%d" % number:
            self._take()

    def until_there_are(self, count: int) -> None:
        """Take until so many have come."""
        while len(self.packets) < count:
            self._take()

    def _take(self) -> None:
        packet = self._client.expect(wire.PUBLISH)
        if packet.qos:
            self._client.send(wire.acknowledgement(wire.PUBACK, packet.packet_id))
        self.packets.append(packet)

    def settle(self) -> None:
        """Wait until mosquitto has every acknowledgement; nothing more may be on its way."""
        self._client.ping()

    @property
    def numbers(self) -> list[int]:
        return [int(packet.payload) for packet in self.packets]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.__exit__(kind, error, traceback)


def test_records_go_out_in_order_as_configured(tmp_path: Path) -> None:
    """Topic, RETAIN, properties, QoS raised to 1; what does not match stays here."""
    with MosquittoProcess(tmp_path / "m") as mosquitto:
        table = egress(mosquitto.port, 'remove_prefix = "out/"', 'prefix = "site/"')
        with (
            ServerProcess(tmp_path / "data", table) as server,
            RawClient(server.mqtt_port) as device,
            Collector(mosquitto, "site/#") as collector,
        ):
            device.connect("d")
            device.publish("out/a", b"1")
            device.publish("elsewhere", b"0")
            properties: wire.Properties = {wire.CONTENT_TYPE: "text/plain", wire.USER_PROPERTY: [("k", "v")]}
            device.publish("out/b", b"2", 1, properties=properties, retain=True)
            device.expect(wire.PUBACK)
            device.publish_acknowledged("out/c", b"3", 2)
            collector.until(3)
            assert [(each.topic, each.payload, each.qos) for each in collector.packets] == [
                ("site/a", b"1", 1),
                ("site/b", b"2", 1),
                ("site/c", b"3", 1),
            ]
            assert collector.packets[1].properties == properties
            with RawClient(mosquitto.port) as late:
                late.connect("late")
                late.subscribe("site/#")
                assert late.expect(wire.PUBLISH).payload == b"2"
            eventually(lambda: figure(server, "messages_total") == 3)
            assert figure(server, "in_flight") == 0
            eventually(lambda: figure(server, "behind") == 0, what="the place moves past what does not match")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_an_outage_of_the_other_broker_and_kills_of_both_lose_nothing(tmp_path: Path) -> None:
    """In order, each at least once, and again only what was on its way."""
    with (
        MosquittoProcess(tmp_path / "m") as mosquitto,
        ServerProcess(tmp_path / "data", egress(mosquitto.port, "inflight_max = 20")) as server,
    ):
        with Collector(mosquitto) as collector:
            publish(server, range(100))
            collector.until(99)

        mosquitto.stop()
        publish(server, range(100, 400))
        server.kill()  # while the other is away
        server.start()
        mosquitto.start()
        with Collector(mosquitto) as collector:
            collector.until(399)
            assert set(range(100, 400)) <= set(
                collector.numbers
            )  # and again what was acknowledged just before the kill
            mosquitto.pause()
            publish(server, range(400, 3_000))
            eventually(lambda: figure(server, "in_flight") == 20)
            server.kill()  # in mid-flow
            mosquitto.resume()
            server.start()
            publish(server, [3_000])
            collector.until(3_000)
            assert set(range(100, 3_001)) <= set(collector.numbers)
            for before, after in itertools.pairwise(collector.numbers):
                assert after == before + 1 or after <= before, "a number was left out, and came later"


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_qos_2_arrives_once_whatever_the_network_does(tmp_path: Path, version: str) -> None:
    """Over cuts anywhere in the exchanges, and over a restart of the other broker, which keeps the session."""
    with (
        MosquittoProcess(tmp_path / "m") as mosquitto,
        FaultyProxy(mosquitto.port) as proxy,
        ServerProcess(
            tmp_path / "data", egress(proxy.port, "qos = 2", "inflight_max = 15", f'version = "{version}"')
        ) as server,
    ):
        eventually(lambda: figure(server, "connected") == 1)
        with Collector(mosquitto) as collector:
            for start in range(0, 1_500, 100):
                if start % 200:
                    proxy.cut_after(start % 37 + 1)
                else:
                    proxy.cut_after_to_target(start % 53 + 1)
                publish(server, range(start, start + 100))
                eventually(lambda: proxy.cuts_total == start // 100 + 1)  # noqa: B023
            collector.until(1_499)
            collector.settle()
        proxy.cut_after_to_target(200)
        mosquitto.stop()
        publish(server, range(1_500, 1_700))
        mosquitto.start()
        with Collector(mosquitto) as collector_again:
            collector_again.until(1_699)
        assert collector.numbers + collector_again.numbers == list(range(1_700))
        eventually(lambda: figure(server, "messages_total") == 1_700)
        eventually(lambda: figure(server, "behind") == 0)
        assert figure(server, "in_flight") == 0


@pytest.mark.slow
def test_the_first_start_begins_where_it_is_told(tmp_path: Path) -> None:
    """Now, or with history; and the place that a first start has is kept though the other broker was away."""
    port = free_port()
    with ServerProcess(tmp_path / "data") as server:
        publish(server, [1, 2])
        server.terminate()
        server.config = egress(port, name="now") + egress(port, 'since = "-1h"', 'prefix = "all/"', name="all")
        server.start()
        publish(server, [3])
        server.kill()
        server.start()
        with MosquittoProcess(tmp_path / "m", port=port):
            eventually(lambda: figure(server, "messages_total", "now") == 1)
            eventually(lambda: figure(server, "messages_total", "all") == 3)
        server.terminate()


def test_nothing_circles_between_an_ingest_and_an_egress_of_one_broker(tmp_path: Path) -> None:
    """What came from there is not sent back, and what we sent does not come back as a new record."""
    with MosquittoProcess(tmp_path / "m") as mosquitto:
        tables = egress(mosquitto.port, kind="ingest", name="in", topics="#") + egress(mosquitto.port, topics="#")
        with (
            ServerProcess(tmp_path / "data", tables) as server,
            RawClient(mosquitto.port) as there,
            Collector(mosquitto) as collector,
        ):
            eventually(lambda: mosquitto.log_text.count("Sending SUBACK to headrace") == 1)
            eventually(lambda: figure(server, "connected") == 1)
            there.connect("there")
            there.publish_acknowledged("x", b"1")
            eventually(lambda: len(records(server.http_url)) == 1)
            publish(server, [2], "x")
            collector.until(2)
            eventually(lambda: metrics(server.http_url).get('headrace_ingest_dropped_total{name="in",reason="own"}'))
            there.publish_acknowledged("x", b"3")
            eventually(lambda: len(records(server.http_url)) == 3)
            collector.until(3)
            assert collector.numbers == [1, 2, 3]
            assert [(each["payload"], each["client_id"] == "$ingest/in") for each in records(server.http_url)] == [
                (1, True),
                (2, False),
                (3, True),
            ]
            assert figure(server, "messages_total") == 1


def test_records_that_are_gone_are_counted(tmp_path: Path) -> None:
    """The other broker was away for longer than the stream keeps anything."""
    port = free_port()
    streams = '[[streams]]\nname = "short"\ntopics = ["out/#"]\nretention = { bytes = "4KiB" }\n'
    with ServerProcess(tmp_path / "data", streams + egress(port)) as server:
        for start in (0, 1_500):  # a row is dropped whole, and the newest is kept
            publish(server, range(start, start + 1_500))

        def first_offset() -> int:
            partitions = server_stream(server, "short")["partitions"]
            return int(partitions[0]["first_offset"])

        eventually(lambda: first_offset() > 0)
        with MosquittoProcess(tmp_path / "m", port=port):
            eventually(lambda: (figure(server, "messages_total") or 0) > 0)
            eventually(lambda: figure(server, "behind") == 0)
            assert figure(server, "gaps_total") == 1
            sent, lost = figure(server, "messages_total"), figure(server, "lost_total")
            assert sent is not None
            assert lost is not None
            assert sent + lost == 3_000
            assert "records were gone before they were sent" in server.stderr_text


def server_stream(server: ServerProcess, name: str) -> dict[str, list[dict[str, int]]]:
    found: dict[str, list[dict[str, int]]] = httpx.get(f"{server.http_url}/api/v1/streams/{name}").json()
    return found
