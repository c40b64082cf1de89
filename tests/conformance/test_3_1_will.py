"""Wills (§3.1.2.5 to §3.1.2.7, §3.1.3.2, §3.14.4)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conformance.conftest import Connect
from tests.support import mqtt_wire as wire
from tests.support.mqtt_client import RawClient


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_lost_connection_publishes_the_will(connected: Connect, name: str, version: int, qos: int) -> None:
    """[MQTT-3.1.2-8] [MQTT-3.1.2-7] [MQTT-3.1.2-14] [MQTT-3.1.2-9]
    [MQTT-3.1.2-8] of 3.1.1"""
    watcher = connected(version=version)
    watcher.subscribe((f"{name}/will", 2))
    client = connected(name, version, will=wire.Will(f"{name}/will", b"gone", qos))
    client.close()
    found = watcher.expect_publish(f"{name}/will", b"gone")
    assert (found.qos, found.retain) == (qos, False)


def test_without_a_will_none_is_published(connected: Connect, name: str, version: int) -> None:
    """[MQTT-3.1.2-12] of 3.1.1"""
    watcher = connected(version=version)
    watcher.subscribe((f"{name}/#", 2))
    connected(name, version).close()
    connected(name, version, will=wire.Will(f"{name}/will", b"gone", 1)).close()
    watcher.expect_publish(f"{name}/will", b"gone")
    connected(name, version).close()
    watcher.expect_nothing()


def test_disconnect_discards_the_will(connected: Connect, name: str, version: int) -> None:
    """[MQTT-3.14.4-3] [MQTT-3.1.2-10] [MQTT-3.1.2-10] of 3.1.1"""
    watcher = connected(version=version)
    watcher.subscribe((f"{name}/#", 2))
    client = connected(name, version, will=wire.Will(f"{name}/will", b"gone"))
    client.send(wire.disconnect())
    client.expect_closed()
    watcher.expect_nothing()


@pytest.mark.parametrize("reason_code", [0x80, 0x81, 0x95])
def test_disconnect_with_an_error_publishes_the_will(connected: Connect, name: str, reason_code: int) -> None:
    """[MQTT-3.1.2-8] [MQTT-3.14.4-3]: 0x00 alone discards it"""
    watcher = connected()
    watcher.subscribe((f"{name}/will", 1))
    client = connected(name, will=wire.Will(f"{name}/will", b"gone", 1))
    client.send(wire.disconnect(reason_code))
    client.expect_closed()
    watcher.expect_publish(f"{name}/will", b"gone")


def test_protocol_error_publishes_the_will(connected: Connect, name: str, version: int) -> None:
    """§3.1.2.5"""
    watcher = connected(version=version)
    watcher.subscribe((f"{name}/will", 1))
    client = connected(name, version, will=wire.Will(f"{name}/will", b"gone", 1))
    client.send(wire.packet(wire.PUBREL, b"\0\1", 0))
    client.expect_closed(0x81)
    watcher.expect_publish(f"{name}/will", b"gone")


def test_take_over_publishes_the_will(connected: Connect, name: str, version: int) -> None:
    """[MQTT-3.1.2-8] with [MQTT-3.1.4-3]"""
    watcher = connected(version=version)
    watcher.subscribe((f"{name}/will", 1))
    connected(name, version, will=wire.Will(f"{name}/will", b"gone", 1))
    connected(name, version)
    watcher.expect_publish(f"{name}/will", b"gone")


@pytest.mark.slow
def test_keep_alive_time_out_publishes_the_will(connected: Connect, name: str, version: int) -> None:
    """[MQTT-3.1.2-22] with [MQTT-3.1.2-8]"""
    watcher = connected(version=version)
    watcher.subscribe((f"{name}/will", 1))
    connected(name, version, keep_alive=1, will=wire.Will(f"{name}/will", b"gone", 1))
    watcher.expect_publish(f"{name}/will", b"gone")


def test_will_may_be_retained(connected: Connect, name: str, version: int) -> None:
    """[MQTT-3.1.2-15]"""
    watcher = connected(version=version)
    watcher.subscribe((f"{name}/will", 1))
    client = connected(name, version, will=wire.Will(f"{name}/will", b"gone", 1, retain=True))
    client.close()
    assert not watcher.expect_publish(f"{name}/will", b"gone").retain
    late = connected(version=version)
    late.subscribe((f"{name}/will", 1))
    assert late.expect_publish(f"{name}/will", b"gone").retain
    late.publish_acknowledged(f"{name}/clear", b"")
    connected().publish_acknowledged(f"{name}/will", b"", retain=True)


@pytest.mark.parametrize("topic", ["a/+", "#", "", "a\x07", "$SYS/\x07"])
def test_will_topic_must_be_a_name(opened: Callable[..., RawClient], name: str, version: int, topic: str) -> None:
    """[MQTT-3.1.3-11]"""
    client = opened(version)
    client.send(wire.connect(name, version, will=wire.Will(topic, b"x")))
    found = client.next_packet_or_end()
    assert found is None or found.reason_code != 0


class TestVersion5:
    """Reason 0x04, delay and properties."""

    def test_disconnect_with_will_publishes_it(self, connected: Connect, name: str) -> None:
        """§3.14.2.1: 0x04"""
        watcher = connected()
        watcher.subscribe((f"{name}/will", 1))
        client = connected(name, will=wire.Will(f"{name}/will", b"gone", 1))
        client.send(wire.disconnect(0x04))
        watcher.expect_publish(f"{name}/will", b"gone")

    def test_properties_of_the_will_are_delivered(self, connected: Connect, name: str) -> None:
        """[MQTT-3.1.3-10]"""
        watcher = connected()
        watcher.subscribe((f"{name}/will", 1))
        properties: wire.Properties = {
            wire.PAYLOAD_FORMAT: 1,
            wire.CONTENT_TYPE: "text/plain",
            wire.USER_PROPERTY: [("b", "1"), ("a", "2"), ("b", "3")],
        }
        client = connected(name, will=wire.Will(f"{name}/will", b"gone", 1, properties=properties))
        client.close()
        assert watcher.expect_publish(f"{name}/will").properties == properties

    def test_delayed_will_waits(self, connected: Connect, name: str) -> None:
        """[MQTT-3.1.3-9]"""
        watcher = connected()
        watcher.subscribe((f"{name}/will", 1))
        client = connected(
            name,
            will=wire.Will(f"{name}/will", b"gone", 1, properties={wire.WILL_DELAY: 1}),
            properties={wire.SESSION_EXPIRY: 60},
        )
        client.close()
        watcher.expect_nothing()
        watcher.expect_publish(f"{name}/will", b"gone")
        connected(name)

    @pytest.mark.slow
    def test_return_in_time_discards_a_delayed_will(self, connected: Connect, name: str) -> None:
        """[MQTT-3.1.3-9]"""
        watcher = connected()
        watcher.subscribe((f"{name}/will", 1))
        kept: wire.Properties = {wire.SESSION_EXPIRY: 60}
        will = wire.Will(f"{name}/will", b"gone", 1, properties={wire.WILL_DELAY: 1})
        connected(name, will=will, properties=kept).close()
        again = connected(name, clean=False, properties=kept)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                watcher.next_packet(timeout_s=0.9)
        watcher.expect_nothing()
        again.disconnect()
        connected(name)

    def test_session_end_publishes_a_delayed_will(self, connected: Connect, name: str) -> None:
        """[MQTT-3.1.3-9]: whichever comes first"""
        watcher = connected()
        watcher.subscribe((f"{name}/will", 1))
        will = wire.Will(f"{name}/will", b"gone", 1, properties={wire.WILL_DELAY: 600})
        connected(name, will=will, properties={wire.SESSION_EXPIRY: 60}).close()
        watcher.expect_nothing()
        connected(name, clean=True)
        watcher.expect_publish(f"{name}/will", b"gone")
