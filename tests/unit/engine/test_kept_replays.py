"""Replays of kept sessions with a store: where they go on after a restart, and in which order they are sent."""

from __future__ import annotations

import pytest

from broker.codec.packets import Puback, Pubcomp, Publish, Pubrec, Pubrel, Subscribe, Subscription
from broker.codec.properties import Properties
from broker.config import BrokerConfig
from broker.engine import Engine
from tests.support.engine_client import NOW_MS, EngineClient, HoldingSink, HoldingStore, turn
from tests.support.replay_source import ListSource
from tests.unit.engine.test_engine import of_type, publish
from tests.unit.engine.test_kept_sessions import expiry

EVERYTHING = "$replay/-1h/#"


class Server:
    """An engine whose list of messages and store survive its end."""

    def __init__(self, *, piece_rows: int = 10, **limits: int) -> None:
        self.source = ListSource(piece_rows)
        self.sink = HoldingSink()
        self.store = HoldingStore()
        self.limits = limits
        self.engine = self._start()

    def _start(self) -> Engine:
        engine = Engine(BrokerConfig(**self.limits), self.sink, self.source, self.store)
        engine.restore(NOW_MS)
        turn(engine)
        self.store.commit()
        return engine

    def kill(self) -> None:
        """kill -9, and a start with what was durable."""
        self.store.changes.clear()
        self.source.feeds.clear()
        self.engine = self._start()

    def stop(self) -> None:
        """An orderly stop, and a start."""
        self.engine.shut_down()
        self.settle()
        self.kill()

    def tick(self) -> None:
        self.engine.tick(NOW_MS)
        self.settle()

    def settle(self) -> None:
        """Everything is read, sent and durable, as far as it goes."""
        while self.source.step() or self.store.changes or self.engine.changes:
            turn(self.engine)
            self.store.commit()
            turn(self.engine)

    def fill(self, *levels: int) -> None:
        """Store messages with these QoS; their payloads are numbers in order."""
        for qos in levels:
            self.source.add("a", b"%d" % len(self.source.messages), qos=qos)

    def client(self, level: int = 5) -> EngineClient:
        """The kept session's client."""
        client = EngineClient(self.engine, level)
        more = {"properties": expiry(3_600)} if level == 5 else {}
        client.connect("k", clean=False, **more)
        self.settle()
        return client

    def subscriber(self, qos: int, level: int = 5, topic_filter: str = EVERYTHING) -> EngineClient:
        client = self.client(level)
        client.subscribe(topic_filter, qos)
        self.settle()
        return client

    def take(self, client: EngineClient, count: int) -> list[int]:
        """Acknowledge so many of the messages that have come; returns the numbers of all."""
        packets = of_type(client.received(), Publish)
        for packet in packets[:count]:
            if packet.qos == 1:
                client.send(Puback(packet.packet_id))
            elif packet.qos == 2:
                client.send(Pubrec(packet.packet_id))
                self.settle()
                client.send(Pubcomp(packet.packet_id))
            self.settle()
        return numbers(packets)


def numbers(packets: list[object]) -> list[int]:
    return [int(packet.payload) for packet in of_type(packets, Publish) if packet.payload.isdigit()]


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("qos", [1, 2])
class TestWhereItGoesOn:
    """Behind the last message up to which all are acknowledged."""

    def test_what_is_in_flight_of_another_subscription_does_not_hold_it(self, qos: int, level: int) -> None:
        server = Server()
        server.fill(*[qos] * 30)
        client = server.subscriber(qos, level)
        client.send(Subscribe(2, [Subscription("other", 1)], Properties() if level == 5 else None))
        server.settle()
        assert server.take(client, 30) == list(range(30))
        publisher = EngineClient(server.engine)
        publisher.connect("p")
        publisher.send(publish("other", b"o", 1, 1))
        assert [packet.payload for packet in of_type(client.received(), Publish)] == [b"o"]
        client.lose()
        server.stop()
        server.fill(qos)
        assert numbers(server.client(level).received()) == [30]

    @pytest.mark.parametrize("is_away", [True, False])
    def test_only_what_was_not_acknowledged_comes_again_after_a_stop(self, qos: int, level: int, is_away: bool) -> None:
        server = Server(piece_rows=4, inflight_messages_max=15)
        server.fill(*[qos] * 40)
        client = server.subscriber(qos, level)
        assert server.take(client, 9) == list(range(15))
        if is_away:
            client.lose()
            server.settle()
        server.stop()
        again = server.client(level)
        packets = again.received()
        for packet in of_type(packets, Pubrel):  # ids from before, which take their place until they are over
            again.send(Pubcomp(packet.packet_id))
        server.settle()
        assert numbers(packets + again.received())[:3] == [9, 10, 11]

    def test_after_a_kill_what_was_acknowledged_before_the_last_second_does_not_come_again(
        self, qos: int, level: int
    ) -> None:
        server = Server(piece_rows=4)
        server.fill(*[qos] * 20)
        client = server.subscriber(qos, level)
        server.take(client, 13)
        server.tick()
        server.kill()
        assert numbers(server.client(level).received()) == list(range(13, 20))

    def test_one_that_is_not_acknowledged_holds_it_though_later_ones_are(self, qos: int, level: int) -> None:
        server = Server(piece_rows=4)
        server.fill(*[qos] * 20)
        client = server.subscriber(qos, level)
        first, *rest = of_type(client.received(), Publish)
        for packet in rest:
            client.send(Puback(packet.packet_id) if qos == 1 else Pubrec(packet.packet_id))
            server.settle()
        server.tick()
        server.kill()
        assert numbers(server.client(level).received())[0] == int(first.payload)


class TestNoting:
    """Nothing is written for a message, and nothing while nothing moves."""

    def test_a_replay_that_has_moved_is_noted_once_a_second(self) -> None:
        server = Server()
        server.fill(*[1] * 30)
        client = server.subscriber(1)
        server.take(client, 5)
        before = server.store.subscriptions["k", EVERYTHING].position
        assert before == "0"
        server.tick()
        assert server.store.subscriptions["k", EVERYTHING].position == "5"
        server.store.mark = None
        server.engine.tick(NOW_MS)
        turn(server.engine)
        assert server.store.changes == []

    def test_one_that_is_not_kept_is_not(self) -> None:
        server = Server()
        server.fill(*[1] * 30)
        client = EngineClient(server.engine, 5)
        client.connect("c")
        client.subscribe(EVERYTHING, 1)
        server.settle()
        assert server.engine.replays is not None
        assert not server.engine.replays.moved
        assert not server.engine.replays.reading

    def test_subscribed_again_it_still_owes_what_was_in_flight(self) -> None:
        server = Server()
        server.fill(*[1] * 20)
        client = server.subscriber(1)
        server.take(client, 3)
        client.subscribe(EVERYTHING, 1, packet_id=2)
        server.settle()
        assert server.store.subscriptions["k", EVERYTHING].position == "3"
        server.kill()
        assert numbers(server.client().received()) == list(range(3, 20))

    def test_an_old_one_with_another_since_does_not_hold_the_new_one(self) -> None:
        server = Server()
        server.fill(*[1] * 20)
        client = server.client()

        def subscribe(since: str) -> None:
            properties = Properties()
            properties.user_properties = [("since", since)]
            client.send(Subscribe(1, [Subscription("#", 1)], properties))
            server.settle()

        subscribe("-1h")
        client.received()
        subscribe("15")
        for packet in of_type(client.received(), Publish):
            client.send(Puback(packet.packet_id))
        server.stop()
        assert numbers(server.client().received()) == []

    def test_one_for_which_nothing_comes_is_noted_too(self) -> None:
        """Else a crash would have it read what was stored since it was there last."""
        server = Server()
        server.subscriber(1, topic_filter="$replay/-1h/b")
        server.settle()
        server.source.feeds[0].index = 7  # what a feed says that has seen only others' messages
        server.tick()
        assert server.store.subscriptions["k", "$replay/-1h/b"].position == "7"

    def test_many_that_move_are_noted_by_and_by(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("broker.sessions.replays.NOTED_MAX", 2)
        server = Server()
        server.fill(*[0] * 5)
        client = server.client()
        names = [f"$replay/{number}/#" for number in range(5)]
        client.send(Subscribe(1, [Subscription(name, 0) for name in names], Properties()))
        server.settle()
        for count in (2, 4, 5):
            server.tick()
            noted = [name for name in names if server.store.subscriptions["k", name].position == "5"]
            assert len(noted) == count


class TestOrder:
    """That of the stream, though QoS 2 waits for the store and the others need not."""

    @pytest.mark.parametrize("level", [4, 5])
    @pytest.mark.parametrize("levels", [(2, 1), (2, 0), (2, 1, 0, 1), (2, 2, 1, 1, 1)])
    def test_of_different_qos(self, level: int, levels: tuple[int, ...]) -> None:
        server = Server(piece_rows=7)
        server.fill(*[levels[number % len(levels)] for number in range(40)])
        client = server.subscriber(2, level)
        assert numbers(client.received()) == list(range(40))

    @pytest.mark.parametrize("waiting_bytes_max", [0, 50])
    def test_not_more_waits_for_the_store_than_for_a_connection(self, waiting_bytes_max: int) -> None:
        server = Server(piece_rows=1, replay_waiting_bytes_max=waiting_bytes_max)
        server.fill(2, *[0] * 99)
        client = server.client()
        client.subscribe(EVERYTHING, 2)
        server.store.commit()  # the subscription
        while server.source.step():
            turn(server.engine)
        assert len(server.source.messages) - server.source.feeds[0].index > 90
        server.settle()
        assert numbers(client.received()) == list(range(100))

    def test_what_waited_when_the_connection_was_lost_comes_by_the_next_in_order(self) -> None:
        server = Server(piece_rows=3)
        server.fill(*[2, 1] * 4)
        client = server.client()
        client.subscribe(EVERYTHING, 2)
        server.store.commit()
        server.source.step()
        server.source.step()
        turn(server.engine)
        client.lose()
        again = EngineClient(server.engine, 5)
        again.connect("k", clean=False, properties=expiry(3_600))
        server.settle()
        packets = of_type(again.received(), Publish)
        assert numbers(list(packets)) == list(range(8))
        assert not any(packet.dup for packet in packets), "none of them was sent before"

    def test_qos_0_that_waited_when_the_connection_was_lost_is_counted(self) -> None:
        server = Server()
        server.fill(2, 0, 0, 2)
        client = server.client()
        client.subscribe(EVERYTHING, 2)
        server.store.commit()
        server.source.step()
        turn(server.engine)
        client.lose()
        server.settle()
        assert server.engine.metrics.dropped_messages["connection_lost"] == 2
