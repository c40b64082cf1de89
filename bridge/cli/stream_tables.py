"""Streams and dead letters as tables and lines for people, out of what the API says of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from bridge.disk_room import bytes_text
from bridge.quantities import age_text, size_text
from bridge.start_checks import day_text

UNKNOWN = "-"
PAYLOAD_CHARACTERS = 60


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns as wide as they must be."""
    lines = [tuple(head), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def stream_table(streams: Iterable[dict[str, Any]]) -> list[str]:
    """A line for each stream."""
    head = ("name", "storage", "records", "bytes", "oldest", "newest", "retention")
    return table(
        head,
        [
            (
                stream["name"],
                stream["storage"],
                _count(stream["records"]),
                _bytes(stream),
                time_text(stream["oldest"]),
                time_text(stream["newest"]),
                _retention(stream) if stream["configured"] else "not configured",
            )
            for stream in streams
        ],
    )


def stream_lines(stream: dict[str, Any]) -> list[str]:
    """All that is known of a stream."""
    return [f"{name:<12}  {text}" for name, text in _facts(stream)]


def _facts(stream: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "name", stream["name"]
    acknowledged = {"stored": ", acknowledged when stored", "received": ", acknowledged when received"}
    yield "storage", stream["storage"] + acknowledged.get(stream["ack"] or "", "")
    yield "topics", ", ".join(stream["topics"]) if stream["configured"] else "none: it is not configured"
    yield "epoch", stream["epoch"] or UNKNOWN
    yield "records", _count(stream["records"])
    for place in stream["partitions"]:
        yield f"partition {place['partition']}", f"offsets {place['first_offset']:,} to {place['next_offset']:,}"
    yield "bytes", _bytes(stream)
    yield "oldest", time_text(stream["oldest"])
    yield "newest", time_text(stream["newest"])
    yield "retention", _retention(stream)
    if stream.get("rate") is not None:
        yield "rate", f"{stream['rate']:,.1f} records/s, {bytes_text(int(stream['bytes_rate'] or 0))}/s"
    if commit := stream.get("commit_ms"):
        yield "commit", ", ".join(f"{name} {value:,.1f} ms" for name, value in commit.items() if value is not None)
    if stream.get("failure"):
        yield "failure", stream["failure"]
    if kafka := stream.get("kafka"):
        yield "kafka", f"topic {kafka['topic']}, {kafka['state']}" + (f": {kafka['error']}" if kafka["error"] else "")
    if spool := stream.get("spool"):
        yield "spool", f"{spool['records']:,} records, {bytes_text(spool['bytes'])}"
    if letters := stream.get("dead_letters"):
        yield "dead letters", f"{letters['records']:,}"


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"


def _bytes(stream: dict[str, Any]) -> str:
    if stream["bytes"] is None:
        return UNKNOWN
    most = stream["retention"]["bytes"]
    text = bytes_text(stream["bytes"])
    return text if not most else f"{text} of {size_text(most)}, {100 * stream['bytes'] // most} %"


def _retention(stream: dict[str, Any]) -> str:
    age_s, size = stream["retention"]["age_s"], stream["retention"]["bytes"]
    parts = [age_text(age_s * 1_000)] if age_s is not None else []
    parts += [size_text(size)] if size is not None else []
    return " or ".join(parts) if parts else "without limit"


def time_text(text: str | None) -> str:
    """`21 Nov 19:02` of an RFC 3339 time."""
    return UNKNOWN if text is None else day_text(int(datetime.fromisoformat(text).timestamp() * 1_000))


def dead_letter_table(letters: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A head line and three lines for each, which are as long as they must be; nothing when there is none."""
    is_first = True
    for letter in letters:
        record = letter["record"]
        if not is_first:
            yield ""
        is_first = False
        yield f"{letter['time']}  {record['topic']}  from {record['client_id']}, qos {record['qos']}"
        yield f"  {letter['reason']}"
        yield f"  {_payload(record)}"
    if is_first:
        yield "no dead letters"


def _payload(record: dict[str, Any]) -> str:
    payload = record["payload"]
    text = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
    text = text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text
    return text if len(text) <= PAYLOAD_CHARACTERS else f"{text[:PAYLOAD_CHARACTERS]}… ({len(text):,} characters)"
