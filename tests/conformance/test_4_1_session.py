"""Session state and its end (§3.1.2.4, §3.1.2.11.2, §4.1, §4.4)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conformance.conftest import Connect
from tests.support import mqtt_wire as wire
from tests.support.mqtt_client import RawClient

KEPT: wire.Properties = {wire.SESSION_EXPIRY: 300}


def keep(client: RawClient, client_id: str) -> wire.Packet:
    """Connect with a session that outlives the connection."""
    return client.connect(client_id, clean=False, properties=KEPT if client.version == wire.V5 else None)


def end_session(opened: Callable[..., RawClient], client_id: str) -> None:
    opened(wire.V5).connect(client_id, clean=True)


def test_session_present_tells_of_a_kept_session(opened: Callable[..., RawClient], name: str, version: int) -> None:
    """[MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT-3.1.2-6] [MQTT-3.1.4-4] [MQTT-3.1.3-2]
    [MQTT-3.1.2-4] of 3.1.1"""
    first = opened(version)
    assert not keep(first, name).session_present
    first.disconnect()
    second = opened(version)
    assert keep(second, name).session_present
    second.disconnect()
    third = opened(version)
    assert not third.connect(name, clean=True).session_present
    third.disconnect()
    fourth = opened(version)
    assert not keep(fourth, name).session_present
    fourth.disconnect()
    end_session(opened, name)


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("leave", ["disconnect", "close"])
def test_kept_session_gets_what_it_missed(
    opened: Callable[..., RawClient], connected: Connect, name: str, version: int, qos: int, leave: str
) -> None:
    """[MQTT-3.1.2-5] of 3.1.1, [MQTT-3.1.2-5] [MQTT-3.1.2-23] [MQTT-4.5.0-1] [MQTT-4.1.0-1]"""
    subscriber = opened(version)
    keep(subscriber, name)
    subscriber.subscribe((f"{name}/#", 2))
    getattr(subscriber, leave)()
    publisher = connected(f"{name}-publisher")
    for number in range(20):
        publisher.publish_acknowledged(f"{name}/a", b"%d" % number, qos)
    again = opened(version)
    assert keep(again, name).session_present
    for number in range(20):
        found = again.expect_publish(f"{name}/a", b"%d" % number)
        assert (found.qos, found.dup) == (qos, False)
    again.expect_nothing()
    again.disconnect()
    end_session(opened, name)


def test_unacknowledged_messages_are_sent_again(
    opened: Callable[..., RawClient], connected: Connect, name: str, version: int
) -> None:
    """[MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-4.6.0-1] [MQTT-4.3.2-3] [MQTT-4.3.3-3]"""
    subscriber = opened(version)
    keep(subscriber, name)
    subscriber.subscribe((f"{name}/#", 2))
    publisher = connected(f"{name}-publisher")
    publisher.publish_acknowledged(f"{name}/1", b"one", 1)
    publisher.publish_acknowledged(f"{name}/2", b"two", 2)
    first, second = subscriber.expect(wire.PUBLISH), subscriber.expect(wire.PUBLISH)
    subscriber.close()
    again = opened(version)
    assert keep(again, name).session_present
    for before in (first, second):
        found = again.expect(wire.PUBLISH)
        assert (found.topic, found.packet_id, found.payload, found.qos) == (
            before.topic,
            before.packet_id,
            before.payload,
            before.qos,
        )
        assert found.dup
    again.disconnect()
    end_session(opened, name)


def test_pubrel_is_sent_again(opened: Callable[..., RawClient], connected: Connect, name: str, version: int) -> None:
    """[MQTT-4.4.0-1] [MQTT-4.3.3-5] [MQTT-4.3.3-6]"""
    subscriber = opened(version)
    keep(subscriber, name)
    subscriber.subscribe((name, 2))
    connected(f"{name}-publisher").publish_acknowledged(name, b"x", 2)
    packet_id = subscriber.expect(wire.PUBLISH).packet_id
    subscriber.send(wire.acknowledgement(wire.PUBREC, packet_id))
    assert subscriber.expect(wire.PUBREL).packet_id == packet_id
    subscriber.close()
    again = opened(version)
    keep(again, name)
    assert again.expect(wire.PUBREL).packet_id == packet_id
    again.send(wire.acknowledgement(wire.PUBCOMP, packet_id))
    again.expect_nothing()
    again.disconnect()
    end_session(opened, name)


def test_unreleased_qos_2_survives_a_reconnect(
    opened: Callable[..., RawClient], connected: Connect, name: str, version: int
) -> None:
    """[MQTT-4.3.3-10]: the packet id is remembered with the session"""
    subscriber = connected(f"{name}-subscriber")
    subscriber.subscribe((name, 0))
    publisher = opened(version)
    keep(publisher, name)
    publisher.publish(name, b"once", 2, packet_id=5)
    publisher.expect(wire.PUBREC)
    publisher.close()
    again = opened(version)
    keep(again, name)
    again.publish(name, b"once", 2, packet_id=5, dup=True)
    again.expect(wire.PUBREC)
    again.send(wire.acknowledgement(wire.PUBREL, 5))
    assert again.expect(wire.PUBCOMP).reason_code == 0
    subscriber.expect_publish(name, b"once")
    subscriber.expect_nothing()
    again.disconnect()
    end_session(opened, name)


def test_clean_session_forgets_everything(
    opened: Callable[..., RawClient], connected: Connect, name: str, version: int
) -> None:
    """[MQTT-3.1.2-4] [MQTT-3.1.2-6] of 3.1.1"""
    subscriber = opened(version)
    subscriber.connect(name, clean=True)
    subscriber.subscribe((name, 1))
    subscriber.disconnect()
    connected(f"{name}-publisher").publish_acknowledged(name, b"x")
    again = opened(version)
    assert not keep(again, name).session_present
    again.expect_nothing()
    again.disconnect()
    end_session(opened, name)


def test_take_over_keeps_the_session(
    opened: Callable[..., RawClient], connected: Connect, name: str, version: int
) -> None:
    """[MQTT-3.1.4-3] with [MQTT-3.1.2-5]"""
    first = opened(version)
    keep(first, name)
    first.subscribe((name, 1))
    second = opened(version)
    assert keep(second, name).session_present
    first.expect_closed(0x8E)
    connected(f"{name}-publisher").publish_acknowledged(name, b"x")
    second.expect_publish(name, b"x")
    second.disconnect()
    end_session(opened, name)


@pytest.mark.parametrize("qos", [1, 2])
def test_what_is_sent_again_is_what_was_sent(
    opened: Callable[..., RawClient], connected: Connect, name: str, qos: int
) -> None:
    """[MQTT-4.4.0-1]: RETAIN, properties and subscription identifiers too"""
    publisher = connected(f"{name}-publisher")
    publisher.publish(name, b"kept", qos, retain=True, properties={wire.CONTENT_TYPE: "a/b"})
    publisher.next_packet()
    subscriber = opened(wire.V5)
    keep(subscriber, name)
    subscriber.subscribe((name, 2), properties={wire.SUBSCRIPTION_IDENTIFIER: 5})
    before = subscriber.expect(wire.PUBLISH)
    assert before.retain
    subscriber.close()
    again = opened(wire.V5)
    keep(again, name)
    found = again.expect(wire.PUBLISH)
    assert (found.flags, found.packet_id, found.properties) == (before.flags | 8, before.packet_id, before.properties)
    assert found.properties == {wire.CONTENT_TYPE: "a/b", wire.SUBSCRIPTION_IDENTIFIER: [5]}
    again.disconnect()
    end_session(opened, name)
    publisher.publish_acknowledged(name, b"", retain=True) if qos == 1 else publisher.publish(name, b"", retain=True)


class TestVersion5:
    """Session Expiry Interval, and what a client takes after a reconnect."""

    @pytest.mark.parametrize("qos", [1, 2])
    def test_what_is_sent_again_keeps_to_the_new_receive_maximum(
        self, opened: Callable[..., RawClient], connected: Connect, name: str, qos: int
    ) -> None:
        """[MQTT-3.3.4-9] [MQTT-4.6.0-1] [MQTT-4.9.0-2]"""
        subscriber = opened(wire.V5)
        keep(subscriber, name)
        subscriber.subscribe((name, 2))
        publisher = connected(f"{name}-publisher")
        for number in range(7):
            publisher.publish_acknowledged(name, b"%d" % number, qos)
        before = [subscriber.expect(wire.PUBLISH).packet_id for _ in range(7)]
        subscriber.close()
        again = opened(wire.V5)
        again.connect(name, clean=False, properties={**KEPT, wire.RECEIVE_MAXIMUM: 2})
        publisher.publish_acknowledged(name, b"7", qos)
        waiting = [again.expect(wire.PUBLISH), again.expect(wire.PUBLISH)]
        again.expect_nothing()
        found = []
        while waiting:
            one = waiting.pop(0)
            found.append((one.payload, one.packet_id if one.dup else 0))
            if qos == 1:
                again.send(wire.acknowledgement(wire.PUBACK, one.packet_id))
            else:
                again.send(wire.acknowledgement(wire.PUBREC, one.packet_id))
                assert again.expect(wire.PUBREL).packet_id == one.packet_id
                again.expect_nothing()
                again.send(wire.acknowledgement(wire.PUBCOMP, one.packet_id))
            if len(found) + len(waiting) < 8:
                waiting.append(again.expect(wire.PUBLISH))
        assert found == [*((b"%d" % number, before[number]) for number in range(7)), (b"7", 0)]
        again.expect_nothing()
        again.disconnect()
        end_session(opened, name)

    def test_what_is_sent_again_keeps_to_the_new_maximum_packet_size(
        self, opened: Callable[..., RawClient], connected: Connect, name: str
    ) -> None:
        """[MQTT-3.1.2-24] [MQTT-3.1.2-25]"""
        subscriber = opened(wire.V5)
        keep(subscriber, name)
        subscriber.subscribe((name, 2))
        publisher = connected(f"{name}-publisher")
        for payload in (b"x" * 200, b"small", b"y" * 200):
            publisher.publish_acknowledged(name, payload, 2)
            subscriber.expect(wire.PUBLISH)
        subscriber.close()
        again = opened(wire.V5)
        limits = {wire.RECEIVE_MAXIMUM: 1, wire.MAXIMUM_PACKET_SIZE: 100}
        again.connect(name, clean=False, properties={**KEPT, **limits})
        again.expect_publish(name, b"small")
        publisher.publish_acknowledged(name, b"next")
        again.expect_publish(name, b"next")
        again.disconnect()
        end_session(opened, name)

    @pytest.mark.slow
    def test_session_ends_after_its_expiry(self, opened: Callable[..., RawClient], name: str) -> None:
        """[MQTT-3.1.2-23] [MQTT-4.1.0-2]"""
        first = opened(wire.V5)
        first.connect(name, clean=False, properties={wire.SESSION_EXPIRY: 1})
        first.disconnect()
        watch = opened(wire.V5)
        watch.connect()
        for _ in range(4):
            with pytest.raises(TimeoutError):
                watch.next_packet(timeout_s=0.75)
        second = opened(wire.V5)
        assert not second.connect(name, clean=False).session_present

    def test_disconnect_may_change_the_expiry(self, opened: Callable[..., RawClient], name: str) -> None:
        """§3.14.2.2.2"""
        first = opened(wire.V5)
        keep(first, name)
        first.send(wire.disconnect(0, {wire.SESSION_EXPIRY: 0}))
        first.expect_closed()
        second = opened(wire.V5)
        assert not second.connect(name, clean=False).session_present

    def test_disconnect_may_not_make_a_session_kept(self, opened: Callable[..., RawClient], name: str) -> None:
        """[MQTT-3.14.2-2]"""
        client = opened(wire.V5)
        client.connect(name)
        client.send(wire.disconnect(0, {wire.SESSION_EXPIRY: 10}))
        client.expect_closed(0x82)

    def test_too_long_an_expiry_is_shortened_and_told(self, opened: Callable[..., RawClient], name: str) -> None:
        """§3.2.2.3.2"""
        client = opened(wire.V5)
        connack = client.connect(name, properties={wire.SESSION_EXPIRY: 0xFFFFFFFF})
        assert connack.properties[wire.SESSION_EXPIRY] == 7 * 86_400
        end_session(opened, name)

    @pytest.mark.slow
    def test_expired_message_is_not_delivered(
        self, opened: Callable[..., RawClient], connected: Connect, name: str
    ) -> None:
        """[MQTT-3.3.2-5] [MQTT-3.3.2-6]"""
        subscriber = opened(wire.V5)
        keep(subscriber, name)
        subscriber.subscribe((name, 1))
        subscriber.disconnect()
        publisher = connected(f"{name}-publisher")
        publisher.publish(name, b"short", 1, properties={wire.MESSAGE_EXPIRY: 1})
        publisher.publish(name, b"long", 1, properties={wire.MESSAGE_EXPIRY: 100})
        publisher.expect(wire.PUBACK)
        publisher.expect(wire.PUBACK)
        with pytest.raises(TimeoutError):
            publisher.next_packet(timeout_s=2.1)
        again = opened(wire.V5)
        keep(again, name)
        found = again.expect_publish(name, b"long")
        assert 90 <= found.properties[wire.MESSAGE_EXPIRY] <= 98
        again.disconnect()
        end_session(opened, name)
