"""`$SYS/broker/…`: what is published when, and to whom."""

from __future__ import annotations

import pytest

from broker.codec.packets import Pingreq, Puback, Publish, Pubrec, Unsubscribe
from broker.codec.properties import Properties
from broker.engine import Engine
from broker.sys_topics import Load
from tests.support.engine_client import NOW_MS, EngineClient, HoldingSink, make_engine, turn


def told(client: EngineClient) -> dict[str, str]:
    """What came, by topic name below `$SYS/broker/`."""
    found = [packet for packet in client.received() if isinstance(packet, Publish)]
    return {packet.topic_name.removeprefix("$SYS/broker/"): packet.payload.decode() for packet in found}


def tick(engine: Engine, seconds: int) -> None:
    for _ in range(seconds):
        engine.tick(NOW_MS)
    turn(engine)


def connected(engine: Engine, client_id: str, level: int = 4) -> EngineClient:
    client = EngineClient(engine, level)
    client.connect(client_id)
    return client


@pytest.mark.parametrize("level", [4, 5])
def test_new_subscriber_gets_all_at_once_as_retained(level: int) -> None:
    engine = make_engine()
    engine.sys_topics.publish()
    client = connected(engine, "s", level)
    packets = [packet for packet in client.subscribe("$SYS/broker/#", 2) if isinstance(packet, Publish)]
    assert len(packets) > 40
    assert all(packet.retain and packet.qos == 2 for packet in packets)
    by_name = {packet.topic_name: packet.payload for packet in packets}
    assert by_name["$SYS/broker/version"].startswith(b"headrace version ")
    assert by_name["$SYS/broker/uptime"] == b"0 seconds"


def test_each_interval_tells_only_what_changed() -> None:
    engine = make_engine(sys_interval_s=3)
    client = connected(engine, "s")
    client.subscribe("$SYS/#")
    tick(engine, 2)
    assert told(client) == {}
    tick(engine, 1)
    assert told(client)["clients/connected"] == "1"
    tick(engine, 3)
    second = told(client)
    assert second["uptime"] == "6 seconds"
    assert not {"version", "clients/connected", "clients/maximum"} & second.keys()


@pytest.mark.parametrize("topic_filter", ["#", "+/broker/#", "+/+/uptime"])
def test_wildcards_never_cover_them(topic_filter: str) -> None:
    """[MQTT-4.7.2-1]"""
    engine = make_engine(sys_interval_s=1)
    engine.sys_topics.publish()
    client = connected(engine, "s")
    client.subscribe(topic_filter)
    tick(engine, 2)
    assert told(client) == {}


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
def test_nobody_else_publishes_to_a_topic_that_was_told(level: int, qos: int, retain: bool) -> None:
    engine = make_engine(sys_interval_s=1)
    engine.sys_topics.publish()
    watcher = connected(engine, "w", level)
    watcher.subscribe("$SYS/broker/uptime", 2)
    liar = connected(engine, "l", level)
    liar.send(Publish("$SYS/broker/uptime", b"x", qos, retain, False, 3 if qos else 0))
    answers = liar.received()
    if level == 5 and qos:
        assert [packet.reason_code for packet in answers if isinstance(packet, Puback | Pubrec)] == [0x87]
    assert told(watcher) == {}
    assert engine.metrics.refused_publishes["reserved_topic"] == 1
    assert [message.publish().payload for message in engine.sys_topics.match("$SYS/broker/uptime")] == [b"0 seconds"]


def test_interval_of_zero_tells_nothing() -> None:
    engine = make_engine(sys_interval_s=0)
    engine.sys_topics.publish()
    client = connected(engine, "s")
    client.subscribe("$SYS/#")
    tick(engine, 20)
    assert told(client) == {}
    assert engine.sys_topics.retained.bytes == 0


def test_nothing_of_them_is_stored_or_takes_room_of_clients() -> None:
    sink = HoldingSink()
    engine = make_engine(sink, sys_interval_s=1, retained_messages_max=1)
    tick(engine, 3)
    assert (sink.runs, len(engine.retained)) == ([], 0)
    client = connected(engine, "p")
    client.send(Publish("a", b"x", 0, True, False, 0, None))
    assert len(engine.retained) == 1


def test_values_count_what_happened() -> None:
    engine = make_engine(sys_interval_s=60)
    engine.heap_bytes = lambda: 4096
    engine.sys_topics.publish()
    subscriber, publisher = connected(engine, "s"), connected(engine, "p")
    away = EngineClient(engine)
    away.connect("away", clean=False)
    away.subscribe("a/#", 1)
    away.lose()
    subscriber.subscribe("a/#", 1)
    for member in (subscriber, publisher):
        member.subscribe("$share/g/other", 1)
    publisher.send(Publish("a/1", b"x" * 50, 1, True, False, 1, None))
    publisher.send(*(Publish("a/2", b"y", 0, False, False, 0, None) for _ in range(3)))
    publisher.send(Pingreq(), Unsubscribe(2, ["nothing"], None))
    subscriber.send(Puback(1, 0, None))
    tick(engine, 60)
    values = retained(engine)
    expected = {
        "clients/total": "3",
        "clients/connected": "2",
        "clients/disconnected": "1",
        "clients/maximum": "3",
        "publish/messages/received": "4",
        "publish/messages/sent": "4",
        "messages/received": "14",  # 3 CONNECT, 4 SUBSCRIBE, 4 PUBLISH, PINGREQ, UNSUBSCRIBE, PUBACK
        "messages/sent": "14",  # 3 CONNACK, 4 SUBACK, 4 PUBLISH, PUBACK, PINGRESP, UNSUBACK
        "messages/stored": "2",  # one is retained, one is queued for the client that is away
        "subscriptions/count": "2",
        "shared_subscriptions/count": "2",
        "bytes/received": str(engine.metrics.bytes_received),
        "publish/bytes/received": str(59 + 3 * 8),
        "publish/bytes/sent": str(59 + 3 * 8),
        "load/connections/1min": f"{3 * (1 - 1 / 2.718281828):.2f}",
        "load/publish/received/15min": f"{4 * (1 - 2.718281828 ** (-1 / 15)):.2f}",
        "heap/current": "4096",
    }
    assert {name: values[name] for name in expected} == expected
    assert values["retained messages/count"] == str(len(engine.sys_topics.retained) + 1)


def retained(engine: Engine) -> dict[str, str]:
    """What a new subscriber would get."""
    found = (message.publish() for message in engine.sys_topics.match("$SYS/broker/#"))
    return {packet.topic_name.removeprefix("$SYS/broker/"): packet.payload.decode() for packet in found}


def kept() -> Properties:
    properties = Properties()
    properties.session_expiry_interval = 100
    return properties


def test_queue_that_is_sent_or_forgotten_is_no_longer_counted() -> None:
    engine = make_engine()
    publisher = connected(engine, "p")
    for client_id in ("kept", "gone"):
        client = EngineClient(engine, 5)
        client.connect(client_id, clean=False, properties=kept())
        client.subscribe("a", 1)
        client.lose()
    publisher.send(*(Publish("a", b"x", 1, False, False, n, None) for n in range(1, 6)))
    assert engine.metrics.queued_messages == 10
    again = EngineClient(engine, 5)
    again.connect("kept", clean=False, properties=kept())
    assert engine.metrics.queued_messages == 5
    tick(engine, 101)
    assert (engine.metrics.queued_messages, engine.metrics.queued_bytes) == (0, 0)
    engine.sys_topics.publish()
    assert retained(engine)["clients/expired"] == "1"
    assert engine.metrics.dropped_messages == {"session_ended": 5}


def test_load_rises_and_falls_as_a_moving_average() -> None:
    load = Load()
    for second in range(10, 610, 10):
        averages = load.add(second, 10)
    assert averages[0] == pytest.approx(60, rel=0.001)
    assert averages[2] == pytest.approx(60 * (1 - 2.718281828 ** (-600 / 900)), rel=0.001)
    for _ in range(60):
        averages = load.add(600, 10)
    assert averages[0] < 0.01 < averages[2]
