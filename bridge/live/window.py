"""Window: what was committed lately, and how the newest record of each topic is found in it.

Each message passes here. A window takes runs as they come and looks at their rows later, from the last one back: a
topic's newest row is the first that is met, and the others are only counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bridge.live.entries import Entry
from bridge.records import RecordRun
from broker.publish_run import PublishRun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.cursors import Offsets
    from bridge.live.entries import Entries
    from bridge.records import Topic
    from bridge.streams.log import StreamLog

RUN_ROWS = 20
"""A run costs as much as so many rows."""
RUN_BYTES = 500
"""What a run costs beside its bytes."""


class Window:
    """What was committed since the last one; keeps read buffers alive, so not for long.

    First `fold` until it is done, then `settle`; one window at a time, for what is found out meanwhile stands in the
    topics themselves.
    """

    __slots__ = ("_runs", "_topics", "bytes", "offsets", "records")

    def __init__(self) -> None:
        self._runs: list[PublishRun | RecordRun] = []
        self._topics: list[Topic] = []
        self.offsets: dict[str, Offsets] = {}
        """By stream: one past the last record that it has."""
        self.bytes = 0
        """What it keeps alive."""
        self.records = 0
        """Counted by `fold`."""

    @property
    def is_empty(self) -> bool:
        """Nothing is left in it."""
        return not self._runs and not self._topics

    def add(self, runs: Sequence[PublishRun | RecordRun]) -> None:
        """Runs in the order in which they were committed."""
        for run in runs:
            # What was read back in one go shares its bytes.
            size = len(run.data) if isinstance(run, PublishRun) else run.ends[-1] - run.start
            self.bytes += size + RUN_BYTES
            self._runs.append(run)

    # hot path: tests/bench/latest.py
    def fold(self, rows_max: int) -> bool:
        """Look at some rows; True while there are more."""
        runs = self._runs
        topics = self._topics
        while runs and rows_max > 0:
            run = runs.pop()
            routes = run.routes if isinstance(run, PublishRun) else None
            known = run.topics if isinstance(run, RecordRun) else ()
            count = len(run.ends)
            for row in range(count - 1, -1, -1):
                topic = known[row] if routes is None else cast("Topic", routes[row].sink_topic)
                if topic.window_count == 0:
                    topic.window_run = run
                    topic.window_row = row
                    topics.append(topic)
                topic.window_count += 1
            self.records += count
            rows_max -= count + RUN_ROWS
        return bool(runs)

    def settle(self, entries: Entries, node_run: str, topics_max: int) -> bool:
        """Put the newest records of some topics among `entries`, what came last at the end.

        True while there are more.
        """
        topics = self._topics
        for _ in range(min(topics_max, len(topics))):
            topic = topics.pop()
            run = topic.window_run
            assert run is not None
            entry = Entry(topic, cast("StreamLog", topic.stream), run, topic.window_row, node_run)
            entry.count = topic.window_count
            topic.window_run = None
            topic.window_count = 0
            entries.put(entry)
        return bool(topics)
