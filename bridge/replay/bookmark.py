"""Bookmark: how far a replay has come, kept in a file of its own, so that another run can go on there.

The file is replaced whole, after what it covers is safe: it may lag behind, and never says too much.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bridge.cursors import Cursor, CursorInvalid, StreamPosition
from bridge.replay.source import ReplayFailed

VERSION = 1


@dataclass(frozen=True, slots=True)
class Bookmark:
    """What was asked for, and how much of it is done."""

    request: dict[str, Any]
    """Another run has to ask for the same."""
    from_ms: int | None
    to_ms: int
    """Times as the first run understood them: `-15m` means something else by now."""
    cursor: str
    records: int
    bytes: int = 0
    """Of the output file, at the cursor."""

    def position(self, stream: str) -> StreamPosition:
        """The cursor's."""
        return Cursor.parse(self.cursor).position_by_stream[stream]

    def save(self, path: Path) -> None:
        """Replace what the file says.

        Raises: OSError
        """
        beside = path.with_name(f"{path.name}.new")
        with beside.open("w", encoding="utf-8") as file:
            json.dump({"version": VERSION, **asdict(self)}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)


def load_bookmark(path: Path, request: dict[str, Any]) -> Bookmark | None:
    """What an earlier run left; None when there is nothing.

    Raises: ReplayFailed, when it cannot be read, or is of a run that asked for something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("version") != VERSION:
            raise ReplayFailed(f"{path} was written by another version of Headrace. Begin again without --resume.")
        bookmark = Bookmark(**found)
        bookmark.position(bookmark.request["stream"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReplayFailed(f"cannot read {path}: {(error.strerror or '').lower()}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, CursorInvalid) as error:
        raise ReplayFailed(f"{path} is not what a replay leaves: {error}. Begin again without --resume.") from error
    for name, value in request.items():
        if bookmark.request.get(name) != value:
            raise ReplayFailed(
                f"{path} is of a replay with {name} {_shown(bookmark.request.get(name))}, not {_shown(value)}. "
                "Give the same again, or begin anew without --resume."
            )
    return bookmark


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
