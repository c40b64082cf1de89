"""The commands and how their errors look: `error:` what, why, the next step; a traceback only with `--debug`.

What a command needs is imported when it runs: `headrace --help` loads neither the server nor the fleet.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from bridge.cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, UserError
from bridge.cli.options import (
    ConfigFile,
    DataDir,
    Debug,
    Devices,
    HttpBind,
    LogFormat,
    MqttBind,
    Rate,
    Seed,
    Token,
    WsBind,
)
from bridge.cli.stream_commands import streams_app

# typer carries its own copy of click in some versions; the class is the same by name.
UsageError: type[Exception] = next(each for each in typer.BadParameter.__mro__ if each.__name__ == "ClickException")

HELP = """\
Headrace: MQTT in, a replayable log in between, a browser at the other end.
  serve         run everything in this process          demo          serve with a simulated fleet
  simulate      publish like N sensors                  replay        export history, or send it again
  streams       list, describe, trim, delete streams    backup        copy the data, also while it runs
  check-config  validate and print the configuration    restore       put a copy back
  bench         the load generator
Start here: headrace demo       Docs: http://127.0.0.1:8000/docs while it runs       headrace SUB --help explains each
"""

DEBUGGABLE = ("serve", "demo")
"""Commands that have --debug."""


class Commands(TyperGroup):
    """The group of all commands, whose help fits on a small screen."""

    def get_help(self, ctx: Any) -> str:
        """The text of `headrace --help`."""
        return HELP.rstrip()


app = typer.Typer(
    cls=Commands, add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)
app.add_typer(streams_app, name="streams")


@app.callback()
def root(context: typer.Context) -> None:
    """MQTT in, a replayable log in between, a browser at the other end."""


@app.command()
def serve(
    config: ConfigFile = None,
    data: DataDir = None,
    http: HttpBind = None,
    mqtt: MqttBind = None,
    ws: WsBind = None,
    log: LogFormat = None,
    debug: Debug = False,
) -> None:
    """Run everything in this process, in the foreground, until Ctrl-C or SIGTERM.

    Prints a line for each address, then `ready`. Port 0 takes a free port and prints it. SIGHUP reads the
    configuration again: the log level changes at once, other changes are named and wait for a restart.
    """
    from bridge.cli.serve import run_serve

    run_serve(config, _flags({"--data": data, "--http": http, "--mqtt": mqtt, "--ws": ws, "--log": log}), debug=debug)


@app.command()
def demo(
    config: ConfigFile = None,
    data: DataDir = None,
    http: HttpBind = None,
    mqtt: MqttBind = None,
    ws: WsBind = None,
    log: LogFormat = None,
    debug: Debug = False,
    devices: Devices = 50,
    rate: Rate = 100,
    seed: Seed = 1,
) -> None:
    """Serve with a simulated fleet and recorded weather, data in ./data/demo.

    The fleet has an outage, a takeover and a firmware change every minute, so that each view has something to show.
    """
    from bridge.cli.demo import run_demo

    flags = _flags({"--data": data, "--http": http, "--mqtt": mqtt, "--ws": ws, "--log": log})
    run_demo(config, flags, devices=devices, rate=rate, seed=seed, debug=debug)


@app.command("check-config")
def check_config(
    config: ConfigFile = None,
    data: DataDir = None,
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Translate a mosquitto.conf, or aMQTT's .yaml, instead."),
    ] = None,
) -> None:
    """Validate the configuration (file and environment) and print the one in effect.

    With --from: print the configuration that does what another broker's does, and name each of its lines that has no
    equivalent, with why and what to do instead.
    """
    if from_ is not None:
        from bridge.cli.takeover import run_takeover

        run_takeover(from_, is_alone=config is None and data is None)
        return
    from bridge.cli.check_config import run_check_config

    run_check_config(config, _flags({"--data": data}))


@app.command()
def simulate(
    recorded: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE.csv", help="Play a recording: CSV with at least time,topic,payload."),
    ] = None,
    devices: Devices = 50,
    rate: Rate = 100,
    transport: Annotated[
        Literal["tcp", "ws"] | None, typer.Option(help="MQTT over TCP or WebSocket. [default: as --broker says, tcp]")
    ] = None,
    qos: Annotated[int, typer.Option(min=0, max=2, help="QoS of the messages.")] = 1,
    seed: Seed = 1,
    broker: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="mqtt://USER:PASSWORD@HOST:PORT, ws://HOST:PORT/PATH. [default: this computer]"
        ),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Stop after so long. [default: Ctrl-C]")
    ] = None,
) -> None:
    """Publish like N sensors (with paho-mqtt), or play recorded data with its own timing."""
    from bridge.cli.simulate import run_simulate

    run_simulate(recorded, broker, transport, devices=devices, rate=rate, qos=qos, seed=seed, duration_s=duration)


@app.command()
def replay(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="The stream's name: default, system, telemetry.")],
    from_: Annotated[
        str | None, typer.Option("--from", metavar="T", help="From this time on, like -15m. [default: the oldest]")
    ] = None,
    to: Annotated[str, typer.Option("--to", metavar="T", help="Before this time.")] = "now",
    topic: Annotated[
        list[str] | None, typer.Option("--topic", metavar="F", help="MQTT topic filter; repeatable. [default: all]")
    ] = None,
    speed: Annotated[
        str | None,
        typer.Option(metavar="X", help="1: as it was received, 10: ten times as fast, max. [default: max; MQTT: 1]"),
    ] = None,
    format_: Annotated[
        Literal["ndjson", "csv", "parquet"] | None,
        typer.Option("--format", help="Of an export. [default: as FILE ends, else ndjson]"),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Where an export goes. [default: - (stdout)]")
    ] = None,
    to_mqtt: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Send it again: mqtt://USER:PASSWORD@HOST:PORT, mqtts://, ws://, wss://."),
    ] = None,
    prefix: Annotated[str, typer.Option(metavar="P", help="Put before each topic that is sent, like replay/.")] = "",
    qos: Annotated[
        int | None, typer.Option(min=0, max=2, help="QoS of what is sent. [default: as it was received]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after an interruption.")] = False,
    state: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where --to-mqtt keeps its place. [default: in the data directory]"),
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask this server: http://HOST:8000. [default: read the directory]")
    ] = None,
    token: Token = None,
    config: ConfigFile = None,
    data: DataDir = None,
) -> None:
    """Export history, or send it again with its original spacing.

    Reads the data directory, also beside a running server, Kafka where the configuration has the stream on it, or a
    server over HTTP (--url). Times are RFC 3339, epoch milliseconds, or relative (-15m, -24h, now). Ctrl-C ends it
    cleanly; --resume then goes on, with nothing twice and nothing left out of an export, and with QoS 1 and 2 nothing
    left out of what is sent.
    """
    from bridge.cli.replay import run_replay
    from bridge.cli.replay_options import ReplayOptions

    options = ReplayOptions(
        stream,
        from_=from_,
        to=to,
        topics=topic or (),
        speed=speed,
        format=format_,
        output=output,
        to_mqtt=to_mqtt,
        prefix=prefix,
        qos=qos,
        resume=resume,
        state=state,
        url=url,
        token=token,
    )
    run_replay(config, _flags({"--data": data}), options)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; it is there once it is complete.")],
    force: Annotated[bool, typer.Option("--force", help="Replace FILE when it exists.")] = False,
    config: ConfigFile = None,
    data: DataDir = None,
) -> None:
    """Copy a consistent state of the data directory, while the server runs or not.

    It has everything that is stored on disk: streams, and what waits for Kafka. Memory streams are in the server alone.
    """
    from bridge.cli.backup import run_backup

    run_backup(config, _flags({"--data": data}), file, overwrites=force)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What headrace backup has made.")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace what the directory has; that is kept as .before-restore.")
    ] = False,
    config: ConfigFile = None,
    data: DataDir = None,
) -> None:
    """Put a backup back into a data directory that no server uses.

    Readers with a cursor from before get a gap, and then everything that is kept: what was written after the backup is
    gone, and its offsets are given again.
    """
    from bridge.cli.backup import run_restore

    run_restore(config, _flags({"--data": data}), file, overwrites=force)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    from bridge.config_source import ConfigError

    given = list(sys.argv[1:] if arguments is None else arguments)
    is_debugging = "--debug" in given
    try:
        if given[:1] == ["bench"]:
            return _bench(given[1:])
        outcome = app(args=given, prog_name="headrace", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error)
            return EXIT_USAGE
        return _fail(_usage_text(error), EXIT_USAGE)
    except ConfigError as error:
        return _fail(str(error), EXIT_USAGE)
    except UserError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its end
        return EXIT_FAILED
    except Exception as error:
        if is_debugging:
            raise
        hint = "; --debug shows where it happened" if given and given[0] in DEBUGGABLE else ""
        return _fail(f"{type(error).__name__}: {error}. This is a mistake in Headrace{hint}.", EXIT_FAILED)


def _bench(arguments: list[str]) -> int:
    """`headrace bench …`: the load generator's own commands."""
    bench: typer.Typer = import_module("devices.bench.cli").app
    outcome = bench(args=arguments, prog_name="headrace bench", standalone_mode=False)
    return outcome if isinstance(outcome, int) else 0


def _flags(values: dict[str, str | None]) -> dict[str, str]:
    return {flag: value for flag, value in values.items() if value is not None}


def _usage_text(error: Exception) -> str:
    message: str = error.format_message() if hasattr(error, "format_message") else str(error)
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "headrace"
    return f"{message.rstrip('.')}. See: {command} --help"


def _fail(message: str, exit_code: int) -> int:
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    return exit_code
