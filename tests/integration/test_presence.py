"""Presence on a real server: over MQTT, SSE and HTTP, over take-over, kill -9 and a stop."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually
from tests.support.http_client import SseReader, metrics, records
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess

Connect = Callable[..., RawClient]
KEPT: wire.Properties = {wire.SESSION_EXPIRY: 3600}


def get(server: ServerProcess, path: str, **query: str) -> Any:
    answer = httpx.get(f"{server.http_url}/api/v1{path}", params=query, timeout=20)
    assert answer.status_code == 200, answer.text
    return answer.json()


def changes(server: ServerProcess, client_id: str, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = get(server, f"/devices/{client_id}/timeline", **query)["changes"]
    return found


def told(server: ServerProcess, client_id: str) -> list[tuple[int, bool, str, str]]:
    return [(each["seq"], each["online"], each["reason"], each["by"]) for each in changes(server, client_id)]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connects clients; those that are open at the end are closed."""
    with ExitStack() as stack:

        def connect_one(server: ServerProcess, client_id: str, **more: Any) -> RawClient:
            client = RawClient(server.mqtt_port)
            stack.callback(client.close)
            client.connect(client_id, **more)
            return client

        yield connect_one


def test_presence_goes_on_over_take_over_kill_and_stop(server: ServerProcess, connect: Connect) -> None:
    """Numbered without a gap; no take-over is offline; nobody is left hanging by a crash."""
    watcher = connect(server, "watcher")
    watcher.subscribe(("$presence/p/#", 1))
    connect(server, "p", clean=False, properties=KEPT)
    connect(server, "p", clean=False, properties=KEPT)
    seen = [json.loads(watcher.expect_publish().payload) for _ in range(2)]
    assert [(each["seq"], each["online"], each["reason"]) for each in seen] == [
        (1, True, "connected"),
        (2, True, "taken_over"),
    ]
    eventually(lambda: len(changes(server, "p")) == 2, what="both are stored")
    server.kill()
    server.start()
    eventually(lambda: len(changes(server, "p")) == 3, what="it is told offline before anyone asks")
    assert told(server, "p")[-1] == (3, False, "server_restart", "server")
    connect(server, "p", clean=False, properties=KEPT)
    eventually(lambda: len(changes(server, "p")) == 4)
    server.terminate()
    server.start()
    assert told(server, "p")[3:5] == [(4, True, "connected", "device"), (5, False, "server_shutdown", "server")]
    late = connect(server, "late")
    late.subscribe("$presence/p")
    retained = late.expect_publish()
    assert retained.retain
    assert json.loads(retained.payload) == changes(server, "p")[-1]
    events = [record["payload"]["kind"] for record in records(server.http_url, "system", topic="$server/#")]
    assert events == ["started", "started", "stopped", "started"]


def test_devices_over_http(shared_server: ServerProcess, connect: Connect) -> None:
    """The list in order of ids, page by page; one device; closing it and forgetting it."""
    server = shared_server
    clients = [connect(server, f"http-{number}", clean=False, properties=KEPT) for number in range(5)]
    for client in clients:
        client.subscribe(("http/a", 1))
    clients[0].close()
    eventually(lambda: get(server, "/devices", q="HTTP-", state="session")["devices"], what="one is away")
    page = get(server, "/devices", q="http-", limit="3")
    assert [each["client_id"] for each in page["devices"]] == ["http-0", "http-1", "http-2"]
    assert [each["online"] for each in page["devices"]] == [False, True, True]
    rest = get(server, "/devices", q="http-", limit="3", after=page["next"])
    assert [each["client_id"] for each in rest["devices"]] == ["http-3", "http-4"]
    assert rest["next"] is None

    httpx.post(f"{server.http_url}/api/v1/publish", json={"topic": "http/a", "payload": 1, "qos": 1})
    away = get(server, "/devices/http-0")
    assert away["session"] == {"clean": False, "expiry_s": 3600, "queued": 1}
    assert away["subscriptions"] == [{"filter": "http/a", "qos": 1}]
    assert (away["protocol"], away["transport"], away["reason"]) == ("5.0", "tcp", "connection_lost")
    here = eventually(lambda: (found := get(server, "/devices/http-1"))["counters"]["messages_out"] and found)
    assert here["online"]
    assert here["counters"]["bytes_in"] > 0

    url = f"{server.http_url}/api/v1/devices"
    assert httpx.delete(f"{url}/http-1/connection").status_code == 200
    clients[1].expect_publish("http/a")
    assert clients[1].expect(wire.DISCONNECT).reason_code == 0x98
    eventually(lambda: not get(server, "/devices/http-1")["online"])
    assert httpx.delete(f"{url}/http-1/connection").status_code == 409
    answer = httpx.delete(f"{url}/http-0/session")
    assert answer.json() == {"forgotten": "http-0", "queued": 1}
    eventually(lambda: len(changes(server, "http-0")) == 3)
    assert told(server, "http-0")[-1] == (3, False, "session_forgotten", "admin")
    assert httpx.delete(f"{url}/http-0/session").status_code == 409
    assert httpx.delete(f"{url}/nobody/session").status_code == 404
    assert httpx.get(f"{url}/nobody").status_code == 404
    commands = [each["payload"]["action"] for each in records(server.http_url, "system", topic="$server/command")]
    assert commands[-2:] == ["close_connection", "forget_session"]


def test_an_id_with_slashes_is_a_device_of_its_own(shared_server: ServerProcess, connect: Connect) -> None:
    """`%2F` belongs to the id: `x/timeline` is not the timeline of `x`."""
    for name in ("slash/a", "slash", "slash/timeline"):
        connect(shared_server, name)
    eventually(lambda: len(get(shared_server, "/devices", q="slash")["devices"]) == 3)
    for path, client_id in (("slash%2Fa", "slash/a"), ("slash%2Ftimeline", "slash/timeline")):
        assert get(shared_server, f"/devices/{path}")["client_id"] == client_id
    eventually(lambda: changes(shared_server, "slash%2Fa"))
    assert [each["client_id"] for each in changes(shared_server, "slash")] == ["slash"]
    answer = httpx.delete(f"{shared_server.http_url}/api/v1/devices/slash%2Fconnection")
    assert answer.status_code == 404
    assert get(shared_server, "/devices/slash")["online"]


def test_timeline_is_asked_by_time_order_and_page(shared_server: ServerProcess, connect: Connect) -> None:
    for _ in range(3):
        connect(shared_server, "often").close()
    eventually(lambda: len(changes(shared_server, "often")) == 6)
    all_of_it = changes(shared_server, "often")
    assert [each["seq"] for each in all_of_it] == [1, 2, 3, 4, 5, 6]
    assert changes(shared_server, "often", order="desc") == all_of_it[::-1]
    found: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        page = get(shared_server, "/devices/often/timeline", limit="4", **({"after": after} if after else {}))
        found += page["changes"]
        after = page["next"]
        if after is None:
            break
    assert found == all_of_it
    assert changes(shared_server, "often", to="-1h") == []
    assert changes(shared_server, "often", **{"from": "-1h"}) == all_of_it


def test_presence_is_live_for_browsers_and_refusals_are_named(shared_server: ServerProcess, connect: Connect) -> None:
    with SseReader(
        shared_server.http_url, [("topic", "$presence/sse"), ("topic", "$server/connect_refused")]
    ) as reader:
        connect(shared_server, "sse").close()
        eventually(lambda: len(reader.messages) == 2, what=reader)
        bad = RawClient(shared_server.mqtt_port, wire.V311)
        bad.send(wire.connect("", wire.V311, clean=False))
        bad.expect(wire.CONNACK)
        bad.close()
        eventually(lambda: len(reader.messages) == 3, what=reader)
        payloads = [message["payload"] for message in reader.messages]
    assert [each["reason"] for each in payloads] == ["connected", "connection_lost", "client_identifier_not_valid"]
    counted = metrics(shared_server.http_url)
    assert counted['headrace_server_events_total{kind="connect_refused"}'] >= 1
    assert counted["headrace_presence_changes_total"] >= 2
