"""Allowance: what one client may send in a second, so that none takes the others' share.

It fills evenly and holds at most one second's worth. A read may overdraw it: the client is then not read from until
the debt is paid, so it is slowed down smoothly and nothing of it is lost.
"""

from __future__ import annotations

BYTES_KEY = "client_bytes_per_s_max"
MESSAGES_KEY = "client_messages_per_s_max"


class Allowance:
    """One client's. A rate of 0 is no limit."""

    __slots__ = ("_bytes", "_bytes_max", "_filled_ms", "_messages", "_messages_max")

    def __init__(self, bytes_per_s_max: int, messages_per_s_max: int, now_ms: int) -> None:
        self._bytes_max = bytes_per_s_max
        self._messages_max = messages_per_s_max
        self._bytes = float(bytes_per_s_max)
        self._messages = float(messages_per_s_max)
        self._filled_ms = now_ms

    def spend(self, size: int, messages: int, now_ms: int) -> tuple[int, str]:
        """Take what a read had; returns for how many ms the client has to wait (0: not at all), and by which limit.

        A clock that was set back fills nothing; one that was set forward fills it, and no more.
        """
        passed_s = max(0, now_ms - self._filled_ms) / 1000
        self._filled_ms = now_ms
        wait_ms, name = 0, ""
        if self._bytes_max:
            self._bytes = min(self._bytes + passed_s * self._bytes_max, self._bytes_max) - size
            if self._bytes < 0:
                wait_ms, name = _wait_ms(self._bytes, self._bytes_max), BYTES_KEY
        if self._messages_max:
            self._messages = min(self._messages + passed_s * self._messages_max, self._messages_max) - messages
            if self._messages < 0 and (for_messages_ms := _wait_ms(self._messages, self._messages_max)) > wait_ms:
                wait_ms, name = for_messages_ms, MESSAGES_KEY
        return wait_ms, name


def _wait_ms(debt: float, per_s: int) -> int:
    return int(-debt * 1000 / per_s) + 1
