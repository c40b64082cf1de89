"""kill -9 and retained messages: what was acknowledged with RETAIN is what a subscriber gets after the restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess

NO_STREAM = 'default_stream = false\n[[streams]]\nname = "mem"\ntopics = ["mem/#"]\nstorage = "memory"\n'


def retained_now(server: ServerProcess, topic_filter: str, count: int) -> dict[str, bytes]:
    """What a new subscriber gets with RETAIN, up to `count` messages."""
    with RawClient(server.mqtt_port) as client:
        client.connect()
        client.subscribe((topic_filter, 1))
        found = [client.expect_publish() for _ in range(count)]
        client.expect_nothing()
        return {packet.topic: packet.payload for packet in found}


def test_a_retained_message_survives_a_kill_and_a_stop(server: ServerProcess) -> None:
    with RawClient(server.mqtt_port) as client:
        client.connect()
        client.publish_acknowledged("kept/1", b"one", retain=True)
        client.publish_acknowledged("kept/2", b"two", 2, retain=True)
        client.publish_acknowledged("kept/3", b"three", retain=True)
        client.publish_acknowledged("kept/3", b"", retain=True)
    server.kill()
    server.start()
    assert retained_now(server, "kept/#", 2) == {"kept/1": b"one", "kept/2": b"two"}
    server.terminate()
    server.start()
    assert retained_now(server, "kept/#", 2) == {"kept/1": b"one", "kept/2": b"two"}


@pytest.mark.parametrize("qos", [1, 2])
def test_so_does_one_that_no_stream_takes(tmp_path: Path, qos: int) -> None:
    with ServerProcess(tmp_path / "data", NO_STREAM) as server:
        with RawClient(server.mqtt_port) as client:
            client.connect()
            client.publish_acknowledged("kept/1", b"one", qos, retain=True)
        server.kill()
        server.start()
        assert retained_now(server, "kept/#", 1) == {"kept/1": b"one"}
        server.terminate()


def test_its_expiry_goes_on_over_a_restart(server: ServerProcess) -> None:
    with RawClient(server.mqtt_port) as client:
        client.connect()
        client.publish("kept/short", b"x", 1, retain=True, properties={wire.MESSAGE_EXPIRY: 1})
        client.publish("kept/long", b"x", 1, retain=True, properties={wire.MESSAGE_EXPIRY: 3_600})
        client.expect(wire.PUBACK)
        client.expect(wire.PUBACK)
    server.kill()
    server.start()

    def left() -> set[str]:
        with RawClient(server.mqtt_port) as client:
            client.connect()
            client.subscribe(("kept/#", 0))
            client.send(wire.pingreq())
            found = set()
            while (packet := client.next_packet()).packet_type == wire.PUBLISH:
                found.add(packet.topic)
            return found

    eventually(lambda: left() == {"kept/long"})
