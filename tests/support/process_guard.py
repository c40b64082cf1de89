"""ProcessGuard: kills what the tests started when the tests themselves die, however they die.

Fixtures end processes in every orderly case. This is for the others: pytest killed, out of memory, a crash of Python.
A child process waits for the end of a pipe that only the tests hold, so it needs nothing of the operating system's own.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from functools import cache

GUARD = """
import os, signal, sys
guarded = set()
for line in sys.stdin:
    sign, pid = line[0], int(line[1:])
    guarded.add(pid) if sign == "+" else guarded.discard(pid)
for pid in guarded:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


class ProcessGuard:
    """One for all tests of a session: `process_guard()`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-c", GUARD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # what ends the tests' process group must not end it first
        )

    def add(self, pid: int) -> None:
        """Kill this process when the tests end."""
        self._say(f"+{pid}\n")

    def remove(self, pid: int) -> None:
        """It has ended (call this before its number can be given to another process)."""
        self._say(f"-{pid}\n")

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line)
            self._process.stdin.flush()


@cache
def process_guard() -> ProcessGuard:
    """The guard of this process."""
    return ProcessGuard()
