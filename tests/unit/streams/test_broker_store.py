"""What the broker keeps over its end, in real files: written with the records, read at the next start."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from bridge.streams.broker_store import BrokerStore
from bridge.streams.sqlite_schema import FILE_NAME
from broker.retained import RetainedMessage
from broker.store import (
    Change,
    Durable,
    RetainedChange,
    SessionChange,
    SessionEnd,
    SessionRow,
    SubscriptionChange,
    SubscriptionEnd,
    SubscriptionRow,
)
from tests.support.log_contract import RunMaker, numbers, wait_until
from tests.unit.streams.conftest import OpenStore

FRAME = b"\x31\x06\x00\x03a/bx"


def message(topic_name: str, received_at_ms: int = 5, expires_at_ms: int = 0) -> RetainedMessage:
    return RetainedMessage(topic_name, FRAME, False, "c", received_at_ms, expires_at_ms)


async def kept(store: BrokerStore, *changes: Change) -> None:
    """Hand over changes and wait until they are durable."""
    durable = asyncio.Event()
    store.keep([*changes, Durable(durable.set)])
    store.flush()
    await asyncio.wait_for(durable.wait(), 10)


async def test_retained_messages_are_there_after_a_restart(open_store: OpenStore) -> None:
    told: list[int] = []
    file = open_store()
    await kept(
        BrokerStore(file, lambda: told.append(1)),
        RetainedChange("a", message("a")),
        RetainedChange("gone", message("gone")),
        RetainedChange("b", message("b", 6, 7)),
        RetainedChange("gone", None),
        RetainedChange("a", message("a", 8)),
    )
    assert told
    await file.close()
    rows = sorted(BrokerStore(open_store(), lambda: None).load_retained())
    assert rows == [("a", FRAME, False, "c", 8, 0), ("b", FRAME, False, "c", 6, 7)]


async def test_a_message_commits_in_the_transaction_of_its_record(open_store: OpenStore, tmp_path: Path) -> None:
    """A reader that sees either sees both, in every state between commits."""
    file = open_store()
    store = BrokerStore(file, lambda: None)
    log = file.open_log("s")
    maker = RunMaker(log)
    reader = sqlite3.connect(f"{(tmp_path / FILE_NAME).as_uri()}?mode=ro", uri=True)
    for number in range(200):
        store.keep([RetainedChange("t", message("t", number + 1))])
        log.append(maker.run(numbers(1)))
        log.flush()
        sql = "SELECT (SELECT max(received_ms) FROM retained), (SELECT sum(count) FROM batch_1)"
        retained_to, records = reader.execute(sql).fetchone()
        assert retained_to == records
        if number % 20 == 0:
            await asyncio.sleep(0)
    await wait_until(lambda: log.next_offset == 200)
    reader.close()


async def test_many_changes_of_one_topic_are_one_write(open_store: OpenStore, tmp_path: Path) -> None:
    file = open_store()
    changes = [RetainedChange("a", message("a", number)) for number in range(10_000)]
    await kept(BrokerStore(file, lambda: None), *changes)
    rows = list(BrokerStore(file, lambda: None).load_retained())
    assert rows == [("a", FRAME, False, "c", 9_999, 0)]


async def test_sessions_and_subscriptions_are_there_after_a_restart(open_store: OpenStore) -> None:
    file = open_store()
    kept_one = SessionRow("kept", True, 60, 7_000, b"\x30\x03\x00\x01a", 5, 6_000)
    usual = SubscriptionRow("kept", "a/#", 0x2E, 9, None, "", "", {})
    replay = SubscriptionRow("kept", "$replay/-1h/b", 1, 0, "-1h", "b", "place", {1: 7})
    await kept(
        BrokerStore(file, lambda: None),
        SessionChange(kept_one._replace(expires_at_ms=0)),
        SubscriptionChange(usual),
        SubscriptionChange(usual._replace(topic_filter="gone")),
        SessionChange(SessionRow("ended", False, 1, 0, None, 0, 0)),
        SubscriptionChange(usual._replace(client_id="ended")),
        SubscriptionEnd("kept", "gone"),
        SessionEnd("ended"),
        SubscriptionChange(replay),
        SessionChange(kept_one),
    )
    await file.close()
    store = BrokerStore(open_store(), lambda: None)
    assert list(store.load_sessions()) == [kept_one]
    assert sorted(store.load_subscriptions()) == sorted([replay, usual])
