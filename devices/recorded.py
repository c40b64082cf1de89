"""Recorded data as messages with their own timing: CSV with at least `time,topic,payload`, as the export writes it.

The file is read as it is played, so its size does not matter.
"""

from __future__ import annotations

import base64
import binascii
import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

FIELD_BYTES_MAX = 512 * 1024 * 1024
"""The largest payload of MQTT is half of it."""
REQUIRED = ("time", "topic", "payload")
TOPIC_BYTES_MAX = 65_535
PAYLOAD_BYTES_MAX = 268_435_455 - TOPIC_BYTES_MAX - 10
"""What fits into one packet, whatever the topic is."""
TIME_DIGITS_MAX = 15
_NOT_IN_TOPICS = re.compile(r"[+#\x00-\x1f\x7f-\x9f]")
"""Wildcards (MQTT 5 §4.7.1), and characters that brokers take for malformed (§1.5.4)."""


class RecordingInvalid(Exception):
    """The file cannot be played; the message names the line."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One row of a recording."""

    after_s: float
    """Seconds since the first row; never less than the row before it."""
    topic: str
    payload: bytes
    qos: int | None
    """None: the recording does not say."""
    retain: bool


def read_recording(path: Path) -> Iterator[Recorded]:
    """The rows of a recording, in the order of the file.

    Raises:
        RecordingInvalid: the file cannot be read, or is not such a CSV.
    """
    csv.field_size_limit(FIELD_BYTES_MAX)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = [name for name in REQUIRED if name not in (rows.fieldnames or ())]
            if missing:
                raise RecordingInvalid(f"{path} has no column {', '.join(missing)}; it needs {','.join(REQUIRED)}.")
            yield from _played(path, rows)
    except OSError as error:
        raise RecordingInvalid(f"cannot read {path}: {(error.strerror or '').lower()}.") from error
    except UnicodeDecodeError as error:
        raise RecordingInvalid(f"{path} is not a CSV file in UTF-8.") from error
    except csv.Error as error:
        raise RecordingInvalid(f"{path} is not a CSV file: {error}.") from error


def _played(path: Path, rows: csv.DictReader[str]) -> Iterator[Recorded]:
    first: float | None = None
    after_s = 0.0
    for row in rows:
        try:
            absent = [name for name in REQUIRED if row[name] is None]
            if absent:
                raise ValueError(f"it has no {', '.join(absent)}")
            at = epoch_s(row["time"])
            payload = _payload(row["payload"], row.get("encoding") or "")
            _check_topic(row["topic"])
            qos = _qos(row.get("qos") or "")
        except ValueError as error:
            raise RecordingInvalid(f"{path} line {rows.line_num}: {error}.") from error
        first = at if first is None else first
        after_s = max(after_s, at - first)
        yield Recorded(after_s, row["topic"], payload, qos, (row.get("retain") or "").lower() in ("true", "1"))


def _payload(text: str, encoding: str) -> bytes:
    if encoding != "base64":
        payload = text.encode()
    else:
        try:
            payload = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise ValueError("its payload is not base64") from None
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError(f"its payload has more than {PAYLOAD_BYTES_MAX:,} bytes")
    return payload


def _check_topic(topic: str) -> None:
    """What can be published to, before a client library or a broker says no to it. Raises: ValueError"""
    if not topic:
        raise ValueError("it has no topic")
    if len(topic.encode()) > TOPIC_BYTES_MAX:
        raise ValueError(f"its topic has more than {TOPIC_BYTES_MAX:,} bytes")
    if _NOT_IN_TOPICS.search(topic):
        shown = "".join(each if each.isprintable() else "?" for each in topic[:80])
        raise ValueError(f'nothing can be published to "{shown}": a topic has no + or # and no control characters')


def _qos(text: str) -> int | None:
    if text not in ("", "0", "1", "2"):
        raise ValueError("its QoS is not 0, 1 or 2")
    return int(text) if text else None


def epoch_s(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time or of epoch milliseconds.

    Raises:
        ValueError: it is neither.
    """
    if text.isascii() and text.isdigit() and len(text) <= TIME_DIGITS_MAX:
        return int(text) / 1_000
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f'"{text}" is neither an RFC 3339 time nor epoch milliseconds') from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
