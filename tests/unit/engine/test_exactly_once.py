"""QoS 2 in runs: many packets of a read taken at once must come to the same as each alone, and to less work."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.codec.encode import encode
from broker.codec.packets import Pubcomp, Publish, Pubrec, Pubrel
from broker.hooks import Client, Hooks, Publishes
from tests.support.engine_client import EngineClient, HoldingSink, make_engine, turn, unreleased_of
from tests.unit.engine.test_engine import of_type, payloads, publish

PACKETS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 6), st.sampled_from(["a/b", "c", "$SYS/no"]), st.booleans()),
        st.tuples(st.just("release"), st.integers(1, 6), st.just(""), st.booleans()),
    ),
    max_size=25,
)


def take_all(_client: Client, _publishes: Publishes) -> None:
    """A hook that lets everything pass: with it publishes go one by one."""


def play(
    packets: list[tuple[str, int, str, bool]], level: int, qos: int, *, is_alone: bool, is_stored: bool
) -> tuple[bytes, bytes, int]:
    """(what the publisher got, what a subscriber got, how many are unreleased)"""
    sink = HoldingSink() if is_stored else None
    engine = make_engine(sink, receive_maximum=4)
    if is_alone:
        engine.hooks = Hooks(on_publish=take_all)
    subscriber = EngineClient(engine, level)
    subscriber.connect("s")
    subscriber.subscribe("#", qos)
    publisher = EngineClient(engine, level)
    publisher.connect("p")
    data = []
    for number, (kind, packet_id, topic, flag) in enumerate(packets):
        if kind == "publish":
            data.append(encode(publish(topic, b"%d" % (number % 3), 2, packet_id, dup=flag), level))
        else:
            data.append(encode(Pubrel(packet_id), level))
    for read in data if is_alone else [b"".join(data)]:
        if not publisher.transport.is_closed:
            publisher.send_bytes(read)
    if sink is not None:
        sink.commit()
        turn(engine)
    session = engine.sessions.session_by_client_id.get("p")
    return (
        b"".join(publisher.transport.written),
        b"".join(subscriber.transport.written),
        len(unreleased_of(session)) if session is not None else -1,
    )


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
@given(packets=PACKETS, is_stored=st.booleans())
@settings(max_examples=150, deadline=None)
def test_one_read_comes_to_the_same_as_each_packet_alone(
    packets: list[tuple[str, int, str, bool]], level: int, qos: int, is_stored: bool
) -> None:
    together = play(packets, level, qos, is_alone=False, is_stored=is_stored)
    alone = play(packets, level, qos, is_alone=True, is_stored=is_stored)
    assert together == alone


def test_a_read_of_publishes_is_one_run() -> None:
    sink = HoldingSink()
    engine = make_engine(sink)
    client = EngineClient(engine, 4)
    client.connect("p")
    client.send(*[publish("a", b"%d" % number, 2, number) for number in range(1, 101)])
    assert [len(run) for run in sink.runs] == [100]
    assert client.received() == []
    sink.commit()
    turn(engine)
    assert [packet.packet_id for packet in of_type(client.received(), Pubrec)] == list(range(1, 101))


def test_repeats_within_a_read_are_answered_and_not_taken_again() -> None:
    sink = HoldingSink()
    engine = make_engine(sink)
    client = EngineClient(engine, 4)
    client.connect("p")
    client.send(*[publish("a", b"%d" % packet_id, 2, packet_id) for packet_id in [1, 2, 2, 3, 1, 4]])
    assert [run.packet_ids for run in sink.runs] == [[1, 2], [3], [4]]
    sink.commit()
    turn(engine)
    assert [packet.packet_id for packet in of_type(client.received(), Pubrec)] == [1, 2, 2, 3, 1, 4]


def test_another_message_with_an_id_of_the_same_read_is_taken() -> None:
    sink = HoldingSink()
    client = EngineClient(make_engine(sink), 4)
    client.connect("p")
    client.send(*[publish("a", payload, 2, 7) for payload in (b"one", b"two", b"two")])
    assert [run.data[run.payload_starts[0] : run.ends[0]] for run in sink.runs] == [b"one", b"two"]


def test_more_than_there_is_room_for_ends_the_connection_after_what_fits() -> None:
    engine = make_engine(unreleased_per_client_max=3)
    subscriber = EngineClient(engine, 4)
    subscriber.connect("s")
    subscriber.subscribe("a", 0)
    client = EngineClient(engine, 4)
    client.connect("p")
    client.send(*[publish("a", b"%d" % number, 2, number) for number in range(1, 6)])
    assert client.transport.is_closed
    assert payloads(subscriber.received()) == [b"1", b"2", b"3"]
    assert engine.metrics.limits.count["unreleased_per_client_max"] == 1


def test_a_read_of_pubrels_is_answered_in_one_write() -> None:
    client = EngineClient(make_engine(), 5)
    client.connect("p")
    client.send(*[publish("a", b"x", 2, number) for number in (1, 2, 3)])
    client.received()
    client.send(*[Pubrel(number) for number in (1, 2, 9, 3)])
    assert client.writes() == 1
    found = of_type(client.received(), Pubcomp)
    assert [(packet.packet_id, packet.reason_code) for packet in found] == [(1, 0), (2, 0), (9, 0), (3, 0)]


def test_messages_that_wait_for_pubcomp_are_few_ranges() -> None:
    """What can be sent next is looked for in each of them, at each send."""
    engine = make_engine()
    subscriber = EngineClient(engine, 4)
    subscriber.connect("s")
    subscriber.subscribe("a", 2)
    publisher = EngineClient(engine, 4)
    publisher.connect("p")
    for number in range(1, 201):
        publisher.send(publish("a", b"x", 2, number))
        publisher.send(Pubrel(number))
        (message,) = of_type(subscriber.received(), Publish)
        subscriber.send(Pubrec(message.packet_id))
        assert len(of_type(subscriber.received(), Pubrel)) == 1
    inflight = engine.sessions.session_by_client_id["s"].inflight
    assert inflight is not None
    assert inflight.count == 200
    assert len(inflight.uncompleted) == 1
    subscriber.send(*[Pubcomp(number) for number in range(1, 201)])
    assert inflight.count == 0
