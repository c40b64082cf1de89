"""OnePartition: what a stream over partitions comes to for a storage that has a single one, number 0."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

from bridge.cursors import Offsets, StreamPosition
from bridge.history.scan import AnswerT, Question, StreamQuestion, StreamScan, StreamScanResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.records import RecordRun


def ignore_runs(runs: Sequence[RecordRun]) -> None:
    """`on_read` of a log that never calls it."""


class OnePartition(ABC):
    """The part of `StreamLog` that is about partitions, over the part that is about offsets."""

    reads_back = False

    name: str
    epoch: str

    @property
    @abstractmethod
    def first_offset(self) -> int:
        """Offset of the oldest record kept; equals `next_offset` when there is none."""

    @property
    @abstractmethod
    def next_offset(self) -> int:
        """One past the newest committed record."""

    @abstractmethod
    async def offset_at(self, time_ms: int) -> int:
        """The first offset whose record's time is at or after `time_ms`; `next_offset` when there is none."""

    @abstractmethod
    async def scan(self, request: Question[AnswerT]) -> AnswerT:
        """Answer a question about a bounded range of offsets."""

    @property
    def first_offsets(self) -> Offsets:
        return {0: self.first_offset}

    @property
    def offsets(self) -> Offsets:
        return {0: self.next_offset}

    @property
    def records(self) -> int:
        return self.next_offset - self.first_offset

    @property
    def ends(self) -> Offsets:
        return self.offsets

    @property
    def contact_offsets(self) -> Offsets:
        return {0: 0}

    def epoch_of(self, partition: int) -> str:
        return self.epoch

    def position(self, offsets: Offsets) -> StreamPosition:
        return StreamPosition(self.epoch, offsets)

    async def offsets_at(self, time_ms: int) -> Offsets:
        return {0: await self.offset_at(time_ms)}

    @property
    def begun_ms(self) -> int | None:
        return None

    async def ask_stream(self, request: StreamQuestion[AnswerT]) -> Sequence[AnswerT]:
        return [
            await self.scan(replace(request.what, start=request.start.get(0, 0), end=request.end.get(0, 0))),
        ]

    async def scan_stream(self, request: StreamScan) -> StreamScanResult:
        found = await self.scan(
            replace(
                request.what,
                start=request.start.get(0, 0),
                end=request.end.get(0, 0),
                cursor_head=f"{request.before}{self.name}~{self.epoch}~0.",
                cursor_tail=request.after,
            )
        )
        return StreamScanResult(
            found.data,
            found.count,
            {0: found.next_offset},
            {0: found.first_offset},
            found.last_ms,
            found.is_epoch_current,
            found.publishes,
        )
