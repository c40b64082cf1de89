"""`headrace demo`: the server, a simulated fleet in a process of its own beside it, and one line about both."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from bridge import __version__
from bridge.cli.serve import run_loop, say
from bridge.config_source import load_config
from bridge.logging import install_logging
from bridge.node import Node
from bridge.server import Running
from bridge.start_checks import shown

DEMO_DATA = "data/demo"
LINE_EVERY_S = 60
"""When the output is not a terminal."""
FLEET_STOP_TIMEOUT_S = 5


def run_demo(
    config_file: Path | None, flags: Mapping[str, str], *, devices: int, rate: float, seed: int, debug: bool
) -> None:
    """Serve with a fleet until a signal.

    Raises:
        ConfigError: the configuration is wrong.
        UserError: the server cannot start here.
    """
    config = load_config(config_file, flags={"--data": DEMO_DATA, **flags})
    # The one line that is rewritten would drown between lines that say that all is well.
    level = "debug" if debug else "warn" if config.log.level == "info" else config.log.level
    writer = install_logging(level, config.log.format)

    def announce(running: Running) -> None:
        say(
            f"Headrace {__version__}  data {shown(config.data_dir)}  demo   {mqtt_url(running)}   "
            f"fleet {devices} devices, {rate:g} msg/s, seed {seed}",
            f"Open  {running.dashboard_url:<26}  stop with Ctrl-C; your own server: headrace serve",
            "ready",
        )

    async def beside(running: Running) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(run_fleet(mqtt_url(running), devices, rate, seed))
            tasks.create_task(tell_progress(running.node))

    run_loop(config, announce, writer, beside=beside, command="demo", debug=debug)


def mqtt_url(running: Running) -> str:
    """Where the fleet connects."""
    return next(each.url for each in running.node.broker.listening if each.kind == "mqtt").replace(
        "0.0.0.0", "127.0.0.1"
    )


async def run_fleet(broker_url: str, devices: int, rate: float, seed: int) -> None:
    """The fleet as a child process, until this task is cancelled.

    Its stdin is a pipe that nobody writes to: its end tells the fleet that we are gone, however that happened.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "devices.demo", broker_url, str(devices), str(rate), str(seed)),
        stdin=asyncio.subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C is for us; the fleet ends after the server has heard of it
    )
    try:
        exit_code = await process.wait()
        say(f"the simulated fleet ended with code {exit_code}; the server goes on")
    finally:
        if process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), FLEET_STOP_TIMEOUT_S)
            if process.returncode is None:
                process.kill()


async def tell_progress(node: Node) -> None:
    """`03:12:07  50 online  100 msg/s  6,000 stored  1 browser`, once a second on a terminal, else once a minute."""
    is_terminal = sys.stdout.isatty()
    interval_s = 1 if is_terminal else LINE_EVERY_S
    before, since = stored_records(node), time.monotonic()
    first = committed_records(node)
    try:
        while True:
            await asyncio.sleep(interval_s)
            now, total = time.monotonic(), committed_records(node)
            rate = (total - first) / (now - since)
            first, since, before = total, now, stored_records(node)
            line = progress_line(node, rate, before)
            sys.stdout.write(f"\r{line}\x1b[K" if is_terminal else f"{line}\n")
            sys.stdout.flush()
    finally:
        if is_terminal:
            say("")


def stored_records(node: Node) -> int:
    """Records that can be read now."""
    return sum(log.records for log in node.streams.values())


def committed_records(node: Node) -> int:
    """Records ever committed: retention does not lower it."""
    return sum(sum(log.offsets.values()) for log in node.streams.values())


def progress_line(node: Node, rate: float, stored: int) -> str:
    """One line about the server."""
    browsers = len(node.hub.readers)
    online = len(node.broker.engine.connections)
    return (
        f"{time.strftime('%H:%M:%S')}  {online:,} online  {rate:,.0f} msg/s  {stored:,} stored  "
        f"{browsers} browser{'' if browsers == 1 else 's'}"
    )
