"""The newest presence of each client among the latest values: kept in another form, and nothing shows it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from bridge.live.entries import Entry
from bridge.live.latest import SLICE_TOPICS
from devices.bench.frames import encode_connect
from tests.integration.http.conftest import RunningServer, Start
from tests.support.conditions import eventually_async


@contextlib.asynccontextmanager
async def here(server: RunningServer, client_id: str) -> AsyncIterator[None]:
    """A client is connected."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.node.broker.port)
    writer.write(encode_connect(client_id))
    assert await reader.readexactly(4) == b"\x20\x02\0\0"
    try:
        yield
    finally:
        writer.close()
        await writer.wait_closed()


async def told(server: RunningServer, changes: int) -> list[dict[str, Any]]:
    """The records of presence once there are so many; all of them in order."""

    async def found() -> list[dict[str, Any]]:
        answer = await server.http.get("/api/v1/streams/system/records", params={"topic": "$presence/#"})
        records: list[dict[str, Any]] = answer.json()["records"]
        return records if len(records) >= changes else []

    async with asyncio.timeout(10):
        while not (records := await found()):
            await eventually_async(lambda: server.node.presences.waiting == 0)
    return records


async def latest(server: RunningServer, topic_filter: str = "$presence/#") -> dict[str, dict[str, Any]]:
    answer = await server.http.get("/api/v1/topics", params={"topic": topic_filter})
    topics = answer.json()["topics"]
    assert len({each["topic"] for each in topics}) == len(topics)
    return {each["topic"]: each for each in topics}


def as_record(value: dict[str, Any]) -> dict[str, Any]:
    return {name: field for name, field in value.items() if name not in ("age_ms", "count", "interval_s")}


async def test_each_is_its_newest_record_field_by_field(server: RunningServer) -> None:
    async with here(server, "p"), here(server, "hall/7"):
        async with here(server, "p"):
            pass
        records = await told(server, 4)
        newest = {record["topic"]: record for record in records}
        found = await latest(server)
        assert {topic: as_record(value) for topic, value in found.items()} == newest
        assert {topic: value["count"] for topic, value in found.items()} == {"$presence/p": 3, "$presence/hall%2F7": 1}
        assert found["$presence/p"]["interval_s"] is not None
        assert found["$presence/hall%2F7"]["interval_s"] is None
        assert list(await latest(server, "$presence/hall%2F7")) == ["$presence/hall%2F7"]
        assert await latest(server, "#") == {}
        assert await latest(server, "$presence/+/x") == {}


async def test_they_take_no_entries(server: RunningServer) -> None:
    await latest(server, "$server/#")
    before = len(server.node.latest)
    async with contextlib.AsyncExitStack() as stack:
        for number in range(20):
            await stack.enter_async_context(here(server, f"c{number}"))
        await told(server, 20)
        assert len(await latest(server)) == 20
        assert len(server.node.latest) == before


async def test_a_snapshot_and_what_follows_it_show_each_change_once(server: RunningServer) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for number in range(30):
            await stack.enter_async_context(here(server, f"c{number}"))
            if number % 10 == 5:
                readers = [await server.events("topic=$presence/%23&snapshot=1") for _ in range(3)]
        await told(server, 30)
        for reader in readers:
            events = await reader.until(
                lambda events: (
                    [each for each in events if each.name in ("snapshot", "message")]
                    if sum(each.name in ("snapshot", "message") for each in events) >= 30
                    else None
                )
            )
            assert sorted(each.data["payload"]["client_id"] for each in events) == sorted(f"c{n}" for n in range(30))


async def test_after_a_restart_they_come_from_what_was_saved(start_server: Start) -> None:
    count = SLICE_TOPICS + 10
    first = await start_server()
    async with contextlib.AsyncExitStack() as stack:
        for number in range(count):
            await stack.enter_async_context(here(first, f"c{number}"))
        await told(first, 1)
        await eventually_async(lambda: first.node.presences.changes == count)
        await latest(first)
        await first.node.latest.save()
    await eventually_async(lambda: first.node.presences.changes == 2 * count)
    first.uvicorn.should_exit = True
    await first.node.__aexit__(None, None, None)
    second = await start_server()
    entries: list[Entry] = [each for each in second.node.latest.capture() if each.topic.name.startswith("$presence/")]
    assert {(each.count, b'"online":false' in each.frame) for each in entries} == {(2, True)}
    assert len(entries) == count
    async with here(second, "c7"):
        await eventually_async(lambda: second.node.presences.changes == 1)
        await told(second, 1)
        found = await latest(second, "$presence/c7")
        assert found["$presence/c7"]["payload"]["seq"] == 3
        assert found["$presence/c7"]["count"] == 3
