"""SpoolUpkeep: the bounds of a stream's spool, how old what waits there is, and when moved records are let go of."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from bridge.ending import end
from bridge.streams.kafka.mode import Mode

if TYPE_CHECKING:
    from bridge.streams.kafka.log import KafkaLog

logger = logging.getLogger("headrace.kafka")

KEEP_MOVED_S = 30.0
"""Bodies of moved records stay so long: a reader in the middle of a piece may still want them."""


class SpoolUpkeep:
    """Of one stream; see the module's docstring."""

    def __init__(self, log: KafkaLog) -> None:
        self.limit: str | None = None
        """Which bound of the spool is passed, for people; nothing more is spooled then."""
        self.oldest_ms: int | None = None
        """Time of the oldest record that waited when it was last looked for."""
        self._log = log
        self._spool = log.spool
        self._age_task: asyncio.Task[None] | None = None
        self._drop_marks: list[tuple[float, int]] = []

    async def close(self) -> None:
        """Stop looking."""
        await end([self._age_task])

    def look(self, now: float) -> None:
        """Once a second; `now` is of the monotonic clock."""
        self._drop_moved(now)
        if self._spool.records > 0 and (self._age_task is None or self._age_task.done()):
            self._age_task = asyncio.create_task(self._look_at_age())

    async def _look_at_age(self) -> None:
        """Find the time of the oldest record in the spool."""
        self.oldest_ms = await self._spool.oldest_ms()

    def _drop_moved(self, now: float) -> None:
        """Let go of the bodies of what was moved a while ago and is behind the live side."""
        marks = self._drop_marks
        is_behind = self._log.gate.is_shut or any(self._spool.copies_by_partition.values())
        passed = 0 if is_behind else self._spool.moved_to
        if passed and (not marks or marks[-1][1] < passed):
            marks.append((now + KEEP_MOVED_S, passed))
        while marks and marks[0][0] <= now:
            self._spool.prune(self._log.topic.first)
            self._spool.drop_before(marks.pop(0)[1])

    def judge(self) -> None:
        """The spool's bounds: over them nothing is acknowledged until there is room."""
        log = self._log
        settings = log.cluster.settings
        was, self.limit = self.limit, None
        key = ""
        if self._spool.records > 0:
            if self._spool.log.stored_bytes > settings.spool_bytes_max:
                key = "spool_bytes_max"
                self.limit = f"the spool of stream {log.name} is full ([kafka] {key})"
            elif self.oldest_ms is not None and time.time() * 1000 - self.oldest_ms > settings.spool_age_s_max * 1000:
                key = "spool_age_s_max"
                self.limit = f"the spool of stream {log.name} is too old ([kafka] {key})"
        if was != self.limit:
            if self.limit is not None:
                logger.error("%s; nothing is acknowledged that is not stored", self.limit)
                log.on_change("limit_hit", {"limit": f"kafka.{key}", "stream": log.name})
            elif log.mode in (Mode.SPOOLING, Mode.DRAINING):
                log.intake.release_held()
