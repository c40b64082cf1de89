"""What the Kafka scenarios set up, as far as it can be seen without a Kafka."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.config_source import load_config
from bridge.records import RecordRun, Topic
from bridge.streams.kafka.headers import headers_of
from broker.codec.encode import encode_publish
from broker.codec.packets import Publish
from devices.bench import plain_kafka
from devices.bench.kafka import KafkaTopic
from devices.bench.kafka_broker import GivenBroker, OwnBroker, kafka_running
from devices.bench.peers import STREAM
from devices.bench.programs import Ports
from devices.bench.wire import PeerFailed


def test_a_run_has_a_topic_of_its_own_and_a_stream_in_it(tmp_path: Path) -> None:
    topic = KafkaTopic("127.0.0.1:9", 12)
    topic.peer().command(tmp_path, Ports(1, 2), "")
    config = load_config(tmp_path / "headrace.toml", {})
    stream = next(each for each in config.streams if each.name == STREAM)
    assert (stream.storage, stream.kafka.topic, stream.kafka.partitions) == ("kafka", topic.name, 12)
    assert list(config.kafka.bootstrap_servers) == ["127.0.0.1:9"]
    assert topic.name != KafkaTopic("127.0.0.1:9", 12).name


def test_plain_records_have_the_headers_that_ours_have() -> None:
    name, payload, time_ms = "bench/dev/000003", b"x" * 20, 1_795_374_000_123
    frame = encode_publish(Publish(name, payload, 1, packet_id=1), 4)
    run = RecordRun(
        frame,
        0,
        [Topic(name)],
        [len(frame) - len(payload)],
        [len(frame)],
        base_offset=0,
        first_number=1,
        node_run="plain",
        received_at_ms=time_ms,
        client_id="bench-publisher-3",
        is_v5=False,
    )
    assert plain_kafka.headers_of(name.encode(), b"bench-publisher-3", 53, time_ms) == headers_of(
        run, 0, name.encode(), "plain", 53
    )


def test_somebodys_kafka_is_not_stopped() -> None:
    with kafka_running("kafka.example:9092") as broker:
        assert broker.bootstrap == "kafka.example:9092"
        assert not broker.can_be_stopped
        for act in (broker.stop, broker.start):
            with pytest.raises(PeerFailed, match="not the bench's own"):
                act()


@pytest.mark.parametrize("kind", [GivenBroker, OwnBroker])
def test_only_an_own_broker_may_be_stopped(kind: type[GivenBroker | OwnBroker]) -> None:
    assert kind.can_be_stopped is (kind is OwnBroker)


def test_a_command_that_fails_says_what_plain_aiokafka_said() -> None:
    with pytest.raises(PeerFailed, match=r"plain aiokafka: nothing: (?s:.*)KeyError"):
        plain_kafka.run_plain("nothing", 30)


def test_every_command_takes_the_address_and_the_topic() -> None:
    for command in plain_kafka.COMMANDS.values():
        assert_takes(command, "bootstrap", "topic")


def assert_takes(command: Callable[..., object], *names: str) -> None:
    assert set(names) <= set(command.__annotations__)
