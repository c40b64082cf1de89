"""Real Kafka for tests: `kafka` (one broker for all, left as it was), `kafka_broker` and `kafka_cluster` (to break)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.kafka.distribution import KafkaDistribution, KafkaMissing
from scripts.kafka.preparation import prepare
from tests.support.kafka import KafkaBroker, KafkaCluster


@pytest.fixture(scope="session")
def kafka_distribution() -> KafkaDistribution:
    """Kafka's jars, fetched when they are not there yet (up to a minute, once)."""
    distribution = KafkaDistribution()
    try:
        prepare(distribution)
    except KafkaMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    return distribution


@pytest.fixture(scope="session")
def kafka(kafka_distribution: KafkaDistribution, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """One broker for all tests that leave it running; use topics of your own in it (`unique_topic`)."""
    with KafkaCluster(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster.brokers[0]


@pytest.fixture
def kafka_broker(kafka_distribution: KafkaDistribution, tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker of the test's own, behind a proxy for those who want one: it may be killed, paused and filled."""
    with KafkaCluster(tmp_path, behind_proxy=True) as cluster:
        yield cluster.brokers[0]


@pytest.fixture
def kafka_cluster(kafka_distribution: KafkaDistribution, tmp_path: Path) -> Iterator[KafkaCluster]:
    """Three brokers of the test's own, each behind a proxy for those who want one."""
    with KafkaCluster(tmp_path, broker_count=3, behind_proxy=True) as cluster:
        yield cluster
