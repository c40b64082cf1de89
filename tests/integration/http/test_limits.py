"""`/system` says of each limit how often it was reached and when last."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.http.conftest import RunningServer, Start
from tests.support.conditions import eventually_async


async def hits(server: RunningServer) -> dict[str, int]:
    """Those that were reached, each with a time."""
    rows: list[dict[str, Any]] = (await server.http.get("/api/v1/system")).json()["limits"]
    reached = {row["name"]: row["hits"] for row in rows if row["hits"]}
    assert reached.keys() == {row["name"] for row in rows if row["last"] is not None}
    return reached


async def test_requests_over_a_limit_are_counted(start_server: Start) -> None:
    server = await start_server(
        http={"body_bytes_max": 1024, "head_bytes_max": 8192},
        mqtt={"bind": "127.0.0.1:0", "packet_bytes_max": 1024},
    )
    requests: dict[str, tuple[str, int]] = {
        "live.poll_events_max": ("/api/v1/poll?topic=a&limit=10001", 400),
        "live.poll_wait_s_max": ("/api/v1/poll?topic=a&wait=61", 400),
        "live.query_bytes_max": (f"/api/v1/poll?topic={'a' * 7200}", 400),
        "live.filters_per_reader_max": ("/api/v1/poll?" + "&".join(f"topic={n}" for n in range(257)), 400),
        "live.records_max": ("/api/v1/streams/default/records?limit=10001", 400),
        "history.buckets_max": ("/api/v1/histogram?buckets=2001", 400),
        "history.points_max": ("/api/v1/series?topic=a&points=5001", 400),
    }
    for name, (path, status) in requests.items():
        assert (await server.http.get(path)).status_code == status, name
    assert (await server.http.get("/api/v1/poll?topic=a&limit=0")).status_code == 400  # wrong, and over no limit
    assert (await server.http.post("/api/v1/publish", content=b"x" * 2000)).status_code == 413
    client = await server.connect(b"GET / HTTP/1.1\r\nX: " + b"y" * 9000)
    assert await client.read_head() == 431
    expected = dict.fromkeys((*requests, "http.body_bytes_max", "http.head_bytes_max"), 1)
    assert await hits(server) == expected
    metrics = (await server.http.get("/metrics")).text
    assert 'headrace_limit_hits_total{limit="http.body_bytes_max"} 1.0' in metrics


@pytest.mark.parametrize("path", ["/api/v1/events?topic=a", "/api/v1/poll?topic=a"])
async def test_late_loop_refuses_new_readers_and_serves_the_others(server: RunningServer, path: str) -> None:
    there = await server.events("topic=%23")
    await server.settle(1)
    server.node.broker.engine.is_late = lambda: True
    answer = await server.http.get(path)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    await server.publish("a", 1)
    await there.messages(1)
    server.node.broker.engine.is_late = lambda: False
    await server.events("topic=a")
    assert await hits(server) == {"mqtt.loop_delay_ms_max": 1}


async def test_lateness_of_the_loop_is_measured(start_server: Start) -> None:
    server = await start_server(mqtt={"loop_delay_ms_max": 2_500})
    delay = server.node.broker.loop_delay
    await eventually_async(lambda: delay.now_s < 0.5, what="a loop that is not late")
    delay.take(3.0)
    assert server.node.broker.engine.is_late()
    metrics = (await server.http.get("/metrics")).text
    assert "headrace_loop_delay_seconds_max 3.0" in metrics
    await eventually_async(lambda: not server.node.broker.engine.is_late(), what="that it is forgotten")


async def test_connection_over_the_limit_is_told_to_come_again(start_server: Start) -> None:
    server = await start_server(http={"connections_max": 2})
    there = await server.events("topic=%23")
    assert await hits(server) == {}  # over the second
    third = await server.connect(b"")
    assert await third.read_head() == 503
    assert "retry-after: 5" in third.head.lower()
    await server.publish("a", 1)
    await there.messages(1)
    assert await hits(server) == {"http.connections_max": 1}


async def test_limits_below_the_usual_hold_for_who_names_none(start_server: Start) -> None:
    server = await start_server(live={"records_max": 3, "poll_events_max": 2, "poll_wait_s_max": 1})
    for number in range(5):
        await server.publish("a", number)
    assert len((await server.http.get("/api/v1/streams/default/records")).json()["records"]) == 3
    cursor = "default~" + server.node.hub.log_by_name["default"].epoch + "~0.0"
    assert len((await server.http.get(f"/api/v1/poll?topic=a&cursor={cursor}")).json()["events"]) == 2
    assert (await server.http.get("/api/v1/poll?topic=b", timeout=20)).json()["events"] == []


async def test_a_state_that_is_not_whole_is_refused(start_server: Start) -> None:
    server = await start_server(live={"latest_topics_max": 1_000})
    for number in range(3):
        await server.publish(f"a/{number}", number)
    whole = await server.events("topic=a/%23&snapshot=1&since=now")
    await whole.until(lambda events: [event for event in events if event.name == "live"])
    assert sum(event.name == "snapshot" for event in whole.events) == 3
    node = server.node
    for number in range(1_001):
        node.broker.publish(f"b/{number}", b"1", qos=1)
    await eventually_async(lambda: node.hub.log_by_name["default"].records == 1_004, what="all of them")
    refused = await server.http.get("/api/v1/events?topic=%23&snapshot=1&since=now")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert (await hits(server))["history.snapshot_s"] == 1
