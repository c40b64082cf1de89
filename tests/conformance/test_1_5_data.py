"""Text and numbers on the wire (§1.5), wherever they stand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conformance.conftest import Connect
from tests.support import mqtt_wire as wire
from tests.support.mqtt_client import ConnectionEnded, RawClient

BAD_TEXTS = [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf4\x90\x80\x80", b"a\0b", b"\xe2\x82"]
"""No UTF-8, overlong, both surrogates, beyond U+10FFFF, U+0000, cut short."""


@pytest.mark.parametrize("text", BAD_TEXTS)
@pytest.mark.parametrize("field", ["client id", "will topic", "user name"])
def test_bad_text_in_connect_ends_the_connection(
    opened: Callable[..., RawClient], version: int, field: str, text: bytes
) -> None:
    """[MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-12]"""
    placeholder = "P" * len(text)
    packet = {
        "client id": wire.connect(placeholder, version),
        "will topic": wire.connect("c", version, will=wire.Will(placeholder, b"")),
        "user name": wire.connect("c", version, username=placeholder),
    }[field]
    client = opened(version)
    client.send(packet.replace(placeholder.encode(), text))
    try:
        assert client.expect(wire.CONNACK).reason_code in (0x81, 0x85)
    except ConnectionEnded:
        return
    client.expect_closed()


@pytest.mark.parametrize("text", BAD_TEXTS)
def test_bad_text_in_topics_ends_the_connection(connected: Connect, version: int, text: bytes) -> None:
    """[MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-3.3.2-1] [MQTT-3.8.3-1] [MQTT-3.10.3-1] [MQTT-4.7.3-2]"""
    placeholder = "P" * len(text)
    for packet in (
        wire.publish(placeholder, b"", version=version),
        wire.subscribe(1, placeholder, version=version),
        wire.unsubscribe(1, placeholder, version=version),
    ):
        client = connected(version=version)
        client.send(packet.replace(placeholder.encode(), text))
        client.expect_closed(0x81)


@pytest.mark.parametrize("text", BAD_TEXTS)
def test_bad_text_in_properties_ends_the_connection(connected: Connect, name: str, text: bytes) -> None:
    """[MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.7-1] [MQTT-3.3.2-13] [MQTT-3.3.2-19]"""
    placeholder = "P" * len(text)
    for properties in (
        {wire.CONTENT_TYPE: placeholder},
        {wire.RESPONSE_TOPIC: placeholder},
        {wire.USER_PROPERTY: (placeholder, "b")},
        {wire.USER_PROPERTY: ("a", placeholder)},
    ):
        client = connected()
        packet = wire.publish(name, b"", publish_properties=properties)
        client.send(packet.replace(placeholder.encode(), text))
        client.expect_closed(0x81)


def test_a_byte_order_mark_is_a_character(connected: Connect, name: str, version: int) -> None:
    """[MQTT-1.5.4-3]"""
    client = connected(version=version)
    client.subscribe(f"\ufeff{name}")
    client.publish(name, b"without")
    client.publish(f"\ufeff{name}", b"with")
    client.expect_publish(f"\ufeff{name}", b"with")


def test_padded_property_lengths_and_identifiers_are_malformed(connected: Connect, name: str) -> None:
    """[MQTT-1.5.5-1]"""
    for body in (
        wire.string(name) + b"\x80\0",  # a property length of 0 in two bytes
        wire.string(name) + b"\x83\x80\0" + b"\x01\x01",
        wire.string(name) + b"\x06\x8b\0\x01\x01",
    ):
        client = connected()
        client.send(wire.packet(wire.PUBLISH, body))
        client.expect_closed(0x81)


@pytest.mark.parametrize("identifier", [wire.PAYLOAD_FORMAT, wire.TOPIC_ALIAS, wire.MESSAGE_EXPIRY, wire.CONTENT_TYPE])
def test_no_property_goes_on_behind_the_property_length(connected: Connect, name: str, identifier: int) -> None:
    """[MQTT-4.13.1-1]: what follows would be a value, and one that is forbidden"""
    client = connected()
    client.send(wire.packet(wire.PUBLISH, wire.string(name) + bytes((1, identifier)) + b"\0\0\0\0\0"))
    client.expect_closed(0x81)


@pytest.mark.parametrize("text", ["a\x01", "\x1f", "\x7f", "\x9f", "\ufdd0", "\ufffe", "\uffff"])
def test_control_characters_in_a_client_identifier_or_user_name_are_malformed(
    opened: Callable[..., RawClient], version: int, text: str
) -> None:
    """[MQTT-4.13.1-1]: a server may take them so (§1.5.4); as Mosquitto, of a user name nobody is told"""
    client = opened(version)
    client.send(wire.connect("c", version, username=text))
    client.expect_closed()
    client = opened(version)
    client.send(wire.connect(text, version))
    if version == wire.V5:
        assert client.expect(wire.CONNACK).reason_code == 0x85
    client.expect_closed()


def test_the_property_length_is_always_there(connected: Connect, name: str) -> None:
    """[MQTT-2.2.2-1]: also where there are no properties"""
    client = connected()
    client.subscribe((name, 0))
    client.publish(name, b"x")
    assert client.expect_publish(name, b"x").properties == {}
    client.send(wire.packet(wire.PUBLISH, wire.string(name)))
    client.expect_closed(0x81)
