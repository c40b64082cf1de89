"""How much memory a server takes while something happens, looked at from outside a few dozen times a second."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from devices.bench.peers import Server

LOOK_S = 0.03


class PeakMemory:
    """The highest resident memory of a server and its processes within the context."""

    def __init__(self, server: Server) -> None:
        self.before_bytes = server.settled_rss_bytes()
        self.peak_bytes = self.before_bytes
        self._server = server
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="bench-memory", daemon=True)

    @property
    def grown_bytes(self) -> int:
        """How far the highest was above what there was before."""
        return self.peak_bytes - self.before_bytes

    def _look(self) -> None:
        while not self._is_over.wait(LOOK_S):
            self.peak_bytes = max(self.peak_bytes, self._server.rss_bytes())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
