"""PUBLISH and its acknowledgements, QoS 0 to 2 in both directions (§3.3 to §3.7, §4.3, §4.6)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conformance.conftest import Connect
from tests.support import mqtt_wire as wire
from tests.support.mqtt_client import RawClient

Open = Callable[..., RawClient]


@pytest.mark.parametrize("published_qos", [0, 1, 2])
@pytest.mark.parametrize("granted_qos", [0, 1, 2])
def test_delivered_with_the_lower_of_both_qos(
    connected: Connect, name: str, version: int, published_qos: int, granted_qos: int
) -> None:
    """[MQTT-3.8.4-8] [MQTT-3.3.4-1] [MQTT-3.3.2-3] [MQTT-3.8.4-7] [MQTT-2.2.1-2] [MQTT-2.2.1-5]
    [MQTT-4.3.1-1] [MQTT-4.3.2-2] [MQTT-4.3.2-4] [MQTT-4.3.3-2] [MQTT-4.3.3-4] [MQTT-4.3.3-8] [MQTT-4.3.3-11]"""
    subscriber, publisher = connected(version=version), connected(version=version)
    assert subscriber.subscribe((name, granted_qos)) == [granted_qos]
    if published_qos:
        publisher.publish_acknowledged(name, b"payload", published_qos)
    else:
        publisher.publish(name, b"payload")
    found = subscriber.expect_publish(name, b"payload")
    assert (found.qos, found.dup, found.retain) == (min(published_qos, granted_qos), False, False)
    subscriber.expect_nothing()


@pytest.mark.parametrize(("from_version", "to_version"), [(wire.V311, wire.V5), (wire.V5, wire.V311)])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_versions_understand_each_other(
    connected: Connect, name: str, from_version: int, to_version: int, qos: int
) -> None:
    subscriber, publisher = connected(version=to_version), connected(version=from_version)
    subscriber.subscribe((name, 2))
    for number in range(5):
        if qos:
            publisher.publish_acknowledged(name, b"%d" % number, qos)
        else:
            publisher.publish(name, b"%d" % number)
    for number in range(5):
        assert subscriber.expect_publish(name, b"%d" % number).qos == qos


def test_qos_3_is_malformed(connected: Connect, name: str, version: int) -> None:
    """[MQTT-3.3.1-4]"""
    client = connected(version=version)
    body = wire.string(name) + b"\0\1" + (b"\0" if version == wire.V5 else b"")
    client.send(wire.packet(wire.PUBLISH, body, 0x06))
    client.expect_closed(0x81)


def test_dup_with_qos_0_is_wrong(connected: Connect, name: str, version: int) -> None:
    """[MQTT-3.3.1-2]"""
    client = connected(version=version)
    client.send(wire.publish(name, b"x", version=version, dup=True))
    with_reason = client.next_packet_or_end()
    assert with_reason is None or with_reason.reason_code in (0x81, 0x82)


def test_dup_with_qos_0_is_nothing_in_3_1(connected: Connect, name: str) -> None:
    """3.1 does not forbid it; as in Mosquitto"""
    client = connected(version=wire.V31)
    client.subscribe((name, 0))
    client.send(wire.publish(name, b"x", version=wire.V31, dup=True))
    client.expect_publish(name, b"x")


@pytest.mark.parametrize("topic", ["a/+", "#", "a/#/b", "+"])
def test_topic_name_has_no_wildcards(connected: Connect, version: int, topic: str) -> None:
    """[MQTT-3.3.2-2] [MQTT-4.7.0-1]"""
    client = connected(version=version)
    client.send(wire.publish(topic, b"x", version=version))
    client.expect_closed(0x81)


@pytest.mark.parametrize("topic", [b"", b"\xff", b"a\0b", b"\xed\xa0\x80", b"\xc0\xaf"])
def test_topic_name_is_utf_8_and_not_empty(connected: Connect, version: int, topic: bytes) -> None:
    """[MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-3.3.2-1]"""
    client = connected(version=version)
    body = wire.string(topic) + (b"\0" if version == wire.V5 else b"")
    client.send(wire.packet(wire.PUBLISH, body + b"x"))
    found = client.next_packet_or_end()
    assert found is None or found.reason_code in (0x81, 0x82, 0x90)


@pytest.mark.parametrize("qos", [1, 2])
def test_packet_id_zero_is_wrong(connected: Connect, name: str, version: int, qos: int) -> None:
    """[MQTT-2.2.1-3]"""
    client = connected(version=version)
    client.publish(name, b"x", qos, packet_id=0)
    found = client.next_packet_or_end()
    assert found is None or found.reason_code in (0x81, 0x82)


def test_truncated_publish_is_malformed(connected: Connect, version: int) -> None:
    """The topic's length points beyond the packet."""
    client = connected(version=version)
    client.send(wire.packet(wire.PUBLISH, b"\0\x20abc"))
    client.expect_closed(0x81)


def test_remaining_length_of_five_bytes_is_malformed(connected: Connect, version: int) -> None:
    """§1.5.5; as Mosquitto, without a word: what follows is no packet either"""
    for first_byte in (0x30, 0x20, 0xE0):
        client = connected(version=version)
        client.send(bytes((first_byte,)) + b"\xff\xff\xff\xff\x01")
        client.expect_closed()


def test_packet_above_the_maximum_is_refused_before_it_is_read(connected: Connect, version: int) -> None:
    """[MQTT-3.2.2-15]; the head alone is enough."""
    client = connected(version=version)
    client.send(b"\x30" + wire.variable_byte_integer(200_000_000))
    client.expect_closed(0x95)


def test_largest_packet_passes(connected: Connect, name: str, version: int) -> None:
    client = connected(version=version)
    client.subscribe(name)
    payload = b"x" * (1024 * 1024 - 100)
    client.publish(name, payload)
    assert client.expect_publish(name).payload == payload


def test_payload_may_be_empty_and_of_any_bytes(connected: Connect, name: str, version: int) -> None:
    """§3.3.3"""
    client = connected(version=version)
    client.subscribe((name, 1))
    for payload in (b"", bytes(range(256)), b"\0", b"\xff" * 127, b"\n\r\n"):
        client.publish(name, payload)
        assert client.expect_publish(name).payload == payload


@pytest.mark.parametrize("qos", [1, 2])
def test_acknowledgements_come_in_the_order_of_the_publishes(
    connected: Connect, name: str, version: int, qos: int
) -> None:
    """[MQTT-4.6.0-2] [MQTT-4.6.0-3]"""
    client = connected(version=version)
    ids = [(7 * number) % 1009 + 1 for number in range(300)]
    client.send(b"".join(wire.publish(f"{name}/{one % 3}", b"x", qos, one, version=version) for one in ids))
    kind = wire.PUBACK if qos == 1 else wire.PUBREC
    assert [client.expect(kind).packet_id for _ in ids] == ids


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_messages_of_a_topic_arrive_in_order(connected: Connect, name: str, version: int, qos: int) -> None:
    """[MQTT-4.6.0-6] [MQTT-4.6.0-5]"""
    subscriber, publisher = connected(version=version), connected(version=version)
    subscriber.subscribe((f"{name}/#", 2))
    for number in range(200):
        if qos:
            publisher.publish_acknowledged(f"{name}/{number % 3}", b"%d" % number, qos)
        else:
            publisher.publish(f"{name}/{number % 3}", b"%d" % number)
    found = [int(subscriber.expect_publish().payload) for _ in range(200)]
    assert found == list(range(200))


def test_qos_2_repeat_before_pubrel_is_delivered_once(connected: Connect, name: str, version: int) -> None:
    """[MQTT-4.3.3-10]"""
    subscriber, publisher = connected(version=version), connected(version=version)
    subscriber.subscribe((name, 2))
    publisher.publish(name, b"once", 2, packet_id=9)
    assert publisher.expect(wire.PUBREC).packet_id == 9
    publisher.publish(name, b"once", 2, packet_id=9, dup=True)
    assert publisher.expect(wire.PUBREC).packet_id == 9
    publisher.send(wire.acknowledgement(wire.PUBREL, 9))
    assert publisher.expect(wire.PUBCOMP).packet_id == 9
    subscriber.expect_publish(name, b"once")
    subscriber.expect_nothing()


def test_qos_2_without_dup_is_sent_again_once_at_most(connected: Connect, name: str, version: int) -> None:
    """[MQTT-4.4.0-1]: the third time is a protocol error, as in Mosquitto; after PUBREL it is none"""
    publisher = connected(version=version)
    for dup in (False, True):
        for _ in range(2):
            publisher.publish(name, b"same", 2, packet_id=9, dup=dup)
            assert publisher.expect(wire.PUBREC).packet_id == 9
        publisher.send(wire.acknowledgement(wire.PUBREL, 9))
        assert publisher.expect(wire.PUBCOMP).packet_id == 9
    for _ in range(2):
        publisher.publish(name, b"same", 2, packet_id=9)
        assert publisher.expect(wire.PUBREC).packet_id == 9
    publisher.publish(name, b"same", 2, packet_id=9, dup=True)
    publisher.expect_closed(0x82)


def test_another_message_with_a_packet_id_in_use_is_not_lost(connected: Connect, name: str, version: int) -> None:
    """[MQTT-4.3.3-10]: no duplicate; as in Mosquitto. Its client has lost its state and numbers anew"""
    subscriber, publisher = connected(version=version), connected(version=version)
    subscriber.subscribe((f"{name}/#", 2))
    sent = [("a", b"one"), ("a", b"two"), ("b", b"two"), ("a", b"two"), ("a", b"two")]
    for level, payload in sent:
        publisher.publish(f"{name}/{level}", payload, 2, packet_id=9)
        assert publisher.expect(wire.PUBREC).packet_id == 9
    publisher.send(wire.acknowledgement(wire.PUBREL, 9))
    assert publisher.expect(wire.PUBCOMP).packet_id == 9
    for level, payload in sent[:4]:
        subscriber.expect_publish(f"{name}/{level}", payload)
    subscriber.expect_nothing()


def test_qos_2_packet_id_is_free_after_pubcomp(connected: Connect, name: str, version: int) -> None:
    """[MQTT-4.3.3-12]"""
    subscriber, publisher = connected(version=version), connected(version=version)
    subscriber.subscribe((name, 0))
    for payload in (b"one", b"two"):
        publisher.publish(name, payload, 2, packet_id=9)
        publisher.expect(wire.PUBREC)
        publisher.send(wire.acknowledgement(wire.PUBREL, 9))
        publisher.expect(wire.PUBCOMP)
        subscriber.expect_publish(name, payload)


def test_unknown_pubrel_is_answered(connected: Connect, version: int) -> None:
    """[MQTT-4.3.3-11]: as one that is known, as Mosquitto does; so is a PUBREC"""
    client = connected(version=version)
    for sent, answered in ((wire.PUBREL, wire.PUBCOMP), (wire.PUBREC, wire.PUBREL)):
        client.send(wire.acknowledgement(sent, 77))
        found = client.expect(answered)
        assert (found.packet_id, found.reason_code) == (77, 0)


@pytest.mark.parametrize(
    ("qos", "answers"),
    [
        (1, [wire.PUBREC]),
        (1, [wire.PUBCOMP]),
        (2, [wire.PUBACK]),
        (2, [wire.PUBCOMP]),
        (2, [wire.PUBREC, wire.PUBACK]),
    ],
)
def test_answers_of_another_qos_are_protocol_errors(
    connected: Connect, name: str, version: int, qos: int, answers: list[int]
) -> None:
    """[MQTT-4.3.2-3] [MQTT-4.3.3-4] [MQTT-4.3.3-5]: as Mosquitto takes them"""
    subscriber, publisher = connected(version=version), connected()
    subscriber.subscribe((name, 2))
    publisher.publish_acknowledged(name, b"x", qos)
    packet_id = subscriber.expect(wire.PUBLISH).packet_id
    for kind in answers:
        subscriber.send(wire.acknowledgement(kind, packet_id))
    if len(answers) > 1:
        assert subscriber.expect(wire.PUBREL).packet_id == packet_id
    subscriber.expect_closed(0x82)


@pytest.mark.parametrize("kind", [wire.PUBACK, wire.PUBCOMP])
def test_answers_to_nothing_are_taken(connected: Connect, version: int, kind: int) -> None:
    """§4.3: they may belong to what was answered before"""
    client = connected(version=version)
    client.send(wire.acknowledgement(kind, 77))
    client.expect_nothing()


@pytest.mark.parametrize("flags", [0, 1, 3, 10])
def test_pubrel_flags_are_fixed(connected: Connect, version: int, flags: int) -> None:
    """[MQTT-3.6.1-1]"""
    client = connected(version=version)
    client.send(wire.packet(wire.PUBREL, b"\0\1", flags))
    client.expect_closed(0x81)


@pytest.mark.parametrize("kind", [wire.CONNACK, wire.SUBACK, wire.UNSUBACK, wire.PINGRESP, 0])
def test_packets_of_the_server_are_not_a_clients(connected: Connect, version: int, kind: int) -> None:
    """§2.1.2"""
    client = connected(version=version)
    client.send(wire.packet(kind, b"\0\0"))
    found = client.next_packet_or_end()
    assert found is None or found.reason_code in (0x81, 0x82)


class TestVersion5:
    """What only MQTT 5 has."""

    def test_properties_reach_the_subscriber_unchanged(self, connected: Connect, name: str) -> None:
        """[MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20] [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16]"""
        subscriber, publisher = connected(), connected()
        subscriber.subscribe((name, 1))
        properties: wire.Properties = {
            wire.PAYLOAD_FORMAT: 1,
            wire.CONTENT_TYPE: "application/json",
            wire.RESPONSE_TOPIC: "answer/here",
            wire.CORRELATION_DATA: b"\0\1\2",
            wire.USER_PROPERTY: [("b", "2"), ("a", "1"), ("b", "3")],
        }
        for qos in (0, 1):
            publisher.publish(name, b"x", qos, properties=properties)
            assert subscriber.expect_publish(name).properties == properties

    def test_properties_are_left_out_for_3_1_1(self, connected: Connect, name: str) -> None:
        subscriber, publisher = connected(version=wire.V311), connected()
        subscriber.subscribe((name, 1))
        publisher.publish(name, b"x", 1, properties={wire.CONTENT_TYPE: "a", wire.USER_PROPERTY: [("a", "b")]})
        subscriber.expect_publish(name, b"x")

    def test_topic_alias_stands_for_the_topic(self, connected: Connect, name: str) -> None:
        """[MQTT-3.3.2-12]"""
        subscriber, publisher = connected(), connected()
        subscriber.subscribe((f"{name}/#", 0))
        publisher.publish(f"{name}/a", b"1", properties={wire.TOPIC_ALIAS: 1})
        publisher.publish("", b"2", properties={wire.TOPIC_ALIAS: 1})
        publisher.publish(f"{name}/b", b"3", properties={wire.TOPIC_ALIAS: 1})
        publisher.publish("", b"4", 1, properties={wire.TOPIC_ALIAS: 1})
        found = [subscriber.expect_publish() for _ in range(4)]
        assert [(one.topic, one.payload) for one in found] == [
            (f"{name}/a", b"1"),
            (f"{name}/a", b"2"),
            (f"{name}/b", b"3"),
            (f"{name}/b", b"4"),
        ]
        assert not any(wire.TOPIC_ALIAS in one.properties for one in found)

    def test_all_topic_aliases_up_to_the_announced_maximum_are_taken(self, opened: Open, name: str) -> None:
        """[MQTT-3.3.2-12]"""
        client = opened(wire.V5)
        maximum = client.connect(name).properties[wire.TOPIC_ALIAS_MAXIMUM]
        client.subscribe((f"{name}/#", 0))
        for alias in range(1, maximum + 1):
            client.publish(f"{name}/{alias}", b"", properties={wire.TOPIC_ALIAS: alias})
        for alias in range(1, maximum + 1):
            client.publish("", b"by alias", properties={wire.TOPIC_ALIAS: alias})
        found = [client.expect_publish().topic for _ in range(2 * maximum)]
        assert found == [f"{name}/{alias}" for alias in range(1, maximum + 1)] * 2
        client.publish(f"{name}/x", b"", properties={wire.TOPIC_ALIAS: maximum + 1})
        client.expect_closed(0x94)

    @pytest.mark.parametrize("alias", [0, 65_535])
    def test_topic_alias_outside_the_range_is_refused(self, connected: Connect, name: str, alias: int) -> None:
        """[MQTT-3.3.2-8] [MQTT-3.3.2-9]"""
        client = connected()
        client.publish(name, b"x", properties={wire.TOPIC_ALIAS: alias})
        client.expect_closed(0x94)

    def test_unknown_topic_alias_is_a_protocol_error(self, connected: Connect) -> None:
        """§3.3.2.3.4"""
        client = connected()
        client.publish("", b"x", properties={wire.TOPIC_ALIAS: 3})
        client.expect_closed(0x82)

    def test_no_topic_and_no_alias_is_refused(self, connected: Connect) -> None:
        """[MQTT-3.3.2-1]; with the reason code that Mosquitto gives"""
        client = connected()
        client.publish("", b"x")
        client.expect_closed(0x81)

    def test_nothing_is_published_to_a_share(self, connected: Connect, name: str) -> None:
        """§4.8.2: nobody could subscribe to it"""
        client = connected()
        for qos, answer in ((1, wire.PUBACK), (2, wire.PUBREC)):
            client.publish(f"$share/g/{name}", b"x", qos)
            assert client.expect(answer).reason_code == 0x87

    @pytest.mark.parametrize("qos", [0, 1, 2])
    def test_topic_aliases_of_the_server_stay_within_the_clients_maximum(
        self, connected: Connect, name: str, qos: int
    ) -> None:
        """[MQTT-3.1.2-26] [MQTT-3.3.2-11]"""
        subscriber, publisher = connected(properties={wire.TOPIC_ALIAS_MAXIMUM: 2}), connected()
        subscriber.subscribe((f"{name}/#", 2), properties={wire.SUBSCRIPTION_IDENTIFIER: 3})
        sent = [f"{name}/{number}" for number in (1, 1, 2, 3, 3, 2, 1, *([4] * 20))]
        for topic in sent:
            publisher.publish(topic, topic.encode(), qos, properties={wire.MESSAGE_EXPIRY: 60})
        topic_by_alias: dict[int, str] = {}
        found: list[str] = []
        without_topic = 0
        for topic in sent:
            one = subscriber.expect_publish(payload=topic.encode())
            alias = one.properties.get(wire.TOPIC_ALIAS, 0)
            assert alias <= 2
            assert (one.properties[wire.SUBSCRIPTION_IDENTIFIER], one.properties[wire.MESSAGE_EXPIRY]) == ([3], 60)
            without_topic += not one.topic
            if one.topic and alias:
                topic_by_alias[alias] = one.topic
            found.append(one.topic or topic_by_alias[alias])
        assert found == sent
        assert without_topic > 10, "an alias that is never used is none"

    def test_no_topic_alias_for_who_takes_none(self, connected: Connect, name: str) -> None:
        """[MQTT-3.1.2-27]"""
        asked: list[wire.Properties] = [{}, {wire.TOPIC_ALIAS_MAXIMUM: 0}]
        publisher, subscribers = connected(), [connected(properties=one) for one in asked]
        for subscriber in subscribers:
            subscriber.subscribe(name)
        for _ in range(3):
            publisher.publish(name, b"x")
        for subscriber in subscribers:
            for _ in range(3):
                assert subscriber.expect_publish(name).properties == {}

    def test_subscription_identifier_from_a_client_is_refused(self, connected: Connect, name: str) -> None:
        """[MQTT-3.3.4-6]"""
        client = connected()
        client.publish(name, b"x", properties={wire.SUBSCRIPTION_IDENTIFIER: 1})
        client.expect_closed(0x82)

    def test_receive_maximum_of_the_client_is_kept(self, connected: Connect, name: str) -> None:
        """[MQTT-3.3.4-7] [MQTT-3.3.4-9] [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT-4.9.0-3] [MQTT-3.3.4-10]"""
        subscriber, publisher = connected(properties={wire.RECEIVE_MAXIMUM: 2}), connected()
        subscriber.subscribe((name, 1))
        for number in range(5):
            publisher.publish_acknowledged(name, b"%d" % number)
        first, second = subscriber.expect(wire.PUBLISH), subscriber.expect(wire.PUBLISH)
        subscriber.expect_nothing()
        for one, number in ((first, 2), (second, 3)):
            subscriber.send(wire.acknowledgement(wire.PUBACK, one.packet_id))
            assert subscriber.expect(wire.PUBLISH).payload == b"%d" % number
        subscriber.expect_nothing()

    def test_receive_maximum_of_the_server_is_announced_and_enforced(self, connected: Connect, name: str) -> None:
        """[MQTT-3.3.4-7] and 0x93"""
        client = connected()
        client.send(b"".join(wire.publish(name, b"x", 2, number) for number in range(1, 65_000)))
        found = client.next_packet()
        while found.packet_type == wire.PUBREC:
            found = client.next_packet()
        assert (found.packet_type, found.reason_code) == (wire.DISCONNECT, 0x93)

    def test_what_an_earlier_connection_left_unreleased_counts_against_no_receive_maximum(
        self, opened: Open, name: str
    ) -> None:
        """[MQTT-4.9.0-1]: each connection begins with the whole quota"""
        for first_id in (1, 10_001):
            client = opened()
            connack = client.connect(name, clean=False, properties={wire.SESSION_EXPIRY: 60})
            ids = range(first_id, first_id + int(connack.properties[wire.RECEIVE_MAXIMUM]))
            client.send(b"".join(wire.publish(name, b"x", 2, packet_id) for packet_id in ids))
            assert [client.expect(wire.PUBREC).packet_id for _ in ids] == list(ids)
        client.publish(name, b"x", 2, packet_id=ids.stop)
        client.expect_closed(0x93)

    def test_maximum_packet_size_of_the_client_is_kept(self, connected: Connect, name: str) -> None:
        """[MQTT-3.1.2-24] [MQTT-3.1.2-25]"""
        subscriber, publisher = connected(properties={wire.MAXIMUM_PACKET_SIZE: 100}), connected()
        subscriber.subscribe((name, 1))
        publisher.publish_acknowledged(name, b"x" * 200)
        publisher.publish_acknowledged(name, b"small")
        subscriber.expect_publish(name, b"small")

    def test_maximum_packet_size_of_the_client_is_kept_by_suback_and_unsuback(
        self, connected: Connect, name: str
    ) -> None:
        """[MQTT-3.1.2-24] [MQTT-3.1.2-25]: what is too large is left out, its effect is there"""
        subscriber, publisher = connected(properties={wire.MAXIMUM_PACKET_SIZE: 30}), connected()
        names = [f"{name}{number}" for number in range(30)]
        subscriber.send(wire.subscribe(7, *[(each, 0) for each in names]))
        subscriber.subscribe(name)
        publisher.publish_acknowledged(names[7], b"x")
        subscriber.expect_publish(names[7], b"x")
        subscriber.send(wire.unsubscribe(8, *names))
        subscriber.unsubscribe(name)
        subscriber.ping()

    def test_puback_says_when_nobody_subscribes(self, connected: Connect, name: str) -> None:
        """§3.4.2.1: 0x10, each publish for itself; QoS 2 is answered before anybody knows"""
        publisher, subscriber = connected(), connected()
        publisher.publish(name, b"x", 1)
        assert publisher.expect(wire.PUBACK).reason_code == 0x10
        subscriber.subscribe((f"{name}/+", 0))
        topics = [f"{name}/a", name, f"{name}/b", f"{name}/b/c"]
        publisher.send(b"".join(wire.publish(topic, b"x", 1, at + 10) for at, topic in enumerate(topics)))
        answers = [publisher.expect(wire.PUBACK) for _ in topics]
        assert [(one.packet_id, one.reason_code) for one in answers] == [(10, 0), (11, 0x10), (12, 0), (13, 0x10)]
        publisher.publish(name, b"x", 1, properties={wire.CONTENT_TYPE: "a"})
        assert publisher.expect(wire.PUBACK).reason_code == 0x10
        publisher.publish(name, b"x", 2)
        assert publisher.expect(wire.PUBREC).reason_code == 0

    def test_3_1_1_has_no_word_for_it(self, connected: Connect, name: str) -> None:
        publisher = connected(version=wire.V311)
        publisher.publish_acknowledged(name, b"x")

    def test_payload_format_that_is_not_0_or_1_is_wrong(self, connected: Connect, name: str) -> None:
        """§3.3.2.3.2"""
        client = connected()
        client.publish(name, b"x", properties={wire.PAYLOAD_FORMAT: 2})
        found = client.next_packet_or_end()
        assert found is None or found.reason_code in (0x81, 0x82)
