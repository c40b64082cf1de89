"""The pure function behind presence, and how a client is named on the wire."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.presence.state import BY_REASON, RESTARTED, Change, Presence, apply, presence_json, presence_topic
from broker.presence import CONNECTED, DISCONNECTED, SESSION_ENDED
from broker.protocol.close_reason import CloseReason
from broker.topics.names import validate_topic_name

PAGE = Path(__file__).parents[3] / "docs" / "presence.md"
NO_PRESENCE = {CloseReason.CONNECT_TIMEOUT, CloseReason.TAKEN_OVER}
"""Ends of connections that had no client id, or that lost it to another connection of the client."""


def connected(claim: int, time_ms: int = 1000) -> Change:
    return Change(CONNECTED, "c", claim, time_ms, "", True)


def gone(claim: int, time_ms: int = 1000, reason: str = "connection_lost", *, kept: bool = False) -> Change:
    return Change(DISCONNECTED, "c", claim, time_ms, reason, kept)


def after(*changes: Change) -> tuple[Presence | None, list[Presence]]:
    state: Presence | None = None
    told: list[Presence] = []
    for change in changes:
        state, events = apply(state, change)
        told += events
    return state, told


def shown(told: list[Presence]) -> list[tuple[int, bool, bool, str, str]]:
    return [(each.seq, each.online, each.session, each.reason, each.by) for each in told]


def test_connect_disconnect_and_the_end_of_the_session_are_three_changes() -> None:
    expired = Change(SESSION_ENDED, "c", 0, 1000, "session_expired", False)
    _, told = after(connected(1), gone(1, kept=True), expired)
    assert shown(told) == [
        (1, True, True, "connected", "device"),
        (2, False, True, "connection_lost", "network"),
        (3, False, False, "session_expired", "server"),
    ]


def test_take_over_is_a_change_that_never_shows_as_offline() -> None:
    """The old connection's end comes in whatever order: it does not have the client any more."""
    _, told = after(connected(1), connected(2), gone(1, reason="taken_over"), gone(1))
    assert shown(told) == [(1, True, True, "connected", "device"), (2, True, True, "taken_over", "device")]


def test_an_older_claim_does_not_take_a_client_back() -> None:
    state, told = after(connected(5), connected(4))
    assert len(told) == 1
    assert state is not None
    assert state.claim == 5


def test_a_session_does_not_end_under_its_client() -> None:
    _, told = after(connected(1), Change(SESSION_ENDED, "c", 0, 1000, "session_expired", False))
    assert len(told) == 1


def test_time_never_falls_when_the_clock_is_set_back() -> None:
    _, told = after(connected(1, 5000), gone(1, 1000))
    assert [each.time_ms for each in told] == [5000, 5000]


@pytest.mark.parametrize(
    ("before", "has_session", "told_online"),
    [
        ((connected(1),), False, [(2, False, False)]),
        ((connected(1),), True, [(2, False, True)]),
        ((connected(1), gone(1, kept=True)), False, [(3, False, False)]),
        ((connected(1), gone(1, kept=True)), True, []),
        ((connected(1), gone(1)), False, []),
    ],
)
def test_a_restart_leaves_nobody_hanging(
    before: tuple[Change, ...], has_session: bool, told_online: list[tuple[int, bool, bool]]
) -> None:
    """Of those that were offline it is news only if their session is lost."""
    state, _ = after(*before)
    _, events = apply(state, Change(RESTARTED, "c", 0, 2000, "", has_session))
    assert [(each.seq, each.online, each.session) for each in events] == told_online
    assert all((each.reason, each.by) == ("server_restart", "server") for each in events)


@given(
    st.lists(
        st.builds(
            Change,
            st.sampled_from([CONNECTED, DISCONNECTED, SESSION_ENDED, RESTARTED]),
            st.just("c"),
            st.integers(1, 4),
            st.integers(0, 50),
            st.just("connection_lost"),
            st.booleans(),
        )
    )
)
def test_any_course_of_changes_is_numbered_without_a_gap_and_tells_news_only(changes: list[Change]) -> None:
    _, told = after(*changes)
    assert [each.seq for each in told] == list(range(1, len(told) + 1))
    assert [each.time_ms for each in told] == sorted(each.time_ms for each in told)
    for one, other in itertools.pairwise(told):
        is_news = (one.online, one.session) != (other.online, other.session)
        assert is_news or other.reason == "taken_over"
        assert other.session or not other.online


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=40))
def test_every_client_has_a_topic_of_one_level(client_id: str) -> None:
    topic_name = presence_topic(client_id)
    assert validate_topic_name(topic_name.encode()) == topic_name
    assert topic_name.startswith("$presence/")
    assert topic_name.count("/") == 1


def test_only_what_may_not_stand_in_a_level_is_encoded() -> None:
    assert presence_topic("50%/a+b#c\n\x85é ~") == "$presence/50%25%2Fa%2Bb%23c%0A%C2%85é ~"


def test_payload_is_what_the_api_says() -> None:
    presence = Presence('a"b', 7, False, True, 1_800_000_000_123, "keep_alive_timeout", "network", 0)
    assert orjson.loads(presence_json(presence)) == {
        "client_id": 'a"b',
        "online": False,
        "session": True,
        "seq": 7,
        "time": "2027-01-15T08:00:00.123Z",
        "reason": "keep_alive_timeout",
        "by": "network",
    }


def test_the_page_lists_every_reason_with_who_is_behind_it() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| ([a-z]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(rows) == BY_REASON
    assert len(rows) == len(BY_REASON)


def test_every_end_of_a_connection_has_its_reason() -> None:
    assert {str(reason) for reason in set(CloseReason) - NO_PRESENCE} <= BY_REASON.keys()
