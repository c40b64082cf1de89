"""docker/compose.yaml without Docker: its Kafka as a process with the same settings, and Headrace with its file.

What a container adds (the image, the volumes, names instead of addresses) is not here.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.kafka.distribution import KafkaDistribution
from scripts.kafka.node import HOST, free_ports
from tests.support.conditions import eventually
from tests.support.http_client import records
from tests.support.kafka import KafkaCluster, own_ports
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess

DOCKER = Path(__file__).parents[2] / "docker"


def compose() -> dict[str, Any]:
    """The file as Docker reads it: YAML with merged maps."""
    read: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return read


def image_settings(environment: Mapping[str, object]) -> dict[str, str]:
    """Settings of Kafka as the image `apache/kafka` makes them of its variables."""
    given = {name.removeprefix("KAFKA_").lower(): str(value) for name, value in environment.items() if "KAFKA_" in name}
    assert not any("__" in name for name in given), "an underscore in a name of Kafka's is written otherwise"
    return {name.replace("_", "."): value for name, value in given.items()}


def test_every_service_has_a_profile_and_its_volumes() -> None:
    """Without `--profile`, docker/.env names one: a service without any would start beside the other Headrace."""
    read = compose()
    profiles = {name: service["profiles"] for name, service in read["services"].items()}
    assert profiles == {"headrace": ["embedded"], "headrace-kafka": ["kafka"], "kafka": ["kafka"]}
    assert (DOCKER / ".env").read_text().splitlines()[-1] == "COMPOSE_PROFILES=embedded"
    used = {volume.split(":")[0] for service in read["services"].values() for volume in service["volumes"]}
    assert used == set(read["volumes"])
    for service in read["services"].values():
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:"), f"{port} is open to the network"


def test_the_image_holds_the_files_that_commands_name() -> None:
    dockerfile = (DOCKER / "Dockerfile").read_text()
    copied = re.findall(r"docker/(\S+\.toml)", dockerfile)
    read = compose()
    named = [read["services"]["headrace-kafka"]["command"][-1], *re.findall(r'"(/etc/\S+\.toml)"', dockerfile)]
    assert sorted(named) == sorted(f"/etc/{name}" for name in copied)
    assert all((DOCKER / name).exists() for name in copied)


@pytest.mark.slow
def test_kafka_and_headrace_with_the_settings_of_the_profile(
    kafka_distribution: KafkaDistribution, tmp_path: Path
) -> None:
    service = compose()["services"]["kafka"]
    given = image_settings(service["environment"])
    config = (DOCKER / "headrace-kafka.toml").read_text()
    internal_port = next(free_ports(own_ports()))
    cluster = KafkaCluster(tmp_path / "kafka")
    (broker,) = cluster.brokers
    ports = {"9092": broker.port, "9093": broker.node.ports.controller, "19092": internal_port}

    def here(text: str) -> str:
        """Names and ports of the containers' network as they are on this computer."""
        text = text.replace("kafka:", f"{HOST}:").replace("localhost:", f"{HOST}:").replace("//:", f"//{HOST}:")
        return re.sub(r"(?<=:)(9092|9093|19092)\b", lambda found: str(ports[found[0]]), text)

    options = {name: here(value) for name, value in given.items()}
    options["log.dirs"] = str(broker.node.directory / "data")
    assert set(tomllib.loads(config)["kafka"]["bootstrap_servers"]) == {"kafka:19092"}
    broker.node.options = options
    table = here(re.search(r"(?ms)^\[\[streams\]\].*?(?=^#|\Z)", config)[0])  # type: ignore[index]
    with cluster, ServerProcess(tmp_path / "data", config=table) as server:
        with RawClient(server.mqtt_port) as client:
            client.connect("compose")
            client.publish_acknowledged("plant/1", b"42")
        assert [each["payload"] for each in records(server.http_url, "telemetry", topic="plant/1")] == [42]
        # As programs on the same computer come to it, by the other listener.
        topic = tomllib.loads(config)["streams"][0]["kafka"]["topic"]
        eventually(lambda: cluster.partition_count(topic) == 4, what="the topic")
        said = cluster.run_tool("console-consumer", "--topic", topic, "--from-beginning", "--max-messages", "1")
        assert said.splitlines() == ["42"]
