"""What queries are made of: times, topic filters, cursors, and the parameters that this server does not know yet."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from fastapi import Request

from bridge.cursors import Cursor, CursorInvalid
from bridge.errors import NotAvailable, ParameterInvalid
from bridge.live.limits import LiveLimits
from bridge.quantities import parse_relative_ms, parse_time_ms
from broker.codec.errors import MqttError
from broker.topics.names import validate_topic_filter

_SPEED = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
SPEED_MAX = 1_000_000
_OFFSET_WITH_SPACE = re.compile(r" (\d\d:\d\d)$")
_TIME_WORDS = "RFC 3339 (2026-11-22T19:00:00Z), epoch milliseconds, or relative (-15m, now)"


def parse_time(parameter: str, text: str, now_ms: int | None = None) -> int:
    """Epoch milliseconds of a time as the API writes it; a `+` that arrived as a space is forgiven.

    Raises: ParameterInvalid.
    """
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    try:
        return parse_time_ms(_OFFSET_WITH_SPACE.sub(r"+\1", text), now)
    except ValueError as error:
        raise ParameterInvalid(parameter, f"{parameter}: {error}; write {_TIME_WORDS}.") from error


def parse_age(parameter: str, text: str) -> int:
    """Milliseconds of an age like `24h`; `-24h`, as a time would be written, is the same. Raises: ParameterInvalid."""
    try:
        return parse_relative_ms(f"-{text.removeprefix('-')}")
    except ValueError as error:
        raise ParameterInvalid(parameter, f"{parameter}: {error}.") from error


def parse_range(from_: str | None, to: str | None, now_ms: int) -> tuple[int | None, int | None]:
    """The times `from` and `to`. Raises: ParameterInvalid."""
    from_ms = parse_time("from", from_, now_ms) if from_ is not None else None
    to_ms = parse_time("to", to, now_ms) if to is not None else None
    if from_ms is not None and to_ms is not None and to_ms < from_ms:
        raise ParameterInvalid("to", "to: this is before `from`.")
    return from_ms, to_ms


def parse_filters(parameter: str, filters: Iterable[str], limits: LiveLimits) -> tuple[str, ...]:
    """Valid topic filters, each once, in an order that makes equal sets equal.

    Raises: ParameterInvalid.
    """
    unique = sorted(set(filters))
    if not unique:
        raise ParameterInvalid(parameter, f"{parameter}: at least one topic filter is needed, like {parameter}=%23.")
    if len(unique) > limits.filters_per_reader_max:
        raise ParameterInvalid(
            parameter,
            f"{parameter}: at most {limits.filters_per_reader_max} filters are taken.",
            limit="live.filters_per_reader_max",
        )
    for topic_filter in unique:
        try:
            validate_topic_filter(topic_filter)
        except MqttError as error:
            raise ParameterInvalid(parameter, f"{parameter}: {topic_filter!r} is no topic filter: {error}.") from error
        if topic_filter.startswith(("$share/", "$replay/")):
            raise ParameterInvalid(parameter, f"{parameter}: {topic_filter!r} is for MQTT only.")
    return tuple(unique)


def parse_cursor(text: str, parameter: str = "cursor") -> Cursor:
    """A cursor. Raises: ParameterInvalid."""
    try:
        return Cursor.parse(text)
    except CursorInvalid as error:
        raise ParameterInvalid(parameter, f"{parameter}: this is no cursor of this server: {error}.") from error


def parse_choice(parameter: str, text: str, choices: tuple[str, ...]) -> str:
    """One of a few words. Raises: ParameterInvalid."""
    if text not in choices:
        raise ParameterInvalid(parameter, f"{parameter}: {text!r} is none of {', '.join(choices)}.")
    return text


def parse_speed(parameter: str, text: str) -> float | None:
    """How many times as fast as it happened; None for `max`. Raises: ParameterInvalid."""
    if text == "max":
        return None
    if _SPEED.fullmatch(text) is None or not 0 < float(text) <= SPEED_MAX:
        raise ParameterInvalid(parameter, f"{parameter}: {text!r} is neither max nor a number up to {SPEED_MAX:,}.")
    return float(text)


def parse_flag(parameter: str, text: str) -> bool:
    """1 or 0. Raises: ParameterInvalid."""
    return parse_choice(parameter, text.lower(), ("1", "0", "true", "false")) in ("1", "true")


def parse_number(parameter: str, text: str, least: int, most: int, limit: str | None = None) -> int:
    """A whole number within bounds; `limit` is the key that `most` comes from. Raises: ParameterInvalid."""
    if re.fullmatch(r"-?[0-9]{1,18}", text) is None:
        raise ParameterInvalid(parameter, f"{parameter}: {text!r} is no whole number.")
    number = int(text)
    if not least <= number <= most:
        over = limit if number > most else None
        raise ParameterInvalid(parameter, f"{parameter}: {number} is not between {least} and {most}.", limit=over)
    return number


def refuse_later(request: Request, names: Iterable[str], limits: LiveLimits) -> None:
    """Refuse parameters that exist elsewhere and not here, and a query that is too long for proxies.

    Raises: NotAvailable, ParameterInvalid.
    """
    for name in names:
        if name in request.query_params:
            raise NotAvailable(name)
    if len(request.scope["query_string"]) > limits.query_bytes_max:
        text = f"The query is longer than {limits.query_bytes_max} bytes."
        raise ParameterInvalid("topic", text, limit="live.query_bytes_max")


def single_value(request: Request, name: str) -> str | None:
    """The value of a parameter that is not repeatable, None when absent. Raises: ParameterInvalid when repeated."""
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise ParameterInvalid(name, f"{name} is given {len(values)} times.")
    return values[0] if values else None
