"""The servers that are measured: how each is found, started fresh for a run, looked at from outside and ended.

Every server is a child process on free loopback ports with its files in a directory that is removed afterwards.
"""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from broker.compiled import SWITCH, compiled_files
from devices.bench.programs import (
    MOSQUITTO,
    Ports,
    amqtt,
    distribution_version,
    flashmq,
    mosquitto,
    nats_server,
    program_version,
    rumqttd,
)
from devices.bench.wire import PeerFailed, free_ports, wait_for_port

HEADRACE = "headrace"
PLAIN = "headrace-plain"
"""The same without its compiled modules, where there are any."""
STREAM = "bench"
"""The stream of Headrace that takes what the bench publishes."""
STOP_TIMEOUT_S = 15.0
OUTPUT_BYTES_SHOWN = 2000
DESCRIPTORS_WANTED = 20_000


@dataclass(frozen=True)
class Peer:
    """A kind of server."""

    name: str
    version: Callable[[], str | None]
    """Its version; None when it is not installed."""
    command: Callable[[Path, Ports, str], list[str]]
    """Arguments to start it: (directory for its files, ports, storage of the topics, of use to Headrace alone)."""

    @property
    def is_ours(self) -> bool:
        """It is Headrace, whose HTTP port says when it is ready."""
        return self.name in (HEADRACE, PLAIN)


class Server:
    """A running server under test."""

    def __init__(self, peer: Peer, process: subprocess.Popen[bytes], ports: Ports, directory: Path) -> None:
        self.peer = peer
        self.mqtt_port = ports.mqtt
        self.http_port = ports.http
        self.ws_port = ports.ws
        self.directory = directory
        self.process = process
        self._inspected = psutil.Process(process.pid)

    def _family(self) -> list[psutil.Process]:
        return [self._inspected, *self._inspected.children(recursive=True)]

    def cpu_s(self) -> float:
        """CPU time used so far by the server and its child processes, user and system."""
        total = 0.0
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def rss_bytes(self) -> int:
        """Resident memory of the server and its child processes."""
        total = 0
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += int(process.memory_info().rss)
        return total

    def settled_rss_bytes(self, timeout_s: float = 5.0) -> int:
        """`rss_bytes` once it has stood still for half a second, or at the end of the time."""
        deadline = time.monotonic() + timeout_s
        last, since = self.rss_bytes(), time.monotonic()
        while time.monotonic() < deadline and time.monotonic() - since < 0.5:
            time.sleep(0.1)
            now = self.rss_bytes()
            if abs(now - last) > 64 * 1024:
                last, since = now, time.monotonic()
        return self.rss_bytes()

    def is_running(self) -> bool:
        return self.process.poll() is None


@contextlib.contextmanager
def running(
    peer: Peer, *, storage: str = "memory", directory: Path | None = None, is_websocket: bool = False
) -> Iterator[Server]:
    """A freshly started server, ready to take connections; it is ended, and its files removed, on leaving.

    With `directory` the server's files are kept there, for a server that is started again on the same data.
    Raises: PeerFailed with the end of its output.
    """
    with contextlib.ExitStack() as stack:
        place = directory or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=data_root()))
        )
        ports = Ports(*free_ports(3 if is_websocket else 2))
        output_path = place / "output.txt"
        with output_path.open("wb") as output:
            process = subprocess.Popen(
                peer.command(place, ports, storage), cwd=place, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            server = Server(peer, process, ports, place)
            try:
                wait_for_port(ports.mqtt, server.is_running)
                if ports.ws:
                    wait_for_port(ports.ws, server.is_running)
                if peer.is_ours:
                    _wait_until_ready(server)
                yield server
            except PeerFailed as error:
                raise PeerFailed(f"{peer.name}: {error}{_last_output(output_path)}") from error
        finally:
            _stop(process)


def _wait_until_ready(server: Server, timeout_s: float = 20.0) -> None:
    wait_for_port(server.http_port, server.is_running)
    deadline = time.monotonic() + timeout_s
    status = 0
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/readyz")
            status = connection.getresponse().status
            if status == 200:
                return
        time.sleep(0.05)
    raise PeerFailed(f"/readyz was not 200 in {timeout_s:.0f} s (last {status})")


def _last_output(path: Path) -> str:
    with contextlib.suppress(OSError):
        output = path.read_bytes()[-OUTPUT_BYTES_SHOWN:].decode(errors="replace").strip()
        if output:
            return f"\n--- its last output ---\n{output}"
    return ""


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def data_root() -> Path:
    """Where servers keep their files: the temporary directory, or the current one when that is not on a disk."""
    temporary = Path(tempfile.gettempdir())
    return Path.cwd() if file_system(temporary) in {"tmpfs", "ramfs"} else temporary


def file_system(path: Path) -> str:
    """The type of the file system that holds `path`."""
    best = ("", "unknown")
    for partition in psutil.disk_partitions(all=True):
        mount = partition.mountpoint
        if (path == Path(mount) or Path(mount) in path.parents) and len(mount) >= len(best[0]):
            best = (mount, partition.fstype)
    return best[1]


def _headrace(directory: Path, ports: Ports, storage: str) -> list[str]:
    """A server with the topics of the bench in one stream of the given storage, and room for a filled log."""
    kept = 'ack = "stored"\nretention = { age = "7d", bytes = "20GiB" }\n' if storage == "sqlite" else ""
    # As its peers: sessions that are away lose nothing, and so much may be in flight as there are packet ids.
    limits = (
        "\n[mqtt]\ninflight_messages_max = 65_535\nqueued_messages_max = 1_000_000\nqueued_bytes_max = 1_000_000_000\n"
    )
    return headrace_command(directory, ports, storage, kept + limits)


def _plain_headrace(directory: Path, ports: Ports, storage: str) -> list[str]:
    return ["env", f"{SWITCH}=0", *_headrace(directory, ports, storage)]


def _plain_version() -> str | None:
    return PEERS[HEADRACE].version() if compiled_files() else None


def headrace_command(
    directory: Path, ports: Ports, storage: str, more: str, start: tuple[str, ...] = ("-m", "bridge.cli")
) -> list[str]:
    """Arguments to start Headrace with one stream for `bench/#`; `more` is what else its configuration says of it."""
    configuration = directory / "headrace.toml"
    configuration.write_text(f'[[streams]]\nname = "{STREAM}"\ntopics = ["bench/#"]\nstorage = "{storage}"\n{more}')
    return [
        sys.executable,
        *start,
        *("serve", "-c", str(configuration)),
        *("--data", str(directory / "data")),
        *("--mqtt", f"127.0.0.1:{ports.mqtt}"),
        *("--http", f"127.0.0.1:{ports.http}"),
        *("--ws", f"127.0.0.1:{ports.ws}"),
    ]


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(HEADRACE, distribution_version("headrace"), _headrace),
        Peer(PLAIN, _plain_version, _plain_headrace),
        Peer(MOSQUITTO, program_version(MOSQUITTO, ["-h"], 2), mosquitto),
        Peer("amqtt", distribution_version("amqtt"), amqtt),
        Peer("nats-server", program_version("nats-server", ["-v"], 1), nats_server),
        Peer("rumqttd", program_version("rumqttd", ["--version"], 1), rumqttd),
        Peer("flashmq", program_version("flashmq", ["--version"], 2), flashmq),
    )
}
"""By name. Headrace and Mosquitto belong to every comparison; the rest joins when it is found."""


def find_peers(names: list[str] | None = None) -> dict[str, str]:
    """Versions of the peers that can be started, by name; with `names` only those.

    Raises: PeerFailed for a name that is unknown or not installed.
    """
    if names is None:
        found = {name: peer.version() for name, peer in PEERS.items()}
        return {name: version for name, version in found.items() if version is not None}
    versions = {}
    for name in names:
        if name not in PEERS:
            raise PeerFailed(f"no peer is called {name!r}; known: {', '.join(PEERS)}")
        version = PEERS[name].version()
        if version is None:
            raise PeerFailed(f"{name} is not installed")
        versions[name] = version
    return versions
