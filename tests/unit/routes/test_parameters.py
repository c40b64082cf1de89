"""Times, filters and numbers as queries write them."""

from __future__ import annotations

import pytest

from bridge.errors import ParameterInvalid
from bridge.live.limits import LiveLimits
from bridge.routes.parameters import parse_choice, parse_filters, parse_flag, parse_number, parse_time

NOW = 1_795_374_000_000  # 2026-11-22T19:00:00Z


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("now", NOW),
        ("-15m", NOW - 900_000),
        ("-24h", NOW - 86_400_000),
        ("-250ms", NOW - 250),
        ("-999999999w", 0),
        ("0", 0),
        ("1795374000000", NOW),
        ("2026-11-22T19:00:00Z", NOW),
        ("2026-11-22T19:00:00.250Z", NOW + 250),
        ("2026-11-22T20:00:00+01:00", NOW),
        ("2026-11-22T20:00:00 01:00", NOW),
        ("2026-11-22T18:00:00-01:00", NOW),
        ("1969-01-01T00:00:00Z", 0),
    ],
)
def test_times(text: str, time_ms: int) -> None:
    assert parse_time("since", text, NOW) == time_ms


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-22T19:00:00", "15m", "-15", "-m", "1e9", "٣", "-15m "])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ParameterInvalid) as caught:
        parse_time("since", text, NOW)
    assert caught.value.parameter == "since"


def test_equal_sets_of_filters_are_equal() -> None:
    limits = LiveLimits()
    assert parse_filters("topic", ["b", "a/#", "b"], limits) == parse_filters("topic", ["a/#", "b"], limits)


def test_choices_flags_and_numbers() -> None:
    assert parse_choice("order", "asc", ("asc", "desc")) == "asc"
    with pytest.raises(ParameterInvalid, match="'parquet' is none of json, csv"):
        parse_choice("format", "parquet", ("json", "csv"))
    assert parse_flag("snapshot", "1")
    assert not parse_flag("snapshot", "0")
    assert parse_number("limit", "7", 1, 10) == 7
    for text in ("0", "11", "x", "1.5", "", "٣"):
        with pytest.raises(ParameterInvalid):
            parse_number("limit", text, 1, 10)
