"""`headrace simulate`: a fleet of paho-mqtt clients, or a recording, against any broker, with a line of progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Literal

from bridge.cli.errors import EXIT_USAGE, UserError
from bridge.cli.serve import say
from bridge.replay.interrupts import Interrupts
from devices.device import Target
from devices.fleet import BrokerUnreachable, Fleet, Progress, fleet_turns, recorded_turns
from devices.profiles import Profile, building
from devices.recorded import Recorded, RecordingInvalid, read_recording

LINE_EVERY_S = 60
"""When the output is not a terminal."""


class ProgressLine:
    """One line, rewritten once a second on a terminal; else a new one once a minute."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._written_at = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Show it, if it is time."""
        if self._is_terminal:
            sys.stdout.write(f"\r{progress_text(progress)}\x1b[K")
            sys.stdout.flush()
        elif time.monotonic() - self._written_at >= LINE_EVERY_S:
            self._written_at = time.monotonic()
            say(progress_text(progress))

    def end(self) -> None:
        """Leave the line."""
        if self._is_terminal:
            say("")


def progress_text(progress: Progress) -> str:
    """`03:12:07  50 online  100 msg/s  6,000 sent  5,990 acknowledged`"""
    left_out = f"  {progress.left_out:,} left out" if progress.left_out else ""
    return (
        f"{time.strftime('%H:%M:%S')}  {progress.online:,} online  {progress.rate:,.0f} msg/s  "
        f"{progress.sent:,} sent  {progress.acknowledged:,} acknowledged{left_out}"
    )


def run_simulate(
    recorded: Path | None,
    broker: str | None,
    transport: Literal["tcp", "ws"] | None,
    *,
    devices: int,
    rate: float,
    qos: int,
    seed: int,
    duration_s: float | None,
) -> None:
    """Publish until the time is over, the recording ends or Ctrl-C or SIGTERM comes.

    Raises:
        UserError: the broker cannot be reached, or an argument is wrong.
        KeyboardInterrupt: it was stopped, and has said what was sent.
    """
    try:
        target = Target.parse(broker, transport)
    except ValueError as error:
        raise UserError(f"{error}.", EXIT_USAGE) from error
    line = ProgressLine()
    with Interrupts() as interrupts:
        try:
            if recorded is not None:
                fleet = _recording(target, recorded, qos, seed, line)
            else:
                fleet = _building(target, devices, rate, qos, seed, line)
            with interrupts.held():
                final = fleet.run(duration_s, lambda: interrupts.is_pending)
                line.end()
                say(
                    f"sent {final.sent:,} messages, {final.acknowledged:,} acknowledged"
                    + (f", {final.left_out:,} left out by devices that were away" if final.left_out else "")
                )
        except BrokerUnreachable as error:
            line.end()
            raise UserError(f"{error} Is it running (headrace serve)? Another address: --broker URL") from error
        except RecordingInvalid as error:
            line.end()
            raise UserError(str(error), EXIT_USAGE) from error


def _building(target: Target, devices: int, rate: float, qos: int, seed: int, line: ProgressLine) -> Fleet:
    profiles = building(devices, seed, prefix=f"sim{seed}-")
    say(f"{target}  fleet {devices:,} devices, {rate:g} msg/s, QoS {qos}, seed {seed}  stop with Ctrl-C")
    return Fleet(target, profiles, fleet_turns(profiles, rate, qos, seed), seed=seed, on_progress=line)


def _recording(target: Target, path: Path, qos: int, seed: int, line: ProgressLine) -> Fleet:
    rows = read_recording(path)
    first = next(rows, None)
    if first is None:
        raise RecordingInvalid(f"{path} has no rows.")
    say(f"{target}  playing {path} with its own timing  stop with Ctrl-C")
    player = Profile(f"play{seed}-{path.stem}", "", iter(()))
    all_rows: Iterator[Recorded] = chain((first,), rows)
    return Fleet(target, [player], recorded_turns(all_rows, qos), is_waiting=True, on_progress=line)
