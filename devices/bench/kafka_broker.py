"""The Kafka that a bench runs against: a broker of its own, started from this repository's scripts, or one by address.

Its own has Java's default settings but for the heap, keeps its data where the servers under test keep theirs, and is
gone afterwards. One that is given by address is left as it was: topics of the bench are deleted.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psutil

from devices.bench.peers import data_root
from devices.bench.wire import PeerFailed

if TYPE_CHECKING:
    from scripts.kafka.node import KafkaNode

JAVA_OPTIONS = ("-Xms512m", "-Xmx512m")
DELETE_DELAY_MS = 1_000
"""A run leaves hundreds of megabytes, which Kafka would keep for a minute after their topic is deleted."""


class KafkaBroker(Protocol):
    """A Kafka that serves."""

    bootstrap: str
    """host:port"""

    @property
    def pid(self) -> int | None:
        """Of its process, when it is on this machine and ours."""

    @property
    def can_be_stopped(self) -> bool: ...

    def cpu_s(self) -> float:
        """CPU time used so far, as far as it can be seen."""

    def stop(self) -> None: ...

    def start(self) -> None:
        """Start again with the same data. Raises: PeerFailed"""


class GivenBroker:
    """Somebody's Kafka."""

    pid = None
    can_be_stopped = False

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    def cpu_s(self) -> float:
        return 0.0

    def stop(self) -> None:
        raise PeerFailed("this Kafka is not the bench's own")

    def start(self) -> None:
        raise PeerFailed("this Kafka is not the bench's own")


class OwnBroker:
    """One node of the repository's scripts."""

    can_be_stopped = True

    def __init__(self, node: KafkaNode) -> None:
        self._node = node
        self.bootstrap = node.address

    @property
    def pid(self) -> int | None:
        return self._node.pid if self._node.is_running else None

    def cpu_s(self) -> float:
        with contextlib.suppress(psutil.NoSuchProcess):
            if self.pid is not None:
                times = psutil.Process(self.pid).cpu_times()
                return float(times.user + times.system)
        return 0.0

    def stop(self) -> None:
        from scripts.kafka.node import stop_nodes

        stop_nodes([self._node])

    def start(self) -> None:
        from scripts.kafka.node import KafkaDidNotStart, start_nodes, wait_until_ready

        try:
            start_nodes([self._node])
            wait_until_ready([self._node], 1)
        except KafkaDidNotStart as error:
            raise PeerFailed(f"Kafka: {error}") from error


def has_scripts() -> bool:
    """Whether this is a tree of the repository, which can start a broker; an installed package cannot."""
    try:
        return importlib.util.find_spec("scripts.kafka.node") is not None
    except ModuleNotFoundError:
        return False


@contextlib.contextmanager
def kafka_running(bootstrap: str | None) -> Iterator[KafkaBroker]:
    """The Kafka at an address, or one that runs as long as the context.

    Raises: PeerFailed when none can be had; the text says what to do.
    """
    if bootstrap is not None:
        yield GivenBroker(bootstrap)
        return
    if not has_scripts():
        raise PeerFailed("a broker can be started from a checked-out tree only: name one by --bootstrap HOST:PORT")
    from scripts.kafka.node import kill_nodes

    with tempfile.TemporaryDirectory(prefix="headrace-bench-kafka-", dir=data_root()) as place:
        node = _new_node(Path(place))
        broker = OwnBroker(node)
        try:
            broker.start()
            yield broker
        finally:
            broker.stop()
            kill_nodes([node])


def _new_node(directory: Path) -> KafkaNode:
    from scripts.kafka.distribution import KafkaDistribution, KafkaFetchFailed, KafkaMissing
    from scripts.kafka.node import KafkaNode, NodePorts, free_ports, new_cluster_id
    from scripts.kafka.preparation import prepare

    distribution = KafkaDistribution()
    try:
        prepare(distribution)
    except (KafkaMissing, KafkaFetchFailed) as error:
        raise PeerFailed(str(error)) from error
    ports = free_ports()
    client, controller = next(ports), next(ports)
    return KafkaNode(
        directory=directory,
        node_id=1,
        ports=NodePorts(client, controller),
        controllers={1: controller},
        cluster_id=new_cluster_id(),
        options={"log.segment.delete.delay.ms": str(DELETE_DELAY_MS)},
        java_options=JAVA_OPTIONS,
        distribution=distribution,
    )
