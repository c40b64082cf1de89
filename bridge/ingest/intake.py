"""Intake: the broker's sink. It gives each run to its stream's log, and a committed run back to its connection.

The order is the contract: submit -> log.append -> commit -> acknowledge -> hub. A live reader never sees a record
before the log has it, and a device is never told "stored" before it is.

While a log cannot follow, acknowledgements are simply not given; a connection that goes on sending is paused when it
has sent `held_bytes_max` or `held_publishes_max`, and MQTT 5 publishers are refused after `hold_s`.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bridge.records import Topic
from broker.limit_hits import LimitHits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridge.streams.log import StreamLog
    from broker.publish_run import PublishRun
    from broker.sink import Origin

log = logging.getLogger("headrace.store")

QUOTA_EXCEEDED = 0x97


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """Bounds of what waits for a log."""

    pending_bytes_max: int = 64 * 1024 * 1024
    """Bytes of frames handed to a log and not committed; above it reading from their publishers pauses, until half."""
    held_bytes_max: int = 256 * 1024
    """What one connection may send while its log fails, before reading from it pauses."""
    held_publishes_max: int = 1_000
    hold_s: int = 60
    """After so long MQTT 5 publishers get 0x97 for what a failing log could not take."""


class PacketIdStore(Protocol):
    """Where QoS 2 packet ids are kept beside the records."""

    def release(self, client_id: str, packet_id: int, done: Callable[[], None]) -> None:
        """Forget one, then call `done`."""

    def unreleased(self, client_id: str) -> dict[int, int]:
        """Those stored for a client."""

    def forget(self, client_id: str) -> None:
        """Forget all of a client."""


class LiveFeed(Protocol):
    """Who wants to see what was committed."""

    def committed(self, log: StreamLog, runs: Sequence[PublishRun]) -> None:
        """The runs, in offset order, on the loop."""


class CommitFigures(Protocol):
    """Who counts."""

    def submitted(self, name: str) -> None:
        """A run was handed to the log of this stream."""

    def committed(self, log: StreamLog, runs: Sequence[PublishRun]) -> None:
        """And these were committed."""


class Held:
    """What one connection has sent to a failing log."""

    __slots__ = ("bytes", "publishes")

    def __init__(self) -> None:
        self.bytes = 0
        self.publishes = 0


class Intake:
    """Implements `broker.sink.Sink` over the streams' logs."""

    def __init__(
        self,
        stream_for: Callable[[str], StreamLog | None],
        logs: Sequence[StreamLog],
        packet_ids: PacketIdStore | None,
        limits: IntakeLimits,
        clock: Callable[[], float],
        figures: CommitFigures | None = None,
        when_durable: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._figures = figures
        self._when_durable = when_durable
        """Calls back once what the broker has handed to its store is durable; None: it has no store."""
        self._unkept: set[PublishRun] = set()
        """Runs with RETAIN, on their way to a log elsewhere, whose message is not in the store yet."""
        self._stored_first: set[PublishRun] = set()
        """Those of them that the log has."""
        self._stream_for = stream_for
        self._logs = logs
        self._packet_ids = packet_ids
        self._limits = limits
        self._clock = clock
        """Seconds, monotonic."""
        self._live: LiveFeed | None = None
        self._on_committed: Callable[[], None] = lambda: None
        self._next_number = 1
        self._paused: set[Origin] = set()
        self._held_by_origin: dict[Origin, Held] = {}
        self._held_runs: deque[tuple[float, PublishRun]] = deque()
        self.dropped_qos0 = 0
        """QoS 0 publishes that a failing log did not take."""
        self.limit_hits = LimitHits()
        self.pauses = 0
        """How often reading from a connection was paused."""
        for each in logs:
            each.on_committed = self._committed_by(each)

    def connect(self, live: LiveFeed, on_committed: Callable[[], None]) -> None:
        """Set who sees committed runs, and what is called when acknowledgements are ready to be written."""
        self._live = live
        self._on_committed = on_committed

    # broker.sink.Sink

    def open_topic(self, topic_name: str) -> Topic | None:
        """A topic in the stream that takes it; None when none does."""
        stream = self._stream_for(topic_name)
        return Topic(topic_name, stream) if stream is not None else None

    def submit(self, runs: Sequence[PublishRun]) -> None:
        """Give each run to its log; the logs commit them all in one go."""
        touched: list[StreamLog] = []
        number = self._next_number
        for run in runs:
            stream: StreamLog = run.stream  # type: ignore[assignment]
            if stream.failure is not None and not self._hold(stream, run):
                continue
            run.first_number = number
            number += len(run.ends)
            if (run.retain or run.waits_for_store) and stream.reads_back and not stream.acknowledges_on_receipt:
                self._keep_first(run)
            stream.append(run)
            if stream.acknowledges_on_receipt and run.reliable and run.origin is not None:
                self._acknowledge_receipt(run, run.origin)
            if stream not in touched:
                touched.append(stream)
                if self._figures is not None:
                    self._figures.submitted(stream.name)
        self._next_number = number
        for stream in touched:
            stream.flush()
            if stream.pending_bytes > self._limits.pending_bytes_max:
                self._pause_publishers(stream, runs)

    def release(self, client_id: str, packet_id: int, done: Callable[[], None]) -> None:
        """PUBREL of a kept session: PUBCOMP leaves when the id is forgotten on disk."""
        if self._packet_ids is None:
            done()
            return

        def released() -> None:
            done()
            self._on_committed()

        self._packet_ids.release(client_id, packet_id, released)

    def unreleased(self, client_id: str) -> dict[int, int]:
        """QoS 2 packet ids stored before a restart."""
        return self._packet_ids.unreleased(client_id) if self._packet_ids is not None else {}

    def forget(self, client_id: str) -> None:
        """The client's session has ended."""
        if self._packet_ids is not None:
            self._packet_ids.forget(client_id)

    def _acknowledge_receipt(self, run: PublishRun, origin: Origin) -> None:
        """At once, but for what is owed to kept sessions: then their copies are the promise."""
        if run.waits_for_store and self._when_durable is not None:
            self._when_durable(lambda: origin.acknowledge(run))
        else:
            origin.acknowledge(run)

    def _keep_first(self, run: PublishRun) -> None:
        """A retained message whose record is kept elsewhere: who sent it is acknowledged when both are durable."""

        def kept() -> None:
            self._unkept.discard(run)
            if run in self._stored_first:
                self._stored_first.remove(run)
                assert run.origin is not None
                run.origin.acknowledge(run)

        if self._when_durable is not None and run.reliable and run.origin is not None:
            self._unkept.add(run)
            self._when_durable(kept)

    # Commits

    def _committed_by(self, stream: StreamLog) -> Callable[[Sequence[PublishRun]], None]:
        def committed(runs: Sequence[PublishRun]) -> None:
            if self._figures is not None:
                self._figures.committed(stream, runs)
            if not stream.acknowledges_on_receipt:
                for run in runs:
                    origin = run.origin
                    if run.reliable and origin is not None:
                        if self._unkept and run in self._unkept:
                            self._stored_first.add(run)
                            continue
                        try:
                            origin.acknowledge(run)
                        except Exception:  # one connection's failure must not hold back the others' acknowledgements
                            log.exception("an acknowledgement failed")
            if self._live is not None and not stream.reads_back:
                self._live.committed(stream, runs)
            if self._paused or self._held_by_origin:
                self._resume_publishers()
            self._on_committed()

        return committed

    # Logs that cannot follow

    def _hold(self, stream: StreamLog, run: PublishRun) -> bool:
        """A run for a failing log: False when it is not kept (QoS 0)."""
        if not run.reliable:
            self.dropped_qos0 += len(run)
            return False
        self._held_runs.append((self._clock() + self._limits.hold_s, run))
        origin = run.origin
        if origin is not None:
            held = self._held_by_origin.setdefault(origin, Held())
            held.bytes += run.ends[-1] - run.start
            held.publishes += run.reliable
            if held.bytes > self._limits.held_bytes_max:
                self._pause(origin, "store.held_bytes_max")
            elif held.publishes >= self._limits.held_publishes_max:
                self._pause(origin, "store.held_publishes_max")
        return True

    def _pause(self, origin: Origin, limit: str) -> None:
        if origin not in self._paused:
            self.limit_hits.hit(limit)
            self._paused.add(origin)
            self.pauses += 1
            origin.pause_reading()

    def _pause_publishers(self, stream: StreamLog, runs: Sequence[PublishRun]) -> None:
        """The log is over its bytes: stop reading from those who sent now. [no peer is asked to wait in vain]"""
        for run in runs:
            if run.stream is stream and run.origin is not None:
                self._pause(run.origin, "store.pending_bytes_max")

    def _resume_publishers(self) -> None:
        """Read again from everyone once no log fails and all are below half their bytes."""
        for stream in self._logs:
            if stream.failure is not None or stream.pending_bytes > self._limits.pending_bytes_max // 2:
                return
        self._held_by_origin.clear()
        self._held_runs.clear()
        paused, self._paused = self._paused, set()
        for origin in paused:
            origin.resume_reading()

    def tick(self) -> None:
        """Once a second: refuse MQTT 5 publishes that a failing log could not take within `hold_s`."""
        now = self._clock()
        while self._held_runs and self._held_runs[0][0] <= now:
            _, run = self._held_runs.popleft()
            origin = run.origin
            stream: StreamLog = run.stream  # type: ignore[assignment]
            if origin is None or not run.is_v5 or run.is_done or not stream.withdraw(run):
                continue
            self.limit_hits.hit("store.hold_s")
            origin.refuse(run, QUOTA_EXCEEDED)
            held = self._held_by_origin.get(origin)
            if held is not None:
                held.bytes -= run.ends[-1] - run.start
                held.publishes -= run.reliable
                if held.publishes <= 0:
                    self._paused.discard(origin)
                    origin.resume_reading()
        if self._paused:
            self._resume_publishers()
        self._on_committed()
