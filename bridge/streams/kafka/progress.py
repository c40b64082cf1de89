"""Progress: something of a stream was confirmed, spooled or shown, and who waits for it looks again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Progress:
    """Of one stream."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def note(self) -> None:
        """Something has changed that someone may wait for."""
        self._event.set()

    async def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Until a change after which the condition holds; False after the time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            self._event.clear()
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            try:
                await asyncio.wait_for(self._event.wait(), left)
            except TimeoutError:
                return condition()
        return True
