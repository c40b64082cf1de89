"""Topics as they are made, and as they are found: what differs from the configuration is said and left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.kafka.streams import KafkaServer
from tests.support.conditions import eventually
from tests.support.kafka import KafkaBroker, KafkaCluster
from tests.support.kafka_client import blocking
from tests.support.mqtt_client import RawClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

DAY_MS = 86_400_000
WEEK = ', replication = 1 }\nretention = { age = "7d", bytes = "6MiB"'
"""Goes on behind the partitions of the stream's `kafka` table."""


def publish(server: KafkaServer, *payloads: bytes) -> None:
    """To `sensors/a`, each acknowledged."""
    with RawClient(server.mqtt_port) as device:
        device.connect()
        for payload in payloads:
            device.publish_acknowledged("sensors/a", payload)


def test_topic_is_made_as_configured(kafka: KafkaBroker, tmp_path: Path) -> None:
    with KafkaServer(tmp_path / "data", kafka.bootstrap_servers, partitions=3, stream=WEEK) as server:
        eventually(lambda: server.describe()["kafka"]["state"] == "up", 20, "the topic")
        assert kafka.partition_count(server.topic) == 3
        configs = blocking(kafka.client.topic_configs(server.topic))
        assert configs["retention.ms"] == str(7 * DAY_MS)
        assert configs["retention.bytes"] == str(2 * 1024 * 1024)  # Kafka's is that of one partition
        assert configs["message.timestamp.type"] == "CreateTime"
        assert server.describe()["kafka"]["mismatch"] == []
        publish(server, b"1")
        assert server.rows_in(kafka) == [("sensors/a", 1)]


def test_what_differs_is_said_and_left_alone(kafka: KafkaBroker, tmp_path: Path) -> None:
    stream = WEEK.replace("replication = 1", "replication = 3")
    server = KafkaServer(tmp_path / "data", kafka.bootstrap_servers, partitions=3, stream=stream)
    config = {"retention.ms": str(DAY_MS), "message.timestamp.type": "LogAppendTime", "cleanup.policy": "compact"}
    blocking(kafka.client.create_topic(server.topic, partitions=2, config=config))
    with server:
        eventually(lambda: len(server.describe()["kafka"]["mismatch"]) == 7, 20, "the differences")
        assert server.describe()["kafka"]["mismatch"] == [
            "it has 2 partitions, the configuration says 3",
            "its replication is 1, the configuration says 3",
            "its message.timestamp.type is LogAppendTime, the configuration says CreateTime",
            "its cleanup.policy is compact, the configuration says delete",
            f"its retention.ms is {DAY_MS}, the configuration says {7 * DAY_MS}",
            f"its retention.bytes is -1, the configuration says {2 * 1024 * 1024}",
            f"its retention.ms {DAY_MS} is not above the spool's age limit of {6 * DAY_MS} ms",
        ]
        for text in server.describe()["kafka"]["mismatch"]:
            assert f"topic {server.topic} differs: {text}" in server.stderr_text
        publish(server, b"1", b"2")
        assert server.rows_in(kafka) == [("sensors/a", 1), ("sensors/a", 2)]
        assert kafka.partition_count(server.topic) == 2
        assert blocking(kafka.client.topic_configs(server.topic))["retention.ms"] == str(DAY_MS)


def test_a_limit_that_is_not_given_is_none(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Not Kafka's own week. And what was said of the partitions is no longer said when there are as many."""
    stream = ', replication = 1 }\nretention = { bytes = "6MiB"'
    server = KafkaServer(tmp_path / "data", kafka.bootstrap_servers, partitions=3, stream=stream)
    config = {"retention.ms": "-1", "retention.bytes": str(2 * 1024 * 1024)}
    blocking(kafka.client.create_topic(server.topic, partitions=2, config=config))
    with server:
        eventually(lambda: len(server.describe()["kafka"]["mismatch"]) == 1, 20, "the partitions")
        blocking(kafka.client.add_partitions(server.topic, 3))
        eventually(lambda: server.describe()["kafka"]["mismatch"] == [], 20, "no difference")
    with KafkaServer(tmp_path / "more", kafka.bootstrap_servers, partitions=3, stream=stream) as server:
        eventually(lambda: server.describe()["kafka"]["state"] == "up", 20, "the topic")
        configs = blocking(kafka.client.topic_configs(server.topic))
        assert (configs["retention.ms"], configs["retention.bytes"]) == ("-1", str(2 * 1024 * 1024))


def test_topic_that_may_not_be_made_is_waited_for(kafka: KafkaBroker, tmp_path: Path) -> None:
    with KafkaServer(tmp_path / "data", kafka.bootstrap_servers, stream=", create = false") as server:
        text = f"topic {server.topic} does not exist, and may not be created"
        eventually(lambda: text in server.stderr_text, 20, "the warning")
        publish(server, *[b"%d" % number for number in range(10)])
        described = server.describe()
        assert described["kafka"]["state"] == "gone"
        assert described["kafka"]["error"] == text
        assert described["spool"] | {"records": 10, "state": "spooling"} == described["spool"]
        assert httpx.get(f"{server.http_url}/readyz").status_code == 200
        blocking(kafka.client.create_topic(server.topic, partitions=3))
        eventually(lambda: server.waits_in_spool() == 0, 20, "the spool to be empty")
        assert server.rows_in(kafka) == [("sensors/a", number) for number in range(10)]
        eventually(lambda: server.describe()["kafka"]["error"] is None, 10, "no error")


def test_replication_beyond_the_brokers_is_told_and_spooled(kafka: KafkaBroker, tmp_path: Path) -> None:
    server = KafkaServer(tmp_path / "data", kafka.bootstrap_servers, stream=", replication = 3")
    with server:
        publish(server, b"1", b"2")
        eventually(lambda: "cannot be created" in server.stderr_text, 20, "the error")
        error = server.describe()["kafka"]["error"]
        assert f"topic {server.topic} cannot be created: InvalidReplicationFactorError" in error
        assert "3" in error.partition("InvalidReplicationFactorError")[2]
        assert server.waits_in_spool() == 2
        # It is tried again all the while, and said once.
        blocking(kafka.client.create_topic(server.topic, partitions=3))
        eventually(lambda: server.waits_in_spool() == 0, 20, "the spool to be empty")
        assert server.rows_in(kafka) == [("sensors/a", 1), ("sensors/a", 2)]
        assert server.stderr_text.count("InvalidReplicationFactorError") <= 2


@pytest.fixture
def guarded_broker(kafka_distribution: object, tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker with access rules. All come as User:ANONYMOUS, and may what no rule is about."""
    options = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with KafkaCluster(tmp_path, options=options) as cluster:
        yield cluster.brokers[0]


def publish_until(server: KafkaServer, payload: bytes, condition: Callable[[], bool]) -> None:
    """Rules reach a broker a moment after the tool has ended."""

    def holds() -> bool:
        publish(server, payload)
        return condition()

    eventually(holds, 20, "a rule to be felt", 0.5)


def set_rules(kafka: KafkaBroker, topic: str, *rules: str) -> None:
    """Rules for a topic, and no others."""
    kafka.run_tool("acls", "--remove", "--force", "--topic", topic)
    for rule in rules:
        may, _, operation = rule.partition(" ")
        kafka.run_tool("acls", "--add", f"--{may}-principal", "User:*", "--operation", operation, "--topic", topic)


def test_what_kafka_does_not_allow_becomes_dead_letters(guarded_broker: KafkaBroker, tmp_path: Path) -> None:
    """Nobody waits for rights that may never come: what was refused is kept, told and acknowledged."""
    kafka = guarded_broker
    with KafkaServer(tmp_path / "data", kafka.bootstrap_servers) as server:
        publish(server, b"1")
        set_rules(kafka, server.topic, "allow Read")
        eventually(
            lambda: publish(server, b"2") or server.describe()["dead_letters"]["records"] > 0, 20, "a refusal", 0.5
        )  # type: ignore[func-returns-value]
        assert server.describe()["kafka"]["state"] == "up"
        assert "TopicAuthorizationFailedError" in server.stderr_text
        set_rules(kafka, server.topic)
        publish_until(server, b"3", lambda: ("sensors/a", 3) in server.rows_in(kafka))
        assert "Traceback" not in server.stderr_text


def test_topic_that_kafka_does_not_show_is_spooled_for(guarded_broker: KafkaBroker, tmp_path: Path) -> None:
    kafka = guarded_broker
    with KafkaServer(tmp_path / "data", kafka.bootstrap_servers) as server:
        publish(server, b"1")
        set_rules(kafka, server.topic, "deny Describe")
        eventually(lambda: server.describe()["kafka"]["state"] == "gone", 20, "the rule to be felt")
        publish(server, b"2", b"3")
        error = server.describe()["kafka"]["error"]
        assert error == (
            f"Kafka does not show topic {server.topic} (TopicAuthorizationFailedError: it may not be described)"
        )
        assert server.waits_in_spool() == 2
        set_rules(kafka, server.topic)
        eventually(lambda: server.waits_in_spool() == 0, 20, "the spool to be empty")
        assert server.rows_in(kafka) == [("sensors/a", 1), ("sensors/a", 2), ("sensors/a", 3)]
        assert server.describe()["dead_letters"]["records"] == 0
