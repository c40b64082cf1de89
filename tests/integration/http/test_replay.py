"""Replays over real sockets: `until`, `speed`, and the state at a time before history."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.integration.http.conftest import RunningServer, SseClient, Start
from tests.support.conditions import eventually_async
from tests.unit.live.parts import Event

MEMORY = {"name": "fast", "topics": ["m/#"], "storage": "memory"}


@pytest.fixture
async def server(start_server: Start) -> RunningServer:
    """Topics below `m` are kept in memory, all others on disk."""
    return await start_server(streams=[MEMORY])


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def next_ms(after_ms: int) -> None:
    await eventually_async(lambda: now_ms() > after_ms, what="another millisecond")


def has_live(events: list[Event]) -> bool:
    return any(event.name == "live" for event in events)


async def to_the_end(client: SseClient) -> list[Event]:
    """All events until the server ends the response."""
    while await client.read_chunk():
        continue
    return [event for event in client.events if event.name]


async def publish_spaced(server: RunningServer, count: int) -> list[int]:
    """Numbers to one topic of each stream in turn, each in a millisecond of its own; returns a time after each."""
    moments = []
    for number in range(count):
        await server.publish(f"{'md'[number % 2]}/x", number)
        moments.append(now_ms() + 1)
        await next_ms(moments[-1])
    return moments


async def test_replay_until_a_time_ends_and_then_there_is_nothing_more(server: RunningServer) -> None:
    moments = await publish_spaced(server, 6)
    url = f"topic=%2B/x&since=-1h&until={moments[3]}"
    events = await to_the_end(await server.events(url))
    assert sorted(event.data["payload"] for event in events[:-1]) == [0, 1, 2, 3]
    assert [event.name for event in events] == ["message"] * 4 + ["end"]
    end = events[-1].id
    assert end is not None
    again = await server.http.get(f"/api/v1/events?{url}", headers={"Last-Event-ID": end})
    assert (again.status_code, again.content) == (204, b"")
    beyond = await server.http.get(f"/api/v1/events?topic=%2B/x&until={moments[1]}&cursor={end}")
    assert beyond.status_code == 204
    rest = await to_the_end(await server.events(f"topic=%2B/x&until={moments[4]}&cursor={end}"))
    assert [event.data["payload"] for event in rest if event.name == "message"] == [4]


async def test_what_is_gone_before_the_end_is_told_first(server: RunningServer) -> None:
    """Then there is nothing more: an EventSource would not come back from a 204."""
    moments = await publish_spaced(server, 4)
    url = f"topic=d/x&until={moments[-1]}"
    epoch = server.node.hub.log_by_name["default"].epoch
    trimmed = await server.http.post("/api/v1/streams/default/trim", json={"before_offset": 2})
    assert trimmed.status_code == 200
    for cursor, reason, lost in ((f"default~{epoch}~0.1", "retention", 1), ("default~old~0.1", "epoch", None)):
        events = await to_the_end(await server.events(f"{url}&cursor={cursor}"))
        assert [event.name for event in events] == ["gap", "end"]
        assert (events[0].data["reason"], events[0].data["lost"]) == (reason, lost)
        again = await server.http.get(f"/api/v1/events?{url}", headers={"Last-Event-ID": events[-1].id or ""})
        assert again.status_code == 204


async def test_replay_that_was_cut_goes_on_to_the_same_end(server: RunningServer) -> None:
    moments = await publish_spaced(server, 6)
    url = f"topic=%2B/x&since=-1h&until={moments[-1]}&speed=1000000"
    events = await to_the_end(await server.events(url))
    assert [event.data["payload"] for event in events[:-1]] == list(range(6))
    for number, event in enumerate(events[:-1]):
        assert event.id is not None
        if number == 5:
            break
        rest = await to_the_end(await server.events(url, {"Last-Event-ID": event.id}))
        assert [each.data["payload"] for each in rest[:-1]] == list(range(number + 1, 6))
        assert rest[-1].name == "end"


async def test_live_reader_ends_at_a_time_to_come(server: RunningServer) -> None:
    await server.publish("d/x", 0)
    end_ms = now_ms() + 2_000
    client = await server.events(f"topic=d/x&since=-1h&until={end_ms}")
    await client.until(has_live)
    await server.publish("d/x", 1)
    events = await to_the_end(client)
    assert now_ms() >= end_ms
    assert [event.name for event in events] == ["message", "live", "message", "end"]


async def test_paced_replay_keeps_the_spacing_and_becomes_live(server: RunningServer) -> None:
    loop = asyncio.get_running_loop()
    for number in range(3):
        await server.publish(f"{'md'[number % 2]}/x", number)
        await next_ms(now_ms() + 200)
    client = await server.events("topic=%2B/x&since=-1h&speed=2")
    arrived: list[float] = []
    for count in range(1, 4):
        await client.messages(count)
        arrived.append(loop.time())
    messages = await client.messages(3)
    assert [event.data["payload"] for event in messages] == [0, 1, 2]
    assert arrived[2] - arrived[0] >= 0.15
    await client.until(has_live)
    await server.publish("d/x", 3)
    assert [event.data["payload"] for event in (await client.messages(4))] == [0, 1, 2, 3]


async def test_snapshot_at_a_time_then_history_then_live(server: RunningServer) -> None:
    for number in range(2):
        for top in "md":
            await server.publish(f"{top}/x", number)
    await server.publish("d/y", "old")
    middle = now_ms() + 1
    await next_ms(middle)
    for top in "md":
        await server.publish(f"{top}/x", 2)
    client = await server.events(f"topic=m/%23&topic=d/%23&snapshot=1&since={middle}")
    await client.until(has_live)
    events = [event for event in client.events if event.name]
    assert [event.name for event in events] == ["snapshot"] * 3 + ["message"] * 2 + ["live"]
    assert {event.data["topic"]: event.data["payload"] for event in events[:3]} == {"d/x": 1, "m/x": 1, "d/y": "old"}
    assert all(event.id is None for event in events[:3])
    assert [event.data["payload"] for event in events[3:5]] == [2, 2]
    await server.publish("d/y", "new")
    assert (await client.messages(3))[-1].data["payload"] == "new"


async def test_without_hand_over_the_response_ends_too(start_server: Start) -> None:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    server = await start_server(HttpToolsProtocol)
    await server.publish("d/x", 1)
    end_ms = now_ms() + 1
    await next_ms(end_ms)
    events = await to_the_end(await server.events(f"topic=d/x&since=-1h&until={end_ms}"))
    assert [event.name for event in events] == ["message", "end"]
