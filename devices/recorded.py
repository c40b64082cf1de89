"""Recorded data as messages with their own timing: CSV with at least `time,topic,payload`, as the export writes it.

The file is read as it is played, so its size does not matter.
"""

from __future__ import annotations

import base64
import binascii
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

FIELD_BYTES_MAX = 512 * 1024 * 1024
"""The largest payload of MQTT is half of it."""
REQUIRED = ("time", "topic", "payload")


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
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            missing = [name for name in REQUIRED if name not in (rows.fieldnames or ())]
            if missing:
                raise RecordingInvalid(f"{path} has no column {', '.join(missing)}; it needs {','.join(REQUIRED)}.")
            yield from _played(path, rows)
    except OSError as error:
        raise RecordingInvalid(f"cannot read {path}: {(error.strerror or '').lower()}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecordingInvalid(f"{path} is not a CSV file in UTF-8: {error}.") from error


def _played(path: Path, rows: csv.DictReader[str]) -> Iterator[Recorded]:
    first: float | None = None
    after_s = 0.0
    for row in rows:
        try:
            at = epoch_s(row["time"])
            payload = _payload(row["payload"] or "", row.get("encoding") or "")
            qos = int(row["qos"]) if row.get("qos") else None
        except (ValueError, binascii.Error) as error:
            raise RecordingInvalid(f"{path} line {rows.line_num}: {error}.") from error
        if qos not in (None, 0, 1, 2) or not row["topic"]:
            raise RecordingInvalid(f"{path} line {rows.line_num}: it has no topic, or a QoS that is not 0, 1 or 2.")
        first = at if first is None else first
        after_s = max(after_s, at - first)
        yield Recorded(after_s, row["topic"], payload, qos, (row.get("retain") or "").lower() in ("true", "1"))


def _payload(text: str, encoding: str) -> bytes:
    return base64.b64decode(text, validate=True) if encoding == "base64" else text.encode()


def epoch_s(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time or of epoch milliseconds.

    Raises:
        ValueError: it is neither.
    """
    if text.isdigit():
        return int(text) / 1_000
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f'"{text}" is neither an RFC 3339 time nor epoch milliseconds') from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
