"""The first byte and packet identifiers (§2.1, §2.2)."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import Connect
from tests.support import mqtt_wire as wire


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (wire.PUBACK, b"\0\1"),
        (wire.PUBREC, b"\0\1"),
        (wire.PUBCOMP, b"\0\1"),
        (wire.PINGREQ, b""),
        (wire.DISCONNECT, b""),
    ],
)
@pytest.mark.parametrize("flags", [1, 2, 8])
def test_reserved_flags_are_zero(connected: Connect, version: int, kind: int, body: bytes, flags: int) -> None:
    """[MQTT-2.1.3-1] [MQTT-3.14.1-1]"""
    client = connected(version=version)
    client.send(wire.packet(kind, body, flags))
    client.expect_closed(0x81)


@pytest.mark.parametrize("kind", [wire.SUBACK, wire.UNSUBACK, wire.PINGRESP])
def test_reserved_flags_of_answers_are_looked_at_first(connected: Connect, kind: int) -> None:
    """[MQTT-2.1.3-1]: no client may send the packet at all, which would be a protocol error"""
    for flags, reason_code in ((1, 0x81), (8, 0x81), (0, 0x82)):
        client = connected()
        client.send(wire.packet(kind, b"" if kind == wire.PINGRESP else b"\0\1\0\0", flags))
        client.expect_closed(reason_code)


@pytest.mark.parametrize("flags", [0, 1, 3, 10])
def test_unsubscribe_flags_are_fixed(connected: Connect, name: str, version: int, flags: int) -> None:
    """[MQTT-3.10.1-1] [MQTT-2.1.3-1]"""
    client = connected(version=version)
    packet = wire.unsubscribe(1, name, version=version)
    client.send(bytes((wire.UNSUBSCRIBE << 4 | flags,)) + packet[1:])
    client.expect_closed(0x81)


@pytest.mark.parametrize("flags", [1, 2, 4, 8])
def test_auth_flags_are_zero(connected: Connect, flags: int) -> None:
    """[MQTT-3.15.1-1]: AUTH is not allowed at all, which is said of it whatever its flags are"""
    client = connected()
    client.send(wire.packet(wire.AUTH, b"\x18\0", flags))
    client.expect_closed(0x82)


@pytest.mark.parametrize("kind", [wire.PINGREQ, wire.PINGRESP])
def test_pings_have_nothing_behind_their_header(connected: Connect, version: int, kind: int) -> None:
    """§3.12, §3.13: as Mosquitto, without a word"""
    client = connected(version=version)
    client.send(wire.packet(kind, b"\0"))
    client.expect_closed()


def test_packet_type_0_is_forbidden(connected: Connect, version: int) -> None:
    """§2.1.2"""
    client = connected(version=version)
    client.send(b"\0\xff\xff\xff\xff\x01")
    client.expect_closed(0x82)


def test_auth_without_a_method_is_a_protocol_error(connected: Connect) -> None:
    """[MQTT-4.12.0-7]"""
    for body in (b"", b"\x18\0", b"\x19\0", b"\x18" + wire.properties({wire.AUTHENTICATION_METHOD: "x"})):
        client = connected()
        client.send(wire.packet(wire.AUTH, body))
        client.expect_closed(0x82)


@pytest.mark.parametrize("kind", [wire.SUBSCRIBE, wire.UNSUBSCRIBE])
def test_packet_identifier_zero_is_refused(connected: Connect, name: str, version: int, kind: int) -> None:
    """[MQTT-2.2.1-3]"""
    client = connected(version=version)
    made = wire.subscribe if kind == wire.SUBSCRIBE else wire.unsubscribe
    client.send(made(0, name, version=version))
    client.expect_closed(0x81)


def test_packet_identifiers_of_the_server_are_not_zero_and_not_in_use(
    connected: Connect, name: str, version: int
) -> None:
    """[MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1]"""
    subscriber, publisher = connected(version=version), connected()
    subscriber.subscribe((name, 2))
    for number in range(30):
        publisher.publish_acknowledged(name, b"%d" % number, 1 + number % 2)
    found = [subscriber.expect(wire.PUBLISH) for _ in range(30)]
    identifiers = {one.packet_id for one in found}
    assert len(identifiers) == 30
    assert 0 not in identifiers
    for one in found[::2]:
        assert one.qos == 1
        subscriber.send(wire.acknowledgement(wire.PUBACK, one.packet_id))
    in_use = {one.packet_id for one in found[1::2]}
    for number in range(30):
        publisher.publish_acknowledged(name, b"%d" % number)
        again = subscriber.expect(wire.PUBLISH)
        assert again.packet_id not in in_use
        subscriber.send(wire.acknowledgement(wire.PUBACK, again.packet_id))


@pytest.mark.parametrize("packet_id", [1, 77, 65_535])
def test_answers_carry_the_identifier_of_what_they_answer(
    connected: Connect, name: str, version: int, packet_id: int
) -> None:
    """[MQTT-2.2.1-5] [MQTT-2.2.1-6] [MQTT-3.8.4-2] [MQTT-3.10.4-5]"""
    client = connected(version=version)
    client.send(wire.subscribe(packet_id, name, version=version))
    assert client.expect(wire.SUBACK).packet_id == packet_id
    client.send(wire.unsubscribe(packet_id, name, version=version))
    assert client.expect(wire.UNSUBACK).packet_id == packet_id
    for qos, kind in ((1, wire.PUBACK), (2, wire.PUBREC)):
        client.publish(name, b"", qos, packet_id=packet_id)
        assert client.expect(kind).packet_id == packet_id
    client.send(wire.acknowledgement(wire.PUBREL, packet_id))
    assert client.expect(wire.PUBCOMP).packet_id == packet_id


@pytest.mark.parametrize("kind", [wire.PUBACK, wire.PUBREC, wire.PUBREL, wire.PUBCOMP])
@pytest.mark.parametrize("reason_code", [0x03, 0x55, 0x9F])
def test_reason_codes_are_those_of_their_packet(connected: Connect, kind: int, reason_code: int) -> None:
    """[MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]"""
    client = connected()
    client.send(wire.acknowledgement(kind, 1, reason_code))
    client.expect_closed(0x82)


@pytest.mark.parametrize("reason_code", [0x01, 0x03, 0x55, 0x92])
def test_a_disconnect_with_another_reason_is_no_goodbye(connected: Connect, name: str, reason_code: int) -> None:
    """[MQTT-3.14.2-1]: it is answered by nothing, and the will is published"""
    watcher, client = connected(), connected(will=wire.Will(name, b"gone"))
    watcher.subscribe(name)
    client.send(wire.disconnect(reason_code))
    client.expect_closed()
    watcher.expect_publish(name, b"gone")


def test_ping_is_answered(connected: Connect, version: int) -> None:
    """[MQTT-3.12.4-1]"""
    client = connected(version=version)
    client.send(wire.pingreq() * 3)
    assert [client.next_packet().packet_type for _ in range(3)] == [wire.PINGRESP] * 3


def test_nothing_is_taken_after_disconnect(connected: Connect, name: str, version: int) -> None:
    """[MQTT-3.14.4-1] [MQTT-3.14.4-2]: the server closes, and sends nothing"""
    watcher = connected(version=version)
    watcher.subscribe(f"{name}/#")
    client = connected(version=version)
    client.send(wire.disconnect() + wire.publish(f"{name}/late", b"x", 1, 1, version=version) + wire.pingreq())
    client.expect_closed()
    watcher.expect_nothing()


def test_the_farewell_of_the_server_is_the_last(connected: Connect, name: str) -> None:
    """[MQTT-3.14.4-1] [MQTT-3.14.2-2]"""
    client = connected(name, properties={wire.SESSION_EXPIRY: 5})
    client.subscribe(f"{name}/#")
    client.send(wire.publish(f"{name}/a", b"x") + wire.packet(wire.PUBREL, b"\0\1", 0) + wire.pingreq())
    client.expect_publish(f"{name}/a", b"x")
    farewell = client.expect(wire.DISCONNECT)
    assert (farewell.reason_code, farewell.properties) == (0x81, {})
    client.expect_closed()
    connected(name)
