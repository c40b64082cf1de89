"""Many retained messages to a subscriber that reads slowly, over real sockets, while others publish."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.support import mqtt_wire as wire
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess

TOPICS = 10_000
"""Of a kilobyte each: more than sockets and the server's outbox take before someone reads."""


def test_a_slow_subscriber_gets_each_before_what_is_live(server: ServerProcess) -> None:
    live = [f"t/{number}" for number in range(0, TOPICS, 500)]
    with RawClient(server.mqtt_port) as publisher, RawClient(server.mqtt_port) as subscriber:
        publisher.connect()
        publisher.send(
            b"".join(wire.publish(f"t/{number}", b"kept" + bytes(1_000), retain=True) for number in range(TOPICS))
        )
        publisher.publish_acknowledged("all/kept", b"x")
        subscriber.connect()
        subscriber.send(wire.subscribe(1, ("t/#", 0)))
        subscriber.expect(wire.SUBACK)
        for number, topic in enumerate(live):
            publisher.publish_acknowledged(topic, b"live", retain=number % 2 == 0)
        subscriber.send(wire.pingreq())
        seen: dict[str, list[tuple[bytes, bool]]] = defaultdict(list)
        for _ in range(TOPICS + len(live) + 1):
            packet = subscriber.next_packet()
            if packet.packet_type == wire.PUBLISH:
                seen[packet.topic].append((packet.payload[:4], packet.retain))
        subscriber.expect_nothing()
    kept = (b"kept", True)
    expected = {f"t/{number}": [kept] for number in range(TOPICS)}
    assert seen == expected | {topic: [kept, (b"live", False)] for topic in live}


@pytest.mark.parametrize("version", [wire.V311, wire.V5], ids=["v3.1.1", "v5"])
def test_a_kept_session_gets_its_suback_first_and_each_before_what_is_live(server: ServerProcess, version: int) -> None:
    """The SUBACK waits for the disk; SUBSCRIBE and PUBLISH come in one write. [MQTT-4.6.0-6]"""
    kept = {wire.SESSION_EXPIRY: 3_600} if version == wire.V5 else None
    with RawClient(server.mqtt_port, version) as client:
        client.connect("k", clean=False, properties=kept)
        for number in range(10):
            topic = f"t/{number}"
            client.publish_acknowledged(topic, b"v1", retain=True)
            asked = wire.subscribe(100 + number, (topic, 1), version=version)
            client.send(asked + wire.publish(topic, b"v2", 1, 200 + number, retain=number % 2 == 0, version=version))
            found = [client.next_packet() for _ in range(4)]
            told = [packet for packet in found if packet.packet_type != wire.PUBACK]
            assert told[0].packet_type == wire.SUBACK
            assert [(packet.payload, packet.retain) for packet in told[1:]] == [(b"v1", True), (b"v2", False)]
            client.expect_nothing()
