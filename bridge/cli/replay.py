"""`headrace replay`: what was asked for, read from where it is, written to where it shall go, with its progress."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from bridge.api_client import ApiClient
from bridge.cli.errors import UserError
from bridge.cli.progress import ProgressBar, say_beside
from bridge.cli.replay_options import FORMS, PARQUET, STDOUT, Plan, ReplayOptions, is_pipe, make_plan, usage_error
from bridge.cli.stream_places import stored_in
from bridge.config import Config
from bridge.config_source import load_config
from bridge.cursors import Cursor, StreamPosition, distance
from bridge.disk_room import bytes_text
from bridge.history.reader_process import NICENESS
from bridge.replay.bookmark import Bookmark, load_bookmark
from bridge.replay.directory import DirectorySource
from bridge.replay.export import export_parquet, export_text
from bridge.replay.interrupts import Interrupts
from bridge.replay.mqtt_target import MqttTarget
from bridge.replay.output import KEEP_EVERY_S, FileOutput, Output, PipeOutput, WholeFileOutput
from bridge.replay.pace import Pacer
from bridge.replay.republish import Republisher
from bridge.replay.server import ServerSource
from bridge.replay.source import ReplayFailed, Source, Wanted
from bridge.replay.topic import TopicSource
from bridge.start_checks import shown
from bridge.streams.sqlite_schema import FILE_NAME


def run_replay(config_file: Path | None, flags: Mapping[str, str], options: ReplayOptions) -> None:
    """Replay until the range is over.

    Raises:
        UserError: it cannot be done; the text says why.
        KeyboardInterrupt: it was stopped, and has said how to go on.
    """
    config = load_config(config_file, flags=flags)
    plan = make_plan(options, config.data_dir, time.time_ns() // 1_000_000)
    with Interrupts() as interrupts:
        try:
            bookmark = earlier(plan)
            with closing(_source(plan, config, options.token)) as source:
                _Replay(plan, source, bookmark, interrupts).run()
        except ReplayFailed as error:
            raise UserError(str(error)) from error


def _source(plan: Plan, config: Config, token: str | None) -> Source:
    if plan.url is not None:
        try:
            return ServerSource(ApiClient(plan.url, token))
        except ValueError as error:
            raise usage_error(f"--url: {error}") from error
    name = plan.wanted.stream
    topic = next((stream.kafka for stream in config.streams if stream.name == name), None)
    if topic is None:
        source = DirectorySource(config.data_dir)
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)  # a server beside it goes first
        return source
    _say_what_waits(config.data_dir, name)
    return TopicSource(config.kafka_settings(), topic)


def _say_what_waits(data_dir: Path, name: str) -> None:
    """Raises: UserError, when the directory cannot be read."""
    stored = stored_in(data_dir) if (data_dir / FILE_NAME).exists() else []
    waiting = sum(each.waiting for each in stored if each.is_spool and each.base_name == name)
    if waiting:
        say_beside(
            f"warn: {waiting:,} records of {name} wait in {shown(data_dir)} for Kafka and are left out. "
            "The server that keeps them has all: --url http://HOST:8000"
        )


def earlier(plan: Plan) -> Bookmark | None:
    """What an interrupted run left, when this one shall go on with it.

    Raises: ReplayFailed
    """
    if plan.state is None:
        return None
    is_export = plan.target is None
    if not plan.resume:
        if is_export and plan.state.exists():
            raise ReplayFailed(
                f"{plan.output} is an export that was interrupted. To go on: --resume; to begin anew, remove "
                f"{plan.state} first."
            )
        return None
    bookmark = load_bookmark(plan.state, plan.request)
    if bookmark is None and is_export and Path(plan.output).exists():
        raise ReplayFailed(
            f"{plan.output} has no {plan.state.name} beside it: that export is complete. To export anew, leave "
            "--resume out, or choose another --output."
        )
    return bookmark


class _Replay:
    """One replay under way."""

    def __init__(self, plan: Plan, source: Source, bookmark: Bookmark | None, interrupts: Interrupts) -> None:
        self._plan = plan
        self._source = source
        self._bookmark = bookmark
        self._interrupts = interrupts
        self._times = (plan.wanted.from_ms, plan.wanted.to_ms)
        if bookmark is not None:
            self._times = (bookmark.from_ms, bookmark.to_ms)
        self._total = 0

    def run(self) -> None:
        """Raises: ReplayFailed, KeyboardInterrupt"""
        wanted = Wanted(self._plan.wanted.stream, self._plan.wanted.filters, *self._times)
        position = self._bookmark.position(wanted.stream) if self._bookmark is not None else None
        self._source.begin(wanted, position)
        self._total = self._left(self._source.position)
        try:
            if self._plan.target is None:
                self._export()
            else:
                self._republish(self._plan.target)
        finally:
            if self._source.lost:
                say_beside(f"warn: {self._source.lost:,} records were dropped by retention before they could be read.")

    def _left(self, position: StreamPosition) -> int:
        return distance(position.offset_by_partition, self._source.end)

    def _show(self, bar: ProgressBar, position: StreamPosition, text: str) -> None:
        bar.show(self._total - self._left(position), self._total, text)

    # To a file or to standard output

    def _export(self) -> None:
        plan = self._plan
        is_terminal = plan.output == STDOUT and sys.stdout.isatty()
        if plan.format == PARQUET and is_terminal:
            raise ReplayFailed("a Parquet file is nothing to look at: give --output FILE.")
        bar = ProgressBar(plan.wanted.stream, is_hidden=is_terminal)
        with closing(self._output()) as output:

            def show() -> None:
                if bar.is_due:
                    self._show(bar, output.written.position, _written_text(output))

            try:
                with bar:
                    if plan.format == PARQUET:
                        export_parquet(self._source, output, show)
                    else:
                        export_text(self._source, FORMS[plan.format], output, Pacer(plan.speed), show)
            except KeyboardInterrupt:
                output.keep()
                where = "in the output" if plan.output == STDOUT else f"in {plan.output}"
                records = f"{output.written.records:,} records are {where}"
                self._say_interrupted("there is no file" if plan.format == PARQUET else records)
                raise
        where = "" if plan.output == STDOUT else f" in {shown(Path(plan.output))}"
        say_beside(f"{_written_text(output)}{where}")

    def _output(self) -> Output:
        plan, position = self._plan, self._source.position
        head = b"" if plan.format == PARQUET else FORMS[plan.format].head
        if is_pipe(plan.output):
            return PipeOutput(None if plan.output == STDOUT else Path(plan.output), position, head)
        if plan.format == PARQUET:
            return WholeFileOutput(Path(plan.output), position)
        return FileOutput(Path(plan.output), head, position, plan.request, self._times, self._bookmark)

    def _say_interrupted(self, text: str) -> None:
        going_on = " To go on: the same command with --resume." if self._plan.state is not None else ""
        say_beside(f"interrupted: {text}.{going_on}", is_behind_ctrl_c=True)

    # To a broker

    def _republish(self, target: MqttTarget) -> None:
        plan = self._plan
        before = self._bookmark.records if self._bookmark is not None else 0
        kept_at = time.monotonic()
        bar = ProgressBar(plan.wanted.stream)

        def moved() -> None:
            nonlocal kept_at
            if time.monotonic() - kept_at >= KEEP_EVERY_S:
                kept_at = time.monotonic()
                self._keep(republisher.position, before + republisher.acknowledged)
            if bar.is_due:
                self._show(bar, republisher.position, f"{before + republisher.acknowledged:,} messages")

        position = self._source.position
        republisher = Republisher(target, plan.prefix, plan.qos, position, self._interrupts, moved)
        republisher.connect()
        if not republisher.keeps_properties:
            say_beside(f"warn: {target} speaks MQTT 3.1.1, which has no properties: they are left out.")
        with closing(republisher):
            self._keep(position, before)  # or it would be found out in the middle that it cannot be kept
            try:
                with bar:
                    republisher.run(self._source.messages(), Pacer(plan.speed, wait=republisher.wait))
            except KeyboardInterrupt:
                republisher.drain()
                self._keep(republisher.position, before + republisher.acknowledged)
                self._say_interrupted(f"{target} has acknowledged {before + republisher.acknowledged:,} messages")
                raise
            except ReplayFailed as error:
                self._keep(republisher.position, before + republisher.acknowledged)
                going_on = " To go on: the same command with --resume." if plan.state is not None else ""
                raise ReplayFailed(f"{error}{going_on}") from error
        if plan.state is not None:
            plan.state.unlink(missing_ok=True)
        say_beside(f"{before + republisher.acknowledged:,} messages to {target}")
        if republisher.left_out:
            raise ReplayFailed(
                "\n".join(f"{count:,} messages were left out: {why}." for why, count in republisher.left_out.items())
            )

    def _keep(self, position: StreamPosition, messages: int) -> None:
        plan = self._plan
        if plan.state is None:
            return
        cursor = str(Cursor({plan.wanted.stream: position}))
        try:
            Bookmark(plan.request, *self._times, cursor, messages).save(plan.state)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ReplayFailed(f"cannot write {plan.state}: {reason}. Choose another place: --state FILE.") from error


def _written_text(output: Output) -> str:
    """`1,204 records, 312.4 kB`; a server's Parquet file is not counted."""
    written = output.written
    count = f"{written.records:,} records, " if written.records or not written.bytes else ""
    return f"{count}{bytes_text(written.bytes)}"
