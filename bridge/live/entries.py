"""Entries: the newest record of each topic, bounded; the topic that was silent longest leaves first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.encoding import encode_rows, encode_snapshot
from bridge.records import RecordRun, Topic
from bridge.streams.frames import IS_NULL, IS_V5, decode_frames, encode_frames
from bridge.streams.upkeep import LatestEntry
from broker.limit_hits import LimitHits

if TYPE_CHECKING:
    from bridge.streams.log import StreamLog
    from broker.publish_run import PublishRun

ENTRY_BYTES = 400
"""What an entry costs beside its frame: object, key, dictionary slot."""
INTERVAL_WEIGHT = 0.2


class Entry:
    """The newest record of one topic. It never changes once it is among the latest values: it is replaced."""

    __slots__ = (
        "client_id",
        "count",
        "epoch",
        "flags",
        "frame",
        "interval_ms",
        "log",
        "node_run",
        "number",
        "offset",
        "partition",
        "time_ms",
        "topic",
    )

    def __init__(self, topic: Topic, log: StreamLog, run: PublishRun | RecordRun, row: int, node_run: str) -> None:
        """`node_run`: of a `PublishRun`, which does not say it."""
        self.topic = topic
        self.log = log
        start = run.ends[row - 1] if row else run.start
        self.frame = run.data[start : run.ends[row]]
        """Its PUBLISH, as it is stored."""
        self.partition = run.partition
        self.offset = run.base_offset + row
        self.epoch = log.epoch_of(run.partition)
        self.time_ms = run.received_at_ms
        self.client_id = run.client_id
        self.flags = IS_V5 if run.is_v5 else 0
        if isinstance(run, RecordRun):
            self.node_run = run.node_run
            self.number = run.number(row)
            if row in run.null_rows:
                self.flags |= IS_NULL
        else:
            self.node_run = node_run
            self.number = run.first_number + row
        self.count = 1
        self.interval_ms = 0.0
        """Usual time between two records; 0 until there are two."""

    def take_record(self, other: Entry) -> None:
        """Be the record of another entry of the topic; count and interval stay."""
        self.frame, self.partition, self.offset, self.epoch = other.frame, other.partition, other.offset, other.epoch
        self.time_ms, self.client_id, self.flags = other.time_ms, other.client_id, other.flags
        self.node_run, self.number = other.node_run, other.number

    def run(self) -> RecordRun:
        """The record as a run of one row."""
        columns: tuple[list[Topic], list[int], list[int]] = ([], [], [])
        size = len(self.frame)
        is_v5 = bool(self.flags & IS_V5)
        decode_frames(self.frame, 0, size, is_v5, {self.topic.framed or self.topic.frame(): self.topic}, *columns)
        return RecordRun(
            self.frame,
            0,
            *columns,
            base_offset=self.offset,
            first_number=self.number,
            node_run=self.node_run,
            received_at_ms=self.time_ms,
            client_id=self.client_id,
            is_v5=is_v5,
            partition=self.partition,
            null_rows=frozenset((0,)) if self.flags & IS_NULL else frozenset(),
        )

    def json(self) -> bytes:
        """The record's object without a line end."""
        return encode_rows("json", self.log.name, self.epoch, self.run())[0][:-1]

    def snapshot_event(self) -> bytes:
        """The record as an SSE `snapshot`."""
        return encode_snapshot(self.log.name, self.epoch, self.run(), 0)

    def saved(self) -> LatestEntry:
        """As it is kept for the next start."""
        segment = encode_frames(self.frame, 1, self.flags, self.client_id, self.node_run, self.number, self.time_ms)
        return LatestEntry(
            self.topic, self.offset, self.time_ms, self.count, int(self.interval_ms), segment, self.partition
        )


class Entries:
    """At most `topics_max` and `bytes_max`."""

    __slots__ = (
        "by_topic",
        "bytes",
        "bytes_max",
        "evicted",
        "evicted_bytes",
        "limit_hits",
        "records",
        "topics_max",
        "unsaved",
    )

    def __init__(self, topics_max: int, bytes_max: int) -> None:
        self.topics_max = topics_max
        self.bytes_max = bytes_max
        self.limit_hits = LimitHits()
        self.by_topic: dict[str, Entry] = {}
        """By topic name; the most recently written is last."""
        self.bytes = 0
        """What they cost in memory."""
        self.records = 0
        """How many records they are the newest of."""
        self.evicted = 0
        """How many topics were forgotten."""
        self.evicted_bytes = 0
        """Of those forgotten since this was last set to 0; what was not saved of them is still in `unsaved`."""
        self.unsaved: dict[str, dict[Topic, Entry]] = {}
        """By stream, of those that are saved. What leaves memory unsaved has to be saved all the same, but not to be
        kept for long."""

    # hot path: tests/bench/latest.py
    def put(self, entry: Entry) -> None:
        """Have a topic's newest record; its count is how many came with it."""
        by_topic = self.by_topic
        count, log = entry.count, entry.log
        older = by_topic.pop(entry.topic.name, None)
        by_topic[entry.topic.name] = entry
        if older is not None:
            self.bytes -= len(older.frame) + ENTRY_BYTES
            entry.count += older.count
            is_older = entry.time_ms < older.time_ms or (
                older.partition == entry.partition and older.epoch == entry.epoch and entry.time_ms == older.time_ms
            )
            if older.log is log and is_older and (entry.time_ms < older.time_ms or entry.offset < older.offset):
                # Two routes of one topic in one window, or two partitions.
                entry.take_record(older)
            sample = max(0, entry.time_ms - older.time_ms) / max(1, count)
            weight = INTERVAL_WEIGHT if count == 1 else 1 - (1 - INTERVAL_WEIGHT) ** count
            entry.interval_ms = (
                older.interval_ms + weight * (sample - older.interval_ms) if older.interval_ms else sample
            )
        self.bytes += len(entry.frame) + ENTRY_BYTES
        self.records += count
        unsaved = self.unsaved.get(log.name)
        if unsaved is not None:
            unsaved[entry.topic] = entry
        while len(by_topic) > self.topics_max or self.bytes > self.bytes_max:
            self._evict()

    def _evict(self) -> None:
        is_by_count = len(self.by_topic) > self.topics_max
        self.limit_hits.hit("live.latest_topics_max" if is_by_count else "live.latest_bytes_max")
        evicted = self.by_topic.pop(next(iter(self.by_topic)))
        size = len(evicted.frame) + ENTRY_BYTES
        self.bytes -= size
        self.evicted_bytes += size
        self.evicted += 1

    def drop(self, topic_name: str) -> None:
        """The newest record of a topic is kept elsewhere from now on."""
        dropped = self.by_topic.pop(topic_name, None)
        if dropped is not None:
            self.bytes -= len(dropped.frame) + ENTRY_BYTES

    def forget(self, log: StreamLog) -> None:
        """Drop those of a stream; they need not be saved."""
        for name in [name for name, entry in self.by_topic.items() if entry.log is log]:
            self.bytes -= len(self.by_topic.pop(name).frame) + ENTRY_BYTES
        if log.name in self.unsaved:
            self.unsaved[log.name] = {}
