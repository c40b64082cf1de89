"""How long a start takes with so many retained messages: `python -m tests.bench.restore [MESSAGES]`.

Reading their rows alone, then the whole start of a broker with them; seconds of the processor's time.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bridge.streams.broker_store import BrokerStore
from bridge.streams.sqlite_schema import FILE_NAME
from bridge.streams.sqlite_store import SqliteStore
from broker.config import BrokerConfig
from broker.server import Broker

MESSAGES = 1_000_000
BYTES_MAX = 1 << 40
DEVICES_PER_SITE = 1_000


def retained_rows(count: int) -> Iterator[tuple[str, bytes, int, str, int, int]]:
    """Messages of 64 bytes on topics of four levels."""
    for number in range(count):
        site, device = divmod(number, DEVICES_PER_SITE)
        topic_name = f"site/{site}/device-{device}/temperature"
        body = len(topic_name).to_bytes(2, "big") + topic_name.encode() + b"x" * 64
        yield topic_name, bytes((0x31, len(body))) + body, 0, f"device-{device}", 1, 0


async def measure(directory: Path, messages: int) -> None:
    await SqliteStore.open(directory).close()
    with sqlite3.connect(directory / FILE_NAME) as connection:
        connection.executemany("INSERT INTO retained VALUES (?, ?, ?, ?, ?, ?)", retained_rows(messages))
    connection.close()
    file = SqliteStore.open(directory)
    store = BrokerStore(file, lambda: None)
    began = time.process_time()
    count = sum(1 for _ in store.load_retained())
    print(f"{count:,} retained messages read in {time.process_time() - began:.1f} s")
    config = BrokerConfig(("127.0.0.1", 0), retained_messages_max=messages, retained_bytes_max=BYTES_MAX)
    began = time.process_time()
    async with Broker(config, store=store) as broker:
        print(f"a broker with {len(broker.engine.retained):,} starts in {time.process_time() - began:.1f} s")
    await file.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(measure(Path(name), int(sys.argv[1]) if len(sys.argv) > 1 else MESSAGES))
