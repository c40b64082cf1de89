"""The whole system in one event loop: HTTP socket, node, application and uvicorn, opened in this order.

`serve` is the composition root: it opens the parts, tells who asked where they listen, waits for a signal and closes
the parts in reverse. Whatever keeps it from starting is a `CannotStart`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

import uvicorn

from bridge.app import create_app
from bridge.config import Config
from bridge.config_source import ConfigError
from bridge.live.handover import Http
from bridge.logging import LogWriter, set_level
from bridge.node import Node
from bridge.start_checks import (
    CannotStart,
    addresses,
    check_data_directory,
    check_ports,
    check_sqlite,
    in_use_text,
    listening_text,
    open_socket,
)
from bridge.streams.log import StreamLogError
from bridge.streams.sqlite_schema import DataDirectoryInUse
from broker.compiled import how_it_runs

log = logging.getLogger("headrace.server")

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter from the loop; Python's 5 ms would be the latency of everything."""
GC_THRESHOLDS = (50_000, 20, 100)
"""Objects and rounds between collections. At 1 M publishes/s Python's 700 means thousands of collections a second that
find nothing: batches die by reference count."""
HTTP_BACKLOG = 2_048
HTTP_CLOSE_TIMEOUT_S = 5
FILES_BESIDE_CONNECTIONS = 200
"""Open files that are no connections: database, pipes, libraries."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready."""

    config: Config
    node: Node
    http_host: str
    http_port: int

    @property
    def dashboard_url(self) -> str:
        """Where a browser on this computer finds the page."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.http_host, self.http_host)
        return f"http://[{host}]:{self.http_port}/" if ":" in host else f"http://{host}:{self.http_port}/"

    @property
    def is_loopback_only(self) -> bool:
        """No other computer can reach any of its addresses."""
        return all(address.is_loopback for address in addresses(self.config).values())


class HttpServer(uvicorn.Server):
    """uvicorn, started and stopped by us: signals are the whole system's, not its."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        self.has_started.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


@contextlib.asynccontextmanager
async def open_server(config: Config, command: str = "serve") -> AsyncIterator[Running]:
    """Everything running, until the context ends. `command` is named in the advice of errors.

    Raises: CannotStart
    """
    check_sqlite()
    check_data_directory(config.data_dir)
    check_ports(config, command)
    places = addresses(config)
    try:
        http_socket = open_socket(places["http"])
    except OSError as error:
        raise CannotStart(listening_text(error, list(places.items()), command)) from error
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(http_socket.close)
        node = Node(config)
        try:
            await stack.enter_async_context(node)
        except DataDirectoryInUse as error:
            raise CannotStart(in_use_text(config.data_dir, error)) from error
        except StreamLogError as error:
            raise CannotStart(f"{error}.") from error
        except OSError as error:
            raise CannotStart(listening_text(error, list(places.items()), command)) from error
        await stack.enter_async_context(_http_running(config, node, http_socket, command))
        host, port = http_socket.getsockname()[:2]
        running = Running(config, node, host, port)
        node.store.tell_address(running.dashboard_url.rstrip("/"))
        yield running


@contextlib.asynccontextmanager
async def _http_running(config: Config, node: Node, http_socket: socket.socket, command: str) -> AsyncIterator[None]:
    server = HttpServer(
        uvicorn.Config(
            create_app(config, node),
            http=type("BoundedHttp", (Http,), {"limits": config.live_limits()}),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=HTTP_BACKLOG,
            timeout_graceful_shutdown=HTTP_CLOSE_TIMEOUT_S,
        )
    )
    task = asyncio.create_task(server.serve([http_socket]), name="http")
    started = asyncio.create_task(server.has_started.wait())
    await asyncio.wait((task, started), return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    try:
        if task.done():
            raise CannotStart(_http_failure(task, config, command))
        yield
    finally:
        server.should_exit = True
        if not task.done():
            await task


def _http_failure(task: asyncio.Task[None], config: Config, command: str) -> str:
    error = task.exception()
    if isinstance(error, OSError):
        return listening_text(error, [("http", config.http_address)], command)
    raise RuntimeError("the HTTP server ended while it was starting") from error


async def serve(
    config: Config,
    announce: Callable[[Running], None],
    *,
    writer: LogWriter | None = None,
    reload: Callable[[], Config] | None = None,
    beside: Callable[[Running], Awaitable[None]] | None = None,
    command: str = "serve",
) -> None:
    """Run until SIGTERM or SIGINT.

    `announce` is called once everything listens. `reload` reads the configuration again, for SIGHUP. `beside` runs as
    long as the server and is cancelled with it.

    Raises: CannotStart
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    given = config
    config = _with_connections(config, _raise_file_limit(config.mqtt.connections_max))
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: _reload(given, reload))
    async with open_server(config, command) as running, asyncio.TaskGroup() as tasks:
        loop.add_signal_handler(signal.SIGHUP, lambda: _reload(given, reload, running.node))
        gc.collect()
        gc.freeze()  # what is there now stays until the end, so no collection need look at it
        gc.set_threshold(*GC_THRESHOLDS)
        announce(running)
        log.info("ready", extra={"fields": {"modules": how_it_runs()}})
        companions = [tasks.create_task(_count_repeats(writer))] if writer is not None else []
        if beside is not None:
            companions.append(tasks.create_task(_run(beside, running)))
        await stop.wait()
        log.info("stopping")
        for companion in companions:
            companion.cancel()


async def _run(beside: Callable[[Running], Awaitable[None]], running: Running) -> None:
    await beside(running)


async def _count_repeats(writer: LogWriter) -> None:
    while True:
        await asyncio.sleep(1)
        writer.write_repeats()


def _reload(config: Config, reload: Callable[[], Config] | None, node: Node | None = None) -> None:
    """SIGHUP: the log level changes at once; whatever else has changed waits for a restart, and that is said."""
    if reload is None:
        return
    try:
        new = reload()
    except ConfigError as error:
        for problem in error.problems:
            log.error("the configuration was not reloaded: %s", problem)
        return
    set_level(new.log.level)
    log.info("configuration reloaded", extra={"fields": {"level": new.log.level}})
    waiting = [
        field.alias or name
        for name, field in Config.model_fields.items()
        if name != "log" and getattr(new, name) != getattr(config, name)
    ]
    if new.log.format != config.log.format:
        waiting.insert(0, "log.format")
    if node is not None:
        node.events.tell("config_reloaded", log_level=new.log.level, need_restart=waiting)
    if waiting:
        log.warning("these changes need a restart", extra={"fields": {"keys": ",".join(waiting)}})


def _with_connections(config: Config, connections_max: int) -> Config:
    """The configuration with so many connections: beyond them are the files that those there need."""
    if connections_max >= config.mqtt.connections_max:
        return config
    return config.model_copy(update={"mqtt": config.mqtt.model_copy(update={"connections_max": connections_max})})


def _raise_file_limit(connections_max: int) -> int:
    """Open as many files as the system allows; returns how many connections that is enough for.

    When it is not enough for those that are allowed, that is said.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections_max + FILES_BESIDE_CONNECTIONS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections_max
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):  # macOS has a lower limit of its own; then the old one stays
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        soft = limit
    if soft >= wanted:
        return connections_max
    possible = max(1, soft - FILES_BESIDE_CONNECTIONS)
    log.warning(
        "fewer files may be open than connections are allowed, so fewer connections are taken; raise it: ulimit -n %d",
        wanted,
        extra={"fields": {"files": soft, "connections": possible, "connections_max": connections_max}},
    )
    return possible
