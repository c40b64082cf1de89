"""Records in their text forms, NDJSON and CSV: where one ends, where it stands in its stream, and when it was received.

Only what this server writes is read here (`bridge.encoding`), so the fields are looked for where it puts them: behind
the payload, which may hold anything.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, Protocol

from bridge.encoding import CSV_HEAD

FIELD_BYTES_MAX = 512 * 1024 * 1024
"""The largest payload of MQTT is half of it."""
TIME_BYTES = len("2026-11-22T19:00:00.123Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_PLACE = re.compile(rb',"epoch":"([^"]*)","partition":([0-9]+),"offset":([0-9]+)[,}]')

csv.field_size_limit(FIELD_BYTES_MAX)


class Place(NamedTuple):
    """Where one record stands."""

    epoch: str
    partition: int
    offset: int


class RecordText(Protocol):
    """One text form."""

    name: Literal["ndjson", "csv"]
    encoding: Literal["json", "csv"]
    """Its name for a scan."""
    head: bytes
    """The first line of a file, before any record."""

    def whole_bytes(self, data: bytes) -> int:
        """How much of `data`, which begins with a record, is whole records."""

    def records(self, data: bytes) -> Iterator[bytes]:
        """The records of `data`, which are whole."""

    def last(self, data: bytes) -> bytes:
        """The last record of `data`, which is whole records and at least one."""

    def count(self, data: bytes) -> int:
        """How many records `data` is."""

    def place(self, record: bytes) -> Place:
        """Where one record stands."""

    def time_ms(self, record: bytes) -> int:
        """When it was received, epoch milliseconds."""


class Ndjson:
    """An object a line."""

    name: Literal["ndjson", "csv"] = "ndjson"
    encoding: Literal["json", "csv"] = "json"
    head = b""

    def whole_bytes(self, data: bytes) -> int:
        return data.rfind(b"\n") + 1

    def records(self, data: bytes) -> Iterator[bytes]:
        start = 0
        while start < len(data):
            end = data.index(b"\n", start) + 1
            yield data[start:end]
            start = end

    def last(self, data: bytes) -> bytes:
        return data[self.whole_bytes(data[:-1]) :]

    def count(self, data: bytes) -> int:
        return data.count(b"\n")

    def place(self, record: bytes) -> Place:
        # Within strings quotes are escaped, and behind the offset there are only strings: the last one is the record's.
        start = record.rfind(b',"epoch":"', 0, record.rfind(b',"offset":'))
        found = _PLACE.match(record, start)
        if found is None:
            raise ValueError("a record without a place")
        return Place(found[1].decode(), int(found[2]), int(found[3]))

    def time_ms(self, record: bytes) -> int:
        start = record.rfind(b',"time":"') + len(b',"time":"')
        return epoch_ms(record[start : start + TIME_BYTES])


class Csv:
    """RFC 4180: a record ends with the first CRLF that is not between quotes."""

    name: Literal["ndjson", "csv"] = "csv"
    encoding: Literal["json", "csv"] = "csv"
    head = CSV_HEAD

    def whole_bytes(self, data: bytes) -> int:
        quotes = data.count(b'"')
        upper = len(data)
        while (end := data.rfind(b"\r\n", 0, upper)) >= 0:
            quotes -= data.count(b'"', end, upper)
            if quotes % 2 == 0:
                return end + 2
            upper = end
        return 0

    def records(self, data: bytes) -> Iterator[bytes]:
        start = position = quotes = 0
        while start < len(data):
            end = data.index(b"\r\n", position) + 2
            quotes += data.count(b'"', position, end)
            position = end
            if quotes % 2 == 0:
                yield data[start:end]
                start = end

    def last(self, data: bytes) -> bytes:
        return data[self.whole_bytes(data[:-2]) :]

    def count(self, data: bytes) -> int:
        return sum(1 for _ in self.records(data)) if b'"' in data else data.count(b"\r\n")

    def place(self, record: bytes) -> Place:
        fields = csv_fields(record)
        return Place(fields[8], int(fields[9]), int(fields[10]))

    def time_ms(self, record: bytes) -> int:
        return epoch_ms(record[:TIME_BYTES])


def csv_fields(record: bytes) -> list[str]:
    """The columns of one CSV record, in the order of `bridge.encoding.CSV_HEAD`."""
    return next(csv.reader([record.decode()]))


def epoch_ms(text: bytes) -> int:
    """Epoch milliseconds of `2026-11-22T19:00:00.123Z`."""
    return (datetime.fromisoformat(text.decode()) - _EPOCH) // _MILLISECOND


NDJSON = Ndjson()
CSV = Csv()
