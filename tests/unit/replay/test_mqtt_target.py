"""A broker's address with what is needed to be let in."""

from __future__ import annotations

import pytest

from bridge.replay.mqtt_target import MqttTarget


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("broker", MqttTarget("mqtt", "broker", 1883)),
        ("mqtt://broker", MqttTarget("mqtt", "broker", 1883)),
        ("tcp://broker:1884", MqttTarget("mqtt", "broker", 1884)),
        ("mqtts://broker", MqttTarget("mqtts", "broker", 8883)),
        ("ws://broker/", MqttTarget("ws", "broker", 80)),
        ("wss://broker/own/path", MqttTarget("wss", "broker", 443, "/own/path")),
        ("mqtt://[::1]:1", MqttTarget("mqtt", "::1", 1)),
        ("mqtt://anna:p%40ss@b", MqttTarget("mqtt", "b", 1883, username="anna", password="p@ss")),
    ],
)
def test_addresses(url: str, expected: MqttTarget) -> None:
    assert MqttTarget.parse(url) == expected


@pytest.mark.parametrize("url", ["http://b", "mqtt://", "mqtt://b:x", "mqtt://b:70000"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match="is not a broker's address"):
        MqttTarget.parse(url)


def test_password_is_in_no_text() -> None:
    target = MqttTarget.parse("mqtt://anna:secret@b")
    assert "secret" not in f"{target} {target!r}"
    with pytest.raises(ValueError, match="http://b is not") as raised:
        MqttTarget.parse("http://anna:secret@b")
    assert "secret" not in str(raised.value)
