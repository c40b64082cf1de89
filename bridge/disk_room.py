"""Room on the disk of a directory: how much there is, and what is said when something does not fit."""

from __future__ import annotations

import os
from pathlib import Path

from bridge.start_checks import shown


def free_bytes(directory: Path) -> int:
    """Bytes that this user may still write there.

    Raises: OSError
    """
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def bytes_text(size: int) -> str:
    """`312.4 MB`"""
    for unit, least in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= least:
            return f"{size / least:,.1f} {unit}"
    return f"{size} B"


def failure_text(directory: Path, reason: str) -> str:
    """Why nothing can be stored in a directory, as a sentence: `./data is full (0 B free).`"""
    try:
        free = f"{bytes_text(free_bytes(directory))} free"
    except OSError:
        free = "its disk does not answer"
    if "disk is full" in reason:
        return f"{shown(directory)} is full ({free})."
    return f"cannot store in {shown(directory)} ({free}): {reason.rstrip('.')}."
