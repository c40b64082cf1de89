"""Figures: what the streams took lately: records and bytes a second, and how long commits took.

Read once a second from counters that the logs keep anyway; a commit costs one append to a bounded list.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.streams.log import StreamLog
    from broker.publish_run import PublishRun

COMMITS_KEPT = 1_000
"""The latest commits that the percentiles are of."""
SMOOTHING = 0.3
"""Weight of the latest second in a rate."""


class StreamFigures:
    """Of one stream."""

    __slots__ = ("_bytes", "_records", "_seconds", "bytes_rate", "bytes_total", "commits", "rate", "records_total")

    def __init__(self) -> None:
        self.rate = 0.0
        """Records a second."""
        self.bytes_rate = 0.0
        """Bytes of frames a second."""
        self.records_total = 0
        self.bytes_total = 0
        self.commits = 0
        self._records = 0
        self._bytes = 0
        self._seconds: deque[float] = deque(maxlen=COMMITS_KEPT)

    def committed(self, runs: Sequence[PublishRun]) -> None:
        """Runs were acknowledged."""
        for run in runs:
            self.records_total += len(run.ends)
            self.bytes_total += run.ends[-1] - run.start

    def took(self, seconds: float) -> None:
        """A commit took so long, from the hand-over of its first run."""
        self.commits += 1
        self._seconds.append(seconds)

    def tick(self) -> None:
        """A second has passed."""
        self.rate += SMOOTHING * (self.records_total - self._records - self.rate)
        self.bytes_rate += SMOOTHING * (self.bytes_total - self._bytes - self.bytes_rate)
        if self.rate < 0.01:
            self.rate = self.bytes_rate = 0.0
        self._records, self._bytes = self.records_total, self.bytes_total

    def percentile_s(self, share: float) -> float | None:
        """How long that share of the latest commits took at most."""
        ordered = sorted(self._seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None

    def commit_ms(self) -> dict[str, float] | None:
        """p50 and p99 of the latest commits."""
        middle, late = self.percentile_s(0.5), self.percentile_s(0.99)
        if middle is None or late is None:
            return None
        return {"p50": round(middle * 1000, 3), "p99": round(late * 1000, 3)}


class Figures:
    """Of all streams of a node."""

    def __init__(self, logs: Iterable[StreamLog], clock: Callable[[], float]) -> None:
        """`clock`: seconds, monotonic."""
        self._by_stream = {log.name: StreamFigures() for log in logs}
        self._clock = clock
        self._waiting: dict[str, float] = {}
        """When the oldest run that waits for its commit was handed over, by stream."""

    def of(self, name: str) -> StreamFigures:
        """A stream's figures."""
        return self._by_stream[name]

    def submitted(self, name: str) -> None:
        """A run was handed to a stream's log."""
        if name not in self._waiting:
            self._waiting[name] = self._clock()

    def committed(self, log: StreamLog, runs: Sequence[PublishRun]) -> None:
        """A log has committed runs."""
        figures = self._by_stream[log.name]
        figures.committed(runs)
        started = self._waiting.pop(log.name, None)
        if started is not None:
            now = self._clock()
            figures.took(now - started)
            if log.pending_bytes:
                self._waiting[log.name] = now

    def tick(self) -> None:
        """Once a second."""
        for figures in self._by_stream.values():
            figures.tick()
