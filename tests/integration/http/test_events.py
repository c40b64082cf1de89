"""Live events over real sockets and a stored stream: exact resume, both policies, heartbeats, and slow readers."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from bridge.cursors import Cursor
from bridge.live.reader import Place
from tests.integration.http.conftest import RunningServer, SseClient, Start
from tests.support.conditions import eventually_async
from tests.unit.live.parts import Event

SMALL = {
    "waiting_bytes_max": "64KiB",
    "conflate_from_bytes": "16KiB",
    "feed_bytes_max": "16KiB",
    "chunk_bytes_max": "16KiB",
}


async def publish_many(server: RunningServer, rows: list[tuple[str, bytes]]) -> None:
    """Through the router, as fast as the log takes them; returns once all are committed."""
    log = server.node.streams["default"]
    end = log.next_offset + len(rows)
    for number, (topic, payload) in enumerate(rows, 1):
        server.node.broker.publish(topic, payload, qos=0)
        if number % 200 == 0:
            await asyncio.sleep(0)
    await eventually_async(lambda: log.next_offset >= end, what="everything is stored")


def last_id(events: list[Event]) -> str | None:
    return next((event.id for event in reversed(events) if event.id is not None), None)


def has_live(events: list[Event]) -> bool:
    return any(event.name == "live" for event in events)


async def test_since_begins_with_history_and_goes_live(server: RunningServer) -> None:
    await server.publish("a", 1)
    await server.publish("b", 2)
    for since in ("-15m", "0", "2020-01-01T00:00:00+02:00", "2020-01-01T00:00:00%2B02:00", "2020-01-01T00:00:00Z"):
        client = await server.events(f"topic=a&since={since}")
        await client.until(has_live)
        assert [event.name for event in client.events if event.name] == ["message", "live"], since
    await server.publish("a", 3)
    assert [event.data["payload"] for event in await client.messages(2)] == [1, 3]
    now = await server.events("topic=a&since=now")
    await now.until(has_live)
    assert [event.name for event in now.events if event.name] == ["live"]


async def test_retry_is_sent_once_and_headers_are_those_of_a_stream(server: RunningServer) -> None:
    client = await server.events("topic=%23")
    await server.publish("a", 1)
    await client.messages(1)
    assert bytes(client.body).count(b"retry: ") == 1
    head = client.head.lower()
    assert "content-type: text/event-stream" in head
    assert "cache-control: no-store" in head
    assert "x-accel-buffering: no" in head


async def test_header_wins_over_cursor_and_both_over_since_and_snapshot(server: RunningServer) -> None:
    first = await server.events("topic=a")
    for number in range(4):
        await server.publish("a", number)
    ids = [event.id for event in await first.messages(4)]
    for query, headers, expected in [
        (f"topic=a&cursor={ids[0]}", {"Last-Event-ID": ids[2]}, [3]),
        (f"topic=a&since=0&snapshot=1&cursor={ids[1]}", {}, [2, 3]),
        ("topic=a&since=0&snapshot=1", {"Last-Event-ID": ids[2]}, [3]),
        (f"topic=a&cursor={ids[2]}", {"Last-Event-ID": ""}, [3]),
        (f"topic=%23&cursor={ids[2]}", {}, [3]),
    ]:
        client = await server.events(query, headers)  # type: ignore[arg-type]
        await client.until(has_live)
        assert [event.data["payload"] for event in client.events if event.name == "message"] == expected, query


async def test_snapshot_then_live(server: RunningServer) -> None:
    for number in range(5):
        await server.publish(f"t/{number % 2}", number)
    await server.publish("other", 0)
    client = await server.events("topic=t/%2B&snapshot=1")
    await client.until(has_live)
    named = [event for event in client.events if event.name]
    assert [(event.name, event.id is None) for event in named] == [
        ("snapshot", True), ("snapshot", True), ("live", False),
    ]  # fmt: skip
    assert {event.data["topic"]: event.data["payload"] for event in named[:2]} == {"t/0": 4, "t/1": 3}
    await server.publish("t/0", 6)
    assert [event.data["payload"] for event in await client.messages(1)] == [6]


async def test_heartbeats_come_and_carry_the_position(start_server: Start) -> None:
    server = await start_server(live={"heartbeat_s": 1})
    client = await server.events("topic=rare")
    await server.publish("other", 1)

    def is_behind_it(event: Event) -> bool:
        """The first heartbeat may have come before it was published."""
        if event.id is None:
            return False
        return Cursor.parse(event.id).position_by_stream["default"].offset_by_partition == {0: 1}

    moved = await client.until(lambda events: [event for event in events[2:] if is_behind_it(event)])
    assert moved[0].name == ""
    assert moved[0].data is None
    assert any(event.comment for event in client.events)
    resumed = await server.events(f"topic=%23&cursor={moved[0].id}")
    await resumed.until(has_live)
    assert [event for event in resumed.events if event.name == "message"] == []


async def test_cursor_of_another_epoch_replays_everything_kept(server: RunningServer) -> None:
    await server.publish("a", 1)
    client = await server.events("topic=%23", {"Last-Event-ID": "default~gone~0.77"})
    await client.until(has_live)
    named = [event for event in client.events if event.name]
    assert [event.name for event in named] == ["gap", "message", "live"]
    assert named[0].data == {"from": "default~gone~0.77", "to": named[0].id, "lost": None, "reason": "epoch"}


async def test_stopped_reader_disturbs_nobody_and_loses_nothing(start_server: Start) -> None:
    server = await start_server(live=SMALL)
    payload = b"x" * 500
    stopped, conflated = await server.events("topic=%23"), await server.events("topic=%23&overflow=conflate")
    others = [await server.events("topic=%23") for _ in range(3)]
    await server.settle(5)
    total = 20_000
    rows = [(f"t/{number % 20}", b'{"n":%d,"x":"%b"}' % (number, payload)) for number in range(total)]
    reading = [asyncio.create_task(other.messages(total, 60)) for other in others]
    await publish_many(server, rows)
    for task in reading:
        assert [event.data["payload"]["n"] for event in await task] == list(range(total))
    readers = list(server.node.hub.readers)
    await eventually_async(lambda: all(reader.place is Place.LIVE for reader in readers[2:]))
    assert readers[0].place in (Place.FULL, Place.FEEDING)
    assert [event.data["payload"]["n"] for event in await stopped.messages(total, 60)] == list(range(total))
    latest: dict[str, int] = {}
    noted = [0]

    def note(events: list[Event]) -> bool:
        new = events[noted[0] :]
        noted[0] = len(events)
        latest.update({event.data["topic"]: event.data["payload"]["n"] for event in new if event.name == "message"})
        return sorted(latest.values()) == list(range(total - 20, total))

    await conflated.until(note)
    assert len([event for event in conflated.events if event.name == "message"]) < total
    await eventually_async(lambda: all(reader.place is Place.LIVE for reader in server.node.hub.readers))


async def test_slow_reader_that_asked_for_it_is_cut_and_resumes_where_it_was(start_server: Start) -> None:
    server = await start_server(live=SMALL)
    slow = await server.events("topic=t/%23&overflow=disconnect")
    watcher = await server.events("topic=$server/reader_cut")
    total = 20_000
    text = b"x" * 500
    await publish_many(server, [(f"t/{number % 20}", b'{"n":%d,"x":"%b"}' % (number, text)) for number in range(total)])
    (told,) = await watcher.until(lambda events: [event for event in events if event.name == "message"])
    assert told.data["topic"] == "$server/reader_cut"
    assert told.data["payload"].items() >= {"reason": "overflow", "filters": ["t/#"], "subject": "anonymous"}.items()
    with contextlib.suppress(ConnectionError):  # cut short, behind what the kernel had
        while await slow.read_chunk():
            pass
    seen = [event.data["payload"]["n"] for event in slow.events if event.name == "message"]
    assert len(seen) < total
    resumed = await server.events(f"topic=t/%23&cursor={last_id(slow.events)}")
    seen += [event.data["payload"]["n"] for event in await resumed.messages(total - len(seen), 60)]
    assert seen == list(range(total))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("overflow", ["replay", "conflate"])
async def test_reader_cut_at_random_points_sees_each_once_and_misses_none(
    start_server: Start, overflow: str, seed: int
) -> None:
    server = await start_server(live=SMALL)
    choose = random.Random(seed)
    filters = choose.choice(["topic=%23", "topic=rare", "topic=a/%2B&topic=rare"])
    wanted = {"topic=%23": None, "topic=rare": ("rare",), "topic=a/%2B&topic=rare": ("a/1", "rare")}[filters]
    total = 4_000
    topics = [choose.choice(["a/1", "b/1", "b/2"] if choose.random() < 0.99 else ["rare"]) for _ in range(total)]
    publishing = asyncio.create_task(
        publish_many(server, [(topic, b"%d" % number) for number, topic in enumerate(topics)])
    )
    expected = [number for number, topic in enumerate(topics) if wanted is None or topic in wanted]
    last_of = {topics[number]: number for number in expected}
    seen: list[int] = []
    latest: dict[str, int] = {}
    cursor = "since=0"

    def take(client: SseClient) -> None:
        for event in client.events:
            assert event.name != "gap"
            if event.name == "message":
                seen.append(event.data["offset"])
                latest[event.data["topic"]] = event.data["payload"]

    async with asyncio.timeout(30):
        while (len(seen) < len(expected)) if overflow == "replay" else (latest != last_of):
            client = await server.events(f"{filters}&overflow={overflow}&{cursor}")
            for _ in range(choose.randint(1, 12)):
                left = len(expected) - len(seen) - sum(event.name == "message" for event in client.events)
                if (overflow == "replay" and left <= 0) or not await client.read_chunk():
                    break
                if publishing.done() and has_live(client.events) and client.body.count(b"event: live"):
                    break
            take(client)
            client.close()
            position = last_id(client.events)
            cursor = f"cursor={position}" if position is not None else cursor
    await publishing
    if overflow == "replay":
        assert seen == expected
    else:
        assert set(seen) <= set(expected)
    await server.settle(0)
