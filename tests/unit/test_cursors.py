"""Cursors: what goes out comes back, and nothing else is taken for one."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.cursors import (
    CURSOR_BYTES_MAX,
    SPOOL,
    Cursor,
    CursorInvalid,
    CursorTooLong,
    MovingPosition,
    StreamPosition,
)

names = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True)
epochs = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
offsets = st.integers(0, 2**62)
plain_positions = st.builds(
    StreamPosition, epochs, st.dictionaries(st.integers(0, 300), offsets, min_size=1, max_size=4)
)
spooled_positions = st.builds(
    lambda epoch, places, spool_epoch, offset: StreamPosition(epoch, {**places, SPOOL: offset}, spool_epoch),
    epochs,
    st.dictionaries(st.integers(0, 300), offsets, max_size=4),
    epochs,
    offsets,
)
positions = plain_positions | spooled_positions
cursors = st.builds(Cursor, st.dictionaries(names, positions, max_size=4))


@given(cursors)
def test_text_comes_back_as_the_same_cursor(cursor: Cursor) -> None:
    text = str(cursor)
    assert re.fullmatch(r"[A-Za-z0-9._~-]+", text)
    assert Cursor.parse(text) == cursor


@given(cursors, st.data())
def test_head_offset_tail_is_the_text_with_that_offset(cursor: Cursor, data: st.DataObject) -> None:
    if not cursor.position_by_stream:
        return
    stream = data.draw(st.sampled_from(sorted(cursor.position_by_stream)))
    position = cursor.position_by_stream[stream]
    partition = data.draw(st.sampled_from(sorted(position.offset_by_partition)))
    head, tail = cursor.around(stream, partition)
    moved = Cursor(
        dict(cursor.position_by_stream)
        | {stream: replace(position, offset_by_partition={**position.offset_by_partition, partition: 77})}
    )
    assert f"{head}77{tail}" == str(moved)


@given(st.lists(st.dictionaries(st.sampled_from((0, 1, 2, 11, SPOOL)), st.integers(0, 200)), min_size=1, max_size=4))
def test_a_moving_position_says_what_each_of_its_places_would(moves: list[dict[int, int]]) -> None:
    offsets = {0: 5, 2: 7, 11: 0, SPOOL: 3}
    moving = MovingPosition("s", "e", "p", offsets)
    for move in moves:
        offsets = offsets | {partition: offset for partition, offset in move.items() if partition in offsets}
        position = StreamPosition("e", offsets, "p")
        for partition in offsets:
            assert moving.around(offsets, partition) == position.around("s", partition)


def test_a_moving_position_without_partitions_or_spool_says_so() -> None:
    assert MovingPosition("s", "e", "p", ()).around({SPOOL: 3}, SPOOL) == ("s~e~-~p~", "")
    assert MovingPosition("s", "e", "p", (0,)).around({0: 4}, 0) == ("s~e~0.", "~p~0")


@given(st.text(max_size=60))
def test_any_text_is_a_cursor_or_is_refused(text: str) -> None:
    try:
        cursor = Cursor.parse(text)
    except CursorInvalid:
        return
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage",
        "42",
        "a~e",
        "a~e~",
        "a~e~0",
        "a~e~0.",
        "a~e~0.-1",
        "a~e~0.01",
        "a~e~0.5_0.6",
        "a~e~0.5~~a~e~0.6",
        "a~e.1~0.5",
        "a~e~-",
        "a~e~0.5~s",
        "a~e~0.5~s~",
        "a~e~0.5~s~01",
        "a~e~0.5~s~1~2",
        "a~e~0.5\n",
        "a~e~0.5 ",
        "ü~e~0.5",
        "~~",
        "a~e~0." + "9" * 20,
        "a~e~0.5~~",
    ],
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(CursorInvalid):
        Cursor.parse(text)


def test_too_long_a_text_is_refused() -> None:
    with pytest.raises(CursorInvalid, match="at most 2048"):
        Cursor.parse("a" * (CURSOR_BYTES_MAX + 1))


def test_280_partitions_fit_and_too_many_are_an_error() -> None:
    few = Cursor({"s": StreamPosition("e", {0: 5} | {n: 7 for n in range(1, 250)})})
    assert len(str(few)) <= CURSOR_BYTES_MAX
    many = Cursor({"s": StreamPosition("e", dict.fromkeys(range(500), 10**9))})
    with pytest.raises(CursorTooLong):
        str(many)
    with pytest.raises(CursorTooLong):
        many.around("s")


def test_no_stream_has_a_text_too() -> None:
    assert Cursor.parse(str(Cursor({}))) == Cursor({})
