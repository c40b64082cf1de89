"""Window: what was committed lately, and the newest record of each topic in it.

Each message passes here, so a row costs a count and a place, kept in its topic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bridge.live.entries import Entry
from broker.publish_run import PublishRun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.cursors import Offsets
    from bridge.live.entries import Entries
    from bridge.records import RecordRun, Topic
    from bridge.streams.log import StreamLog

RUN_BYTES = 500
"""What a run costs beside its bytes."""


class Window:
    """What was committed since the last one; keeps read buffers alive, so not for long.

    Only one is open at a time: what it has found so far stands in the topics themselves. A closed one is settled bit by
    bit while the next one fills.
    """

    __slots__ = ("_counts", "_rows", "_runs", "_settled", "_topics", "bytes", "offsets", "records")

    def __init__(self) -> None:
        self._topics: list[Topic] = []
        # Once closed, for each topic: run and row of its newest record, and how many there were.
        self._runs: list[PublishRun | RecordRun | None] = []
        self._rows: list[int] = []
        self._counts: list[int] = []
        self._settled = 0
        self.offsets: dict[str, Offsets] = {}
        """By stream: one past the last record that it has."""
        self.bytes = 0
        """What it keeps alive, at most."""
        self.records = 0

    def __len__(self) -> int:
        """Topics that it has."""
        return len(self._topics)

    # hot path: tests/bench/latest.py
    def add(self, runs: Sequence[PublishRun | RecordRun], log: StreamLog) -> None:
        """Take runs of a stream in the order in which they were committed."""
        touched = self._topics
        for run in runs:
            if isinstance(run, PublishRun):
                size = len(run.data)
                for row, route in enumerate(run.routes):
                    topic = cast("Topic", route.sink_topic)
                    if topic.window_run is not run:
                        if topic.window_count == 0:
                            touched.append(topic)
                        topic.window_run = run
                    topic.window_row = row
                    topic.window_count += 1
            else:
                size = run.ends[-1] - run.start  # what was read back in one go shares its bytes
                for row, topic in enumerate(run.topics):
                    if topic.window_run is not run:
                        if topic.window_count == 0:
                            topic.stream = log  # who made it of what was read did not know
                            touched.append(topic)
                        topic.window_run = run
                    topic.window_row = row
                    topic.window_count += 1
            self.bytes += size + RUN_BYTES
            self.records += len(run.ends)

    def close(self) -> None:
        """Take what was found out of the topics, for the next window."""
        for topic in self._topics:
            self._runs.append(topic.window_run)
            self._rows.append(topic.window_row)
            self._counts.append(topic.window_count)
            topic.window_run = None
            topic.window_count = 0

    def settle(self, entries: Entries, node_run: str, topics_max: int) -> bool:
        """Put the newest records of some topics of a closed window among `entries`; True while there are more."""
        first = self._settled
        end = min(len(self._topics), first + topics_max)
        for index in range(first, end):
            topic = self._topics[index]
            run = self._runs[index]
            assert run is not None
            entry = Entry(topic, cast("StreamLog", topic.stream), run, self._rows[index], node_run)
            entry.count = self._counts[index]
            entries.put(entry)
            self._runs[index] = None
        self._settled = end
        return end < len(self._topics)
