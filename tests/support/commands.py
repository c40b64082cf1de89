"""`headrace` commands as processes: run to their end, or watched, interrupted and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

COMMAND_TIMEOUT_S = 50


def headrace(
    *arguments: object, cwd: Path | None = None, stdin: str | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "bridge.cli", *map(str, arguments)],
        capture_output=True,
        input=stdin if stdin is not None else "",
        encoding="utf-8",
        timeout=COMMAND_TIMEOUT_S,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        check=False,
    )


class RunningCommand:
    """A command under way; it is killed at the end if it still runs."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bridge.cli", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._stdout: list[bytes] = []
        self._stderr: list[bytes] = []
        self._threads = [
            threading.Thread(target=self._read, args=(self.process.stdout, self._stdout), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self._stderr), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _read(pipe: object, chunks: list[bytes]) -> None:
        read = pipe.read1  # type: ignore[attr-defined]
        while data := read(65_536):
            chunks.append(data)

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return b"".join(self._stdout).decode()

    @property
    def stderr(self) -> str:
        """The same for standard error."""
        return b"".join(self._stderr).decode()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(COMMAND_TIMEOUT_S)
        for thread in self._threads:
            thread.join(5)
        return code

    def kill(self) -> None:
        """kill -9, and wait."""
        self.process.kill()
        self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
