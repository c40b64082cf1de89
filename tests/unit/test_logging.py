"""The log: its lines, its JSON, and repeats that are counted."""

from __future__ import annotations

import io
import json
import logging

import pytest

from bridge.logging import JsonFormatter, LogWriter, TextFormatter
from tests.support.clock import FakeClock

AT = 1_795_317_127.25


def record(
    message: str, level: int = logging.WARNING, name: str = "headrace.mqtt", **fields: object
) -> logging.LogRecord:
    """A record of a fixed time."""
    made = logging.makeLogRecord(
        {"name": "headrace.mqtt", "levelno": level, "msg": message, "created": AT, "fields": fields}
    )
    return made


def test_text_line_has_time_level_part_sentence_and_fields() -> None:
    line = TextFormatter().format(record("device refused", reason="wrong_password", user="esp32", times=3))
    assert line == "2026-11-22T03:12:07.250Z WARN  mqtt  device refused  reason=wrong_password user=esp32 times=3"


def test_text_line_quotes_what_would_not_be_one_word() -> None:
    line = TextFormatter().format(record("odd", client='a "b"\n', empty=""))
    assert line.endswith('mqtt  odd  client="a \\"b\\"\\n" empty=""')


def test_colour_is_only_for_terminals() -> None:
    assert "\x1b[" not in TextFormatter().format(record("x"))
    assert "\x1b[33mWARN \x1b[0m" in TextFormatter(has_colour=True).format(record("x"))


def test_json_line_says_the_same() -> None:
    assert json.loads(JsonFormatter().format(record("device refused", user="esp32"))) == {
        "time": "2026-11-22T03:12:07.250Z",
        "level": "warn",
        "part": "mqtt",
        "message": "device refused",
        "user": "esp32",
    }


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_traceback_is_written(formatter: logging.Formatter) -> None:
    try:
        raise RuntimeError("a bug")
    except RuntimeError as error:
        made = record("failed", logging.ERROR)
        made.exc_info = (RuntimeError, error, error.__traceback__)
    assert "RuntimeError: a bug" in formatter.format(made)


class Output:
    """A LogWriter and what it wrote."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self._stream = io.StringIO()
        self.writer = LogWriter(self._stream, lambda: self.clock() / 1_000)
        self.writer.setFormatter(TextFormatter())

    def lines(self) -> list[str]:
        """The lines without time, level and part."""
        return [line.split("mqtt  ", 1)[1] for line in self._stream.getvalue().splitlines()]


@pytest.fixture
def output() -> Output:
    return Output()


def test_repeats_are_counted_and_told_after_a_minute(output: Output) -> None:
    for _ in range(5):
        output.writer.handle(record("device refused", client="a"))
    assert output.lines() == ["device refused  client=a"]
    output.clock.advance(s=59)
    output.writer.write_repeats()
    assert len(output.lines()) == 1
    output.clock.advance(s=1)
    output.writer.write_repeats()
    assert output.lines()[1:] == ["device refused  client=a times=4"]


def test_line_that_goes_on_repeating_comes_once_a_minute(output: Output) -> None:
    for _ in range(180):
        output.writer.handle(record("again"))
        output.clock.advance(s=1)
    assert output.lines() == ["again", "again  times=59", "again  times=60"]


def test_line_that_was_silent_for_a_minute_is_new(output: Output) -> None:
    output.writer.handle(record("now and then"))
    output.clock.advance(s=61)
    output.writer.handle(record("now and then"))
    assert output.lines() == ["now and then", "now and then"]


def test_lines_with_other_fields_are_not_repeats(output: Output) -> None:
    output.writer.handle(record("device refused", client="a"))
    output.writer.handle(record("device refused", client="b"))
    assert len(output.lines()) == 2


def test_end_tells_what_was_counted(output: Output) -> None:
    for _ in range(3):
        output.writer.handle(record("again"))
    output.writer.write_repeats(is_end=True)
    assert output.lines() == ["again", "again  times=2"]


def test_watched_lines_are_bounded(output: Output) -> None:
    for number in range(3_000):
        output.writer.handle(record(f"line {number}"))
    assert len(output.lines()) == 3_000
    assert len(output.writer._repeat_by_key) <= 1_000
