"""`headrace backup` and `headrace restore`: a data directory's state to a file, and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from bridge.backup import BackupFailed, back_up
from bridge.cli.errors import UserError
from bridge.cli.progress import ProgressBar, say_beside
from bridge.config_source import load_config
from bridge.disk_room import bytes_text
from bridge.history.reader_process import NICENESS
from bridge.replay.interrupts import Interrupts
from bridge.restore import RestoreFailed, restore
from bridge.start_checks import in_use_text, shown
from bridge.streams.log import StreamLogError
from bridge.streams.sqlite_schema import DataDirectoryInUse


def run_backup(config_file: Path | None, flags: Mapping[str, str], file: Path, *, overwrites: bool) -> None:
    """Copy the state of the data directory.

    Raises:
        UserError: there is no backup; the text says why.
    """
    data_dir = load_config(config_file, flags=flags).data_dir
    with Interrupts(), ProgressBar("backup") as bar:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)  # a server beside it goes first
            back_up(data_dir, file, overwrites=overwrites, on_progress=_shown_on(bar))
        except BackupFailed as error:
            raise UserError(str(error)) from error
        except StreamLogError as error:
            raise UserError(f"{error}. Another directory: --data DIR") from error
    say_beside(
        f"{bytes_text(file.stat().st_size)} in {shown(file)}. To put it back: headrace restore {file} --data DIR"
    )


def run_restore(config_file: Path | None, flags: Mapping[str, str], file: Path, *, overwrites: bool) -> None:
    """Put a backup back.

    Raises:
        UserError: nothing was changed; the text says why.
    """
    data_dir = load_config(config_file, flags=flags).data_dir
    with Interrupts(), ProgressBar("restore") as bar:
        try:
            kept = restore(file, data_dir, overwrites=overwrites, on_progress=_shown_on(bar))
        except RestoreFailed as error:
            raise UserError(str(error)) from error
        except DataDirectoryInUse as error:
            raise UserError(in_use_text(data_dir, error)) from error
        except StreamLogError as error:
            raise UserError(f"{error}.") from error
    say_beside(f"{shown(data_dir)} has what {file} has. Its streams begin new epochs with the next start.")
    if kept is not None:
        say_beside(f"What it had before is kept: {kept}. Remove it when you do not need it any more.")


def _shown_on(bar: ProgressBar) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        if bar.is_due:
            bar.show(done, total, f"{bytes_text(done)} of {bytes_text(total)}")

    return show
