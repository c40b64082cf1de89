"""RetainedMessages: its limits and its account of bytes."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.topics.names import matches
from broker.topics.retained import RetainedMessages
from tests.unit.topics.strategies import TOPIC_FILTERS, TOPIC_NAMES


class Message(NamedTuple):
    text: str
    size: int


def put(retained: RetainedMessages[Message], topic_name: str, text: str, size: int) -> bool:
    return not retained.put({topic_name: Message(text, size)})


def test_a_message_takes_the_place_of_the_one_before() -> None:
    retained: RetainedMessages[Message] = RetainedMessages(1, 100)
    assert put(retained, "a", "old", 60)
    assert put(retained, "a", "new", 100)
    assert retained.get("a") == Message("new", 100)
    assert (len(retained), retained.bytes) == (1, 100)


def test_over_its_limits_nothing_is_kept_and_nothing_lost() -> None:
    retained: RetainedMessages[Message] = RetainedMessages(2, 100)
    assert put(retained, "a", "1", 60)
    assert not put(retained, "b", "2", 41)
    assert retained.has_room("b", 40)
    assert put(retained, "b", "2", 40)
    assert not put(retained, "c", "3", 1)
    assert not put(retained, "b", "4", 41)
    assert (len(retained), retained.bytes) == (2, 100)
    assert sorted(each.text for each in retained.match("#")) == ["1", "2"]


def test_a_removed_message_gives_its_room_back() -> None:
    retained: RetainedMessages[Message] = RetainedMessages(1, 100)
    put(retained, "a/b", "1", 100)
    for _ in range(2):
        assert retained.put({"a/b": None}) == []
    assert (len(retained), retained.bytes, retained.get("a/b"), retained.match("#")) == (0, 0, None, [])
    assert put(retained, "c", "2", 100)


def test_of_many_those_without_room_are_named() -> None:
    retained: RetainedMessages[Message] = RetainedMessages(2, 100)
    put(retained, "a", "1", 60)
    messages = {"b": Message("2", 50), "a": None, "c": Message("3", 50), "d": Message("4", 40), "e": Message("5", 1)}
    assert retained.put(messages) == ["b", "e"]
    assert sorted(each.text for each in retained.match("#")) == ["3", "4"]
    assert (len(retained), retained.bytes) == (2, 90)


@pytest.mark.parametrize(
    ("topic_names", "size", "has_room"),
    [("aaa", 40, True), ("aaa", 41, False), ("abc", 40, True), ("abca", 40, True), ("abcd", 1, False)],
)
def test_many_have_room_when_each_has_it_whatever_comes_of_the_others(
    topic_names: str, size: int, has_room: bool
) -> None:
    retained: RetainedMessages[Message] = RetainedMessages(3, 100)
    put(retained, "a", "1", 60)
    assert retained.have_room(topic_names, size) is has_room


def test_messages_may_be_removed_while_matches_are_read() -> None:
    retained: RetainedMessages[Message] = RetainedMessages(10, 100)
    for topic_name in ("a/b", "a/c", "a"):
        put(retained, topic_name, topic_name, 1)
    for message in retained.match("a/#"):
        retained.put({message.text: None})
    assert len(retained) == 0


@settings(max_examples=60, deadline=None)
@given(topic_names=st.sets(TOPIC_NAMES, max_size=12), topic_filter=TOPIC_FILTERS)
def test_a_filter_finds_what_the_model_finds(topic_names: set[str], topic_filter: str) -> None:
    retained: RetainedMessages[Message] = RetainedMessages(100, 10_000)
    for topic_name in topic_names:
        put(retained, topic_name, topic_name, len(topic_name))
    assert retained.bytes == sum(map(len, topic_names))
    found = sorted(message.text for message in retained.match(topic_filter))
    assert found == sorted(name for name in topic_names if matches(topic_filter, name))


@settings(max_examples=60, deadline=None)
@given(topic_names=st.sets(TOPIC_NAMES, max_size=12), topic_filter=TOPIC_FILTERS)
def test_a_walk_finds_the_same_once_each(topic_names: set[str], topic_filter: str) -> None:
    retained: RetainedMessages[Message] = RetainedMessages(100, 10_000)
    for topic_name in topic_names:
        put(retained, topic_name, topic_name, len(topic_name))
    walk = retained.walk(topic_filter)
    found: list[str] = []
    while names := walk.take(2):
        found += names
    assert sorted(found) == sorted(message.text for message in retained.match(topic_filter))


def test_a_walk_goes_on_while_messages_come_and_go() -> None:
    retained: RetainedMessages[Message] = RetainedMessages(1_000, 100_000)
    for number in range(100):
        put(retained, f"a/{number % 10}/{number}", str(number), 1)
    walk = retained.walk("a/#")
    found: list[str] = []
    while names := walk.take(7):
        found += names
        retained.put(dict.fromkeys(names))
        for name in names:
            put(retained, f"b/{name}", "another", 1)
    assert sorted(found) == sorted(f"a/{number % 10}/{number}" for number in range(100))
    assert len(retained) == 100
