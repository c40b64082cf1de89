"""Validation and matching by the examples of the standard (MQTT 5 §4.7, §4.8.2)."""

from __future__ import annotations

import pytest

from broker.codec.errors import MalformedPacket, TopicFilterInvalid, TopicNameInvalid
from broker.topics.names import LEVELS_MAX, matches, split_shared, validate_topic_filter, validate_topic_name

MATCHES = [
    ("sport/tennis/player1/#", "sport/tennis/player1"),
    ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
    ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
    ("sport/#", "sport"),
    ("#", "sport/tennis"),
    ("#", "/"),
    ("sport/tennis/+", "sport/tennis/player1"),
    ("sport/+", "sport/"),
    ("+", "sport"),
    ("+/+", "/finance"),
    ("/+", "/finance"),
    ("+/tennis/#", "sport/tennis"),
    ("a//b", "a//b"),
    ("a/+/b", "a//b"),
    ("$SYS/#", "$SYS/monitor"),
    ("$SYS/monitor/+", "$SYS/monitor/Clients"),
    ("a/+", "a/$b"),
    ("a/#", "a/$b"),
]
NO_MATCHES = [
    ("sport/tennis/+", "sport/tennis/player1/ranking"),
    ("sport/+", "sport"),
    ("+", "/finance"),
    ("sport/#", "sports"),
    ("a/b", "A/b"),
    ("a", "a/"),
    ("a/", "a"),
    ("/a", "a"),
    ("a/b/c", "a/b"),
    ("a/b", "a/b/c"),
    ("#", "$SYS/monitor"),
    ("+/monitor/Clients", "$SYS/monitor/Clients"),
    ("+", "$SYS"),
]


@pytest.mark.parametrize(("topic_filter", "topic_name"), MATCHES)
def test_a_filter_takes_a_name(topic_filter: str, topic_name: str) -> None:
    assert matches(topic_filter, topic_name)


@pytest.mark.parametrize(("topic_filter", "topic_name"), NO_MATCHES)
def test_a_filter_does_not_take_a_name(topic_filter: str, topic_name: str) -> None:
    """[MQTT-4.7.2-1], [MQTT-4.7.3-4]"""
    assert not matches(topic_filter, topic_name)


@pytest.mark.parametrize(
    "topic_name", ["a", "/", " ", "a b", "é/\U0001f600", "$SYS/x", "a" * 65_535, "/" * (LEVELS_MAX - 1)]
)
def test_a_name_is_valid(topic_name: str) -> None:
    assert validate_topic_name(topic_name.encode()) == topic_name


@pytest.mark.parametrize("topic_name", ["", "a/+", "#", "a+b", "/" * LEVELS_MAX])
def test_a_name_is_not_valid(topic_name: str) -> None:
    with pytest.raises(TopicNameInvalid):
        validate_topic_name(topic_name.encode())


@pytest.mark.parametrize("topic", [b"a\0", b"\xff", b"\xed\xa0\x80"])
def test_a_name_is_utf_8_without_null(topic: bytes) -> None:
    with pytest.raises(MalformedPacket):
        validate_topic_name(topic)


@pytest.mark.parametrize(
    "topic_filter",
    ["#", "+", "/", "a/#", "+/+", "a/+/#", "+/a/b", "/+/", "$share/g/a", "$share/g/#", "$share/g//", "$shared"],
)
def test_a_filter_is_valid(topic_filter: str) -> None:
    validate_topic_filter(topic_filter)


@pytest.mark.parametrize(
    "topic_filter",
    [
        *("", "a#", "#/a", "a/#/b", "##", "a+", "+a", "a/+b/c", "a/b#", "a\0", "/" * LEVELS_MAX),
        *("$share", "$share/", "$share/g", "$share/g/", "$share//a", "$share/g+/a", "$share/#/a", "$share/g/a#"),
    ],
)
def test_a_filter_is_not_valid(topic_filter: str) -> None:
    """[MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.8.2-1] [MQTT-4.8.2-2]"""
    with pytest.raises(TopicFilterInvalid):
        validate_topic_filter(topic_filter)


def test_a_shared_filter_is_split() -> None:
    assert split_shared("$share/group/a/#") == ("group", "a/#")
    assert split_shared("$share/group//a") == ("group", "/a")
    assert split_shared("a/b") == ("", "a/b")
