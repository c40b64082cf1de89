"""Pacer: lets records through at the distances in which they were received, or faster, or slower."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

WAIT_S_MAX = 0.2
"""Between two looks at whatever else goes on."""
SPEED_MAX = 1_000_000.0


def parse_speed(text: str) -> float:
    """`10` is ten times as fast, `0.5` half as fast, `max` infinitely fast.

    Raises:
        ValueError: it is neither.
    """
    if text == "max":
        return math.inf
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not 0 < speed <= SPEED_MAX:
        raise ValueError(f'"{text}" is no speed; write 1, 10, 0.5, or max')
    return speed


class Pacer:
    """The first record that it is asked for goes at once; it sets the time that the others are measured from."""

    def __init__(
        self, speed: float, wait: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.is_unbounded = math.isinf(speed)
        self._speed = speed
        self._wait = wait
        self._clock = clock
        self._begun: tuple[float, int] | None = None

    def wait_for(self, time_ms: int) -> None:
        """Return when the turn of a record that was received at `time_ms` has come."""
        if self.is_unbounded:
            return
        if self._begun is None:
            self._begun = (self._clock(), time_ms)
        begun, first_ms = self._begun
        due = begun + (time_ms - first_ms) / 1_000 / self._speed
        while (left := due - self._clock()) > 0:
            self._wait(min(left, WAIT_S_MAX))
