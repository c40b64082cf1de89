"""A process that uses Kafka with plain aiokafka: what Headrace is held against, and what looks after it.

Run as `python -m devices.bench.plain_kafka COMMAND PARAMETERS`, the parameters as JSON; prints one line of JSON. It
knows nothing of MQTT: what it writes are records with the headers, keys and values that Headrace's have.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import numpy as np
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from devices.bench.checks import judge_stored
from devices.bench.frames import TOPIC_COUNT, TOPIC_DIGITS, TOPIC_PREFIX
from devices.bench.latency import percentiles
from devices.bench.load import machine_cpu_s
from devices.bench.wire import PeerFailed

BATCH_RECORDS = 1_000
PRODUCER = {
    "enable_idempotence": True,
    "acks": "all",
    "max_batch_size": 900_000,
    "linger_ms": 0,
    "request_timeout_ms": 10_000,
}
"""For a drain in order: the batches are built outside, one under way for each partition."""
FETCH_RECORDS = 5_000
SPIN_S = 0.001
"""The loop's timers are no finer than this; the rest of a wait is spent looking at the clock."""
POLL_S = 0.01
PART_BYTES = 12
"""Of a value: sequence and publisher, which every message of the bench begins with."""

Headers = list[tuple[str, bytes]]
Answer = dict[str, Any]


def run_plain(command: str, timeout_s: float, **parameters: object) -> Answer:
    """Run a command in a process of its own. Raises: PeerFailed"""
    with starting_plain(command, **parameters) as finish:
        return finish(timeout_s)


@contextlib.contextmanager
def starting_plain(command: str, **parameters: object) -> Iterator[Callable[[float], Answer]]:
    """The same while something else happens; what is given waits for the answer."""
    arguments = [sys.executable, "-m", "devices.bench.plain_kafka", command, json.dumps(parameters)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def finish(timeout_s: float) -> Answer:
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise PeerFailed(f"plain aiokafka: {command} did not end in {timeout_s:.0f} s") from None
        if process.returncode:
            raise PeerFailed(f"plain aiokafka: {command}: {errors.decode(errors='replace')[-800:]}")
        answer: Answer = json.loads(output.splitlines()[-1])
        return answer

    try:
        yield finish
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


# Writing


def headers_of(topic: bytes, client: bytes, number: int, time_ms: int) -> Headers:
    """The headers of a plain message of QoS 1, as Headrace writes them."""
    return [
        ("mqtt.topic", topic),
        ("mqtt.qos", b"1"),
        ("mqtt.retain", b"0"),
        ("mqtt.client_id", client),
        ("mqtt.id", b"plain-%d" % number),
        ("mqtt.time", b"%d" % time_ms),
    ]


def mqtt_topics() -> list[bytes]:
    """The topics of the bench."""
    return [f"{TOPIC_PREFIX}{number:0{TOPIC_DIGITS}d}".encode() for number in range(TOPIC_COUNT)]


@contextlib.asynccontextmanager
async def _producer(bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, **PRODUCER)
    await producer.start()
    try:
        yield producer
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(producer.stop(), 5)


class _Lane:
    """One partition's drain: batches of full size, one under way."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, partition: int, payload_bytes: int) -> None:
        self.acknowledged = 0
        self._producer = producer
        self._topic = topic
        self._partition = partition
        self._tail = partition.to_bytes(4, "big") + bytes(payload_bytes - PART_BYTES)
        self._client = b"bench-publisher-%d" % partition

    async def run(self, until: asyncio.Event) -> None:
        """Write until told to stop; what is under way is waited for."""
        topics = mqtt_topics()
        tail, client = self._tail, self._client
        while not until.is_set():
            batch = self._producer.create_batch()
            append = batch.append
            now_ms = time.time_ns() // 1_000_000
            first = self.acknowledged
            for number in range(first, first + BATCH_RECORDS):
                topic = topics[number % TOPIC_COUNT]
                value = number.to_bytes(8, "big") + tail
                append(key=topic, value=value, timestamp=now_ms, headers=headers_of(topic, client, number, now_ms))
            await (await self._producer.send_batch(batch, self._topic, partition=self._partition))
            self.acknowledged = first + BATCH_RECORDS


async def produce(
    bootstrap: str, topic: str, partitions: int, payload_bytes: int, warm_up_s: float, seconds: float, kafka_pid: int
) -> Answer:
    """As many records as can be had acknowledged."""
    await create_topic(bootstrap, topic, partitions)
    async with _producer(bootstrap) as producer:
        lanes = [_Lane(producer, topic, partition, payload_bytes) for partition in range(partitions)]
        stop = asyncio.Event()
        tasks = [asyncio.create_task(lane.run(stop)) for lane in lanes]
        await asyncio.sleep(warm_up_s)
        before = _counts(lanes, kafka_pid)
        await asyncio.sleep(seconds)
        after = _counts(lanes, kafka_pid)
        stop.set()
        await asyncio.gather(*tasks)
    begun, messages, cpu_s, other_cpu_s = (late - early for early, late in zip(before, after, strict=True))
    sent = sum(lane.acknowledged for lane in lanes)
    return {"messages": messages, "seconds": begun, "cpu_s": cpu_s, "other_cpu_s": other_cpu_s, "sent": sent}


def _counts(lanes: list[_Lane], kafka_pid: int) -> tuple[float, int, float, float]:
    cpu_s = time.process_time()
    other_cpu_s = machine_cpu_s() - cpu_s - _cpu_s_of(kafka_pid)
    return time.perf_counter(), sum(lane.acknowledged for lane in lanes), cpu_s, other_cpu_s


def _cpu_s_of(pid: int) -> float:
    if not pid:
        return 0.0
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def latency(
    bootstrap: str, topic: str, partitions: int, payload_bytes: int, rate: int, warm_up_s: float, seconds: float
) -> Answer:
    """`rate` records a second, evenly; each partition sends what is due while nothing of it is under way."""
    await create_topic(bootstrap, topic, partitions)
    async with _producer(bootstrap) as producer:
        paced = _Paced(producer, topic, partitions, payload_bytes, rate, int(rate * (warm_up_s + seconds)))
        await paced.run()
    first = int(rate * warm_up_s)
    p50_ms, p99_ms = percentiles(paced.latencies[first:], 50, 99)
    (late_p99_ms,) = percentiles(paced.lateness[first:], 99)
    return {"p50_ms": p50_ms, "p99_ms": p99_ms, "late_p99_ms": late_p99_ms, "sent": paced.total}


class _Paced:
    """Records that become due one after the other, and the batches that take them."""

    def __init__(
        self, producer: AIOKafkaProducer, topic: str, partitions: int, payload_bytes: int, rate: int, total: int
    ) -> None:
        self.total = total
        self.latencies = np.full(total, np.nan)
        self.lateness = np.zeros(total)
        self._producer = producer
        self._topic = topic
        self._rate = rate
        self._tail = bytes(4 + payload_bytes - PART_BYTES)
        self._topics = mqtt_topics()
        self._partition_by_topic = [(murmur2(name) & 0x7FFFFFFF) % partitions for name in self._topics]
        self._waiting: list[list[int]] = [[] for _ in range(partitions)]
        self._is_under_way = [False] * partitions
        self._sends: set[asyncio.Task[None]] = set()
        self._start = 0.0

    async def run(self) -> None:
        """All of them, acknowledged."""
        clock, rate, total = time.perf_counter, self._rate, self.total
        self._start = clock()
        queued = 0
        while queued < total:
            due = min(total, int((clock() - self._start) * rate) + 1)
            for number in range(queued, due):
                self._waiting[self._partition_by_topic[number % TOPIC_COUNT]].append(number)
            queued = due
            for partition, numbers in enumerate(self._waiting):
                if numbers and not self._is_under_way[partition]:
                    self._begin(partition)
            wait_s = self._start + due / rate - clock()
            await asyncio.sleep(wait_s - SPIN_S if wait_s > SPIN_S else 0)
        while self._sends:
            await asyncio.wait(self._sends)

    def _begin(self, partition: int) -> None:
        numbers, self._waiting[partition] = self._waiting[partition], []
        self._is_under_way[partition] = True
        task = asyncio.create_task(self._send(partition, numbers))
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)

    async def _send(self, partition: int, numbers: list[int]) -> None:
        clock, start, rate = time.perf_counter, self._start, self._rate
        batch = self._producer.create_batch()
        now_ms = time.time_ns() // 1_000_000
        for number in numbers:
            topic = self._topics[number % TOPIC_COUNT]
            headers = headers_of(topic, b"bench-publisher-0", number, now_ms)
            batch.append(key=topic, value=number.to_bytes(8, "big") + self._tail, timestamp=now_ms, headers=headers)
            self.lateness[number] = clock() - start - number / rate
        await (await self._producer.send_batch(batch, self._topic, partition=partition))
        now = clock() - start
        for number in numbers:
            self.latencies[number] = now - number / rate
        self._is_under_way[partition] = False
        if self._waiting[partition]:
            self._begin(partition)


# Reading


@contextlib.asynccontextmanager
async def _consumer(bootstrap: str, topic: str) -> AsyncIterator[tuple[AIOKafkaConsumer, list[TopicPartition]]]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        await consumer._client.set_topics([topic])  # a consumer without a group hears of the topic here
        numbers = consumer.partitions_for_topic(topic)
        if not numbers:
            raise SystemExit(f"there is no topic {topic}")
        partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        yield consumer, partitions
    finally:
        await consumer.stop()


async def consume(bootstrap: str, topic: str, records: int) -> Answer:
    """Read a whole topic; each record's value and headers are looked at."""
    async with _consumer(bootstrap, topic) as (consumer, _):
        started, cpu_s, seen = time.perf_counter(), time.process_time(), 0
        size = 0
        while seen < records:
            for batch in (await consumer.getmany(timeout_ms=1_000, max_records=FETCH_RECORDS)).values():
                for record in batch:
                    size += len(record.value) + len(record.headers)
                seen += len(batch)
        seconds = time.perf_counter() - started
    return {"messages": seen, "seconds": seconds, "cpu_s": time.process_time() - cpu_s, "other_cpu_s": 0.0, "sent": 0}


async def check(bootstrap: str, topic: str, acknowledged: int) -> Answer:
    """Whether a topic holds each acknowledged message once, and those of a publisher in order in each partition."""
    parts: list[bytes] = []
    places: list[tuple[int, int]] = []
    by_name = {name: number for number, name in enumerate(mqtt_topics())}
    topic_numbers: list[int] = []
    async with _consumer(bootstrap, topic) as (consumer, partitions):
        ends = await consumer.end_offsets(partitions)
        total = sum(ends.values())
        while len(parts) < total:
            found = await consumer.getmany(timeout_ms=1_000, max_records=FETCH_RECORDS)
            for place, batch in found.items():
                places.append((place.partition, len(batch)))
                parts += [record.value[:PART_BYTES] for record in batch]
                topic_numbers += [by_name.get(record.headers[0][1], -1) for record in batch]
    columns = np.frombuffer(b"".join(parts), dtype=[("sequence", ">u8"), ("publisher", ">u4")])
    partition_column = np.repeat([each for each, _ in places], [count for _, count in places])
    error = judge_stored(
        columns["sequence"].astype(np.int64),
        columns["publisher"].astype(np.int64),
        partition_column,
        np.array(topic_numbers),
        TOPIC_COUNT,
        acknowledged,
    )
    return {"error": error}


# Looking after topics


async def create_topic(bootstrap: str, topic: str, partitions: int) -> None:
    """Create a topic, and wait until it has leaders."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(topic, partitions, 1)])
        if answer.topic_errors[0][1]:
            raise SystemExit(f"topic {topic} was not created: {answer.topic_errors[0]}")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            (state,) = await admin.describe_topics([topic])
            if len(state["partitions"]) == partitions and all(part["leader"] >= 0 for part in state["partitions"]):
                return
            await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def delete(bootstrap: str, topic: str) -> Answer:
    """Delete a topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([topic])
    finally:
        await admin.close()
    return {}


async def watch(bootstrap: str, topic: str, records: int, wait_s: float) -> Answer:
    """How fast a topic fills, from when its first records are seen until it has `records`."""
    deadline = time.monotonic() + wait_s
    first: tuple[float, int] | None = None
    while time.monotonic() < deadline:
        with contextlib.suppress(KafkaError, OSError):
            async with _consumer(bootstrap, topic) as (consumer, partitions):
                while time.monotonic() < deadline:
                    seen = sum((await consumer.end_offsets(partitions)).values())
                    now = time.perf_counter()
                    if seen and first is None:
                        first = (now, seen)
                    if first is not None and seen >= records:
                        return {"messages": seen - first[1], "seconds": now - first[0]}
                    await asyncio.sleep(POLL_S)
        await asyncio.sleep(0.1)
    raise SystemExit(f"the topic did not get {records} records in {wait_s:.0f} s")


COMMANDS: dict[str, Callable[..., Coroutine[Any, Any, Answer]]] = {
    "produce": produce,
    "latency": latency,
    "consume": consume,
    "check": check,
    "delete": delete,
    "watch": watch,
}


def main(command: str, parameters: str) -> None:
    """Run one command, and print what it found."""
    import uvloop

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    print(json.dumps(uvloop.run(COMMANDS[command](**json.loads(parameters)))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
