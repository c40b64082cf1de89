"""The way to Kafka in this process: what only a test can do that has the event loop in its hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.streams.kafka.cluster import KafkaCluster
from bridge.streams.kafka.mode import Mode
from bridge.streams.kafka.settings import KafkaSettings, KafkaTopicSettings
from bridge.streams.kafka.side import KafkaSide
from bridge.streams.sqlite_store import SqliteStore
from tests.kafka.streams import NobodyLives
from tests.support.conditions import eventually_async
from tests.support.kafka import KafkaBroker
from tests.support.kafka_client import unique_topic
from tests.support.log_contract import Committed, FakeClock, Opened, RunMaker, numbers

pytestmark = pytest.mark.slow


@pytest.fixture
async def opened(kafka_broker: KafkaBroker, tmp_path: Path) -> AsyncIterator[Opened]:
    """A log whose Kafka is behind a proxy."""
    store = SqliteStore.open(tmp_path)
    side = KafkaSide(KafkaSettings(tuple(kafka_broker.proxied_bootstrap_servers), check_s=1.0), store)
    log = side.open_log("telemetry", KafkaTopicSettings(unique_topic(), partitions=1), acknowledges_on_receipt=False)
    await side.readers.start()
    await side.open(NobodyLives(), NobodyLives())  # type: ignore[arg-type]  # it asks them for nothing
    await eventually_async(lambda: log.mode is Mode.DIRECT, 20, "a topic")
    yield Opened(log, RunMaker(log), Committed(log), FakeClock())
    await side.close()
    await store.close()


async def test_connections_are_closed_though_a_cancellation_is_forgotten(kafka_broker: KafkaBroker) -> None:
    """In the moment in which somebody asks for a look at Kafka."""
    cluster = KafkaCluster(KafkaSettings(tuple(kafka_broker.bootstrap_servers)))
    cluster.start()
    await cluster.first_answer()
    await eventually_async(lambda: cluster.is_up)
    await asyncio.sleep(0)
    cluster.check_now()
    await asyncio.wait_for(cluster.close(), 10)


async def test_a_batch_is_tried_again_though_timers_are_early(
    opened: Opened, kafka_broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop's timers may be early by a millisecond; nothing else wakes the sender when the last batch has failed."""
    await opened.store(opened.maker.run(numbers(3)))
    loop = asyncio.get_running_loop()
    call_later = loop.call_later
    monkeypatch.setattr(
        loop, "call_later", lambda delay, *rest, **kept: call_later(max(0, delay - 0.005), *rest, **kept)
    )
    proxy = kafka_broker.proxy
    proxy.cut_after_to_target(60)
    run = opened.maker.run(numbers(5, 3))
    opened.log.append(run)
    opened.log.flush()
    await eventually_async(lambda: proxy.cuts_total == 1, 10, "a cut in the middle of the batch")
    proxy.refuse()
    await eventually_async(lambda: opened.committed.count == 8, 10, "the batch on disk")
    proxy.refuse(False)
    await eventually_async(lambda: opened.log.mode is Mode.DIRECT, 20, "the batch in Kafka")
    stored = await kafka_broker.client.read_all(opened.log.kafka.topic)  # type: ignore[attr-defined]
    assert [record.value for record in stored] == numbers(8)
