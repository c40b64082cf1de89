"""What `headrace replay` was asked for: its options, judged, as one frozen plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import isinf
from pathlib import Path
from typing import Any

from bridge.cli.errors import EXIT_USAGE, UserError
from bridge.config_source import topic_filter_fault
from bridge.quantities import parse_time_ms
from bridge.replay.mqtt_target import MqttTarget
from bridge.replay.output import bookmark_path
from bridge.replay.pace import parse_speed
from bridge.replay.source import Wanted
from bridge.replay.text_records import CSV, NDJSON, RecordText

STDOUT = "-"
TIME_WORDS = "RFC 3339 (2026-11-22T19:00:00Z), epoch milliseconds, or relative (-15m, now)"
FORMS: dict[str, RecordText] = {"ndjson": NDJSON, "csv": CSV}
"""The formats of text."""
PARQUET = "parquet"


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """The command line, as it was given."""

    stream: str
    from_: str | None = None
    to: str = "now"
    topics: Sequence[str] = ()
    speed: str | None = None
    format: str | None = None
    output: str | None = None
    to_mqtt: str | None = None
    prefix: str = ""
    qos: int | None = None
    resume: bool = False
    state: Path | None = None
    url: str | None = None
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What the options come to."""

    wanted: Wanted
    format: str
    output: str
    target: MqttTarget | None
    prefix: str
    qos: int | None
    speed: float
    resume: bool
    state: Path | None
    """Where the bookmark is kept; None: nowhere."""
    url: str | None

    @property
    def request(self) -> dict[str, Any]:
        """What two runs must have in common for one to go on where the other ended."""
        request = {"stream": self.wanted.stream, "topics": sorted(self.wanted.filters)}
        if self.target is None:
            return {**request, "format": self.format}
        return {**request, "target": str(self.target), "prefix": self.prefix}


def make_plan(options: ReplayOptions, data_dir: Path, now_ms: int) -> Plan:
    """Judge the options.

    Raises: UserError
    """
    if not options.stream or "/" in options.stream:
        raise usage_error(f'"{options.stream}" is not the name of a stream')
    from_ms = _time("--from", options.from_, now_ms) if options.from_ is not None else None
    to_ms = _time("--to", options.to, now_ms)
    if from_ms is not None and from_ms > to_ms:
        raise usage_error("--from is after --to")
    for topic_filter in options.topics:
        if fault := topic_filter_fault(topic_filter):
            raise usage_error(f'--topic "{topic_filter}" is not a topic filter: {fault}')
    wanted = Wanted(options.stream, tuple(sorted(set(options.topics))), from_ms, to_ms)
    target = None
    if options.to_mqtt is not None:
        target = _target(options)
    elif options.prefix or options.qos is not None:
        raise usage_error("--prefix and --qos are for --to-mqtt")
    speed = _speed(options.speed or ("max" if target is None else "1"))
    output = options.output or STDOUT
    form = _format(options, output)
    if form == PARQUET:
        _check_parquet(options, speed)
    return Plan(
        wanted,
        form,
        output,
        target,
        options.prefix,
        options.qos,
        speed,
        options.resume,
        _state(options, target, output, form, data_dir),
        options.url,
    )


def _time(option: str, text: str, now_ms: int) -> int:
    try:
        return parse_time_ms(text, now_ms)
    except ValueError as error:
        raise usage_error(f"{option}: {error}; write {TIME_WORDS}") from error


def _speed(text: str) -> float:
    try:
        return parse_speed(text)
    except ValueError as error:
        raise usage_error(f"--speed {error}") from error


def _target(options: ReplayOptions) -> MqttTarget:
    assert options.to_mqtt is not None
    if options.output is not None or options.format is not None:
        raise usage_error("--to-mqtt sends messages; --format and --output are for an export. Choose one of the two")
    if any(character in options.prefix for character in "+#\0"):
        raise usage_error(f'--prefix "{options.prefix}" is no beginning of a topic: it has a wildcard')
    try:
        return MqttTarget.parse(options.to_mqtt)
    except ValueError as error:
        raise usage_error(f"--to-mqtt: {error}") from error


def _format(options: ReplayOptions, output: str) -> str:
    if options.format is not None:
        return options.format
    suffix = Path(output).suffix.lower().removeprefix(".")
    return suffix if suffix in (*FORMS, PARQUET) else "ndjson"


def _check_parquet(options: ReplayOptions, speed: float) -> None:
    if options.resume:
        raise usage_error(
            "a Parquet file has its table of contents at its end, so half of one cannot be gone on with: "
            "leave --resume out, or use --format ndjson or csv"
        )
    if not isinf(speed):
        raise usage_error("--speed is for text, which is read while it is written; a Parquet file is not")


def _state(options: ReplayOptions, target: MqttTarget | None, output: str, form: str, data_dir: Path) -> Path | None:
    """Where the bookmark is kept."""
    if target is None:
        if options.state is not None:
            raise usage_error("--state is for --to-mqtt; an export keeps its place in FILE.resume")
        if is_pipe(output) or form == PARQUET:
            if options.resume:
                raise usage_error("what went to a pipe cannot be gone on with: give --output FILE")
            return None
        return bookmark_path(Path(output))
    if options.state is not None:
        return options.state
    if options.url is None:
        name = sha256(f"{target}\n{options.prefix}".encode()).hexdigest()[:8]
        return data_dir / f"replay-{options.stream}-{target.host}-{target.port}-{name}.resume"
    if options.resume:
        raise usage_error("with --url there is no data directory to keep the place in: give --state FILE")
    return None


def is_pipe(output: str) -> bool:
    """What is written there is gone: standard output, a pipe with a name, a device."""
    path = Path(output)
    return output == STDOUT or (path.exists() and not path.is_file())


def usage_error(text: str) -> UserError:
    """Something on the command line that cannot be meant."""
    return UserError(f"{text}. See: headrace replay --help", EXIT_USAGE)
