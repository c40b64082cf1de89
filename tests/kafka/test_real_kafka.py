"""The Kafka of the tests is what it claims to be: real, breakable, and gone afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiokafka.errors import KafkaConnectionError

from scripts.kafka.distribution import KafkaDistribution
from scripts.kafka.metadata import fetch_metadata
from tests.support.conditions import eventually
from tests.support.kafka import KafkaBroker, KafkaCluster
from tests.support.kafka_client import KafkaAdminError, KafkaClient, KafkaRecord, blocking, unique_topic
from tests.support.small_disk import SmallDisk, fill


async def test_what_is_produced_is_read_with_key_headers_and_timestamp(kafka: KafkaBroker) -> None:
    topic = await kafka.client.create_topic(partitions=3)
    written = await kafka.client.produce(
        topic,
        [
            KafkaRecord(b"1", key=b"k", headers=(("a", b"x"), ("b", b"")), timestamp_ms=1_790_000_000_123, partition=2),
            KafkaRecord(None, key=b"k", partition=2),
            KafkaRecord(b"3", partition=0),
        ],
    )
    read = await kafka.client.read_all(topic)
    assert read == sorted(written, key=lambda record: (record.partition, record.offset))
    assert read[1].header == {"a": b"x", "b": b""}
    assert read[1].timestamp_ms == 1_790_000_000_123
    assert await kafka.client.end_offsets(topic) == {0: 1, 1: 0, 2: 2}


async def test_a_topic_made_anew_has_another_id(kafka: KafkaBroker) -> None:
    topic = await kafka.client.create_topic(partitions=2)
    first = kafka.topic_id(topic)
    assert kafka.partition_count(topic) == 2
    await kafka.client.add_partitions(topic, 5)
    assert kafka.partition_count(topic) == 5
    await kafka.client.delete_topic(topic)
    await kafka.client.create_topic(topic)
    assert kafka.topic_id(topic) != first
    with pytest.raises(KafkaAdminError):
        await kafka.client.create_topic(topic)


@pytest.mark.slow
def test_kafkas_own_tools_read_and_write(kafka: KafkaBroker) -> None:
    topic = blocking(kafka.client.create_topic())
    blocking(kafka.client.produce(topic, [b"from Python"]))
    kafka.run_tool("console-producer", "--topic", topic, stdin_text="from Java\n")
    read = kafka.run_tool("console-consumer", "--topic", topic, "--from-beginning", "--max-messages", "2")
    assert read.splitlines() == ["from Python", "from Java"]
    assert kafka.run_tool("get-offsets", "--topic", topic).strip() == f"{topic}:0:2"


@pytest.mark.slow
def test_records_survive_a_kill(kafka_broker: KafkaBroker) -> None:
    topic = blocking(kafka_broker.client.create_topic())
    written = blocking(kafka_broker.client.produce(topic, [b"%d" % n for n in range(100)]))
    first_pid = kafka_broker.pid
    kafka_broker.kill()
    assert not kafka_broker.is_running
    kafka_broker.start()
    assert kafka_broker.pid != first_pid
    assert blocking(kafka_broker.client.read_all(topic)) == written


def test_a_paused_broker_is_silent_until_it_is_resumed(kafka_broker: KafkaBroker) -> None:
    kafka_broker.pause()
    with pytest.raises(TimeoutError):
        fetch_metadata("127.0.0.1", kafka_broker.port, timeout_s=0.3)
    kafka_broker.resume()
    kafka_broker.cluster.wait_until_ready()
    assert len(fetch_metadata("127.0.0.1", kafka_broker.port).brokers) == 1


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_three_brokers_lose_their_leader_and_no_record(kafka_cluster: KafkaCluster) -> None:
    topic = blocking(kafka_cluster.client.create_topic(unique_topic()))
    written = blocking(kafka_cluster.client.produce(topic, [b"before"]))
    leader = kafka_cluster.leader_of(topic)
    leader.kill()
    assert kafka_cluster.leader_of(topic) is not leader
    written += blocking(kafka_cluster.client.produce(topic, [b"after"]))
    assert blocking(kafka_cluster.client.read_all(topic)) == written
    leader.start()
    kafka_cluster.wait_until_ready(3)


async def test_a_proxy_cuts_a_batch_in_its_middle(kafka_broker: KafkaBroker) -> None:
    topic = await kafka_broker.client.create_topic()
    proxy = kafka_broker.proxy
    proxy.cut_after_to_target(100_000)
    through_proxy = KafkaClient(kafka_broker.proxied_bootstrap_servers)
    values = [b"%03d" % n + bytes(9_000) for n in range(50)]
    await through_proxy.produce(topic, values)
    assert proxy.cuts_total == 1
    assert [record.value for record in await kafka_broker.client.read_all(topic)] == values


def test_a_broker_that_is_down_is_an_error_at_once(kafka_broker: KafkaBroker) -> None:
    kafka_broker.kill()
    with pytest.raises(KafkaConnectionError):
        blocking(kafka_broker.client.produce("topic", [b"lost"]))
    with pytest.raises(KafkaConnectionError):
        blocking(kafka_broker.client.read_all("topic"))
    with pytest.raises(KafkaConnectionError):
        blocking(kafka_broker.client.create_topic())


@pytest.mark.slow
def test_a_broker_with_a_full_disk_ends_and_serves_again_when_there_is_room(
    kafka_distribution: KafkaDistribution, tmp_path: Path
) -> None:
    with (
        SmallDisk(tmp_path / "small", "40m") as disk,
        KafkaCluster(tmp_path, options={"log.dirs": f"{disk.path}/{{node_id}}"}) as cluster,
    ):
        (broker,) = cluster.brokers
        topic = blocking(broker.client.create_topic())
        written = blocking(broker.client.produce(topic, [bytes(1_000)] * 100))
        fill(disk.path / "filler")
        with pytest.raises(TimeoutError):
            blocking(broker.client.produce(topic, [bytes(100_000)] * 100, timeout_s=3))
        eventually(lambda: not broker.is_running)
        assert "all log dirs" in broker.log_text

        (disk.path / "filler").unlink()
        broker.start()
        assert blocking(broker.client.read_all(topic))[: len(written)] == written
