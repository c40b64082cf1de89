"""Commands in and events out, a line of JSON each: what the drivers in Python share. The words: `client_process.py`."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

TIMEOUT_S = 15.0

_lock = threading.Lock()


def say(event: str, **values: Any) -> None:
    """Write one event."""
    line = json.dumps({"event": event, **values})
    with _lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def answer_commands(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer each command of stdin, in order, until it ends; an error is the answer of one command alone."""
    for line in sys.stdin:
        command = json.loads(line)
        try:
            say(id=command["id"], **answer(command))
        except Exception as error:
            say("failed", id=command["id"], error=repr(error))
