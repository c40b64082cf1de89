"""Interrupts: Ctrl-C and SIGTERM end a replay between two messages, never between sending one and noting it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While it is entered both signals raise KeyboardInterrupt, inside `held` at its end."""

    def __init__(self) -> None:
        self._is_held = False
        self._is_pending = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._interrupt) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def is_pending(self) -> bool:
        """A signal has come, and what is held may end now."""
        return self._is_pending

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._is_held:
            self._is_pending = True
        else:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """What is inside is not interrupted."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._is_pending:
            self._is_pending = False
            raise KeyboardInterrupt
