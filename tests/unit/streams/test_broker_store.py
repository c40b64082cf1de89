"""What the broker keeps over its end, in real files: written with the records, read at the next start."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from bridge.streams.broker_store import BrokerStore
from bridge.streams.sqlite_schema import FILE_NAME
from broker.retained import RetainedMessage
from broker.store import (
    Change,
    CopiesEnd,
    CopiesTaken,
    CopyRow,
    Durable,
    FlightRow,
    FlightsEnd,
    FlightsReleased,
    FlightsSent,
    MarkChange,
    PositionChange,
    ReplayMoved,
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


def same(found: Iterable[object], expected: Sequence[object]) -> bool:
    """Also in type: compiled modules take no 1 for True."""
    return repr(list(found)) == repr(list(expected))


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
        RetainedChange({"a": message("a")}),
        RetainedChange({"gone": message("gone")}),
        RetainedChange({"b": message("b", 6, 7)}),
        RetainedChange({"gone": None}),
        RetainedChange({"a": message("a", 8)}),
    )
    assert told
    await file.close()
    rows = sorted(BrokerStore(open_store(), lambda: None).load_retained())
    assert same(rows, [("a", FRAME, False, "c", 8, 0), ("b", FRAME, False, "c", 6, 7)])


async def test_a_message_commits_in_the_transaction_of_its_record(open_store: OpenStore, tmp_path: Path) -> None:
    """A reader that sees either sees both, in every state between commits."""
    file = open_store()
    store = BrokerStore(file, lambda: None)
    log = file.open_log("s")
    maker = RunMaker(log)
    reader = sqlite3.connect(f"{(tmp_path / FILE_NAME).as_uri()}?mode=ro", uri=True)
    for number in range(200):
        store.keep([RetainedChange({"t": message("t", number + 1)})])
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
    changes = [RetainedChange({"a": message("a", number)}) for number in range(10_000)]
    await kept(BrokerStore(file, lambda: None), *changes)
    rows = list(BrokerStore(file, lambda: None).load_retained())
    assert rows == [("a", FRAME, False, "c", 9_999, 0)]


async def test_many_topics_in_one_group_are_all_there(open_store: OpenStore) -> None:
    """More than one statement takes, put and cleared, in changes of several turns."""
    file = open_store()
    store = BrokerStore(file, lambda: None)
    names = [f"t/{number}" for number in range(1_000)]
    await kept(store, RetainedChange({name: message(name, 1) for name in names}))
    store.keep([RetainedChange({name: message(name, 2) for name in names[300:]}), Durable(lambda: None)])
    store.keep([RetainedChange(dict.fromkeys(names[:301] + names[999:], None)), Durable(lambda: None)])
    await kept(store, RetainedChange({"t/0": message("t/0", 3)}))
    rows = {row[0]: row[4] for row in store.load_retained()}
    assert rows == {"t/0": 3} | dict.fromkeys(names[301:999], 2)


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
        ReplayMoved("kept", "$replay/-1h/b", "another place"),
        SessionChange(kept_one),
    )
    await file.close()
    store = BrokerStore(open_store(), lambda: None)
    assert same(store.load_sessions(), [kept_one])
    assert same(sorted(store.load_subscriptions()), sorted([replay._replace(position="another place"), usual]))


async def test_what_sessions_are_owed_is_there_after_a_restart(open_store: OpenStore) -> None:
    file = open_store()
    flight = FlightRow("k", 1, 1, 10, False, True, (4, 5))
    copied = CopyRow("k", 7, 1, True, (3,), "a/b", FRAME, False, "p", 5, "$share/g/a/b")
    await kept(
        BrokerStore(file, lambda: None),
        MarkChange({1: 3}),
        MarkChange({1: 9, 2: 4}),
        PositionChange("k", {1: 2}, {1: 2}),
        PositionChange("gone", {1: 2}, {1: 2}),
        PositionChange("gone", None, {1: 9}),
        FlightsSent([flight, flight._replace(packet_id=2, offset=11), flight._replace(packet_id=3, offset=12)]),
        FlightsSent([FlightRow("k", 4, 0, 8, False, False, ())]),
        CopiesTaken([copied, copied._replace(number=8), copied._replace(number=2)]),
        CopiesTaken([copied._replace(qos=2)]),
        CopiesEnd("k", 3),
        FlightsReleased("k", 1, 2),
        FlightsEnd("k", [1, 4]),
    )
    await file.close()
    store = BrokerStore(open_store(), lambda: None)
    assert store.load_mark() == {1: 9, 2: 4}
    assert store.load_positions() == {"k": {1: 2}}
    released = flight._replace(packet_id=2, offset=11, is_released=True)
    assert same(store.load_flights(), [released, flight._replace(packet_id=3, offset=12)])
    assert list(store.load_ended_flights()) == [("k", 1, 10)]
    assert same(store.load_copies(), [copied])
    await kept(store, PositionChange("k", {1: 11}, {1: 11}))
    assert not list(store.load_ended_flights())
    await kept(store, SessionEnd("k"))
    assert not [*store.load_flights(), *store.load_copies(), *store.load_positions()]


async def test_a_packet_id_that_is_given_again_comes_last(open_store: OpenStore) -> None:
    store = BrokerStore(open_store(), lambda: None)
    flight = FlightRow("k", 1, 1, 10, False, False, ())
    await kept(
        store,
        FlightsSent([flight, flight._replace(packet_id=2, offset=11)]),
        FlightsEnd("k", [1]),
        FlightsSent([flight._replace(offset=12)]),
    )
    assert [row.offset for row in store.load_flights()] == [11, 12]


async def test_records_are_read_from_a_place_on_by_topic_and_qos(open_store: OpenStore) -> None:
    file = open_store()
    store = BrokerStore(file, lambda: None)
    log = file.open_log("s")
    maker = RunMaker(log)
    for qos in (1, 0, 1, 2):
        log.append(maker.run(numbers(3), qos=qos))
        log.flush()
    await wait_until(lambda: log.next_offset == 12)
    log_id = store.log_id(log)
    assert store.position() == {log_id: 12}
    wanted = maker.topic_names[1]
    found = list(store.read_records({log_id: 2}, lambda topic_name: topic_name == wanted))
    assert [(record.offset, record.topic_name) for record in found] == [(7, wanted), (10, wanted)]
    assert not list(store.read_records({log_id: 0}, lambda topic_name: False))
    assert store.log_id(object()) == 0


async def test_retention_waits_for_what_is_held(open_store: OpenStore, quick_upkeep: None) -> None:
    file = open_store(holds_rows=True)
    store = BrokerStore(file, lambda: None)
    log = file.open_log("s", retention_age_ms=1)
    maker = RunMaker(log)
    for end in range(3, 31, 3):
        log.append(maker.run(numbers(3)))
        log.flush()
        await wait_until(lambda end=end: log.next_offset == end)  # type: ignore[misc]
    log_id = store.log_id(log)
    await wait_until(lambda: bool(store.wanted()))
    assert log.first_offset == 0
    store.hold({log_id: 30})
    assert not store.wanted()
    await wait_until(lambda: log.first_offset == 30)
