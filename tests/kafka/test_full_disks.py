"""No room on the disk of Kafka, or on ours while we spool: nothing is lost, and all goes on with room again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.kafka.streams import KafkaServer
from tests.kafka.test_outages import check_all
from tests.support.conditions import eventually, throughout
from tests.support.flow import Flow
from tests.support.http_client import SseReader
from tests.support.kafka import KafkaBroker, KafkaCluster
from tests.support.small_disk import SmallDisk, fill

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def small_broker(kafka_distribution: object, tmp_path: Path) -> Iterator[tuple[KafkaBroker, SmallDisk]]:
    """A broker with a disk of its own, of 40 MB."""
    with (
        SmallDisk(tmp_path / "small", "40m") as disk,
        KafkaCluster(tmp_path, options={"log.dirs": f"{disk.path}/{{node_id}}"}) as cluster,
    ):
        yield cluster.brokers[0], disk


def test_kafkas_disk_is_full_under_load(small_broker: tuple[KafkaBroker, SmallDisk], tmp_path: Path) -> None:
    """Kafka ends itself when it cannot write."""
    kafka, disk = small_broker
    filler = disk.path / "filler"
    with (
        KafkaServer(tmp_path / "data", kafka.bootstrap_servers) as server,
        SseReader(server.http_url, [("topic", "sensors/#")]) as reader,
        Flow(server, "sensors/a", rate=500, padding=500) as flow,
    ):
        eventually(lambda: flow.count > 1_000, 20, "records in Kafka")
        fill(filler)
        eventually(lambda: not kafka.is_running, 40, "the end of the broker")
        before = flow.count
        eventually(lambda: flow.count > before + 1_000, 30, "acknowledgements from the spool")
        assert server.waits_in_spool() > 0
        filler.unlink()
        kafka.start()
        before = flow.count
        eventually(lambda: flow.count > before + 1_000, 30, "acknowledgements after that")
        check_all(server, flow, reader, kafka)
        assert flow.breaks == 0


def test_our_disk_is_full_while_we_spool(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    """Acknowledgements are held until there is room; the server lives, and what it holds is stored in order."""
    with (
        SmallDisk(tmp_path / "small", "160m") as disk,
        KafkaServer(disk.path / "data", kafka_broker.bootstrap_servers) as server,
        SseReader(server.http_url, [("topic", "sensors/#")]) as reader,
        Flow(server, "sensors/a", rate=500, padding=500) as flow,
    ):
        filler = disk.path / "filler"
        eventually(lambda: flow.count > 1_000, 20, "records in Kafka")
        kafka_broker.kill()
        before = flow.count
        eventually(lambda: flow.count > before + 500, 30, "acknowledgements from the spool")
        fill(filler)
        eventually(lambda: httpx.get(f"{server.http_url}/readyz").status_code == 503, 30, "a log that fails")
        held = flow.count
        throughout(lambda: flow.count <= held + 200 and server.is_running, 3)
        assert httpx.get(f"{server.http_url}/healthz").status_code == 200
        assert "full" in server.stderr_text
        filler.unlink()
        eventually(lambda: flow.count > held + 1_000, 30, "acknowledgements again")
        eventually(lambda: httpx.get(f"{server.http_url}/readyz").status_code == 200, 10, "a log that stores")
        kafka_broker.start()
        check_all(server, flow, reader, kafka_broker)
        assert flow.breaks == 0


def test_our_disk_is_full_while_the_spool_moves(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    """Where the records have gone cannot be written down: nothing is sent whose mark is not on disk."""
    settings = "batch_records_max = 50\ndrain_records_max = 100"
    with (
        SmallDisk(tmp_path / "small", "160m") as disk,
        KafkaServer(disk.path / "data", kafka_broker.bootstrap_servers, kafka=settings) as server,
        SseReader(server.http_url, [("topic", "sensors/#")]) as reader,
        Flow(server, "sensors/a", rate=500, padding=500) as flow,
    ):
        filler = disk.path / "filler"
        eventually(lambda: flow.count > 500, 20, "records in Kafka")
        kafka_broker.kill()
        before = flow.count
        eventually(lambda: flow.count > before + 2_000, 30, "acknowledgements from the spool")
        fill(filler)
        eventually(lambda: httpx.get(f"{server.http_url}/readyz").status_code == 503, 30, "a log that fails")
        kafka_broker.start()
        throughout(lambda: server.is_running, 3)
        server.kill()
        filler.unlink()
        server.start()
        before = flow.count
        eventually(lambda: flow.count > before + 1_000, 40, "acknowledgements again")
        check_all(server, flow, reader, kafka_broker)
