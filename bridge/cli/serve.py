"""`headrace serve`: the block of lines before `ready`, and the loop that runs the server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import uvloop

from bridge import __version__
from bridge.cli.errors import UserError
from bridge.config import Config
from bridge.config_source import load_config
from bridge.logging import LogWriter, install_logging
from bridge.server import Running, serve
from bridge.start_checks import CannotStart, day_text, shown
from bridge.streams.log import StreamLog


def run_serve(config_file: Path | None, flags: Mapping[str, str], *, debug: bool) -> None:
    """Run until a signal.

    Raises:
        ConfigError: the configuration is wrong.
        UserError: the server cannot start here.
    """
    config = load_config(config_file, flags=flags)
    writer = install_logging("debug" if debug else config.log.level, config.log.format)
    run_loop(
        config,
        lambda running: say(*serve_lines(running, config_file), "ready"),
        writer,
        reload=lambda: load_config(config_file, flags=flags),
        debug=debug,
    )


def run_loop(
    config: Config,
    announce: Callable[[Running], None],
    writer: LogWriter,
    *,
    reload: Callable[[], Config] | None = None,
    beside: Callable[[Running], Awaitable[None]] | None = None,
    command: str = "serve",
    debug: bool = False,
) -> None:
    """Run `bridge.server.serve` on a loop of its own."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(config, announce, writer=writer, reload=reload, beside=beside, command=command))
    except CannotStart as error:
        if debug:
            raise
        raise UserError(str(error)) from error
    finally:
        writer.write_repeats(is_end=True)


def say(*lines: str) -> None:
    """Print to whoever started us, at once."""
    for line in lines:
        print(line)
    sys.stdout.flush()


def serve_lines(running: Running, config_file: Path | None) -> list[str]:
    """What `headrace serve` prints before `ready`."""
    config, node = running.config, running.node
    configured = f"configuration {config_file}" if config_file else "no configuration file, defaults"
    lines = [f"Headrace {__version__}  data {shown(config.data_dir)}  {configured}"]
    addresses = [(each.kind, each.url) for each in node.broker.listening]
    lines += [f"{kind:<9}  {url}" for kind, url in (*addresses, ("dashboard", running.dashboard_url))]
    lines += [
        f"{stream.name:<9}  {', '.join(stream.topics)} -> {stream.storage}, kept {stream.retention}, "
        f"{records_text(node.streams[stream.name])}"
        for stream in config.streams
        if stream.name != "system"
    ]
    return [*lines, reach_text(running)]


def records_text(log: StreamLog) -> str:
    """`812,004 records since 21 Nov 19:02`"""
    count = log.records
    if count == 0 or log.oldest_ms is None:
        return "no records yet"
    return f"{count:,} {'record' if count == 1 else 'records'} since {day_text(log.oldest_ms)}"


def reach_text(running: Running) -> str:
    """Who can reach this server, and what changes that."""
    if running.is_loopback_only:
        return (
            "This computer only, because no users exist. For devices on your network: set `bind` and "
            "[auth] allow_anonymous = true in a configuration (config/lan.toml is an example)"
        )
    return "Open to your network without users: whoever reaches these addresses can read and send everything."
