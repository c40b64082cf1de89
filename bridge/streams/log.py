"""StreamLog: the contract of every storage, in words and as a Protocol.

One instance is one stream. All methods are called on the event loop's thread and none of them blocks.

1. `append` gives each record of a run the next offsets (`run.base_offset`), a time that never falls below the last
   one of the stream (`run.received_at_ms` is raised) and a number (`run.first_number`), in the order of the calls.
2. `on_committed(runs)` is called on the loop, in offset order, once the runs are as durable as the storage can make
   them. For `memory` that is inside `flush`.
3. Offsets `first_offset <= o < next_offset` can be read; `next_offset` counts committed records only. `epoch` names
   one life of the stream: an offset means nothing under another epoch.
4. While the storage cannot take records (`failure` is not None) nothing is lost: runs stay queued in order, are tried
   again, and `withdraw` takes one back that its publisher has been refused.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridge.history.scan import Scan, ScanResult
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
    epoch: str  # [A-Za-z0-9-]+
    acknowledges_on_receipt: bool
    on_committed: Callable[[Sequence[PublishRun]], None]
    failure: str | None  # why nothing commits at the moment, for people; None when all is well

    @property
    def first_offset(self) -> int:
        """Offset of the oldest record kept; equals `next_offset` when there is none."""

    @property
    def next_offset(self) -> int:
        """One past the newest committed record."""

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

    async def offset_at(self, time_ms: int) -> int:
        """The first offset whose record's time is at or after `time_ms`; `next_offset` when there is none."""

    async def scan(self, request: Scan) -> ScanResult:
        """Read and encode a bounded piece of history; see `bridge.history.scan`."""
