"""Kafka refuses a batch for some record in it: that one becomes a dead letter, those beside it are stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kafka.streams import KafkaServer
from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually, throughout
from tests.support.http_client import records
from tests.support.kafka import KafkaBroker
from tests.support.kafka_client import blocking
from tests.support.mqtt_client import RawClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def publish_together(server: KafkaServer, payloads: list[bytes]) -> None:
    """In one write, and until each is acknowledged."""
    with RawClient(server.mqtt_port) as device:
        device.connect("device")
        packets = [
            wire.publish("sensors/a", payload, 1, number, version=device.version)
            for number, payload in enumerate(payloads, 1)
        ]
        device.send(b"".join(packets))
        acknowledged = {device.expect(wire.PUBACK).packet_id for _ in payloads}
    assert acknowledged == set(range(1, len(payloads) + 1))


def dead_letters(server: KafkaServer) -> int:
    count: int = server.describe()["dead_letters"]["records"]
    return count


def test_a_record_that_is_too_large_among_others(kafka: KafkaBroker, tmp_path: Path) -> None:
    topic = blocking(kafka.client.create_topic(config={"max.message.bytes": "3000"}))
    payloads = [b"x" * 5_000 if number in (0, 6) else b"%d" % number for number in range(20)]
    with KafkaServer(tmp_path / "data", kafka.bootstrap_servers, topic=topic, partitions=1) as server:
        eventually(lambda: server.describe()["kafka"]["state"] == "up", 20, "the topic")
        publish_together(server, payloads)
        wanted = [number for number in range(20) if number not in (0, 6)]
        assert [number for _, number in server.rows_in(kafka)] == wanted
        assert [record["payload"] for record in server.history()] == wanted
        assert (dead_letters(server), server.waits_in_spool()) == (2, 0)


def test_many_records_that_are_too_large_together(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Batches become smaller until Kafka takes them, and stay so."""
    topic = blocking(kafka.client.create_topic(config={"max.message.bytes": "30000"}))
    with KafkaServer(tmp_path / "data", kafka.bootstrap_servers, topic=topic, partitions=1) as server:
        eventually(lambda: server.describe()["kafka"]["state"] == "up", 20, "the topic")
        publish_together(server, [b"%d" % (1_000 * 10**400 + number) for number in range(400)])
        numbers = [int(record.value or b"") % 10**400 for record in blocking(kafka.client.read_all(topic))]
        assert numbers == list(range(400))
        assert (dead_letters(server), server.waits_in_spool()) == (0, 0)
        assert len(records(server.http_url, "telemetry")) == 400


def test_records_that_are_too_old_among_others(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    topic = blocking(kafka_broker.client.create_topic(config={"message.timestamp.before.max.ms": "5000"}))
    with KafkaServer(
        tmp_path / "data", kafka_broker.bootstrap_servers, topic=topic, partitions=1, kafka="spool_after_s = 1"
    ) as server:
        eventually(lambda: server.describe()["kafka"]["state"] == "up", 20, "the topic")
        kafka_broker.pause()
        publish_together(server, [b"0"])  # a batch of its own, under way until Kafka answers
        publish_together(server, [b"%d" % number for number in range(1, 7)])
        throughout(lambda: server.is_running, 6.0, "the server")
        publish_together(server, [b"%d" % number for number in range(7, 20)])
        kafka_broker.resume()
        eventually(lambda: server.waits_in_spool() == 0, 30, "the spool to be empty")
        assert [number for _, number in server.rows_in(kafka_broker)] == list(range(7, 20))
        assert dead_letters(server) == 7
