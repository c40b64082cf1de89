"""Trim, delete and dead letters over HTTP, with readers connected."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.streams.frames import encode_record
from bridge.streams.sqlite_store import SqliteStore
from tests.integration.http.conftest import RunningServer, Start
from tests.integration.http.test_problems import assert_problem
from tests.support.conditions import eventually_async
from tests.unit.test_encoding import make_run

MEMORY = {"name": "fast", "topics": ["m/#"], "storage": "memory"}
STREAMS = [("fast", "m"), ("default", "d")]


@pytest.fixture
async def server(start_server: Start) -> RunningServer:
    """Topics below `m` are kept in memory (stream `fast`), all others on disk (stream `default`)."""
    return await start_server(streams=[MEMORY])


async def offsets(server: RunningServer, stream: str) -> list[int]:
    page = (await server.http.get(f"/api/v1/streams/{stream}/records")).json()
    return [record["offset"] for record in page["records"]]


async def command(server: RunningServer) -> dict[str, object]:
    """The one that was told on `$server/command`, without time and address."""
    found: list[dict[str, Any]] = []

    async def is_stored() -> bool:
        answer = await server.http.get("/api/v1/streams/system/records?topic=%24server/command")
        found[:] = answer.json()["records"]
        return bool(found)

    await eventually_async(is_stored)
    (record,) = found
    payload: dict[str, object] = record["payload"]
    assert payload.pop("time")
    assert payload.pop("address")
    return payload


@pytest.mark.parametrize(("stream", "top"), STREAMS)
async def test_trim_before_an_offset(server: RunningServer, stream: str, top: str) -> None:
    for number in range(6):
        await server.publish(f"{top}/x", number)
    answer = await server.http.post(f"/api/v1/streams/{stream}/trim", json={"before_offset": 4})
    assert answer.status_code == 200
    found = answer.json()
    assert (found["stream"], found["first_offset"], found["deleted"], found["complete"]) == (stream, 4, 4, True)
    assert await offsets(server, stream) == [4, 5]
    described = (await server.http.get(f"/api/v1/streams/{stream}")).json()
    assert described["partitions"] == [{"partition": 0, "first_offset": 4, "next_offset": 6}]
    assert described["records"] == 2
    assert await command(server) == {"kind": "command", "action": "trim_stream", "subject": "anonymous", **found}


@pytest.mark.parametrize(("stream", "top"), STREAMS)
async def test_trim_before_a_time_and_to_a_size(server: RunningServer, stream: str, top: str) -> None:
    for number in range(4):
        await server.publish(f"{top}/x", number)
    page = (await server.http.get(f"/api/v1/streams/{stream}/records")).json()
    times = [record["time"] for record in page["records"]]
    answer = await server.http.post(f"/api/v1/streams/{stream}/trim", json={"before": times[2]})
    assert answer.json()["first_offset"] == times.index(times[2])
    answer = await server.http.post(f"/api/v1/streams/{stream}/trim", json={"keep_bytes": 0})
    assert answer.json()["bytes"] == 0
    assert await offsets(server, stream) == []
    assert (await server.publish(f"{top}/x", 4))["offset"] == 4


@pytest.mark.parametrize(("stream", "top"), STREAMS)
async def test_reader_that_comes_back_gets_a_gap_and_a_live_one_nothing(
    server: RunningServer, stream: str, top: str
) -> None:
    live = await server.events(f"topic={top}/%23")
    for number in range(6):
        await server.publish(f"{top}/x", number)
    events = await live.messages(6)
    await server.http.post(f"/api/v1/streams/{stream}/trim", json={"before_offset": 4})
    await server.publish(f"{top}/x", 6)
    await live.messages(7)
    assert [event.name for event in live.events if event.name == "gap"] == []
    back = await server.events(f"topic={top}/%23", {"Last-Event-ID": str(events[1].id)})
    messages = await back.messages(3)
    assert [message.data["payload"] for message in messages] == [4, 5, 6]
    (gap,) = [event for event in back.events if event.name == "gap"]
    assert (gap.data["reason"], gap.data["lost"]) == ("retention", 2)


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({}, "before"),
        ({"before": "now", "before_offset": 1}, "before"),
        ({"before": "never"}, "before"),
        ({"before_offset": -1}, "before_offset"),
        ({"after": 1}, "after"),
    ],
)
async def test_wrong_trims_are_refused(server: RunningServer, body: dict[str, object], parameter: str) -> None:
    assert_problem(await server.http.post("/api/v1/streams/default/trim", json=body), 400, parameter)
    assert_problem(await server.http.post("/api/v1/streams/nobody/trim", json={"before_offset": 1}), 404)


async def test_configured_stream_is_not_deleted(server: RunningServer) -> None:
    answer = await server.http.delete("/api/v1/streams/default")
    assert_problem(answer, 409)
    assert "is configured" in answer.json()["detail"]
    assert_problem(await server.http.delete("/api/v1/streams/nobody"), 404)


async def test_stream_that_is_not_configured_any_more_is_deleted(start_server: Start, tmp_path: Path) -> None:
    before = SqliteStore.open(tmp_path / "data")
    before.open_log("old")
    await before.close()
    server = await start_server()
    answer = await server.http.delete("/api/v1/streams/old")
    assert (answer.status_code, answer.json()) == (200, {"deleted": "old", "records": 0, "bytes": 0})
    assert_problem(await server.http.delete("/api/v1/streams/old"), 404)
    told = {"action": "delete_stream", "subject": "anonymous", "stream": "old", "records": 0, "bytes": 0}
    assert await command(server) == {"kind": "command", **told}
    await eventually_async(lambda: not server.node.store.is_removing)


async def bury(data_dir: Path, payloads: list[bytes]) -> None:
    """Dead letters of the stream `default`, as a spool leaves them."""
    await SqliteStore.open(data_dir).close()
    run = make_run([("a/b", payload) for payload in payloads])
    connection = sqlite3.connect(data_dir / "headrace.sqlite")
    with connection:
        connection.execute(
            "CREATE TABLE dead_letter(id INTEGER PRIMARY KEY, stream TEXT NOT NULL, time_ms INTEGER NOT NULL,"
            " partition INTEGER NOT NULL, reason TEXT NOT NULL, topic TEXT NOT NULL, segment BLOB NOT NULL)"
        )
        connection.executemany(
            "INSERT INTO dead_letter(stream, time_ms, partition, reason, topic, segment)"
            " VALUES ('default', 1000, 3, 'MESSAGE_TOO_LARGE', 'a/b', ?)",
            [(encode_record(run, row),) for row in range(len(run))],
        )
    connection.close()


async def test_dead_letters_come_page_by_page_with_reason_and_record(start_server: Start, tmp_path: Path) -> None:
    await bury(tmp_path / "data", [b'{"n": 1e3}', b"text", b"\xff"])
    server = await start_server()
    answer = await server.http.get("/api/v1/streams/default/dead-letters?limit=2")
    assert answer.status_code == 200
    page = answer.json()
    assert b'"payload":{"n": 1e3}' in answer.content
    assert page["dead_letters"][0] == {
        "id": 1,
        "time": "1970-01-01T00:00:01.000Z",
        "partition": 3,
        "reason": "MESSAGE_TOO_LARGE",
        "record": {
            "topic": "a/b",
            "payload": {"n": 1000.0},
            "encoding": "json",
            "qos": 1,
            "retain": False,
            "time": "2026-11-22T19:00:00.123Z",
            "id": "n7-88120",
            "client_id": 'p"1é',
            "stream": "default",
        },
    }
    assert [letter["id"] for letter in page["dead_letters"]] == [1, 2]
    page = (await server.http.get(f"/api/v1/streams/default/dead-letters?after={page['next']}")).json()
    assert [letter["record"]["payload"] for letter in page["dead_letters"]] == ["/w=="]
    assert page["next"] is None
    empty = (await server.http.get("/api/v1/streams/system/dead-letters")).json()
    assert empty == {"dead_letters": [], "next": None}


async def test_stream_without_dead_letters_has_none(server: RunningServer) -> None:
    answer: httpx.Response = await server.http.get("/api/v1/streams/default/dead-letters")
    assert answer.json() == {"dead_letters": [], "next": None}
    assert_problem(await server.http.get("/api/v1/streams/nobody/dead-letters"), 404)
    assert_problem(await server.http.get("/api/v1/streams/default/dead-letters?limit=0"), 400, "limit")
