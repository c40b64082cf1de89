"""Which stream takes a topic, and which streams a filter has to be looked for in."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.stream_map import StreamMap, covers, overlaps
from bridge.streams.memory_log import MemoryLog
from broker.topics.names import matches
from tests.unit.topics.strategies import TOPIC_FILTERS, TOPIC_NAMES

LEVELS = ["a", "b", "$s"]
TOPICS = ["/".join(levels) for depth in (1, 2, 3) for levels in product(LEVELS, repeat=depth)]


@st.composite
def filters(draw: st.DrawFn) -> str:
    levels = draw(st.lists(st.sampled_from([*LEVELS, "+"]), min_size=0, max_size=3))
    if not levels or draw(st.booleans()):
        levels.append("#")
    return "/".join(levels)


@given(filters(), filters())
@settings(max_examples=300)
def test_overlaps_and_covers_agree_with_matching(first: str, second: str) -> None:
    """Topics of one level more than the longest filter are enough to tell filters apart."""
    by_first = {topic for topic in TOPICS if matches(first, topic)}
    by_second = {topic for topic in TOPICS if matches(second, topic)}
    if by_first & by_second:
        assert overlaps(first, second)
    if not overlaps(first, second):
        assert not by_first & by_second
    if covers(first, second):
        assert by_second <= by_first


@given(streams=st.lists(st.lists(TOPIC_FILTERS, min_size=1, max_size=3), max_size=4), topic_name=TOPIC_NAMES)
@settings(max_examples=300, deadline=None)
def test_the_stream_of_a_topic_agrees_with_matching(streams: list[list[str]], topic_name: str) -> None:
    logs = [(MemoryLog(str(number)), topic_filters) for number, topic_filters in enumerate(streams)]
    expected = [log for log, topic_filters in logs if any(matches(each, topic_name) for each in topic_filters)]
    assert StreamMap(logs).stream_for(topic_name) is (expected[0] if expected else None)


def test_the_first_stream_that_matches_takes_the_topic() -> None:
    telemetry, system, default = MemoryLog("telemetry"), MemoryLog("system"), MemoryLog("default")
    streams = StreamMap(
        [(telemetry, ["sensors/#", "meters/+"]), (system, ["$presence/#", "$server/#"]), (default, ["#"])]
    )
    assert streams.stream_for("sensors/a/b") is telemetry
    assert streams.stream_for("meters/a/b") is default
    assert streams.stream_for("$presence/p1") is system
    assert streams.stream_for("$other/p1") is None


def test_streams_for_leaves_out_those_that_cannot_hold_a_match() -> None:
    telemetry, system, default = MemoryLog("telemetry"), MemoryLog("system"), MemoryLog("default")
    streams = StreamMap([(telemetry, ["sensors/#"]), (system, ["$presence/#"]), (default, ["#"])])
    names = {
        ("sensors/p1/#",): ["telemetry"],
        ("#",): ["telemetry", "default"],
        ("a/b",): ["default"],
        ("$presence/p1",): ["system"],
        ("+/p1", "$presence/+"): ["telemetry", "system", "default"],
        ("$nothing/x",): [],
    }
    for topic_filters, expected in names.items():
        assert [log.name for log in streams.streams_for(topic_filters)] == expected
