"""Stretches: records of Kafka that were fetched together, kept decoded while they are wanted.

Readers at the same place cost one fetch. The least recently used go when they take more than `bytes_max`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from itertools import accumulate

from bridge.records import RecordRun

RUN_BYTES = 700
"""What a decoded run costs beside its frames."""


class Stretch:
    """Records of one partition that were fetched together."""

    __slots__ = ("base", "bytes", "end", "has_more", "runs", "times")

    def __init__(self, base: int, end: int, runs: list[RecordRun], *, has_more: bool = False) -> None:
        self.base = base
        self.end = end
        self.has_more = has_more
        """Kafka had records behind it when it was fetched."""
        self.runs = runs
        self.times = list(accumulate([run.received_at_ms for run in runs], max))
        """Of each run the latest up to it: in a partition the order of offsets counts."""
        self.bytes = sum([run.ends[-1] - run.start + RUN_BYTES + 24 * len(run.ends) for run in runs])

    def index_at(self, offset: int) -> int:
        """Of the run that holds an offset, or of the first behind it."""
        runs = self.runs
        index = max(0, bisect_right(runs, offset, key=_base) - 1)
        return index + 1 if runs and runs[index].base_offset + len(runs[index]) <= offset else index


class Stretches:
    """Fetched stretches, the least recently used of which go."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._stretches: OrderedDict[tuple[str, int, int], Stretch] = OrderedDict()
        self._bases: dict[tuple[str, int], list[int]] = {}

    def find(self, epoch: str, partition: int, offset: int) -> Stretch | None:
        """The stretch that holds an offset."""
        bases = self._bases.get((epoch, partition))
        index = bisect_right(bases, offset) - 1 if bases else -1
        if bases is None or index < 0:
            return None
        key = (epoch, partition, bases[index])
        stretch = self._stretches[key]
        if offset >= stretch.end:
            return None
        self._stretches.move_to_end(key)
        return stretch

    def add(self, epoch: str, partition: int, stretch: Stretch) -> None:
        key = (epoch, partition, stretch.base)
        older = self._stretches.pop(key, None)
        bases = self._bases.setdefault((epoch, partition), [])
        if older is not None:
            self._bytes -= older.bytes
        else:
            bases.insert(bisect_right(bases, stretch.base), stretch.base)
        self._stretches[key] = stretch
        self._bytes += stretch.bytes
        while self._bytes > self._bytes_max and len(self._stretches) > 1:
            (other_epoch, other_partition, base), dropped = self._stretches.popitem(last=False)
            self._bytes -= dropped.bytes
            self._bases[other_epoch, other_partition].remove(base)


def _base(run: RecordRun) -> int:
    return run.base_offset
