"""Retained messages (§3.3.1.3)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.conftest import Connect
from tests.support import mqtt_wire as wire

RETAIN_NEVER, RETAIN_IF_NEW = 0x20, 0x10


@pytest.fixture
def retained(connected: Connect, name: str) -> Iterator[str]:
    """A topic with a retained message `kept` of QoS 1, removed at the end."""
    publisher = connected(f"{name}-publisher")
    publisher.publish_acknowledged(f"{name}/kept", b"kept", retain=True)
    yield f"{name}/kept"
    publisher.publish_acknowledged(f"{name}/kept", b"", retain=True)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_new_subscriber_gets_it_with_the_flag(connected: Connect, retained: str, version: int, qos: int) -> None:
    """[MQTT-3.3.1-8] [MQTT-3.3.1-9] [MQTT-3.3.1-8] of 3.1.1"""
    subscriber = connected(version=version)
    subscriber.subscribe((retained, qos))
    found = subscriber.expect_publish(retained, b"kept")
    assert (found.retain, found.qos, found.dup) == (True, min(1, qos), False)
    subscriber.expect_nothing()


@pytest.mark.parametrize("pattern", ["{n}/+", "{n}/#", "+/kept", "{n}/kept/#"])
def test_wildcards_find_it(connected: Connect, retained: str, pattern: str) -> None:
    """[MQTT-3.3.1-8]"""
    subscriber = connected()
    subscriber.subscribe(pattern.format(n=retained.partition("/")[0]))
    assert subscriber.expect_publish(retained, b"kept").retain


def test_every_subscribe_brings_it_again(connected: Connect, retained: str, version: int) -> None:
    """[MQTT-3.8.4-3] [MQTT-3.8.4-4] [MQTT-3.3.1-9]"""
    subscriber = connected(version=version)
    for _ in range(2):
        subscriber.subscribe((retained, 1))
        subscriber.expect_publish(retained, b"kept")


def test_last_one_replaces_those_before(connected: Connect, retained: str, version: int) -> None:
    """[MQTT-3.3.1-5]"""
    publisher = connected(version=version)
    publisher.publish_acknowledged(retained, b"newer", retain=True)
    subscriber = connected(version=version)
    subscriber.subscribe(retained)
    subscriber.expect_publish(retained, b"newer")
    subscriber.expect_nothing()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_one_of_any_qos_replaces_those_before(connected: Connect, retained: str, version: int, qos: int) -> None:
    """[MQTT-3.3.1-5] [MQTT-3.3.1-7] of 3.1.1"""
    publisher = connected(version=version)
    if qos:
        publisher.publish_acknowledged(retained, b"newer", qos, retain=True)
    else:
        publisher.publish(retained, b"newer", retain=True)
        publisher.ping()
    subscriber = connected(version=version)
    subscriber.subscribe((retained, 2))
    found = subscriber.expect_publish(retained, b"newer")
    assert (found.qos, found.retain) == (qos, True)


def test_retained_messages_do_not_end_with_a_session(connected: Connect, name: str, version: int) -> None:
    """[MQTT-3.1.2-7] of 3.1.1"""
    publisher = connected(name, version)
    publisher.publish_acknowledged(f"{name}/kept", b"kept", retain=True)
    publisher.disconnect()
    connected(name, version).disconnect()
    subscriber = connected(version=version)
    subscriber.subscribe((f"{name}/kept", 1))
    subscriber.expect_publish(f"{name}/kept", b"kept")
    connected().publish_acknowledged(f"{name}/kept", b"", retain=True)


def test_plain_publish_leaves_it(connected: Connect, retained: str, version: int) -> None:
    """[MQTT-3.3.1-8]"""
    publisher = connected(version=version)
    publisher.publish_acknowledged(retained, b"passing")
    subscriber = connected(version=version)
    subscriber.subscribe(retained)
    subscriber.expect_publish(retained, b"kept")


def test_empty_payload_removes_it(connected: Connect, retained: str, version: int) -> None:
    """[MQTT-3.3.1-6] [MQTT-3.3.1-7]"""
    watcher = connected(version=version)
    watcher.subscribe(retained)
    watcher.expect_publish(retained)
    publisher = connected(version=version)
    publisher.publish_acknowledged(retained, b"", retain=True)
    assert not watcher.expect_publish(retained, b"").retain
    subscriber = connected(version=version)
    subscriber.subscribe(retained)
    subscriber.expect_nothing()


def test_subscriber_that_is_there_gets_it_without_the_flag(connected: Connect, name: str, version: int) -> None:
    """[MQTT-3.3.1-9] of 3.1.1"""
    subscriber, publisher = connected(version=version), connected()
    subscriber.subscribe(name)
    publisher.publish_acknowledged(name, b"x", retain=True)
    assert not subscriber.expect_publish(name, b"x").retain
    publisher.publish_acknowledged(name, b"", retain=True)


def test_versions_share_retained_messages(connected: Connect, name: str) -> None:
    publisher = connected(version=wire.V5)
    publisher.publish(name, b"five", 1, retain=True, properties={wire.CONTENT_TYPE: "text/plain"})
    publisher.expect(wire.PUBACK)
    old, new = connected(version=wire.V311), connected(version=wire.V5)
    old.subscribe((name, 1))
    old.expect_publish(name, b"five")
    new.subscribe((name, 1))
    assert new.expect_publish(name, b"five").properties == {wire.CONTENT_TYPE: "text/plain"}
    connected(version=wire.V311).publish_acknowledged(name, b"three", retain=True)
    new.expect_publish(name, b"three")
    late = connected(version=wire.V5)
    late.subscribe((name, 1))
    assert late.expect_publish(name, b"three").properties == {}
    publisher.publish_acknowledged(name, b"", retain=True)


class TestVersion5:
    """Retain handling and expiry."""

    def test_retain_handling_2_brings_nothing(self, connected: Connect, retained: str) -> None:
        """[MQTT-3.3.1-11]"""
        subscriber = connected()
        subscriber.subscribe((retained, RETAIN_NEVER))
        subscriber.expect_nothing()

    def test_retain_handling_1_brings_it_for_a_new_subscription(self, connected: Connect, retained: str) -> None:
        """[MQTT-3.3.1-10]"""
        subscriber = connected()
        subscriber.subscribe((retained, RETAIN_IF_NEW))
        subscriber.expect_publish(retained, b"kept")
        subscriber.subscribe((retained, RETAIN_IF_NEW))
        subscriber.expect_nothing()

    @pytest.mark.slow
    @pytest.mark.parametrize("qos", [0, 1, 2])
    def test_expiry_of_a_retained_message_is_reduced_by_the_wait(self, connected: Connect, name: str, qos: int) -> None:
        """[MQTT-3.3.2-6]"""
        publisher = connected()
        publisher.publish(name, b"x", 1, retain=True, properties={wire.MESSAGE_EXPIRY: 100})
        publisher.expect(wire.PUBACK)
        with pytest.raises(TimeoutError):
            publisher.next_packet(timeout_s=1.2)
        subscriber = connected()
        subscriber.subscribe((name, qos))
        assert 90 <= subscriber.expect_publish(name, b"x").properties[wire.MESSAGE_EXPIRY] <= 99
        publisher.publish_acknowledged(name, b"", retain=True)

    @pytest.mark.slow
    def test_expired_retained_message_is_gone(self, connected: Connect, name: str) -> None:
        """[MQTT-3.3.2-5]"""
        publisher = connected()
        publisher.publish(name, b"x", 1, retain=True, properties={wire.MESSAGE_EXPIRY: 1})
        publisher.expect(wire.PUBACK)
        with pytest.raises(TimeoutError):
            publisher.next_packet(timeout_s=2.1)
        subscriber = connected()
        subscriber.subscribe(name)
        subscriber.expect_nothing()
