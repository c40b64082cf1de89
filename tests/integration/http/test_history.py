"""History over HTTP as the contract writes it, over a real server, for streams in memory and on disk."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.routes.records import safe_content_type
from tests.integration.http.conftest import RunningServer, Start
from tests.integration.http.test_problems import assert_problem

MEMORY = {"name": "fast", "topics": ["m/#"], "storage": "memory"}


@pytest.fixture
async def server(start_server: Start) -> RunningServer:
    """Topics below `m` are kept in memory (stream `fast`), all others on disk (stream `default`)."""
    return await start_server(streams=[MEMORY])


STREAMS = [("fast", "m"), ("default", "d")]
"""A stream, and the first level of its topics."""


async def payloads(server: RunningServer, path: str) -> list[Any]:
    page = (await server.http.get(path)).json()
    assert page["complete"]
    return [record["payload"] for record in page["records"]]


async def test_records_by_client_and_by_text(server: RunningServer) -> None:
    for stream, top in STREAMS:
        for number in range(4):
            await server.publish(f"{top}/{number % 2}", {"state": "öffnet" if number % 2 else "shut", "n": number})
        records = f"/api/v1/streams/{stream}/records"
        assert [each["n"] for each in await payloads(server, records + "?contains=öff")] == [1, 3]
        assert [each["n"] for each in await payloads(server, records + "?contains=shut&order=desc")] == [2, 0]
        assert await payloads(server, records + f"?contains=shut&topic={top}/1") == []
        assert len(await payloads(server, records + "?client_id=$http")) == 4
        assert await payloads(server, records + "?client_id=p1") == []
        lines = (await server.http.get(records + "?contains=%22n%22:3&format=ndjson")).text.splitlines()
        assert len(lines) == 1
        found = (await server.http.get(records + "?contains=shut&format=csv")).text.splitlines()
        assert len(found) == 1 + 2


async def test_one_record_by_its_place(server: RunningServer) -> None:
    for stream, top in STREAMS:
        await server.publish(f"{top}/x", {"n": 0})
        await server.publish(f"{top}/x", "AP8=", encoding="base64", properties={"content_type": "image/png"})
        place = f"/api/v1/streams/{stream}/records/0"
        page = (await server.http.get(f"/api/v1/streams/{stream}/records")).json()["records"]
        for offset, expected in enumerate(page):
            assert (await server.http.get(f"{place}/{offset}")).json() == expected
        epoch = page[0]["epoch"]
        assert (await server.http.get(f"{place}/0?epoch={epoch}")).status_code == 200
        assert_problem(await server.http.get(f"{place}/0?epoch=other"), 410)
        assert_problem(await server.http.get(f"{place}/2"), 404)


async def test_record_that_is_not_kept_is_gone(start_server: Start) -> None:
    server = await start_server(streams=[MEMORY | {"retention": {"bytes": "10KiB"}}])
    for _ in range(40):
        await server.publish("m/x", "x" * 1_000)
    assert_problem(await server.http.get("/api/v1/streams/fast/records/0/0"), 410)
    assert (await server.http.get("/api/v1/streams/fast/records/0/39")).status_code == 200


async def test_raw_is_the_payload_under_its_own_content_type(server: RunningServer) -> None:
    for stream, top in STREAMS:
        await server.publish(f"{top}/x", "AP8N", encoding="base64", properties={"content_type": "image/png"})
        await server.publish(f"{top}/x", "<script>", properties={"content_type": "text/html; charset=utf-8"})
        await server.publish(f"{top}/x", "alert(1)", properties={"content_type": "text/javascript"})
        await server.publish(f"{top}/x", "plain")
        answers = [await server.http.get(f"/api/v1/streams/{stream}/records/0/{offset}?raw=1") for offset in range(4)]
        assert [answer.content for answer in answers] == [b"\x00\xff\r", b"<script>", b"alert(1)", b"plain"]
        assert [answer.headers["content-type"] for answer in answers] == [
            "image/png",
            "text/html; charset=utf-8",
            "application/octet-stream",
            "application/octet-stream",
        ]
        for answer in answers:
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("text/plain", True),
        ('text/plain; charset="utf-8"; x=1', True),
        ("application/vnd.a+json;v=1", True),
        ("", False),
        ("json", False),
        ("text/plain\r\nSet-Cookie: a=1", False),
        ("text/plain; charset=ü", False),
        ("Application/X-JavaScript", False),
        ("text/ecmascript; a=b", False),
    ],
)
def test_content_type_that_is_none_becomes_octet_stream(text: str, safe: bool) -> None:
    assert safe_content_type(text) == (text if safe else "application/octet-stream")
