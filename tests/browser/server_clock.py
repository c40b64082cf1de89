"""A server whose clock is another: the real server, told by its environment that it is an hour ago, or that time flies.

Records made so are as old as they say, without an hour of waiting; started again without it, the same server has the
clock of this computer.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_SITE = """
import time

_real_ns = time.time_ns
_began_ns = {began_ns}


def _time_ns():
    return _began_ns + {shift_ns} + int((_real_ns() - _began_ns) * {speed})


time.time_ns = _time_ns
time.time = lambda: _time_ns() / 1e9
"""


def other_clock(directory: Path, *, behind_s: float, speed: float = 1) -> dict[str, str]:
    """The environment of a process whose clock is `behind_s` behind ours and from now on `speed` times as fast."""
    directory.mkdir(parents=True, exist_ok=True)
    text = _SITE.format(began_ns=time.time_ns(), shift_ns=-int(behind_s * 1e9), speed=speed)
    (directory / "sitecustomize.py").write_text(text, encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(directory), os.environ.get("PYTHONPATH", "")]))}
