"""Waiting for conditions: the one place of the test suite that sleeps.

A test never waits for a time to pass, it waits until something holds, and says what did not hold.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

POLL_INTERVAL_S = 0.01


class ConditionNeverHeld(AssertionError):
    """What was waited for did not come within the time."""


def eventually(
    predicate: Callable[[], T], timeout_s: float = 10.0, what: object = "", interval_s: float = POLL_INTERVAL_S
) -> T:
    """Call `predicate` until it returns something true, and return that; `what` is said when it never does.

    Raises:
        ConditionNeverHeld: after `timeout_s`, with `what` and the last value seen.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise ConditionNeverHeld(f"not within {timeout_s} s: {what or predicate}; last value {value!r}")
        time.sleep(interval_s)


async def eventually_async(
    predicate: Callable[[], T | Awaitable[T]],
    timeout_s: float = 10.0,
    what: object = "",
    interval_s: float = POLL_INTERVAL_S,
) -> T:
    """`eventually` for a test that runs in an event loop; `predicate` may be a coroutine function."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() >= deadline:
            raise ConditionNeverHeld(f"not within {timeout_s} s: {what or predicate}; last value {value!r}")
        await asyncio.sleep(interval_s)


def throughout(predicate: Callable[[], object], duration_s: float, what: str = "") -> None:
    """Check that `predicate` stays true for `duration_s`: for "nothing else happens".

    Raises:
        AssertionError: at the first moment it does not hold.
    """
    deadline = time.monotonic() + duration_s
    while time.monotonic() < deadline:
        value = predicate()
        assert value, f"did not stay true: {what or predicate}; value {value!r}"
        time.sleep(POLL_INTERVAL_S)
