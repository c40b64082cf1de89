"""The engine as clients see it, without sockets: publish, subscribe, sessions, acknowledgements and their order."""

from __future__ import annotations

import pytest

from broker.codec import constants
from broker.codec.packets import (
    Connack,
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Unsuback,
    Unsubscribe,
    Will,
)
from broker.codec.properties import Properties
from broker.protocol.connection import Connection
from tests.support.engine_client import EngineClient, HoldingSink, make_engine, turn


def publish(
    topic_name: str,
    payload: bytes = b"1",
    qos: int = 0,
    packet_id: int = 0,
    retain: bool = False,
    dup: bool = False,
    properties: Properties | None = None,
) -> Publish:
    return Publish(topic_name, payload, qos, retain, dup, packet_id, properties)


def payloads(packets: list[object]) -> list[bytes]:
    return [packet.payload for packet in packets if isinstance(packet, Publish)]


def of_type(packets: list[object], kind: type) -> list[object]:
    return [packet for packet in packets if isinstance(packet, kind)]


@pytest.mark.parametrize("level", [3, 4, 5])
def test_connect_is_answered(level: int) -> None:
    """[MQTT-3.2.0-1]"""
    connack = EngineClient(make_engine(), level).connect("c1")
    assert (connack.session_present, connack.reason_code) == (False, 0)


@pytest.mark.parametrize("subscriber_level", [4, 5])
@pytest.mark.parametrize("publisher_level", [4, 5])
@pytest.mark.parametrize("qos_published", [0, 1, 2])
@pytest.mark.parametrize("qos_granted", [0, 1, 2])
def test_delivery_has_the_lower_qos(
    publisher_level: int, subscriber_level: int, qos_published: int, qos_granted: int
) -> None:
    """[MQTT-3.8.4-8]"""
    engine = make_engine()
    subscriber = EngineClient(engine, subscriber_level)
    subscriber.connect("s")
    subscriber.subscribe("a/+", qos_granted)
    publisher = EngineClient(engine, publisher_level)
    publisher.connect("p")
    properties = Properties() if publisher_level == 5 else None
    publisher.send(
        *(
            publish(f"a/{i}", b"x%d" % i, qos_published, i + 1 if qos_published else 0, properties=properties)
            for i in range(5)
        )
    )
    delivered = of_type(subscriber.received(), Publish)
    assert [(p.topic_name, p.payload, p.qos) for p in delivered] == [
        (f"a/{i}", b"x%d" % i, min(qos_published, qos_granted)) for i in range(5)
    ]
    if min(qos_published, qos_granted):
        assert [p.packet_id for p in delivered] == [1, 2, 3, 4, 5]


def test_one_write_for_each_connection_and_turn() -> None:
    engine = make_engine()
    subscriber = EngineClient(engine)
    subscriber.connect("s")
    subscriber.subscribe("#")
    publisher = EngineClient(engine)
    publisher.connect("p")
    publisher.send(*(publish(f"t/{i % 50}", b"%d" % i) for i in range(500)))
    assert subscriber.writes() == 1
    assert payloads(subscriber.received()) == [b"%d" % i for i in range(500)]


def test_interleaved_targets_keep_the_order_of_each_subscriber() -> None:
    """[MQTT-4.6.0-6]"""
    engine = make_engine()
    everything, evens = EngineClient(engine), EngineClient(engine)
    everything.connect("all")
    everything.subscribe("#")
    evens.connect("even")
    evens.subscribe("even", 1)
    publisher = EngineClient(engine)
    publisher.connect("p")
    publisher.send(
        *(publish("odd" if i % 2 else "even", b"%d" % i, i % 3 % 2, i + 1 if i % 3 % 2 else 0) for i in range(30))
    )
    assert payloads(everything.received()) == [b"%d" % i for i in range(30)]
    assert payloads(evens.received()) == [b"%d" % i for i in range(0, 30, 2)]


def test_overlapping_subscriptions_deliver_once_with_the_highest_qos() -> None:
    engine = make_engine()
    subscriber = EngineClient(engine)
    subscriber.connect("s")
    subscriber.subscribe("a/#", 0)
    subscriber.subscribe("a/b", 1, packet_id=2)
    publisher = EngineClient(engine)
    publisher.connect("p")
    publisher.send(publish("a/b", b"1", 1, 9))
    assert [(p.payload, p.qos) for p in of_type(subscriber.received(), Publish)] == [(b"1", 1)]


def test_wildcards_do_not_match_dollar_topics() -> None:
    """[MQTT-4.7.2-1]"""
    engine = make_engine()
    subscriber = EngineClient(engine)
    subscriber.connect("s")
    subscriber.subscribe("#")
    publisher = EngineClient(engine)
    publisher.connect("p")
    publisher.send(publish("$other/x"))
    assert subscriber.received() == []


@pytest.mark.parametrize("topic", ["$SYS/x", "$SYS", "$presence", "$server", "$replay", "$replay/-1h/x"])
def test_reserved_topics_are_refused_in_mqtt_5_and_swallowed_in_3_1_1(topic: str) -> None:
    """`$presence/#` takes `$presence` too."""
    engine = make_engine()
    for level, code in ((4, 0), (5, 0x87)):
        publisher = EngineClient(engine, level)
        publisher.connect(f"p{level}")
        properties = Properties() if level == 5 else None
        publisher.send(publish(topic, qos=1, packet_id=3, properties=properties))
        (puback,) = publisher.received()
        assert isinstance(puback, Puback)
        assert (puback.packet_id, puback.reason_code) == (3, code)
    assert engine.metrics.refused_publishes["reserved_topic"] == 2


def test_acknowledgements_wait_for_the_sink_and_keep_their_order() -> None:
    """[MQTT-4.6.0-2]: a publish that needs no log is acknowledged behind one that waits for it."""
    sink = HoldingSink(lambda topic_name: object() if topic_name.startswith("log/") else None)
    engine = make_engine(sink)
    publisher = EngineClient(engine)
    publisher.connect("p")
    publisher.send(publish("log/a", qos=1, packet_id=7), publish("free", qos=1, packet_id=8))
    assert publisher.received() == []
    sink.commit()
    turn(engine)
    assert [p.packet_id for p in of_type(publisher.received(), Puback)] == [7, 8]


def test_two_logs_that_commit_in_the_other_order() -> None:
    """[MQTT-4.6.0-2]"""
    streams = {"a": object(), "b": object()}
    sink = HoldingSink(lambda topic_name: streams[topic_name])
    engine = make_engine(sink)
    publisher = EngineClient(engine)
    publisher.connect("p")
    publisher.send(publish("a", qos=1, packet_id=1), publish("b", qos=1, packet_id=2))
    first, second = sink.runs
    second.origin.acknowledge(second)
    turn(engine)
    assert publisher.received() == []
    first.origin.acknowledge(first)
    turn(engine)
    assert [p.packet_id for p in publisher.received()] == [1, 2]


def test_a_commit_after_the_connection_closed_hurts_nobody() -> None:
    sink = HoldingSink()
    engine = make_engine(sink)
    gone, stays = EngineClient(engine), EngineClient(engine)
    gone.connect("gone")
    stays.connect("stays")
    gone.send(publish("a", qos=1, packet_id=1))
    stays.send(publish("a", qos=1, packet_id=2))
    gone.lose()
    sink.commit()
    turn(engine)
    assert [p.packet_id for p in stays.received()] == [2]


def test_nothing_follows_a_disconnect() -> None:
    """[MQTT-3.14.4-1]: not even the acknowledgement of what was stored meanwhile."""
    sink = HoldingSink()
    engine = make_engine(sink)
    publisher = EngineClient(engine, 5)
    publisher.connect("p")
    publisher.send(publish("a", qos=1, packet_id=1, properties=Properties()))
    publisher.send_bytes(b"\xf0\x00\x00")
    sink.commit()
    turn(engine)
    assert [type(p) for p in publisher.received()] == [Disconnect]


def test_qos_0_and_1_do_not_wait_for_the_log_and_qos_2_does() -> None:
    """[MQTT-4.3.3-9]"""
    sink = HoldingSink()
    engine = make_engine(sink)
    subscriber, publisher = EngineClient(engine), EngineClient(engine)
    subscriber.connect("s")
    subscriber.subscribe("#", 2)
    publisher.connect("p")
    publisher.send(publish("a", b"0"), publish("a", b"1", 1, 1), publish("a", b"2", 2, 2))
    assert payloads(subscriber.received()) == [b"0", b"1"]
    sink.commit()
    turn(engine)
    assert payloads(subscriber.received()) == [b"2"]


def test_qos_2_is_delivered_once_however_often_it_is_sent() -> None:
    """[MQTT-4.3.3-10]"""
    sink = HoldingSink()
    engine = make_engine(sink)
    subscriber, publisher = EngineClient(engine), EngineClient(engine)
    subscriber.connect("s")
    subscriber.subscribe("#", 2)
    publisher.connect("p", clean=False)
    publisher.send(publish("a", b"x", 2, 5))
    publisher.send(publish("a", b"x", 2, 5, dup=True))
    assert publisher.received() == []
    assert len(sink.runs) == 1
    assert sink.runs[0].keeps_packet_ids
    sink.commit()
    turn(engine)
    assert [type(p) for p in publisher.received()] == [Pubrec, Pubrec]
    assert payloads(subscriber.received()) == [b"x"]
    publisher.send(Pubrel(5))
    assert publisher.received() == []
    assert sink.released == [("p", 5)]
    sink.done.pop()()
    turn(engine)
    assert [type(p) for p in publisher.received()] == [Pubcomp]
    publisher.send(publish("a", b"y", 2, 5))
    assert len(sink.runs) == 1


def test_qos_2_repeat_on_a_new_connection_waits_for_the_first_to_be_stored() -> None:
    """[MQTT-4.3.3-9]: PUBREC is a promise, also for the repeat of a publish whose connection broke."""
    sink = HoldingSink()
    engine = make_engine(sink)
    publisher = EngineClient(engine)
    publisher.connect("p", clean=False)
    publisher.send(publish("a", b"x", 2, 5))
    publisher.lose()
    again = EngineClient(engine)
    again.connect("p", clean=False)
    again.send(publish("a", b"x", 2, 5, dup=True))
    assert again.received() == []
    assert len(sink.runs) == 1
    sink.commit()
    turn(engine)
    assert [(type(p), p.packet_id) for p in again.received()] == [(Pubrec, 5)]
    again.send(Pubrel(5))
    sink.done.pop()()
    turn(engine)
    assert [type(p) for p in again.received()] == [Pubcomp]


def test_qos_2_repeat_after_a_restart_is_known_by_its_dup_flag() -> None:
    sink = HoldingSink()
    sink.stored_ids["p"] = {5, 6}
    engine = make_engine(sink)
    publisher = EngineClient(engine)
    publisher.connect("p", clean=False)
    publisher.send(publish("a", b"old", 2, 5, dup=True), publish("a", b"new", 2, 6))
    assert [run.data[run.payload_starts[0] :] for run in sink.runs] == [b"new"]
    assert [p.packet_id for p in publisher.received()] == [5]


def test_qos_2_outbound_handshake() -> None:
    """[MQTT-4.3.3-1..8]"""
    engine = make_engine()
    subscriber, publisher = EngineClient(engine), EngineClient(engine)
    subscriber.connect("s", clean=False)
    subscriber.subscribe("#", 2)
    publisher.connect("p")
    publisher.send(*(publish("a", b"%d" % i, 2, i + 1) for i in range(4)))
    assert [p.packet_id for p in subscriber.received()] == [1, 2, 3, 4]
    subscriber.send(Pubrec(1), Pubrec(2), Pubrec(3))
    assert [(type(p), p.packet_id) for p in subscriber.received()] == [(Pubrel, 1), (Pubrel, 2), (Pubrel, 3)]
    subscriber.send(Pubcomp(2), Pubcomp(1))
    subscriber.lose()
    again = EngineClient(engine)
    assert again.connect("s", clean=False).session_present
    resent = again.received()
    assert [(type(p), p.packet_id) for p in resent] == [(Publish, 4), (Pubrel, 3)]
    assert resent[0].dup
    again.send(Pubrec(4), Pubcomp(3))
    again.send(Pubcomp(4))
    again.received()
    publisher.send(publish("a", b"next", 2, 9))
    assert [p.packet_id for p in again.received()] == [5]


def test_quota_holds_messages_back_and_acknowledgements_release_them() -> None:
    """[MQTT-3.3.4-7]"""
    engine = make_engine()
    subscriber, publisher = EngineClient(engine, 5), EngineClient(engine)
    properties = Properties()
    properties.receive_maximum = 3
    subscriber.connect("s", properties=properties)
    subscriber.subscribe("#", 1)
    publisher.connect("p")
    publisher.send(*(publish(f"t/{i}", b"%d" % i, 1, i + 1) for i in range(8)))
    assert payloads(subscriber.received()) == [b"0", b"1", b"2"]
    subscriber.send(Puback(2))
    assert payloads(subscriber.received()) == [b"3"]
    subscriber.send(Puback(1), Puback(3), Puback(4))
    assert payloads(subscriber.received()) == [b"4", b"5", b"6"]
    subscriber.send(Puback(5), Puback(6), Puback(7))
    assert payloads(subscriber.received()) == [b"7"]
    subscriber.send(Puback(8))
    publisher.send(publish("t", b"more", 1, 20))
    assert payloads(subscriber.received()) == [b"more"]


def test_packet_ids_wrap_without_meeting_those_in_flight() -> None:
    """[MQTT-2.2.1-4]"""
    engine = make_engine(inflight_messages_max=65_535, queued_messages_max=100_000)
    subscriber, publisher = EngineClient(engine), EngineClient(engine)
    subscriber.connect("s")
    subscriber.subscribe("#", 1)
    publisher.connect("p")
    seen: list[int] = []
    unacknowledged: set[int] = set()
    for _ in range(30):
        publisher.send(*(publish("t", b"x", 1, i + 1) for i in range(4_000)))
        got = [p.packet_id for p in of_type(subscriber.received(), Publish)]
        assert not unacknowledged & set(got)
        seen += got
        unacknowledged |= set(got)
        acknowledged = got if 7_000 not in got else [i for i in got if i != 7_000]
        subscriber.send(*(Puback(i) for i in acknowledged))
        unacknowledged -= set(acknowledged)
    assert unacknowledged == {7_000}
    assert seen[:65_535] == list(range(1, 65_536))


def test_kept_session_gets_what_was_published_meanwhile() -> None:
    """[MQTT-3.1.2-4], [MQTT-4.4.0-1]"""
    engine = make_engine()
    subscriber, publisher = EngineClient(engine), EngineClient(engine)
    subscriber.connect("s", clean=False)
    subscriber.subscribe("#", 1)
    publisher.connect("p")
    subscriber.lose()
    publisher.send(publish("t", b"qos0"), publish("t", b"a", 1, 1), publish("t", b"b", 1, 2))
    again = EngineClient(engine)
    assert again.connect("s", clean=False).session_present
    assert payloads(again.received()) == [b"a", b"b"]


def test_queue_of_an_offline_session_is_bounded_and_counted() -> None:
    engine = make_engine(queued_messages_max=10)
    subscriber, publisher = EngineClient(engine), EngineClient(engine)
    subscriber.connect("s", clean=False)
    subscriber.subscribe("#", 1)
    subscriber.lose()
    publisher.connect("p")
    publisher.send(*(publish("t", b"%d" % i, 1, i + 1) for i in range(15)))
    again = EngineClient(engine)
    again.connect("s", clean=False)
    assert payloads(again.received()) == [b"%d" % i for i in range(10)]
    assert engine.metrics.dropped_messages["queue_full"] == 5


def test_slow_subscriber_loses_qos_0_and_keeps_qos_1() -> None:
    engine = make_engine(outbox_bytes_max=1_000, outbox_reliable_bytes_max=100)
    slow, fast, publisher = EngineClient(engine), EngineClient(engine), EngineClient(engine)
    for client, name in ((slow, "slow"), (fast, "fast")):
        client.connect(name)
        client.subscribe("#", 1)
    publisher.connect("p")
    slow.connection.pause_writing()
    for i in range(40):
        publisher.send(publish("t", b"0" * 50), publish("t", b"%d" % i, 1, i + 1))
    assert slow.received() == []
    assert engine.metrics.dropped_messages["outbox_full"] > 0
    assert len(payloads(fast.received())) == 80
    slow.connection.resume_writing()
    turn(engine)
    reliable = [p.payload for p in slow.received() if isinstance(p, Publish) and p.qos == 1]
    assert reliable == [b"%d" % i for i in range(40)]


@pytest.mark.parametrize("level", [4, 5])
def test_qos_0_that_waited_for_a_connection_that_breaks_is_counted(level: int) -> None:
    """Not what had been written, and not QoS 1, which the session still has."""
    engine = make_engine()
    slow, publisher = EngineClient(engine, level), EngineClient(engine, 4)
    properties = Properties()
    properties.session_expiry_interval = 60
    slow.connect("slow", clean=False, properties=properties if level == 5 else None)
    slow.subscribe("#", 1)
    publisher.connect("p")
    publisher.send(publish("t", b"written"))
    slow.connection.pause_writing()
    for packet_id, size in enumerate((0, 100, 130, 20_000, 900_000), 1):
        publisher.send(publish("t", b"x" * size), publish("t", b"x" * size, 1, packet_id))
    publisher.send(*(publish("t", b"%d" % number) for number in range(10)))
    for _ in range(2):
        slow.lose()
        assert engine.metrics.dropped_messages == {"connection_lost": 15}


def test_takeover_closes_the_old_connection() -> None:
    """[MQTT-3.1.4-3]"""
    engine = make_engine()
    old, new = EngineClient(engine, 5), EngineClient(engine, 5)
    old.connect("c")
    new.connect("c")
    (disconnect,) = old.received()
    assert isinstance(disconnect, Disconnect)
    assert disconnect.reason_code == 0x8E
    assert old.transport.is_closed
    new.send(Pingreq())
    assert [type(p) for p in new.received()] == [Pingresp]
    old.lose()
    new.send(Pingreq())
    assert [type(p) for p in new.received()] == [Pingresp]


def test_will_is_published_when_the_connection_breaks_and_not_after_disconnect() -> None:
    """[MQTT-3.1.2-8], [MQTT-3.1.2-10]"""
    engine = make_engine()
    watcher = EngineClient(engine)
    watcher.connect("w")
    watcher.subscribe("will/#", 1)
    will = Will("will/x", b"gone", 1, False, None)
    breaks, leaves = EngineClient(engine), EngineClient(engine)
    breaks.connect("breaks", will=will)
    breaks.lose()
    assert payloads(watcher.received()) == [b"gone"]
    leaves.connect("leaves", will=will)
    leaves.send(Disconnect(0))
    leaves.lose()
    assert watcher.received() == []


def test_will_delay_is_cancelled_by_a_return_and_ends_with_the_session() -> None:
    """[MQTT-3.1.3-9]"""
    engine = make_engine()
    watcher = EngineClient(engine)
    watcher.connect("w")
    watcher.subscribe("will", 0)

    def connect(expiry_s: int) -> EngineClient:
        client = EngineClient(engine, 5)
        properties, will_properties = Properties(), Properties()
        properties.session_expiry_interval = expiry_s
        will_properties.will_delay_interval = 5
        client.connect("c", clean=False, properties=properties, will=Will("will", b"w", 0, False, will_properties))
        return client

    connect(60).lose()
    engine.tick(0)
    client = connect(60)
    for _ in range(8):
        engine.tick(0)
    turn(engine)
    assert watcher.received() == []
    client.lose()
    for _ in range(5):
        engine.tick(0)
    turn(engine)
    assert watcher.received() == []  # five ticks may be a little more than four seconds
    engine.tick(0)
    turn(engine)
    assert payloads(watcher.received()) == [b"w"]
    connect(2).lose()
    for _ in range(3):
        engine.tick(0)
    turn(engine)
    assert payloads(watcher.received()) == [b"w"]


def test_session_ends_after_its_expiry_interval() -> None:
    """[MQTT-3.1.2-23]"""
    engine = make_engine()
    client = EngineClient(engine, 5)
    properties = Properties()
    properties.session_expiry_interval = 2
    client.connect("c", properties=properties)
    client.subscribe("a")
    client.lose()
    for _ in range(3):
        engine.tick(0)
    assert "c" not in engine.sessions.session_by_client_id
    assert not EngineClient(engine, 5).connect("c", clean=False, properties=properties).session_present


def test_silent_client_is_closed_after_one_and_a_half_keep_alives() -> None:
    """[MQTT-3.1.2-22]"""
    engine = make_engine()
    silent, speaks, paused = EngineClient(engine, 5), EngineClient(engine, 5), EngineClient(engine, 5)
    for client, name in ((silent, "silent"), (speaks, "speaks"), (paused, "paused")):
        client.connect(name, keep_alive_s=4)
    paused.connection.pause_reading()
    for _ in range(9):
        engine.tick(0)
        speaks.send(Pingreq())
    turn(engine)
    assert [type(p) for p in silent.received()] == [Disconnect]
    assert silent.transport.is_closed
    assert not speaks.transport.is_closed
    assert not paused.transport.is_closed


def test_parts_of_a_packet_do_not_keep_a_connection_alive() -> None:
    """[MQTT-3.1.2-22] speaks of MQTT Control Packets."""
    engine = make_engine()
    dribbles, completes = EngineClient(engine, 5), EngineClient(engine, 5)
    for client, name in ((dribbles, "dribbles"), (completes, "completes")):
        client.connect(name, keep_alive_s=4)
    dribbles.send_bytes(b"\x30\x7f")
    for _ in range(9):
        engine.tick(0)
        dribbles.send_bytes(b"\x00")
        completes.send_bytes(b"\xc0\x00\xc0")  # a whole PINGREQ, and a half
        completes.send_bytes(b"\x00")
    turn(engine)
    assert dribbles.transport.is_closed
    assert not completes.transport.is_closed


def test_unfinished_connect_is_closed() -> None:
    engine = make_engine()
    client = EngineClient(engine)
    client.send_bytes(b"\x10\x20\x00")
    for _ in range(12):
        engine.tick(0)
    turn(engine)
    assert client.transport.is_closed


def test_retained_message_is_sent_with_retain_and_cleared_by_an_empty_one() -> None:
    """[MQTT-3.3.1-6], [MQTT-3.3.1-8]"""
    engine = make_engine()
    publisher = EngineClient(engine)
    publisher.connect("p")
    publisher.send(publish("a/b", b"kept", 1, 1, retain=True))
    subscriber = EngineClient(engine)
    subscriber.connect("s")
    suback, retained = subscriber.subscribe("a/+", 1)
    assert isinstance(suback, Suback)
    assert (retained.payload, retained.retain, retained.qos) == (b"kept", True, 1)
    publisher.send(publish("a/b", b"live", 0, retain=True))
    (live,) = subscriber.received()
    assert (live.payload, live.retain) == (b"live", False)
    publisher.send(publish("a/b", b"", 0, retain=True))
    other = EngineClient(engine)
    other.connect("o")
    assert [type(p) for p in other.subscribe("#")] == [Suback]


@pytest.mark.parametrize(("handling", "first", "second"), [(0, 1, 1), (1, 1, 0), (2, 0, 0)])
def test_retain_handling(handling: int, first: int, second: int) -> None:
    """[MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11]"""
    engine = make_engine()
    publisher = EngineClient(engine)
    publisher.connect("p")
    publisher.send(publish("a", b"kept", retain=True))
    subscriber = EngineClient(engine, 5)
    subscriber.connect("s")
    assert len(payloads(subscriber.subscribe("a", retain_handling=handling))) == first
    assert len(payloads(subscriber.subscribe("a", retain_handling=handling))) == second


def test_no_local_and_retain_as_published_and_identifiers() -> None:
    """[MQTT-3.8.3-3], [MQTT-3.3.1-12], [MQTT-3.3.4-3]"""
    engine = make_engine()
    client = EngineClient(engine, 5)
    client.connect("c")
    client.subscribe("a", no_local=True)
    client.subscribe("b", retain_as_published=True)
    client.send(publish("a", properties=Properties()), publish("b", retain=True, properties=Properties()))
    (from_b,) = of_type(client.received(), Publish)
    assert (from_b.topic_name, from_b.retain) == ("b", True)


def test_unsubscribe() -> None:
    """[MQTT-3.10.4-1]"""
    engine = make_engine()
    client = EngineClient(engine, 5)
    client.connect("c")
    client.subscribe("a")
    client.send(Unsubscribe(4, ["a", "nothing"], Properties()))
    (unsuback,) = client.received()
    assert isinstance(unsuback, Unsuback)
    assert unsuback.reason_codes == [0, 0x11]
    client.send(publish("a", properties=Properties()))
    assert client.received() == []


def test_message_expiry_is_reduced_by_the_wait_and_ends_the_message() -> None:
    """[MQTT-3.3.2-5], [MQTT-3.3.2-6]"""
    engine = make_engine()
    subscriber, publisher = EngineClient(engine, 5), EngineClient(engine, 5)
    properties = Properties()
    properties.session_expiry_interval = 100
    subscriber.connect("s", clean=False, properties=properties)
    subscriber.subscribe("#", 1)
    subscriber.lose()
    publisher.connect("p")
    for i, expiry_s in enumerate((5, 60)):
        expiring = Properties()
        expiring.message_expiry_interval = expiry_s
        publisher.send(publish("t", b"%d" % expiry_s, 1, i + 1, properties=expiring))
    again = EngineClient(engine, 5)
    again.now_ms += 20_000
    again.connect("s", clean=False, properties=properties)
    (message,) = of_type(again.received(), Publish)
    assert message.payload == b"60"
    assert message.properties.message_expiry_interval == 40


def test_topic_alias() -> None:
    """[MQTT-3.3.2-7] to [MQTT-3.3.2-12]"""
    engine = make_engine()
    subscriber, publisher = EngineClient(engine), EngineClient(engine, 5)
    subscriber.connect("s")
    subscriber.subscribe("#")
    publisher.connect("p")

    def aliased(topic_name: str, alias: int) -> Publish:
        properties = Properties()
        properties.topic_alias = alias
        return publish(topic_name, properties=properties)

    publisher.send(aliased("long/topic", 1), aliased("", 1))
    assert [p.topic_name for p in subscriber.received()] == ["long/topic", "long/topic"]
    publisher.send(aliased("x", 101))
    (disconnect,) = publisher.received()
    assert disconnect.reason_code == 0x94


def test_receive_maximum_of_the_server() -> None:
    """[MQTT-3.3.4-7]"""
    sink = HoldingSink()
    engine = make_engine(sink, receive_maximum=4)
    publisher = EngineClient(engine, 5)
    connack = publisher.connect("p")
    assert connack.properties.receive_maximum == 4
    publisher.send(*(publish("t", qos=1, packet_id=i + 1, properties=Properties()) for i in range(5)))
    (disconnect,) = publisher.received()
    assert disconnect.reason_code == 0x93


def test_refused_runs_are_told_to_mqtt_5() -> None:
    sink = HoldingSink()
    engine = make_engine(sink)
    publisher = EngineClient(engine, 5)
    publisher.connect("p")
    publisher.send(
        publish("t", qos=1, packet_id=1, properties=Properties()),
        publish("t", qos=2, packet_id=2, properties=Properties()),
    )
    for run in sink.runs:
        run.origin.refuse(run, 0x97)
    turn(engine)
    assert [(type(p), p.packet_id, p.reason_code) for p in publisher.received()] == [
        (Puback, 1, 0x97),
        (Pubrec, 2, 0x97),
    ]


@pytest.mark.parametrize(
    ("level", "data", "code"),
    [
        (5, b"\xf0\x01\x00", None),
        (4, b"\x30\x80\x80\x80\x80\x01", None),
        (5, b"\x36\x05\x00\x01a\x00\x01", 0x81),
        (5, b"\x30\xff\xff\xff\x7f", 0x95),
        (5, b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00", 0x82),
        (5, b"\x20\x03\x00\x00\x00", 0x82),
        (5, b"\x82\x03\x00\x01\x00", None),
        (4, b"\x30\x03\x00\x01#", None),
    ],
)
def test_bad_packet_ends_only_its_connection(level: int, data: bytes, code: int | None) -> None:
    engine = make_engine()
    bad, good = EngineClient(engine, level), EngineClient(engine, level)
    bad.connect("bad")
    good.connect("good")
    bad.send_bytes(data)
    assert bad.transport.is_closed
    received = bad.received()
    if level == 5:
        (disconnect,) = received
        assert isinstance(disconnect, Disconnect)
        assert code is None or disconnect.reason_code == code
    else:
        assert received == []
    good.send(Pingreq())
    assert [type(p) for p in good.received()] == [Pingresp]


def test_a_fault_of_ours_ends_its_connection_alone() -> None:
    """[MQTT-4.8.0-2] of 3.1.1; 0x83 in 5.0"""
    engine = make_engine()
    other = EngineClient(engine)
    other.connect("other")

    def broken(connection: Connection, packet: object, now_ms: int) -> None:
        raise ZeroDivisionError

    engine.handlers = {**engine.handlers, constants.UNSUBSCRIBE: broken}
    for level in (4, 5):
        client = EngineClient(engine, level)
        client.connect(f"c{level}")
        client.send(Unsubscribe(1, ["a"]), Pingreq())
        assert client.received() == ([Disconnect(0x83)] if level == 5 else [])
        assert client.transport.is_closed
    other.send(Pingreq())
    assert other.received() == [Pingresp()]


def test_packets_of_any_split() -> None:
    engine = make_engine()
    subscriber = EngineClient(engine)
    subscriber.connect("s")
    subscriber.subscribe("#")
    data = b"".join(
        b"\x30" + bytes((4 + len(body),)) + b"\x00\x02t%d" % (i % 3) + body
        for i, body in enumerate([b"x" * n for n in range(60)])
    )
    for size in (1, 2, 3, 7, 50, 333):
        publisher = EngineClient(engine)
        publisher.connect(f"p{size}")
        for start in range(0, len(data), size):
            publisher.send_bytes(data[start : start + size])
        assert [len(p) for p in payloads(subscriber.received())] == list(range(60))


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x00\x00\x01a", [Connack(False, 0x84)]),
        (b"\x10\x0d\x00\x04MQTT\x03\x02\x00\x00\x00\x01a", [Connack(False, 1)]),
        (b"\x10\x0f\x00\x06MQIsdp\x04\x02\x00\x00\x00\x01a", [Connack(False, 1)]),
        (b"\x10\x0e\x00\x04MQTT\x05\x03\x00\x00\x00\x00\x01a", [Connack(False, 0x81)]),
        (b"\x10\x0d\x00\x04MQTT\x04\x03\x00\x00\x00\x01a", []),
        (b"\x10\x0d\x00\x05MQTTX\x04\x02\x00\x00\x00\x00", []),
    ],
)
def test_bad_connect_is_answered_where_its_version_has_an_answer(data: bytes, answer: list[Connack]) -> None:
    """[MQTT-3.1.2-2], [MQTT-3.1.2-3]"""
    client = EngineClient(make_engine(), 5 if answer and answer[0].reason_code > 0x80 else 4)
    client.send_bytes(data)
    assert client.transport.is_closed
    assert client.received() == answer


@pytest.mark.parametrize(
    ("data", "words"), [(b"\x16\x03\x01\x02\x00\x01\x00", "spoke TLS"), (b"GET / HTTP/1.1", "spoke HTTP")]
)
def test_a_peer_that_speaks_something_else_is_named_in_the_log(
    data: bytes, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = EngineClient(make_engine())
    client.send_bytes(data)
    assert client.transport.is_closed
    assert words in caplog.text


def test_a_filter_over_many_cached_topics_resets_them_all() -> None:
    engine = make_engine()
    publisher, subscriber = EngineClient(engine), EngineClient(engine)
    publisher.connect("p")
    subscriber.connect("s")
    for start in range(0, 6_000, 1_000):
        publisher.send(*(publish(f"site/{start + i}") for i in range(1_000)))
    subscriber.subscribe("site/#")
    publisher.send(publish("site/1"), publish("site/5999"), publish("other"))
    assert [p.topic_name for p in subscriber.received()] == ["site/1", "site/5999"]
    subscriber.send(Unsubscribe(3, ["site/#"]))
    subscriber.received()
    publisher.send(publish("site/1"))
    assert subscriber.received() == []


def test_route_cache_is_bounded_and_forgotten_topics_still_arrive() -> None:
    engine = make_engine(routes_max=100)
    publisher, subscriber = EngineClient(engine), EngineClient(engine)
    publisher.connect("p")
    subscriber.connect("s")
    subscriber.subscribe("#")
    publisher.send(*(publish(f"t/{i}") for i in range(1_000)), publish("t/0"))
    assert len(payloads(subscriber.received())) == 1_001
    assert len(engine.router.routes) <= 100
    publisher.send(publish("/".join("x" * 150)))
    assert len(payloads(subscriber.received())) == 1


def test_route_cache_is_bounded_in_bytes_too() -> None:
    """A topic name may have 65,535 of them."""
    engine = make_engine(routes_bytes_max=100_000)
    publisher, subscriber = EngineClient(engine), EngineClient(engine)
    publisher.connect("p")
    subscriber.connect("s")
    subscriber.subscribe("#")
    names = [f"{number}/{'x' * 30_000}" for number in range(20)]
    publisher.send(*(publish(name) for name in [*names, *names, "t"]))
    assert len(payloads(subscriber.received())) == 41
    assert sum(map(len, engine.router.routes)) <= 100_000
    assert len(engine.router.routes) == 4


@pytest.mark.parametrize(
    ("policy", "limits", "kept"),
    [
        ("newest", {"queued_messages_max": 2}, [b"1", b"2"]),
        ("oldest", {"queued_messages_max": 2}, [b"3", b"4"]),
        ("oldest", {"queued_bytes_max": 17}, [b"3", b"4"]),
        ("oldest", {"queued_messages_max": 0}, []),
    ],
)
def test_queued_drop_says_which_messages_go(policy: str, limits: dict[str, object], kept: list[bytes]) -> None:
    """Each is a frame of 8 bytes. What goes is counted."""
    engine = make_engine(queued_drop=policy, **limits)
    client = EngineClient(engine)
    client.connect("k", clean=False)
    client.subscribe("a", 1)
    client.lose()
    publisher = EngineClient(engine)
    publisher.connect("p")
    for number in range(1, 5):
        publisher.send(publish("a", b"%d" % number, 1, number))
    assert engine.metrics.dropped_messages["queue_full"] == 4 - len(kept)
    assert engine.metrics.queued_messages == len(kept)
    again = EngineClient(engine)
    again.connect("k", clean=False)
    assert payloads(again.received()) == kept
    assert (engine.metrics.queued_messages, engine.metrics.queued_bytes) == (0, 0)
