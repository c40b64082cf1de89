"""Brokers that connect as a bridge: the bit 0x80 of the protocol level (3.1 and 3.1.1, a custom of Mosquitto)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conformance.conftest import Connect
from tests.support import mqtt_wire as wire
from tests.support.mqtt_client import RawClient


@pytest.fixture(params=[wire.V31, wire.V311], ids=["v3.1", "v3.1.1"])
def bridge(request: pytest.FixtureRequest, opened: Callable[..., RawClient], name: str) -> RawClient:
    """A bridge that is connected."""
    client = opened(request.param)
    packet = wire.connect(f"{name}-bridge", request.param, will=wire.Will("$SYS/broker/connection/x/state", b"0"))
    at = 4 + packet[3]
    client.send(packet[:at] + bytes((packet[at] | 0x80,)) + packet[at + 1 :])
    assert client.expect(wire.CONNACK).reason_code == 0
    return client


def test_retain_comes_to_a_bridge_as_published(bridge: RawClient, connected: Connect, name: str) -> None:
    bridge.subscribe((f"{name}/#", 1))
    publisher = connected()
    publisher.publish_acknowledged(f"{name}/a", b"kept", retain=True)
    publisher.publish_acknowledged(f"{name}/a", b"passing")
    assert bridge.expect_publish(f"{name}/a", b"kept").retain
    assert not bridge.expect_publish(f"{name}/a", b"passing").retain
    publisher.publish_acknowledged(f"{name}/a", b"", retain=True)
    assert bridge.expect_publish(f"{name}/a", b"").retain


@pytest.mark.parametrize("qos", [0, 1])
def test_nothing_goes_back_to_the_bridge_that_brought_it(
    bridge: RawClient, connected: Connect, name: str, qos: int
) -> None:
    bridge.subscribe((f"{name}/#", 1))
    watcher = connected()
    watcher.subscribe((f"{name}/#", 1))
    bridge.publish(f"{name}/a", b"from there", qos)
    if qos:
        bridge.expect(wire.PUBACK)
    watcher.expect_publish(f"{name}/a", b"from there")
    bridge.expect_nothing()


def test_the_will_of_a_bridge_below_sys_is_taken_and_not_published(bridge: RawClient, connected: Connect) -> None:
    watcher = connected()
    watcher.subscribe("$SYS/broker/connection/#")
    bridge.close()
    watcher.expect_nothing()


def test_the_bit_means_nothing_in_mqtt_5(opened: Callable[..., RawClient], name: str) -> None:
    """5.0 has subscription options for what a bridge wants; the CONNECT is a client's"""
    client = opened(wire.V5)
    client.send(wire.connect(name).replace(b"MQTT\x05", b"MQTT\x85"))
    assert client.expect(wire.CONNACK).reason_code == 0
    client.subscribe((name, 0))
    client.publish(name, b"own")
    client.expect_publish(name, b"own")
