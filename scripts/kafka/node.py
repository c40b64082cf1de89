"""KafkaNode: one process of a KRaft cluster (broker and controller in one) on loopback, and waiting until it serves.

Who keeps a node running, and for how long, is decided by `laptop` and by the tests.
"""

from __future__ import annotations

import base64
import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from scripts.kafka.distribution import HERE, KafkaDistribution
from scripts.kafka.metadata import Metadata, fetch_metadata

MAIN_CLASS = "kafka.Kafka"
HOST = "127.0.0.1"
FREE_PORTS = range(20_000, 32_000)
"""Below those that the system gives to outgoing connections: while a broker is down, a client that knocks at its port
again and again could be given that same port, and would be connected with itself."""
START_TIMEOUT_S = 90.0
"""1.5 s on a quiet machine; after a kill -9 the controller first waits for the old session to end."""
FORMAT_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
"""A broker alone stops in 0.4 s. The last of three waits 305 s for a quorum that is gone: then comes SIGKILL."""
POLL_INTERVAL_S = 0.05
LOG_TAIL_LINES = 20


class KafkaDidNotStart(Exception):
    """A node ended, or did not serve in time; the text holds what it logged."""


@dataclass(frozen=True, slots=True)
class NodePorts:
    """`proxied` is a second listener for clients, which tells them to come to port `advertised` (a proxy's); or 0."""

    client: int
    controller: int
    proxied: int = 0
    advertised: int = 0


@dataclass(slots=True)
class KafkaNode:
    """Everything of one node lies in `directory`: settings, logs, and its data unless `options` say otherwise.

    `options` are settings of Kafka that go over the ones chosen here ("{node_id}" in a value is this node's number).
    `controllers` names the controller's port of each
    node of the cluster, this one too.
    """

    directory: Path
    node_id: int
    ports: NodePorts
    controllers: Mapping[int, int]
    cluster_id: str
    options: Mapping[str, str] = field(default_factory=dict)
    java_options: Sequence[str] = ()
    distribution: KafkaDistribution = field(default_factory=KafkaDistribution)
    process: psutil.Process | None = None

    # What it is.

    @property
    def properties_path(self) -> Path:
        """The settings file; its path in a command line is how a node is known again."""
        return self.directory / "server.properties"

    @property
    def log_path(self) -> Path:
        """Kafka's own warnings and errors."""
        return self.directory / "kafka.log"

    @property
    def output_path(self) -> Path:
        """What Java itself prints, when it crashes."""
        return self.directory / "output.log"

    @property
    def address(self) -> str:
        """host:port for clients."""
        return f"{HOST}:{self.ports.client}"

    @property
    def log_text(self) -> str:
        """Everything logged that is kept, of all starts."""
        paths = [self.log_path.with_name("kafka.log.1"), self.log_path, self.output_path]
        return "".join(path.read_text(errors="replace") for path in paths if path.exists())

    def settings(self) -> dict[str, str]:
        """The settings of Kafka for this node."""
        count = len(self.controllers)
        listeners = {"PLAINTEXT": self.ports.client, "CONTROLLER": self.ports.controller}
        advertised = {"PLAINTEXT": self.ports.client}
        if self.ports.proxied:
            listeners["PROXIED"] = self.ports.proxied
            advertised["PROXIED"] = self.ports.advertised
        return {
            "process.roles": "broker,controller",
            "node.id": str(self.node_id),
            "controller.quorum.voters": ",".join(f"{node}@{HOST}:{port}" for node, port in self.controllers.items()),
            "listeners": _listener_text(listeners),
            "advertised.listeners": _listener_text(advertised),
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listeners),
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.directory / "data"),
            "auto.create.topics.enable": "false",
            "default.replication.factor": str(count),
            "min.insync.replicas": str(min(count, 2)),
            "offsets.topic.replication.factor": str(count),
            "transaction.state.log.replication.factor": str(count),
            "transaction.state.log.min.isr": str(min(count, 2)),
            "share.coordinator.state.topic.replication.factor": str(count),
            "share.coordinator.state.topic.min.isr": str(min(count, 2)),
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.num.partitions": "4",
            "group.initial.rebalance.delay.ms": "0",
            # After a kill -9 the next start waits until the controller gives up the old session: 4 s instead of 12.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            # 128 MB of heap by default, more than a small broker has.
            "log.cleaner.dedupe.buffer.size": str(4 << 20),
            **{key: value.replace("{node_id}", str(self.node_id)) for key, value in self.options.items()},
        }

    # Life.

    @property
    def is_running(self) -> bool:
        """Whether the process lives (a stopped one, SIGSTOP, does)."""
        if isinstance(self.process, psutil.Popen):
            return self.process.poll() is None
        return self.process is not None and _is_alive(self.process)

    @property
    def pid(self) -> int:
        """Process id of the node."""
        assert self.process is not None, "the node was not started"
        return int(self.process.pid)

    def write_settings(self) -> None:
        """Write the settings file."""
        self.directory.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{key}={value}\n" for key, value in self.settings().items())
        self.properties_path.write_text(text, encoding="utf-8")

    def spawn(self) -> None:
        """Start the process without waiting for anything; the data must be formatted (`start_nodes` does both)."""
        assert not self.is_running, f"node {self.node_id} is running already"
        java_options = (
            *self.java_options,
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            f"-Dlog4j2.configurationFile={HERE / 'log4j2-broker.properties'}",
            f"-Dkafka.log={self.log_path}",
        )
        with self.output_path.open("ab") as output:
            self.process = psutil.Popen(
                self.distribution.java(MAIN_CLASS, str(self.properties_path), options=java_options),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                start_new_session=True,  # it outlives the terminal, and a Ctrl-C that is meant for someone else
            )

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the process, when it lives."""
        if self.process is not None and self.is_running:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                self.process.send_signal(number)

    def metadata(self, topics: Sequence[str] = (), timeout_s: float = 2.0) -> Metadata:
        """What this node answers at its address for clients."""
        return fetch_metadata(HOST, self.ports.client, topics, timeout_s)

    def find_process(self) -> psutil.Process | None:
        """The process of this node when it runs already, started by whomever; it is kept in `process`."""
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or ()
            if MAIN_CLASS in command and str(self.properties_path) in command and _is_alive(process):
                self.process = process
                return process
        return None

    def log_tail(self) -> str:
        """The last lines logged."""
        return "\n".join(self.log_text.splitlines()[-LOG_TAIL_LINES:])

    # Data.

    @property
    def is_formatted(self) -> bool:
        """Whether its folders for data belong to a cluster already."""
        settings = self.settings()
        folders = settings["log.dirs"].split(",")
        if "metadata.log.dir" in settings:
            folders.append(settings["metadata.log.dir"])
        return all((Path(folder) / "meta.properties").exists() for folder in folders)

    def format_command(self) -> list[str]:
        """The command that makes its data folders part of the cluster."""
        return self.distribution.tool(
            "kafka.tools.StorageTool",
            "format",
            "-t",
            self.cluster_id,
            "-c",
            str(self.properties_path),
            "--ignore-formatted",
        )


def start_nodes(nodes: Sequence[KafkaNode]) -> None:
    """Format where it is needed, and start, all nodes at once; see `wait_until_ready`.

    Raises:
        KafkaDidNotStart: a data folder could not be formatted.
    """
    for node in nodes:
        node.write_settings()
    formatting = [
        (node, subprocess.Popen(node.format_command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        for node in nodes
        if not node.is_formatted
    ]
    try:
        for node, process in formatting:
            said, _ = process.communicate(timeout=FORMAT_TIMEOUT_S)
            if process.returncode != 0:
                raise KafkaDidNotStart(f"node {node.node_id}: its data folder could not be formatted:\n{said}")
    finally:
        for _, process in formatting:
            with process:
                process.kill()
    for node in nodes:
        node.spawn()


def wait_until_ready(nodes: Sequence[KafkaNode], broker_count: int, timeout_s: float = START_TIMEOUT_S) -> None:
    """Wait until each of the nodes names `broker_count` brokers.

    An open port says little: for a while after a start (and after a kill -9) a node answers and is no broker yet.

    Raises:
        KafkaDidNotStart: a node ended, or `timeout_s` is over.
    """
    deadline = time.monotonic() + timeout_s
    for node in nodes:
        while (seen := brokers_seen(node)) != broker_count:
            if not node.is_running:
                raise KafkaDidNotStart(f"node {node.node_id} of Kafka ended. Its log ends with:\n{node.log_tail()}")
            if time.monotonic() > deadline:
                raise KafkaDidNotStart(
                    f"node {node.node_id} of Kafka names {seen} brokers after {timeout_s:.0f} s, "
                    f"not {broker_count}. Its log ends with:\n{node.log_tail()}"
                )
            time.sleep(POLL_INTERVAL_S)


def brokers_seen(node: KafkaNode) -> int:
    """How many brokers a node names at this moment; 0 when it does not answer."""
    try:
        return len(node.metadata().brokers)
    except OSError:
        return 0


def stop_nodes(nodes: Iterable[KafkaNode], timeout_s: float = STOP_TIMEOUT_S) -> list[KafkaNode]:
    """SIGTERM to all at once, SIGKILL to those that still live at the deadline; returns these."""
    running = [node for node in nodes if node.is_running]
    for node in running:
        node.send_signal(signal.SIGTERM)
        node.send_signal(signal.SIGCONT)  # one that was stopped could not end
    _wait_for_end(running, timeout_s)
    return kill_nodes(running)


def kill_nodes(nodes: Iterable[KafkaNode]) -> list[KafkaNode]:
    """SIGKILL to all at once; returns those that lived."""
    running = [node for node in nodes if node.is_running]
    for node in running:
        node.send_signal(signal.SIGKILL)
    _wait_for_end(running, STOP_TIMEOUT_S)
    return running


def _wait_for_end(nodes: Iterable[KafkaNode], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    for node in nodes:
        while node.is_running and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL_S)


def is_port_free(port: int) -> bool:
    """Whether nobody listens on a port of loopback."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Kafka does: old connections do not matter
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
    return True


def free_ports(among: range = FREE_PORTS) -> Iterator[int]:
    """Different ports that nobody listens on, without end."""
    chance = random.SystemRandom()  # what else starts brokers on this machine must not try the same ones in one order
    given: set[int] = set()
    while True:
        port = chance.choice(among)
        if port not in given and is_port_free(port):
            given.add(port)
            yield port


def new_cluster_id() -> str:
    """16 random bytes as Kafka writes them."""
    while (text := base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode()).startswith("-"):
        pass  # the tool that takes it would see an option
    return text


def _listener_text(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items())


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
