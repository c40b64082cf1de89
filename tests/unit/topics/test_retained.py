"""RetainedMessages: its limits and its account of bytes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.topics.names import matches
from broker.topics.retained import RetainedMessages
from tests.unit.topics.strategies import TOPIC_FILTERS, TOPIC_NAMES


def test_a_message_takes_the_place_of_the_one_before() -> None:
    retained: RetainedMessages[str] = RetainedMessages(1, 100)
    assert retained.put("a", "old", 60)
    assert retained.put("a", "new", 100)
    assert retained.get("a") == "new"
    assert (len(retained), retained.bytes) == (1, 100)


def test_over_its_limits_nothing_is_kept_and_nothing_lost() -> None:
    retained: RetainedMessages[str] = RetainedMessages(2, 100)
    assert retained.put("a", "1", 60)
    assert not retained.put("b", "2", 41)
    assert retained.has_room("b", 40)
    assert retained.put("b", "2", 40)
    assert not retained.put("c", "3", 0)
    assert not retained.put("b", "4", 41)
    assert (len(retained), retained.bytes) == (2, 100)
    assert retained.match("#") in (["1", "2"], ["2", "1"])


def test_a_removed_message_gives_its_room_back() -> None:
    retained: RetainedMessages[str] = RetainedMessages(1, 100)
    retained.put("a/b", "1", 100)
    assert retained.remove("a/b")
    assert not retained.remove("a/b")
    assert (len(retained), retained.bytes, retained.get("a/b")) == (0, 0, None)
    assert retained.put("c", "2", 100)


def test_messages_may_be_removed_while_matches_are_read() -> None:
    retained: RetainedMessages[str] = RetainedMessages(10, 100)
    for topic_name in ("a/b", "a/c", "a"):
        retained.put(topic_name, topic_name, 1)
    for topic_name in retained.match("a/#"):
        retained.remove(topic_name)
    assert len(retained) == 0


@settings(max_examples=60, deadline=None)
@given(topic_names=st.sets(TOPIC_NAMES, max_size=12), topic_filter=TOPIC_FILTERS)
def test_a_filter_finds_what_the_model_finds(topic_names: set[str], topic_filter: str) -> None:
    retained: RetainedMessages[str] = RetainedMessages(100, 10_000)
    for topic_name in topic_names:
        retained.put(topic_name, topic_name, len(topic_name))
    assert retained.bytes == sum(map(len, topic_names))
    assert sorted(retained.match(topic_filter)) == sorted(name for name in topic_names if matches(topic_filter, name))
