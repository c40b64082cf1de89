"""Turn: what happens once for each round of the event loop, however many connections spoke.

A turn is read, apply, flush, submit: the listeners have read and applied when `run` tells who came and went and writes
each touched connection once. What it writes waits for nothing, so subscribers have it while the changes are handed to
the store and the publishes to the sink, in one transaction where both end in one file. What that made ready,
acknowledgements above all, is written at the end. A turn never waits for more work.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from broker.outbox import flush
from broker.protocol.connection import PAUSED_BY_RATE
from broker.protocol.handlers.fan_out import send_slices

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from broker.engine import Engine


def epoch_ms() -> int:
    """The wall clock in milliseconds."""
    return time.time_ns() // 1_000_000


class Turn:
    """Schedules itself at most once a round."""

    __slots__ = ("_is_scheduled", "_loop", "engine", "now_ms")

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop, clock: Callable[[], int] | None = None) -> None:
        self.engine = engine
        self.now_ms = clock if clock is not None else epoch_ms
        """Epoch milliseconds."""
        self._loop = loop
        self._is_scheduled = False

    def schedule(self) -> None:
        """Have `run` called before the loop waits again."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self.run)

    def run(self) -> None:
        """Write what goes out, submit what came in, and write what that has acknowledged."""
        self._is_scheduled = False
        engine = self.engine
        if engine.connection_changes and engine.watch is not None:
            connection_changes, engine.connection_changes = engine.connection_changes, []
            engine.watch.changed(connection_changes)
        if engine.touched:
            engine.metrics.bytes_sent += flush(engine.touched, engine.now_ms)
        send_slices(engine)
        store = engine.store
        has_changes = False
        if engine.changes and store is not None:
            changes, engine.changes = engine.changes, []
            store.keep(changes)
            has_changes = True
        runs = engine.runs
        if runs and engine.sink is not None:
            engine.runs = []
            engine.sink.submit(runs)
        if engine.changes and store is not None:  # of QoS 2 publishes that were stored at once, and are routed now
            changes, engine.changes = engine.changes, []
            store.keep(changes)
            has_changes = True
        if has_changes and store is not None:
            store.flush()
        if engine.touched:
            engine.metrics.bytes_sent += flush(engine.touched, engine.now_ms)
        if engine.held:
            for connection, wait_ms in engine.held:
                self._loop.call_later(wait_ms / 1000, connection.resume_reading, PAUSED_BY_RATE)
            engine.held.clear()
        if engine.changes or engine.due_fan_outs:  # of QoS 2 messages that there was room for now; another slice
            self.schedule()
