"""SUBSCRIBE, UNSUBSCRIBE, topic filters (§3.8 to §3.11, §4.7)."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import Connect
from tests.support import mqtt_wire as wire

NO_LOCAL, RETAIN_AS_PUBLISHED = 0x04, 0x08


@pytest.mark.parametrize(
    ("topic_filter", "topic", "matches"),
    [
        ("{n}/player1/#", "{n}/player1", True),
        ("{n}/player1/#", "{n}/player1/ranking", True),
        ("{n}/player1/#", "{n}/player1/score/wimbledon", True),
        ("{n}/player1/#", "{n}/player10", False),
        ("{n}/+", "{n}/player1", True),
        ("{n}/+", "{n}", False),
        ("{n}/+", "{n}/", True),
        ("{n}/+", "{n}/a/b", False),
        ("{n}/+/+", "{n}/a/b", True),
        ("{n}/+/score", "{n}/a/score", True),
        ("{n}/+/score", "{n}/score", False),
        ("{n}//b", "{n}//b", True),
        ("{n}/+/b", "{n}//b", True),
        ("{n}", "{N}", False),
        ("{n}/a", "{n}/a/", False),
        ("{n}/ä/+", "{n}/ä/日本", True),
        ("+/{n}", "/{n}", True),
        ("/+/{n}", "//{n}", True),
    ],
)
def test_filters_match_as_the_specification_says(
    connected: Connect, name: str, version: int, topic_filter: str, topic: str, matches: bool
) -> None:
    """[MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-4] [MQTT-3.3.2-3]"""
    subscriber, publisher = connected(version=version), connected(version=version)
    places = {"n": name, "N": name.upper()}
    subscriber.subscribe(topic_filter.format(**places))
    publisher.publish_acknowledged(topic.format(**places), b"x")
    if matches:
        subscriber.expect_publish(topic.format(**places), b"x")
    subscriber.expect_nothing()


@pytest.mark.parametrize("topic_filter", ["#", "+/{n}", "+/+"])
def test_wildcards_do_not_match_topics_that_begin_with_dollar(
    connected: Connect, name: str, version: int, topic_filter: str
) -> None:
    """[MQTT-4.7.2-1]"""
    subscriber, publisher = connected(version=version), connected()
    subscriber.subscribe(topic_filter.format(n=name))
    publisher.publish(f"$custom/{name}", b"hidden")
    publisher.publish_acknowledged(f"plain/{name}", b"shown")
    found = subscriber.expect_publish()
    while found.topic != f"plain/{name}":
        assert not found.topic.startswith("$")
        found = subscriber.expect_publish()


@pytest.mark.parametrize("topic_filter", ["a/#/b", "a/b#", "a+/b", "a/+b", "", "a\0b", "##", "#/"])
def test_bad_filters_are_refused(connected: Connect, version: int, topic_filter: str) -> None:
    """[MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1]: a packet with a text that is no filter is malformed"""
    client = connected(version=version)
    client.send(wire.subscribe(1, topic_filter, version=version))
    client.expect_closed(0x81)


@pytest.mark.parametrize("topic_filter", ["a/#/b", "a+", "", "a\0b"])
def test_bad_filters_cannot_be_unsubscribed(connected: Connect, version: int, topic_filter: str) -> None:
    """[MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-3.10.3-1]"""
    client = connected(version=version)
    client.send(wire.unsubscribe(1, topic_filter, version=version))
    client.expect_closed(0x81)


def test_a_bad_filter_grants_nothing_of_its_packet(connected: Connect, name: str, version: int) -> None:
    """[MQTT-4.13.1-1]"""
    kept = {wire.SESSION_EXPIRY: 60} if version == wire.V5 else None
    client = connected(name, version, clean=False, properties=kept)
    client.send(wire.subscribe(1, f"{name}/a", f"{name}/#/b", version=version))
    client.expect_closed(0x81)
    again = connected(name, version, clean=False, properties=kept)
    assert again.unsubscribe(f"{name}/a") == ([0x11] if version == wire.V5 else [])
    connected(f"{name}-other").publish_acknowledged(f"{name}/a", b"x")
    again.expect_nothing()
    connected(name)


@pytest.mark.parametrize("text", ["a\x01", "a\n", "a\x7f", "a\x9f", "a\ufdd0", "a\uffff"])
def test_control_and_non_characters_in_topics_are_malformed(connected: Connect, version: int, text: str) -> None:
    """§1.5.4: a server may say so, and Mosquitto does"""
    client = connected(version=version)
    client.send(wire.subscribe(1, text, version=version))
    client.expect_closed(0x81)
    client = connected(version=version)
    client.publish(text, b"x")
    client.expect_closed(0x81)


@pytest.mark.parametrize(("slashes", "is_taken"), [(200, True), (201, False)])
def test_topics_of_many_levels(connected: Connect, version: int, slashes: int, is_taken: bool) -> None:
    """200 slashes, as in Mosquitto"""
    topic = "/" * slashes
    client = connected(version=version)
    client.send(wire.subscribe(1, topic, version=version))
    if not is_taken:
        client.expect_closed(0x81)
        client = connected(version=version)
        client.publish(topic, b"x")
        client.expect_closed(0x81)
        return
    client.expect(wire.SUBACK)
    client.publish(topic, b"x")
    client.expect_publish(topic, b"x")


def test_suback_has_a_code_for_each_filter_in_order(connected: Connect, name: str, version: int) -> None:
    """[MQTT-3.8.4-6] [MQTT-3.9.3-1] [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.9.3-2] [MQTT-2.2.1-6]"""
    client = connected(version=version)
    assert client.subscribe((f"{name}/a", 2), (f"{name}/b", 0), (f"{name}/c", 1)) == [2, 0, 1]


def test_subscribe_without_filter_is_wrong(connected: Connect, version: int) -> None:
    """[MQTT-3.8.3-2]"""
    client = connected(version=version)
    client.send(wire.subscribe(1, version=version))
    found = client.next_packet_or_end()
    assert found is None or found.reason_code in (0x81, 0x82)


@pytest.mark.parametrize("flags", [0, 1, 3, 10])
def test_subscribe_flags_are_fixed(connected: Connect, name: str, version: int, flags: int) -> None:
    """[MQTT-3.8.1-1]"""
    client = connected(version=version)
    packet = wire.subscribe(1, name, version=version)
    client.send(bytes((wire.SUBSCRIBE << 4 | flags,)) + packet[1:])
    client.expect_closed(0x81)


@pytest.mark.parametrize("options", [0x03, 0x40, 0x80])
def test_subscribe_options_are_checked(connected: Connect, name: str, version: int, options: int) -> None:
    """[MQTT-3.8.3-5] [MQTT-3.8.3-4] of 3.1.1"""
    client = connected(version=version)
    client.send(wire.subscribe(1, (name, options), version=version))
    found = client.next_packet_or_end()
    assert found is None or found.reason_code in (0x81, 0x82)


def test_subscribe_packet_id_zero_is_wrong(connected: Connect, name: str, version: int) -> None:
    """[MQTT-2.2.1-3]"""
    client = connected(version=version)
    client.send(wire.subscribe(0, name, version=version))
    found = client.next_packet_or_end()
    assert found is None or found.reason_code in (0x81, 0x82)


def test_second_subscription_replaces_the_first(connected: Connect, name: str, version: int) -> None:
    """[MQTT-3.8.4-3]"""
    client = connected(version=version)
    client.subscribe((name, 0))
    client.subscribe((name, 1))
    publisher = connected()
    publisher.publish_acknowledged(name, b"x")
    assert client.expect_publish(name, b"x").qos == 1
    client.expect_nothing()


def test_overlapping_subscriptions_get_the_highest_qos(connected: Connect, name: str, version: int) -> None:
    """[MQTT-3.3.4-2] [MQTT-3.3.5-1] of 3.1.1"""
    subscriber, publisher = connected(version=version), connected()
    subscriber.subscribe((f"{name}/#", 0), (f"{name}/+", 1), (f"{name}/a", 0))
    publisher.publish_acknowledged(f"{name}/a", b"x")
    copies = [subscriber.expect_publish(f"{name}/a", b"x")]
    subscriber.send(wire.pingreq())
    found = subscriber.next_packet()
    while found.packet_type == wire.PUBLISH:
        copies.append(found)
        found = subscriber.next_packet()
    assert max(one.qos for one in copies) == 1
    assert len(copies) == 1, "one copy for a message, as most brokers send"


def test_unsubscribe_ends_delivery(connected: Connect, name: str, version: int) -> None:
    """[MQTT-3.10.4-2] [MQTT-3.10.4-4] [MQTT-3.11.3-1] [MQTT-3.10.4-1] [MQTT-3.10.4-5] [MQTT-3.10.4-6]
    [MQTT-3.11.3-2]"""
    subscriber, publisher = connected(version=version), connected()
    subscriber.subscribe((f"{name}/a", 1), (f"{name}/+", 1))
    codes = subscriber.unsubscribe(f"{name}/+", f"{name}/never")
    assert codes == ([0x00, 0x11] if version == wire.V5 else [])
    publisher.publish_acknowledged(f"{name}/b", b"no")
    publisher.publish_acknowledged(f"{name}/a", b"yes")
    subscriber.expect_publish(f"{name}/a", b"yes")
    subscriber.unsubscribe(f"{name}/a")
    publisher.publish_acknowledged(f"{name}/a", b"no more")
    subscriber.expect_nothing()


@pytest.mark.parametrize("qos", [1, 2])
def test_deliveries_that_have_begun_are_completed_after_unsubscribe(
    connected: Connect, name: str, version: int, qos: int
) -> None:
    """[MQTT-3.10.4-3]"""
    subscriber, publisher = connected(version=version), connected()
    subscriber.subscribe((name, 2))
    publisher.publish_acknowledged(name, b"x", qos)
    found = subscriber.expect(wire.PUBLISH)
    subscriber.unsubscribe(name)
    if qos == 1:
        subscriber.send(wire.acknowledgement(wire.PUBACK, found.packet_id))
    else:
        subscriber.send(wire.acknowledgement(wire.PUBREC, found.packet_id))
        assert subscriber.expect(wire.PUBREL).packet_id == found.packet_id
        subscriber.send(wire.acknowledgement(wire.PUBCOMP, found.packet_id))
    subscriber.expect_nothing()


def test_the_longest_topic_passes(connected: Connect, version: int) -> None:
    """[MQTT-4.7.3-3]"""
    topic = "t" * 65_535
    client = connected(version=version)
    client.subscribe((topic, 1))
    client.publish(topic, b"x")
    client.expect_publish(topic, b"x")


def test_unsubscribe_without_filter_is_wrong(connected: Connect, version: int) -> None:
    """[MQTT-3.10.3-2]"""
    client = connected(version=version)
    client.send(wire.unsubscribe(1, version=version))
    found = client.next_packet_or_end()
    assert found is None or found.reason_code in (0x81, 0x82)


class TestVersion5:
    """Subscription options and identifiers."""

    def test_no_local_keeps_ones_own_away(self, connected: Connect, name: str) -> None:
        """[MQTT-3.8.3-3]"""
        client, other = connected(), connected()
        client.subscribe((name, 1 | NO_LOCAL))
        client.publish_acknowledged(name, b"own")
        other.publish_acknowledged(name, b"other")
        client.expect_publish(name, b"other")

    def test_no_local_beside_a_subscription_without_it(self, connected: Connect, name: str) -> None:
        """[MQTT-3.8.3-3]: each subscription by its own options; one's own come by the second alone"""
        client, other = connected(), connected()
        client.subscribe((f"{name}/#", 2 | NO_LOCAL), properties={wire.SUBSCRIPTION_IDENTIFIER: 1})
        client.subscribe((f"{name}/+", 0), properties={wire.SUBSCRIPTION_IDENTIFIER: 2})
        other.publish_acknowledged(f"{name}/a", b"other")
        found = client.expect_publish(f"{name}/a", b"other")
        assert (found.qos, found.properties[wire.SUBSCRIPTION_IDENTIFIER]) == (1, [1, 2])
        client.publish(f"{name}/a", b"own", 1)
        found = client.expect(wire.PUBLISH)
        assert (found.payload, found.qos, found.properties[wire.SUBSCRIPTION_IDENTIFIER]) == (b"own", 0, [2])
        client.expect(wire.PUBACK)

    def test_retain_as_published_keeps_the_flag(self, connected: Connect, name: str) -> None:
        """[MQTT-3.3.1-12] [MQTT-3.3.1-13]"""
        keeps, clears, publisher = connected(), connected(), connected()
        keeps.subscribe((name, RETAIN_AS_PUBLISHED))
        clears.subscribe((name, 0))
        publisher.publish_acknowledged(name, b"x", retain=True)
        assert keeps.expect_publish(name).retain
        assert not clears.expect_publish(name).retain
        publisher.publish_acknowledged(name, b"y")
        assert not keeps.expect_publish(name, b"y").retain
        publisher.publish_acknowledged(name, b"", retain=True)

    def test_subscription_identifiers_are_told(self, connected: Connect, name: str) -> None:
        """[MQTT-3.3.4-3] [MQTT-3.3.4-4]"""
        subscriber, publisher = connected(), connected()
        subscriber.subscribe(f"{name}/a", properties={wire.SUBSCRIPTION_IDENTIFIER: 7})
        subscriber.subscribe(f"{name}/+", properties={wire.SUBSCRIPTION_IDENTIFIER: 268_435_455})
        publisher.publish(f"{name}/a", b"x", 1)
        assert sorted(subscriber.expect_publish().properties[wire.SUBSCRIPTION_IDENTIFIER]) == [7, 268_435_455]
        subscriber.expect_nothing()

    def test_subscription_identifier_zero_is_refused(self, connected: Connect, name: str) -> None:
        """§3.8.2.1.2; with the reason code that Mosquitto gives"""
        client = connected()
        client.send(wire.subscribe(1, name, subscribe_properties={wire.SUBSCRIPTION_IDENTIFIER: 0}))
        client.expect_closed(0x81)

    @pytest.mark.parametrize("options", [0x03, 0x30])
    def test_qos_3_and_retain_handling_3_are_refused(self, connected: Connect, name: str, options: int) -> None:
        """§3.8.3.1; with the reason code that Mosquitto gives"""
        client = connected()
        client.send(wire.subscribe(1, (name, options)))
        client.expect_closed(0x81)

    def test_no_local_on_a_shared_subscription_is_a_protocol_error(self, connected: Connect, name: str) -> None:
        """[MQTT-3.8.3-4]"""
        client = connected()
        client.send(wire.subscribe(1, (f"$share/g/{name}", NO_LOCAL)))
        client.expect_closed(0x82)
