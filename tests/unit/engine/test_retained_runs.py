"""Publishes with RETAIN that come as a run, against the same packet by packet: nobody can tell them apart."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.codec.encode import encode
from broker.codec.packets import Puback, Publish, Pubrec
from broker.engine import Engine
from broker.hooks import Client, Hooks, Publishes
from tests.support import mqtt_wire as wire
from tests.support.engine_client import EngineClient, HoldingSink, HoldingStore, make_engine, turn, unreleased_of
from tests.unit.engine.test_engine import of_type, publish

PACKET_BY_PACKET = 128
"""As `packet_bytes_max`: nothing is decoded as a run then."""


class Sent(NamedTuple):
    topic: str
    payload: bytes
    qos: int
    retain: bool


SENT = st.builds(
    Sent,
    st.sampled_from(["a", "b", "c/d", "c/e", "f"]),
    st.sampled_from([b"", b"1", b"x" * 70]),
    st.integers(0, 2),
    st.sampled_from([True, True, True, False]),
)


class World:
    """An engine with a sink and a store, subscribers of every kind, and a publisher."""

    def __init__(self, level: int, packet_bytes_max: int, has_stream: bool, retained_messages_max: int) -> None:
        self.sink = HoldingSink(None if has_stream else lambda topic_name: None)
        self.store = HoldingStore()
        self.engine = make_engine(
            self.sink,
            self.store,
            packet_bytes_max=packet_bytes_max,
            retained_messages_max=retained_messages_max,
        )
        self.subscribers: list[EngineClient] = []
        for number, (version, topic_filter, qos, as_published) in enumerate(
            [(4, "#", 0, False), (5, "#", 2, False), (5, "#", 1, True), (5, "c/#", 0, True), (4, "b", 1, False)]
        ):
            client = EngineClient(self.engine, version)
            client.connect(f"s{number}")
            client.subscribe(topic_filter, qos, retain_as_published=as_published)
            self.subscribers.append(client)
        self.publisher = EngineClient(self.engine, level)
        self.publisher.connect("p")

    def run(self, reads: list[bytes]) -> None:
        for read in reads:
            self.publisher.send_bytes(read)
        for _ in range(2):
            self.store.commit()
            turn(self.engine)
            self.sink.commit()
            turn(self.engine)
        self.store.commit()

    def seen(self) -> dict[str, object]:
        """All that anyone can see."""
        newcomer = EngineClient(self.engine, 5)
        newcomer.connect("newcomer")
        found = of_type(newcomer.subscribe("#", 2), Publish)
        metrics = self.engine.metrics
        return {
            "answers": written(self.publisher),
            "delivered": [written(subscriber) for subscriber in self.subscribers],
            "retained": sorted((packet.topic_name, packet.payload, packet.qos, packet.retain) for packet in found),
            "kept": self.engine.retained.bytes,
            "store": {name: payload for name, payload in self.store.retained.items() if payload is not None},
            "refused": dict(metrics.refused_publishes),
            "dropped": dict(metrics.dropped_messages),
            "received": (metrics.messages_received, metrics.reliable_received),
            "unreleased": unreleased_of(self.publisher.connection.session),
        }


@settings(max_examples=60, deadline=None)
@given(
    sent=st.lists(SENT, max_size=20),
    level=st.sampled_from([4, 5]),
    has_stream=st.booleans(),
    retained_messages_max=st.sampled_from([2, 100]),
)
def test_a_read_is_what_its_packets_are(
    sent: list[Sent], level: int, has_stream: bool, retained_messages_max: int
) -> None:
    """QoS 2 is routed once it is stored, and then a run only knows the last one of each topic: no limits there."""
    if retained_messages_max < len(sent):
        sent = [each._replace(qos=min(each.qos, 1)) for each in sent]
    read = b"".join(
        encode(publish(each.topic, each.payload, each.qos, number if each.qos else 0, retain=each.retain), level)
        for number, each in enumerate(sent, 1)
    )
    in_runs = World(level, 10_000, has_stream, retained_messages_max)
    alone = World(level, PACKET_BY_PACKET, has_stream, retained_messages_max)
    in_runs.run([read])
    alone.run([read])
    assert in_runs.seen() == alone.seen()


def written(client: EngineClient) -> bytes:
    """All that was written to it since the last call."""
    data = b"".join(client.transport.written)
    client.transport.written.clear()
    return data


def frames(count: int, qos: int, level: int, topics: int = 50) -> bytes:
    return b"".join(
        encode(publish(f"t/{number % topics}", b"%d" % number, qos, number if qos else 0, retain=True), level)
        for number in range(1, count + 1)
    )


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("level", [4, 5])
def test_a_read_of_them_is_one_run(qos: int, level: int) -> None:
    sink = HoldingSink()
    engine = make_engine(sink, HoldingStore())
    client = EngineClient(engine, level)
    client.connect("p")
    client.send_bytes(frames(200, qos, level))
    (run,) = sink.runs
    assert (len(run), run.retain, run.qos) == (200, True, qos)
    sink.commit()
    turn(engine)
    assert len(of_type(client.received(), Pubrec if qos == 2 else Puback)) == (200 if qos else 0)
    assert len(engine.retained) == 50


def test_the_store_is_told_the_newest_of_each_topic_at_once() -> None:
    store = HoldingStore()
    client = EngineClient(make_engine(None, store), 4)
    client.connect("p")
    client.send_bytes(frames(200, 0, 4, topics=3))
    assert len(store.changes) == 1
    store.commit()
    assert store.retained == {"t/0": b"198", "t/1": b"199", "t/2": b"200"}


def full(level: int, **limits: object) -> tuple[Engine, EngineClient]:
    engine = make_engine(HoldingSink(lambda topic_name: None), HoldingStore(), **limits)
    client = EngineClient(engine, level)
    client.connect("p")
    return engine, client


def test_at_the_limit_what_is_there_is_replaced_and_what_is_new_is_refused() -> None:
    engine, client = full(5, retained_messages_max=3)
    client.send_bytes(frames(3, 0, 5))
    names = ["t/1", "new", "t/2", "t/3", "newer", "t/3"]
    client.send(*[publish(name, b"2", 1, number, retain=True) for number, name in enumerate(names, 1)])
    engine.store.commit()  # type: ignore[union-attr]
    turn(engine)
    pubacks = of_type(client.received(), Puback)
    assert [(each.packet_id, each.reason_code) for each in pubacks] == [
        (1, 0x10), (2, 0x97), (3, 0x10), (4, 0x10), (5, 0x97), (6, 0x10),
    ]  # fmt: skip
    assert engine.metrics.refused_publishes["retained_full"] == 2
    assert engine.metrics.limits.count["retained_messages_max"] == 2


def test_over_the_bytes_what_has_no_room_is_refused() -> None:
    engine, client = full(5, retained_bytes_max=1_000)
    client.send(*[publish(f"t/{number}", b"x" * 60, 1, number, retain=True) for number in range(1, 5)])
    engine.store.commit()  # type: ignore[union-attr]
    turn(engine)
    codes = [each.reason_code for each in of_type(client.received(), Puback)]
    assert codes == [0x10, 0x10, 0x97, 0x97]
    assert len(engine.retained) == 2


def test_a_hook_sees_them_and_what_it_refuses_is_not_kept() -> None:
    engine, client = full(5)

    def only_even(client: Client, publishes: Publishes) -> None:
        for message in publishes:
            assert message.retain
            if int(message.payload) % 2:
                message.refuse()

    engine.hooks = Hooks(on_publish=only_even)
    client.send_bytes(frames(6, 1, 5))
    assert sorted(message.topic_name for message in engine.retained.match("#", 0)) == ["t/2", "t/4", "t/6"]


def test_what_they_are_followed_by_is_not_retained() -> None:
    engine, client = full(4)
    client.send_bytes(frames(3, 0, 4) + wire.publish("t/9", b"9") + frames(2, 1, 4, topics=1))
    assert sorted(message.topic_name for message in engine.retained.match("#", 0)) == ["t/0", "t/1", "t/2", "t/3"]
