"""Between a SUBSCRIBE of a kept session and its SUBACK, which waits for the store: what comes in which order."""

from __future__ import annotations

import pytest

from broker.codec.packets import (
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
)
from broker.codec.properties import Properties
from broker.engine import Engine
from tests.support.engine_client import EngineClient, HoldingStore, make_engine, turn
from tests.unit.engine.test_engine import of_type, publish
from tests.unit.engine.test_kept_sessions import kept_client


class Server:
    """An engine with a store that commits when it is told to, a publisher, and a client with a kept session."""

    def __init__(self, **limits: int) -> None:
        self.store = HoldingStore()
        self.engine: Engine = make_engine(None, self.store, **limits)
        self.publisher = EngineClient(self.engine)
        self.publisher.connect("p")
        self.client = kept_client(self.engine)
        self.commit()

    def commit(self) -> None:
        while self.store.changes or self.engine.changes:
            turn(self.engine)
            self.store.commit()
            turn(self.engine)

    def retain(self, topic: str, payload: bytes, qos: int = 1) -> None:
        self.publisher.send(publish(topic, payload, qos, 1 if qos else 0, retain=True))
        self.commit()

    def send(self, *packets: object) -> None:
        """In one write of the kept session's client."""
        self.client.send(*packets)

    def everything(self) -> list[bytes | int]:
        """All that comes while the client acknowledges: packet ids of SUBACKs and payloads."""
        found: list[bytes | int] = []
        while packets := self.client.received():
            found += told(packets)
            for packet in of_type(packets, Publish):
                if packet.qos:
                    self.send(Puback(packet.packet_id) if packet.qos == 1 else Pubrec(packet.packet_id))
            for packet in of_type(packets, Pubrel):
                self.send(Pubcomp(packet.packet_id))
            self.commit()
        return found


def subscribe(*filters: str, qos: int = 1, packet_id: int = 1) -> Subscribe:
    return Subscribe(packet_id, [Subscription(topic_filter, qos) for topic_filter in filters], Properties())


def live(topic: str, payload: bytes, qos: int = 1, packet_id: int = 9, *, retain: bool = False) -> Publish:
    return Publish(topic, payload, qos, retain, False, packet_id if qos else 0, Properties())


def told(packets: list[object]) -> list[bytes | int]:
    """Packet ids of SUBACKs and payloads."""
    found: list[bytes | int] = []
    for packet in packets:
        if isinstance(packet, Suback):
            found.append(packet.packet_id)
        elif isinstance(packet, Publish):
            found.append(packet.payload)
    return found


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("is_retained", [False, True])
@pytest.mark.parametrize("receive_maximum", [1, 100])
def test_suback_then_what_was_retained_then_what_came_after(qos: int, is_retained: bool, receive_maximum: int) -> None:
    server = Server(inflight_messages_max=receive_maximum)
    server.retain("t", b"v1", qos)
    server.send(subscribe("t", qos=qos), live("t", b"v2", qos, retain=is_retained))
    assert of_type(server.client.received(), Publish) == []
    server.commit()
    server.publisher.send(publish("t", b"v3", qos, 7 if qos else 0))
    server.commit()
    assert server.everything() == [1, b"v1", b"v2", b"v3"]


def test_each_subscription_has_what_is_its_behind_its_own_suback() -> None:
    server = Server()
    server.retain("a", b"a1")
    server.retain("b", b"b1")
    server.send(subscribe("a"), live("a", b"a2"))
    first = server.store.changes
    server.store.changes = []
    server.send(subscribe("b", packet_id=2), live("b", b"b2"), live("a", b"a3", packet_id=10))
    second, server.store.changes = server.store.changes, first
    server.store.commit()
    turn(server.engine)
    assert told(server.client.received()) == [1, b"a1", b"a2"]
    server.store.changes = second
    server.commit()
    assert told(server.client.received()) == [2, b"b1", b"b2", b"a3"]
    server.publisher.send(publish("a", b"a4", 1, 8))
    assert told(server.client.received()) == [b"a4"], "nothing is held any more"


def test_neither_answers_nor_others_wait() -> None:
    server = Server()
    server.retain("t", b"v1")
    other = EngineClient(server.engine)
    other.connect("o")
    other.subscribe("t", 1)
    server.send(subscribe("t"), live("t", b"v2", 0), Pingreq())
    assert [type(packet) for packet in server.client.received()] == [Pingresp]
    assert told(other.received()) == [b"v2"]


def test_many_retained_messages_for_several_filters_all_come() -> None:
    """More than may wait for a slow connection: they are no slow connection's."""
    server = Server(outbox_bytes_max=65_536, outbox_reliable_bytes_max=16_384)
    for number in range(60):
        server.retain(f"a/{number}", b"x" * 2_000, 0)
        server.retain(f"b/{number}", b"x" * 2_000, 0)
    server.send(subscribe("a/#", "b/#", qos=0))
    server.commit()
    for _ in range(10):
        turn(server.engine)
    assert len(told(server.client.received())) == 121
    assert not server.engine.metrics.dropped_messages


def test_what_waits_is_bounded_as_for_a_slow_connection() -> None:
    server = Server(outbox_bytes_max=65_536, outbox_reliable_bytes_max=16_384)
    server.send(subscribe("t"))
    for number in range(100):
        server.publisher.send(publish("t", b"%d" % number + b" " * 1_000, 0))
    dropped = server.engine.metrics.dropped_messages["outbox_full"]
    assert 30 < dropped < 40
    for number in range(100, 130):
        server.publisher.send(publish("t", b"%d" % number + b" " * 1_000, 1, number))
    session = server.client.connection.session
    assert session is not None
    assert session.queued_messages == 30, "QoS 1 loses nothing"
    server.commit()
    suback, *found = told(server.client.received())
    assert suback == 1
    assert [int(payload) for payload in found] == [*range(100 - dropped), *range(100, 130)]


def test_second_subscribe_has_no_more_room_than_the_first() -> None:
    server = Server(outbox_bytes_max=65_536)
    for packet_id in range(1, 6):
        server.send(subscribe(f"{packet_id}", "t", qos=0, packet_id=packet_id))
        for _ in range(50):
            server.publisher.send(publish("t", b" " * 1_000, 0))
    server.commit()
    assert len(told(server.client.received())) < 5 + 80


def test_a_store_that_fails_holds_nothing_up() -> None:
    server = Server()
    server.retain("t", b"v1")
    server.send(subscribe("t"), live("t", b"v2", 0))
    server.store.fails = True
    assert told(server.client.received()) == []
    server.engine.tick(server.client.now_ms)
    turn(server.engine)
    assert told(server.client.received()) == [b"v1", b"v2"]
    server.send(subscribe("u", packet_id=2), live("t", b"v3", 0))
    assert told(server.client.received()) == [b"v3"]
    server.store.fails = False
    server.commit()
    assert told(server.client.received()) == [1, 2], "each SUBACK when its subscription is on disk"


def test_what_waited_when_the_connection_was_lost() -> None:
    """QoS 1 comes by the next connection, QoS 0 is counted."""
    server = Server()
    server.retain("t", b"v1")
    server.send(subscribe("t"), live("t", b"v2", 0), live("t", b"v3", 1))
    server.client.lose()
    assert server.engine.metrics.dropped_messages["connection_lost"] == 1
    again = kept_client(server.engine)
    server.commit()
    assert told(again.received()) == [b"v1", b"v3"]
    server.publisher.send(publish("t", b"v4", 0))
    assert told(again.received()) == [b"v4"]
