"""Kafka goes away under load: nothing acknowledged is lost, nothing comes twice, readers see no hole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kafka.streams import KafkaServer
from tests.support.conditions import eventually
from tests.support.flow import Flow, rows_of_events
from tests.support.http_client import SseReader
from tests.support.kafka import KafkaBroker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_the_only_broker_is_killed_and_comes_back(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    with KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers) as server:
        with (
            SseReader(server.http_url, [("topic", "sensors/#")]) as reader,
            Flow(server, "sensors/a") as flow,
        ):
            eventually(lambda: flow.count > 1_000, 20, "records in Kafka")
            kafka_broker.kill()
            before = flow.count
            eventually(lambda: flow.count > before + 3_000, 30, "acknowledgements while Kafka is away")
            kafka_broker.start()
            before = flow.count
            eventually(lambda: flow.count > before + 2_000, 30, "acknowledgements after that")
            eventually(lambda: "directly again" in server.stderr_text, 30, "the spool to be empty")
            flow.stop()
            eventually(lambda: len(reader.messages) >= flow.count, 20, f"all events: {reader}")
        assert flow.faults(rows_of_events(reader.messages), "live") == []
        assert [event.json for event in reader.events if event.name == "gap"] == []
        assert flow.faults(server.rows_in(kafka_broker), "Kafka") == []
        assert "Traceback" not in server.stderr_text
        assert flow.breaks == 0
