"""A restored data directory beside a Kafka that has gone on: nothing is sent to Kafka a second time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kafka.streams import KafkaServer
from tests.support.commands import headrace
from tests.support.conditions import eventually
from tests.support.http_client import SseReader
from tests.support.kafka import KafkaBroker
from tests.support.mqtt_client import RawClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def publish(server: KafkaServer, first: int, count: int) -> None:
    with RawClient(server.mqtt_port) as client:
        client.connect()
        for number in range(first, first + count):
            client.publish_acknowledged("sensors/a", b"%d" % number)


def test_what_the_spool_held_at_the_backup_and_was_moved_since_is_found_in_kafka(
    kafka_broker: KafkaBroker, tmp_path: Path
) -> None:
    with KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers) as server:
        with SseReader(server.http_url, [("topic", "sensors/#")]) as reader:
            publish(server, 0, 10)
            kafka_broker.kill()
            publish(server, 10, 10)
            assert server.waits_in_spool() == 10
            assert headrace("backup", tmp_path / "copy", "--data", server.data_directory).returncode == 0
            kafka_broker.start()
            eventually(lambda: server.waits_in_spool() == 0, 30, "the spool to be empty")
            publish(server, 20, 5)
            eventually(lambda: len(reader.messages) == 25, 30, reader)
            server.terminate()
            ended = headrace("restore", tmp_path / "copy", "--data", server.data_directory, "--force")
            assert ended.returncode == 0, ended.stderr
            seen = len(reader.events)
            server.start()
            eventually(lambda: server.waits_in_spool() == 0, 30, "the spool to be empty again")
            publish(server, 25, 1)
            eventually(lambda: any(each["payload"] == 25 for each in reader.messages), 30, reader)
            gaps = [event.json["reason"] for event in reader.events[seen:] if event.name == "gap"]
        assert gaps == ["epoch"], "the spool has begun anew"
        assert sorted(number for _, number in server.rows_in(kafka_broker)) == list(range(26))
        assert sorted(record["payload"] for record in server.history()) == list(range(26))
