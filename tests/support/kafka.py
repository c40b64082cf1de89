"""KafkaBroker and KafkaCluster: real Kafka processes on free ports, with data in a folder of the test's own.

Tests start, stop, kill, pause and restart them; nothing in them is replaced. What tests ask of them as a client that is
not Headrace is in `tests.support.kafka_client`.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from scripts.kafka.distribution import SMALL_JAVA_OPTIONS, TOOL_TIMEOUT_S, KafkaDistribution
from scripts.kafka.metadata import TopicState
from scripts.kafka.node import (
    FREE_PORTS,
    HOST,
    START_TIMEOUT_S,
    KafkaNode,
    NodePorts,
    free_ports,
    kill_nodes,
    new_cluster_id,
    start_nodes,
    stop_nodes,
    wait_until_ready,
)
from tests.support.conditions import eventually
from tests.support.faulty_proxy import FaultyProxy
from tests.support.kafka_client import KafkaClient
from tests.support.ports import of_this_worker
from tests.support.process_guard import process_guard


def own_ports() -> range:
    """A part of `FREE_PORTS` for each worker of pytest: a broker listens seconds after its ports were chosen, and other
    workers choose meanwhile."""
    return of_this_worker(FREE_PORTS)


class KafkaBroker:
    """One node of a `KafkaCluster`; also its only one (`cluster.brokers[0]`)."""

    def __init__(self, node: KafkaNode, cluster: KafkaCluster, proxy: FaultyProxy | None) -> None:
        self.node = node
        self.cluster = cluster
        self._proxy = proxy

    def __repr__(self) -> str:
        return f"<KafkaBroker {self.node_id} at {self.node.address}>"

    # What it is.

    @property
    def node_id(self) -> int:
        """Its number in the cluster, from 1."""
        return self.node.node_id

    @property
    def port(self) -> int:
        """Where it serves clients."""
        return self.node.ports.client

    @property
    def pid(self) -> int:
        """Process id of the Java process."""
        return self.node.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives; a paused one does."""
        return self.node.is_running

    @property
    def log_text(self) -> str:
        """Warnings and errors that it logged, over all starts."""
        return self.node.log_text

    @property
    def bootstrap_servers(self) -> list[str]:
        """Its own address."""
        return [self.node.address]

    @property
    def proxy(self) -> FaultyProxy:
        """What stands before it for clients that come by `proxied_bootstrap_servers`."""
        assert self._proxy is not None, "the cluster was made without behind_proxy=True"
        return self._proxy

    @property
    def proxied_bootstrap_servers(self) -> list[str]:
        """The address of its proxy: who comes by it is told that all brokers are at their proxies."""
        return [f"{HOST}:{self.proxy.port}"]

    # Everything that the cluster offers, for tests of one broker.

    @property
    def client(self) -> KafkaClient:
        """Topics and records, as another program than Headrace sees them."""
        return self.cluster.client

    def topic_state(self, topic: str) -> TopicState:
        """Id, partitions and leaders of a topic."""
        return self.cluster.topic_state(topic)

    def topic_id(self, topic: str) -> str:
        """Changes when a topic is deleted and made anew."""
        return self.cluster.topic_id(topic)

    def partition_count(self, topic: str) -> int:
        """How many partitions a topic has; 0 when there is no such topic."""
        return self.cluster.partition_count(topic)

    def run_tool(self, name: str, *arguments: str, stdin_text: str = "", timeout_s: float = TOOL_TIMEOUT_S) -> str:
        """See `KafkaCluster.run_tool`."""
        return self.cluster.run_tool(name, *arguments, stdin_text=stdin_text, timeout_s=timeout_s)

    # Life.

    def start(self, timeout_s: float = START_TIMEOUT_S) -> Self:
        """Start with the same ports and data, and wait until it serves and names all brokers that run.

        Raises:
            KafkaDidNotStart: it ended, or did not serve within `timeout_s`.
        """
        self.spawn()
        running = sum(broker.is_running for broker in self.cluster.brokers)
        wait_until_ready([self.node], running, timeout_s)
        return self

    def spawn(self) -> None:
        """Start without waiting."""
        start_nodes([self.node])
        process_guard().add(self.pid)

    def kill(self) -> None:
        """SIGKILL, as a crash; also when it is paused."""
        pid = self.pid
        kill_nodes([self.node])
        process_guard().remove(pid)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when it has not ended in time (without a quorum it would wait for minutes)."""
        pid = self.pid
        stop_nodes([self.node])
        process_guard().remove(pid)

    def restart(self) -> Self:
        """Start again, stopping it first when it still runs."""
        if self.is_running:
            self.stop()
        return self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing is answered."""
        self.node.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.node.send_signal(signal.SIGCONT)


class KafkaCluster:
    """So many brokers (each a controller too) with data below `directory`, gone when it is closed; logs stay there.

    `options` are settings of Kafka for all of them. With `behind_proxy` each has a second listener behind a
    `FaultyProxy` of its own; what the tests ask themselves, and what brokers tell each other, goes past the proxies.
    """

    def __init__(
        self,
        directory: Path,
        broker_count: int = 1,
        options: Mapping[str, str] | None = None,
        behind_proxy: bool = False,
        java_options: Sequence[str] = SMALL_JAVA_OPTIONS,
    ) -> None:
        self.directory = directory
        free = free_ports(own_ports())
        listening = [(next(free), next(free), next(free) if behind_proxy else 0) for _ in range(broker_count)]
        proxies = [FaultyProxy(proxied) if behind_proxy else None for *_, proxied in listening]
        controllers = {index + 1: controller for index, (_, controller, _) in enumerate(listening)}
        cluster_id = new_cluster_id()
        self.brokers = [
            KafkaBroker(
                KafkaNode(
                    directory=directory / f"kafka-{node_id}",
                    node_id=node_id,
                    ports=NodePorts(port, controller, proxied, proxy.port if proxy else 0),
                    controllers=controllers,
                    cluster_id=cluster_id,
                    options=options or {},
                    java_options=java_options,
                    distribution=KafkaDistribution(),
                ),
                self,
                proxy,
            )
            for node_id, (port, controller, proxied), proxy in zip(controllers, listening, proxies, strict=True)
        ]

    # What it is.

    @property
    def bootstrap_servers(self) -> list[str]:
        """Addresses of all brokers, as the configuration `kafka.bootstrap_servers` takes them."""
        return [server for broker in self.brokers for server in broker.bootstrap_servers]

    @property
    def proxied_bootstrap_servers(self) -> list[str]:
        """Addresses of all proxies."""
        return [server for broker in self.brokers for server in broker.proxied_bootstrap_servers]

    @property
    def client(self) -> KafkaClient:
        """Topics and records, as another program than Headrace sees them."""
        return KafkaClient(self.bootstrap_servers)

    def topic_state(self, topic: str) -> TopicState:
        """Id, partitions and leaders of a topic, from the first broker that answers."""
        for broker in self.brokers:
            try:
                return broker.node.metadata([topic]).topics[0]
            except OSError:
                continue
        raise AssertionError(f"none of {self.brokers} answers")

    def topic_id(self, topic: str) -> str:
        """Changes when a topic is deleted and made anew."""
        return self.topic_state(topic).topic_id

    def partition_count(self, topic: str) -> int:
        """How many partitions a topic has; 0 when there is no such topic."""
        return len(self.topic_state(topic).partitions)

    def leader_of(self, topic: str, partition: int = 0, timeout_s: float = 30.0) -> KafkaBroker:
        """The broker that leads a partition, waiting until there is one that runs."""

        def leaders() -> list[KafkaBroker]:
            node_id = self.topic_state(topic).partitions[partition].leader
            return [broker for broker in self.brokers if broker.node_id == node_id and broker.is_running]

        return eventually(leaders, timeout_s, f"a leader of {topic}-{partition}")[0]

    def run_tool(self, name: str, *arguments: str, stdin_text: str = "", timeout_s: float = TOOL_TIMEOUT_S) -> str:
        """What one of Kafka's own tools (`TOOL_CLASSES`: console-consumer, console-producer, get-offsets, topics, or a
        class by its full name) prints, run against this cluster.

        Raises:
            AssertionError: its exit code was not 0.
        """
        address = ("--bootstrap-server", ",".join(self.bootstrap_servers))
        done = KafkaDistribution().run_tool(name, *address, *arguments, stdin_text=stdin_text, timeout_s=timeout_s)
        assert done.returncode == 0, (
            f"{name} ended with {done.returncode}\n-- stdout\n{done.stdout}\n-- stderr\n{done.stderr}"
        )
        return done.stdout

    # Life.

    def start(self, timeout_s: float = START_TIMEOUT_S) -> Self:
        """Start all that do not run, and wait until each names all of them.

        Raises:
            KafkaDidNotStart: one ended, or did not serve within `timeout_s`.
        """
        absent = [broker for broker in self.brokers if not broker.is_running]
        start_nodes([broker.node for broker in absent])
        for broker in absent:
            process_guard().add(broker.pid)
        self.wait_until_ready(timeout_s=timeout_s)
        return self

    def wait_until_ready(self, broker_count: int | None = None, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until each broker that runs names so many brokers (default: all that run)."""
        running = [broker.node for broker in self.brokers if broker.is_running]
        wait_until_ready(running, len(running) if broker_count is None else broker_count, timeout_s)

    def close(self) -> None:
        """Kill what still runs, and remove the data."""
        nodes = [broker.node for broker in self.brokers]
        kill_nodes(nodes)
        for broker in self.brokers:
            if broker.node.process is not None:
                process_guard().remove(broker.pid)
            if broker._proxy is not None:
                broker._proxy.close()
            shutil.rmtree(broker.node.directory / "data", ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
