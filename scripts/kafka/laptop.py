"""LaptopKafka: brokers on fixed ports that stay when the command is over, with data that stays when they end.

What `make kafka-up`, `kafka-down` and `kafka-clean` do. Running brokers are known by their command lines, so that no
file can claim what is not true.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from scripts.kafka.distribution import CACHE, KafkaDistribution, locked
from scripts.kafka.node import (
    HOST,
    KafkaNode,
    NodePorts,
    is_port_free,
    kill_nodes,
    new_cluster_id,
    start_nodes,
    stop_nodes,
    wait_until_ready,
)

DEFAULT_PORT = 9092
BROKER_COUNTS = (1, 3)
"""Data of one broker cannot become data of three: each count has a folder of its own."""
JAVA_OPTIONS = "-Xms256m -Xmx512m"


class KafkaNotStarted(Exception):
    """Why nothing was started, and what to do."""


class LaptopKafka:
    """Clusters below `directory`, of which one at most runs at a time."""

    def __init__(self, directory: Path = CACHE, port: int = DEFAULT_PORT) -> None:
        self.directory = directory.resolve()
        self.port = port
        self.distribution = KafkaDistribution()

    def nodes(self, broker_count: int) -> list[KafkaNode]:
        """The nodes of a cluster: broker i on port + 2 i, its controller one above."""
        home = self._home(broker_count)
        id_path = home / "cluster.id"
        ports = [NodePorts(self.port + 2 * index, self.port + 2 * index + 1) for index in range(broker_count)]
        return [
            KafkaNode(
                directory=home / f"node-{index + 1}",
                node_id=index + 1,
                ports=ports[index],
                controllers={position + 1: each.controller for position, each in enumerate(ports)},
                cluster_id=id_path.read_text().strip() if id_path.exists() else "",
                java_options=shlex.split(os.environ.get("KAFKA_HEAP_OPTS", JAVA_OPTIONS)),
                distribution=self.distribution,
            )
            for index in range(broker_count)
        ]

    def running(self) -> list[KafkaNode]:
        """The nodes that run, of whatever count and on whatever ports."""
        nodes = [node for count in BROKER_COUNTS for node in self.nodes(count) if node.find_process()]
        for node in nodes:
            node.ports = ports_in(node.properties_path)
        return nodes

    def up(self, broker_count: int) -> tuple[list[KafkaNode], bool]:
        """Make sure that so many brokers serve; returns them and whether any had to be started.

        Raises:
            KafkaNotStarted: a port is in use, or a cluster of another count or port runs.
        """
        with self._only_one():
            nodes = self.nodes(broker_count)
            self._check_what_runs(broker_count)
            absent = [node for node in nodes if not node.find_process()]
            for node in absent:
                self._check_ports(node)
            if absent and not nodes[0].cluster_id:
                self._choose_cluster_id(nodes)
            try:
                start_nodes(absent)
                wait_until_ready(nodes, broker_count)
            except BaseException:
                kill_nodes(absent)  # also when it was Ctrl-C: half a cluster is of no use to anyone
                raise
            return nodes, bool(absent)

    def down(self) -> tuple[list[KafkaNode], list[KafkaNode]]:
        """Stop what runs; returns the nodes that ran, and those that had to be killed."""
        with self._only_one():
            running = self.running()
            return running, stop_nodes(running)

    def clean(self) -> list[Path]:
        """Remove the data of clusters (the jars stay); returns the folders removed.

        Raises:
            KafkaNotStarted: a cluster runs.
        """
        with self._only_one():
            if self.running():
                raise KafkaNotStarted("Kafka is running, and its data is in use. Stop it first: make kafka-down")
            homes = [home for home in map(self._home, BROKER_COUNTS) if home.exists()]
            for home in homes:
                shutil.rmtree(home)
            return homes

    def _home(self, broker_count: int) -> Path:
        return self.directory / f"brokers-{broker_count}"

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        with locked(self.directory / "laptop.lock"):
            yield

    def _choose_cluster_id(self, nodes: list[KafkaNode]) -> None:
        cluster_id = new_cluster_id()
        home = self._home(len(nodes))
        home.mkdir(parents=True, exist_ok=True)
        (home / "cluster.id").write_text(cluster_id + "\n")
        for node in nodes:
            node.cluster_id = cluster_id

    def _check_what_runs(self, broker_count: int) -> None:
        wanted = {(node.properties_path, node.ports) for node in self.nodes(broker_count)}
        others = [node for node in self.running() if (node.properties_path, node.ports) not in wanted]
        if others:
            raise KafkaNotStarted(
                f"Kafka is up already with another number of brokers or on other ports ({describe(others)}). "
                "Stop it first: make kafka-down"
            )

    def _check_ports(self, node: KafkaNode) -> None:
        for port in (node.ports.client, node.ports.controller):
            if not is_port_free(port):
                raise KafkaNotStarted(
                    f"port {port} on {HOST} is in use{listener_on(port)}. "
                    "Stop that, or choose other ports: make kafka-up KAFKA_PORT=19092"
                )


def ports_in(properties_path: Path) -> NodePorts:
    """The ports with which a node was started."""
    ports = dict(re.findall(r"(PLAINTEXT|CONTROLLER)://[^:]+:(\d+)", properties_path.read_text(encoding="utf-8")))
    return NodePorts(int(ports["PLAINTEXT"]), int(ports["CONTROLLER"]))


def describe(nodes: list[KafkaNode]) -> str:
    """Addresses and process ids."""
    return ", ".join(f"{node.address} pid {node.pid}" for node in nodes)


def listener_on(port: int) -> str:
    """Who listens on a port, in words for the end of a sentence; empty when that may not be known."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()}, pid {connection.pid}"
    return ""
