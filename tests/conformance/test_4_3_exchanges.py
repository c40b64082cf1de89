"""The exchanges of QoS 1 and 2 to their end: identifiers that come again, errors, expiry, order (§4.3, §4.4, §4.6)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conformance.conftest import Connect
from tests.conformance.test_4_1_session import end_session, keep
from tests.support import mqtt_wire as wire
from tests.support.mqtt_client import RawClient


def test_an_identifier_is_a_new_message_after_puback(connected: Connect, name: str, version: int) -> None:
    """[MQTT-4.3.2-5]: whatever DUP says"""
    subscriber, publisher = connected(version=version), connected(version=version)
    subscriber.subscribe(name)
    for dup in (False, True, False):
        publisher.publish(name, b"dup %d" % dup, 1, packet_id=5, dup=dup)
        assert publisher.expect(wire.PUBACK).packet_id == 5
        assert not subscriber.expect_publish(name, b"dup %d" % dup).dup


@pytest.mark.parametrize("qos", [1, 2])
def test_dup_does_not_go_on_to_subscribers(connected: Connect, name: str, version: int, qos: int) -> None:
    """[MQTT-3.3.1-3]"""
    subscriber, publisher = connected(version=version), connected(version=version)
    subscriber.subscribe((name, 2))
    publisher.publish(name, b"x", qos, packet_id=5, dup=True)
    assert not subscriber.expect_publish(name, b"x").dup


def test_a_refused_identifier_is_a_new_message(connected: Connect, name: str) -> None:
    """[MQTT-4.3.3-9]"""
    subscriber, publisher = connected(), connected()
    subscriber.subscribe((name, 2))
    publisher.publish("$server/x", b"refused", 2, packet_id=5)
    assert publisher.expect(wire.PUBREC).reason_code == 0x87
    publisher.publish(name, b"taken", 2, packet_id=5)
    assert publisher.expect(wire.PUBREC).reason_code == 0
    subscriber.expect_publish(name, b"taken")


@pytest.mark.parametrize("qos", [1, 2])
def test_3_1_1_is_not_told_of_a_refused_publish(connected: Connect, name: str, qos: int) -> None:
    """[MQTT-3.3.5-2] of 3.1.1: it is acknowledged, and goes nowhere"""
    watcher = connected()
    watcher.subscribe("$server/#")
    publisher = connected(version=wire.V311)
    publisher.publish_acknowledged(f"$server/{name}", b"x", qos)
    watcher.expect_nothing()


@pytest.mark.parametrize(("qos", "kind"), [(1, wire.PUBACK), (2, wire.PUBREC)])
def test_an_error_ends_the_message(
    opened: Callable[..., RawClient], connected: Connect, name: str, qos: int, kind: int
) -> None:
    """[MQTT-4.4.0-2] [MQTT-4.3.3-4]: it is not sent again, and its place is free"""
    subscriber = opened(wire.V5)
    subscriber.connect(name, clean=False, properties={wire.SESSION_EXPIRY: 300, wire.RECEIVE_MAXIMUM: 1})
    subscriber.subscribe((name, 2))
    publisher = connected(f"{name}-publisher")
    publisher.publish_acknowledged(name, b"refused", qos)
    publisher.publish_acknowledged(name, b"next", qos)
    found = subscriber.expect(wire.PUBLISH)
    subscriber.send(wire.acknowledgement(kind, found.packet_id, 0x80))
    subscriber.expect_publish(name, b"next")
    subscriber.close()
    again = opened(wire.V5)
    assert keep(again, name).session_present
    again.expect_nothing()
    end_session(opened, name)


def test_pubrels_come_in_the_order_of_the_pubrecs(connected: Connect, name: str, version: int) -> None:
    """[MQTT-4.6.0-4]"""
    subscriber, publisher = connected(version=version), connected()
    subscriber.subscribe((name, 2))
    for number in range(5):
        publisher.publish_acknowledged(name, b"%d" % number, 2)
    identifiers = [subscriber.expect(wire.PUBLISH).packet_id for _ in range(5)]
    order = [identifiers[at] for at in (3, 0, 4, 1, 2)]
    for packet_id in order:
        subscriber.send(wire.acknowledgement(wire.PUBREC, packet_id))
    assert [subscriber.expect(wire.PUBREL).packet_id for _ in order] == order


def test_unacknowledged_messages_are_not_sent_again_on_one_connection(
    connected: Connect, name: str, version: int
) -> None:
    """[MQTT-4.4.0-1]: a reconnect is the one time"""
    subscriber, publisher = connected(version=version), connected()
    subscriber.subscribe((name, 2))
    for qos in (1, 2):
        publisher.publish_acknowledged(name, b"x", qos)
        subscriber.expect(wire.PUBLISH)
    for _ in range(3):
        subscriber.expect_nothing()


@pytest.mark.slow
@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_that_was_sent_does_not_expire(
    opened: Callable[..., RawClient], connected: Connect, name: str, qos: int
) -> None:
    """[MQTT-4.3.3-7] [MQTT-4.3.3-13]: towards the subscriber, and from the publisher"""
    subscriber = opened(wire.V5)
    keep(subscriber, name)
    subscriber.subscribe((name, 2))
    publisher = connected(f"{name}-publisher")
    packet_id = publisher.publish(name, b"x", qos, properties={wire.MESSAGE_EXPIRY: 1})
    publisher.next_packet()
    before = subscriber.expect(wire.PUBLISH)
    subscriber.close()
    with pytest.raises(TimeoutError):
        publisher.next_packet(timeout_s=2.1)
    if qos == 2:
        publisher.send(wire.acknowledgement(wire.PUBREL, packet_id))
        assert publisher.expect(wire.PUBCOMP).reason_code == 0
    again = opened(wire.V5)
    keep(again, name)
    found = again.expect_publish(name, b"x")
    assert (found.packet_id, found.dup) == (before.packet_id, True)
    end_session(opened, name)


def test_topic_aliases_end_with_their_connection(
    opened: Callable[..., RawClient], connected: Connect, name: str
) -> None:
    """[MQTT-3.3.2-7]"""
    first = opened(wire.V5)
    keep(first, name)
    first.publish(name, b"x", 1, properties={wire.TOPIC_ALIAS: 1})
    first.expect(wire.PUBACK)
    first.close()
    again = opened(wire.V5)
    keep(again, name)
    again.publish("", b"x", 1, properties={wire.TOPIC_ALIAS: 1})
    again.expect_closed(0x82)
    end_session(opened, name)


@pytest.mark.parametrize("topic", ["a/+", "#", "+"])
def test_a_response_topic_has_no_wildcards(connected: Connect, name: str, topic: str) -> None:
    """[MQTT-3.3.2-14]"""
    client = connected()
    client.publish(name, b"x", properties={wire.RESPONSE_TOPIC: topic})
    client.expect_closed(0x82)


def test_a_response_topic_is_not_empty(connected: Connect, opened: Callable[..., RawClient], name: str) -> None:
    """[MQTT-4.7.3-1]: it is a topic name"""
    client = connected()
    client.publish(name, b"x", properties={wire.RESPONSE_TOPIC: ""})
    client.expect_closed(0x82)
    client = opened()
    client.send(wire.connect(name, will=wire.Will(name, b"", properties={wire.RESPONSE_TOPIC: ""})))
    assert client.expect(wire.CONNACK).reason_code == 0x82
    client.expect_closed()
