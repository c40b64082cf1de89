"""MosquittoProcess: a real mosquitto on a free port of loopback, which tests start, kill and start again."""

from __future__ import annotations

import getpass
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.conditions import eventually

STOP_TIMEOUT_S = 10.0
MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class MosquittoProcess:
    """`mosquitto -c FILE`, with persistence, so that kept sessions outlive it. `config` is added to the file."""

    def __init__(self, directory: Path, config: str = "", port: int = 0) -> None:
        self.directory = directory
        self.config = config
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log_text(self) -> str:
        """What it has logged so far."""
        return (self.directory / "mosquitto.log").read_text(encoding="utf-8", errors="replace")

    def start(self) -> Self:
        """Start and wait until it listens."""
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / "mosquitto.conf"
        file.write_text(
            f"user {getpass.getuser()}\npersistence true\npersistence_location {self.directory}/\n"
            "log_type all\nmax_queued_messages 0\n"
            + (self.config or f"listener {self.port} 127.0.0.1\nallow_anonymous true\n"),
            encoding="utf-8",
        )
        with (self.directory / "mosquitto.log").open("ab") as output:
            self._process = subprocess.Popen(
                [MOSQUITTO, "-c", str(file)], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        eventually(self._listens, what=f"mosquitto on {self.port}\n{self.log_text}")
        return self

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log_text
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def save(self) -> None:
        """Have it write its sessions to disk now, as it does every half an hour by itself."""
        assert self._process is not None
        saved = self.log_text.count("Saving in-memory database")
        self._process.send_signal(signal.SIGUSR1)
        eventually(lambda: self.log_text.count("Saving in-memory database") > saved, what="a saved database")

    def pause(self) -> None:
        """SIGSTOP: connections stay, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM: it saves its sessions."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
