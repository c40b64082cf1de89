"""What kept sessions are owed over a kill: found again by mark, positions and packet ids; QoS 2 not twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.codec.packets import Puback, Pubcomp, Publish, Pubrec, Pubrel
from tests.support.engine_client import NOW_MS, EngineClient, HoldingSink, HoldingStore, make_engine, turn
from tests.unit.engine.test_engine import of_type, payloads, publish
from tests.unit.engine.test_kept_sessions import expiry, kept_client

if TYPE_CHECKING:
    from broker.engine import Engine


class Server:
    """An engine with a log and a store that survive its end."""

    def __init__(self, *, with_log: bool = True, **limits: object) -> None:
        self.limits = limits
        self.sink = HoldingSink() if with_log else None
        self.store = HoldingStore()
        self.engine: Engine = make_engine(self.sink, self.store, **self.limits)
        self.publisher = self._connect_publisher()
        self.packet_id = 0

    def _connect_publisher(self) -> EngineClient:
        client = EngineClient(self.engine)
        client.connect("publisher")
        return client

    def restart(self) -> None:
        """kill -9, and a start with what was durable."""
        self.store.changes.clear()
        if self.sink is not None:
            self.sink.runs.clear()
        self.engine = make_engine(self.sink, self.store, **self.limits)
        self.publisher = self._connect_publisher()
        turn(self.engine)
        self.store.commit()

    def commit(self) -> None:
        """Everything handed over becomes durable, in order, until nothing is left to do."""
        while self.store.changes or (self.sink is not None and self.sink.runs):
            self.store.commit()
            if self.sink is not None:
                for run in self.sink.runs:
                    self.store.record(run)
                self.sink.commit()
            turn(self.engine)

    def route(self, *packets: Publish) -> None:
        """Publish; the log has it and it is routed, while what sessions are owed by it is not durable yet."""
        assert self.sink is not None
        self.publisher.send(*packets)
        for run in self.sink.runs:
            self.store.record(run)
        self.sink.commit()
        turn(self.engine)

    def tick(self) -> None:
        self.engine.tick(NOW_MS)
        turn(self.engine)
        self.commit()

    def publish(self, *texts: bytes, qos: int = 1, topic: str = "a") -> None:
        """Publish and have it acknowledged."""
        for text in texts:
            self.packet_id += 1
            self.publisher.send(publish(topic, text, qos, self.packet_id))
            self.commit()
            if qos == 2:
                self.publisher.send(Pubrel(self.packet_id))
                self.commit()

    def subscriber(self, qos: int = 2, topic_filter: str = "a") -> EngineClient:
        client = kept_client(self.engine)
        client.subscribe(topic_filter, qos)
        self.commit()
        client.received()
        return client

    def back(self) -> EngineClient:
        """The subscriber connects again."""
        client = kept_client(self.engine)
        self.commit()
        return client


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("ticks", [0, 1, 3])
def test_an_offline_session_gets_what_was_acknowledged_in_order(server: Server, qos: int, ticks: int) -> None:
    server.subscriber().lose()
    server.publish(b"1", b"2", qos=qos)
    for _ in range(ticks):
        server.tick()
    server.publish(b"3", qos=qos)
    server.restart()
    server.publish(b"4", qos=qos)
    server.restart()
    found = of_type(server.back().received(), Publish)
    assert payloads(found) == [b"1", b"2", b"3", b"4"]
    assert {packet.qos for packet in found} == {qos}


def test_what_was_sent_and_not_acknowledged_comes_again(server: Server) -> None:
    client = server.subscriber(1)
    server.publish(b"1")
    assert payloads(client.received()) == [b"1"]
    server.restart()
    assert payloads(server.back().received()) == [b"1"]


def test_what_was_taken_before_the_mark_does_not(server: Server) -> None:
    client = server.subscriber(1)
    server.publish(b"1", b"2")
    for packet in of_type(client.received(), Publish):
        client.send(Puback(packet.packet_id))
    server.tick()
    assert server.store.mark == {1: 2}
    assert not server.store.positions
    server.restart()
    assert payloads(server.back().received()) == []


def test_messages_from_before_a_subscription_are_not_its(server: Server) -> None:
    server.subscriber(1, "other")
    server.publish(b"before")
    client = kept_client(server.engine)
    client.subscribe("a", 1)
    server.commit()
    server.publish(b"after")
    server.restart()
    assert payloads(server.back().received()) == [b"after"]


def test_a_slow_acknowledgement_holds_the_position_back(server: Server) -> None:
    """Later messages are acknowledged first; the one that is not comes after the crash, and so may they."""
    client = server.subscriber(1)
    server.publish(b"1")
    (first,) = of_type(client.received(), Publish)
    server.tick()
    server.publish(b"2", b"3")
    for packet in of_type(client.received(), Publish):
        client.send(Puback(packet.packet_id))
    server.tick()
    server.tick()
    server.restart()
    assert payloads(server.back().received())[0] == b"1"
    del first


class TestQos2:
    """[MQTT-4.3.3-1..6] over a kill: a packet id stands for the same message, and no message comes twice."""

    def test_a_publish_waits_until_its_packet_id_is_durable(self, server: Server) -> None:
        client = server.subscriber()
        server.route(publish("a", b"1", 2, 1))
        assert client.received() == []
        server.commit()
        assert payloads(client.received()) == [b"1"]
        assert server.store.flights["k", 1].offset == 0

    def test_it_comes_again_with_its_packet_id_and_dup(self, server: Server) -> None:
        client = server.subscriber()
        server.publish(b"1", b"2", qos=2)
        client.received()
        server.restart()
        found = of_type(server.back().received(), Publish)
        assert [(each.payload, each.packet_id, each.dup) for each in found] == [(b"1", 1, True), (b"2", 2, True)]

    def test_pubrel_waits_until_pubrec_is_durable_and_comes_again(self, server: Server) -> None:
        client = server.subscriber()
        server.publish(b"1", qos=2)
        client.received()
        client.send(Pubrec(1))
        assert client.received() == []
        server.commit()
        assert of_type(client.received(), Pubrel)
        server.restart()
        again = server.back()
        assert [type(packet) for packet in again.received()] == [Pubrel]
        again.send(Pubcomp(1))
        server.publish(b"2", qos=2)
        assert payloads(again.received()) == [b"2"]

    def test_a_message_that_is_over_does_not_come_again_before_the_mark(self, server: Server) -> None:
        client = server.subscriber()
        server.publish(b"1", qos=2)
        client.received()
        client.send(Pubrec(1))
        server.commit()
        client.send(Pubcomp(1))
        server.commit()
        assert server.store.mark == {1: 0}
        server.restart()
        assert server.back().received() == []
        server.tick()
        assert not server.store.ended_flights

    def test_a_packet_id_without_its_record_is_released(self, server: Server) -> None:
        """Else the client would take the next message with this id for the one that it has."""
        client = server.subscriber()
        server.publish(b"1", qos=2)
        client.received()
        server.store.records.clear()
        server.restart()
        again = server.back()
        (pubrel,) = of_type(again.received(), Pubrel)
        assert pubrel.packet_id == 1
        again.send(Pubcomp(1))
        server.publish(b"2", qos=2)
        assert payloads(again.received()) == [b"2"]

    def test_packet_ids_go_on_behind_those_in_flight(self, server: Server) -> None:
        client = server.subscriber()
        server.publish(b"1", qos=2)
        client.received()
        server.restart()
        server.publish(b"2", qos=2)
        found = of_type(server.back().received(), Publish)
        assert [(each.payload, each.packet_id) for each in found] == [(b"1", 1), (b"2", 2)]

    def test_a_reconnect_before_it_is_durable_sends_it_once(self, server: Server) -> None:
        client = server.subscriber()
        server.route(publish("a", b"1", 2, 1))
        client.lose()
        again = kept_client(server.engine)
        assert payloads(again.received()) == []
        server.commit()
        (found,) = of_type(again.received(), Publish)
        assert (found.payload, found.dup) == (b"1", False)

    def test_what_becomes_durable_while_its_client_is_away_is_sent_without_dup(self, server: Server) -> None:
        """[MQTT-4.3.3-2]: it has never been sent"""
        client = server.subscriber()
        server.route(publish("a", b"1", 2, 1))
        client.lose()
        server.commit()
        for dup in (False, True):
            again = kept_client(server.engine)
            (found,) = of_type(again.received(), Publish)
            assert (found.payload, found.dup) == (b"1", dup)
            again.lose()

    def test_a_reconnect_before_they_are_durable_keeps_order_and_receive_maximum(self, server: Server) -> None:
        """[MQTT-3.3.4-9] [MQTT-4.6.0-1]"""
        client = server.subscriber()
        server.publish(b"1", b"2", qos=2)
        client.received()
        server.route(*[publish("a", b"%d" % number, 2, number) for number in (3, 4, 5)])
        client.lose()
        properties = expiry(100)
        properties.receive_maximum = 1
        again = EngineClient(server.engine, 5)
        again.connect("k", clean=False, properties=properties)
        found = []
        for _ in range(5):
            server.commit()
            (packet,) = of_type(again.received(), Publish)
            found.append((packet.payload, packet.dup))
            again.send(Pubrec(packet.packet_id))
            server.commit()
            again.send(Pubcomp(packet.packet_id))
        assert found == [(b"1", True), (b"2", True), (b"3", False), (b"4", False), (b"5", False)]

    def test_an_alias_is_not_used_before_the_frame_that_brings_it(self, server: Server) -> None:
        """MQTT 5 §3.3.2.3.4; a frame that waits for the store brings none."""
        properties = expiry(100)
        properties.topic_alias_maximum = 1
        client = EngineClient(server.engine, 5)
        client.connect("k", clean=False, properties=properties)
        client.subscribe("a", 2)
        server.commit()
        client.received()
        server.route(publish("a", b"1", 2, 1))
        server.publisher.send(publish("a", b"2", 0))
        turn(server.engine)
        server.commit()
        server.publisher.send(publish("a", b"3", 0))
        turn(server.engine)
        found = of_type(client.received(), Publish)
        assert [(each.payload, each.topic_name) for each in found] == [(b"2", "a"), (b"1", "a"), (b"3", "")]


def test_positions_are_written_once_a_second_and_not_for_each_message(server: Server) -> None:
    server.subscriber(1).lose()
    server.tick()
    server.publish(b"1")
    server.publisher.send(*[publish("a", b"x", 1, packet_id) for packet_id in range(100, 200)])
    assert not server.store.changes
    server.commit()
    server.tick()
    assert server.store.positions == {"k": {1: 0}}
    assert server.store.mark == {1: 101}


class TestCopies:
    """Where no record can be referred to, the message itself is kept, and acknowledged after that."""

    @pytest.fixture
    def server(self) -> Server:
        return Server(with_log=False)

    @pytest.mark.parametrize("qos", [1, 2])
    def test_a_message_of_no_stream_is_copied_before_it_is_acknowledged(self, server: Server, qos: int) -> None:
        server.subscriber().lose()
        server.publisher.send(publish("a", b"1", qos, 1))
        assert server.publisher.received() == []
        server.commit()
        assert len(server.publisher.received()) == 1
        server.packet_id = 1
        server.publish(b"2", qos=qos)
        server.restart()
        assert payloads(server.back().received()) == [b"1", b"2"]

    def test_without_a_kept_subscriber_nothing_is_copied(self, server: Server) -> None:
        server.publisher.send(publish("a", b"1", 1, 1))
        assert of_type(server.publisher.received(), Puback)
        assert not server.store.copies

    def test_copies_go_when_they_are_taken(self, server: Server) -> None:
        client = server.subscriber(1)
        server.publish(b"1", b"2")
        assert len(server.store.copies) == 2
        for packet in of_type(client.received(), Publish):
            client.send(Puback(packet.packet_id))
        server.tick()
        assert not server.store.copies

    def test_qos_2_is_not_given_twice(self, server: Server) -> None:
        client = server.subscriber()
        server.publish(b"1", b"2", qos=2)
        client.received()
        client.send(Pubrec(1))
        server.commit()
        client.send(Pubcomp(1))
        server.commit()
        server.restart()
        found = of_type(server.back().received(), Publish)
        assert [(each.payload, each.packet_id, each.dup) for each in found] == [(b"2", 2, True)]

    def test_a_retained_message_on_its_way_is_one(self) -> None:
        server = Server()
        server.publisher.send(publish("a", b"kept", 1, 1, retain=True))
        server.commit()
        server.subscriber(1)
        server.restart()
        (found,) = of_type(server.back().received(), Publish)
        assert (found.payload, found.retain) == (b"kept", True)

    def test_a_session_that_ends_takes_its_copies_along(self, server: Server) -> None:
        server.subscriber().lose()
        server.publish(b"1")
        EngineClient(server.engine, 5).connect("k", clean=True)
        turn(server.engine)
        server.commit()
        assert not server.store.copies

    def test_while_they_cannot_be_stored_their_publisher_is_not_read(self, server: Server) -> None:
        server.subscriber().lose()
        server.store.fails = True
        server.publisher.send(publish("other", b"1", 1, 1))
        assert server.publisher.transport.is_reading
        server.publisher.send(publish("a", b"1", 1, 2))
        assert not server.publisher.transport.is_reading
        server.engine.tick(NOW_MS)
        assert not server.publisher.transport.is_reading
        server.store.fails = False
        server.engine.tick(NOW_MS)
        assert server.publisher.transport.is_reading

    def test_what_the_limits_drop_is_not_copied(self) -> None:
        server = Server(with_log=False, queued_messages_max=2)
        server.subscriber().lose()
        server.publish(b"1", b"2", b"3")
        assert len(server.store.copies) == 2

    def test_copies_of_what_is_dropped_later_go_too(self) -> None:
        server = Server(with_log=False, queued_messages_max=2, queued_drop="oldest")
        server.subscriber().lose()
        server.publish(b"1", b"2", b"3")
        server.tick()
        assert len(server.store.copies) == 2
        server.restart()
        assert payloads(server.back().received()) == [b"2", b"3"]


class TestRetention:
    """A record that a session refers to is copied before it is dropped."""

    def test_records_are_held_until_they_are_copied(self, server: Server) -> None:
        server.subscriber().lose()
        server.publish(b"1", b"2")
        server.publish(b"3", qos=2)
        server.tick()
        assert server.store.held == {1: 0}
        server.store.wanted_first = 2
        server.tick()
        assert server.store.held == {1: 3}
        assert server.engine.owed is not None
        assert server.engine.owed.copied == 3
        server.store.drop_records_before(3)
        server.restart()
        assert payloads(server.back().received()) == [b"1", b"2", b"3"]

    def test_a_message_on_its_way_keeps_its_packet_id(self, server: Server) -> None:
        client = server.subscriber()
        server.publish(b"1", b"2", qos=2)
        client.received()
        client.send(Pubrec(1))
        server.commit()
        server.tick()
        server.store.wanted_first = 2
        server.tick()
        server.store.drop_records_before(2)
        server.restart()
        again = server.back().received()
        (found,) = of_type(again, Publish)
        assert (found.payload, found.packet_id, found.dup) == (b"2", 2, True)
        (pubrel,) = of_type(again, Pubrel)
        assert pubrel.packet_id == 1

    def test_without_sessions_nothing_is_held(self, server: Server) -> None:
        server.publish(b"1", b"2")
        server.tick()
        assert server.store.held == {1: 2}


class TestShared:
    """Which member of a shared subscription has a message is known from its copy alone."""

    def members(self, server: Server, *more: str) -> None:
        for client_id in ("m1", "m2"):
            client = EngineClient(server.engine)
            client.connect(client_id, clean=False)
            for topic_filter in ("$share/g/#", *more):
                client.subscribe(topic_filter, 1)
            server.commit()
            client.lose()

    def owed_to(self, server: Server, client_id: str) -> list[bytes]:
        client = EngineClient(server.engine)
        client.connect(client_id, clean=False)
        return payloads(client.received())

    @pytest.mark.parametrize("with_log", [True, False])
    def test_each_gets_its_own_after_a_kill(self, with_log: bool) -> None:
        """One read that is dealt out in several pieces."""
        server = Server(with_log=with_log)
        self.members(server)
        rows = [(b"%d" % number, 0 if number in (4, 7) else 1) for number in range(9)]
        server.publisher.send(
            *(publish("a", text, qos, number + 1 if qos else 0) for number, (text, qos) in enumerate(rows))
        )
        server.commit()
        server.tick()
        server.restart()
        assert self.owed_to(server, "m1") == [b"0", b"2", b"5", b"8"]
        assert self.owed_to(server, "m2") == [b"1", b"3", b"6"]

    def test_it_goes_to_another_when_the_session_ends_after_a_kill(self) -> None:
        server = Server()
        self.members(server)
        server.publish(b"1", b"2", b"3")
        server.restart()
        EngineClient(server.engine).connect("m1")
        server.commit()
        server.restart()
        assert self.owed_to(server, "m2") == [b"2", b"1", b"3"]

    @pytest.mark.parametrize("with_log", [True, False])
    def test_a_message_of_two_groups_and_a_usual_subscription_comes_three_times(self, with_log: bool) -> None:
        server = Server(with_log=with_log)
        self.members(server, "$share/h/#", "#")
        for _ in range(2):
            server.publisher.send(
                *(
                    publish("a", b"%d" % number, number % 3 and 1, number + 1 if number % 3 else 0)
                    for number in range(1, 9)
                )
            )
            server.commit()
            server.tick()
        server.restart()
        found = self.owed_to(server, "m1") + self.owed_to(server, "m2")
        assert sorted(found) == sorted(2 * 4 * [b"%d" % number for number in range(1, 9) if number % 3])
