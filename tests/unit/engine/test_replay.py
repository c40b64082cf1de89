"""Replay subscriptions in the engine: order, quota, room in the outbox, reconnects, refusals. The source is a list."""

from __future__ import annotations

import pytest

from broker.codec.packets import (
    Disconnect,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
)
from broker.codec.properties import Properties
from broker.engine import Engine
from broker.replay import ReplayState
from tests.support.engine_client import EngineClient, HoldingSink, make_engine, turn
from tests.support.replay_source import ListSource

EVERYTHING = "$replay/-1h/#"


def make_replaying(source: ListSource, **limits: int) -> Engine:
    engine = make_engine(HoldingSink(), **limits)
    return Engine(engine.config, engine.sink, source)


def connected(engine: Engine, level: int = 5, client_id: str = "s", **more: object) -> EngineClient:
    client = EngineClient(engine, level)
    client.connect(client_id, **more)
    return client


def kept(engine: Engine, level: int = 5, **more: object) -> EngineClient:
    """A client whose session outlives its connection."""
    properties = Properties()
    properties.session_expiry_interval = 3_600
    if "receive_maximum" in more:
        properties.receive_maximum = more.pop("receive_maximum")  # type: ignore[assignment]
    if level == 5:
        more["properties"] = properties
    return connected(engine, level, clean=False, **more)


def numbers(packets: list[object]) -> list[int]:
    return [int(packet.payload) for packet in packets if isinstance(packet, Publish)]


def publishes(packets: list[object]) -> list[Publish]:
    return [packet for packet in packets if isinstance(packet, Publish)]


def everything(engine: Engine, source: ListSource, client: EngineClient) -> list[Publish]:
    """All that comes while the client acknowledges what it gets."""
    found: list[Publish] = []
    while True:
        given = source.step()
        turn(engine)
        new = publishes(client.received())
        found += new
        acknowledge(client, new)
        if not given and not new:
            return found


def acknowledge(client: EngineClient, packets: list[Publish]) -> None:
    for packet in packets:
        if packet.qos == 1:
            client.send(Puback(packet.packet_id))
        elif packet.qos == 2:
            client.send(Pubrec(packet.packet_id))
            client.send(Pubcomp(packet.packet_id))


def fill(source: ListSource, count: int, qos: int = 1, topic_name: str = "a/b") -> None:
    begin = len(source.messages)
    source.add(topic_name, *[b"%d" % number for number in range(begin, begin + count)], qos=qos)


class TestDelivery:
    """What is stored, then what comes."""

    @pytest.mark.parametrize("level", [4, 5])
    @pytest.mark.parametrize("qos", [0, 1, 2])
    def test_history_in_order_then_live(self, level: int, qos: int) -> None:
        source = ListSource()
        fill(source, 95, qos=2)
        engine = make_replaying(source)
        client = connected(engine, level)
        (suback,) = client.subscribe(EVERYTHING, qos)
        assert suback == Suback(1, [qos])
        found = everything(engine, source, client)
        assert [int(packet.payload) for packet in found] == list(range(95))
        assert {packet.qos for packet in found} == {qos}
        assert {packet.topic_name for packet in found} == {"a/b"}
        fill(source, 7, qos=2)
        assert [int(packet.payload) for packet in everything(engine, source, client)] == list(range(95, 102))

    def test_each_message_keeps_the_lower_qos_and_its_place(self) -> None:
        source = ListSource(piece_rows=7)
        for number in range(60):
            source.add("a", b"%d" % number, qos=number % 3)
        engine = make_replaying(source)
        client = connected(engine)
        client.subscribe(EVERYTHING, 1)
        found = everything(engine, source, client)
        assert [(int(packet.payload), packet.qos) for packet in found] == [
            (number, min(number % 3, 1)) for number in range(60)
        ]
        ids = [packet.packet_id for packet in found if packet.qos]
        assert ids == list(range(1, 41))

    def test_live_messages_come_from_what_is_stored_and_not_twice(self) -> None:
        source = ListSource()
        engine = make_replaying(source)
        client = connected(engine)
        client.subscribe(EVERYTHING, 1)
        publisher = connected(engine, client_id="p")
        publisher.send(Publish("a", b"0", properties=Properties()))
        assert client.received() == []
        source.add("a", b"0")
        assert [packet.payload for packet in everything(engine, source, client)] == [b"0"]

    def test_since_property_makes_every_filter_a_replay(self) -> None:
        source = ListSource()
        source.add("a", b"1")
        source.add("b", b"2")
        source.add("c", b"3")
        engine = make_replaying(source)
        client = connected(engine)
        properties = Properties()
        properties.user_properties = [("since", "-1h"), ("other", "x")]
        properties.subscription_identifiers = [7]
        client.send(Subscribe(1, [Subscription("a", 1), Subscription("b", 0)], properties))
        assert client.received() == [Suback(1, [1, 0])]
        found = everything(engine, source, client)
        assert [(packet.topic_name, packet.qos) for packet in found] == [("a", 1), ("b", 0)]
        assert [packet.properties.subscription_identifiers for packet in found if packet.properties] == [[7], [7]]
        publisher = connected(engine, client_id="p")
        publisher.send(Publish("a", b"live", properties=Properties()))
        assert client.received() == [], "a live message comes from what is stored"

    def test_two_subscriptions_are_two_replays(self) -> None:
        source = ListSource()
        fill(source, 20)
        engine = make_replaying(source)
        client = connected(engine)
        client.subscribe("$replay/-1h/a/+", 1, packet_id=1)
        client.subscribe("$replay/15/#", 1, packet_id=2)
        found = [int(packet.payload) for packet in everything(engine, source, client)]
        assert sorted(found) == sorted([*range(20), *range(15, 20)])

    def test_retained_messages_are_not_sent_beside_history(self) -> None:
        source = ListSource()
        engine = make_replaying(source)
        publisher = connected(engine, client_id="p")
        publisher.send(Publish("a", b"old", 0, True, properties=Properties()))
        client = connected(engine)
        assert client.subscribe(EVERYTHING) == [Suback(1, [0])]

    def test_a_usual_subscription_goes_on_beside_it(self) -> None:
        """Its messages pass those that wait for the quota."""
        source = ListSource()
        fill(source, 100)
        engine = make_replaying(source, inflight_messages_max=5)
        client = connected(engine)
        client.subscribe(EVERYTHING, 1, packet_id=1)
        client.subscribe("live", 1, packet_id=2)
        source.step()
        turn(engine)
        first = publishes(client.received())
        assert [int(packet.payload) for packet in first] == list(range(5))
        publisher = connected(engine, client_id="p")
        publisher.send(Publish("live", b"1000", 1, packet_id=1, properties=Properties()))
        client.send(Puback(first[0].packet_id))
        next_ones = publishes(client.received())
        assert [packet.topic_name for packet in next_ones] == ["live"]
        acknowledge(client, first[1:] + next_ones)
        assert [int(packet.payload) for packet in everything(engine, source, client)][:3] == [5, 6, 7]


class TestFlow:
    """A replay takes what room there is and no more."""

    @pytest.mark.parametrize("qos", [1, 2])
    def test_receive_maximum_is_kept(self, qos: int) -> None:
        """[MQTT-3.3.4-9]"""
        source = ListSource()
        fill(source, 100, qos=2)
        engine = make_replaying(source)
        client = kept(engine, receive_maximum=3)
        client.subscribe(EVERYTHING, qos)
        found: list[int] = []
        while len(found) < 100:
            source.step()
            turn(engine)
            new = publishes(client.received())
            assert 0 < len(new) <= 3
            found += numbers(list(new))
            acknowledge(client, new)
        assert found == list(range(100))

    def test_pieces_are_pulled_only_as_far_as_the_client_takes_them(self) -> None:
        source = ListSource()
        fill(source, 1_000)
        engine = make_replaying(source, inflight_messages_max=1, replay_pieces_max=2)
        client = connected(engine)
        client.subscribe(EVERYTHING, 1)
        while source.step():
            turn(engine)
        assert source.feeds[0].pieces == 2

    def test_qos_0_waits_while_the_transport_is_full_and_loses_nothing(self) -> None:
        source = ListSource()
        fill(source, 1_000)
        engine = make_replaying(source)
        client = connected(engine)
        client.subscribe(EVERYTHING)
        client.connection.pause_writing()
        while source.step():
            turn(engine)
        assert source.feeds[0].pieces == 2
        assert client.received() == []
        client.connection.resume_writing()
        turn(engine)
        found = publishes(client.received()) + everything(engine, source, client)
        assert numbers(list(found)) == list(range(1_000))
        assert not engine.metrics.dropped_messages

    def test_replays_of_one_client_share_its_quota(self) -> None:
        source = ListSource()
        fill(source, 200)
        engine = make_replaying(source, inflight_messages_max=1)
        client = connected(engine)
        for number in range(3):
            client.subscribe(f"$replay/{number}/#", 1, packet_id=number + 1)
        seen: dict[str, int] = {}
        for _ in range(60):
            source.step()
            turn(engine)
            new = publishes(client.received())
            acknowledge(client, new)
        for replay in client.connection.session.replays.values():  # type: ignore[union-attr]
            seen[replay.state().name] = int(replay.state().position)
        assert min(seen.values()) > 10, seen


class TestKeptSession:
    """It goes on at its own position."""

    @pytest.mark.parametrize("level", [4, 5])
    @pytest.mark.parametrize("qos", [1, 2])
    def test_unacknowledged_messages_come_again_and_the_rest_follows(self, level: int, qos: int) -> None:
        source = ListSource()
        fill(source, 50, qos=2)
        engine = make_replaying(source, inflight_messages_max=8)
        client = kept(engine, level)
        client.subscribe(EVERYTHING, qos)
        source.step()
        turn(engine)
        first = publishes(client.received())
        acknowledge(client, first[:3])
        sent_since = publishes(client.received())
        client.lose()
        assert source.feeds == [], "a client that is away is not read for"
        fill(source, 10, qos=2)
        again = kept(engine, level)
        repeated = publishes(again.received())
        unacknowledged = first[3:] + sent_since
        assert numbers(list(repeated)) == numbers(list(unacknowledged))
        assert all(packet.dup for packet in repeated)
        assert [packet.packet_id for packet in repeated] == [packet.packet_id for packet in unacknowledged]
        if level == 5:
            assert [packet.properties for packet in repeated] == [packet.properties for packet in unacknowledged]
        acknowledge(again, repeated)
        rest = publishes(again.received()) + everything(engine, source, again)
        assert numbers(list(rest)) == list(range(10, 60))

    def test_messages_of_both_qos_come_again_in_the_order_in_which_they_were_sent(self) -> None:
        """[MQTT-4.6.0-1]"""
        source = ListSource()
        for number in range(20):
            source.add("a", b"%d" % number, qos=1 + number // 3 % 2)
        engine = make_replaying(source, inflight_messages_max=12)
        client = kept(engine)
        session = client.connection.session
        assert session is not None
        client.subscribe(EVERYTHING, 2)
        source.step()
        source.step()
        turn(engine)
        assert numbers(client.received()) == list(range(12))
        client.send(Puback(2))
        client.received()
        client.lose()
        again = kept(engine)
        assert numbers(again.received()) == [0, *range(2, 13)]

    def test_qos_0_goes_on_after_what_was_written(self) -> None:
        source = ListSource()
        fill(source, 40)
        engine = make_replaying(source)
        client = kept(engine)
        client.subscribe(EVERYTHING)
        source.step()
        turn(engine)
        assert numbers(client.received()) == list(range(10))
        client.lose()
        again = kept(engine)
        assert numbers(list(everything(engine, source, again))) == list(range(10, 40))

    def test_take_over_goes_on(self) -> None:
        source = ListSource()
        fill(source, 40)
        engine = make_replaying(source, inflight_messages_max=15)
        client = kept(engine)
        client.subscribe(EVERYTHING, 1)
        source.step()
        turn(engine)
        acknowledge(client, publishes(client.received()))
        second = kept(engine)
        assert [packet.reason_code for packet in client.received() if isinstance(packet, Disconnect)] == [0x8E]
        assert numbers(list(everything(engine, source, second))) == list(range(10, 40))
        assert len(source.feeds) == 1

    def test_client_that_comes_back_with_3_1_1_gets_frames_of_3_1_1(self) -> None:
        source = ListSource()
        fill(source, 30)
        engine = make_replaying(source, inflight_messages_max=5)
        kept_client = kept(engine, 5)
        kept_client.subscribe(EVERYTHING, 1)
        source.step()
        turn(engine)
        assert numbers(kept_client.received()) == [0, 1, 2, 3, 4]
        kept_client.lose()
        again = kept(engine, 4)
        repeated = publishes(again.received())
        assert numbers(list(repeated)) == [0, 1, 2, 3, 4]
        acknowledge(again, repeated)
        assert numbers(list(everything(engine, source, again))) == list(range(5, 30))

    @pytest.mark.parametrize("by_property", [False, True])
    def test_same_subscription_again_goes_on_too(self, by_property: bool) -> None:
        """[MQTT-3.8.4-4]: clients subscribe at each connect."""
        source = ListSource()
        fill(source, 30)
        engine = make_replaying(source)
        client = kept(engine)

        def subscribe(each: EngineClient, qos: int) -> None:
            properties = Properties()
            properties.user_properties = [("since", "-1h")] if by_property else []
            name = "#" if by_property else EVERYTHING
            each.send(Subscribe(1, [Subscription(name, qos)], properties))

        subscribe(client, 1)
        source.step()
        turn(engine)
        acknowledge(client, publishes(client.received()))
        client.lose()
        again = kept(engine)
        subscribe(again, 0)
        rest = publishes(again.received()) + everything(engine, source, again)
        assert numbers(list(rest)) == list(range(10, 30))
        assert {packet.qos for packet in rest} == {0}

    def test_another_since_begins_anew(self) -> None:
        source = ListSource()
        fill(source, 30)
        engine = make_replaying(source)
        client = connected(engine)
        for since, expected in (("-1h", range(30)), ("25", range(25, 30))):
            properties = Properties()
            properties.user_properties = [("since", since)]
            client.send(Subscribe(1, [Subscription("#", 1)], properties))
            assert numbers(list(everything(engine, source, client))) == list(expected)
        assert len(source.feeds) == 1

    def test_state_is_one_value_that_can_be_gone_on_with(self) -> None:
        source = ListSource()
        fill(source, 30)
        engine = make_replaying(source, inflight_messages_max=4)
        client = kept(engine)
        client.subscribe(EVERYTHING, 1)
        source.step()
        turn(engine)
        session = client.connection.session
        assert session is not None
        assert session.replays is not None
        (replay,) = session.replays.values()
        assert replay.state() == ReplayState(EVERYTHING, "#", "-1h", "4", 1, False, False, 0)
        client.lose()
        assert replay.state().position == "4"

    def test_session_that_ends_reads_no_more(self) -> None:
        source = ListSource()
        fill(source, 30)
        engine = make_replaying(source)
        client = connected(engine)
        client.subscribe(EVERYTHING)
        assert engine.replays is not None
        assert engine.replays.count == 1
        client.lose()
        assert source.feeds == []
        assert engine.replays.count == 0


class TestEnd:
    """UNSUBSCRIBE and replacement."""

    def test_unsubscribe_with_the_same_text_ends_it(self) -> None:
        """[MQTT-3.10.4-2]: what is in flight is still delivered."""
        source = ListSource()
        fill(source, 30)
        engine = make_replaying(source, inflight_messages_max=4)
        client = kept(engine)
        client.subscribe(EVERYTHING, 1)
        source.step()
        turn(engine)
        first = publishes(client.received())
        client.send(Unsubscribe(2, [EVERYTHING], Properties()))
        assert client.received() == [Unsuback(2, [0])]
        assert source.feeds == []
        acknowledge(client, first[:1])
        assert everything(engine, source, client) == []
        client.send(Unsubscribe(3, [EVERYTHING], Properties()))
        assert client.received() == [Unsuback(3, [0x11])]
        client.lose()
        again = kept(engine)
        assert numbers(again.received()) == [1, 2, 3]

    def test_usual_subscription_takes_the_place_of_a_replay_and_the_other_way_round(self) -> None:
        source = ListSource()
        fill(source, 3, topic_name="a")
        engine = make_replaying(source)
        client = connected(engine)
        publisher = connected(engine, client_id="p")
        since = Properties()
        since.user_properties = [("since", "-1h")]
        for properties, live in ((None, [9]), (since, []), (None, [9])):
            client.send(Subscribe(1, [Subscription("a", 0)], properties or Properties()))
            everything(engine, source, client)
            publisher.send(Publish("a", b"9", properties=Properties()))
            assert numbers(client.received()) == live
        assert source.feeds == []

    def test_ids_and_acknowledgements_of_qos_2_are_usual_ones(self) -> None:
        source = ListSource()
        source.add("a", b"1", qos=2)
        engine = make_replaying(source)
        client = connected(engine)
        client.subscribe(EVERYTHING, 2)
        source.step()
        turn(engine)
        (packet,) = publishes(client.received())
        client.send(Pubrec(packet.packet_id))
        assert client.received() == [Pubrel(packet.packet_id, 0)]
        client.send(Pubcomp(packet.packet_id))
        assert client.connection.session is not None
        assert client.connection.session.inflight is not None
        assert client.connection.session.inflight.count == 0


MALFORMED = [
    "$replay/-1h",
    "$replay/-1h/",
    "$replay/nonsense/a",
    "$replay/+/a",
    "$replay/#",
    "$replay//a",
    "$replay/-1h/a#",
    "$replay/-1h/$replay/-1h/a",
    "$replay/-1h/$share/g/a",
    "$share/g/$replay/-1h/a",
]


def test_nobody_knows_yet_whether_a_replay_takes_a_publish() -> None:
    """0x10 of PUBACK is for what no subscription can take (§3.4.2.1)"""
    engine = make_replaying(ListSource())
    client = connected(engine)
    for packet_id, answer in ((1, Puback(1, 0x10)), (2, Puback(2))):
        client.send(Publish("a", b"", 1, packet_id=packet_id))
        engine.sink.commit()  # type: ignore[union-attr]
        turn(engine)
        assert client.received() == [answer]
        assert client.subscribe("$replay/-1h/b") == [Suback(1, [0])]


class TestRefusals:
    """What SUBACK says."""

    @pytest.mark.parametrize("topic_filter", MALFORMED)
    @pytest.mark.parametrize(("level", "code"), [(4, 0x80), (5, 0x8F)])
    def test_malformed(self, topic_filter: str, level: int, code: int) -> None:
        source = ListSource()
        client = connected(make_replaying(source), level)
        assert client.subscribe(topic_filter) == [Suback(1, [code])]
        assert source.opened == 0
        assert not client.connection.session.subscriptions  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        ("sinces", "topic_filter"), [(["x"], "a"), (["-1h", "-2h"], "a"), (["-1h"], "$share/g/a"), ([""], "a")]
    )
    def test_malformed_property(self, sinces: list[str], topic_filter: str) -> None:
        client = connected(make_replaying(ListSource()))
        properties = Properties()
        properties.user_properties = [("since", since) for since in sinces]
        client.send(Subscribe(1, [Subscription(topic_filter, 0)], properties))
        assert client.received() == [Suback(1, [0x8F])]

    def test_more_than_a_client_may_have(self) -> None:
        client = connected(make_replaying(ListSource(), replays_per_client_max=2))
        for number, code in ((1, 0), (2, 0), (3, 0x97), (2, 0)):
            assert client.subscribe(f"$replay/{number}/a") == [Suback(1, [code])]
        assert client.subscribe("a") == [Suback(1, [0])], "a usual subscription is not one of them"

    def test_more_than_the_broker_may_have(self) -> None:
        engine = make_replaying(ListSource(), replays_max=1)
        first, second = connected(engine, client_id="1"), connected(engine, client_id="2")
        assert first.subscribe(EVERYTHING) == [Suback(1, [0])]
        assert second.subscribe(EVERYTHING) == [Suback(1, [0x97])]
        first.lose()
        assert second.subscribe(EVERYTHING) == [Suback(1, [0])]

    @pytest.mark.parametrize(("level", "code"), [(4, 0x80), (5, 0x83)])
    def test_broker_that_stores_nothing_refuses(self, level: int, code: int) -> None:
        client = connected(make_engine(), level)
        assert client.subscribe(EVERYTHING) == [Suback(1, [code])]

    def test_broker_that_stores_nothing_has_no_use_for_since(self) -> None:
        client = connected(make_engine())
        properties = Properties()
        properties.user_properties = [("since", "-1h")]
        client.send(Subscribe(1, [Subscription("a", 0)], properties))
        assert client.received() == [Suback(1, [0])]
