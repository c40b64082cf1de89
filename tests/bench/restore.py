"""How long a start takes with so many kept sessions and retained messages.

`python -m tests.bench.restore [MESSAGES] [SESSIONS]` prints seconds of the processor's time: for reading the rows
alone, then for the whole start of a broker with them. Each session has three subscriptions. Then every session is owed
one message among ten that nobody takes.
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
from tests.support.log_contract import RunMaker, wait_until

MESSAGES = 1_000_000
SESSIONS = 100_000
BYTES_MAX = 1 << 40
RUN_ROWS = 1_000
OTHERS = 10
DEVICES_PER_SITE = 1_000


def retained_rows(count: int) -> Iterator[tuple[str, bytes, int, str, int, int]]:
    """Messages of 64 bytes on topics of four levels."""
    for number in range(count):
        site, device = divmod(number, DEVICES_PER_SITE)
        topic_name = f"site/{site}/device-{device}/temperature"
        body = len(topic_name).to_bytes(2, "big") + topic_name.encode() + b"x" * 64
        yield topic_name, bytes((0x31, len(body))) + body, 0, f"device-{device}", 1, 0


def subscription_rows(sessions: int) -> Iterator[tuple[str, str, int, int, None, str, str, str]]:
    """One filter of its own, one of its site and one that all have."""
    for number in range(sessions):
        for topic_filter in (f"command/device-{number}/#", f"site/{number % DEVICES_PER_SITE}/+", "news"):
            yield f"device-{number}", topic_filter, 1, 0, None, "", "", "{}"


async def measure(directory: Path, messages: int, sessions: int) -> None:
    await SqliteStore.open(directory).close()
    with sqlite3.connect(directory / FILE_NAME) as connection:
        connection.executemany("INSERT INTO retained VALUES (?, ?, ?, ?, ?, ?)", retained_rows(messages))
        rows = [(f"device-{number}", 0, 1 << 20, 1 << 50, None, 0, 0) for number in range(sessions)]
        connection.executemany("INSERT INTO session VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        connection.executemany("INSERT INTO subscription VALUES (?, ?, ?, ?, ?, ?, ?, ?)", subscription_rows(sessions))
    connection.close()
    file = SqliteStore.open(directory)
    store = BrokerStore(file, lambda: None)
    began = time.process_time()
    count = sum(1 for _ in store.load_retained())
    print(f"{count:,} retained messages read in {time.process_time() - began:.1f} s")
    began = time.process_time()
    count = sum(1 for _ in store.load_sessions()) + sum(1 for _ in store.load_subscriptions())
    print(f"{sessions:,} sessions read in {time.process_time() - began:.1f} s ({count:,} rows)")
    config = BrokerConfig(("127.0.0.1", 0), retained_messages_max=messages, retained_bytes_max=BYTES_MAX)
    began = time.process_time()
    async with Broker(config, store=store) as broker:
        found = f"{len(broker.engine.retained):,} messages and {len(broker.engine.sessions):,} sessions"
        print(f"a broker with {found} starts in {time.process_time() - began:.1f} s")
    await owe(file, sessions)
    began = time.process_time()
    async with Broker(config, store=store) as broker:
        owed = broker.metrics.queued_messages
        print(f"with {owed:,} owed messages it starts in {time.process_time() - began:.1f} s")
    await file.close()


async def owe(file: SqliteStore, sessions: int) -> None:
    """A message for each session since the mark, and ten for nobody."""
    log = file.open_log("default")
    file.writer.call(lambda: file._connection.execute("INSERT OR REPLACE INTO meta VALUES ('owed_mark', '{}')"))
    maker = RunMaker(log)
    for first in range(0, sessions, RUN_ROWS):
        numbers = range(first, min(first + RUN_ROWS, sessions))
        log.append(maker.run([b"x" * 64] * len(numbers), topics=[f"command/device-{n}/set" for n in numbers]))
        for _ in range(OTHERS):
            log.append(maker.run([b"x" * 64] * len(numbers), topics=[f"telemetry/{n}" for n in range(100)]))
        log.flush()
    await wait_until(lambda: log.next_offset == sessions * (OTHERS + 1), timeout_s=120)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        counts = [int(argument) for argument in sys.argv[1:]]
        asyncio.run(measure(Path(name), *(counts + [MESSAGES, SESSIONS][len(counts) :])))
