"""Retained messages for a new subscription in slices: each once, before what is live, and nobody is in their way."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.codec.packets import Puback, Pubcomp, Publish, Pubrec, Pubrel, Suback, Unsubscribe
from broker.codec.properties import Properties
from broker.engine import Engine
from broker.protocol.handlers.fan_out import OWN_SLICE, SLICE, STALE_NAMES
from broker.turn import Turn
from tests.support import mqtt_wire as wire
from tests.support.engine_client import NOW_MS, EngineClient, HoldingStore, make_engine, turn
from tests.unit.engine.test_engine import of_type, publish

MANY = 3 * SLICE + 7
SOME = 3 * OWN_SLICE + 7
"""For subscriptions of QoS 1 and 2, whose slices are shorter."""


def engine_with(count: int, store: HoldingStore | None = None, **limits: int) -> tuple[Engine, EngineClient]:
    """An engine that keeps `count` retained messages of QoS 2, and who published them."""
    engine = make_engine(store=store, **limits)
    client = EngineClient(engine, 4)
    client.connect("p")
    client.now_ms = NOW_MS
    for number in range(count):
        client.send(publish(f"t/{number}", b"kept", 2, number + 1, retain=True))
        client.send(Pubrel(number + 1))
        client.received()
    return engine, client


def fast_engine_with(count: int) -> tuple[Engine, EngineClient]:
    """The same with QoS 0, in one read."""
    engine = make_engine()
    client = EngineClient(engine, 4)
    client.connect("p")
    client.send_bytes(b"".join(wire.publish(f"t/{number}", b"kept", retain=True, version=4) for number in range(count)))
    return engine, client


def subscriber(engine: Engine, level: int = 4, client_id: str = "s", **more: object) -> EngineClient:
    client = EngineClient(engine, level)
    client.connect(client_id, **more)
    return client


def all_turns(client: EngineClient) -> list[object]:
    """What comes until there are no more slices; what needs an answer gets it."""
    found: list[object] = []
    while True:
        packets = client.received()
        answers: list[object] = []
        for packet in packets:
            if isinstance(packet, Publish) and packet.qos:
                answers.append(Puback(packet.packet_id) if packet.qos == 1 else Pubrec(packet.packet_id))
            elif isinstance(packet, Pubrel):
                answers.append(Pubcomp(packet.packet_id))
        found += packets
        if answers:
            client.send(*answers)
        elif client.engine.due_fan_outs:
            turn(client.engine)
        elif not packets:
            return found


def test_suback_then_slices_over_several_turns_each_message_once() -> None:
    engine, _ = fast_engine_with(MANY)
    client = subscriber(engine)
    first = client.subscribe("t/#")
    assert isinstance(first[0], Suback)
    assert len(first) == 1 + 2 * SLICE  # one at once, and the first turn's
    turns = 1
    found = of_type(first, Publish)
    while engine.due_fan_outs:
        turn(engine)
        turns += 1
        found += of_type(client.received(), Publish)
    assert turns == 3
    assert all(packet.retain for packet in found)
    assert sorted(packet.topic_name for packet in found) == sorted(f"t/{number}" for number in range(MANY))
    assert client.connection.session is not None
    assert client.connection.session.fan_out is None


def test_two_subscribers_take_turns() -> None:
    engine, _ = fast_engine_with(MANY)
    clients = [subscriber(engine, client_id=f"s{number}") for number in range(2)]
    counts = [len(of_type(client.subscribe("t/#"), Publish)) for client in clients]
    assert counts == [2 * SLICE, SLICE]  # the second one's first turn was the other's: it had waited longer
    while engine.due_fan_outs:
        turn(engine)
        counts = [
            count + len(of_type(client.received(), Publish)) for count, client in zip(counts, clients, strict=True)
        ]
        assert abs(counts[0] - counts[1]) <= 2 * SLICE
    assert counts == [MANY, MANY]


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
def test_a_live_message_brings_the_retained_one_of_its_topic_along(qos: int, retain: bool) -> None:
    engine, publisher = engine_with(SOME) if qos else fast_engine_with(MANY)
    client = subscriber(engine)
    found = client.subscribe("t/#", qos)
    seen = {packet.topic_name for packet in of_type(found, Publish)}
    topic = next(message.topic_name for message in engine.retained.match("#", 0) if message.topic_name not in seen)
    publisher.send(publish(topic, b"live", 1, 9_999, retain=retain))
    of_topic = [packet for packet in of_type(found + all_turns(client), Publish) if packet.topic_name == topic]
    assert [(packet.payload, packet.retain) for packet in of_topic] == [(b"kept", True), (b"live", False)]


STEPS = st.lists(
    st.one_of(st.just("turn"), st.tuples(st.integers(0, SOME), st.booleans(), st.integers(0, 1))), max_size=20
)


@settings(max_examples=25, deadline=None)
@given(steps=STEPS, qos=st.integers(0, 2), receive_maximum=st.sampled_from([3, 1_000]), identifier=st.booleans())
def test_each_topic_has_its_retained_message_then_its_live_ones(
    steps: list[object], qos: int, receive_maximum: int, identifier: bool
) -> None:
    engine = make_engine()
    publisher = subscriber(engine, client_id="p")
    publisher.send_bytes(
        b"".join(wire.publish(f"t/{number}", b"kept", 1, number + 1, retain=True, version=4) for number in range(SOME))
    )
    client = EngineClient(engine, 5)
    properties = Properties()
    properties.receive_maximum = receive_maximum
    client.connect("s", properties=properties)
    expected: dict[str, list[bytes]] = defaultdict(list)
    for number in range(SOME):
        expected[f"t/{number}"].append(b"kept")
    found = client.subscribe("t/#", qos, subscription_identifier=7 if identifier else 0)
    client.transport.written.clear()
    for number, step in enumerate(steps):
        if isinstance(step, tuple):
            topic, retain, live_qos = step
            packet_id = number + 1 if live_qos else 0
            publisher.send(publish(f"t/{topic}", b"%d" % number, live_qos, packet_id, retain=retain))
            expected[f"t/{topic}"].append(b"%d" % number)
        else:
            turn(engine)
    answers = [Puback(each.packet_id) for each in of_type(found, Publish) if each.qos]
    if answers:
        client.send(*answers)
    found += all_turns(client)
    seen: dict[str, list[bytes]] = defaultdict(list)
    for packet in of_type(found, Publish):
        assert packet.retain is (packet.payload == b"kept")
        seen[packet.topic_name].append(packet.payload)
    if (
        qos and receive_maximum < SOME
    ):  # QoS 0 goes past what waits for the client's acknowledgements, as it always does
        assert {name: sorted(texts) for name, texts in seen.items()} == {
            name: sorted(texts) for name, texts in expected.items()
        }
    else:
        assert seen == expected


def test_a_client_that_reads_slowly_is_waited_for_and_loses_nothing() -> None:
    engine, _ = fast_engine_with(MANY)
    client = subscriber(engine)
    found = of_type(client.subscribe("t/#"), Publish)
    client.connection.pause_writing()
    for _ in range(10):
        turn(engine)
    assert client.received() == []
    assert not engine.due_fan_outs, "the loop would go round and round"
    client.connection.resume_writing()
    turn(engine)
    found += of_type(all_turns(client), Publish)
    assert len(found) == MANY
    assert not engine.metrics.dropped_messages


async def test_the_loop_rests_while_a_client_does_not_read_and_goes_on_by_itself() -> None:
    engine, _ = fast_engine_with(MANY)
    client = subscriber(engine)
    found = of_type(client.subscribe("t/#"), Publish)
    client.connection.pause_writing()
    real = Turn(engine, asyncio.get_running_loop())
    real.schedule()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not real._is_scheduled
    client.connection.resume_writing()
    real.schedule()
    for _ in range(MANY // SLICE + 3):
        await asyncio.sleep(0)
    assert len(found) + len(of_type(client.received(), Publish)) == MANY
    assert not real._is_scheduled


def test_unsubscribe_ends_it_and_subscribe_begins_it_again() -> None:
    engine, _ = fast_engine_with(MANY)
    client = subscriber(engine)
    assert len(of_type(client.subscribe("t/#"), Publish)) == 2 * SLICE
    client.send(Unsubscribe(2, ["t/#"]))
    assert of_type(all_turns(client), Publish) == []
    client.subscribe("t/#")
    assert len(of_type(client.subscribe("t/#") + all_turns(client), Publish)) == MANY


def test_what_a_kept_session_had_not_got_is_queued_for_it() -> None:
    engine, _ = engine_with(SOME, inflight_messages_max=5)
    client = subscriber(engine, clean=False)
    found = of_type(client.subscribe("t/#", 1), Publish)
    assert len(found) == 5
    client.lose()
    again = subscriber(engine, clean=False)
    found = of_type(all_turns(again), Publish)
    assert sorted(packet.topic_name for packet in found) == sorted(f"t/{number}" for number in range(SOME))


def test_a_connection_that_is_lost_ends_it() -> None:
    engine, _ = fast_engine_with(MANY)
    client = subscriber(engine)
    client.subscribe("t/#")
    client.lose()
    assert not engine.fan_outs
    turn(engine)
    assert not engine.due_fan_outs


def test_one_at_a_time_for_a_session_and_more_are_sent_at_once() -> None:
    engine, _ = fast_engine_with(MANY)
    client = subscriber(engine)
    client.subscribe("t/#")
    assert len(of_type(client.subscribe("#", packet_id=2), Publish)) >= MANY
    assert len(engine.fan_outs) == 1


def test_a_topic_that_is_new_meanwhile_is_live_and_nothing_else() -> None:
    engine, publisher = fast_engine_with(MANY)
    client = subscriber(engine)
    found = client.subscribe("t/#")
    publisher.send(publish("t/new", b"1", retain=True))
    found += all_turns(client)
    assert [packet.retain for packet in of_type(found, Publish) if packet.topic_name == "t/new"] == [False]


def test_topics_that_come_and_go_while_a_client_does_not_read_leave_no_pile_of_names() -> None:
    engine, publisher = fast_engine_with(MANY)
    client = subscriber(engine)
    found = client.subscribe("t/#")
    client.connection.pause_writing()
    for number in range(0, 4 * MANY, 100):
        names = [f"u/{number + more}" for more in range(100)]
        publisher.send(*[publish(name, b"1", retain=True) for name in names])
        publisher.send(*[publish(name, b"", retain=True) for name in names])
    (fan_out,) = engine.fan_outs
    assert len(fan_out._seen) <= 2 * MANY + STALE_NAMES + 200
    client.connection.resume_writing()
    turn(engine)
    found += all_turns(client)
    names = [packet.topic_name for packet in of_type(found, Publish)]
    assert sorted(names) == sorted(f"t/{number}" for number in range(MANY))


def test_what_is_cleared_before_its_slice_does_not_come() -> None:
    engine, _ = fast_engine_with(MANY)
    client = subscriber(engine)
    found = client.subscribe("t/#")
    engine.retained.clear([message.topic_name for message in engine.retained.match("#", 0)])
    assert len(of_type(found + all_turns(client), Publish)) == 2 * SLICE
