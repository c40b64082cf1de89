"""Numbers out of payloads."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.history.numbers import PointerInvalid, numbers_at, parse_pointer

RFC_6901 = b'{"foo":["bar","baz",7],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\\\j":5,"k\\"l":6," ":7,"m~n":8}'


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("/foo/2", [7]),
        ("/", [0]),
        ("/a~1b", [1]),
        ("/c%d", [2]),
        ("/e^f", [3]),
        ("/g|h", [4]),
        ("/i\\j", [5]),
        ('/k"l', [6]),
        ("/ ", [7]),
        ("/m~0n", [8]),
        ("", []),
        ("/foo", []),
        ("/foo/0", []),
        ("/foo/3", []),
        ("/foo/-", []),
        ("/foo/02", []),
        ("/foo/0/deeper", []),
        ("/nothing", []),
    ],
)
def test_pointer_finds_what_rfc_6901_says(pointer: str, found: list[int]) -> None:
    assert numbers_at([RFC_6901], parse_pointer(pointer)) == found


@pytest.mark.parametrize("text", ["temp", "temp/", "#/temp", "/a~", "/a~2b", " "])
def test_text_that_is_no_pointer_is_refused(text: str) -> None:
    with pytest.raises(PointerInvalid):
        parse_pointer(text)


def test_pointer_goes_into_objects_and_arrays() -> None:
    assert numbers_at([b'{"x":{"y":[{"z":9}]}}', b'{"x":{"y":[]}}'], ("x", "y", "0", "z")) == [9]


def test_only_numbers_are_numbers() -> None:
    payloads = [
        b"1",
        b"-2.5",
        b"1e3",
        b"true",
        b"null",
        b'"3"',
        b"[4]",
        b"NaN",
        b"",
        b"  5 ",
        b"6 7",
        b"1e999",
        b"\xff",
    ]
    assert numbers_at(payloads, ()) == [1, -2.5, 1000.0, 5]
    assert numbers_at([b"true", b"false"], ()) == []
    assert numbers_at([], ()) == []


def test_payloads_that_are_json_only_together_are_none() -> None:
    assert numbers_at([b"1,2", b"[3", b"4]"], ()) == []
    assert numbers_at([b"1],[2", b"[[3", b"4]]", b"5"], ()) == [5]
    assert numbers_at([b'"a', b'b"', b"6"], ()) == [6]
    assert numbers_at([b'{"t":1},{"t":2}', b'{"a":[{}', b"{}]}"], ("t",)) == []


PIECES = st.sampled_from([b"1", b"2.5", b",", b"[", b"]", b"{", b"}", b'"t"', b":", b'"', b" ", b"true", b'{"t":3}'])


@given(
    st.lists(st.lists(PIECES, max_size=6).map(b"".join), max_size=8), st.sampled_from([(), ("t",), ("t", "t"), ("0",)])
)
def test_many_at_once_are_the_same_as_one_by_one(payloads: list[bytes], pointer: tuple[str, ...]) -> None:
    expected = []
    for payload in payloads:
        try:
            value = orjson.loads(payload)
        except orjson.JSONDecodeError:
            continue
        for token in pointer:
            if isinstance(value, dict):
                value = value.get(token)
            else:
                value = value[0] if isinstance(value, list) and token == "0" and value else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            expected.append(value)
    assert numbers_at(payloads, pointer) == expected
