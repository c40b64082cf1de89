"""What the server says about itself, on stderr: time, level, part, sentence, fields; or the same as one JSON object.

A line that repeats is written once and then counted: at most once a minute it comes again with `times=N`. Fields are
given as `extra={"fields": {...}}`; payloads and secrets never are.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TextIO

import orjson

REPEAT_S = 60.0
REPEATS_MAX = 1_000
"""Different lines that are watched for repeats; over it the oldest is told and forgotten."""

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
LEVEL_NAMES = {logging.DEBUG: "DEBUG", logging.INFO: "INFO", logging.WARNING: "WARN", logging.ERROR: "ERROR"}
COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}
END_COLOUR = "\x1b[0m"
OWN_PREFIX = "headrace."
LIBRARY_PARTS = {"uvicorn.error": "http", "uvicorn": "http", "asyncio": "loop"}
MISLEADING = "No supported WebSocket library"
"""Begins uvicorn's advice to install what this server does not need: it speaks WebSocket by itself."""


def _time_text(seconds: float) -> str:
    whole, milliseconds = divmod(int(seconds * 1_000), 1_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03d}Z"


def _level_text(level: int) -> str:
    return LEVEL_NAMES.get(level, "ERROR" if level > logging.ERROR else "DEBUG")


def _part(record: logging.LogRecord) -> str:
    return LIBRARY_PARTS.get(record.name) or record.name.removeprefix(OWN_PREFIX)


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, Mapping) else {}


def _field_text(value: object) -> str:
    text = str(value)
    is_plain = text != "" and text.isprintable() and not any(character in text for character in ' "=')
    return text if is_plain else orjson.dumps(text).decode()


class TextFormatter(logging.Formatter):
    """`2026-11-22T03:12:07.250Z WARN  mqtt  device refused  reason=wrong_password client=esp32-1`"""

    def __init__(self, *, has_colour: bool = False) -> None:
        super().__init__()
        self._has_colour = has_colour

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback below it when the record has one."""
        level = f"{_level_text(record.levelno):5}"
        if self._has_colour and record.levelno in COLOURS:
            level = f"{COLOURS[record.levelno]}{level}{END_COLOUR}"
        part = _part(record)
        sentence = record.getMessage().replace("\n", " ")
        fields = " ".join(f"{name}={_field_text(value)}" for name, value in _fields(record).items())
        line = f"{_time_text(record.created)} {level} {part}  {sentence}" + (f"  {fields}" if fields else "")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """The same as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry: dict[str, object] = {
            "time": _time_text(record.created),
            "level": _level_text(record.levelno).lower(),
            "part": _part(record),
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(entry, default=str).decode()


@dataclass(slots=True)
class Repeat:
    """A line that was written and may come again."""

    record: logging.LogRecord
    written_at: float
    times: int = 0


class LogWriter(logging.StreamHandler[TextIO]):
    """Writes lines and counts those that repeat."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._repeat_by_key: dict[tuple[object, ...], Repeat] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record that is new, count one that came in the last minute."""
        now = self._clock()
        self.write_repeats(now)
        key = (record.name, record.levelno, record.getMessage(), str(_fields(record)))
        known = self._repeat_by_key.get(key)
        if known is not None:
            known.times += 1
            known.record = record
            return
        if len(self._repeat_by_key) >= REPEATS_MAX:
            oldest = next(iter(self._repeat_by_key))
            self._tell(self._repeat_by_key.pop(oldest))
        self._repeat_by_key[key] = Repeat(record, now)
        super().emit(record)

    def write_repeats(self, now: float | None = None, *, is_end: bool = False) -> None:
        """Tell lines that were repeated and whose minute is over; at the end all of them."""
        now = self._clock() if now is None else now
        self.acquire()
        try:
            while self._repeat_by_key:
                key, repeat = next(iter(self._repeat_by_key.items()))
                if not is_end and now - repeat.written_at < REPEAT_S:
                    break  # they stand in the order of writing
                del self._repeat_by_key[key]
                if repeat.times and not is_end:
                    self._repeat_by_key[key] = Repeat(repeat.record, now)
                self._tell(repeat)
        finally:
            self.release()

    def _tell(self, repeat: Repeat) -> None:
        if repeat.times:
            record = logging.makeLogRecord(repeat.record.__dict__)
            record.fields = {**_fields(repeat.record), "times": repeat.times}
            super().emit(record)


def install_logging(level: str, line_format: str, stream: TextIO | None = None) -> LogWriter:
    """Have all loggers of the process write through one LogWriter; returns it."""
    stream = sys.stderr if stream is None else stream
    writer = LogWriter(stream)
    has_colour = stream.isatty() and not os.environ.get("NO_COLOR")
    writer.setFormatter(JsonFormatter() if line_format == "json" else TextFormatter(has_colour=has_colour))
    root = logging.getLogger()
    root.handlers[:] = [writer]
    logging.getLogger("uvicorn.error").addFilter(_is_not_misleading)
    set_level(level)
    return writer


def _is_not_misleading(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(MISLEADING)


def set_level(level: str) -> None:
    """The least level that our own parts write; libraries are heard from `warn` on."""
    logging.getLogger("headrace").setLevel(LEVELS[level])
    logging.getLogger().setLevel(max(LEVELS[level], logging.WARNING))
