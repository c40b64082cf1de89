"""Packet ids that run out, and a clock that is set back, as the engine sees them."""

from __future__ import annotations

import pytest

from broker.codec.packets import Disconnect, Puback, Publish
from broker.codec.properties import Properties
from broker.protocol.close_reason import CloseReason
from tests.support.engine_client import NOW_MS, EngineClient, make_engine

HOUR_MS = 3_600_000


def properties(**values: int) -> Properties:
    made = Properties()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def publishes(client: EngineClient) -> list[Publish]:
    return [packet for packet in client.received() if isinstance(packet, Publish)]


def test_more_messages_than_packet_ids_wait_for_one_to_be_free() -> None:
    """[MQTT-2.2.1-4]"""
    engine = make_engine(inflight_messages_max=65_535)
    deaf, publisher = EngineClient(engine), EngineClient(engine)
    deaf.connect("deaf")
    deaf.subscribe("a", 1)
    publisher.connect("publisher")
    for first in range(0, 65_540, 5_957):
        last = min(first + 5_957, 65_540)
        publisher.send(*(Publish("a", b"%d" % n, 1, False, False, n % 65_535 + 1, None) for n in range(first, last)))
    sent = publishes(deaf)
    assert [packet.packet_id for packet in sent] == list(range(1, 65_536))
    assert engine.metrics.queued_messages == 5
    deaf.send(Puback(1, 0, None))
    assert [(packet.packet_id, packet.payload) for packet in publishes(deaf)] == [(1, b"65535")]
    deaf.send(Puback(3, 0, None))
    assert publishes(deaf) == []  # ids are given in order, and 2 is still in use
    deaf.send(Puback(2, 0, None))
    assert [packet.packet_id for packet in publishes(deaf)] == [2, 3]


@pytest.mark.parametrize("level", [4, 5])
def test_client_that_never_releases_its_packet_ids_is_told_so(level: int) -> None:
    engine = make_engine(unreleased_per_client_max=100, receive_maximum=65_535)
    client, other = EngineClient(engine, level), EngineClient(engine)
    client.connect("client")
    other.connect("other")
    own = Properties() if level == 5 else None
    client.send(*(Publish("a", b"x", 2, False, False, number, own) for number in range(1, 102)))
    assert client.transport.is_closed
    if level == 5:
        assert isinstance(told := client.received()[-1], Disconnect)
        assert told.reason_code == 0x93
    other.send(Publish("a", b"x", 1, False, False, 1, None))
    assert isinstance(other.received()[-1], Puback)


def test_clock_set_back_ends_nothing_early_and_lengthens_nothing() -> None:
    engine = make_engine()
    steady, kept, publisher = EngineClient(engine), EngineClient(engine, 5), EngineClient(engine, 5)
    steady.connect("steady", keep_alive_s=10)
    kept.connect("kept", clean=False, properties=properties(session_expiry_interval=30))
    kept.subscribe("a", 1)
    kept.lose()
    publisher.connect("publisher")
    publisher.send(Publish("a", b"x", 1, False, False, 1, properties(message_expiry_interval=60)))
    for _ in range(10):  # seconds are counted, not read from the clock
        engine.tick(NOW_MS - HOUR_MS)
    assert not steady.transport.is_closed
    assert "kept" in engine.sessions.session_by_client_id
    again = EngineClient(engine, 5)
    again.now_ms = NOW_MS - HOUR_MS
    assert again.connect("kept", clean=False).session_present
    (message,) = publishes(again)
    assert message.properties is not None
    assert message.properties.message_expiry_interval == 60
    for _ in range(10):
        engine.tick(NOW_MS - HOUR_MS)
    assert (
        steady.connection.close_reason is CloseReason.KEEP_ALIVE_TIMEOUT
    )  # silent for more than one and a half times its keep alive


def test_clock_set_forward_ends_messages_and_no_sessions() -> None:
    engine = make_engine()
    kept, publisher = EngineClient(engine, 5), EngineClient(engine, 5)
    kept.connect("kept", clean=False, properties=properties(session_expiry_interval=30))
    kept.subscribe("a", 1)
    kept.lose()
    publisher.connect("publisher")
    publisher.send(Publish("a", b"x", 1, False, False, 1, properties(message_expiry_interval=60)))
    engine.tick(NOW_MS + HOUR_MS)
    again = EngineClient(engine, 5)
    again.now_ms = NOW_MS + HOUR_MS
    assert again.connect("kept", clean=False).session_present
    assert publishes(again) == []
    assert engine.metrics.dropped_messages["expired"] == 1
