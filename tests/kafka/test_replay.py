"""`headrace replay` of a stream on Kafka: through the server, over partitions and the spool, and from Kafka itself."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.kafka.streams import KafkaServer, kafka_table, stream_table
from tests.support.commands import RunningCommand, headrace
from tests.support.conditions import eventually
from tests.support.http_client import records
from tests.support.kafka import KafkaBroker
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def publish(server: KafkaServer, first: int, count: int) -> None:
    with RawClient(server.mqtt_port) as client:
        client.connect()
        for number in range(first, first + count):
            client.publish_acknowledged(f"sensors/{number % 7}", b"%d" % number)


def test_export_of_partitions_and_spool_goes_on_after_a_kill(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    with KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers) as server:
        publish(server, 0, 200)
        eventually(lambda: len(server.history()) == 200, 20)
        kafka_broker.pause()
        publish(server, 200, 30)
        kafka_broker.resume()
        publish(server, 230, 10)
        eventually(lambda: server.waits_in_spool() == 0, 30, "the spool to be empty")
        eventually(lambda: len(server.history()) == 240, 20)
        file = tmp_path / "out.csv"
        command = ["replay", "telemetry", "--url", server.http_url, "--output", file, "--resume"]
        with RunningCommand(*command, "--speed", "0.2") as running:
            eventually(lambda: file.exists() and file.read_bytes().count(b"\n") > 40, 40)
            running.kill()
        ended = headrace(*command)
        assert ended.returncode == 0, ended.stderr
        rows = list(csv.DictReader(io.StringIO(file.read_bytes().decode(), newline="")))
        assert sorted(int(row["payload"]) for row in rows) == list(range(240))
        by_topic: dict[str, list[int]] = {}
        for row in rows:
            by_topic.setdefault(row["topic"], []).append(int(row["payload"]))
        assert all(numbers == sorted(numbers) for numbers in by_topic.values()), "out of order for a key"

        lines = headrace("replay", "telemetry", "--url", server.http_url, "--topic", "sensors/3").stdout.splitlines()
        assert [json.loads(line)["payload"] for line in lines] == list(range(3, 240, 7))

        with ServerProcess(tmp_path / "target") as target:
            to_mqtt = ["--to-mqtt", f"mqtt://127.0.0.1:{target.mqtt_port}", "--speed", "max"]
            ended = headrace("replay", "telemetry", "--url", server.http_url, *to_mqtt)
            assert ended.stderr == f"240 messages to mqtt://127.0.0.1:{target.mqtt_port}\n"

        ended = headrace("replay", "telemetry", "--data", server.data_directory)
        assert ended.returncode == 1
        assert "stream telemetry is on Kafka" in ended.stderr
        assert "-c FILE" in ended.stderr
        ended = headrace("streams", "trim", "telemetry", "--before", "now", "--yes", "--data", server.data_directory)
        assert ended.returncode == 1
        assert "kafka-delete-records trims that" in ended.stderr
        described = headrace("streams", "describe", "telemetry", "--data", server.data_directory).stdout
        assert f"topic {server.topic}, up" in described
        assert described.count("\npartition ") == 3
        listed = headrace("streams", "list", "--url", server.http_url).stdout
        assert listed.splitlines()[1].split()[:3] == ["telemetry", "kafka", "240"]
        server.terminate()
        without = headrace("streams", "list", "--data", server.data_directory, "-c", tmp_path / "data.toml").stdout
        assert without.splitlines()[1].split()[:3] == ["telemetry", "kafka", "-"]


def test_what_kafka_has_is_read_without_a_server(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    """The same as from the server, on after a kill; what waits in the spool is told, and is there once it moved."""
    with KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers) as server:
        publish(server, 0, 200)
        eventually(lambda: len(server.history()) == 200, 20)
        from_kafka = ["replay", "telemetry", "-c", tmp_path / "data.toml", "--data", server.data_directory]
        from_server = ["replay", "telemetry", "--url", server.http_url]
        for form in ("ndjson", "csv"):
            ended = headrace(*from_kafka, "--format", form)
            assert ended.returncode == 0, ended.stderr
            assert ended.stderr.startswith("200 records, ")
            assert ended.stdout == headrace(*from_server, "--format", form).stdout
        one = headrace(*from_kafka, "--topic", "sensors/3").stdout.splitlines()
        assert [json.loads(line)["payload"] for line in one] == list(range(3, 200, 7))
        assert headrace(*from_kafka, "--to", "-1h").stdout == ""

        parquet = tmp_path / "out.parquet"
        assert headrace(*from_kafka, "--format", "parquet", "--output", parquet).returncode == 0
        assert sorted(map(int, pq.read_table(parquet)["payload"].to_pylist())) == list(range(200))

        file = tmp_path / "out.csv"
        command = [*from_kafka, "--output", file, "--resume"]
        with RunningCommand(*command, "--speed", "0.2") as running:
            eventually(lambda: file.exists() and file.read_bytes().count(b"\n") > 40, 40)
            running.kill()
        kafka_broker.pause()
        publish(server, 200, 30)
        server.terminate()
        kafka_broker.resume()
        ended = headrace(*command)
        assert ended.returncode == 0, ended.stderr
        assert "30 records of telemetry wait in " in ended.stderr
        assert payloads(file.read_bytes()) == list(range(200))
        spool = headrace("streams", "describe", "telemetry", *from_kafka[2:]).stdout
        assert "spool " in spool
        assert " 30 records, " in spool

        server.restart()
        eventually(lambda: server.waits_in_spool() == 0, 30, "the spool to be empty")
        with ServerProcess(tmp_path / "target") as target:
            url = f"mqtt://127.0.0.1:{target.mqtt_port}"
            ended = headrace(*from_kafka, "--to-mqtt", url, "--speed", "max")
            assert ended.stderr == f"230 messages to {url}\n"
            assert {record["payload"] for record in records(target.http_url, "default")} == set(range(230))


def test_kafka_that_is_not_there_is_named(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    config = tmp_path / "headrace.toml"
    for servers, problem in (
        (["127.0.0.1:1"], "Kafka at 127.0.0.1:1 does not answer"),
        (kafka_broker.bootstrap_servers, "stream telemetry is on topic never.made, which"),
    ):
        config.write_text(stream_table("telemetry", "#", "never.made") + kafka_table(servers))
        ended = headrace("replay", "telemetry", "-c", config, "--data", tmp_path / "data")
        assert (ended.returncode, ended.stdout) == (1, "")
        assert problem in ended.stderr


def payloads(csv_bytes: bytes) -> list[int]:
    """Of an export of numbers, in order of number."""
    return sorted(int(row["payload"]) for row in csv.DictReader(io.StringIO(csv_bytes.decode(), newline="")))
