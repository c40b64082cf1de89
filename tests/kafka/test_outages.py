"""Kafka goes away under load: nothing acknowledged is lost, nothing comes twice, readers see no untold hole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kafka.streams import KafkaServer, described
from tests.support.conditions import eventually, throughout
from tests.support.flow import Flow, rows_of_events
from tests.support.http_client import SseReader
from tests.support.kafka import KafkaBroker, KafkaCluster
from tests.support.kafka_client import KafkaRecord, blocking
from tests.support.mqtt_client import RawClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

AWAY_S = 8.0
REQUEST_TIMEOUT_S = 3.0
HANGS_S = 4 * REQUEST_TIMEOUT_S


def check_all(server: KafkaServer, flow: Flow, reader: SseReader, kafka: KafkaBroker | KafkaCluster) -> None:
    """What must hold at the end, whatever happened between."""
    flow.stop()
    eventually(lambda: len(reader.messages) >= flow.count, 30, f"all {flow.count} events: {reader}", 0.2)
    eventually(lambda: server.waits_in_spool() == 0, 30, "the spool to be empty")
    messages = reader.messages
    assert flow.faults(rows_of_events(messages), "live") == []
    assert [event.json for event in list(reader.events) if event.name == "gap"] == []
    assert flow.faults(server.rows_in(kafka), "Kafka") == []
    history = server.history()
    assert flow.faults(rows_of_events(history), "history") == []
    places = [(each["epoch"], each["partition"], each["offset"]) for each in history]
    assert len(set(places)) == len(places)
    assert "Traceback" not in server.stderr_text
    assert flow.refused == 0


def disturb(
    server: KafkaServer,
    kafka: KafkaBroker | KafkaCluster,
    away: Callable[[], object],
    back: Callable[[], object],
    seconds: float = AWAY_S,
) -> None:
    """Kafka goes and comes back while devices publish and a reader is connected."""
    with SseReader(server.http_url, [("topic", "sensors/#")]) as reader, Flow(server, "sensors/a") as flow:
        eventually(lambda: flow.count > 1_000, 20, "records in Kafka")
        away()
        before = flow.count
        eventually(lambda: server.waits_in_spool() > 0, 30, "records in the spool")
        throughout(lambda: server.is_running, seconds)
        assert flow.count > before + 1_000, "acknowledged while Kafka was away"
        back()
        before = flow.count
        eventually(lambda: flow.count > before + 1_000, 30, "acknowledgements after that")
        check_all(server, flow, reader, kafka)
        assert flow.breaks == 0


def test_the_only_broker_is_killed_and_comes_back(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    with KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers) as server:
        disturb(server, kafka_broker, kafka_broker.kill, kafka_broker.start)


def test_a_broker_that_hangs(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    """SIGSTOP: connections stay open and nothing is answered, for some request timeouts."""
    settings = f"request_timeout_s = {REQUEST_TIMEOUT_S}"
    with KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers, kafka=settings) as server:
        disturb(server, kafka_broker, kafka_broker.pause, kafka_broker.resume, HANGS_S)


def test_the_leader_of_three_is_killed(kafka_cluster: KafkaCluster, tmp_path: Path) -> None:
    with (
        KafkaServer(tmp_path / "data", kafka_cluster.bootstrap_servers, stream=", replication = 3") as server,
        SseReader(server.http_url, [("topic", "sensors/#")]) as reader,
        Flow(server, "sensors/a") as flow,
    ):
        eventually(lambda: flow.count > 1_000, 20, "records in Kafka")
        leader = kafka_cluster.leader_of(server.topic, 0)
        leader.kill()
        before = flow.count
        eventually(lambda: flow.count > before + 5_000, 40, "acknowledgements with another leader")
        eventually(lambda: server.waits_in_spool() == 0, 40, "the spool to be empty")
        leader.start()
        before = flow.count
        eventually(lambda: flow.count > before + 1_000, 30, "acknowledgements after that")
        check_all(server, flow, reader, kafka_cluster)


def test_connections_are_cut_in_the_middle_of_batches(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    with (
        KafkaServer(tmp_path / "data", kafka_broker.proxied_bootstrap_servers) as server,
        SseReader(server.http_url, [("topic", "sensors/#")]) as reader,
        Flow(server, "sensors/a", padding=2_000) as flow,
    ):
        proxy = kafka_broker.proxy
        for cut in range(6):
            before = flow.count
            eventually(lambda b=before: flow.count > b + 500, 30, "acknowledgements")  # type: ignore[misc]
            cuts = proxy.cuts_total
            proxy.cut_after_to_target(20_000 + cut * 7_777)
            eventually(lambda c=cuts: proxy.cuts_total > c, 20, "a cut")  # type: ignore[misc]
        check_all(server, flow, reader, kafka_broker)


def test_kafka_that_is_away_at_the_start_is_a_warning(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    kafka_broker.stop()
    with KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers) as server:
        assert "does not answer (connection refused)" in server.stderr_text
        with SseReader(server.http_url, [("topic", "sensors/#")]) as reader, Flow(server, "sensors/a") as flow:
            eventually(lambda: flow.count > 1_000, 20, "acknowledgements without Kafka")
            eventually(lambda: len(reader.messages) > 1_000, 20, "events from the spool")
            spooled = reader.messages[0]
            assert str(spooled["epoch"]).startswith("spool-")
            kafka_broker.start()
            eventually(lambda: server.waits_in_spool() == 0, 40, "the spool to be empty")
            check_all(server, flow, reader, kafka_broker)


@pytest.mark.parametrize("is_killed", [False, True])
def test_what_is_spooled_is_shown_behind_what_kafka_had(
    kafka_broker: KafkaBroker, tmp_path: Path, is_killed: bool
) -> None:
    """A reader that had not been shown all of Kafka when it went gets keys in order, before and after a restart."""
    foreign = KafkaRecord(b"100", headers=(("mqtt.topic", b"sensors/b"),))

    def seen(topic: str) -> list[int]:
        return [message["payload"] for message in reader.messages if message["topic"] == topic]

    def publish(first: int, last: int) -> None:
        with RawClient(server.mqtt_port) as device:
            device.connect("device")
            for number in range(first, last):
                device.publish_acknowledged("sensors/a", b"%d" % number)

    async def write() -> None:
        async with kafka_broker.client.transaction(server.topic, [foreign], commits=True):
            publish(5, 10)  # behind an open transaction: stored, and not shown yet
            kafka_broker.pause()
            publish(10, 15)
            if is_killed:
                server.kill()
                server.start()
            publish(15, 20)
            throughout(lambda: len(reader.messages) == 5, 1.0, "nothing before what is in Kafka")
            kafka_broker.resume()
            eventually(lambda: server.waits_in_spool() == 0, 40, "the spool to be empty")

    with (
        KafkaServer(
            tmp_path / "data", kafka_broker.bootstrap_servers, partitions=1, kafka="spool_after_s = 1"
        ) as server,
        SseReader(server.http_url, [("topic", "sensors/#")]) as reader,
    ):
        publish(0, 5)
        eventually(lambda: len(reader.messages) == 5, what=reader)
        blocking(write())
        publish(20, 25)
        eventually(lambda: len(reader.messages) == 26, 30, reader)
        assert seen("sensors/a") == list(range(25))
        assert seen("sensors/b") == [100]
        with SseReader(server.http_url, [("topic", "sensors/#"), ("since", "0")]) as late:
            eventually(lambda: len(late.messages) == 26, 20, late)
            own = [message["payload"] for message in late.messages if message["topic"] == "sensors/a"]
            assert own == list(range(25))
        assert "Traceback" not in server.stderr_text


def test_a_spool_that_is_too_old_names_its_limit(tmp_path: Path) -> None:
    with (
        KafkaServer(tmp_path / "data", ["127.0.0.1:1"], kafka="spool_age_s_max = 1") as server,
        SseReader(server.http_url, [("topic", "$server/limit_hit")]) as reader,
        RawClient(server.mqtt_port) as device,
    ):
        device.connect("device")
        device.publish_acknowledged("sensors/a", b"1")
        eventually(lambda: len(reader.messages) > 0, 20, reader)
        assert reader.messages[0]["payload"]["limit"] == "kafka.spool_age_s_max"


def test_while_the_spool_fills_it_is_said_how_long_there_is_room(tmp_path: Path) -> None:
    with KafkaServer(tmp_path / "data", ["127.0.0.1:1"], kafka='spool_bytes_max = "20MB"') as server:

        def spool() -> dict[str, Any]:
            found: dict[str, Any] = described(server, "telemetry")["spool"]
            return found

        assert spool()["full_in_s"] is None
        with Flow(server, "sensors/a"):
            eventually(lambda: spool()["full_in_s"], 20, "a forecast")
            found = described(server, "telemetry")
        left = found["spool"]["bytes_max"] - found["spool"]["bytes"]
        assert found["spool"]["bytes_max"] == 20_000_000
        assert abs(found["spool"]["full_in_s"] * found["bytes_rate"] - left) <= found["bytes_rate"]
