"""Whatever is wrong with a request is told as problem+json, and names the parameter."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.http.conftest import RunningServer, Start

EVENTS = "/api/v1/events?topic=%23"
RECORDS = "/api/v1/streams/default/records"


def assert_problem(response: Any, status: int, parameter: str | None = None) -> None:
    assert response.status_code == status, f"{response.request.url}: {response.text}"
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body.get("parameter") == parameter, body


WRONG_PARAMETERS = [
    ("/api/v1/events", "topic"),
    ("/api/v1/events?topic=", "topic"),
    ("/api/v1/events?topic=a/%23/b", "topic"),
    ("/api/v1/events?topic=a%00b", "topic"),
    ("/api/v1/events?topic=$share/g/a", "topic"),
    ("/api/v1/events?" + "&".join(f"topic=a{number}" for number in range(257)), "topic"),
    ("/api/v1/events?topic=" + "a" * 7200, "topic"),
    (EVENTS + "&since=yesterday", "since"),
    (EVENTS + "&since=2026-11-22T19:00:00", "since"),
    (EVENTS + "&since=-1m&since=-2m", "since"),
    (EVENTS + "&since=", "since"),
    (EVENTS + "&snapshot=maybe", "snapshot"),
    (EVENTS + "&overflow=panic", "overflow"),
    (EVENTS + "&overflow=replay&overflow=conflate", "overflow"),
    (EVENTS + "&cursor=nonsense", "cursor"),
    (EVENTS + "&cursor=", "cursor"),
    (EVENTS + "&until=now", "until"),
    (EVENTS + "&since=-1m&until=-2m", "until"),
    (EVENTS + "&until=soon", "until"),
    (EVENTS + "&speed=0", "speed"),
    (EVENTS + "&speed=-1", "speed"),
    (EVENTS + "&speed=fast", "speed"),
    (EVENTS + "&speed=1e3", "speed"),
    (EVENTS + "&speed=1000001", "speed"),
    (EVENTS + "&max_rate=2", "max_rate"),
    (EVENTS + "&exact=a", "exact"),
    (EVENTS + "&stats=1", "stats"),
    ("/api/v1/poll?topic=%23&until=now", "until"),
    ("/api/v1/poll?topic=%23&wait=x", "wait"),
    ("/api/v1/poll?topic=%23&wait=-1", "wait"),
    ("/api/v1/poll?topic=%23&limit=0", "limit"),
    ("/api/v1/poll?topic=%23&cursor=a b", "cursor"),
    ("/api/v1/poll", "topic"),
    (RECORDS + "?format=xml", "format"),
    (RECORDS + "?order=up", "order"),
    (RECORDS + "?limit=1000000", "limit"),
    (RECORDS + "?from=noon", "from"),
    (RECORDS + "?from=now&to=-1h", "to"),
    (RECORDS + "?cursor=x", "cursor"),
    (RECORDS + "?cursor=other~e~0.1", "cursor"),
    (RECORDS + "?contains=x&contains=y", "contains"),
    (RECORDS + "?client_id=x&client_id=y", "client_id"),
    ("/api/v1/histogram?buckets=0", "buckets"),
    ("/api/v1/histogram?buckets=1000000", "buckets"),
    ("/api/v1/histogram?topic=%23%23", "topic"),
    ("/api/v1/histogram?from=now&to=-1h", "to"),
    ("/api/v1/histogram?from=1000&to=1000", "to"),
    ("/api/v1/histogram?from=noon", "from"),
    ("/api/v1/series?field=/temp", "topic"),
    ("/api/v1/series?topic=a&field=temp", "field"),
    ("/api/v1/series?topic=a&points=x", "points"),
    (RECORDS + "/x/1", "partition"),
    (RECORDS + "/0/-1", "offset"),
    (RECORDS + "/0/1?raw=perhaps", "raw"),
    ("/api/v1/topics?q=x&q=y", "q"),
    ("/api/v1/topics?at=noon", "at"),
    ("/api/v1/topics?at=now&lookback=long", "lookback"),
    ("/api/v1/topics?lookback=24h", "lookback"),
    ("/api/v1/topics?depth=x", "depth"),
    ("/api/v1/topics?limit=0", "limit"),
    ("/api/v1/topics?topic=%23%23", "topic"),
]
# One server for each table: starting one takes longer than a hundred requests.


async def test_wrong_parameter_is_named(server: RunningServer) -> None:
    for path, parameter in WRONG_PARAMETERS:
        assert_problem(await server.http.get(path), 400, parameter)


async def test_header_that_is_no_cursor_is_named(server: RunningServer) -> None:
    response = await server.http.get(EVENTS, headers={"Last-Event-ID": "42"})
    assert_problem(response, 400, "Last-Event-ID")


MISSING = [
    "/nothing",
    "/api/v1/nothing",
    "/api/v1/devices/nobody",
    "/api/v1/devices/nobody/connection",
    "/api/v1/boards/main",
    "/api/v1/streams/nothing",
    "/api/v1/streams/nothing/records",
    "/api/v1/streams/default/records/0/1",
    "/api/v1/streams/default/records/1/0",
    "/api/v1/streams/nothing/records/0/0",
    "/assets/nothing-01234567.js",
]


async def test_what_does_not_exist_is_404(server: RunningServer) -> None:
    for path in MISSING:
        assert_problem(await server.http.get(path), 404)


WRONG_METHODS = [
    ("POST", "/api/v1/events"),
    ("GET", "/api/v1/publish"),
    ("DELETE", "/api/v1/session"),
    ("PUT", "/api/v1/topics"),
    ("POST", "/"),
]


async def test_wrong_method_is_405(server: RunningServer) -> None:
    for method, path in WRONG_METHODS:
        response = await server.http.request(method, path)
        assert_problem(response, 405)
        assert response.headers["allow"]
    trimmed = await server.http.put("/api/v1/streams/default")
    assert trimmed.headers["allow"] == "DELETE, GET"


async def test_head_is_get_without_a_body(server: RunningServer) -> None:
    """RFC 9110 §9.3.2; answers that take their time or have any length have none."""
    for path in ("/", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/api/v1/system", "/api/v1/topics"):
        there, head = await server.http.get(path), await server.http.head(path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["content-type"] == there.headers["content-type"]
    assert (await server.http.head("/nothing")).status_code == 404
    for path in ("/api/v1/events?topic=a", "/api/v1/poll?topic=a", "/api/v1/streams/default/records"):
        assert (await server.http.head(path)).status_code == 405


async def test_a_request_has_one_host(server: RunningServer) -> None:
    """RFC 9112 §3.2."""
    for head in (b"", b"Host: a\r\nHost: b\r\n"):
        client = await server.connect(b"GET /healthz HTTP/1.1\r\n%b\r\n" % head)
        assert await client.read_head() == 400
        assert "application/problem+json" in client.head
    client = await server.connect(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert await client.read_head() == 200


async def test_an_origin_that_is_none_is_refused(server: RunningServer) -> None:
    for origin in ("http://[", "http://evil.example", "null"):
        assert_problem(await server.http.get("/healthz", headers={"Origin": origin}), 403)


BODIES = (
    [
        (b"", 400, "body"),
        (b"{", 400, "body"),
        (b"[]", 400, "body"),
        (b"[" * 100_000, 400, "body"),
        (b'{"topic": "a", "payload": NaN}', 400, "body"),
        (b'{"payload": 1}', 400, "topic"),
        (b'{"topic": "a"}', 400, "payload"),
        (b'{"topic": "", "payload": 1}', 400, "topic"),
        (b'{"topic": "a/#", "payload": 1}', 400, "topic"),
        (b'{"topic": "a\\u0007", "payload": 1}', 400, "topic"),
        (b'{"topic": "a\\u0000", "payload": 1}', 400, "topic"),
        (b'{"topic": "\\ud800", "payload": 1}', 400, "topic"),
        (b'{"topic": 5, "payload": 1}', 400, "topic"),
        (b'{"topic": "a", "payload": 1, "qos": 3}', 400, "qos"),
        (b'{"topic": "a", "payload": 1, "qos": "1"}', 400, "qos"),
        (b'{"topic": "a", "payload": 1, "qos": true}', 400, "qos"),
        (b'{"topic": "a", "payload": 1, "qos": 1.0}', 400, "qos"),
        (b'{"topic": "a", "payload": 1, "retain": 1}', 400, "retain"),
        (b'{"topic": "' + b"x" * 65_536 + b'", "payload": 1}', 400, "topic"),
        *[
            (b'{"topic":"a","payload":1,"properties":{"%b":%b}}' % (name, value), 400, f"properties.{name.decode()}")
            for name, value in [
                (b"content_type", b'"a\\u0000b"'),
                (b"content_type", b'"\\ud800"'),
                (b"content_type", b'"' + b"x" * 70_000 + b'"'),
                (b"response_topic", b'"' + b"x" * 65_536 + b'"'),
                (b"correlation_data", b'"' + b"AAAA" * 22_000 + b'"'),
                (b"correlation_data", b'"?"'),
                (b"user_properties", b'[["a", "\\u0000"]]'),
                (b"payload_format_indicator", b"true"),
            ]
        ],
        (b'{"topic": "a", "payload": 1, "properties": {"user_properties": [' + b'["a", "%b"], ' % (b"x" * 60_000) * 20
         + b'["b", ""]]}}', 413, None),
        (b'{"topic": "a", "payload": 1, "expiry_s": -1}', 400, "expiry_s"),
        (b'{"topic": "a", "payload": 1, "encoding": "hex"}', 400, "encoding"),
        (b'{"topic": "a", "payload": 1, "encoding": "text"}', 400, "payload"),
        (b'{"topic": "a", "payload": "?", "encoding": "base64"}', 400, "payload"),
        (b'{"topic": "a", "payload": "\\ud800"}', 400, "payload"),
        (b'{"topic": "a", "payload": 1, "colour": "red"}', 400, "colour"),
        (b'{"topic": "a", "payload": 1, "respond_within_s": 5}', 400, "respond_within_s"),
        (b'{"topic": "a", "payload": 1, "properties": {"user_properties": [["a"]]}}', 400,
         "properties.user_properties.0"),
        (b'{"topic": "a", "payload": 1, "properties": {"response_topic": "a/+"}}', 400, "properties.response_topic"),
        (b'{"topic": "$SYS/broker", "payload": 1}', 403, None),
        (b'{"topic": "$presence/p1", "payload": 1}', 403, None),
        (b'{"topic": "$server/started", "payload": 1}', 403, None),
        (b'{"topic": "$replay/-1h/a", "payload": 1}', 403, None),
        (b'{"topic": "a", "payload": "' + b"x" * 1_100_000 + b'"}', 413, None),
        (b'{"topic": "a", "payload": "' + b"x" * 2_100_000 + b'"}', 413, None),
    ]
)  # fmt: skip


async def test_what_cannot_be_published_is_told(server: RunningServer) -> None:
    for body, status, parameter in BODIES:
        assert_problem(await server.http.post("/api/v1/publish", content=body), status, parameter)


async def test_body_without_a_length_is_bounded_too(server: RunningServer) -> None:
    async def pieces():  # type: ignore[no-untyped-def]
        for _ in range(50):
            yield b"x" * 65_536

    assert_problem(await server.http.post("/api/v1/publish", content=pieces()), 413)


async def test_a_bug_of_ours_is_a_problem_that_tells_nothing(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.routes.streams.describe", lambda *_: 1 / 0)
    response = await server.http.get("/api/v1/streams")
    assert_problem(response, 500)
    assert "division" not in response.text


async def test_too_many_readers_are_told_when_to_come_back(start_server: Start) -> None:
    server = await start_server(live={"readers_max": 1})
    await server.events("topic=%23")
    await server.settle(1)
    response = await server.http.get(EVENTS)
    assert_problem(response, 503)
    assert int(response.headers["retry-after"]) > 0


async def test_foreign_origins_are_refused_and_own_ones_are_not(start_server: Start) -> None:
    server = await start_server(http={"allowed_origins": ["https://panel.example"]})
    body = {"topic": "a", "payload": 1}
    for origin, status in [
        ("https://evil.example", 403),
        ("null", 403),
        (f"http://127.0.0.1:{server.port}", 202),
        ("https://panel.example", 202),
    ]:
        response = await server.http.post("/api/v1/publish", json=body, headers={"Origin": origin})
        assert response.status_code == status, origin
        if status == 403:
            assert_problem(response, 403)
            assert "access-control-allow-origin" not in response.headers
    allowed = await server.http.options(
        "/api/v1/events",
        headers={
            "Origin": "https://panel.example",
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "Last-Event-ID, Authorization",
        },
    )
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://panel.example"
