"""Hooks: what the program around the broker may refuse, lower and drop, and what is answered then."""

from __future__ import annotations

import logging

import pytest

from broker.codec.packets import Connack, Connect, Disconnect, Puback, Publish, Pubrec, Suback, Will
from broker.codec.properties import Properties
from broker.engine import Engine
from broker.hooks import Client, Hooks, Publishes, SubscriptionRequest
from broker.protocol.close_reason import CloseReason
from tests.support.engine_client import EngineClient, HoldingSink, connect_packet, make_engine, turn, unreleased_of


def hooked(sink: HoldingSink | None = None, **hooks: object) -> Engine:
    engine = make_engine(sink)
    engine.hooks = Hooks(**hooks)  # type: ignore[arg-type]
    return engine


def client(engine: Engine, client_id: str, level: int = 5) -> EngineClient:
    one = EngineClient(engine, level)
    one.connect(client_id)
    return one


def publish(topic: str, payload: bytes, qos: int = 0, packet_id: int = 0, level: int = 5, **more: object) -> Publish:
    packet = Publish(topic, payload, qos, packet_id=packet_id, properties=Properties() if level == 5 else None)
    for name, value in more.items():
        setattr(packet, name, value)
    return packet


def payloads(packets: list[object]) -> list[bytes]:
    return [packet.payload for packet in packets if isinstance(packet, Publish)]


# CONNECT


@pytest.mark.parametrize(("level", "code"), [(3, 5), (4, 5), (5, 0x87)])
def test_on_connect_refuses_with_the_nearest_code(level: int, code: int) -> None:
    """[MQTT-3.2.2-7]"""
    engine = hooked(on_connect=lambda client, connect: 0x87 if connect.username != "ada" else None)
    stranger = EngineClient(engine, level)
    stranger.send(connect_packet("a", level))
    (connack,) = stranger.received()
    assert isinstance(connack, Connack)
    assert connack.reason_code == code
    assert stranger.transport.is_closed
    assert not engine.sessions.session_by_client_id
    assert EngineClient(engine, level).connect("a", username="ada").reason_code == 0


def test_on_connect_sees_who_it_is() -> None:
    seen: list[tuple[object, ...]] = []

    def on_connect(client: Client, connect: Connect) -> None:
        seen.append((client.client_id, client.username, client.peer, client.transport_kind, client.protocol_level))
        seen.append((connect.password, connect.will, connect.clean_start))

    will = Will("gone", b"x")
    EngineClient(hooked(on_connect=on_connect), 4).connect("a", username="u", password=b"p", will=will)
    assert seen == [("a", "u", "127.0.0.1:40000", "tcp", 4), (b"p", will, True)]


def test_on_connect_sees_an_assigned_client_id() -> None:
    seen: list[str] = []
    connack = EngineClient(hooked(on_connect=lambda client, connect: seen.append(client.client_id)), 5).connect("")
    assert connack.properties is not None
    assert seen == [connack.properties.assigned_client_identifier]


def test_a_refused_client_does_not_take_a_session_over() -> None:
    engine = hooked(on_connect=lambda client, connect: None if connect.username else 0x86)
    first = EngineClient(engine, 5)
    first.connect("a", username="u")
    second = EngineClient(engine, 5)
    second.send(connect_packet("a", 5))
    assert first.received() == []
    assert engine.sessions.session_by_client_id["a"].connection is first.connection


# PUBLISH


def only_even(client: Client, publishes: Publishes) -> None:
    for message in publishes:
        number = int(message.payload)
        if number % 3 == 1:
            message.refuse()
        elif number % 3 == 2:
            message.drop()


@pytest.mark.parametrize("level", [4, 5])
def test_a_read_of_publishes_is_judged_at_once_and_answered_in_order(level: int) -> None:
    """[MQTT-4.6.0-2]: refused ones between those that wait for the log"""
    calls: list[int] = []

    def on_publish(client: Client, publishes: Publishes) -> None:
        calls.append(len(publishes))
        only_even(client, publishes)

    sink = HoldingSink()
    engine = hooked(sink, on_publish=on_publish)
    reader = client(engine, "r")
    reader.subscribe("#")
    publisher = client(engine, "p", level)
    publisher.send(*[publish(f"t/{n % 4}", b"%d" % n, n % 2, n + 1 if n % 2 else 0, level) for n in range(12)])
    assert calls == [12]
    assert payloads(reader.received()) == [b"0", b"3", b"6", b"9"]
    assert [(packet.packet_id, packet.reason_code) for packet in publisher.received()] == [(2, refusal(level))]  # type: ignore[attr-defined]
    sink.commit()
    turn(engine)
    answers = [(packet.packet_id, packet.reason_code) for packet in publisher.received()]  # type: ignore[attr-defined]
    assert answers == [(4, 0), (6, 0), (8, refusal(level)), (10, 0), (12, 0)]
    assert engine.metrics.refused_publishes["hook"] == 8


def refusal(level: int) -> int:
    """3.1.1 has no way to hear it."""
    return 0x87 if level == 5 else 0


@pytest.mark.parametrize("verdict", ["refuse", "drop"])
@pytest.mark.parametrize("level", [4, 5])
def test_qos_2_that_does_not_pass_is_answered_and_forgotten(level: int, verdict: str) -> None:
    """[MQTT-4.3.3-9]: with 0x80 or more the exchange is over, else it goes on"""
    engine = hooked(on_publish=lambda client, publishes: [getattr(message, verdict)() for message in publishes])
    reader = client(engine, "r")
    reader.subscribe("#", 2)
    publisher = client(engine, "p", level)
    publisher.send(publish("t", b"1", 2, 7, level))
    (pubrec,) = publisher.received()
    assert isinstance(pubrec, Pubrec)
    is_told = level == 5 and verdict == "refuse"
    assert pubrec.reason_code == (0x87 if is_told else 0)
    session = engine.sessions.session_by_client_id["p"]
    assert unreleased_of(session) == (set() if is_told else {7})
    assert reader.received() == []


def test_on_publish_sees_all_of_a_message() -> None:
    seen: list[tuple[object, ...]] = []

    def on_publish(client: Client, publishes: Publishes) -> None:
        assert publishes.topic_names == [message.topic_name for message in publishes]
        message = publishes[0]
        pairs = message.properties.user_properties if message.properties is not None else None
        seen.append((client.client_id, message.topic_name, message.payload, message.qos, message.retain, pairs))

    engine = hooked(on_publish=on_publish)
    publisher = client(engine, "p")
    publisher.send(publish("a", b"plain", 1, 1))
    properties = Properties()
    properties.user_properties = [("k", "v")]
    properties.topic_alias = 3
    publisher.send(publish("b/c", b"rich", 2, 2, properties=properties, retain=True))
    aliased = Properties()
    aliased.topic_alias = 3
    publisher.send(publish("", b"aliased", 0, 0, properties=aliased))
    assert seen == [
        ("p", "a", b"plain", 1, False, None),
        ("p", "b/c", b"rich", 2, True, [("k", "v")]),
        ("p", "b/c", b"aliased", 0, False, None),
    ]
    with pytest.raises(IndexError):
        Publishes(engine.publish(Publish("x"), "", 0, None)[0])[1]


def test_a_repeated_qos_2_publish_is_not_shown_again() -> None:
    seen: list[int] = []
    engine = hooked(on_publish=lambda client, publishes: seen.append(len(publishes)))
    publisher = client(engine, "p")
    publisher.send(publish("t", b"1", 2, 7), publish("t", b"1", 2, 7, dup=True))
    assert seen == [1]


def test_a_refused_retained_message_is_not_kept() -> None:
    engine = hooked(on_publish=lambda client, publishes: publishes[0].refuse(0x99))
    publisher = client(engine, "p")
    publisher.send(publish("t", b"1", 1, 1, retain=True))
    (puback,) = publisher.received()
    assert isinstance(puback, Puback)
    assert puback.reason_code == 0x99
    assert len(engine.retained) == 0


def test_what_the_server_publishes_is_not_shown() -> None:
    seen: list[object] = []
    engine = hooked(on_publish=lambda client, publishes: seen.append(publishes))
    engine.publish(Publish("a", b"1"), "", 0, None)
    assert seen == []


# SUBSCRIBE


@pytest.mark.parametrize(("answer", "granted"), [(None, 2), (0, 0), (1, 1), (2, 2), (0x87, 0x87), (0x97, 0x97)])
def test_on_subscribe_lowers_or_refuses(answer: int | None, granted: int) -> None:
    """[MQTT-3.9.3-1] [MQTT-3.8.4-8]"""
    engine = hooked(on_subscribe=lambda client, request: answer)
    for level in (4, 5):
        reader = client(engine, f"r{level}", level)
        (suback,) = reader.subscribe("t", 2)
        assert isinstance(suback, Suback)
        assert suback.reason_codes == [granted if granted <= 2 or level == 5 else 0x80]
        engine.publish(Publish("t", b"1", 2, packet_id=1), "", 0, None)
        turn(engine)
        assert [p.qos for p in reader.received() if isinstance(p, Publish)] == ([granted] if granted <= 2 else [])


def test_on_subscribe_sees_the_filter_without_what_stands_before_it() -> None:
    seen: list[tuple[object, ...]] = []

    def on_subscribe(client: Client, request: SubscriptionRequest) -> None:
        seen.append((request.topic_filter, request.share_name, request.since, request.qos, request.no_local))

    reader = client(hooked(on_subscribe=on_subscribe), "r")
    reader.subscribe("a/+", 1, no_local=True)
    reader.subscribe("$share/g/b/#", 2)
    reader.subscribe("bad/#/filter", 2)
    assert seen == [("a/+", "", None, 1, True), ("b/#", "g", None, 2, False)]


# The end


def test_on_close_tells_why() -> None:
    seen: list[tuple[str, CloseReason]] = []
    engine = hooked(on_close=lambda client, reason: seen.append((client.client_id, reason)))
    client(engine, "lost").lose()
    client(engine, "says").send_bytes(b"\xe0\x00")
    client(engine, "taken")
    client(engine, "taken")
    client(engine, "bad").send_bytes(b"\x00\x00")
    EngineClient(engine).lose()
    assert seen == [
        ("lost", CloseReason.CONNECTION_LOST),
        ("says", CloseReason.CLIENT_DISCONNECTED),
        ("taken", CloseReason.TAKEN_OVER),
        ("bad", CloseReason.PROTOCOL_ERROR),
    ]


# Faults of the program


def fail(*arguments: object) -> None:
    raise RuntimeError("a fault of the program")


@pytest.mark.parametrize("answer", ["raises", "means nothing"])
@pytest.mark.parametrize("name", ["on_connect", "on_publish", "on_subscribe"])
def test_a_hook_that_fails_lets_nothing_pass(caplog: pytest.LogCaptureFixture, name: str, answer: str) -> None:
    nonsense = {
        "on_connect": lambda client, connect: 0x11,
        "on_publish": lambda client, publishes: publishes[0].refuse(0x11),
        "on_subscribe": lambda client, request: 0x92,
    }
    engine = hooked(**{name: fail if answer == "raises" else nonsense[name]})
    one = EngineClient(engine, 5)
    with caplog.at_level(logging.ERROR, "headrace.mqtt"):
        one.send(connect_packet("a", 5))
        if name != "on_connect":
            one.received()
            if name == "on_publish":
                one.send(publish("t", b"1", 1, 1))
            else:
                one.subscribe("t")
                one.transport.written.clear()
    assert one.transport.is_closed
    assert not [packet for packet in one.received() if not isinstance(packet, Disconnect)]
    assert [record.exc_info is not None for record in caplog.records] == [True]
    assert engine.metrics.messages_received == 0
    assert engine.router.subscriptions.count == 0


def test_on_close_that_fails_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    engine = hooked(on_close=fail)
    with caplog.at_level(logging.ERROR, "headrace.mqtt"):
        client(engine, "a").lose()
    assert [record.getMessage() for record in caplog.records] == ["on_close failed"]
    assert not engine.sessions.session_by_client_id
