"""A clock that moves only when a test says so, for everything that takes time as an argument."""

from __future__ import annotations


class FakeClock:
    """Epoch milliseconds that stand still between calls of `advance`."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, *, ms: int = 0, s: float = 0) -> int:
        """Move on (or back, when negative) and return the new time."""
        self.now_ms += ms + int(s * 1000)
        return self.now_ms
