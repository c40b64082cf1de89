"""KafkaReader: answers questions about a Kafka stream: its partitions merged by time, then its spool (ADR 10).

What was fetched is kept for a while, decoded, so that readers at the same place cost one fetch. It runs in a process of
its own (`kafka_reader_process`), where nothing else waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from aiokafka.client import AIOKafkaClient

from bridge.history.kafka_scan import AnotherEpoch, KafkaStreamScan
from bridge.history.read_ahead import ReadAhead
from bridge.history.scan import AnswerT, StreamQuestion, StreamScan, StreamScanResult
from bridge.history.stretch_loader import FAR, FETCH_WAIT_MS, StretchLoader, unreadable
from bridge.records import Topic
from bridge.streams.collect import TopicChoice
from bridge.streams.kafka.cluster import (
    EARLIEST,
    UNCOMMITTED,
    KafkaFailure,
    TopicState,
    fetch,
    list_offsets,
    log_ends,
    topic_states,
)
from bridge.streams.kafka.fetched import batches_of
from bridge.streams.kafka.readers import Identity, KafkaSource
from bridge.streams.kafka.records import Decoder
from bridge.streams.kafka.settings import KafkaSettings
from bridge.streams.sqlite_schema import open_reader

STATE_S = 1.0
"""How long what Kafka said of a topic is believed."""
CHOICES_MAX = 64
TOPICS_MAX = 200_000


class KafkaReader:
    """See the module's docstring."""

    def __init__(self, settings: KafkaSettings, store_path: Path | None) -> None:
        """`store_path` is the file with the spools; None: nobody will ask for what is in one."""
        self._settings = settings
        self._store_path = store_path
        self._connection: sqlite3.Connection | None = None
        self.client: AIOKafkaClient | None = None
        self._connecting = asyncio.Lock()
        self._states: dict[str, tuple[float, TopicState]] = {}
        self._firsts: dict[str, tuple[float, dict[int, int]]] = {}
        self.stretches = StretchLoader(settings, self.connected, self._forget_topic)
        self._choices: OrderedDict[tuple[str, tuple[str, ...]], TopicChoice] = OrderedDict()
        self._spool_topics: dict[bytes, Topic] = {}
        self._ahead = ReadAhead(self._scan)

    async def close(self) -> None:
        self._ahead.close()
        self.stretches.close()
        await self._forget_client()
        if self._connection is not None:
            self._connection.close()

    # Kafka

    async def connected(self) -> AIOKafkaClient:
        """The client, connected. Raises: what Kafka's calls raise."""
        async with self._connecting:
            if self.client is None:
                client = AIOKafkaClient(**self._settings.client_arguments(), client_id="headrace-history")
                try:
                    await client.bootstrap()
                except BaseException:
                    with contextlib.suppress(*KafkaFailure):
                        await client.close()
                    raise
                self.client = client
            return self.client

    async def _forget_client(self) -> None:
        client, self.client = self.client, None
        self._states.clear()
        self._firsts.clear()
        if client is not None:
            with contextlib.suppress(*KafkaFailure):
                await asyncio.wait_for(client.close(), 2)

    async def state(self, topic: str, epoch: str) -> TopicState:
        """Raises: AnotherEpoch, and what Kafka's calls raise."""
        known = self._states.get(topic)
        now = time.monotonic()
        if known is None or now - known[0] > STATE_S:
            client = await self.connected()
            client.add_topic(topic)
            found = (await topic_states(client, [topic])).get(topic)
            if found is None:
                raise AnotherEpoch
            known = self._states[topic] = (now, found)
        if f"k{known[1].topic_id}" != epoch:
            raise AnotherEpoch
        return known[1]

    async def first_offsets(self, topic: str, state: TopicState) -> dict[int, int]:
        """The oldest that is kept, by partition. Raises: what Kafka's calls raise."""
        known = self._firsts.get(topic)
        now = time.monotonic()
        if known is None or now - known[0] > STATE_S:
            ends = await list_offsets(await self.connected(), topic, state.leaders, EARLIEST)
            known = self._firsts[topic] = (now, {partition: offset for partition, (offset, _) in ends.items()})
        return known[1]

    async def offsets_at(self, topic: str, epoch: str, ends: Mapping[int, int], time_ms: int) -> dict[int, int]:
        """See `KafkaReaders.offsets_at`."""
        state = await self.state(topic, epoch)
        found = await list_offsets(await self.connected(), topic, state.leaders, max(0, time_ms))
        return {
            partition: end if found.get(partition, (-1, 0))[0] < 0 else min(end, found[partition][0])
            for partition, end in ends.items()
        }

    async def locate(
        self, topic: str, epoch: str, start: Mapping[int, int], identities: set[Identity]
    ) -> dict[Identity, tuple[int, int]]:
        """See `KafkaReaders.locate`."""
        state = await self.state(topic, epoch)
        client = await self.connected()
        first = {partition: offset for partition, (offset, _) in
                 (await list_offsets(client, topic, state.leaders, EARLIEST)).items()}  # fmt: skip
        # All that is stored: ours are no part of a transaction, but may stand behind one that is open. And what the
        # leader alone has, since the other replicas are away: it stays, so nobody may say that it is not there.
        last = await log_ends(client, topic, state.leaders)
        decoder = Decoder(topic, None)
        found: dict[Identity, tuple[int, int]] = {}
        for partition, begin in start.items():
            offset = max(begin, first.get(partition, 0))
            node = state.leaders.get(partition, -1)
            while offset < last.get(partition, 0):
                wanted = {topic: {partition: offset}}
                answer = await fetch(client, node, wanted, self._settings, FETCH_WAIT_MS, UNCOMMITTED)
                part = answer[topic, partition]
                if part.error_code:
                    self._states.pop(topic, None)
                    raise unreadable(partition, part.error_code)
                at = offset
                for batch in batches_of(part.data):
                    for run in decoder.runs(batch, partition, offset, FAR):
                        for row in range(len(run)):
                            identity = (run.node_run, run.number(row))
                            if identity in identities:
                                found.setdefault(identity, (partition, run.base_offset + row))
                    at = batch.next_offset
                    await asyncio.sleep(0)
                if at == offset:
                    raise unreadable(partition, 0)  # not to look would be to store it twice
                offset = at
        return found

    def _forget_topic(self, topic: str) -> None:
        self._firsts.pop(topic, None)
        self._states.pop(topic, None)

    def choice(self, source: KafkaSource, filters: tuple[str, ...]) -> TopicChoice:
        """Which topics the filters take, remembered between scans."""
        choice = self._choices.pop((source.topic, filters), None) or TopicChoice(filters)
        self._choices[source.topic, filters] = choice
        if len(self._choices) > CHOICES_MAX:
            self._choices.popitem(last=False)
        return choice

    # Scans

    async def scan(self, source: KafkaSource, request: StreamScan) -> StreamScanResult:
        """See `StreamLog.scan_stream`."""
        return await self._ahead.scan(source, request)

    async def _scan(self, source: KafkaSource, request: StreamScan, reads_on: bool) -> StreamScanResult:
        scan = KafkaStreamScan(self, source, request, reads_on=reads_on)
        try:
            await scan.run()
        except AnotherEpoch:
            return StreamScanResult(b"", 0, request.start, {}, None, is_epoch_current=False)
        return scan.result()

    async def ask(self, source: KafkaSource, request: StreamQuestion[AnswerT]) -> AnswerT:
        """See `StreamLog.ask_stream`: one answer for all partitions."""
        scan = KafkaStreamScan(self, source, request, reads_on=True)
        try:
            await scan.run()
        except AnotherEpoch:
            return cast("AnswerT", scan.collector.nothing())
        return cast("AnswerT", scan.answer())

    async def forget_client(self) -> None:
        """After a failure: connect anew at the next request."""
        await self._forget_client()

    @property
    def store(self) -> sqlite3.Connection:
        """The file of the store, to read."""
        if self._connection is None:
            assert self._store_path is not None, "a question about a spool without its file"
            self._connection = open_reader(self._store_path)
        return self._connection

    def spool_topics(self) -> dict[bytes, Topic]:
        """Topics of spooled records, by their bytes in a frame."""
        if len(self._spool_topics) > TOPICS_MAX:
            self._spool_topics.clear()
        return self._spool_topics
