"""Many retained messages to a subscriber that reads slowly, over real sockets, while others publish."""

from __future__ import annotations

from collections import defaultdict

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
