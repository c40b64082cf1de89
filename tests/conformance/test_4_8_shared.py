"""Shared subscriptions (§4.8.2, and what §3.2, §3.3 and §3.8 say of them)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conformance.conftest import Connect
from tests.support import mqtt_wire as wire
from tests.support.mqtt_client import RawClient

SHARED_SUBSCRIPTION_AVAILABLE = 0x2A
RETAIN_AS_PUBLISHED = 0x08
KEPT: wire.Properties = {wire.SESSION_EXPIRY: 300}


def payloads_until_silence(client: RawClient) -> list[bytes]:
    """What has come, acknowledged, up to the answer of a PINGREQ."""
    client.send(wire.pingreq())
    found: list[bytes] = []
    while (packet := client.next_packet()).packet_type != wire.PINGRESP:
        if packet.packet_type == wire.PUBLISH:
            found.append(packet.payload)
            if packet.qos:
                answer = wire.PUBACK if packet.qos == 1 else wire.PUBREC
                client.send(wire.acknowledgement(answer, packet.packet_id))
        else:
            assert packet.packet_type == wire.PUBREL, packet
            client.send(wire.acknowledgement(wire.PUBCOMP, packet.packet_id))
    return found


def leave(client: RawClient) -> None:
    """DISCONNECT, and the server has seen it."""
    client.send(wire.disconnect())
    client.expect_closed()


def publish_all(publisher: RawClient, topic: str, count: int, qos: int) -> list[bytes]:
    """Send `count` numbered messages, each known to have been taken; returns their payloads."""
    payloads = [b"%d" % number for number in range(count)]
    for payload in payloads:
        if qos:
            publisher.publish_acknowledged(topic, payload, qos)
        else:
            publisher.publish(topic, payload)
            publisher.ping()
    return payloads


def test_shared_subscriptions_are_available(opened: Callable[..., RawClient]) -> None:
    """§3.2.2.3.13: 1 or absent"""
    assert opened().connect().properties.get(SHARED_SUBSCRIPTION_AVAILABLE, 1) == 1


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_each_message_goes_to_one_member_in_turn(connected: Connect, name: str, version: int, qos: int) -> None:
    """[MQTT-4.8.2-1] [MQTT-4.8.2-2]; 3.1.1 clients may share too, and both versions in one group"""
    members = [connected(version=version), connected(version=wire.V5), connected(version=wire.V311)]
    for member in members:
        assert member.subscribe((f"$share/g/{name}/#", qos)) == [qos]
    payloads = publish_all(connected(version=version), f"{name}/a", 9, qos)
    for index, member in enumerate(members):
        assert payloads_until_silence(member) == payloads[index::3]


def test_share_names_and_usual_subscriptions_are_independent(connected: Connect, name: str) -> None:
    """§4.8.2: each group, and each other subscription, gets every message"""
    first, second, other, usual = connected(), connected(), connected(), connected()
    first.subscribe(f"$share/g/{name}", name)
    second.subscribe(f"$share/g/{name}")
    other.subscribe(f"$share/h/{name}")
    usual.subscribe(name)
    payloads = publish_all(connected(), name, 4, 0)
    assert sorted(payloads_until_silence(first)) == sorted(payloads + payloads[::2])
    assert payloads_until_silence(second) == payloads[1::2]
    assert payloads_until_silence(other) == payloads
    assert payloads_until_silence(usual) == payloads


@pytest.mark.parametrize(
    "topic_filter",
    ["$share/", "$share/g", "$share/g/", "$share//{n}", "$share/+/{n}", "$share/g#/{n}", "$share/g+/{n}"],
)
def test_malformed_shares_are_refused(connected: Connect, name: str, version: int, topic_filter: str) -> None:
    """[MQTT-4.8.2-1] [MQTT-4.8.2-2]: in SUBACK with 0x8F (3.1.1: 0x80), or by the end of the connection"""
    client = connected(version=version)
    client.send(wire.subscribe(1, topic_filter.format(n=name), version=version))
    found = client.next_packet_or_end()
    if found is not None and found.packet_type == wire.SUBACK:
        assert found.reason_codes == [0x8F if version == wire.V5 else 0x80]
    else:
        assert found is None or found.reason_code in (0x81, 0x82, 0x8F)


@pytest.mark.parametrize("topic_filter", ["{n}/#/a", "{n}/a#", "{n}/+a"])
def test_malformed_filters_in_a_share_are_refused(connected: Connect, name: str, topic_filter: str) -> None:
    """[MQTT-4.7.1-1] [MQTT-4.7.1-2]"""
    client = connected()
    client.send(wire.subscribe(1, f"$share/g/{topic_filter.format(n=name)}"))
    found = client.next_packet_or_end()
    if found is not None and found.packet_type == wire.SUBACK:
        assert found.reason_codes == [0x8F]
    else:
        assert found is None or found.reason_code in (0x81, 0x82, 0x8F)


@pytest.mark.parametrize("topic_filter", ["$share/g/$replay/-1h/{n}", "$share/g/$replay/{n}"])
def test_a_replay_cannot_be_shared(connected: Connect, name: str, version: int, topic_filter: str) -> None:
    client = connected(version=version)
    assert client.subscribe(topic_filter.format(n=name)) == [0x8F if version == wire.V5 else 0x80]


def test_each_member_gets_its_granted_qos(connected: Connect, name: str) -> None:
    """[MQTT-4.8.2-3]"""
    members = [connected() for _ in range(3)]
    for qos, member in enumerate(members):
        assert member.subscribe((f"$share/g/{name}", qos)) == [qos]
    publisher = connected()
    for number in range(6):
        publisher.publish_acknowledged(name, b"%d" % number, 2)
    for qos, member in enumerate(members):
        for number in (qos, qos + 3):
            assert member.expect_publish(name, b"%d" % number).qos == qos
        member.expect_nothing()


def test_options_and_identifier_are_the_members_own(connected: Connect, name: str) -> None:
    """[MQTT-3.3.4-3] [MQTT-3.3.1-12] [MQTT-3.3.1-13]"""
    plain, marked = connected(), connected()
    plain.subscribe(f"$share/g/{name}", properties={wire.SUBSCRIPTION_IDENTIFIER: 5})
    marked.subscribe((f"$share/g/{name}", 1 | RETAIN_AS_PUBLISHED), properties={wire.SUBSCRIPTION_IDENTIFIER: 9})
    publisher = connected()
    for payload in (b"1", b"2"):
        publisher.publish_acknowledged(name, payload, retain=True)
    first, second = plain.expect_publish(name, b"1"), marked.expect_publish(name, b"2")
    assert (first.properties[wire.SUBSCRIPTION_IDENTIFIER], first.retain) == ([5], False)
    assert (second.properties[wire.SUBSCRIPTION_IDENTIFIER], second.retain) == ([9], True)
    publisher.publish_acknowledged(name, b"", retain=True)


def test_retained_messages_are_not_sent_to_a_shared_subscription(connected: Connect, name: str, version: int) -> None:
    """§4.8.2, §3.3.1.3"""
    publisher = connected()
    publisher.publish_acknowledged(name, b"kept", retain=True)
    member = connected(version=version)
    member.subscribe(f"$share/g/{name}")
    member.expect_nothing()
    publisher.publish_acknowledged(name, b"", retain=True)


def test_unsubscribe_leaves_the_group(connected: Connect, name: str, version: int) -> None:
    """[MQTT-3.10.4-1] [MQTT-3.10.4-2]: the filter is compared character by character"""
    leaves, stays = connected(version=version), connected(version=version)
    for member in (leaves, stays):
        member.subscribe((f"$share/g/{name}", 1))
    codes = leaves.unsubscribe(name, f"$share/h/{name}", f"$share/g/{name}")
    assert codes == ([0x11, 0x11, 0] if version == wire.V5 else [])
    payloads = publish_all(connected(), name, 4, 1)
    assert payloads_until_silence(leaves) == []
    assert payloads_until_silence(stays) == payloads


def test_unacknowledged_qos_1_goes_to_another_member(connected: Connect, name: str, version: int) -> None:
    """§4.8.2: at once when the session ends with its connection"""
    gone = connected(version=version)
    gone.subscribe((f"$share/g/{name}", 1))
    publish_all(connected(), name, 3, 1)
    assert [gone.expect(wire.PUBLISH).payload for _ in range(3)] == [b"0", b"1", b"2"]
    other = connected(version=version)
    other.subscribe((f"$share/g/{name}", 1))
    gone.close()
    for payload in (b"0", b"1", b"2"):
        assert not other.expect_publish(name, payload).dup
    other.expect_nothing()


def test_qos_1_of_a_kept_session_waits_for_it(opened: Callable[..., RawClient], connected: Connect, name: str) -> None:
    """[MQTT-4.4.0-1], §4.8.2; new messages go to who is connected, and the old ones to another when the session ends"""
    kept = opened()
    kept.connect(name, clean=False, properties=KEPT)
    kept.subscribe((f"$share/g/{name}", 1))
    publisher = connected()
    publisher.publish_acknowledged(name, b"first")
    kept.expect(wire.PUBLISH)
    other = connected()
    other.subscribe((f"$share/g/{name}", 1))
    leave(kept)
    publisher.publish_acknowledged(name, b"second")
    publisher.publish_acknowledged(name, b"third")
    assert payloads_until_silence(other) == [b"second", b"third"]
    again = opened()
    assert again.connect(name, clean=False, properties=KEPT).session_present
    found = again.expect(wire.PUBLISH)
    assert (found.payload, found.dup) == (b"first", True)
    again.close()
    opened().connect(name, clean=True)
    other.expect_publish(name, b"first")


def test_messages_wait_for_a_kept_member_while_nobody_is_connected(
    opened: Callable[..., RawClient], connected: Connect, name: str
) -> None:
    """§4.8.2, §4.1"""
    kept = opened()
    kept.connect(name, clean=False, properties=KEPT)
    kept.subscribe((f"$share/g/{name}", 2))
    leave(kept)
    payloads = publish_all(connected(), name, 5, 1)
    again = opened()
    assert again.connect(name, clean=False, properties=KEPT).session_present
    for payload in payloads:
        again.expect_publish(name, payload)
    again.disconnect()
    opened().connect(name, clean=True)


def test_qos_2_is_completed_with_its_member(opened: Callable[..., RawClient], connected: Connect, name: str) -> None:
    """[MQTT-4.8.2-4]"""
    kept = opened()
    kept.connect(name, clean=False, properties=KEPT)
    kept.subscribe((f"$share/g/{name}", 2))
    connected().publish_acknowledged(name, b"once", 2)
    first = kept.expect(wire.PUBLISH)
    other = connected()
    other.subscribe((f"$share/g/{name}", 2))
    leave(kept)
    other.expect_nothing()
    again = opened()
    again.connect(name, clean=False, properties=KEPT)
    found = again.expect_publish(name, b"once")
    assert (found.packet_id, found.dup) == (first.packet_id, True)
    again.disconnect()
    opened().connect(name, clean=True)
    other.expect_nothing()


def test_qos_2_of_an_ended_session_is_given_to_nobody(connected: Connect, name: str) -> None:
    """[MQTT-4.8.2-5]"""
    gone = connected(f"{name}-gone")
    gone.subscribe((f"$share/g/{name}", 2))
    publisher = connected()
    publisher.publish_acknowledged(name, b"once", 2)
    gone.expect(wire.PUBLISH)
    other = connected()
    other.subscribe((f"$share/g/{name}", 2))
    connected(f"{name}-gone")  # takes the client id over, with a new session
    publisher.publish_acknowledged(name, b"marker", 2)
    other.expect_publish(name, b"marker")
    other.expect_nothing()


@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_that_a_member_refuses_is_given_to_nobody(connected: Connect, name: str, qos: int) -> None:
    """[MQTT-4.8.2-6]"""
    refuses = connected()
    refuses.subscribe((f"$share/g/{name}", qos))
    connected().publish_acknowledged(name, b"unwanted", qos)
    found = refuses.expect(wire.PUBLISH)
    other = connected()
    other.subscribe((f"$share/g/{name}", qos))
    refuses.send(wire.acknowledgement(wire.PUBACK if qos == 1 else wire.PUBREC, found.packet_id, 0x83))
    refuses.expect_nothing()
    leave(refuses)
    other.expect_nothing()
