"""The bridge's nouns for what is stored: Topic and RecordRun.

A RecordRun is rows of canonical PUBLISH frames with columns beside them, whether they were just committed (made from a
`PublishRun`) or read back from a log. Everything that shows records works on it, so live and replayed records cannot
look different.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.publish_run import PublishRun


class Topic:
    """One topic name in one stream, with what is worth making once for it."""

    __slots__ = (
        "csv_field",
        "encoded",
        "framed",
        "json_head",
        "matches",
        "matches_version",
        "name",
        "stream",
        "topic_id",
        "window_count",
        "window_row",
        "window_run",
    )

    def __init__(self, name: str, stream: object = None) -> None:
        self.name = name
        self.encoded = name.encode()
        self.stream = stream
        """The StreamLog that takes its records (`SinkTopic.stream`); None for a topic read back by a scan."""
        self.topic_id = 0
        """Its number in the stream's topic table; 0 until the writer has looked it up."""
        self.framed = b""
        """As it stands in a PUBLISH: two bytes of length, then UTF-8; empty until `frame`, for few need it."""
        self.json_head = b'{"topic":' + orjson.dumps(name) + b',"payload":'
        self.csv_field = b""
        """As it stands in a CSV export; empty until one has it."""
        self.matches: tuple[object, ...] = ()
        """Live groups whose filters match, valid while `matches_version` is the hub's version."""
        self.matches_version = -1
        self.window_count = 0
        """Records of it in the open window of newest values (`bridge.live.window`), and run and row of the newest."""
        self.window_run: PublishRun | RecordRun | None = None
        self.window_row = 0

    def frame(self) -> bytes:
        """Fill in `framed`, and return it."""
        self.framed = len(self.encoded).to_bytes(2, "big") + self.encoded
        return self.framed


class RecordRun:
    """Records of one stream and client that follow one another, as columns.

    Row `i` has offset `base_offset + i` in `partition`, frame `data[frame_start(i):ends[i]]` and payload
    `data[payload_starts[i]:ends[i]]`; all rows share client, time of receipt and MQTT version.
    `mqtt.id` of row `i` is `{node_run}-{number(i)}`.
    """

    __slots__ = (
        "base_offset",
        "client_id",
        "data",
        "ends",
        "first_number",
        "is_v5",
        "node_run",
        "null_rows",
        "numbers",
        "partition",
        "payload_starts",
        "received_at_ms",
        "start",
        "topics",
    )

    def __init__(
        self,
        data: bytes,
        start: int,
        topics: Sequence[Topic],
        payload_starts: Sequence[int],
        ends: Sequence[int],
        *,
        base_offset: int,
        first_number: int,
        node_run: str,
        received_at_ms: int,
        client_id: str,
        is_v5: bool,
        partition: int = 0,
        numbers: Sequence[int] | None = None,
        null_rows: frozenset[int] = frozenset(),
    ) -> None:
        self.data = data
        self.start = start
        self.topics = topics
        self.payload_starts = payload_starts
        self.ends = ends
        self.base_offset = base_offset
        self.first_number = first_number
        self.node_run = node_run
        self.received_at_ms = received_at_ms
        self.client_id = client_id
        self.is_v5 = is_v5
        self.partition = partition
        """`SPOOL` for what waits outside Kafka; 0 is shown for it."""
        self.numbers = numbers
        """None: they follow one another from `first_number` on."""
        self.null_rows = null_rows
        """Rows without a value, which a Kafka producer may write (a tombstone); their payload is empty here."""

    def __len__(self) -> int:
        return len(self.ends)

    def frame_start(self, row: int) -> int:
        """Index into `data` of the first byte of `row`'s frame."""
        return self.ends[row - 1] if row else self.start

    # hot path: tests/bench/encode_events.py
    def columns(self, rows: Sequence[int]) -> tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[Topic]]:
        """Frame starts, payload starts, ends and topics of some rows, by slices where they follow one another."""
        payload_starts, ends, topics = self.payload_starts, self.ends, self.topics
        if isinstance(rows, range) and rows.step == 1 and rows:  # as scans and most live runs have it
            low, high = rows.start, rows.stop
            frame_starts = [self.frame_start(low), *ends[low : high - 1]]
            if high - low == len(ends):
                return frame_starts, payload_starts, ends, topics
            return frame_starts, payload_starts[low:high], ends[low:high], topics[low:high]
        return (
            [self.frame_start(row) for row in rows],
            [payload_starts[row] for row in rows],
            [ends[row] for row in rows],
            [topics[row] for row in rows],
        )

    def number(self, row: int) -> int:
        """The number in `row`'s `mqtt.id`."""
        return self.numbers[row] if self.numbers is not None else self.first_number + row


def as_record_run(run: PublishRun, topics: Sequence[Topic], node_run: str) -> RecordRun:
    """The committed run as rows that can be shown."""
    return RecordRun(
        run.data,
        run.start,
        topics,
        run.payload_starts,
        run.ends,
        base_offset=run.base_offset,
        first_number=run.first_number,
        node_run=node_run,
        received_at_ms=run.received_at_ms,
        client_id=run.client_id,
        is_v5=run.is_v5,
    )
