"""A cursor is exact wherever its records stand when it comes back: in Kafka, in the spool, moved, in other streams."""

from __future__ import annotations

import random
import socket
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.streams.sqlite_schema import FILE_NAME
from tests.kafka.streams import KafkaServer
from tests.support.conditions import eventually, throughout
from tests.support.http_client import Event, SseReader, parse_events
from tests.support.kafka import KafkaBroker, KafkaCluster
from tests.support.kafka_client import KafkaRecord, blocking
from tests.support.mqtt_client import RawClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

KAFKA_ONLY = [("topic", "sensors/#")]
ALL = [("topic", "sensors/#"), ("topic", "plain/#"), ("topic", "passing/#")]
"""Streams on Kafka, on disk and in memory."""
MEMORY = """
[[streams]]
name = "passing"
topics = ["passing/#"]
storage = "memory"
"""


def publish(device: RawClient, first: int, count: int, topics: Sequence[str]) -> None:
    """Numbers, over topics in turn."""
    for number in range(first, first + count):
        device.publish_acknowledged(topics[number % len(topics)], b"%d" % number)


def identity(message: Mapping[str, Any]) -> tuple[str, int]:
    return message["topic"], message["payload"]


def message_events(reader: SseReader) -> list[Event]:
    return [event for event in list(reader.events) if event.name == "message"]


def wait_for_messages(reader: SseReader, count: int) -> None:
    eventually(lambda: len(reader.messages) >= count, 20, reader)


def check_cursors(
    server: KafkaServer, query: list[tuple[str, str]], events: Sequence[Event], chosen: Sequence[int]
) -> None:
    """From the cursor of each chosen event on comes what came behind it, each once, and nothing else."""
    for index in chosen:
        expected = Counter(identity(event.json) for event in events[index + 1 :])
        with SseReader(server.http_url, [*query, ("cursor", events[index].event_id)]) as resumed:
            eventually(
                lambda resumed=resumed, expected=expected: (
                    any(event.name == "live" for event in list(resumed.events))  # type: ignore[misc]
                    and len(resumed.messages) >= expected.total()
                ),
                20,
                f"{expected.total()} events from {index} of {len(events)} on: {resumed}",
            )
            assert Counter(map(identity, resumed.messages)) == expected, f"from {index}: {events[index].event_id}"
            assert is_in_order(resumed.messages)
            assert not [event.json for event in resumed.events if event.name == "gap"]


def check_without_kafka(server: KafkaServer, events: Sequence[Event]) -> None:
    """What is spooled waits for the part of a cursor that stands in Kafka; the other streams do not."""
    last_in_kafka = max(index for index, event in enumerate(events) if str(event.json["epoch"]).startswith("k"))
    for index in [*chosen_of(events, 6), last_in_kafka - 1, last_in_kafka]:
        expected = Counter(
            identity(event.json)
            for event in events[index + 1 :]
            if event.json["stream"] == "default" or index >= last_in_kafka
        )
        with SseReader(server.http_url, [*ALL[:2], ("cursor", events[index].event_id)]) as resumed:
            wait_for_messages(resumed, expected.total())
            assert Counter(map(identity, resumed.messages)) == expected
            assert is_in_order(resumed.messages)


def is_in_order(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the numbers of each topic rise."""
    last: dict[str, int] = {}
    for message in messages:
        topic, number = identity(message)
        if number <= last.get(topic, -1):
            return False
        last[topic] = number
    return True


def chosen_of(events: Sequence[Event], count: int) -> list[int]:
    """The last, and some others."""
    return [*sorted(random.Random(1).sample(range(len(events)), min(count, len(events)))), len(events) - 1]


def test_cursors_of_all_stages_of_an_outage_hold_behind_it(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    """Before, in the spool, while it moves, behind: each with a stream on Kafka and one on disk, over a restart."""
    topics = ["sensors/1", "sensors/2", "plain/1", "sensors/3"]
    with (
        KafkaServer(
            tmp_path / "data", kafka_broker.bootstrap_servers, kafka="batch_records_max = 20\ndrain_records_max = 100"
        ) as server,
        SseReader(server.http_url, ALL[:2]) as reader,
        RawClient(server.mqtt_port) as device,
    ):
        device.connect()
        publish(device, 0, 60, topics)
        kafka_broker.kill()
        publish(device, 60, 200, topics)
        eventually(lambda: len(reader.messages) == 260, what=reader)
        check_without_kafka(server, message_events(reader))
        kafka_broker.start()
        publish(device, 260, 60, topics)
        eventually(lambda: "directly again" in server.stderr_text, 30, "the spool to be empty")
        publish(device, 320, 60, topics)
        eventually(lambda: len(reader.messages) == 380, what=reader)
        events = message_events(reader)
        assert Counter(identity(event.json) for event in events).total() == len({identity(e.json) for e in events})
        check_cursors(server, ALL[:2], events, chosen_of(events, 12))
        device.close()
        server.restart()
        check_cursors(server, ALL[:2], events, chosen_of(events, 8))
        server.kill()
        kafka_broker.restart()
        server.start()
        check_cursors(server, ALL[:2], events, chosen_of(events, 8))


def test_cursor_is_exact_when_leaders_change(kafka_cluster: KafkaCluster, tmp_path: Path) -> None:
    topics = [f"sensors/{number}" for number in range(9)]
    with (
        KafkaServer(tmp_path / "data", kafka_cluster.bootstrap_servers, stream=", replication = 3") as server,
        SseReader(server.http_url, KAFKA_ONLY) as reader,
        RawClient(server.mqtt_port) as device,
    ):
        device.connect()
        publish(device, 0, 90, topics)
        leader = kafka_cluster.leader_of(server.topic)
        leader.kill()
        publish(device, 90, 90, topics)
        eventually(lambda: server.waits_in_spool() == 0, 40, "the spool to be empty")
        eventually(lambda: len(reader.messages) == 180, 20, reader)
        check_cursors(server, KAFKA_ONLY, message_events(reader), chosen_of(message_events(reader), 6))
        leader.start()
        kafka_cluster.leader_of(server.topic, 1).kill()
        publish(device, 180, 90, topics)
        eventually(lambda: server.waits_in_spool() == 0, 40, "the spool to be empty")
        eventually(lambda: len(reader.messages) == 270, 20, reader)
        check_cursors(server, KAFKA_ONLY, message_events(reader), chosen_of(message_events(reader), 6))


def test_cursor_over_storages_after_a_restart(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Kafka and disk go on exactly; memory begins anew and says so."""
    topics = ["sensors/1", "plain/1", "passing/1"]
    server = KafkaServer(tmp_path / "data", kafka.bootstrap_servers, more=MEMORY)
    with server, SseReader(server.http_url, ALL) as reader:
        with RawClient(server.mqtt_port) as device:
            device.connect()
            publish(device, 0, 30, topics)
            eventually(lambda: len(reader.messages) == 30, what=reader)
        events = message_events(reader)
        reader.stop()
        check_cursors(server, ALL, events, [3, 10, 17])
        server.restart()
        with RawClient(server.mqtt_port) as device:
            device.connect()
            publish(device, 30, 3, topics)
        with SseReader(server.http_url, [*ALL, ("cursor", events[14].event_id)]) as resumed:
            kept = [event for event in events[15:] if not event.json["topic"].startswith("passing")]
            eventually(lambda: len(resumed.messages) >= len(kept) + 3, what=resumed)
            expected = Counter(
                [*(identity(event.json) for event in kept), *((topics[n % 3], n) for n in range(30, 33))]
            )
            assert Counter(map(identity, resumed.messages)) == expected
            gaps = [event.json for event in resumed.events if event.name == "gap"]
            assert [gap["reason"] for gap in gaps] == ["epoch"]


def test_cursor_that_comes_while_kafka_is_away_since_the_start_waits_for_it(
    kafka_broker: KafkaBroker, tmp_path: Path
) -> None:
    """The server does not know yet where Kafka's records begin: that is no reason to call any of them lost."""
    with KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers, partitions=1) as server:
        with SseReader(server.http_url, KAFKA_ONLY) as reader, RawClient(server.mqtt_port) as device:
            device.connect()
            publish(device, 0, 10, ["sensors/1"])
            eventually(lambda: len(reader.messages) == 10, what=reader)
        server.terminate()
        kafka_broker.stop()
        server.start()
        with SseReader(server.http_url, [*KAFKA_ONLY, ("cursor", message_events(reader)[2].event_id)]) as resumed:
            with RawClient(server.mqtt_port) as device:
                device.connect()
                publish(device, 10, 1, ["sensors/1"])
            kafka_broker.start()
            eventually(lambda: len(resumed.messages) == 8, 30, resumed)
            assert sorted(message["payload"] for message in resumed.messages) == list(range(3, 11))
            assert not [event.json for event in resumed.events if event.name == "gap"]


def test_what_is_spooled_waits_for_what_a_reader_has_not_got_from_kafka(
    kafka_broker: KafkaBroker, tmp_path: Path
) -> None:
    """Else a key would be out of order; who has all of Kafka waits for nothing."""
    with KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers, partitions=1) as server:
        with SseReader(server.http_url, KAFKA_ONLY) as reader, RawClient(server.mqtt_port) as device:
            device.connect()
            publish(device, 0, 10, ["sensors/1"])
            wait_for_messages(reader, 10)
            kafka_broker.kill()
            publish(device, 10, 5, ["sensors/1"])
            wait_for_messages(reader, 15)
        records = f"{server.http_url}/api/v1/streams/telemetry/records"
        with (
            SseReader(server.http_url, [*KAFKA_ONLY, ("cursor", message_events(reader)[2].event_id)]) as behind,
            SseReader(server.http_url, [*KAFKA_ONLY, ("cursor", message_events(reader)[11].event_id)]) as ahead,
        ):
            wait_for_messages(ahead, 3)
            newest = httpx.get(records, params={"order": "desc", "limit": 5}, timeout=20)
            assert [each["payload"] for each in newest.json()["records"]] == [14, 13, 12, 11, 10]
            assert httpx.get(records, params={"order": "asc"}, timeout=20).status_code == 503
            throughout(lambda: not behind.messages, 1.5, "nothing before what is in Kafka")
            kafka_broker.start()
            wait_for_messages(behind, 12)
            assert [message["payload"] for message in behind.messages] == list(range(3, 15))
            assert [message["payload"] for message in ahead.messages] == [12, 13, 14]
            assert not [event for event in behind.events if event.name == "gap"]
        assert [record["payload"] for record in server.history(order="asc")] == list(range(15))


def test_cursor_beyond_the_end_is_told_and_goes_live(kafka: KafkaBroker, tmp_path: Path) -> None:
    with (
        KafkaServer(tmp_path / "data", kafka.bootstrap_servers, partitions=1) as server,
        RawClient(server.mqtt_port) as device,
    ):
        device.connect()
        with SseReader(server.http_url, KAFKA_ONLY) as reader:
            publish(device, 0, 3, ["sensors/1"])
            eventually(lambda: len(reader.messages) == 3, what=reader)
        beyond = reader.last_event_id.replace("~0.3~", "~0.4000~")
        assert beyond != reader.last_event_id
        with SseReader(server.http_url, [*KAFKA_ONLY, ("cursor", beyond)]) as resumed:
            eventually(lambda: any(event.name == "live" for event in list(resumed.events)), what=resumed)
            publish(device, 3, 2, ["sensors/1"])
            eventually(lambda: len(resumed.messages) == 2, what=resumed)
            gaps = [event.json for event in resumed.events if event.name == "gap"]
            assert [(gap["reason"], gap["lost"]) for gap in gaps] == [("unknown", None)]
            assert [message["payload"] for message in resumed.messages] == [3, 4]


def test_cursor_of_a_topic_that_was_made_anew_ends_in_a_gap(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Whether this server saw that or was down meanwhile."""
    headers = (("mqtt.topic", b"sensors/1"),)
    server = KafkaServer(tmp_path / "data", kafka.bootstrap_servers, partitions=1, stream=", create = false")
    blocking(kafka.client.create_topic(server.topic))
    with server:
        with SseReader(server.http_url, KAFKA_ONLY) as reader:
            blocking(kafka.client.produce(server.topic, [KafkaRecord(b"%d" % n, headers=headers) for n in range(5)]))
            eventually(lambda: len(reader.messages) == 5, what=reader)
        server.terminate()
        blocking(kafka.client.delete_topic(server.topic))
        blocking(kafka.client.create_topic(server.topic))
        blocking(kafka.client.produce(server.topic, [KafkaRecord(b"%d" % n, headers=headers) for n in range(10, 20)]))
        server.start()
        for cursor in (message_events(reader)[1].event_id, reader.last_event_id):
            with SseReader(server.http_url, [*KAFKA_ONLY, ("cursor", cursor)]) as resumed:
                eventually(lambda: len(resumed.messages) == 10, what=resumed)
                names = [event.name for event in resumed.events if event.name in ("message", "gap")]
                assert names == ["gap", *["message"] * 10]
                gap = next(event.json for event in resumed.events if event.name == "gap")
                assert (gap["reason"], gap["lost"]) == ("epoch", None)
                assert [message["payload"] for message in resumed.messages] == list(range(10, 20))


def test_cursor_from_before_partitions_were_added_has_them_from_their_start(kafka: KafkaBroker, tmp_path: Path) -> None:
    headers = (("mqtt.topic", b"sensors/1"),)
    with KafkaServer(tmp_path / "data", kafka.bootstrap_servers, partitions=1) as server:
        client = kafka.client
        with SseReader(server.http_url, KAFKA_ONLY) as reader:
            blocking(client.produce(server.topic, [KafkaRecord(b"0", headers=headers, partition=0)]))
            eventually(lambda: len(reader.messages) == 1, what=reader)
        blocking(client.add_partitions(server.topic, 3))
        blocking(client.produce(server.topic, [KafkaRecord(b"%d" % n, headers=headers, partition=n) for n in (1, 2)]))
        eventually(lambda: [each["next_offset"] for each in server.describe()["partitions"]] == [1, 1, 1], 20, "all")
        for _ in range(2):
            with SseReader(server.http_url, [*KAFKA_ONLY, ("cursor", reader.last_event_id)]) as resumed:
                eventually(lambda: len(resumed.messages) >= 2, what=resumed)
                assert sorted(message["payload"] for message in resumed.messages) == [1, 2]
                assert not [event.json for event in resumed.events if event.name == "gap"]
            server.restart()


def test_reader_that_is_behind_when_partitions_are_added_gets_all_of_them_once(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    headers = (("mqtt.topic", b"sensors/1"),)

    def produce(numbers: range, partition: int) -> None:
        given = [KafkaRecord(b"%d%2000s" % (n, b""), headers=headers, partition=partition) for n in numbers]
        blocking(kafka.client.produce(server.topic, given))

    with (
        KafkaServer(tmp_path / "data", kafka.bootstrap_servers, partitions=1) as server,
        socket.create_connection(("127.0.0.1", server.http_port)) as slow,
        SseReader(server.http_url, KAFKA_ONLY) as quick,
    ):
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        slow.sendall(b"GET /api/v1/events?topic=sensors/%23 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
        for first in range(0, 6_000, 1_000):
            produce(range(first, first + 1_000), 0)
        eventually(lambda: len(quick.messages) == 6_000, 60, quick)
        blocking(kafka.client.add_partitions(server.topic, 2))
        produce(range(6_000, 6_100), 1)
        produce(range(6_100, 6_200), 0)
        eventually(lambda: len(quick.messages) == 6_200, 30, quick)
        numbers: list[int] = []
        slow.settimeout(30)
        for event in parse_events(slow.makefile("rb")):  # type: ignore[arg-type]  # chunks' sizes are no fields
            assert event.name != "gap"
            if event.name == "message":
                numbers.append(int(str(event.json["payload"])))
            if len(numbers) == 6_200:
                produce(range(6_200, 6_201), 1)
            if len(numbers) >= 6_201:
                break
        assert sorted(numbers) == list(range(6_201))


def let_go_of_moved_rows(data_dir: Path) -> None:
    """As the server does half a minute after the drain."""
    with closing(sqlite3.connect(data_dir / FILE_NAME)) as connection, connection:
        ((stream_id,),) = connection.execute("SELECT id FROM stream WHERE name = 'spool:telemetry'").fetchall()
        connection.execute(
            f"UPDATE stream SET next_offset = (SELECT max(base + count) FROM batch_{stream_id}) WHERE id = {stream_id}"
        )
        for table in ("batch", "chunk"):
            connection.execute(f"DELETE FROM {table}_{stream_id}")


def test_descending_pages_lose_nothing_across_a_drain(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    """What a page had still before it in the spool stands in Kafka by then, beyond the page's place there."""
    with KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers, partitions=2) as server:
        eventually(lambda: server.describe()["kafka"]["state"] == "up", 20, "the topic")

        def send(first: int, last: int) -> None:
            with RawClient(server.mqtt_port) as device:
                device.connect()
                for number in range(first, last):
                    device.publish_acknowledged(f"sensors/{number % 5}", b"%d" % number)

        def page(**query: object) -> dict[str, Any]:
            given = {"order": "desc", "limit": 5, **query}
            url = f"{server.http_url}/api/v1/streams/telemetry/records"
            answer = httpx.get(url, params=given, timeout=20)  # type: ignore[arg-type]
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found

        send(0, 20)
        eventually(lambda: len(server.history()) == 20, 20, "what is in Kafka")
        kafka_broker.kill()
        send(20, 40)
        pages = [page()]
        kafka_broker.start()
        eventually(lambda: "directly again" in server.stderr_text, 40, "the spool to be empty")
        send(40, 50)
        server.terminate()
        let_go_of_moved_rows(tmp_path / "data")
        server.start()
        eventually(lambda: server.describe()["kafka"]["state"] == "up", 20, "the topic")
        while not pages[-1]["complete"]:
            pages.append(page(cursor=pages[-1]["cursor"]))
        found = [record["payload"] for each in pages for record in each["records"]]
        assert found[:20] == list(range(39, 19, -1))
        assert sorted(found) == list(range(40))
