"""ServerProcess: the real server as a process of its own, on free ports and a data directory of its own.

Tests start, stop, kill and restart it; nothing in it is replaced.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import urlsplit

from tests.support.ports import free_server_port
from tests.support.prepared import PreparedProcess

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0

PORT_IN_USE = re.compile(r"port \d+ on \S+ is in use|address already in use", re.IGNORECASE)
ADDRESS_LINE = re.compile(r"^(mqtt|mqtt-ws|dashboard)\s+(\S+)")


class ServerDidNotStart(AssertionError):
    """The process ended, or did not say `ready` in time; the text holds all that it printed."""


SLOW_MACHINE = {"HEADRACE_MQTT__LOOP_DELAY_MS_MAX": "60000"}
"""A machine that runs tests side by side may make a server late; it takes connections all the same."""


HEADRACE = (sys.executable, "-m", "bridge.cli")
"""The command, from nothing."""

READ_BY_PYTHON_AT_ITS_START = "PYTHON"
"""Variables that begin so say nothing to a process that is forked from a running one."""


class ServerProcess:
    """`headrace serve` on loopback.

    `config` is TOML text; flags give addresses and data directory. Ports are free ones at the first start and the
    same ones at each restart, so that clients can come back. `program` (`HEADRACE`, or what ends with it) starts it;
    without one it comes from a `PreparedProcess`, in a fifth of the time, unless `environment` is for Python itself.
    """

    def __init__(
        self,
        data_directory: Path | str | None = None,
        config: str = "",
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = (),
    ) -> None:
        self._owns_data_directory = data_directory is None
        self.data_directory = Path(data_directory or tempfile.mkdtemp(prefix="headrace-test-"))
        self.config = config
        self.arguments = tuple(arguments)
        self.environment = {**SLOW_MACHINE, **(environment or {})}
        self.program = tuple(program)
        self.mqtt_port = 0
        self.ws_port = 0
        self.http_port = 0
        self.stdout_lines: list[str] = []
        self._stderr_chunks: list[str] = []
        self._process: PreparedProcess | subprocess.Popen[str] | None = None
        self._readers: list[threading.Thread] = []
        self._has_news = threading.Condition()

    # Addresses.

    @property
    def http_url(self) -> str:
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def ws_url(self) -> str:
        """Where MQTT over WebSocket is spoken."""
        return f"ws://127.0.0.1:{self.ws_port}/mqtt"

    @property
    def process(self) -> PreparedProcess | subprocess.Popen[str]:
        """The running process."""
        assert self._process is not None, "the server was not started"
        return self._process

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def stderr_text(self) -> str:
        """Everything logged so far, over all restarts."""
        return "".join(self._stderr_chunks)

    # Life.

    def command(self) -> list[str]:
        """The command line of the next start, behind `headrace`."""
        line = ["serve", "--data", str(self.data_directory)]
        if self.config:
            path = self.data_directory.with_name(self.data_directory.name + ".toml")
            path.write_text(self.config, encoding="utf-8")
            line += ["-c", str(path)]
        line += ["--mqtt", f"127.0.0.1:{self.mqtt_port}", "--ws", f"127.0.0.1:{self.ws_port}"]
        line += ["--http", f"127.0.0.1:{self.http_port}", *self.arguments]
        return line

    def start(self, timeout_s: float = START_TIMEOUT_S) -> Self:
        """Start and wait for `ready`.

        Raises:
            ServerDidNotStart: it ended or was not ready within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        is_first = not self.mqtt_port
        while True:
            if is_first:
                self.mqtt_port, self.ws_port, self.http_port = [free_server_port() for _ in range(3)]
            logged_before = len(self.stderr_text)
            if self._is_ready_before(deadline):
                self._read_addresses()
                return self
            exit_code = self.process.poll()
            if exit_code is None:
                self.kill()
            self._join_readers()
            if PORT_IN_USE.search(self.stderr_text[logged_before:]) and time.monotonic() < deadline:
                continue  # who chose its port meanwhile has it
            fate = "was not ready in time" if exit_code is None else f"ended with code {exit_code}"
            printed = "\n".join(self.stdout_lines)
            raise ServerDidNotStart(f"the server {fate}\n-- stdout\n{printed}\n-- stderr\n{self.stderr_text}")

    def _is_ready_before(self, deadline: float) -> bool:
        self.spawn()
        with self._has_news:
            while "ready" not in self.stdout_lines:
                remaining_s = deadline - time.monotonic()
                if not self.is_running or remaining_s <= 0:
                    break
                self._has_news.wait(min(remaining_s, 0.05))
        return "ready" in self.stdout_lines

    def spawn(self) -> PreparedProcess | subprocess.Popen[str]:
        """Start without waiting (for starts that are meant to fail: see `wait`)."""
        assert not self.is_running, "the server is running already"
        self.stdout_lines = []
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **self.environment}
        is_for_python = any(name.startswith(READ_BY_PYTHON_AT_ITS_START) for name in self.environment)
        program = self.program or (HEADRACE if is_for_python else ())
        process: PreparedProcess | subprocess.Popen[str]
        if program:
            process = subprocess.Popen(
                [*program, *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                env=environment,
                start_new_session=True,  # a Ctrl-C meant for the tests must not stop it before its fixture does
            )
        else:
            process = PreparedProcess(self.command(), environment)
        self._process = process
        self._readers = [
            threading.Thread(target=self._read_stdout, args=(process.stdout,), daemon=True),
            threading.Thread(target=self._read_stderr, args=(process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        return process

    def wait(self, timeout_s: float = START_TIMEOUT_S) -> int:
        """Wait for the end and return the exit code."""
        try:
            exit_code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_s} s\n{self.stderr_text}") from None
        self._join_readers()
        return exit_code

    def kill(self) -> None:
        """SIGKILL, as a crash. Whatever it left of itself (reader processes) is its own affair: they must see it."""
        if self.is_running:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(STOP_TIMEOUT_S)
        self._join_readers()

    def terminate(self) -> None:
        """SIGTERM; the server must drain and exit with 0."""
        self.process.send_signal(signal.SIGTERM)
        exit_code = self.wait(STOP_TIMEOUT_S)
        assert exit_code == 0, f"exit code {exit_code} after SIGTERM\n{self.stderr_text}"

    def restart(self) -> Self:
        """Start again with the same ports and data, stopping it first (SIGTERM) if it still runs."""
        if self.is_running:
            self.terminate()
        return self.start()

    def close(self) -> None:
        """End the process in whatever state it is, and remove the data directory if it was made here."""
        try:
            if self.is_running:
                self.process.send_signal(signal.SIGTERM)
                try:
                    self.process.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    self.kill()
                    raise AssertionError(f"the server did not stop on SIGTERM\n{self.stderr_text}") from None
        finally:
            self._join_readers()
            if self._owns_data_directory:
                shutil.rmtree(self.data_directory, ignore_errors=True)
                self.data_directory.with_name(self.data_directory.name + ".toml").unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Output.

    def _read_addresses(self) -> None:
        ports: dict[str, int] = {}
        for line in self.stdout_lines:
            found = ADDRESS_LINE.match(line)
            if found:
                port = urlsplit(found[2]).port
                assert port, f"no port in {line!r}"
                ports[found[1]] = port
        missing = {"mqtt", "mqtt-ws", "dashboard"} - ports.keys()
        assert not missing, f"no line for {sorted(missing)} in\n" + "\n".join(self.stdout_lines)
        self.mqtt_port = ports["mqtt"]
        self.ws_port = ports["mqtt-ws"]
        self.http_port = ports["dashboard"]

    def _read_stdout(self, pipe: IO[str]) -> None:
        for line in pipe:
            with self._has_news:
                self.stdout_lines.append(line.rstrip("\n"))
                self._has_news.notify_all()
        with self._has_news:
            self._has_news.notify_all()

    def _read_stderr(self, pipe: IO[str]) -> None:
        for line in pipe:
            self._stderr_chunks.append(line)

    def _join_readers(self) -> None:
        for reader in self._readers:
            reader.join(5)
        self._readers = []
        if self._process is not None and self._process.poll() is not None:
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()
