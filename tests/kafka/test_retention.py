"""Kafka drops old records: whoever has not had them is told how many there were, never nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka.streams import KafkaServer
from tests.support.conditions import eventually
from tests.support.http_client import Event, SseReader, parse_events
from tests.support.kafka import KafkaBroker
from tests.support.kafka_client import KafkaRecord, blocking
from tests.support.mqtt_client import RawClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

FILTER = ("topic", "sensors/#")


def record(number: int, partition: int = 0) -> KafkaRecord:
    """What another program writes."""
    return KafkaRecord(b"%d" % number, headers=(("mqtt.topic", b"sensors/%d" % partition),), partition=partition)


def produce(kafka: KafkaBroker, server: KafkaServer, numbers: range, partition: int = 0) -> None:
    blocking(kafka.client.produce(server.topic, [record(number, partition) for number in numbers]))


def delete(kafka: KafkaBroker, server: KafkaServer, before: dict[int, int]) -> None:
    blocking(kafka.client.delete_records(server.topic, before))


def told(events: list[Event]) -> list[object]:
    """Payloads of messages; (reason, lost) of gaps."""
    return [
        event.json["payload"] if event.name == "message" else (event.json["reason"], event.json["lost"])
        for event in list(events)
        if event.name in ("message", "gap")
    ]


@pytest.fixture
def server(kafka: KafkaBroker, tmp_path: Path) -> Iterator[KafkaServer]:
    with KafkaServer(tmp_path / "data", kafka.bootstrap_servers, partitions=2) as running:
        eventually(lambda: running.describe()["kafka"]["state"] == "up", 20, "the topic")
        yield running


def test_what_every_reader_has_had_is_no_loss(server: KafkaServer, kafka: KafkaBroker) -> None:
    with SseReader(server.http_url, [FILTER]) as reader:
        produce(kafka, server, range(10))
        eventually(lambda: len(reader.messages) == 10, what=reader)
        delete(kafka, server, {0: 10})
        produce(kafka, server, range(10, 15))
        eventually(lambda: len(reader.messages) == 15, what=reader)
        assert told(reader.events) == list(range(15))
        with SseReader(server.http_url, [FILTER, ("cursor", reader.events[-6].event_id)]) as resumed:
            eventually(lambda: len(resumed.messages) == 5, what=resumed)
            assert told(resumed.events) == list(range(10, 15))


def test_cursor_that_retention_has_passed_ends_in_a_gap_with_the_number_of_lost_records(
    server: KafkaServer, kafka: KafkaBroker
) -> None:
    with SseReader(server.http_url, [FILTER]) as reader:
        produce(kafka, server, range(20))
        produce(kafka, server, range(100, 110), partition=1)
        eventually(lambda: len(reader.messages) == 30, what=reader)
    messages = [event for event in reader.events if event.name == "message"]
    third = next(event for event in messages if event.json["payload"] == 2)
    seen_of_second = sum(event.json["partition"] == 1 for event in messages[: messages.index(third)])
    delete(kafka, server, {0: 12, 1: 10})
    lost = (12 - 3) + (10 - seen_of_second)
    eventually(lambda: [each["first_offset"] for each in server.describe()["partitions"]] == [12, 10], 20, "the ends")
    with SseReader(server.http_url, [FILTER, ("cursor", third.event_id)]) as resumed:
        eventually(lambda: len(resumed.messages) == 8, what=resumed)
        assert told(resumed.events) == [("retention", lost), *range(12, 20)]
    # The gap's end is a cursor like any other.
    after = next(event.json["to"] for event in resumed.events if event.name == "gap")
    with SseReader(server.http_url, [FILTER, ("cursor", after)]) as again:
        eventually(lambda: len(again.messages) == 8, what=again)
        assert told(again.events) == list(range(12, 20))


def test_slow_reader_that_retention_overtakes_is_told(server: KafkaServer, kafka: KafkaBroker) -> None:
    """It does not read; what it was to be fed from Kafka goes meanwhile."""
    padding = b" " * 2_000
    with socket.create_connection(("127.0.0.1", server.http_port)) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        slow.sendall(b"GET /api/v1/events?topic=sensors/%23 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
        with SseReader(server.http_url, [FILTER]) as quick:
            for first in range(0, 8_000, 1_000):
                given = [
                    KafkaRecord(b"%d%b" % (n, padding), headers=record(0).headers, partition=0)
                    for n in range(first, first + 1_000)
                ]
                blocking(kafka.client.produce(server.topic, given))
            eventually(lambda: len(quick.messages) == 8_000, 60, quick)
        delete(kafka, server, {0: 7_900})
        produce(kafka, server, range(8_000, 8_010))
        numbers: list[int] = []
        lost = 0
        slow.settimeout(30)
        for event in parse_events(slow.makefile("rb")):  # type: ignore[arg-type]  # chunks' sizes are no fields
            if event.name == "message":
                numbers.append(int(str(event.json["payload"])))
            elif event.name == "gap":
                assert event.json["reason"] == "retention"
                lost += event.json["lost"]
            if numbers and numbers[-1] == 8_009:
                break
    assert lost > 0
    assert len(numbers) + lost == 8_010
    assert numbers == [*range(8_010 - 110 - lost), *range(7_900, 8_010)]


def test_live_readers_are_told_what_went_before_this_node_had_read_it(
    kafka_broker: KafkaBroker, tmp_path: Path
) -> None:
    kafka = kafka_broker
    with (
        KafkaServer(tmp_path / "data", kafka.proxied_bootstrap_servers, partitions=2) as server,
        SseReader(server.http_url, [FILTER]) as reader,
        RawClient(server.mqtt_port) as device,
    ):
        device.connect()
        eventually(lambda: server.describe()["kafka"]["state"] == "up", 20, "the topic")
        produce(kafka, server, range(5))
        eventually(lambda: len(reader.messages) == 5, what=reader)
        kafka.proxy.refuse()
        kafka.proxy.cut()
        eventually(lambda: server.describe()["kafka"]["state"] == "down", 20, "Kafka to be away")
        device.publish_acknowledged("sensors/0", b"1000")
        produce(kafka, server, range(5, 50))
        delete(kafka, server, {0: 40})
        kafka.proxy.refuse(False)
        eventually(lambda: len(reader.messages) == 16, 30, reader)
        found = told(reader.events)
        assert found[:5] == list(range(5))
        assert sorted(found[5:], key=str) == sorted([1000, ("retention", 35), *range(40, 50)], key=str)
        assert found.index(("retention", 35)) < found.index(40)
        assert "Traceback" not in server.stderr_text


def test_spooled_records_that_moved_and_went_are_told(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    """A cursor from before an outage; what was spooled moved to Kafka, and retention took it there."""
    kafka = kafka_broker
    with (
        KafkaServer(tmp_path / "data", kafka.bootstrap_servers, partitions=1) as server,
        RawClient(server.mqtt_port) as device,
    ):
        device.connect()
        with SseReader(server.http_url, [FILTER]) as reader:
            for number in range(3):
                device.publish_acknowledged("sensors/0", b"%d" % number)
            eventually(lambda: len(reader.messages) == 3, what=reader)
        cursor = reader.last_event_id
        kafka.kill()
        for number in range(3, 30):
            device.publish_acknowledged("sensors/0", b"%d" % number)
        kafka.start()
        eventually(lambda: server.waits_in_spool() == 0, 30, "the spool to be empty")
        delete(kafka, server, {0: 20})
        eventually(lambda: server.describe()["partitions"][0]["first_offset"] == 20, 20, "the new start")
        with SseReader(server.http_url, [FILTER, ("cursor", cursor)]) as resumed:
            eventually(lambda: len(resumed.messages) >= 10, what=resumed)
            found = told(resumed.events)
        # What still lies in the spool has its copies behind the gap: it is neither shown nor told twice.
        assert found == [("retention", 17), *range(20, 30)]
