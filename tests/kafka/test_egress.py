"""[[egress]] from a stream on Kafka: every partition, and the spool while Kafka is away, go to a real mosquitto."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.test_egress import Collector, egress, figure
from tests.kafka.streams import KafkaServer
from tests.support.conditions import eventually
from tests.support.kafka import KafkaBroker
from tests.support.mosquitto import MOSQUITTO, MosquittoProcess
from tests.support.mqtt_client import RawClient

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not Path(MOSQUITTO).exists(), reason="mosquitto is not installed"),
]

TOPICS = 7


def publish(client: RawClient, first: int, count: int) -> None:
    """Numbers, over topics in turn."""
    for number in range(first, first + count):
        client.publish_acknowledged(f"sensors/{number % TOPICS}", b"%d" % number)


def test_records_go_out_once_while_kafka_is_there_away_and_back(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    """Each topic in order, whatever partition it is in; and the place ends where Kafka ends."""
    with MosquittoProcess(tmp_path / "m") as mosquitto:
        table = egress(mosquitto.port, "qos = 2", topics="sensors/#")
        with (
            KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers, partitions=3, more=table) as server,
            Collector(mosquitto) as collector,
            RawClient(server.mqtt_port) as device,
        ):
            device.connect()
            publish(device, 0, 300)
            collector.until_there_are(300)
            kafka_broker.kill()
            publish(device, 300, 300)
            collector.until_there_are(600)
            kafka_broker.start()
            eventually(lambda: "directly again" in server.stderr_text, 60, "the spool to be empty")
            publish(device, 600, 300)
            collector.until_there_are(900)
            collector.settle()
            eventually(lambda: figure(server, "messages_total") == 900)
            eventually(lambda: figure(server, "behind") == 0)
            for topic in range(TOPICS):
                found = [int(each.payload) for each in collector.packets if each.topic == f"sensors/{topic}"]
                assert found == list(range(topic, 900, TOPICS))
            assert figure(server, "gaps_total") == 0
            assert "Traceback" not in server.stderr_text
