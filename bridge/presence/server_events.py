"""What happens to the server itself, on `$server/{kind}`: rare, bounded for each kind, and kept until the log is back.

A kind that comes more than so many times a second is told no further in that second; the next event of it says how many
were left out.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import orjson

from bridge.encoding import rfc3339
from broker.limit_hits import LimitHits

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.presence.watch import OwnPublisher

SERVER_PREFIX = "$server/"
KINDS = frozenset(
    {
        "started",
        "stopped",
        "kafka_down",
        "kafka_up",
        "spool",
        "reader_cut",
        "limit_hit",
        "connect_refused",
        "command",
        "clock_jump",
        "disk_full",
        "config_reloaded",
    }
)
KEPT_MAX = 100
"""Events kept for a log that fails; the oldest goes first, and all were sent to subscribers."""
TEXT_MAX = 256
"""Characters of a text that a stranger chose."""
LIST_MAX = 10
CLOCK_JUMP_MS = 2_000
LIMIT_HIT_S = 10
"""A limit that is hit without end is told so often."""


class _Kind:
    """What was told of one kind lately."""

    __slots__ = ("left_out", "second", "told")

    def __init__(self) -> None:
        self.second = 0
        self.told = 0
        """In that second."""
        self.left_out = 0


class ServerEvents:
    """Tells them; counts those that were too many."""

    def __init__(self, clock: Callable[[], int], events_max: int) -> None:
        self.told: dict[str, int] = {}
        self.left_out: dict[str, int] = {}
        self.limit_hits = LimitHits()
        self._clock = clock
        """Epoch milliseconds."""
        self._events_max = events_max
        self._publisher: OwnPublisher | None = None
        self._early: deque[tuple[str, int, dict[str, Any]]] = deque(maxlen=KEPT_MAX)
        """What was told before there was someone to publish it."""
        self._is_failing: Callable[[], bool] = lambda: False
        self._kinds = {kind: _Kind() for kind in KINDS}
        self._kept: deque[tuple[str, bytes]] = deque(maxlen=KEPT_MAX)

    def connect(self, publisher: OwnPublisher, is_failing: Callable[[], bool]) -> None:
        """Set who publishes, and whether the log takes nothing at the moment."""
        self._publisher = publisher
        self._is_failing = is_failing
        while self._early:
            kind, time_ms, fields = self._early.popleft()
            self._publish(publisher, kind, time_ms, fields)

    def tell(self, kind: str, **fields: Any) -> None:
        """Publish an event, unless there were too many of its kind in this second."""
        state = self._kinds[kind]
        now_ms = self._clock()
        second = now_ms // 1000
        if state.second != second:
            state.second, state.told = second, 0
        if state.told >= self._events_max:
            state.left_out += 1
            self.left_out[kind] = self.left_out.get(kind, 0) + 1
            self.limit_hits.hit("presence.server_events_max")
            return
        state.told += 1
        if self._publisher is None:
            self._early.append((kind, now_ms, fields))
        else:
            self._publish(self._publisher, kind, now_ms, fields)

    def tick(self) -> None:
        """Once a second: say what was left out, and store what the log did not take."""
        publisher = self._publisher
        if publisher is None:
            return
        now_ms = self._clock()
        for kind, state in self._kinds.items():
            if state.left_out and state.second != now_ms // 1000:
                self._publish(publisher, kind, now_ms, {})
        if self._kept and not self._is_failing():
            publisher.publish_own(list(self._kept), is_routed=False)
            self._kept.clear()

    def _publish(self, publisher: OwnPublisher, kind: str, time_ms: int, fields: dict[str, Any]) -> None:
        state = self._kinds[kind]
        event = {"kind": kind, "time": rfc3339(time_ms)} | {name: _bounded(value) for name, value in fields.items()}
        if state.left_out:
            event["left_out"] = state.left_out
            state.left_out = 0
        self.told[kind] = self.told.get(kind, 0) + 1
        row = (SERVER_PREFIX + kind, orjson.dumps(event, default=str))
        is_failing = self._is_failing()
        if is_failing:
            self._kept.append(row)
        publisher.publish_own([row], is_stored=not is_failing)


def _bounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_bounded(each) for each in value[:LIST_MAX]]
    return value[:TEXT_MAX] if isinstance(value, str) else value


class LimitsHit:
    """Which limits were hit, found once a second from counters that are kept anyway."""

    def __init__(self, events: ServerEvents, counts: Callable[[], dict[str, int]]) -> None:
        """`counts`: how often each limit was hit since the start, by its key in the configuration."""
        self._events = events
        self._counts = counts
        self._told: dict[str, int] = {}
        self._quiet_until_s: dict[str, int] = {}
        self._seconds = 0

    def tick(self) -> None:
        """Once a second."""
        self._seconds += 1
        for limit, count in self._counts().items():
            told = self._told.get(limit, 0)
            if count <= told:
                continue
            if self._seconds >= self._quiet_until_s.get(limit, 0):
                self._told[limit] = count
                self._quiet_until_s[limit] = self._seconds + LIMIT_HIT_S
                self._events.tell("limit_hit", limit=limit, count=count - told, total=count)


class ClockWatch:
    """Tells when the wall clock was set: it goes otherwise than the monotonic one."""

    def __init__(self, wall_ms: Callable[[], int], monotonic_s: Callable[[], float]) -> None:
        self._wall_ms = wall_ms
        self._monotonic_s = monotonic_s
        self._difference_ms = self._difference()

    def _difference(self) -> int:
        return self._wall_ms() - int(1000 * self._monotonic_s())

    def jump_ms(self) -> int:
        """By how much the clock has jumped since the last call; 0: it has not. Slow corrections are no jump."""
        before, self._difference_ms = self._difference_ms, self._difference()
        jump = self._difference_ms - before
        return jump if abs(jump) >= CLOCK_JUMP_MS else 0
