"""The bench against real Kafka: what plain aiokafka writes and reads is checked, and a short run of ours passes."""

from __future__ import annotations

from typing import Any

import pytest

from devices.bench.kafka import bench_kafka
from devices.bench.plain_kafka import run_plain
from devices.bench.results import PLAIN, Report
from devices.bench.rounds import Plan
from tests.support.kafka import KafkaBroker
from tests.support.kafka_client import KafkaRecord, blocking, unique_topic

TIMEOUT_S = 40.0


def plain(kafka: KafkaBroker, command: str, topic: str, **parameters: object) -> dict[str, Any]:
    return run_plain(command, TIMEOUT_S, bootstrap=kafka.bootstrap_servers[0], topic=topic, **parameters)


def test_what_plain_aiokafka_writes_is_all_there(kafka: KafkaBroker) -> None:
    topic = unique_topic("bench")
    produced = plain(
        kafka, "produce", topic, partitions=3, payload_bytes=50, warm_up_s=0.05, seconds=0.5, kafka_pid=kafka.pid
    )
    sent = produced["sent"]
    assert sent >= produced["messages"]
    assert sent > 0
    assert plain(kafka, "check", topic, acknowledged=sent) == {"error": None}
    assert plain(kafka, "check", topic, acknowledged=sent + 1)["error"].startswith("loss: ")
    assert plain(kafka, "consume", topic, records=sent)["messages"] == sent
    assert plain(kafka, "watch", topic, records=sent, wait_s=10)["messages"] == 0
    blocking(kafka.client.produce(topic, [KafkaRecord(bytes(50), headers=(("mqtt.topic", b"bench/dev/000000"),))]))
    assert "publisher 0: " in plain(kafka, "check", topic, acknowledged=sent + 1)["error"]
    plain(kafka, "delete", topic)
    assert kafka.partition_count(topic) == 0


def test_each_record_of_a_paced_run_is_acknowledged(kafka: KafkaBroker) -> None:
    topic = unique_topic("bench")
    paced = plain(kafka, "latency", topic, partitions=2, payload_bytes=50, rate=1_000, warm_up_s=0.05, seconds=0.1)
    assert paced["sent"] == 150
    assert 0 < paced["p50_ms"] <= paced["p99_ms"]
    assert plain(kafka, "check", topic, acknowledged=150) == {"error": None}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_short_run_of_the_bench_finds_nothing_wrong(kafka: KafkaBroker) -> None:
    report = Report()
    plan = Plan(rounds=1, seconds=0.1, warm_up_s=0.05, ceiling_s=0.05, payload_bytes=100)
    bench_kafka(plan, report, ("kafka_1", "kafka_spool"), kafka.bootstrap_servers[0])
    assert report.failures == []
    assert list(report.rows) == ["kafka_1"], "a given Kafka is not stopped for the spool"
    failures = {label: cell.failure for label, cell in report.rows["kafka_1"].cells.items()}
    assert failures == {"headrace": None, PLAIN: None, "headrace, sqlite": None}
