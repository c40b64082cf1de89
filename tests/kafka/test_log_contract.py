"""The contract of `StreamLog`, for Kafka: a real broker and a topic with one partition for each test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bridge.streams.kafka.mode import Mode
from bridge.streams.kafka.settings import KafkaSettings, KafkaTopicSettings
from bridge.streams.kafka.side import KafkaSide
from bridge.streams.sqlite_store import SqliteStore
from tests.kafka.streams import NobodyLives
from tests.support.kafka import KafkaBroker
from tests.support.log_contract import Committed, FakeClock, LogContract, Opened, RunMaker, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kafka_side(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[KafkaSide]:
    """One connection to Kafka, and one reader process, for all of these tests."""
    store = SqliteStore.open(tmp_path_factory.mktemp("contract"))
    side = KafkaSide(KafkaSettings(tuple(kafka.bootstrap_servers), check_s=1.0), store)
    await side.readers.start()
    await side.open(NobodyLives(), NobodyLives())  # type: ignore[arg-type]  # no log asks them for anything
    yield side
    await side.close()
    await store.close()


class TestKafkaLog(LogContract):
    @pytest_asyncio.fixture(loop_scope="module")
    async def opened(self, kafka_side: KafkaSide) -> AsyncIterator[Opened]:
        name = f"contract-{secrets.token_hex(4)}"
        # The times of these records are of 1970: no retention of Kafka's must find them too old.
        topic = KafkaTopicSettings(name, partitions=1, retention_age_ms=-1)
        log = kafka_side.open_log(name, topic, acknowledges_on_receipt=False)
        log.open()
        kafka_side.cluster.check_now()
        await wait_until(lambda: log.mode is Mode.DIRECT and log.topic.is_end_known)
        yield Opened(log, RunMaker(log), Committed(log), FakeClock())
        await log.close()


@pytest.mark.asyncio(loop_scope="function")
async def test_times_go_on_behind_those_of_the_run_before(kafka: KafkaBroker, tmp_path: Path) -> None:
    """With a clock that was set back meanwhile; what was stored in Kafka alone counts too."""
    topic = KafkaTopicSettings(f"times-{secrets.token_hex(4)}", partitions=1, retention_age_ms=-1)
    times: list[int] = []
    newest: list[int | None] = []
    for time_ms in (2_000_000, 1_000_000, 3_000_000):
        store = SqliteStore.open(tmp_path)
        side = KafkaSide(KafkaSettings(tuple(kafka.bootstrap_servers), check_s=1.0), store)
        log = side.open_log("times", topic, acknowledges_on_receipt=False)
        newest.append(log.newest_ms)
        await side.open(NobodyLives(), NobodyLives())  # type: ignore[arg-type]
        await wait_until(lambda log=log: log.mode is Mode.DIRECT and log.topic.is_end_known)
        opened = Opened(log, RunMaker(log), Committed(log), FakeClock())
        run = opened.maker.run([b"1"], time_ms=time_ms)
        await opened.store(run)
        times.append(run.received_at_ms)
        await side.close()
        await store.close()
    assert times == [2_000_000, 2_000_000, 3_000_000]
    assert newest == [None, 2_000_000, 2_000_000]
