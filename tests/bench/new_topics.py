"""What a topic costs that comes for the first time, and again, in ns a publish. `python -m tests.bench.new_topics`"""

from __future__ import annotations

import gc
import time

from broker.config import BrokerConfig
from broker.engine import Engine
from broker.outbox import flush
from tests.support.engine_client import EngineClient

TOPICS = 100_000
ROWS = 1_000
CLIENTS = 100


def read_of(first: int) -> bytes:
    """One read of plain publishes to `ROWS` topics."""
    frames = []
    for number in range(first, first + ROWS):
        topic = b"bench/dev/%06d" % number
        body = len(topic).to_bytes(2, "big") + topic + b"x" * 64
        frames.append(bytes((0x30, len(body))) + body)
    return b"".join(frames)


def measure(filters_by_client: list[list[str]]) -> list[float]:
    """All topics twice, in ns a publish."""
    engine = Engine(BrokerConfig())
    readers = []
    for number, topic_filters in enumerate(filters_by_client):
        reader = EngineClient(engine, 4)
        reader.connect(f"s{number}")
        for topic_filter in topic_filters:
            reader.subscribe(topic_filter, 0)
        readers.append(reader)
    publisher = EngineClient(engine, 4)
    publisher.connect("p")
    reads = [read_of(first) for first in range(0, TOPICS, ROWS)]
    costs = []
    for _ in range(2):
        started = time.perf_counter_ns()
        for data in reads:
            publisher.connection.receive(data, 0)
            flush(engine.touched, 0)
            for reader in readers:
                reader.transport.written.clear()
        costs.append((time.perf_counter_ns() - started) / TOPICS)
    return costs


if __name__ == "__main__":
    gc.set_threshold(50_000, 20, 100)  # as the server does
    names = [f"bench/dev/{number:06d}" for number in range(TOPICS)]
    cases = {
        "nobody subscribes": [],
        "one #": [["bench/#"]],
        "100 clients, 1,000 topics each": [names[first::CLIENTS] for first in range(CLIENTS)],
    }
    for title, filters_by_client in cases.items():
        first, again = measure(filters_by_client)
        print(f"{title:32}  first {first:6.0f}  again {again:6.0f} ns a publish")
