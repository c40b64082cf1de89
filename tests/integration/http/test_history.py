"""History over HTTP as the contract writes it, over a real server, for streams in memory and on disk."""

from __future__ import annotations

import io
import json
import time
from datetime import datetime
from typing import Any

import pyarrow.parquet
import pytest
from starlette.requests import Request

from bridge.routes.download import accepts_gzip
from bridge.routes.records import safe_content_type
from tests.integration.http.conftest import RunningServer, Start
from tests.integration.http.test_problems import assert_problem
from tests.support.conditions import eventually_async

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


async def test_parquet_is_the_same_records(server: RunningServer) -> None:
    for stream, top in STREAMS:
        await server.publish(f"{top}/x", {"n": 1}, properties={"user_properties": [["a", "b"]]})
        await server.publish(f"{top}/x", "AP8=", encoding="base64", retain=True)
        await server.publish(f"{top}/y", "text", qos=0)
        records = f"/api/v1/streams/{stream}/records?topic={top}/%23"
        answer = await server.http.get(records + "&format=parquet", headers={"Accept-Encoding": "gzip"})
        assert answer.headers["content-type"] == "application/vnd.apache.parquet"
        assert "content-encoding" not in answer.headers
        assert f'filename="{stream}.parquet"' in answer.headers["content-disposition"]
        rows = pyarrow.parquet.ParquetFile(io.BytesIO(answer.content)).read().to_pylist()
        page = (await server.http.get(records)).json()["records"]
        for row, record in zip(rows, page, strict=True):
            for name in ("topic", "encoding", "qos", "retain", "client_id", "stream", "epoch", "partition", "offset"):
                assert row[name] == record[name], name
            assert round(row["time"].timestamp() * 1000) == ms_of(record["time"])
        assert [row["payload"] for row in rows] == [b'{"n":1}', b"\x00\xff", b"text"]
        assert json.loads(rows[0]["properties"]) == {"user_properties": [["a", "b"]]}
        newest = await server.http.get(records + "&format=parquet&order=desc&limit=1&contains=text")
        assert pyarrow.parquet.ParquetFile(io.BytesIO(newest.content)).read().column("offset").to_pylist() == [2]


async def test_text_is_compressed_for_who_takes_it(server: RunningServer) -> None:
    for number in range(50):
        await server.publish("d/x", {"number": number})
    plain, packed = {"Accept-Encoding": "identity"}, {"Accept-Encoding": "br;q=1, gzip;q=0.8"}
    for form in ("json", "ndjson", "csv"):
        path = f"/api/v1/streams/default/records?format={form}"
        compressed = await server.http.get(path, headers=packed)
        assert compressed.headers["content-encoding"] == "gzip"
        uncompressed = await server.http.get(path, headers=plain)
        assert "content-encoding" not in uncompressed.headers
        assert compressed.content == uncompressed.content
        assert int(compressed.num_bytes_downloaded) < len(uncompressed.content) / 3
        for answer in (compressed, uncompressed):
            assert answer.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("GZIP ; q=0.5", True),
        ("deflate, gzip;q=1.0, *;q=0", True),
        ("*", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("*, gzip;q=0.000", False),
        ("x-gzip-like", False),
    ],
)
def test_accept_encoding(header: str, accepted: bool) -> None:
    scope = {"type": "http", "headers": [(b"accept-encoding", header.encode())] if header else []}
    assert accepts_gzip(Request(scope)) == accepted


async def test_exports_that_are_too_many_are_refused_and_end_with_their_readers(start_server: Start) -> None:
    server = await start_server(history={"exports_max": 1})
    for _ in range(30):
        await server.publish("d/x", "x" * 900_000)
    path = "/api/v1/streams/default/records?format="
    reading = await server.connect(f"GET {path}ndjson HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert await reading.read_head() == 200
    for form in ("csv", "parquet"):
        refused = await server.http.get(path + form)
        assert_problem(refused, 503)
        assert int(refused.headers["retry-after"]) > 0
    reading.close()
    await eventually_async(lambda: server.node.exports.count == 0, what="the end of the export")
    assert (await server.http.get(path + "parquet")).status_code == 200


def ms_of(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


async def test_histogram_counts_over_streams(server: RunningServer) -> None:
    before_ms = time.time_ns() // 1_000_000
    for number in range(6):
        await server.publish(f"{'m' if number % 3 else 'd'}/{number % 2}", number)
    after_ms = time.time_ns() // 1_000_000 + 1
    query = f"from={before_ms}&to={after_ms}"
    for topics, expected in [("%23", 6), ("m/%23", 4), ("d/0", 1), ("%2B/0&topic=d/1", 4), ("nothing", 0)]:
        answer = (await server.http.get(f"/api/v1/histogram?topic={topics}&{query}&buckets=7")).json()
        assert set(answer) == {"from", "to", "buckets", "gaps", "oldest", "complete", "scanned_to"}
        assert sum(bucket["count"] for bucket in answer["buckets"]) == expected
        assert answer["complete"] is True
        assert (ms_of(answer["from"]), ms_of(answer["to"])) == (before_ms, after_ms)
        assert ms_of(answer["buckets"][0]["time"]) == before_ms
        assert answer["scanned_to"] == answer["to"]
    day = (await server.http.get("/api/v1/histogram")).json()
    assert len(day["buckets"]) == 240
    assert ms_of(day["to"]) - ms_of(day["from"]) == 24 * 3_600_000
    assert sum(bucket["count"] for bucket in day["buckets"]) == 6
    assert before_ms <= ms_of(day["oldest"]) < after_ms


async def test_histogram_of_one_client(server: RunningServer) -> None:
    for number in range(4):
        await server.publish("d/x", number)
    (record, *_) = (await server.http.get("/api/v1/streams/default/records")).json()["records"]
    for client_id, expected in ((record["client_id"], 4), ("nobody", 0)):
        answer = await server.http.get("/api/v1/histogram", params={"client_id": client_id})
        assert sum(bucket["count"] for bucket in answer.json()["buckets"]) == expected
    assert_problem(await server.http.get("/api/v1/histogram?client_id=a&client_id=b"), 400, "client_id")


async def test_histogram_tells_what_may_be_missing_and_why(start_server: Start) -> None:
    server = await start_server(streams=[MEMORY | {"retention": {"bytes": "10KiB"}}])
    await server.publish("d/x", 0)
    nothing_missing = (await server.http.get("/api/v1/histogram?topic=d/%23")).json()
    assert nothing_missing["gaps"] == []
    begun = (await server.http.get("/api/v1/histogram?topic=m/%23")).json()
    assert [gap["reason"] for gap in begun["gaps"]] == ["epoch"]
    assert begun["gaps"][0]["from"] == begun["from"]
    assert begun["oldest"] is None
    for _ in range(40):
        await server.publish("m/x", "x" * 1_000)
    dropped = (await server.http.get("/api/v1/histogram?topic=m/%23")).json()
    assert [gap["reason"] for gap in dropped["gaps"]] == ["epoch", "retention"]
    assert dropped["gaps"][0]["to"] == dropped["gaps"][1]["from"] == begun["gaps"][0]["to"]
    assert dropped["gaps"][1]["to"] == dropped["oldest"]


async def test_series_of_a_field(server: RunningServer) -> None:
    for _, top in STREAMS:
        for number in (1, 3.5, 2):
            await server.publish(f"{top}/x", {"a/b": [number], "on": True})
        await server.publish(f"{top}/x", "text")
        await server.publish(f"{top}/bare", 4)
        answer = (await server.http.get(f"/api/v1/series?topic={top}/x&field=/a~1b/0&from=-1h&points=1")).json()
        assert {key: answer[key] for key in ("min", "max", "last", "count", "complete")} == {
            "min": [1], "max": [3.5], "last": [2], "count": [3], "complete": True,
        }  # fmt: skip
        assert len(answer["time"]) == 1
        assert set(answer) == {"time", "min", "max", "last", "count", "complete", "scanned_to"}
        bare = (await server.http.get(f"/api/v1/series?topic={top}/bare")).json()
        assert (bare["last"], bare["count"]) == ([4], [1])
        none = (await server.http.get(f"/api/v1/series?topic={top}/x&field=/on")).json()
        assert (none["time"], none["count"], none["complete"]) == ([], [], True)
    both = (await server.http.get("/api/v1/series?topic=%2B/bare&from=-1h&points=1")).json()
    assert both["count"] == [2]


async def topics_of(server: RunningServer, query: str) -> dict[str, Any]:
    answer: dict[str, Any] = (await server.http.get(f"/api/v1/topics?{query}")).json()
    return answer


async def test_topics_by_a_part_of_their_name_and_by_client(server: RunningServer) -> None:
    for topic in ("m/Hall/temp", "d/hall/door", "d/yard"):
        await server.publish(topic, 1)
    assert [each["topic"] for each in (await topics_of(server, "q=HALL"))["topics"]] == ["d/hall/door", "m/Hall/temp"]
    assert [each["topic"] for each in (await topics_of(server, "q=hall&topic=d/%23"))["topics"]] == ["d/hall/door"]
    assert len((await topics_of(server, "client_id=$http"))["topics"]) == 3
    assert (await topics_of(server, "client_id=p1"))["topics"] == []
    nodes = (await topics_of(server, "q=hall&depth=1"))["nodes"]
    assert [(node["prefix"], node["topics"]) for node in nodes] == [("d", 1), ("m", 1)]


async def test_topics_as_they_were(server: RunningServer) -> None:
    moments: list[int] = []
    for number in range(3):
        for _, top in STREAMS:
            await server.publish(f"{top}/x", number)
            await server.publish(f"{top}/only{number}", number)
        moments.append(time.time_ns() // 1_000_000)
        await eventually_async(lambda: time.time_ns() // 1_000_000 > moments[-1], what="another millisecond")
    for number, at_ms in enumerate(moments):
        answer = await topics_of(server, f"at={at_ms}")
        found = {each["topic"]: each["payload"] for each in answer["topics"]}
        assert found == {f"{top}/x": number for _, top in STREAMS} | {
            f"{top}/only{each}": each for _, top in STREAMS for each in range(number + 1)
        }
        assert set(answer) == {"topics", "next", "at", "complete", "scanned_to"}
        assert (answer["next"], answer["complete"], ms_of(answer["at"])) == (None, True, at_ms)
        first = answer["topics"][0]
        assert first["age_ms"] == at_ms - ms_of(first["time"])
        assert (first["count"], first["interval_s"]) == (None, None)
    last = moments[-1]
    exact = await topics_of(server, f"at={ms_of(answer['topics'][-1]['time'])}")
    assert answer["topics"][-1]["topic"] in [each["topic"] for each in exact["topics"]]
    page = await topics_of(server, f"at={last}&limit=5")
    assert [each["topic"] for each in page["topics"]] == ["d/only0", "d/only1", "d/only2", "d/x", "m/only0"]
    rest = await topics_of(server, f"at={last}&limit=5&after={page['next']}")
    assert [each["topic"] for each in rest["topics"]] == ["m/only1", "m/only2", "m/x"]
    assert rest["next"] is None
    part = await topics_of(server, f"at={last}&q=ONLY1&topic=m/%23&client_id=$http")
    assert [each["topic"] for each in part["topics"]] == ["m/only1"]
    short = await topics_of(server, f"at={last}&lookback={last - moments[1]}ms&topic=d/%23")
    assert [each["topic"] for each in short["topics"]] == ["d/only2", "d/x"]
    nodes = (await topics_of(server, f"at={moments[0]}&depth=1"))["nodes"]
    assert [(node["prefix"], node["topics"]) for node in nodes] == [("d", 2), ("m", 2)]
    assert (await topics_of(server, "at=0"))["topics"] == []


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
