"""KafkaClient: topics and records of a real Kafka as another program than Headrace sees them (plain aiokafka).

Every call makes a connection of its own and closes it: a test kills brokers, and no client of a helper may linger.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.records_to_delete import RecordsToDelete

from scripts.kafka.metadata import fetch_metadata
from tests.support.conditions import eventually_async

T = TypeVar("T")

CALL_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 2.0
REQUEST_TIMEOUT_MS = 10_000


@dataclass(frozen=True, slots=True)
class KafkaRecord:
    """A record to write (offset -1 and partition None: Kafka chooses), or one that was read."""

    value: bytes | None = b""
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int | None = None
    partition: int | None = None
    offset: int = -1

    @property
    def header(self) -> dict[str, bytes | None]:
        """Headers by name (the last one of a name)."""
        return dict(self.headers)


class KafkaAdminError(AssertionError):
    """Kafka refused to make, change or delete a topic."""


def unique_topic(name: str = "topic") -> str:
    """A topic name that no other test uses."""
    return f"{name}-{secrets.token_hex(4)}"


class KafkaClient:
    """All methods are coroutines; `blocking` runs one from a test that is none."""

    def __init__(self, bootstrap_servers: Sequence[str]) -> None:
        self.bootstrap_servers = list(bootstrap_servers)

    # Topics.

    async def create_topic(
        self,
        name: str | None = None,
        partitions: int = 1,
        replication: int | None = None,
        config: Mapping[str, str] | None = None,
    ) -> str:
        """Make a topic that all brokers know (default: of a name of its own, a copy on each broker); returns the name.

        Raises:
            KafkaAdminError: refused.
        """
        name = name or unique_topic()
        copies = len(self.bootstrap_servers) if replication is None else replication
        async with self._admin() as admin:
            _check(await admin.create_topics([NewTopic(name, partitions, copies, topic_configs=dict(config or {}))]))
        await self._wait_until_known(name, partitions)
        return name

    async def delete_topic(self, name: str) -> None:
        """Delete a topic.

        Raises:
            KafkaAdminError: refused.
        """
        async with self._admin() as admin:
            _check(await admin.delete_topics([name]))
        await self._wait_until_known(name, 0)

    async def add_partitions(self, name: str, total_count: int) -> None:
        """Give a topic more partitions.

        Raises:
            KafkaAdminError: refused.
        """
        async with self._admin() as admin:
            _check(await admin.create_partitions({name: NewPartitions(total_count)}))
        await self._wait_until_known(name, total_count)

    async def topic_configs(self, name: str) -> dict[str, str]:
        """The topic's settings by name, those that are Kafka's defaults too."""
        async with self._admin() as admin:
            (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
        return {entry[0]: entry[1] for resource in answer.resources for entry in resource[4]}

    async def delete_records(self, name: str, before: Mapping[int, int]) -> None:
        """Drop what stands before some offsets, as retention does it."""
        async with self._admin() as admin:
            places = {TopicPartition(name, partition): RecordsToDelete(offset) for partition, offset in before.items()}
            await admin.delete_records(places)

    async def _wait_until_known(self, topic: str, partition_count: int) -> None:
        """The controller has agreed; each broker hears of it a little later, and a partition has a leader then."""

        def is_known_everywhere() -> bool:
            for server in self.bootstrap_servers:
                host, _, port = server.rpartition(":")
                try:
                    partitions = fetch_metadata(host, int(port), [topic]).topics[0].partitions
                except OSError:
                    continue  # a broker that a test has killed or paused will hear of it when it comes back
                if len(partitions) != partition_count or any(state.leader < 0 for state in partitions):
                    return False
            return True

        async def is_known() -> bool:
            return await asyncio.to_thread(is_known_everywhere)

        await eventually_async(is_known, CALL_TIMEOUT_S, f"{topic} has {partition_count} partitions")

    # Records.

    async def produce(
        self,
        topic: str,
        records: Iterable[KafkaRecord | bytes],
        timeout_s: float = CALL_TIMEOUT_S,
        compression: str | None = None,
    ) -> list[KafkaRecord]:
        """Write records (bytes: a value alone) in order; returns them with partition and offset.

        Raises:
            TimeoutError: they were not all stored in time; some may be.
        """
        given = [record if isinstance(record, KafkaRecord) else KafkaRecord(record) for record in records]
        # Stamped here: of records that share a batch aiokafka reports the timestamp of the first one for all.
        now_ms = time.time_ns() // 1_000_000
        given = [
            record if record.timestamp_ms is not None else replace(record, timestamp_ms=now_ms) for record in given
        ]
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap_servers,
            enable_idempotence=True,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            compression_type=compression,
        )
        async with _started(producer), asyncio.timeout(timeout_s):
            sent = [
                await producer.send(
                    topic,
                    value=record.value,
                    key=record.key,
                    headers=list(record.headers),
                    timestamp_ms=record.timestamp_ms,
                    partition=record.partition,
                )
                for record in given
            ]
            done = await asyncio.gather(*sent)
        return [
            replace(record, partition=stored.partition, offset=stored.offset)
            for record, stored in zip(given, done, strict=True)
        ]

    @asynccontextmanager
    async def transaction(self, topic: str, records: Sequence[KafkaRecord], *, commits: bool) -> AsyncIterator[None]:
        """Write records in a transaction that is open within this context; at its end it is committed or aborted."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap_servers,
            transactional_id=secrets.token_hex(8),
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        async with _started(producer):
            await producer.begin_transaction()
            for record in records:
                await producer.send_and_wait(
                    topic, record.value, record.key, headers=list(record.headers), partition=record.partition
                )
            yield
            await (producer.commit_transaction() if commits else producer.abort_transaction())

    async def read_all(self, topic: str, from_offsets: Mapping[int, int] | None = None) -> list[KafkaRecord]:
        """Every record that was in the topic when this was called (from some offsets on, in the partitions that are
        named), ordered by partition and offset."""
        async with self._consumer() as consumer:
            partitions = await self._assign(consumer, topic)
            ends = await consumer.end_offsets(partitions)
            for partition in partitions:
                if from_offsets is None or partition.partition not in from_offsets:
                    await consumer.seek_to_beginning(partition)
                else:
                    consumer.seek(partition, from_offsets[partition.partition])
            found: list[KafkaRecord] = []
            for partition in partitions:
                consumer.pause(*partitions)
                consumer.resume(partition)
                while await consumer.position(partition) < ends[partition]:
                    for batch in (await consumer.getmany(timeout_ms=200, max_records=5000)).values():
                        found += [_record(each) for each in batch if each.offset < ends[partition]]
        return sorted(found, key=lambda record: (record.partition or 0, record.offset))

    async def end_offsets(self, topic: str) -> dict[int, int]:
        """The offset of the next record of each partition."""
        async with self._consumer() as consumer:
            ends = await consumer.end_offsets(await self._assign(consumer, topic))
            return {partition.partition: offset for partition, offset in ends.items()}

    # Connections.

    @staticmethod
    async def _assign(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
        await consumer._client.set_topics([topic])  # without a group, a consumer first hears of it here
        numbers = consumer.partitions_for_topic(topic)
        assert numbers, f"there is no topic {topic}"
        partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(partitions)
        return partitions

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap_servers,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        async with _started(consumer), asyncio.timeout(CALL_TIMEOUT_S):
            yield consumer

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers, request_timeout_ms=REQUEST_TIMEOUT_MS)
        async with _started(admin), asyncio.timeout(CALL_TIMEOUT_S):
            yield admin


@asynccontextmanager
async def _started(client: Any) -> AsyncIterator[None]:
    """A client of aiokafka that is stopped in the end, also one that could not start, or that would not stop: with
    records that cannot be delivered it waits without limit."""
    try:
        await client.start()
        yield
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(client.close() if hasattr(client, "close") else client.stop(), STOP_TIMEOUT_S)


def blocking(call: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, for tests that are none; also where an event loop runs (it waits meanwhile)."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, call).result()


def _record(message: Any) -> KafkaRecord:
    return KafkaRecord(
        message.value, message.key, tuple(message.headers), message.timestamp, message.partition, message.offset
    )


def _check(answer: Any) -> None:
    """aiokafka returns refusals instead of raising them."""
    by_topic = answer.topic_error_codes if hasattr(answer, "topic_error_codes") else answer.topic_errors
    refused = [each for each in by_topic if each[1] != 0]
    if refused:
        raise KafkaAdminError(f"Kafka refused: {refused}")
