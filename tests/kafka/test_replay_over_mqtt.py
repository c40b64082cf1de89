"""Replay over MQTT from a stream on Kafka: partitions, its spool, and a broker that goes away."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kafka.streams import KafkaServer
from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually
from tests.support.faulty_proxy import FaultyProxy
from tests.support.kafka import KafkaBroker
from tests.support.mqtt_client import RawClient
from tests.support.replayer import Replayer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

TOPICS = [f"sensors/{number}" for number in range(7)]


def publish(client: RawClient, first: int, count: int) -> None:
    """Numbers, over topics in turn."""
    for number in range(first, first + count):
        client.publish_acknowledged(TOPICS[number % len(TOPICS)], b"%d" % number)


def check(replayer: Replayer, count: int) -> None:
    """Each number once, those of a topic in order."""
    assert sorted(replayer.seen) == list(range(count))
    for index, topic in enumerate(TOPICS):
        of_topic = [number for number, each in zip(replayer.seen, replayer.topics, strict=True) if each == topic]
        assert of_topic == list(range(index, count, len(TOPICS)))
    assert replayer.surprises == []


@pytest.mark.parametrize("qos", [1, 2])
def test_kept_session_that_is_cut_gets_each_message_of_all_partitions_once(
    kafka: KafkaBroker, tmp_path: Path, qos: int
) -> None:
    with (
        KafkaServer(tmp_path / "data", kafka.bootstrap_servers, partitions=3) as server,
        FaultyProxy(server.mqtt_port) as proxy,
        RawClient(server.mqtt_port) as publisher,
    ):
        publisher.connect()
        publish(publisher, 0, 300)
        proxy.cut_after(5_000)
        replayer = Replayer(proxy.port, "$replay/-1h/sensors/#", qos, wire.V5, "replayer")
        for first in range(300, 1_300, 100):
            before = replayer.connections
            publish(publisher, first, 100)
            proxy.cut(with_reset=first % 200 == 0)
            eventually(lambda before=before: replayer.connections > before)
        eventually(lambda: len(replayer.seen) >= 1_300, 30, "all of it")
        replayer.stop()
        check(replayer, 1_300)
        assert replayer.connections > 5
        assert "Traceback" not in server.stderr_text


def test_replay_goes_on_while_kafka_is_away_and_when_it_is_back(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    with (
        KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers, partitions=3) as server,
        RawClient(server.mqtt_port) as publisher,
    ):
        publisher.connect()
        publish(publisher, 0, 300)
        replayer = Replayer(server.mqtt_port, "$replay/-1h/sensors/#", 1, wire.V5, "replayer")
        eventually(lambda: len(replayer.seen) >= 300, 20, "history")
        kafka_broker.kill()
        publish(publisher, 300, 300)
        eventually(lambda: len(replayer.seen) >= 600, 30, "what was spooled")
        kafka_broker.start()
        eventually(lambda: "directly again" in server.stderr_text, 60, "the spool to be empty")
        publish(publisher, 600, 300)
        eventually(lambda: len(replayer.seen) >= 900, 30, "what came after")
        replayer.stop()
        check(replayer, 900)
        late = Replayer(server.mqtt_port, "$replay/-1h/sensors/#", 1, wire.V5, "late")
        eventually(lambda: len(late.seen) >= 900, 30, "all of it, for another one")
        late.stop()
        check(late, 900)
        assert "Traceback" not in server.stderr_text
