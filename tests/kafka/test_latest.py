"""Latest values of a Kafka stream over a restart of the server, and what a first start finds in a topic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from tests.kafka.streams import KafkaServer
from tests.support.conditions import eventually
from tests.support.kafka import KafkaBroker
from tests.support.kafka_client import KafkaRecord, blocking
from tests.support.mqtt_client import RawClient


def topics_of(server: KafkaServer) -> dict[str, Any]:
    answer = httpx.get(f"{server.http_url}/api/v1/topics", params={"topic": "sensors/#"}, timeout=20)
    assert answer.status_code == 200, answer.text
    return {each["topic"]: each for each in answer.json()["topics"]}


def test_latest_values_are_those_of_before_and_of_what_came_meanwhile(kafka: KafkaBroker, tmp_path: Path) -> None:
    with KafkaServer(tmp_path / "data", kafka.bootstrap_servers) as server:
        client = RawClient(server.mqtt_port)
        client.connect("p1")
        for number in range(5):
            client.publish_acknowledged("sensors/a", b"%d" % number)
        client.publish_acknowledged("sensors/b", b"1")
        client.close()
        eventually(lambda: len(topics_of(server)) == 2, 10, "both topics")
        before = topics_of(server)
        server.terminate()
        headers = (("mqtt.topic", b"sensors/b"),)
        blocking(kafka.client.produce(server.topic, [KafkaRecord(b"2", headers=headers)]))
        server.start()
        eventually(lambda: topics_of(server).get("sensors/b", {}).get("payload") == 2, 10, "what came meanwhile")
        after = topics_of(server)
        assert after["sensors/a"] | {"age_ms": 0} == before["sensors/a"] | {"age_ms": 0}
        assert after["sensors/a"]["count"] == 5


def test_first_start_on_a_topic_that_exists_shows_its_newest_values(kafka: KafkaBroker, tmp_path: Path) -> None:
    server = KafkaServer(tmp_path / "data", kafka.bootstrap_servers)
    blocking(kafka.client.create_topic(server.topic, partitions=2))
    records = [KafkaRecord(b"%d" % n, headers=(("mqtt.topic", b"sensors/%d" % (n % 3)),)) for n in range(30)]
    blocking(kafka.client.produce(server.topic, records))
    with server:
        eventually(lambda: len(topics_of(server)) == 3, 10, "all topics")
        assert len(server.history()) == 30
