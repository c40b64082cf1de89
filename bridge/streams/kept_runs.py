"""KeptRuns: what a memory stream holds, as the bytes it came in.

Each message passes here and few are ever read again, so nothing is kept for a row: its columns are made again from its
frame when somebody asks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from bridge.records import RecordRun, Topic
from bridge.streams.frames import decode_frames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.publish_run import PublishRun

RUN_BYTES = 400
"""What a kept run costs beside its frames, as measured; it counts towards `bytes_max`."""
SLACK_BYTES = 16 * 1024
"""A run whose read holds so much more than the run's frames gets bytes of its own."""
TOPICS_MAX = 50_000
"""Topics of what was read again that are remembered; with more it begins anew."""

KeptRun = tuple[bytes, int, int, int, int, int, str, bool]
"""data, start, end, records, first number, time (epoch ms), client id, is v5; nothing in it is walked by the
collector."""


class KeptRuns:
    """Runs, oldest first, without their connection, so that nothing of a closed one stays alive."""

    __slots__ = ("_bases", "_head", "_runs", "_topics", "bytes_max", "kept_bytes", "stored_bytes")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.stored_bytes = 0
        """Of frames."""
        self.kept_bytes = 0
        """What they cost in memory; at most `bytes_max` but for one run."""
        # With the offset of each one's first record; those before `_head` are dropped.
        self._runs: list[KeptRun | None] = []
        self._bases: list[int] = []
        self._head = 0
        self._topics: dict[bytes, Topic] = {}

    def __len__(self) -> int:
        return len(self._runs) - self._head

    @property
    def first_offset(self) -> int:
        """Offset of the oldest record; there must be one."""
        return self._bases[self._head]

    # hot path: tests/bench/sqlite_log.py
    def keep(self, runs: Sequence[PublishRun]) -> None:
        """Add runs that have their offset and time; the oldest leave for them."""
        for run in runs:
            data, start, ends = run.data, run.start, run.ends
            end = ends[-1]
            size = end - start
            if len(data) > 2 * size + SLACK_BYTES:
                data, start, end = data[start:end], 0, size
            self._runs.append(
                (data, start, end, len(ends), run.first_number, run.received_at_ms, run.client_id, run.is_v5)
            )
            self._bases.append(run.base_offset)
            self.stored_bytes += size
            self.kept_bytes += size + RUN_BYTES
        while self.kept_bytes > self.bytes_max and self._head < len(self._runs) - 1:
            self.drop_oldest()

    def drop_oldest(self) -> None:
        """Forget the oldest run."""
        _, start, end, *_ = self._kept(self._head)
        self.stored_bytes -= end - start
        self.kept_bytes -= end - start + RUN_BYTES
        self._runs[self._head] = None
        self._head += 1
        if self._head * 2 > len(self._runs) and self._head > 1_000:
            del self._runs[: self._head]
            del self._bases[: self._head]
            self._head = 0

    def drop_before(self, time_ms: int) -> None:
        """Forget the runs that are older."""
        while self._head < len(self._runs) and self._kept(self._head)[5] < time_ms:
            self.drop_oldest()

    def cut_oldest(self, first: int) -> None:
        """Forget the oldest run's records before offset `first`; when that is all of them, the run."""
        count = first - self.first_offset
        data, start, end, records, first_number, time_ms, client_id, is_v5 = self._kept(self._head)
        if count >= records:
            self.drop_oldest()
            return
        new_start = self._columns(data, start, end, is_v5)[2][count - 1]
        self.stored_bytes -= new_start - start
        self.kept_bytes -= new_start - start
        self._runs[self._head] = (
            data,
            new_start,
            end,
            records - count,
            first_number + count,
            time_ms,
            client_id,
            is_v5,
        )
        self._bases[self._head] = first

    def offset_keeping(self, bytes_max: int) -> int:
        """The offset from which on there is no more than `bytes_max`, in whole runs; 0: all of it."""
        size = 0
        for index in range(len(self._runs) - 1, self._head - 1, -1):
            _, start, end, records, *_ = self._kept(index)
            size += end - start
            if size > bytes_max:
                return self._bases[index] + records
        return 0

    def offset_at(self, time_ms: int) -> int:
        """Offset of the first record whose time is at or after `time_ms`; -1 when there is none."""
        index = bisect_left(self._runs, time_ms, self._head, key=_time_of)  # times never fall
        return self._bases[index] if index < len(self._bases) else -1

    @property
    def oldest_ms(self) -> int:
        """Time of the oldest record; there must be one."""
        return self._kept(self._head)[5]

    @property
    def newest_ms(self) -> int:
        """Time of the newest record; there must be one."""
        return self._kept(len(self._runs) - 1)[5]

    def run_with(self, offset: int, node_run: str) -> RecordRun:
        """The run that has the record at an offset, which must be kept."""
        index = bisect_right(self._bases, offset, self._head) - 1
        data, start, end, _, first_number, time_ms, client_id, is_v5 = self._kept(index)
        topics, payload_starts, ends = self._columns(data, start, end, is_v5)
        return RecordRun(
            data,
            start,
            topics,
            payload_starts,
            ends,
            base_offset=self._bases[index],
            first_number=first_number,
            node_run=node_run,
            received_at_ms=time_ms,
            client_id=client_id,
            is_v5=is_v5,
        )

    def _columns(self, data: bytes, start: int, end: int, is_v5: bool) -> tuple[list[Topic], list[int], list[int]]:
        if len(self._topics) > TOPICS_MAX:
            self._topics = {}
        topics: list[Topic] = []
        payload_starts: list[int] = []
        ends: list[int] = []
        decode_frames(data, start, end, is_v5, self._topics, topics, payload_starts, ends)
        return topics, payload_starts, ends

    def _kept(self, index: int) -> KeptRun:
        kept = self._runs[index]
        assert kept is not None, "a dropped run was asked for"
        return kept


def _time_of(kept: KeptRun | None) -> int:
    assert kept is not None, "a dropped run was asked for"
    return kept[5]
