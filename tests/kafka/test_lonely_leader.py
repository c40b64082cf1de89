"""A leader whose other replicas are away has records that nobody is given: they are not sent once more for that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aiokafka.client import AIOKafkaClient

from bridge.streams.kafka.cluster import log_ends
from tests.kafka.streams import KafkaServer
from tests.support.conditions import eventually, throughout
from tests.support.kafka import KafkaBroker, KafkaCluster
from tests.support.kafka_client import blocking
from tests.support.mqtt_client import RawClient


def end_of_log(leader: KafkaBroker, topic: str) -> int:
    """Where the leader's log of partition 0 ends, shown to consumers or not."""

    async def ask() -> int:
        client = AIOKafkaClient(bootstrap_servers=leader.bootstrap_servers)
        await client.bootstrap()
        try:
            return (await log_ends(client, topic, {0: leader.node_id}))[0]
        finally:
            await client.close()

    return blocking(ask())


def publish(server: KafkaServer, numbers: Sequence[int]) -> None:
    with RawClient(server.mqtt_port) as client:
        client.connect("p")
        for number in numbers:
            client.publish_acknowledged("sensors/a", b"%d" % number)


def test_what_reached_the_leader_alone_before_a_crash_is_in_kafka_once(
    kafka_cluster: KafkaCluster, tmp_path: Path
) -> None:
    options = {"partitions": 1, "stream": ", replication = 3"}
    with KafkaServer(tmp_path / "data", kafka_cluster.bootstrap_servers, **options) as server:  # type: ignore[arg-type]
        publish(server, range(10))
        leader = kafka_cluster.leader_of(server.topic, 0)
        others = [broker for broker in kafka_cluster.brokers if broker is not leader]
        for broker in others:
            broker.kill()
        publish(server, range(10, 20))  # acknowledged from the spool; on their way to the leader too
        eventually(lambda: end_of_log(leader, server.topic) > 10, 30, "records that only the leader has")
        server.kill()
        server.start()
        before = end_of_log(leader, server.topic)
        throughout(lambda: end_of_log(leader, server.topic) == before, 4, "nothing is sent again")
        for broker in others:
            broker.start()
        eventually(lambda: server.waits_in_spool() == 0, 60, "the spool to be empty")
        rows = server.rows_in(kafka_cluster)
    assert rows == [("sensors/a", number) for number in range(20)]
