"""How far a long command has come: a bar on a terminal, else a line a minute; both on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 60.0
SHOW_EVERY_S = 0.1


class ProgressBar:
    """`with ProgressBar("telemetry") as bar: … bar.show(done, total, "1,204 records")`"""

    def __init__(self, what: str, *, is_hidden: bool = False) -> None:
        """`is_hidden`: the terminal shows something else."""
        self._what = what
        self._is_hidden = is_hidden
        self._shown_at = 0.0
        self._line_at = time.monotonic()
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not self._is_hidden:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=Console(stderr=True))
            self._progress.start()
            self._task = self._progress.add_task(self._what, total=None, text="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress is not None:
            if kind is None:
                self._progress.update(self._task, total=1, completed=1, text="")
            self._progress.stop()

    @property
    def is_due(self) -> bool:
        """Something new would be seen."""
        return time.monotonic() - self._shown_at >= SHOW_EVERY_S

    def show(self, done: int, total: int, text: str) -> None:
        """`done` of `total` of whatever is counted, and what to say beside it."""
        now = self._shown_at = time.monotonic()
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=max(total, 1), text=text)
        elif now - self._line_at >= LINE_EVERY_S and not self._is_hidden:
            self._line_at = now
            print(f"{time.strftime('%H:%M:%S')}  {percent(done, total)}  {text}", file=sys.stderr, flush=True)


def percent(done: int, total: int) -> str:
    """`42 %`"""
    return f"{100 * done // total if total else 100:>3} %"


def say_beside(text: str, *, is_behind_ctrl_c: bool = False) -> None:
    """A line on stderr, beside what a command prints. A terminal has just shown `^C` when it ends by that."""
    begin = "\n" if is_behind_ctrl_c and sys.stderr.isatty() else ""
    print(f"{begin}{text}", file=sys.stderr, flush=True)
