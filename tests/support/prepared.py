"""PreparedProcess: `headrace serve` forked from a process that has imported all of it, and waits for that.

A server of the tests is a process of its own, that may be killed, stopped and looked at like any other; it only does
not spend its first second with imports. Commands that are run to their end start from nothing
(`tests.support.commands`), and so does the server where its start is what is tested.

`python -m tests.support.prepared` is the process that waits: its standard input is the socket on which it is asked.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
HEAD_BYTES = 4


class PreparedProcess:
    """One server: of `subprocess.Popen` what tests need."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.arguments = tuple(arguments)
        stdout, stdout_of_server = os.pipe()
        stderr, stderr_of_server = os.pipe()
        self._status, status_of_keeper = os.pipe()
        request = {"arguments": self.arguments, "environment": dict(environment), "directory": os.getcwd()}
        theirs = [stdout_of_server, stderr_of_server, status_of_keeper]
        _origin(os.getpid()).ask(json.dumps(request).encode(), theirs)
        for descriptor in theirs:
            os.close(descriptor)
        self.stdout: IO[str] = open(stdout, encoding="utf-8", errors="replace")  # noqa: SIM115 - as Popen's
        self.stderr: IO[str] = open(stderr, encoding="utf-8", errors="replace")  # noqa: SIM115
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self.pid = int(self._read_line())

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None: it runs."""
        with self._lock:
            if self.returncode is None and select.select([self._status], [], [], 0)[0]:
                self.returncode = int(self._read_line())
                os.close(self._status)
            return self.returncode

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the end; the exit code.

        Raises:
            subprocess.TimeoutExpired: it runs still.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (code := self.poll()) is None:
            remaining_s = None if deadline is None else deadline - time.monotonic()
            if remaining_s is not None and remaining_s <= 0:
                raise subprocess.TimeoutExpired(list(self.arguments), timeout_s or 0)
            with contextlib.suppress(OSError, ValueError):  # another thread has seen its end, and closed this
                select.select([self._status], [], [], remaining_s)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing happens when it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _read_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            data = os.read(self._status, 1)
            assert data, "who keeps the server has gone without a word"
            line += data
        return line


class Origin:
    """The process that all servers of this one are forked from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=theirs,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # a Ctrl-C is meant for the tests, which end it by the end of the socket
        )
        theirs.close()
        atexit.register(self.close)

    def close(self) -> None:
        """Let it end."""
        self._socket.close()
        self._process.wait()

    def ask(self, request: bytes, descriptors: Sequence[int]) -> None:
        """Have a server forked; it and who keeps it take over these descriptors."""
        with self._lock:
            socket.send_fds(self._socket, [len(request).to_bytes(HEAD_BYTES)], descriptors)
            self._socket.sendall(request)


@cache
def _origin(pid: int) -> Origin:
    """Of this process (`pid`), not of one that it was forked from."""
    return Origin()


# In the process that waits.


def become_server(requests: socket.socket) -> list[str]:
    """Fork for each request; returns in each server, with its arguments. Who waits ends here, with the tests."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers need no wait
    while True:
        head, descriptors, _, _ = socket.recv_fds(requests, HEAD_BYTES, 3)
        if not head:
            sys.exit()
        request = json.loads(_read_exactly(requests, int.from_bytes(head)))
        if os.fork() == 0:
            requests.detach()  # its number is that of standard input
            return _keep(request, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _read_exactly(requests: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += requests.recv(count - len(data))
    return data


def _keep(request: dict[str, object], stdout: int, stderr: int, status: int) -> list[str]:
    """The keeper tells the server's process id and, when it has ended, how; this returns in the server."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid != 0:
        os.close(stdout)
        os.close(stderr)
        with contextlib.suppress(BrokenPipeError):  # the tests have ended first
            os.write(status, b"%d\n" % pid)
            _, ended = os.waitpid(pid, 0)
            os.write(status, b"%d\n" % os.waitstatus_to_exitcode(ended))
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((null, stdout, stderr)):
        os.dup2(descriptor, number)
    for descriptor in {null, stdout, stderr, status} - {0, 1, 2}:
        os.close(descriptor)
    os.chdir(str(request["directory"]))
    environment, arguments = request["environment"], request["arguments"]
    assert isinstance(environment, dict)
    assert isinstance(arguments, list)
    os.environ.clear()
    os.environ.update(environment)
    return arguments


if __name__ == "__main__":
    import bridge.cli.serve  # noqa: F401 - the command imports it when it runs
    from bridge.cli.main import main

    gc.collect()
    gc.freeze()
    sys.argv[1:] = become_server(socket.socket(fileno=0))
    sys.exit(main())
