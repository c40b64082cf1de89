"""Retained messages: what the store is told and when, expiry, and that a filter is looked for without a scan."""

from __future__ import annotations

import pytest

from broker.codec.packets import Puback, Publish, Pubrec
from broker.codec.properties import Properties
from broker.delivery import split_frame
from broker.protocol.handlers.publish import make_run
from broker.retained import STALE_EXPIRIES, RetainedMessage
from broker.retained_frames import retained_frame
from broker.routing import Route
from broker.topics.tree import TopicTree
from tests.support.engine_client import NOW_MS, EngineClient, HoldingSink, HoldingStore, make_engine, turn
from tests.unit.engine.test_engine import of_type, payloads, publish


def retained(payload: bytes, qos: int = 1, packet_id: int = 1, expiry_s: int | None = None) -> Publish:
    properties = Properties()
    properties.message_expiry_interval = expiry_s
    return publish("a/b", payload, qos, packet_id if qos else 0, retain=True, properties=properties)


def seen_by_a_subscriber(engine: object, topic_filter: str = "#") -> list[bytes]:
    """Payloads of what is retained at this moment."""
    client = EngineClient(engine, 5)  # type: ignore[arg-type]
    client.connect("subscriber")
    return payloads(client.subscribe(topic_filter))


class TestStore:
    """Memory and store have the same in the end, and an acknowledgement waits for the store."""

    def test_without_a_stream_puback_waits_until_the_message_is_durable(self) -> None:
        store = HoldingStore()
        client = EngineClient(make_engine(store=store), 5)
        client.connect("p")
        client.send(retained(b"1"))
        assert client.received() == []
        store.commit()
        turn(client.engine)
        assert of_type(client.received(), Puback)
        assert store.retained == {"a/b": b"1"}

    def test_an_empty_payload_clears_it_there_too(self) -> None:
        store = HoldingStore()
        client = EngineClient(make_engine(store=store), 5)
        client.connect("p")
        client.send(retained(b"1", 0), retained(b"", 0))
        store.commit()
        assert store.retained == {"a/b": None}

    def test_a_change_is_handed_over_before_the_records_of_its_turn(self) -> None:
        handed_over: list[str] = []

        class Store(HoldingStore):
            def keep(self, changes: object) -> None:
                handed_over.append("change")

            def flush(self) -> None:
                handed_over.append("flush")

        class Sink(HoldingSink):
            def submit(self, runs: object) -> None:
                handed_over.append("record")

        client = EngineClient(make_engine(Sink(), Store()), 5)
        client.connect("p")
        handed_over.clear()
        client.send(retained(b"1"))
        assert handed_over == ["change", "record", "flush"]

    def test_qos_2_is_told_when_it_is_taken_and_shown_when_it_is_stored(self) -> None:
        sink, store = HoldingSink(), HoldingStore()
        engine = make_engine(sink, store)
        client = EngineClient(engine, 5)
        client.connect("p")
        client.send(retained(b"2", 2))
        store.commit()
        assert store.retained == {"a/b": b"2"}
        assert seen_by_a_subscriber(engine) == []
        sink.commit()
        turn(engine)
        assert of_type(client.received(), Pubrec)
        assert seen_by_a_subscriber(engine) == [b"2"]
        assert not store.changes

    def test_the_publish_that_came_last_stays_though_qos_2_is_routed_after_it(self) -> None:
        sink, store = HoldingSink(), HoldingStore()
        engine = make_engine(sink, store)
        client = EngineClient(engine, 5)
        client.connect("p")
        client.send(retained(b"2", 2), retained(b"1", 1, 2))
        sink.commit()
        turn(engine)
        store.commit()
        assert seen_by_a_subscriber(engine) == [b"1"]
        assert store.retained == {"a/b": b"1"}

    def test_two_of_qos_2_leave_the_later_one(self) -> None:
        sink, store = HoldingSink(), HoldingStore()
        engine = make_engine(sink, store)
        client = EngineClient(engine, 5)
        client.connect("p")
        client.send(retained(b"first", 2, 1))
        client.send(retained(b"second", 2, 2))
        sink.commit(1)
        turn(engine)
        assert seen_by_a_subscriber(engine) == [b"first"]
        sink.commit()
        turn(engine)
        store.commit()
        assert seen_by_a_subscriber(engine) == [b"second"]
        assert store.retained == {"a/b": b"second"}

    def test_a_refused_publish_is_taken_back(self) -> None:
        sink, store = HoldingSink(), HoldingStore()
        engine = make_engine(sink, store)
        client = EngineClient(engine, 5)
        client.connect("p")
        client.send(retained(b"kept", 1, 1), retained(b"refused", 2, 2))
        assert sink.runs[1].origin is not None
        sink.runs[1].origin.refuse(sink.runs[1], 0x97)
        turn(engine)
        store.commit()
        assert store.retained == {"a/b": b"kept"}

    def test_what_was_kept_is_there_after_a_start(self) -> None:
        frame = b"\x31\x06\x00\x03a/bx"
        store = HoldingStore([("a/b", frame, False, "c", NOW_MS - 1, 0)])
        assert seen_by_a_subscriber(make_engine(store=store), "a/+") == [b"x"]

    def test_what_does_not_fit_any_more_is_counted(self) -> None:
        rows = [(name, b"\x31\x04\x00\x01" + name.encode() + b"x", False, "c", NOW_MS, 0) for name in "ab"]
        engine = make_engine(store=HoldingStore(rows), retained_messages_max=1)
        assert len(engine.retained) == 1
        assert engine.metrics.dropped_messages["retained_full"] == 1


class TestExpiry:
    """[MQTT-3.3.2-5]"""

    def test_a_message_leaves_memory_and_store_when_its_time_is_over(self) -> None:
        store = HoldingStore()
        engine = make_engine(store=store)
        client = EngineClient(engine, 5)
        client.connect("p")
        client.send(retained(b"1", 0, expiry_s=10))
        engine.tick(NOW_MS + 9_999)
        assert len(engine.retained) == 1
        engine.tick(NOW_MS + 10_000)
        turn(engine)
        store.commit()
        assert (len(engine.retained), engine.retained.bytes, engine.retained.expired) == (0, 0, 1)
        assert store.retained == {"a/b": None}

    def test_a_newer_message_is_not_hit_by_the_expiry_of_the_one_before(self) -> None:
        engine = make_engine()
        client = EngineClient(engine, 5)
        client.connect("p")
        client.send(retained(b"1", 0, expiry_s=10), retained(b"2", 0))
        engine.tick(NOW_MS + 20_000)
        assert seen_by_a_subscriber(engine) == [b"2"]

    def test_one_that_expired_while_the_server_was_down_is_forgotten(self) -> None:
        frame = b"\x31\x0c\x00\x03a/b\x05\x02\x00\x00\x00\x0ax"
        store = HoldingStore([("a/b", frame, True, "c", NOW_MS - 20_000, NOW_MS - 10_000)])
        engine = make_engine(store=store)
        assert len(engine.retained) == 0
        turn(engine)
        store.commit()
        assert store.retained == {"a/b": None}

    def test_a_topic_that_is_published_again_and_again_leaves_no_pile_of_expiries(self) -> None:
        engine = make_engine()
        client = EngineClient(engine, 5)
        client.connect("p")
        for number in range(2 * STALE_EXPIRIES):
            client.now_ms = NOW_MS + number
            client.send(retained(b"x", 0, expiry_s=1_000))
        assert len(engine.retained._expiries) <= STALE_EXPIRIES + 3


@pytest.mark.parametrize(
    ("topic_filter", "nodes"), [("a/7/t", 3), ("a/7/#", 4), ("a/7/+", 4), ("a/+/nothing", 2_001), ("b/#", 1)]
)
def test_only_branches_that_can_match_are_walked(topic_filter: str, nodes: int) -> None:
    """Of 4,000 topics a filter looks at no more nodes than its own levels can reach."""
    tree: TopicTree[int] = TopicTree()
    for number in range(2_000):
        tree.add(f"a/{number}/t", number)
        tree.add(f"b{number}/{number}/t", number)
    assert tree.taken_by_few(topic_filter, nodes) is not None
    assert tree.taken_by_few("#", 4_000) is None


@pytest.mark.parametrize("payload", [b"21.5", b"x" * 120, b"y" * 20_000])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("has_properties", [False, True])
def test_a_frame_for_qos_0_is_the_one_that_a_packet_would_become(
    payload: bytes, qos: int, level: int, has_properties: bool
) -> None:
    """The way without a packet, for who subscribes to all at once, against the plain one."""
    properties = Properties()
    if has_properties:
        properties.content_type = "text/plain"
        properties.user_properties = [("k", "v" * 200)]
    packet = publish("a/b", payload, qos, 7 if qos else 0, retain=True)
    packet.properties = properties if level == 5 else None
    route = Route("a/b", b"\0\x03a/b", None)
    message = RetainedMessage.of(make_run(packet, route, level == 5, "p", NOW_MS, None))
    for is_v5 in (False, True):
        run = make_run(message.publish(), route, message.is_v5, "p", NOW_MS, None)
        assert retained_frame(message, is_v5) == b"".join(split_frame(run, 0, is_v5, 0, retain=True))


def test_a_thousand_topics_come_in_one_piece_with_those_that_expire() -> None:
    engine = make_engine()
    client = EngineClient(engine, 5)
    client.connect("p")
    for number in range(1_000):
        properties = Properties()
        properties.message_expiry_interval = 60 if number == 500 else None
        client.send(publish(f"a/{number}", b"%d" % number, 0, retain=True, properties=properties))
    subscriber = EngineClient(engine, 5)
    subscriber.connect("s")
    found = of_type(subscriber.subscribe("a/#"), Publish)
    assert sorted(int(packet.payload) for packet in found) == list(range(1_000))
    assert all(packet.retain for packet in found)
    (expiring,) = [packet for packet in found if packet.topic_name == "a/500"]
    assert expiring.properties is not None
    assert expiring.properties.message_expiry_interval == 60
    assert engine.metrics.messages_delivered == 1_000
