"""Gate: what is spooled is not shown before what stands in Kafka in front of it (ADR 10).

When spooling begins, live readers may not have been shown all that Kafka has confirmed: records of others stand in
between, or a restart was a moment ago and the tail is still on its way. Then the gate is shut. Records are spooled and
acknowledged as ever, but shown only when every partition has been read up to where it ended in that moment; until then
nothing goes to Kafka directly either, so there is one such moment at a time. It is kept over a restart.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import TYPE_CHECKING

from bridge.cursors import SPOOL
from bridge.ending import end
from bridge.records import RecordRun
from bridge.streams.kafka.records import part_of
from bridge.streams.log import StreamLogError

if TYPE_CHECKING:
    from bridge.streams.kafka.log import KafkaLog

logger = logging.getLogger("headrace.kafka")


class Gate:
    """Of one stream; see the module's docstring."""

    def __init__(self, log: KafkaLog) -> None:
        self._log = log
        self._ends: dict[int, int] | None = None
        """Where each partition ended when it was shut; None: it is open."""
        self._task: asyncio.Task[None] | None = None
        kept = log.spool.gate
        if kept is not None and any(log.topic.offsets.get(partition, 0) < at for partition, at in kept[1].items()):
            self._ends = kept[1]

    @property
    def is_shut(self) -> bool:
        """What is spooled waits to be shown."""
        return self._ends is not None

    def shut(self) -> None:
        """Records go to the spool from here on: shut it, unless live readers have seen all that comes before them."""
        ends: dict[int, int] = {}
        is_behind = False
        for partition, line in self._log.lines.items():
            ends[partition] = line.known_end
            is_behind = is_behind or line.position < line.known_end
        if not is_behind:
            return
        logger.info("stream %s: what is spooled is shown when Kafka's records before it are", self._log.name)
        self._ends = ends
        self._log.spool.keep_gate(self._log.shown_spool, ends)
        self.hold_lines()

    def hold_lines(self) -> None:
        """No line goes past the end that it had: the copies behind it have not been shown."""
        for partition, line in self._log.lines.items():
            line.limit = self._ends.get(partition) if self._ends is not None else None

    def forget_ends(self) -> None:
        """The topic is another one: nothing in it comes before what is spooled."""
        if self._ends is not None:
            self._ends = {}

    def look(self) -> None:
        """Open it when every partition has been read so far."""
        lines = self._log.lines
        if self._ends is None or not lines or (self._task is not None and not self._task.done()):
            return
        if all(partition not in lines or lines[partition].position >= at for partition, at in self._ends.items()):
            self._task = asyncio.create_task(self._open(), name=f"kafka-gate-{self._log.name}")

    async def close(self) -> None:
        """Stop; it stays shut for the next start."""
        await end([self._task])

    async def _open(self) -> None:
        """Show what waits in the spool, in order, and let everything go on."""
        log = self._log
        try:
            while log.shown_spool < log.spool.next_offset:
                start, stop = log.shown_spool, log.spool.next_offset
                runs = [_between(run, start, stop) for run in await log.spool.read(start, stop)]
                if not runs:
                    logger.error("spooled records %d to %d of %s are missing", start, stop, log.name)
                    log.show_spooled((), stop)
                    break
                for run in runs:
                    for topic in set(run.topics):
                        topic.stream = log  # as every topic that live readers are shown; those of a read have none
                log.show_spooled(runs, runs[-1].base_offset + len(runs[-1]))
                log.tail.on_turn()
        except (StreamLogError, sqlite3.Error):
            logger.exception("what is spooled of %s could not be read; it is tried again", log.name)
            return
        self._ends = None
        log.spool.keep_gate(0, None)
        self.hold_lines()
        for line in log.lines.values():
            line.advance()
        log.tail.wake()
        log.tail.on_turn()
        log.progress.note()


def _between(run: RecordRun, start: int, stop: int) -> RecordRun:
    """The records of a run with `start <= offset < stop`, as those of the spool."""
    first, last = max(0, start - run.base_offset), min(len(run), stop - run.base_offset)
    if first == 0 and last == len(run):
        run.partition = SPOOL
        return run
    return part_of(run, range(first, last), run.topics, run.node_run, SPOOL, run.base_offset + first)
