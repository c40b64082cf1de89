"""StreamLog: the contract of every storage, in words and as a Protocol.

One instance is one stream. All methods are called on the event loop's thread and none of them blocks.

1. `append` takes runs in order, gives each a time that never falls below the last one of the stream
   (`run.received_at_ms` is raised) and, as far as it can know them, its offsets (`run.base_offset`).
2. `on_committed(runs)` is called on the loop once the runs are as durable as the storage can make them; for `memory`
   that is inside `flush`. Embedded logs call it in the order of the appends, with offsets that are final, and their
   records can be read from then on. Kafka calls it when the broker has confirmed; what can be read comes by
   `on_read(runs)`, in the order of each partition.
3. Offsets `first_offsets[p] <= o < offsets[p]` can be read, for each partition `p` (0 alone for embedded logs,
   `SPOOL` for what waits outside Kafka). `epoch` names one life of the stream: an offset means nothing under another.
4. While the storage cannot take records (`failure` is not None) nothing is lost: runs stay queued in order, are tried
   again, and `withdraw` takes one back that its publisher has been refused.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridge.cursors import Offsets, StreamPosition
    from bridge.history.scan import AnswerT, StreamQuestion, StreamScan, StreamScanResult
    from bridge.records import RecordRun
    from broker.publish_run import PublishRun


def clock_ms() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


def ignore_commits(runs: Sequence[PublishRun]) -> None:
    """`on_committed` until the owner of a log sets its own."""


class StreamLogError(Exception):
    """A log could not do what was asked; `retriable` says whether the same call may succeed later."""

    retriable = False


class StreamLog(Protocol):
    """One stream's storage."""

    name: str
    storage: str  # "memory" | "sqlite" | "kafka"
    acknowledges_on_receipt: bool
    reads_back: bool  # what can be read comes by `on_read`, not with the commit
    on_committed: Callable[[Sequence[PublishRun]], None]
    on_read: Callable[[Sequence[RecordRun]], None]

    @property
    def epoch(self) -> str:
        """This life of the stream: `[A-Za-z0-9_-]+`."""

    @property
    def failure(self) -> str | None:
        """Why nothing commits at the moment, for people; None when all is well."""

    @property
    def first_offsets(self) -> Offsets:
        """Offset of the oldest record kept in each partition; equals that of `offsets` when there is none."""

    @property
    def offsets(self) -> Offsets:
        """One past the newest record that can be read, in each partition."""

    @property
    def records(self) -> int:
        """How many can be read."""

    @property
    def ends(self) -> Offsets:
        """One past the newest record that there is, as far as is known; at or behind `offsets`."""

    @property
    def contact_offsets(self) -> Offsets:
        """`offsets` when this node first saw this epoch of the stream."""

    def epoch_of(self, partition: int) -> str:
        """The epoch in which a partition's offsets count; that of `SPOOL` is its own."""

    def position(self, offsets: Offsets) -> StreamPosition:
        """`offsets` with the epochs that they belong to."""

    @property
    def pending_bytes(self) -> int:
        """Bytes of frames appended and not yet committed."""

    @property
    def stored_bytes(self) -> int:
        """Bytes of frames kept."""

    @property
    def oldest_ms(self) -> int | None:
        """Time of the oldest record kept, epoch milliseconds."""

    @property
    def newest_ms(self) -> int | None:
        """Time of the newest committed record, epoch milliseconds."""

    def append(self, run: PublishRun) -> None:
        """Queue a run. It is committed after the next `flush`."""

    def flush(self) -> None:
        """End of a turn: hand all that is queued to the storage."""

    def withdraw(self, run: PublishRun) -> bool:
        """Take a queued run back; False when it is already being written (its offsets are then used)."""

    async def offsets_at(self, time_ms: int) -> Offsets:
        """In each partition the first offset whose record's time is at or after `time_ms`, else that of `offsets`."""

    @property
    def begun_ms(self) -> int | None:
        """When this epoch began, if records from before may have been lost with the last one; epoch milliseconds."""

    async def ask_stream(self, request: StreamQuestion[AnswerT]) -> Sequence[AnswerT]:
        """An answer from each partition; see `bridge.history.scan`."""

    async def scan_stream(self, request: StreamScan) -> StreamScanResult:
        """Read and encode a bounded piece of history; see `bridge.history.scan`."""
