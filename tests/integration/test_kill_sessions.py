"""kill -9 and kept sessions: what was acknowledged holds after the restart."""

from __future__ import annotations

import pytest

from tests.support import mqtt_wire as wire
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess

KEPT = {wire.SESSION_EXPIRY: 3_600}


def kept_client(server: ServerProcess, client_id: str, version: int = wire.V5, **more: object) -> RawClient:
    client = RawClient(server.mqtt_port, version)
    client.connect(client_id, clean=False, properties=KEPT if version == wire.V5 else None, **more)  # type: ignore[arg-type]
    return client


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_a_subscription_holds_from_its_suback_on(server: ServerProcess, how: str) -> None:
    clients = [kept_client(server, f"k{version}", version) for version in (wire.V311, wire.V5)]
    for client in clients:
        assert client.subscribe(("held/#", 1)) == [1]
    getattr(server, how)()
    server.start()
    with RawClient(server.mqtt_port) as publisher:
        publisher.connect()
        publisher.publish_acknowledged("held/1", b"while it was away")
    for client in clients:
        client.close()
        with RawClient(server.mqtt_port, client.version) as again:
            properties = KEPT if client.version == wire.V5 else None
            assert again.connect(f"k{client.version}", clean=False, properties=properties).session_present
            again.expect_publish("held/1", b"while it was away")
