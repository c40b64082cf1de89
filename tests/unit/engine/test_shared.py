"""Shared subscriptions in the engine: whose turn it is, and where a message goes whose member goes away."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.codec.packets import Puback, Pubcomp, Publish, Pubrec, Pubrel, Suback, Subscribe, Subscription, Unsubscribe
from broker.codec.properties import Properties
from broker.engine import Engine
from tests.support.engine_client import NOW_MS, EngineClient, make_engine, turn

SHARE = "$share/g/t/#"


def client(engine: Engine, client_id: str, level: int = 4, **more: object) -> EngineClient:
    one = EngineClient(engine, level)
    one.connect(client_id, **more)
    return one


def member(engine: Engine, client_id: str, qos: int = 1, level: int = 4, **more: object) -> EngineClient:
    one = client(engine, client_id, level, **more)
    (suback,) = one.subscribe(SHARE, qos)
    assert isinstance(suback, Suback)
    assert suback.reason_codes == [qos]
    return one


def publishes(count: int, qos: int = 0, first: int = 0, topics: int = 3) -> list[Publish]:
    return [
        Publish(f"t/{number % topics}", b"%d" % number, qos, False, False, number + 1 if qos else 0, None)
        for number in range(first, first + count)
    ]


def numbers(one: EngineClient) -> list[int]:
    return [int(packet.payload) for packet in one.received() if isinstance(packet, Publish)]


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 300])
def test_round_robin_deals_out_in_turn(qos: int, count: int) -> None:
    """However the messages are cut into reads, and over all topics of the filter."""
    engine = make_engine()
    members = [member(engine, f"m{number}", qos) for number in range(3)]
    publisher = client(engine, "p")
    publisher.send(*publishes(count, qos))
    publisher.send(*publishes(count, qos, count))
    for index, one in enumerate(members):
        assert numbers(one) == list(range(2 * count))[index::3]


def test_dealt_rows_are_whole() -> None:
    """Topic, payload, QoS and packet id of rows that are cut out of a read, in both versions."""
    engine = make_engine()
    members = [member(engine, "m4", 1, 4), member(engine, "m5", 1, 5)]
    publisher = client(engine, "p", 5)
    sent = publishes(40, 1)
    for packet in sent:
        packet.properties = Properties()
    publisher.send(*sent)
    for index, one in enumerate(members):
        found = [packet for packet in one.received() if isinstance(packet, Publish)]
        mine = sent[index::2]
        assert [(p.topic_name, p.payload, p.qos) for p in found] == [(p.topic_name, p.payload, 1) for p in mine]
        assert [p.packet_id for p in found] == list(range(1, 21))


def test_properties_and_retain_reach_the_member() -> None:
    engine = make_engine()
    one = client(engine, "m", 5)
    properties = Properties()
    properties.subscription_identifiers = [7]
    one.send(Subscribe(1, [Subscription(SHARE, 1, retain_as_published=True)], properties))
    one.received()
    sent = Properties()
    sent.user_properties = [("a", "1"), ("a", "2")]
    client(engine, "p", 5).send(Publish("t/a", b"x", 1, True, False, 1, sent))
    (found,) = one.received()
    assert isinstance(found, Publish)
    assert (found.retain, found.qos) == (True, 1)
    assert found.properties is not None
    assert found.properties.user_properties == [("a", "1"), ("a", "2")]
    assert found.properties.subscription_identifiers == [7]


def test_each_member_gets_its_own_qos() -> None:
    """[MQTT-4.8.2-3]"""
    engine = make_engine()
    members = [member(engine, f"m{qos}", qos) for qos in (0, 1, 2)]
    publisher = client(engine, "p")
    for number in range(6):
        publisher.send(Publish("t/a", b"%d" % number, 2, False, False, number + 1, None))
    for qos, one in enumerate(members):
        found = [packet for packet in one.received() if isinstance(packet, Publish)]
        assert [(int(p.payload), p.qos) for p in found] == [(qos, qos), (qos + 3, qos)]


def test_groups_and_usual_subscriptions_do_not_share_with_each_other() -> None:
    engine = make_engine()
    one, two, other, usual = (client(engine, name) for name in ("one", "two", "other", "usual"))
    one.subscribe("$share/g/t/#", 1)
    two.subscribe("$share/g/t/#", 1)
    other.subscribe("$share/h/t/#", 1)
    usual.subscribe("t/#", 1)
    one.subscribe("t/0", 1, packet_id=2)
    client(engine, "p").send(*publishes(4, 1, topics=1))
    assert sorted(numbers(one)) == [0, 0, 1, 2, 2, 3]
    assert numbers(two) == [1, 3]
    assert numbers(other) == numbers(usual) == [0, 1, 2, 3]


def test_a_change_of_members_needs_no_new_route() -> None:
    engine = make_engine()
    first = member(engine, "first")
    publisher = client(engine, "p")
    publisher.send(*publishes(1, topics=1))
    route = engine.router.routes[b"t/0"]
    targets = route.targets
    assert targets is not None
    second = member(engine, "second")
    publisher.send(*publishes(2, first=1, topics=1))
    first.lose()
    publisher.send(*publishes(1, first=3, topics=1))
    assert route.targets is targets
    assert numbers(first) == [0, 1]
    assert numbers(second) == [2, 3]
    second.send(Unsubscribe(9, [SHARE]))
    assert route.targets is None
    assert engine.router.shared.groups == {}
    assert engine.router.shared.members == 0
    assert engine.router.subscriptions.count == 0


def test_member_that_is_connected_comes_before_one_that_is_kept() -> None:
    engine = make_engine()
    kept = member(engine, "kept", clean=False)
    online = member(engine, "online", 0)
    kept.lose()
    publisher = client(engine, "p")
    publisher.send(*publishes(10, 1))
    assert numbers(online) == list(range(10))
    online.lose()
    publisher.send(*publishes(4, 1, 10), *publishes(2, 0, 14))
    again = client(engine, "kept", clean=False)
    assert numbers(again) == [10, 11, 12, 13]
    publisher.send(*publishes(2, 1, 20))
    assert numbers(again) == [20, 21]


def test_kept_members_queue_in_turn() -> None:
    engine = make_engine(queued_messages_max=3)
    for name in ("a", "b"):
        member(engine, name, clean=False).lose()
    client(engine, "p").send(*publishes(8, 1))
    assert numbers(client(engine, "a", clean=False)) == [0, 2, 4]
    assert numbers(client(engine, "b", clean=False)) == [1, 3, 5]
    assert engine.metrics.dropped_messages["queue_full"] == 2


@pytest.mark.parametrize("level", [4, 5])
def test_qos_1_goes_to_another_when_a_session_ends(level: int) -> None:
    """At once with the connection when the session is not kept; in order, and what waited in the queue too."""
    engine = make_engine(inflight_messages_max=4)
    gone = member(engine, "gone", level=level)
    client(engine, "p").send(*publishes(12, 1))
    found = [packet for packet in gone.received() if isinstance(packet, Publish)]
    assert [int(p.payload) for p in found] == [0, 1, 2, 3]
    gone.send(Puback(found[1].packet_id))
    gone.received()
    other = member(engine, "other")
    gone.lose()
    expected = [0, 2, 3, *range(4, 12)]
    received: list[int] = []
    while found := [packet for packet in other.received() if isinstance(packet, Publish)]:
        assert not any(packet.dup for packet in found)
        received += [int(packet.payload) for packet in found]
        other.send(*[Puback(packet.packet_id) for packet in found])
    assert received == expected
    assert engine.router.shared.redelivered == len(expected)


def test_qos_1_of_a_kept_session_waits_for_it_until_the_session_ends() -> None:
    engine = make_engine()
    properties = Properties()
    properties.session_expiry_interval = 2
    gone = member(engine, "gone", level=5, properties=properties)
    client(engine, "p").send(*publishes(3, 1))
    other = member(engine, "other")
    gone.lose()
    engine.tick(NOW_MS)
    turn(engine)
    assert numbers(other) == []
    engine.tick(NOW_MS)
    engine.tick(NOW_MS)
    turn(engine)
    assert numbers(other) == [0, 1, 2]


def test_clean_start_ends_the_old_session_and_its_messages_move() -> None:
    engine = make_engine()
    gone = member(engine, "gone", clean=False)
    client(engine, "p").send(*publishes(2, 1))
    assert numbers(gone) == [0, 1]
    other = member(engine, "other")
    client(engine, "gone")
    turn(engine)
    assert numbers(other) == [0, 1]


def test_qos_2_that_was_sent_stays_with_its_member() -> None:
    """[MQTT-4.8.2-4] [MQTT-4.8.2-5]: dropped when the session ends; what was never sent may go to another."""
    engine = make_engine(inflight_messages_max=2)
    gone = member(engine, "gone", 2)
    publisher = client(engine, "p")
    for number in range(3):
        publisher.send(Publish("t/a", b"%d" % number, 2, False, False, number + 1, None))
    assert numbers(gone) == [0, 1]
    other = member(engine, "other", 2)
    gone.lose()
    assert numbers(other) == [2]


@pytest.mark.parametrize("qos", [1, 2])
def test_a_refusal_ends_the_message(qos: int) -> None:
    """[MQTT-4.8.2-6]"""
    engine = make_engine()
    refuses = member(engine, "refuses", qos, 5)
    publisher = client(engine, "p")
    publisher.send(Publish("t/a", b"1", qos, False, False, 1, None))
    (found,) = refuses.received()
    assert isinstance(found, Publish)
    other = member(engine, "other", qos)
    refuses.send((Puback if qos == 1 else Pubrec)(found.packet_id, 0x97))
    refuses.lose()
    assert numbers(other) == []
    assert engine.router.shared.redelivered == 0


def test_at_the_end_of_the_server_what_is_owed_goes_to_kept_sessions() -> None:
    """And not from one session that ends to the next, which would take long with many."""
    engine = make_engine()
    members = [member(engine, f"m{number}") for number in range(20)]
    kept = member(engine, "kept", clean=False)
    client(engine, "p").send(*publishes(42, 1))
    assert [numbers(one) for one in members] == [[number, number + 21] for number in range(20)]
    assert numbers(kept) == [20, 41]
    engine.shut_down()
    turn(engine)
    assert engine.router.shared.redelivered == 40
    assert engine.router.shared.members == 1
    assert engine.sessions.session_by_client_id["kept"].queued_messages == 40


def test_expired_messages_are_not_given_to_another() -> None:
    """[MQTT-3.3.2-5]; one that is not expired has its interval reduced. [MQTT-3.3.2-6]"""
    engine = make_engine()
    gone = member(engine, "gone", level=5)
    publisher = client(engine, "p", 5)
    for number, expiry_s in enumerate((10, 100)):
        properties = Properties()
        properties.message_expiry_interval = expiry_s
        publisher.send(Publish("t/a", b"%d" % number, 1, False, False, number + 1, properties))
    assert numbers(gone) == [0, 1]
    other = member(engine, "other", level=5)
    engine.now_ms = NOW_MS + 40_000
    gone.lose()
    (found,) = other.received()
    assert isinstance(found, Publish)
    assert found.payload == b"1"
    assert found.properties is not None
    assert found.properties.message_expiry_interval == 60
    assert engine.metrics.dropped_messages["expired"] == 1


def test_usual_messages_of_an_ended_session_go_nowhere() -> None:
    engine = make_engine()
    gone = member(engine, "gone")
    gone.subscribe("u", 1, packet_id=2)
    client(engine, "p").send(Publish("u", b"5", 1, False, False, 1, None))
    assert numbers(gone) == [5]
    other = member(engine, "other")
    gone.lose()
    assert numbers(other) == []


def test_a_member_with_a_backlog_is_passed_over() -> None:
    engine = make_engine()
    properties = Properties()
    properties.receive_maximum = 1
    slow = member(engine, "slow", level=5, properties=properties)
    fast = member(engine, "fast")
    publisher = client(engine, "p")
    publisher.send(*publishes(6, 1))
    assert numbers(slow) == [0]
    assert numbers(fast) == [1, 3, 5]
    publisher.send(*publishes(6, 1, 6))
    assert numbers(fast) == [6, 7, 8, 9, 10, 11]
    slow.send(Puback(1))
    assert numbers(slow) == [2]


def test_qos_0_passes_over_a_connection_that_is_full() -> None:
    engine = make_engine()
    slow, fast = member(engine, "slow", 0), member(engine, "fast", 0)
    slow.connection.pause_writing()
    client(engine, "p").send(*publishes(4))
    assert numbers(fast) == [0, 1, 2, 3]
    assert engine.metrics.dropped_messages == {}


@pytest.mark.parametrize("in_one_read", [True, False])
def test_least_outstanding_evens_out(in_one_read: bool) -> None:
    engine = make_engine(shared_choice="least_outstanding")  # type: ignore[arg-type]
    busy = member(engine, "busy")
    publisher = client(engine, "p")
    publisher.send(*publishes(6, 1))
    assert len(numbers(busy)) == 6
    idle = [member(engine, "idle-1"), member(engine, "idle-2")]
    sent = publishes(15, 1, 6)
    for packets in [sent] if in_one_read else [[packet] for packet in sent]:
        publisher.send(*packets)
    counts = [len(numbers(one)) for one in idle]
    assert counts == [7, 7]
    assert len(numbers(busy)) == 1


def test_least_outstanding_takes_turns_among_equals() -> None:
    engine = make_engine(shared_choice="least_outstanding")  # type: ignore[arg-type]
    members = [member(engine, f"m{number}", 0) for number in range(3)]
    publisher = client(engine, "p")
    for packet in publishes(9):
        publisher.send(packet)
    publisher.send(*publishes(9, first=9))
    assert [len(numbers(one)) for one in members] == [6, 6, 6]


def test_retained_messages_are_for_no_member() -> None:
    engine = make_engine()
    client(engine, "p").send(Publish("t/a", b"1", 1, True, False, 1, None))
    assert numbers(member(engine, "m")) == []


def test_limits_of_groups_and_members() -> None:
    engine = make_engine(shared_groups_max=1, shared_members_max=2)
    member(engine, "a")
    b = member(engine, "b", level=5)
    third = client(engine, "c", 5)
    for topic_filter in (SHARE, "$share/h/t/#"):
        (suback,) = third.subscribe(topic_filter)
        assert isinstance(suback, Suback)
        assert suback.reason_codes == [0x97]
    (suback,) = b.subscribe(SHARE, 2)
    assert isinstance(suback, Suback)
    assert suback.reason_codes == [2]
    assert engine.router.shared.refused == 2
    b.lose()
    (suback,) = third.subscribe(SHARE, 1)
    assert isinstance(suback, Suback)
    assert suback.reason_codes == [1]


MOVES = st.one_of(
    st.tuples(st.sampled_from(["join", "leave", "lose", "lose", "end"]), st.integers(0, 3), st.integers(0, 2)),
    st.tuples(st.just("publish"), st.integers(1, 9), st.integers(0, 2)),
    st.tuples(st.just("publish"), st.integers(1, 9), st.integers(0, 2)),
)


@settings(deadline=None, max_examples=120)
@given(st.lists(MOVES, max_size=40), st.sampled_from(["round_robin", "least_outstanding"]))
def test_whatever_comes_and_goes_each_message_reaches_one(moves: list[tuple[str, int, int]], choice: str) -> None:
    """Acknowledged messages come once; with a member online none is missing, and none comes where nobody shares it."""
    engine = make_engine(shared_choice=choice)  # type: ignore[arg-type]
    publisher = client(engine, "p")
    clients: list[EngineClient | None] = [None] * 4
    granted: dict[int, int] = {}
    received: Counter[int] = Counter()

    def collect() -> None:
        for one in clients:
            for packet in one.received() if one is not None else ():
                if isinstance(packet, Publish):
                    received[int(packet.payload)] += 1
                    if packet.qos == 1:
                        one.send(Puback(packet.packet_id))  # type: ignore[union-attr]
                    elif packet.qos == 2:
                        one.send(Pubrec(packet.packet_id))  # type: ignore[union-attr]
                elif isinstance(packet, Pubrel):
                    one.send(Pubcomp(packet.packet_id))  # type: ignore[union-attr]

    number = 0
    for kind, index, qos in moves:
        if kind == "publish":
            wanted = any(granted[each] is not None and clients[each] is not None for each in granted)
            for _ in range(index):
                number += 1
            sent = [
                Publish(f"t/{each}", b"%d" % each, qos, False, False, each if qos else 0, None)
                for each in range(number - index + 1, number + 1)
            ]
            publisher.send(*sent)
            publisher.send(*[Pubrel(packet.packet_id) for packet in sent if qos == 2])
            publisher.received()
            for _ in range(3):
                collect()
            if wanted:
                assert [received[int(packet.payload)] for packet in sent] == [1] * index
            continue
        one = clients[index]
        if kind == "join":
            if one is None:
                one = clients[index] = client(engine, f"c{index}", clean=False)
            collect()
            one.send(Subscribe(1, [Subscription(SHARE, qos)]))
            granted[index] = qos
        elif kind == "leave" and one is not None:
            one.send(Unsubscribe(1, [SHARE]))
            granted.pop(index, None)
        elif kind == "lose" and one is not None:
            one.lose()
            clients[index] = None
        elif kind == "end":
            clients[index] = client(engine, f"c{index}")
            clients[index].lose()  # type: ignore[union-attr]
            clients[index] = None
            granted.pop(index, None)
        for _ in range(3):
            collect()
    assert max(received.values(), default=1) == 1
    for group in engine.router.shared.groups.values():
        for name, members in (("online", group.online), ("kept", group.kept)):
            assert [each.place for each in members] == list(range(len(members))), name
            assert all((each.session.outbox is not None) is (name == "online") for each in members)
        assert len(group.online) == sum(clients[each] is not None for each in granted)
