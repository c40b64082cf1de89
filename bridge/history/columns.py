"""Columns: many records side by side, as the Parquet export wants them; made from runs, sent as bytes.

What is the same for all rows of a run is said once for the run, so a record costs little more than its payload's copy.
"""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from bridge.encoding import json_properties, payload_encoding
from bridge.history.numbers import parse_together
from bridge.history.scan import Scan
from bridge.records import RecordRun, Topic
from bridge.streams.collect import FIELDS_BYTES, ScanCollector, TopicChoice

ENCODINGS = ("json", "text", "base64", "null")
"""By the numbers in `Columns.encodings`."""
PARSED_TOGETHER = 500
"""Payloads looked at in one go: where one is no JSON, so many are looked at one by one."""


class Span(NamedTuple):
    """Rows that follow one another and share these."""

    rows: int
    time_ms: int
    client_id: str
    epoch: str
    partition: int


@dataclass(slots=True)
class Columns:
    """Some records of one stream."""

    stream: str
    spans: list[Span] = field(default_factory=list)
    offsets: array[int] = field(default_factory=lambda: array("q"))
    topic_names: list[str] = field(default_factory=list)
    topic_indexes: array[int] = field(default_factory=lambda: array("i"))
    """Into `topic_names`."""
    payloads: bytes = b""
    payload_ends: array[int] = field(default_factory=lambda: array("i", [0]))
    """Where each payload ends, behind a 0."""
    encodings: bytes = b""
    first_bytes: bytearray = field(default_factory=bytearray)
    """Of each PUBLISH frame: QoS and RETAIN."""
    properties: dict[int, str] = field(default_factory=dict)
    """By row, as JSON, where there are any."""

    def __len__(self) -> int:
        return len(self.offsets)

    def to_bytes(self) -> bytes:
        """For a pipe between processes of this program."""
        return pickle.dumps(self, protocol=pickle.HIGHEST_PROTOCOL)

    @classmethod
    def from_bytes(cls, data: bytes) -> Columns:
        """What `to_bytes` made."""
        columns = pickle.loads(data)
        assert isinstance(columns, Columns)
        return columns


class ColumnsCollector(ScanCollector):
    """A scan whose result is `Columns`."""

    def __init__(self, request: Scan, kept: tuple[int, int], start: int, end: int, choice: TopicChoice) -> None:
        super().__init__(request, kept, start, end, choice)
        self._columns = Columns(request.stream)
        self._payloads: list[bytes] = []
        self._null_rows: set[int] = set()
        self._index_by_topic: dict[Topic, int] = {}

    def _take(self, run: RecordRun, rows: Sequence[int]) -> int | None:
        taken = self.within_bounds(run, rows)
        frames_bytes = self._add(run, taken)
        self.spend(len(taken), frames_bytes + FIELDS_BYTES["columns"] * len(taken))
        return taken[-1] if self.is_full else None

    # hot path: exports
    def _add(self, run: RecordRun, rows: Sequence[int]) -> int:
        """Keep some rows; returns the bytes of their frames."""
        columns, data, base = self._columns, run.data, run.base_offset
        frame_starts, starts, ends, topics = run.columns(rows)
        first_row = len(columns)
        columns.spans.append(Span(len(rows), run.received_at_ms, run.client_id, self.epoch, max(0, run.partition)))
        columns.offsets.extend([base + row for row in rows])
        self._payloads += [data[start:end] for start, end in zip(starts, ends, strict=True)]
        columns.first_bytes += bytes(map(data.__getitem__, frame_starts))
        index_by_topic = self._index_by_topic
        for topic in dict.fromkeys(topics):
            if topic not in index_by_topic:
                index_by_topic[topic] = len(columns.topic_names)
                columns.topic_names.append(topic.name)
        columns.topic_indexes.extend(map(index_by_topic.__getitem__, topics))
        if run.is_v5:
            for number, row in enumerate(rows, first_row):
                if text := json_properties(run, row):
                    columns.properties[number] = text.decode()
        if run.null_rows:
            self._null_rows.update([number for number, row in enumerate(rows, first_row) if row in run.null_rows])
        return sum(ends) - sum(frame_starts)

    def taken(self) -> tuple[bytes, int]:
        columns, payloads = self._columns, self._payloads
        columns.payloads = b"".join(payloads)
        columns.payload_ends.extend(accumulate(map(len, payloads)))
        encodings = bytearray()
        for first in range(0, len(payloads), PARSED_TOGETHER):
            encodings += _encodings_of(payloads[first : first + PARSED_TOGETHER])
        for row in self._null_rows:
            encodings[row] = ENCODINGS.index("null")
        columns.encodings = bytes(encodings)
        return columns.to_bytes(), len(columns)


def _encodings_of(payloads: Sequence[bytes]) -> bytes:
    if parse_together(payloads) is not None:
        return bytes(len(payloads))
    return bytes([ENCODINGS.index(payload_encoding(payload)) for payload in payloads])
