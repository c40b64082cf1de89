"""Ending tasks for certain.

To cancel once is not enough: `asyncio.wait_for` (before Python 3.12) forgets a cancellation that comes in the moment in
which what it waits for is there, and the task goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_S = 0.1


async def end(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    """Cancel tasks until they have ended, however."""
    given = [task for task in tasks if task is not None]
    left = {task for task in given if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_S)
    await asyncio.gather(*given, return_exceptions=True)
