"""KafkaCluster: the connections to Kafka, whether it answers, and what its topics are at the moment.

Connections, metadata and requests are aiokafka's; what they are used for is ours (ADR 10). One task asks for the
topics every few seconds, with their ids; streams are told when that answer changes. Nothing here knows of records.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, NodeNotReadyError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.transaction import InitProducerIdRequest

from bridge.ending import end
from bridge.streams.kafka.requests import NO_UUID, LogDirsRequest, TopicIdsRequest
from bridge.streams.kafka.settings import KafkaSettings, KafkaTopicSettings
from bridge.streams.log import StreamLogError

logger = logging.getLogger("headrace.kafka")

FETCH_WAIT_MS = 500
CLOSE_S = 2.0
NODE_S = 3.0
"""For one node's answer about topics, before another is asked."""
EARLIEST, LATEST = -2, -1
"""Times that stand for the ends of a partition (Kafka protocol, ListOffsets)."""
UNCOMMITTED, COMMITTED = 0, 1
"""Isolation: all that is stored, or without what open and aborted transactions have written (KIP-98)."""
CONSUMER, DEBUGGING_TOOL = -1, -2
"""Who asks for an end: one that is given what all replicas have, or one that is told what the leader has."""
TOPIC_EXISTS = 36
UNKNOWN_TOPIC = 3
TOPIC_NOT_AUTHORIZED = 29

KafkaFailure = (KafkaError, OSError, TimeoutError, AssertionError)
"""What aiokafka's calls raise while Kafka is away."""


class KafkaUnreachable(StreamLogError):
    """Kafka does not answer; asking again later may succeed."""

    retriable = True


@dataclass(frozen=True, slots=True)
class TopicState:
    """One topic as the cluster describes it."""

    topic_id: str
    """As Kafka prints it."""
    leaders: Mapping[int, int] = field(default_factory=dict)
    """Node by partition; -1: none at the moment."""
    replication: int = 0
    refusal: str = ""
    """Why Kafka does not describe it; nothing else of it is known then."""


@dataclass(frozen=True, slots=True)
class FetchedPart:
    """What a fetch gave of one partition."""

    error_code: int
    end: int
    """Up to here all is decided: Kafka's high watermark, or where the oldest open transaction begins."""
    first_offset: int
    data: bytes
    aborted: Sequence[tuple[int, int]] = ()
    """(producer id, first offset) of transactions that were given up, and have records in `data`."""


class Follower(Protocol):
    """A stream that wants to know of its topic."""

    kafka: KafkaTopicSettings

    def topic_seen(self, state: TopicState | None) -> None:
        """The topic as it is now; None: it does not exist. Called at each check."""

    def kafka_lost(self, error: str) -> None:
        """Kafka does not answer any more, or does not answer at the start."""


class KafkaCluster:
    """See the module's docstring."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self.error: str | None = None
        """Why Kafka cannot be reached; None while it can, or before the first try has ended."""
        self.is_up = False
        self.since_ms = time.time_ns() // 1_000_000
        self.brokers = 0
        self.on_change: Callable[[bool, str | None], None] = lambda _is_up, _error: None
        self._followers: list[Follower] = []
        self._client: AIOKafkaClient | None = None
        self._fetch_client: AIOKafkaClient | None = None
        self._endings: set[asyncio.Task[None]] = set()
        """Of bootstraps that nobody waits for; each takes no longer than `CLOSE_S` and a close."""
        self._wake = asyncio.Event()
        self._are_nodes_stale = False
        self._known = asyncio.Event()
        """The first try has ended, well or not."""
        self._task: asyncio.Task[None] | None = None
        self._reconnecting: asyncio.Task[None] | None = None

    # Life

    def follow(self, follower: Follower) -> None:
        """Tell a stream of its topic from now on."""
        self._followers.append(follower)

    def start(self) -> None:
        """Begin to try; needs a running loop."""
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # else 40 lines a second while Kafka is away
        self._task = asyncio.create_task(self._watch(), name="kafka-cluster")

    async def first_answer(self) -> None:
        """Wait until it is known whether Kafka answers."""
        await self._known.wait()

    async def close(self) -> None:
        """Let go of all connections."""
        await end([self._task, self._reconnecting])
        self._task = None
        await self._drop_clients()
        await asyncio.gather(*self._endings, return_exceptions=True)

    def reconnect(self) -> None:
        """Drop the connections, which may hang without a word, and make new ones."""
        if self._reconnecting is None or self._reconnecting.done():
            self._reconnecting = asyncio.create_task(self._drop_clients(), name="kafka-reconnect")
        self.check_now()

    def check_now(self) -> None:
        """Something has failed: look again at once."""
        self._wake.set()

    def leaders_moved(self) -> None:
        """Look again at once, and learn the nodes' addresses anew."""
        self._are_nodes_stale = True
        self._wake.set()

    async def _watch(self) -> None:
        while True:
            try:
                states = await asyncio.wait_for(self._ask(), self.settings.request_timeout_s)
            except KafkaFailure as error:
                await self._lost(await self._reason(error))
            except Exception as error:  # a bug of ours or of the library must not end the watch
                logger.exception("asking Kafka for its topics failed")
                await self._lost(repr(error))
            else:
                self._reached(states)
            self._known.set()
            self._wake.clear()
            wait_s = self.settings.check_s if self.is_up else self.settings.retry_s
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait_s)
            if self._wake.is_set():
                await asyncio.sleep(self.settings.retry_s / 5)  # many may call at once

    async def _reason(self, error: BaseException) -> str:
        """Why Kafka cannot be reached, for people: aiokafka keeps the system's reason to itself."""
        servers = ", ".join(self.settings.bootstrap_servers)
        reason = str(error) or type(error).__name__
        if isinstance(error, TimeoutError):
            reason = f"no answer within {self.settings.request_timeout_s:g} s"
        host, _, port = self.settings.bootstrap_servers[0].rpartition(":")
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), NODE_S)
            writer.close()
        except OSError as failure:
            reason = os.strerror(failure.errno).lower() if failure.errno else str(failure) or reason
        except ValueError:
            reason = f"{self.settings.bootstrap_servers[0]!r} is not HOST:PORT"
        return f"Kafka at {servers} does not answer ({reason})"

    async def _ask(self) -> dict[str, TopicState | None]:
        client = await self._connected()
        if self._are_nodes_stale:
            self._are_nodes_stale = False
            for each in (client, self._fetch_client or client):
                # Nobody but this task may wait for it: a client that is closed meanwhile never answers.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(each.force_metadata_update(), NODE_S)
        return await topic_states(client, [each.kafka.topic for each in self._followers])

    async def _connected(self) -> AIOKafkaClient:
        if self._client is None:
            client = await self._bootstrapped("headrace")
            try:
                fetch_client = await self._bootstrapped("headrace-tail")
            except BaseException:
                await _close(client)
                raise
            for each in (client, fetch_client):
                for follower in self._followers:
                    each.add_topic(follower.kafka.topic)
            self._client, self._fetch_client = client, fetch_client
        return self._client

    async def _bootstrapped(self, client_id: str) -> AIOKafkaClient:
        """A client that knows the nodes. aiokafka forgets the connection of a bootstrap that is cancelled, so one that
        nobody waits for any more goes on until it ends. Raises: KafkaError, OSError, TimeoutError"""
        client = AIOKafkaClient(**self.settings.client_arguments(), client_id=client_id)
        task = asyncio.create_task(client.bootstrap(), name="kafka-bootstrap")
        try:
            await asyncio.shield(task)
        except BaseException:
            ending = asyncio.create_task(_end_bootstrap(task, client), name="kafka-bootstrap-end")
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
            raise
        return client

    def _reached(self, states: Mapping[str, TopicState | None]) -> None:
        assert self._client is not None
        self.brokers = len(self._client.cluster.brokers())
        if not self.is_up:
            self.is_up = True
            self.error = None
            self.since_ms = time.time_ns() // 1_000_000
            self.on_change(True, None)
        for follower in self._followers:
            follower.topic_seen(states.get(follower.kafka.topic))

    async def _lost(self, error: str) -> None:
        was_up, self.is_up = self.is_up, False
        is_first = self.error is None
        self.error = error
        if was_up or is_first:
            self.since_ms = time.time_ns() // 1_000_000
            self.on_change(False, error)
        for follower in self._followers:
            follower.kafka_lost(error)
        # Connections that hang (a stopped process, a cut network) end here; new ones are made at the next try.
        await self._drop_clients()

    async def _drop_clients(self) -> None:
        clients, self._client, self._fetch_client = (self._client, self._fetch_client), None, None
        for client in clients:
            if client is not None:
                await _close(client)

    # Requests

    async def send(self, node: int, request: Any) -> Any:
        """One request to a node. Raises: KafkaError, OSError, TimeoutError."""
        if self._client is None:
            raise NodeNotReadyError("Kafka is not connected")
        return await send(self._client, node, request)

    async def producer_id(self) -> tuple[int, int]:
        """A producer id and epoch. Raises: KafkaError, OSError, TimeoutError."""
        node = self._any_node()
        answer = await self.send(node, InitProducerIdRequest(None, -1))
        if answer.error_code:
            raise for_code(answer.error_code)()
        return answer.producer_id, answer.producer_epoch

    def _any_node(self) -> int:
        node = self._client.get_random_node() if self._client is not None else None
        if node is None:
            raise NodeNotReadyError("no broker of Kafka is known")
        return int(node)

    async def ends(self, topic: str, leaders: Mapping[int, int], time_ms: int) -> dict[int, tuple[int, int]]:
        """By partition (offset, time) of the first record at or after a time, or of an end (`EARLIEST`, `LATEST`).

        Raises: KafkaError, OSError, TimeoutError.
        """
        if self._client is None:
            raise NodeNotReadyError("Kafka is not connected")
        return await list_offsets(self._client, topic, leaders, time_ms)

    async def stored_bytes(self, topic: str, leaders: Mapping[int, int]) -> int:
        """What a topic takes on the disks of its leaders, without their followers.

        Raises: KafkaError, OSError, TimeoutError.
        """
        total = 0
        for node in set(leaders.values()):
            wanted = [partition for partition, leader in leaders.items() if leader == node]
            answer = await self.send(node, LogDirsRequest(topic, wanted))
            sizes = [
                size
                for _, _, topics in answer.results
                for _, partitions in topics
                for _, size, _, is_future in partitions
                if not is_future
            ]
            total += sum(sizes)
        return total

    async def fetch(
        self, node: int, topics: Mapping[str, Mapping[int, int]], wait_ms: int = FETCH_WAIT_MS
    ) -> dict[tuple[str, int], FetchedPart]:
        """What follows the given offsets. Raises: KafkaError, OSError, TimeoutError."""
        if self._fetch_client is None:
            raise NodeNotReadyError("Kafka is not connected")
        return await fetch(self._fetch_client, node, topics, self.settings, wait_ms)

    async def create_topic(self, kafka: KafkaTopicSettings) -> str | None:
        """Create a stream's topic; what keeps it from being created, or None.

        Raises: KafkaError, OSError, TimeoutError.
        """
        replication = kafka.replication or max(1, min(3, self.brokers))
        async with self._admin() as admin:
            answer = await admin.create_topics(
                [NewTopic(kafka.topic, kafka.partitions, replication, topic_configs=kafka.configs())]
            )
        _, code, *message = answer.topic_errors[0]
        if code in (0, TOPIC_EXISTS):
            return None
        return f"{for_code(code).__name__}: {(message[0] if message else None) or for_code(code).description}"

    @contextlib.asynccontextmanager
    async def _admin(self) -> Any:
        admin = AIOKafkaAdminClient(**self.settings.client_arguments(), client_id="headrace-admin")
        try:
            await admin.start()
            yield admin
        finally:
            with contextlib.suppress(*KafkaFailure):
                await asyncio.wait_for(admin.close(), CLOSE_S)

    async def topic_configs(self, topic: str) -> dict[str, str]:
        """The topic's configuration by name. Raises: KafkaError, OSError, TimeoutError."""
        from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

        async with self._admin() as admin:
            answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return {entry[0]: entry[1] for answer in answers for resource in answer.resources for entry in resource[4]}


async def topic_states(client: AIOKafkaClient, topics: Sequence[str]) -> dict[str, TopicState | None]:
    """Topics by name; None for one that does not exist. Raises: KafkaError, OSError, TimeoutError."""
    answer = await _ask_any(client, TopicIdsRequest(sorted(set(topics))))
    states: dict[str, TopicState | None] = {}
    for error_code, name, topic_id, _, partitions, *_ in answer.topics:
        if error_code == TOPIC_NOT_AUTHORIZED:
            states[name] = TopicState("", refusal=f"{for_code(error_code).__name__}: it may not be described")
            continue
        if error_code == UNKNOWN_TOPIC or topic_id == NO_UUID:
            states[name] = None
            continue
        leaders = {number: leader for _, number, leader, *_ in partitions}
        replication = max((len(each[4]) for each in partitions), default=0)
        states[name] = TopicState(base64.urlsafe_b64encode(topic_id).decode().rstrip("="), leaders, replication)
    return states


async def send(client: AIOKafkaClient, node: int, request: Any) -> Any:
    """One request to a node. Raises: KafkaError, OSError, TimeoutError."""
    try:
        return await client.send(node, request)
    except KeyError as error:
        # aiokafka forgets a connection that has ended, also while an answer is waited for in vain.
        raise NodeNotReadyError(f"the connection to node {node} has ended") from error


async def _ask_any(client: AIOKafkaClient, request: Any) -> Any:
    """The answer of whichever node gives one: of several, one may be dead or hang."""
    nodes = [broker.nodeId for broker in client.cluster.brokers()]
    random.shuffle(nodes)
    error: BaseException = NodeNotReadyError("no broker of Kafka is known")
    for node in nodes:
        try:
            return await asyncio.wait_for(send(client, node, request), NODE_S)
        except KafkaFailure as failure:
            error = failure
    raise error


async def list_offsets(
    client: AIOKafkaClient,
    topic: str,
    leaders: Mapping[int, int],
    time_ms: int,
    isolation: int = COMMITTED,
    replica: int = CONSUMER,
) -> dict[int, tuple[int, int]]:
    """See `KafkaCluster.ends`. Offset -1: no record is at or after the time."""
    by_node: dict[int, list[tuple[int, int]]] = {}
    for partition, node in leaders.items():
        by_node.setdefault(node, []).append((partition, time_ms))
    found: dict[int, tuple[int, int]] = {}
    for node, wanted in by_node.items():
        answer = await send(client, node, OffsetRequest(replica, isolation, [(topic, wanted)]))
        for _, partitions in answer.topics:
            for partition, error_code, at_ms, offset, *_ in partitions:
                if error_code:
                    raise for_code(error_code)()
                found[partition] = (offset, at_ms)
    return found


async def log_ends(client: AIOKafkaClient, topic: str, leaders: Mapping[int, int]) -> dict[int, int]:
    """By partition where the leader's log ends: also behind what the other replicas do not have yet.

    No consumer is given that yet, and it is given it when they are back. Raises: what Kafka's calls raise.
    """
    shown = await list_offsets(client, topic, leaders, LATEST, UNCOMMITTED)  # a broker that does not lead refuses
    there = await list_offsets(client, topic, leaders, LATEST, UNCOMMITTED, DEBUGGING_TOOL)
    return {partition: max(offset, there[partition][0]) for partition, (offset, _) in shown.items()}


async def fetch(
    client: AIOKafkaClient,
    node: int,
    topics: Mapping[str, Mapping[int, int]],
    settings: KafkaSettings,
    wait_ms: int,
    isolation: int = COMMITTED,
) -> dict[tuple[str, int], FetchedPart]:
    """See `KafkaCluster.fetch`."""
    wanted = [
        (topic, [(partition, offset, settings.fetch_partition_bytes_max) for partition, offset in offsets.items()])
        for topic, offsets in topics.items()
    ]
    answer = await send(client, node, FetchRequest(wait_ms, 1, settings.fetch_bytes_max, isolation, wanted))
    parts: dict[tuple[str, int], FetchedPart] = {}
    for topic, partitions in answer.topics:
        for partition, error_code, high_watermark, stable_end, first_offset, aborted, *_, data in partitions:
            end = stable_end if isolation == COMMITTED else high_watermark
            parts[topic, partition] = FetchedPart(error_code, end, first_offset, data or b"", aborted or ())
    return parts


async def _end_bootstrap(task: asyncio.Task[None], client: AIOKafkaClient) -> None:
    await asyncio.wait([task], timeout=CLOSE_S)
    await end([task])
    await _close(client)


async def _close(client: AIOKafkaClient) -> None:
    with contextlib.suppress(*KafkaFailure):
        await asyncio.wait_for(client.close(), CLOSE_S)
