"""A server with one stream on Kafka, and what Kafka holds of it as another program reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.support.http_client import records
from tests.support.kafka import KafkaBroker, KafkaCluster
from tests.support.kafka_client import blocking, unique_topic
from tests.support.server import ServerProcess


def stream_table(name: str, topics: str, kafka_topic: str, partitions: int = 3, more: str = "") -> str:
    """`[[streams]]` of a stream on Kafka; `more` goes on in its table `kafka`."""
    return f"""
[[streams]]
name = "{name}"
topics = ["{topics}"]
storage = "kafka"
kafka = {{ topic = "{kafka_topic}", partitions = {partitions}{more} }}
"""


def kafka_table(bootstrap_servers: Sequence[str], more: str = "") -> str:
    """`[kafka]`."""
    servers = ", ".join(f'"{each}"' for each in bootstrap_servers)
    return f"""
[kafka]
bootstrap_servers = [{servers}]
check_s = 1
{more}
"""


def described(server: ServerProcess, stream: str) -> dict[str, Any]:
    """A stream as the API shows it."""
    answer = httpx.get(f"{server.http_url}/api/v1/streams/{stream}", timeout=20)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


class NobodyLives:
    """The live side of a node without readers, for logs that a test opens itself."""

    def read(self, log: object, runs: object) -> None:
        """Nobody wants it."""

    def moved(self, log: object) -> None:
        """Nobody wants to know."""

    async def read_up(self, log: object) -> None:
        """There are no latest values."""


class KafkaServer(ServerProcess):
    """`headrace serve` with the stream `telemetry` (`sensors/#`) on a topic of its own."""

    def __init__(
        self,
        data_directory: Path,
        bootstrap_servers: Sequence[str],
        *,
        partitions: int = 3,
        stream: str = "",
        kafka: str = "",
        topic: str | None = None,
        more: str = "",
    ) -> None:
        self.topic = topic or unique_topic("telemetry")
        table = stream_table("telemetry", "sensors/#", self.topic, partitions, stream)
        super().__init__(data_directory, f"{table}{kafka_table(bootstrap_servers, kafka)}{more}")

    def rows_in(self, kafka: KafkaBroker | KafkaCluster) -> list[tuple[str, int]]:
        """(topic, number) of what Kafka holds, partition by partition in order."""
        found = blocking(kafka.client.read_all(self.topic))
        return [(record.header["mqtt.topic"].decode(), int(record.value)) for record in found]  # type: ignore[union-attr,arg-type]

    def describe(self) -> dict[str, Any]:
        """The stream as the API shows it."""
        return described(self, "telemetry")

    def waits_in_spool(self) -> int:
        """Records that are not in Kafka yet."""
        records: int = self.describe()["spool"]["records"]
        return records

    def history(self, **query: str) -> list[dict[str, Any]]:
        """All records of the stream, as they are read back."""
        return records(self.http_url, "telemetry", **query)
