"""The contract of `StreamLog`, for Kafka: a real broker and a topic with one partition for each test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

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
