"""QoS 2 through Kafka: PUBREC stands for a stored record, and a repeated publish is no second one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.kafka.streams import KafkaServer
from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually
from tests.support.faulty_proxy import FaultyProxy
from tests.support.kafka import KafkaBroker
from tests.support.mqtt_client import ConnectionEnded, RawClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

KEPT: wire.Properties = {wire.SESSION_EXPIRY: 3_600}


class Sender:
    """A device with a kept session that publishes 0, 1, 2, … at QoS 2, one at a time, and repeats what it must."""

    def __init__(self, port: Callable[[], int]) -> None:
        self.port = port
        self.connections = 0
        self.repeats = 0
        self._client: RawClient | None = None

    def send(self, number: int) -> None:
        """A whole exchange, over as many connections as it takes."""
        packet_id = number % 65_535 + 1
        is_received = is_repeat = False
        while True:
            try:
                client = self._client or self._connect()
                if not is_received:
                    self.repeats += is_repeat
                    client.publish("sensors/a", b"%d" % number, 2, packet_id=packet_id, dup=is_repeat)
                    is_repeat = True
                    self._take(client, wire.PUBREC, packet_id)
                    is_received = True
                client.send(wire.acknowledgement(wire.PUBREL, packet_id))
                self._take(client, wire.PUBCOMP, packet_id)
                return
            except (ConnectionEnded, OSError):
                self.close()

    @staticmethod
    def _take(client: RawClient, packet_type: int, packet_id: int) -> None:
        packet = client.next_packet(60)
        if packet.packet_type == wire.DISCONNECT:
            raise ConnectionEnded("the server stops")
        assert (packet.packet_type, packet.packet_id) == (packet_type, packet_id), packet
        # A PUBREL that comes again finds nothing any more, which is no error (MQTT 5 §3.7.2.1).
        assert packet.reason_code in ((0,) if packet_type == wire.PUBCOMP else (0, 0x10)), packet

    def _connect(self) -> RawClient:
        client = RawClient(self.port(), wire.V5)
        try:
            client.connect("sender", clean=False, properties=KEPT)
        except BaseException:
            client.close()
            raise
        self.connections += 1
        self._client = client
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lose the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()


def test_each_publish_is_one_record_however_often_connections_are_cut(kafka: KafkaBroker, tmp_path: Path) -> None:
    with (
        KafkaServer(tmp_path / "data", kafka.bootstrap_servers, partitions=1) as server,
        FaultyProxy(server.mqtt_port) as proxy,
        Sender(lambda: proxy.port) as sender,
    ):
        for number in range(300):
            if number % 6 == 0:
                proxy.cut_after(10 + number % 40)  # behind CONNACK, in or behind a PUBREC, in or behind a PUBCOMP
            elif number % 6 == 3:
                proxy.cut_after_to_target(30 + number % 80)
            sender.send(number)
        assert server.rows_in(kafka) == [("sensors/a", number) for number in range(300)]
        assert sender.connections > 30
        assert sender.repeats > 10


def test_pubrec_waits_for_the_commit_and_is_given_from_the_spool(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    settings = "spool_after_s = 3"
    with (
        KafkaServer(tmp_path / "data", kafka_broker.proxied_bootstrap_servers, partitions=1, kafka=settings) as server,
        RawClient(server.mqtt_port, wire.V5) as device,
    ):
        device.connect("device", clean=False, properties=KEPT)
        device.publish_acknowledged("sensors/a", b"0", 2)
        kafka_broker.proxy.black_hole()
        packet_id = device.publish("sensors/a", b"1", 2)
        with pytest.raises(TimeoutError):
            device.next_packet(1.5)
        assert server.describe()["spool"]["records"] == 0
        found = device.next_packet(20)
        assert (found.packet_type, found.packet_id) == (wire.PUBREC, packet_id)
        assert server.waits_in_spool() == 1
        # Repeated while it is spooled, and over a crash: it is the same record.
        server.kill()
        server.start()
        kafka_broker.proxy.black_hole(False)
        with RawClient(server.mqtt_port, wire.V5) as again:
            again.connect("device", clean=False, properties=KEPT)
            again.publish("sensors/a", b"1", 2, packet_id=packet_id, dup=True)
            assert again.expect(wire.PUBREC).packet_id == packet_id
            again.send(wire.acknowledgement(wire.PUBREL, packet_id))
            assert again.expect(wire.PUBCOMP).packet_id == packet_id
            again.publish_acknowledged("sensors/a", b"2", 2)
        eventually(lambda: server.waits_in_spool() == 0, 30, "the spool to be empty")
        assert server.rows_in(kafka_broker) == [("sensors/a", number) for number in range(3)]


@pytest.mark.parametrize("is_killed", [True, False])
def test_packet_ids_are_kept_over_a_restart(kafka: KafkaBroker, tmp_path: Path, is_killed: bool) -> None:
    """A PUBREC was given: what comes with its id again is a repeat until PUBREL, and a new message behind it."""
    with KafkaServer(tmp_path / "data", kafka.bootstrap_servers, partitions=1) as server:
        with RawClient(server.mqtt_port, wire.V5) as device:
            device.connect("device", clean=False, properties=KEPT)
            for packet_id in range(1, 21):
                device.publish("sensors/a", b"%d" % packet_id, 2, packet_id=packet_id)
                assert device.expect(wire.PUBREC).packet_id == packet_id
            if is_killed:
                server.kill()
            else:
                server.terminate()
        server.start()
        with RawClient(server.mqtt_port, wire.V5) as device:
            device.connect("device", clean=False, properties=KEPT)
            for packet_id in range(1, 21):
                device.publish("sensors/a", b"%d" % packet_id, 2, packet_id=packet_id, dup=True)
                assert device.expect(wire.PUBREC).packet_id == packet_id
                device.send(wire.acknowledgement(wire.PUBREL, packet_id))
                assert device.expect(wire.PUBCOMP).packet_id == packet_id
            device.publish("sensors/a", b"21", 2, packet_id=1)
            assert device.expect(wire.PUBREC).packet_id == 1
        assert server.rows_in(kafka) == [("sensors/a", number) for number in range(1, 22)]


def test_each_publish_is_one_record_over_an_outage(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    with (
        KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers, partitions=1) as server,
        Sender(lambda: server.mqtt_port) as sender,
    ):
        for number in range(600):
            if number == 100:
                kafka_broker.kill()
            if number % 70 == 0:
                sender.close()
            sender.send(number)
            if number == 400:
                kafka_broker.start()
        eventually(lambda: server.waits_in_spool() == 0, 30, "the spool to be empty")
        assert server.rows_in(kafka_broker) == [("sensors/a", number) for number in range(600)]
