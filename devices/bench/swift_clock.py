"""Runs Headrace with a clock that begins in the past and goes fast until it is now, so that a log looks days old.

Run as `python -m devices.bench.swift_clock START_MS FACTOR serve …`. The broker stamps what it receives; there is no
other way to a log with a day's history than a day of publishing. Only clocks of the day are changed, timers are not.
"""

from __future__ import annotations

import runpy
import sys
import time
from collections.abc import Callable

NS_A_MS = 1_000_000


def swift_clock(start_ms: int, factor: float, clock_ns: Callable[[], int]) -> Callable[[], int]:
    """A clock of nanoseconds that reads `start_ms` now and goes `factor` times as fast, but never into the future."""
    begun_ns = clock_ns()

    def read() -> int:
        now_ns = clock_ns()
        return min(now_ns, start_ms * NS_A_MS + int((now_ns - begun_ns) * factor))

    return read


def main(start_ms: int, factor: float, arguments: list[str]) -> None:
    """The command line of Headrace under such a clock."""
    read = swift_clock(start_ms, factor, time.time_ns)
    time.time_ns = read
    time.time = lambda: read() / 1e9
    sys.argv = ["headrace", *arguments]
    runpy.run_module("bridge.cli", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
