"""The state before a place is what replaying the records up to there leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.history.state import StateAnswer, StateQuestion, merged
from bridge.streams.memory_log import MemoryLog
from tests.support.log_contract import RunMaker
from tests.unit.history.parts import Sent, StoredStream, chosen, sent_of, stored_stream

TOPICS = ["a/1", "a/2", "b/1", "B/temp", "$server/x", "c/é"]
ENCODED = b"\x00\x03a/1"
FILTERS: list[tuple[str, ...]] = [("#",), ("a/1",), ("a/+", "b/1"), ("nothing",), ("$server/#",)]
rows = st.lists(
    st.tuples(st.sampled_from(TOPICS), st.sampled_from([b"1", ENCODED, b"x" * 300])), min_size=1, max_size=6
)
runs = st.lists(st.tuples(rows, st.integers(0, 30), st.sampled_from(["p1", "p2"])), min_size=1, max_size=25)
Runs = list[tuple[list[tuple[str, bytes]], int, str]]
wishes = st.fixed_dictionaries(
    {},
    optional={
        "after": st.sampled_from(["a/1", "b", "$", "zz"]),
        "name_part": st.sampled_from(["a", "temp", "/1", "é"]),
        "last_client_id": st.sampled_from(["p1", "p3"]),
        "from_ms": st.integers(990, 1_300),
        "limit": st.integers(1, 3),
    },
)


def replayed(sent: Sequence[Sent], filters: tuple[str, ...], end: int, wish: dict[str, Any]) -> list[tuple[str, int]]:
    """Topic and offset of what is left of each topic."""
    last: dict[str, Sent] = {}
    for each in chosen(sent[:end], filters, wish.get("from_ms", 0)):
        last[each.topic] = each
    found = [
        (topic, each.offset)
        for topic, each in sorted(last.items())
        if topic > wish.get("after", "")
        and wish.get("name_part", "") in topic.lower()
        and wish.get("last_client_id", each.client_id) == each.client_id
    ]
    return found[: wish.get("limit", 100)]


def question(filters: tuple[str, ...], epoch: str, end: int, wish: dict[str, Any]) -> StateQuestion:
    return StateQuestion("telemetry", epoch, filters, 0, end, topics_max=100, **{"limit": 100} | wish)


def found_in(answer: StateAnswer) -> list[tuple[str, int]]:
    found = []
    for record in answer:
        shown = orjson.loads(record.line + b"}")
        assert shown["topic"] == record.topic
        found.append((record.topic, shown["offset"]))
    return found


@settings(deadline=None, max_examples=80)
@given(runs, st.sampled_from(FILTERS), wishes, st.data())
def test_stored_state_is_what_a_replay_leaves(
    drawn: Runs, filters: tuple[str, ...], wish: dict[str, Any], data: st.DataObject
) -> None:
    with stored_stream() as stream:
        store(stream, drawn, data)
        end = data.draw(st.integers(0, len(stream.sent)), "end")
        answer = stream.ask(question(filters, stream.EPOCH, end, wish))
        assert found_in(answer) == replayed(stream.sent, filters, end, wish)
        assert answer.is_complete


def store(stream: StoredStream, drawn: Runs, data: st.DataObject) -> None:
    time_ms = 1_000
    group = []
    for published, wait_ms, client_id in drawn:
        time_ms += wait_ms
        topics, payloads = zip(*published, strict=True)
        group.append(stream.maker.run(payloads, topics=topics, time_ms=time_ms, client_id=client_id))
        if data.draw(st.integers(0, 2), "commit") == 0:
            stream.store(*group)
            group = []
            if data.draw(st.integers(0, 5), "merge") == 0:
                stream.merge()
            if data.draw(st.integers(0, 5), "seal") == 0:
                stream.seal(data.draw(st.integers(1, 3), "rows"))
    if group:
        stream.store(*group)


@settings(deadline=None, max_examples=40)
@given(runs, st.sampled_from(FILTERS), wishes, st.data())
def test_kept_state_is_what_a_replay_leaves(
    drawn: Runs, filters: tuple[str, ...], wish: dict[str, Any], data: st.DataObject
) -> None:
    log = MemoryLog("telemetry", clock=lambda: 1_000)
    maker = RunMaker(log)
    sent: list[Sent] = []
    time_ms = 1_000
    for published, wait_ms, client_id in drawn:
        time_ms += wait_ms
        topics, payloads = zip(*published, strict=True)
        run = maker.run(payloads, topics=topics, time_ms=time_ms, client_id=client_id)
        log.append(run)
        log.flush()
        sent += sent_of(run)
    end = data.draw(st.integers(0, len(sent)), "end")
    answer = asyncio.run(log.scan(question(filters, log.epoch, end, wish)))
    assert found_in(answer) == replayed(sent, filters, end, wish)
    assert answer.is_complete


def test_states_of_several_streams_are_one_with_the_later_of_each_topic() -> None:
    answers = []
    for time_ms, topics in ((1_000, ["a", "b"]), (2_000, ["b", "c"]), (1_500, ["b", "d"])):
        with stored_stream() as stream:
            stream.store(stream.maker.run([b"%d" % time_ms] * 2, topics=topics, time_ms=time_ms))
            answers.append(stream.ask(question(("#",), stream.EPOCH, 2, {})))
    assert [(each.topic, each.time_ms) for each in merged(answers)] == [
        ("a", 1_000), ("b", 2_000), ("c", 2_000), ("d", 1_500),
    ]  # fmt: skip


def test_a_search_that_may_do_no_more_gives_the_newest() -> None:
    with stored_stream() as stream:
        for number in range(50):
            stream.store(stream.maker.run([b"1"], topics=[f"t/{number:02}"], time_ms=1_000 + number))
        answer = stream.ask(question(("#",), stream.EPOCH, 50, {"work_max": 30}))
        assert not answer.is_complete
        names = [each.topic for each in answer]
        assert 0 < len(names) < 50
        assert names == [f"t/{number:02}" for number in range(50 - len(names), 50)]
        assert answer.last_ms == 1_050 - len(names)
