"""`DELETE /api/v1/retained`: counted, cleared for good, and told; over real HTTP and MQTT."""

from __future__ import annotations

from typing import Any

import httpx

from tests.integration.http.test_problems import assert_problem
from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually
from tests.support.http_client import records
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess

TOPICS = ("hall/1/temp", "hall/2/temp", "hall/1/status", "yard/temp", "$own/x")


def clear(server: ServerProcess, topic: str, **query: str) -> httpx.Response:
    return httpx.delete(f"{server.http_url}/api/v1/retained", params={"topic": topic, **query}, timeout=30)


def retained_now(server: ServerProcess, *filters: str) -> set[str]:
    """Topics of what a new subscriber gets."""
    with RawClient(server.mqtt_port) as client:
        client.connect()
        found = set()
        for topic_filter in filters:
            client.subscribe((topic_filter, 0))
            client.send(wire.pingreq())
            while (packet := client.next_packet()).packet_type == wire.PUBLISH:
                found.add(packet.topic)
        return found


def publish_all(server: ServerProcess) -> None:
    with RawClient(server.mqtt_port) as client:
        client.connect()
        for topic in TOPICS:
            client.publish_acknowledged(topic, b"x", retain=True)


def commands(server: ServerProcess) -> list[dict[str, Any]]:
    found = [record["payload"] for record in records(server.http_url, "system", topic="$server/command")]
    return [{name: each[name] for name in ("action", "topic", "cleared", "subject")} for each in found]


def test_what_a_filter_takes_is_counted_then_cleared_and_does_not_come_back(server: ServerProcess) -> None:
    publish_all(server)
    with RawClient(server.mqtt_port) as watching:
        watching.connect()
        watching.subscribe(("hall/#", 0), ("$own/#", 0))
        for _ in range(4):
            watching.expect_publish()
        assert clear(server, "hall/+/temp", dry_run="1").json() == {"matched": 2}
        assert retained_now(server, "#", "$own/#") == set(TOPICS)
        answer = clear(server, "hall/+/temp", dry_run="0")
        assert (answer.status_code, answer.json()) == (200, {"cleared": 2})
        assert clear(server, "hall/+/temp").json() == {"cleared": 0}
        assert clear(server, "#", dry_run="1").json() == {"matched": 2}
        assert clear(server, "$own/#").json() == {"cleared": 1}
        watching.expect_nothing()
    server.kill()
    server.start()
    assert retained_now(server, "#", "$own/#") == {"hall/1/status", "yard/temp"}
    told = [("hall/+/temp", 2), ("hall/+/temp", 0), ("$own/#", 1)]
    found = [
        {"action": "clear_retained", "topic": topic, "cleared": cleared, "subject": "anonymous"}
        for topic, cleared in told
    ]
    eventually(lambda: commands(server) == found)


def test_presence_is_the_servers_own_and_stays(server: ServerProcess) -> None:
    for topic in ("$presence/#", "$SYS/#", "$server/command"):
        assert_problem(clear(server, topic), 400, "topic")
    with RawClient(server.mqtt_port) as client:
        client.connect("here")
        assert clear(server, "#").json() == {"cleared": 0}
        assert "$presence/here" in retained_now(server, "$presence/#")


def test_a_mistake_is_a_problem_and_clears_nothing(server: ServerProcess) -> None:
    publish_all(server)
    for query, parameter in (
        ("", "topic"),
        ("topic=", "topic"),
        ("topic=hall/%23/b", "topic"),
        ("topic=$share/g/hall/%23", "topic"),
        ("topic=$replay/-1h/hall/%23", "topic"),
        ("topic=hall/%23&topic=yard/%23", "topic"),
        ("topic=hall/%23&dry_run=maybe", "dry_run"),
        ("topic=hall/%23&dry_run=1&dry_run=0", "dry_run"),
    ):
        assert_problem(httpx.delete(f"{server.http_url}/api/v1/retained?{query}"), 400, parameter)
    assert retained_now(server, "#", "$own/#") == set(TOPICS)
    assert commands(server) == []


def test_many_are_cleared_in_steps_while_a_client_publishes(server: ServerProcess) -> None:
    """More than one step; what is published meanwhile under another name stays."""
    with RawClient(server.mqtt_port) as client:
        client.connect()
        client.send(b"".join(wire.publish(f"many/{number}", b"x", retain=True) for number in range(3_000)))
        client.publish_acknowledged("other", b"y", retain=True)
        assert clear(server, "many/#").json() == {"cleared": 3_000}
        client.publish_acknowledged("many/1", b"again", retain=True)
    server.kill()
    server.start()
    assert retained_now(server, "#") == {"many/1", "other"}
