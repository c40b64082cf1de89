"""The API as the contract writes it, over a real server."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import time
from typing import Any

import aiomqtt

from bridge.cursors import Cursor
from bridge.encoding import CSV_HEAD
from tests.integration.http.conftest import RunningServer, Start
from tests.support.conditions import eventually_async


async def test_publish_answers_after_the_commit_with_the_place(server: RunningServer) -> None:
    first = await server.publish("a/b", {"x": 12345678901234567890123, "y": 1.5}, retain=True)
    assert first == {"delivered_to": 0, "stream": "default", "partition": 0, "offset": 0}
    second = await server.publish(
        "a/b", "AP8=", encoding="base64", properties={"user_properties": [["a", "1"]]}, expiry_s=60
    )
    assert second["offset"] == 1
    async with aiomqtt.Client("127.0.0.1", server.node.broker.listening[0].port, identifier="taker") as taker:
        for topic_filter in ("a/b", "a/+", "$share/one/a/b", "$share/two/#", "c"):
            await taker.subscribe(topic_filter)
        assert (await server.publish("a/b", 1))["delivered_to"] == 4
    outside = await server.publish("$other/topic", 1)
    assert outside == {"delivered_to": 0, "stream": None, "partition": None, "offset": None}
    text = (await server.http.get("/api/v1/streams/default/records?format=ndjson")).text
    assert '"payload":{"x":12345678901234567890123,"y":1.5},"encoding":"json","qos":1,"retain":true' in text
    record = json.loads(text.splitlines()[1])
    assert (record["payload"], record["encoding"]) == ("AP8=", "base64")
    assert record["properties"] == {"message_expiry_interval": 60, "user_properties": [["a", "1"]]}


PAYLOADS = [
    ("hello", None, "hello", "text"),
    ("21.5", None, 21.5, "json"),
    ("hello", "json", "hello", "json"),
    (None, None, None, "json"),
    ("", None, "", "text"),
    ({"é": [1, True]}, "json", {"é": [1, True]}, "json"),
]


async def test_payload_encodings(server: RunningServer) -> None:
    for payload, encoding, _, _ in PAYLOADS:
        await server.publish("a", payload, **({"encoding": encoding} if encoding else {}))
    page = (await server.http.get("/api/v1/streams/default/records")).json()
    found = [(record["payload"], record["encoding"]) for record in page["records"]]
    assert found == [(shown, kind) for _, _, shown, kind in PAYLOADS]


async def test_records_page_by_page_in_both_orders(server: RunningServer) -> None:
    for number in range(10):
        await server.publish(f"t/{number % 2}", number)
    for order in ("asc", "desc"):
        found, cursor = [], ""
        while True:
            page = (
                await server.http.get(
                    f"/api/v1/streams/default/records?topic=t/1&limit=2&order={order}"
                    + (f"&cursor={cursor}" if cursor else "")
                )
            ).json()
            found += [record["payload"] for record in page["records"]]
            cursor = page["cursor"]
            Cursor.parse(cursor)
            if page["complete"]:
                break
        assert found == ([1, 3, 5, 7, 9] if order == "asc" else [9, 7, 5, 3, 1])
    await server.publish("t/1", 11)
    client = await server.events(f"topic=t/1&cursor={page['cursor']}")
    assert [event.data["payload"] for event in await client.messages(6)] == [1, 3, 5, 7, 9, 11]


async def test_records_by_time_and_as_csv(server: RunningServer) -> None:
    await server.publish("t", 'say "hi", now')
    await asyncio.to_thread(time.sleep, 0.005)
    middle = time.time_ns() // 1_000_000
    await server.publish("t", 2)
    after = await server.http.get(f"/api/v1/streams/default/records?format=csv&from={middle}")
    rows = list(csv.DictReader(io.StringIO(after.text, newline="")))
    assert [row["payload"] for row in rows] == ["2"]
    before = await server.http.get(f"/api/v1/streams/default/records?format=csv&to={middle}")
    assert before.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(before.text, newline="")))
    assert ",".join(rows[0]) == CSV_HEAD.decode().strip()
    assert [row["payload"] for row in rows] == ['say "hi", now']


async def test_streams_tell_their_extent(server: RunningServer) -> None:
    await server.publish("a", 1)
    streams = (await server.http.get("/api/v1/streams")).json()["streams"]
    assert [stream["name"] for stream in streams] == ["system", "default"]
    one = (await server.http.get("/api/v1/streams/default")).json()
    assert one == streams[1]
    names = "name storage topics ack epoch records bytes oldest newest retention partitions"
    figures = "rate bytes_rate commit_ms failure lag kafka spool dead_letters"
    assert set(one) == {*names.split(), *figures.split()}
    assert 0 < one["commit_ms"]["p50"] <= one["commit_ms"]["p99"]
    assert [one[each] for each in ("failure", "lag", "kafka", "spool", "dead_letters")] == [None] * 5
    assert (one["storage"], one["topics"], one["ack"], one["records"]) == ("sqlite", ["#"], "stored", 1)
    assert one["partitions"] == [{"partition": 0, "first_offset": 0, "next_offset": 1}]


async def test_topics_are_paged_and_counted(server: RunningServer) -> None:
    for number in range(6):
        await server.publish(f"hall/p{number % 3}/temp", number)
    page = (await server.http.get("/api/v1/topics?limit=2")).json()
    assert [topic["topic"] for topic in page["topics"]] == ["hall/p0/temp", "hall/p1/temp"]
    first = page["topics"][0]
    assert (first["payload"], first["count"]) == (3, 2)
    assert first["age_ms"] >= 0
    rest = (await server.http.get(f"/api/v1/topics?limit=2&after={page['next']}")).json()
    assert [topic["topic"] for topic in rest["topics"]] == ["hall/p2/temp"]
    assert rest["next"] is None
    nodes = (await server.http.get("/api/v1/topics?depth=1")).json()["nodes"]
    assert [(node["prefix"], node["topics"]) for node in nodes] == [("hall", 3)]
    assert set(nodes[0]) == {"prefix", "topics", "rate", "bytes"}
    two = (await server.http.get("/api/v1/topics?depth=2&limit=2")).json()
    assert ([node["prefix"] for node in two["nodes"]], two["next"]) == (["hall/p0", "hall/p1"], "hall/p1")
    third = (await server.http.get(f"/api/v1/topics?depth=2&limit=2&after={two['next']}&at=now")).json()
    assert [(node["prefix"], node["topics"]) for node in third["nodes"]] == [("hall/p2", 1)]
    assert "next" not in third
    chosen = (await server.http.get("/api/v1/topics?topic=hall/%2B/temp&topic=x")).json()
    assert len(chosen["topics"]) == 3


async def test_poll_waits_for_a_first_event_and_goes_on_at_its_cursor(server: RunningServer) -> None:
    waiting = asyncio.create_task(server.http.get("/api/v1/poll?topic=a&wait=20"))
    await eventually_async(lambda: server.node.hub.polls == 1)
    await server.publish("b", 0)
    await server.publish("a", 1)
    answer = (await waiting).json()
    assert [event["payload"] for event in answer["events"]] == [1]
    assert answer["events"][0]["event"] == "message"
    assert answer["cursor"] == answer["events"][0]["cursor"]
    for number in range(2, 6):
        await server.publish("a", number)
    page = (await server.http.get(f"/api/v1/poll?topic=a&limit=3&cursor={answer['cursor']}")).json()
    assert [event["payload"] for event in page["events"]] == [2, 3, 4]
    rest = (await server.http.get(f"/api/v1/poll?topic=a&cursor={page['cursor']}")).json()
    assert [event["payload"] for event in rest["events"]] == [5]
    await server.publish("b", 6)
    none = (await server.http.get(f"/api/v1/poll?topic=a&wait=0&cursor={rest['cursor']}")).json()
    assert none["events"] == []
    assert none["cursor"] != rest["cursor"]
    assert server.node.hub.polls == 0


async def test_poll_loses_nothing_at_the_moment_its_time_is_up(server: RunningServer) -> None:
    """A record that is committed about then is in the answer, or behind its cursor."""
    count, wait_s = 60, 1

    async def poll_and_go_on(number: int) -> list[int]:
        path = f"/api/v1/poll?topic=late/{number}"
        first = (await server.http.get(f"{path}&wait={wait_s}")).json()
        sent = await publishing[number]
        assert sent["stream"] == "default"
        then = (await server.http.get(f"{path}&wait=0&cursor={first['cursor']}")).json()
        return [event["payload"] for event in first["events"] + then["events"]]

    async def publish_at(number: int, at: float) -> dict[str, Any]:
        await asyncio.sleep(at - asyncio.get_running_loop().time())
        return await server.publish(f"late/{number}", number)

    begun = asyncio.get_running_loop().time()
    publishing = [
        asyncio.create_task(publish_at(number, begun + wait_s - 0.02 + number * 0.002)) for number in range(count)
    ]
    found = await asyncio.gather(*[poll_and_go_on(number) for number in range(count)])
    assert found == [[number] for number in range(count)]


async def test_poll_with_an_old_epoch_tells_the_gap(server: RunningServer) -> None:
    await server.publish("a", 1)
    answer = (await server.http.get("/api/v1/poll?topic=a&cursor=default~old~0.5")).json()
    assert [event["event"] for event in answer["events"]] == ["gap", "message"]
    assert answer["events"][0]["reason"] == "epoch"


async def test_system_and_session(server: RunningServer) -> None:
    await server.events("topic=a/%2B&overflow=conflate")
    await server.settle(1)
    system = (await server.http.get("/api/v1/system")).json()
    assert {"version", "node", "time", "listen", "auth", "limits", "kafka", "spool", "readers"} <= set(system)
    assert {"mqtt", "http"} <= {listener["kind"] for listener in system["listen"]}
    reader = system["readers"][0]
    assert (reader["filters"], reader["policy"], reader["behind"]) == (["a/+"], "conflate", 0)
    session = (await server.http.get("/api/v1/session")).json()
    assert {"subject", "anonymous", "expires", "publish", "subscribe", "manage", "version"} == set(session)
    assert session["anonymous"] is True


async def test_operations(server: RunningServer) -> None:
    await server.publish("a", 1)
    assert (await server.http.get("/healthz")).status_code == 200
    assert (await server.http.get("/readyz")).status_code == 200
    metrics = (await server.http.get("/metrics")).text
    assert re.search(r'^headrace_log_offset_total\{stream="default"\} 1.0$', metrics, re.MULTILINE)
    server.node.is_ready = False
    assert (await server.http.get("/readyz")).status_code == 503


async def test_openapi_and_docs_need_no_other_host(server: RunningServer) -> None:
    api = (await server.http.get("/openapi.json")).json()
    assert {"/api/v1/events", "/api/v1/publish", "/metrics"} <= set(api["paths"])
    assert "422" not in json.dumps(api)
    docs = await server.http.get("/docs")
    assert "http://" not in docs.text
    assert "https://" not in docs.text
    assert "<style" not in docs.text
    assert re.findall(r"<script[^>]*>([^<]*)", docs.text) == [""]
    policy = docs.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'")
    for name in re.findall(r'(?:src|href)="(/assets/[^"]+)"', docs.text):
        asset = await server.http.get(name)
        assert asset.status_code == 200
        assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert asset.headers["x-content-type-options"] == "nosniff"
    assert (await server.http.get("/favicon.ico")).status_code == 200


async def test_pages_are_revalidated_and_assets_are_not(server: RunningServer) -> None:
    page = await server.http.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    again = await server.http.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert again.status_code == 304


async def test_latest_values_come_back_after_a_restart(start_server: Start) -> None:
    first = await start_server()
    for number in range(5):
        await first.publish(f"t/{number}", number)
    await first.node.latest.save()
    await first.publish("t/0", 100)
    node = first.node
    saved = sorted(entry.topic.name for entry in node.latest.capture())
    assert saved == ["$server/started", *(f"t/{number}" for number in range(5))]
    first.uvicorn.should_exit = True
    await node.__aexit__(None, None, None)
    second = await start_server()
    topics = (await second.http.get("/api/v1/topics")).json()["topics"]
    assert [(topic["topic"], topic["payload"], topic["count"]) for topic in topics] == [
        ("t/0", 100, 2), ("t/1", 1, 1), ("t/2", 2, 1), ("t/3", 3, 1), ("t/4", 4, 1),
    ]  # fmt: skip
