"""Headrace dies while it spools, and while it drains, in every phase; Kafka's topic changes under it."""

from __future__ import annotations

import os
import random
import signal
import socket
from pathlib import Path

import httpx
import pytest

from tests.kafka.streams import KafkaServer
from tests.support.conditions import eventually
from tests.support.flow import Flow, rows_of_events
from tests.support.http_client import SseReader
from tests.support.kafka import KafkaBroker
from tests.support.kafka_client import KafkaRecord, blocking
from tests.support.mqtt_client import RawClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROUNDS = 4


def test_killed_while_spooling_and_while_draining(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    """Kafka goes away; the server is killed while it spools, again while it starts, then at moments of the drain."""
    chance = random.Random(11)
    settings = "batch_records_max = 100\ndrain_records_max = 400"  # so that a drain has many phases
    server = KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers, kafka=settings)
    with (
        server,
        SseReader(server.http_url, [("topic", "sensors/#")]) as reader,
        Flow(server, "sensors/a", rate=1_500) as flow,
    ):
        for number in range(ROUNDS):
            before = flow.count
            eventually(lambda b=before: flow.count > b + 500, 30, "records in Kafka")  # type: ignore[misc]
            kafka_broker.kill()
            before = flow.count
            eventually(lambda b=before: flow.count > b + 1_500, 30, "acknowledgements from the spool")  # type: ignore[misc]
            server.kill()
            server.start()
            if number % 3 == 0:  # two in a row
                server.kill()
                server.start()
            before = flow.count
            eventually(lambda b=before: flow.count > b + 500, 30, "acknowledgements after the restart")  # type: ignore[misc]
            kafka_broker.start()
            waiting = server.waits_in_spool()
            share = chance.uniform(0.0, 1.0)
            eventually(
                lambda w=waiting, s=share: server.waits_in_spool() <= w * s + 50, 40, "a part to be drained", 0.001
            )  # type: ignore[misc]
            server.kill()
            server.start()
        flow.stop()
        eventually(lambda: server.waits_in_spool() == 0, 60, "the spool to be empty")
        eventually(lambda: len(reader.messages) >= flow.count, 60, f"all {flow.count} events: {reader}", 0.2)
        assert flow.faults(rows_of_events(reader.messages), "live") == []
        assert [event.json for event in list(reader.events) if event.name == "gap"] == []
        assert flow.faults(server.rows_in(kafka_broker), "Kafka") == []
        assert flow.faults(rows_of_events(server.history()), "history") == []
        assert "Traceback" not in server.stderr_text


def test_killed_behind_a_drain_goes_on_reading(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    """Nothing is left to be looked for, so the live side follows Kafka at once: there is what others wrote."""
    with KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers, partitions=1) as server:
        with SseReader(server.http_url, [("topic", "sensors/#")]) as reader, RawClient(server.mqtt_port) as device:
            device.connect()
            device.publish_acknowledged("sensors/a", b"1")
            kafka_broker.kill()
            for number in range(2, 10):
                device.publish_acknowledged("sensors/a", b"%d" % number)
            kafka_broker.start()
            eventually(lambda: "directly again" in server.stderr_text, 30, "the spool to be empty")
            eventually(lambda: len(reader.messages) == 9, what=reader)
            server.kill()
            blocking(
                kafka_broker.client.produce(server.topic, [KafkaRecord(b"10", headers=(("mqtt.topic", b"sensors/b"),))])
            )
            server.start()
            eventually(lambda: len(reader.messages) == 10, 20, reader)
        assert [message["payload"] for message in reader.messages] == list(range(1, 11))


def test_killed_while_another_server_writes_the_same_topic(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    """What the other one has stored is not taken for what was spooled here."""

    def publish(server: KafkaServer, first: int) -> None:
        with RawClient(server.mqtt_port) as device:
            device.connect("device")
            for number in range(first, first + 50):
                device.publish_acknowledged("sensors/a", b"%d" % number)

    servers = kafka_broker.bootstrap_servers
    with KafkaServer(tmp_path / "one", servers, partitions=1) as server:
        eventually(lambda: server.describe()["kafka"]["state"] == "up", 20, "the topic")
        kafka_broker.kill()
        publish(server, 0)
        server.kill()
        kafka_broker.start()
        with KafkaServer(tmp_path / "two", servers, partitions=1, topic=server.topic) as other:
            eventually(lambda: other.describe()["kafka"]["state"] == "up", 20, "the topic")
            publish(other, 50)
            server.start()
            eventually(lambda: server.waits_in_spool() == 0, 40, "the spool to be empty")
            stored = [number for _, number in server.rows_in(kafka_broker)]
            assert sorted(stored) == list(range(100))


def test_topic_deleted_under_load_is_made_anew_and_told(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    with (
        KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers) as server,
        SseReader(server.http_url, [("topic", "sensors/#")]) as reader,
        Flow(server, "sensors/a", rate=500) as flow,
    ):
        eventually(lambda: flow.count > 500, 20, "records in Kafka")
        old_epoch = server.describe()["epoch"]
        blocking(kafka_broker.client.delete_topic(server.topic))
        eventually(lambda: server.describe()["epoch"] != old_epoch, 30, "the new topic")
        before = flow.count
        eventually(lambda: flow.count > before + 500, 30, "acknowledgements after that")
        flow.stop()
        eventually(lambda: server.waits_in_spool() == 0, 30, "the spool to be empty")
        eventually(lambda: any(event.name == "gap" for event in list(reader.events)), 20, f"the gap: {reader}")
        gaps = [event.json for event in reader.events if event.name == "gap"]
        assert [gap["reason"] for gap in gaps] == ["epoch"]
        # What was acknowledged into the old topic went with it; everything since is there.
        kept = rows_of_events(server.history())
        assert len(kept) == len(set(kept))
        last = {topic: max(numbers) for topic, numbers in flow.acknowledged.items()}
        assert {topic: max(number for name, number in kept if name == topic) for topic in flow.topics} == last
        live = rows_of_events(reader.messages)
        assert len(live) == len(set(live))
        assert set(kept) <= set(live)
        assert "Traceback" not in server.stderr_text


def test_topic_deleted_and_refilled_is_read_from_its_head(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    """The new topic outgrows the old position at once: offsets alone would skip its head in silence."""
    with (
        KafkaServer(
            tmp_path / "data", kafka_broker.bootstrap_servers, partitions=1, stream=", create = false"
        ) as server,
        SseReader(server.http_url, [("topic", "sensors/#")]) as reader,
    ):
        client = kafka_broker.client
        headers = (("mqtt.topic", b"sensors/line/1"),)
        blocking(client.create_topic(server.topic, partitions=1))
        eventually(lambda: server.describe()["kafka"]["state"] == "up", 30, "the topic")
        blocking(client.produce(server.topic, [KafkaRecord(b"%d" % n, headers=headers) for n in range(20)]))
        eventually(lambda: len(reader.messages) == 20, 20, f"the first records: {reader}")
        blocking(client.delete_topic(server.topic))
        blocking(client.create_topic(server.topic, partitions=1))
        blocking(client.produce(server.topic, [KafkaRecord(b"%d" % n, headers=headers) for n in range(100, 150)]))
        eventually(lambda: "gap" in [event.name for event in list(reader.events)], 30, "the gap")
        eventually(lambda: reader.messages[-1]["payload"] == 149, 30, "all of the new topic")
        names = [event.name for event in reader.events if event.name in ("message", "gap")]
        assert names.count("gap") == 1
        behind = len(names) - names.index("gap") - 1
        assert [message["payload"] for message in reader.messages[-behind:]] == list(range(100, 150))
        # Until it is seen that this is another topic, what stands at the next offsets is taken for what comes next.
        before = [message["payload"] for message in reader.messages[:-behind]]
        assert before[:20] == list(range(20))
        assert set(before[20:]) <= set(range(100, 150))


def test_topic_made_anew_with_fewer_partitions_under_load(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    """What was on its way to a partition that is gone goes to those that are there."""
    with (
        KafkaServer(
            tmp_path / "data", kafka_broker.bootstrap_servers, partitions=3, stream=", create = false"
        ) as server,
        SseReader(server.http_url, [("topic", "sensors/#")]) as reader,
    ):
        client = kafka_broker.client
        blocking(client.create_topic(server.topic, partitions=3))
        eventually(lambda: server.describe()["kafka"]["state"] == "up", 30, "the topic")
        with Flow(server, "sensors/a", topics=9, rate=500) as flow:
            eventually(lambda: flow.count > 500, 20, "records in Kafka")
            old_epoch = server.describe()["epoch"]
            blocking(client.delete_topic(server.topic))
            blocking(client.create_topic(server.topic, partitions=1))
            eventually(lambda: server.describe()["epoch"] != old_epoch, 30, "the new topic")
            before = flow.count
            eventually(lambda: flow.count > before + 500, 30, "acknowledgements after that")
        eventually(lambda: server.waits_in_spool() == 0, 30, "the spool to be empty")
        eventually(lambda: "directly again" in server.stderr_text, 20, "the way to be free")
        kept = server.rows_in(kafka_broker)
        assert len(kept) == len(set(kept))
        last = {topic: max(numbers) for topic, numbers in flow.acknowledged.items()}
        assert {topic: max(number for name, number in kept if name == topic) for topic in flow.topics} == last
        eventually(lambda: set(kept) <= set(rows_of_events(reader.messages)), 30, reader)
        assert [event.json["reason"] for event in reader.events if event.name == "gap"] == ["epoch"]
        assert len(server.describe()["partitions"]) == 1
        assert "Traceback" not in server.stderr_text


def test_topic_made_anew_behind_a_drain_while_the_server_was_down(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    """The spool still has what it moved into the old topic: none of that is in the new one, which is read at once."""
    stream = ", create = false"
    server = KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers, partitions=1, stream=stream)
    client = kafka_broker.client
    blocking(client.create_topic(server.topic, partitions=1))
    with server:
        with SseReader(server.http_url, [("topic", "sensors/#")]) as reader, RawClient(server.mqtt_port) as device:
            device.connect()
            kafka_broker.kill()
            for number in range(3):
                device.publish_acknowledged("sensors/a", b"%d" % number)
            kafka_broker.start()
            eventually(lambda: "directly again" in server.stderr_text, 30, "the spool to be empty")
            eventually(lambda: len(reader.messages) == 3, what=reader)
        server.terminate()
        blocking(client.delete_topic(server.topic))
        blocking(client.create_topic(server.topic, partitions=1))
        blocking(client.produce(server.topic, [KafkaRecord(b"10", headers=(("mqtt.topic", b"sensors/b"),))]))
        server.start()
        with SseReader(server.http_url, [("topic", "sensors/#"), ("cursor", reader.last_event_id)]) as resumed:
            eventually(lambda: resumed.messages, 20, resumed)
            names = [event.name for event in resumed.events if event.name in ("message", "gap")]
        assert (names, resumed.messages[0]["payload"]) == (["gap", "message"], 10)


def test_partitions_that_are_added_are_read_from_their_start(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    with (
        KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers, partitions=1) as server,
        SseReader(server.http_url, [("topic", "sensors/#")]) as reader,
    ):
        client = kafka_broker.client
        headers = (("mqtt.topic", b"sensors/line/1"),)
        blocking(client.produce(server.topic, [KafkaRecord(b"1", headers=headers, partition=0)]))
        eventually(lambda: len(reader.messages) == 1, 20, "the first record")
        blocking(client.add_partitions(server.topic, 3))
        blocking(client.produce(server.topic, [KafkaRecord(b"2", headers=headers, partition=2)]))
        eventually(lambda: len(reader.messages) == 2, 20, f"the record in the new partition: {reader}")
        eventually(lambda: len(server.describe()["partitions"]) == 3, 20, "three partitions")
        assert len(server.history()) == 2
        cursor = reader.last_event_id
        with SseReader(server.http_url, [("topic", "sensors/#"), ("cursor", cursor)]) as resumed:
            blocking(client.produce(server.topic, [KafkaRecord(b"3", headers=headers, partition=1)]))
            eventually(lambda: len(resumed.messages) == 1, 20, f"the next record: {resumed}")
            assert resumed.messages[0]["payload"] == 3


def test_a_record_that_kafka_never_takes_is_a_dead_letter(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    """Its batch is refused; the records beside it are stored, and those behind it too."""
    with KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers, partitions=1) as server:
        eventually(lambda: server.describe()["kafka"]["state"] == "up", 20, "the topic")
        client = RawClient(server.mqtt_port)
        client.connect("large")
        payloads = [b"small %d" % number for number in range(5)]
        payloads[2:2] = [b"x" * (1_048_576 - 100)]  # an MQTT packet may be so large; Kafka's record may not
        sent = [client.publish("sensors/a", payload, 1) for payload in payloads]
        for packet_id in sent:
            packet = client.next_packet(20)
            assert (packet.packet_id, packet.reason_code & 0x80) == (packet_id, 0)
        stored = [record.value for record in blocking(kafka_broker.client.read_all(server.topic))]
        assert stored == [b"small %d" % number for number in range(5)]
        described = server.describe()
        assert described["dead_letters"]["records"] == 1
        assert described["dead_letters"]["newest"] is not None
        assert "MessageSizeTooLargeError" in server.stderr_text
        client.publish_acknowledged("sensors/a", b"after")
        client.close()


def test_kafka_that_is_required_and_away_is_an_error(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    from tests.support.server import ServerDidNotStart

    kafka_broker.stop()
    server = KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers, kafka="required = true")
    with pytest.raises(ServerDidNotStart, match=r"error: Kafka at .* does not answer \(connection refused\)"):
        server.start()
    assert server.process.wait(10) == 1


def test_spool_that_is_full_holds_acknowledgements_and_loses_nothing(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    with (
        KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers, kafka='spool_bytes_max = "1MiB"') as server,
        Flow(server, "sensors/a", rate=2_000, padding=900) as flow,
    ):
        eventually(lambda: flow.count > 500, 20, "records in Kafka")
        kafka_broker.kill()
        eventually(lambda: "is full" in server.stderr_text, 40, "the spool to be full")
        assert httpx.get(f"{server.http_url}/readyz").status_code == 503
        kafka_broker.start()
        before = flow.count
        eventually(lambda: flow.count > before + 2_000, 40, "acknowledgements again")
        flow.stop()
        eventually(lambda: server.waits_in_spool() == 0, 40, "the spool to be empty")
        assert flow.faults(server.rows_in(kafka_broker), "Kafka") == []
        assert flow.refused == 0


def test_the_reader_process_of_a_killed_server_ends_without_a_word(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Its answer finds nobody: the request was in its pipe when the server died."""
    with KafkaServer(tmp_path / "data", kafka.bootstrap_servers) as server:
        with RawClient(server.mqtt_port) as client:
            client.connect()
            client.publish_acknowledged("sensors/a", b"1" * 100_000)
        eventually(lambda: len(server.history()) == 1, 20)
        (reader,) = [pid for pid in children(server.pid) if "kafka_reader_process" in command_line(pid)]
        os.kill(reader, signal.SIGSTOP)
        with socket.create_connection(("127.0.0.1", server.http_port)) as asking:
            asking.sendall(b"GET /api/v1/streams/telemetry/records HTTP/1.1\r\nHost: localhost\r\n\r\n")
            for _ in range(5):  # when these have been answered, that has been asked
                assert httpx.get(f"{server.http_url}/healthz").status_code == 200
            server.process.send_signal(signal.SIGKILL)
            server.process.wait(10)
        os.kill(reader, signal.SIGCONT)
        eventually(lambda: not command_line(reader), what="the end of the reader process")
        server.kill()
        assert "Traceback" not in server.stderr_text


def children(pid: int) -> list[int]:
    """Process ids."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_line(pid: int) -> str:
    """Empty when there is no such process, or it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except FileNotFoundError:
        return ""
