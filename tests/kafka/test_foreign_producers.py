"""Records that other programs write into a stream's topic: live, in history and among the topics, or counted."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from bridge.streams.kafka.batches import CRC_END
from tests.kafka.streams import KafkaServer, described, kafka_table, stream_table
from tests.support.conditions import eventually
from tests.support.http_client import SseReader, metrics, records
from tests.support.kafka import KafkaBroker
from tests.support.kafka_client import KafkaRecord, blocking, unique_topic
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess

pytestmark = pytest.mark.slow

TEMPLATE = ', topic_template = "shared/{topic}/{partition}/{key}"'


class SharedServer(ServerProcess):
    """`own`: records that name no topic are left out. `shared`: they get one from a template."""

    def __init__(self, data_directory: Path, kafka: KafkaBroker) -> None:
        self.kafka = kafka
        self.topics = {name: unique_topic(name) for name in ("own", "shared")}
        own = stream_table("own", "own/#", self.topics["own"], 2)
        shared = stream_table("shared", "shared/#", self.topics["shared"], 2, TEMPLATE)
        super().__init__(data_directory, own + shared + kafka_table(kafka.bootstrap_servers))

    def produce(self, stream: str, *given: KafkaRecord, compression: str | None = None) -> list[KafkaRecord]:
        """As another program does it."""
        return blocking(self.kafka.client.produce(self.topics[stream], given, compression=compression))

    def reader(self, topic: str) -> SseReader:
        """A live reader."""
        return SseReader(self.http_url, [("topic", topic)])

    def left_out(self) -> int:
        """Records of `own` that name no topic."""
        count: int = described(self, "own")["kafka"]["left_out"]
        return count


@pytest.fixture(scope="module")
def shared_server(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedServer]:
    """One server for this module; use topics of your own in it."""
    with SharedServer(tmp_path_factory.mktemp("foreign") / "data", kafka) as server:
        for stream in server.topics:
            eventually(lambda stream=stream: described(server, stream)["kafka"]["state"] == "up", 20, stream)  # type: ignore[misc]
        yield server


def named(topic: str, value: bytes | None, *headers: tuple[str, bytes | None], **fields: Any) -> KafkaRecord:
    """A record that says its MQTT topic."""
    return KafkaRecord(value, headers=(("mqtt.topic", topic.encode()), *headers), **{"partition": 0, **fields})


def test_topic_alone_is_enough(shared_server: SharedServer) -> None:
    with shared_server.reader("own/least") as reader:
        (written,) = shared_server.produce("own", named("own/least", b'{"t": 1}', timestamp_ms=1_790_000_000_123))
        eventually(lambda: len(reader.messages) == 1, what=reader)
    epoch = described(shared_server, "own")["epoch"]
    assert reader.messages == [
        {
            "topic": "own/least",
            "payload": {"t": 1},
            "encoding": "json",
            "qos": 0,
            "retain": False,
            "time": "2026-09-21T14:13:20.123Z",
            "id": f"k0-{written.offset}",
            "client_id": "",
            "stream": "own",
            "epoch": epoch,
            "partition": 0,
            "offset": written.offset,
        }
    ]
    assert records(shared_server.http_url, "own", topic="own/least") == reader.messages


def test_all_headers_are_read(shared_server: SharedServer) -> None:
    headers = (
        ("mqtt.qos", b"2"),
        ("mqtt.retain", b"1"),
        ("mqtt.client_id", "gerät".encode()),
        ("mqtt.id", b"edge-7-41"),
        ("mqtt.time", b"1"),
        ("mqtt.content_type", b"text/plain"),
        ("mqtt.response_topic", b"a/b"),
        ("mqtt.correlation_data", b"\x00\xff"),
        ("mqtt.message_expiry_interval", b"60"),
        ("mqtt.payload_format_indicator", b"1"),
        ("mqtt.user.b", b"1"),
        ("trace-id", b"\x00\x01"),
        ("mqtt.user.a", "ü".encode()),
        ("mqtt.user.b", b"2"),
    )
    with shared_server.reader("own/all") as reader:
        shared_server.produce("own", named("own/all", "größer".encode(), *headers))
        eventually(lambda: len(reader.messages) == 1, what=reader)
    (message,) = reader.messages
    assert (message["payload"], message["encoding"], message["qos"], message["retain"]) == ("größer", "text", 2, True)
    assert (message["client_id"], message["id"]) == ("gerät", "edge-7-41")
    assert message["properties"] == {
        "content_type": "text/plain",
        "response_topic": "a/b",
        "correlation_data": "AP8=",
        "message_expiry_interval": 60,
        "payload_format_indicator": 1,
        "user_properties": [["b", "1"], ["a", "ü"], ["b", "2"]],
    }
    assert records(shared_server.http_url, "own", topic="own/all") == [message]


def test_headers_in_another_order_and_with_copies_are_read(shared_server: SharedServer) -> None:
    """The first of a name counts, wherever it stands."""
    given = KafkaRecord(
        b"1",
        headers=(("mqtt.qos", b"1"), ("mqtt.topic", b"own/order"), ("mqtt.qos", b"2"), ("mqtt.topic", b"own/other")),
        partition=1,
    )
    with shared_server.reader("own/+") as reader:
        shared_server.produce("own", given)
        eventually(lambda: len(reader.messages) == 1, what=reader)
    assert [(message["topic"], message["qos"]) for message in reader.messages] == [("own/order", 1)]


@pytest.mark.parametrize(
    ("name", "headers"),
    [
        ("no header at all", ()),
        ("another program's headers", (("trace", b"1"),)),
        ("a wildcard", (("mqtt.topic", b"own/#"),)),
        ("an empty topic", (("mqtt.topic", b""),)),
        ("no topic in the header", (("mqtt.topic", None),)),
        ("a NUL", (("mqtt.topic", b"own/\x00"),)),
        ("not UTF-8", (("mqtt.topic", b"own/\xff"),)),
        ("too long", (("mqtt.topic", b"x" * 65_536),)),
        ("a QoS that is none", (("mqtt.topic", b"own/x"), ("mqtt.qos", b"3"))),
        ("a client that is too long", (("mqtt.topic", b"own/x"), ("mqtt.client_id", b"c" * 70_000))),
        ("a client with a NUL", (("mqtt.topic", b"own/x"), ("mqtt.client_id", b"a\0b"))),
        ("a client that is not UTF-8", (("mqtt.topic", b"own/x"), ("mqtt.client_id", b"\xff"))),
        ("a response topic with a wildcard", (("mqtt.topic", b"own/x"), ("mqtt.response_topic", b"own/+"))),
        ("an expiry that is no number", (("mqtt.topic", b"own/x"), ("mqtt.message_expiry_interval", b"soon"))),
    ],
)
def test_what_is_no_message_is_left_out_and_counted(
    shared_server: SharedServer, name: str, headers: tuple[tuple[str, bytes | None], ...]
) -> None:
    before = shared_server.left_out()
    with shared_server.reader("own/#") as reader:
        shared_server.produce(
            "own",
            named("own/before", b"1"),
            KafkaRecord(b"left out", headers=headers, partition=0),
            named("own/after", b"2"),
        )
        eventually(lambda: len(reader.messages) == 2, what=reader)
        assert [message["topic"] for message in reader.messages] == ["own/before", "own/after"]
    assert shared_server.left_out() == before + 1
    assert metrics(shared_server.http_url)['headrace_kafka_left_out_total{stream="own"}'] == before + 1
    # History does not have it either, and a cursor before it goes past it.
    assert not [record for record in records(shared_server.http_url, "own") if record["payload"] == "left out"]
    with SseReader(shared_server.http_url, [("topic", "own/#"), ("cursor", reader.events[-2].event_id)]) as resumed:
        eventually(lambda: len(resumed.messages) == 1, what=resumed)
        assert resumed.messages[0]["topic"] == "own/after"


def test_a_header_whose_name_is_no_text_disturbs_nothing(shared_server: SharedServer) -> None:
    """Kafka takes any bytes for it."""
    client, topic = shared_server.kafka.client, shared_server.topics["own"]
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 10_000)
    for number in range(3):
        headers = [("mqtt.topic", b"own/odd"), *([("an odd name", b"x")] if number == 1 else [])]
        builder.append(number, time.time_ns() // 1_000_000, None, b"%d" % number, headers)
    batch = bytearray(bytes(builder.build()).replace(b"an odd name", b"an \xf6\xdfd name"))
    batch[CRC_END - 4 : CRC_END] = calc_crc32c(bytes(batch[CRC_END:])).to_bytes(4, "big")

    async def write() -> None:
        kafka_client = AIOKafkaClient(bootstrap_servers=client.bootstrap_servers)
        await kafka_client.bootstrap()
        try:
            (node,) = [broker.nodeId for broker in kafka_client.cluster.brokers()]
            await kafka_client.send(node, ProduceRequest(None, 1, 5_000, [(topic, [(0, bytes(batch))])]))
        finally:
            await kafka_client.close()

    with shared_server.reader("own/odd") as reader:
        blocking(write())
        shared_server.produce("own", named("own/odd", b"3"))
        eventually(lambda: len(reader.messages) == 4, what=reader)
        assert [message["payload"] for message in reader.messages] == [0, 1, 2, 3]
    assert records(shared_server.http_url, "own", topic="own/odd") == reader.messages


def test_template_makes_topics_of_partition_and_key(shared_server: SharedServer) -> None:
    with shared_server.reader("shared/#") as reader:
        shared_server.produce(
            "shared",
            KafkaRecord(b"1", key=b"k", partition=1),
            KafkaRecord(b"2", key=b"a/b", partition=1),
            KafkaRecord(b"3", partition=1),
            KafkaRecord(b"4", key=b"\xff", partition=1),
            KafkaRecord(b"5", key=b"#", partition=1),
            named("shared/named", b"6", partition=1, key=b"k"),
        )
        eventually(lambda: len(reader.messages) == 5, what=reader)
    head = f"shared/{shared_server.topics['shared']}/1/"
    assert [(message["topic"], message["payload"]) for message in reader.messages] == [
        (f"{head}k", 1),
        (f"{head}a/b", 2),
        (head, 3),
        (f"{head}\ufffd", 4),
        ("shared/named", 6),
    ]
    assert records(shared_server.http_url, "shared") == reader.messages
    assert described(shared_server, "shared")["kafka"]["left_out"] == 1


def test_null_values_are_shown_as_such(shared_server: SharedServer) -> None:
    url = shared_server.http_url
    with shared_server.reader("own/null/#") as reader:
        shared_server.produce(
            "own",
            named("own/null/a", b"1"),
            named("own/null/a", None, key=b"k"),
            named("own/null/b", b""),
            named("own/null/c", None, key=b"k"),
        )
        eventually(lambda: len(reader.messages) == 4, what=reader)
    expected = [
        ("own/null/a", 1, "json"),
        ("own/null/a", None, "null"),
        ("own/null/b", "", "text"),
        ("own/null/c", None, "null"),
    ]
    assert [(each["topic"], each["payload"], each["encoding"]) for each in reader.messages] == expected
    history = records(url, "own", topic="own/null/#")
    assert history == reader.messages
    answer = httpx.get(f"{url}/api/v1/streams/own/records", params={"topic": "own/null/#", "format": "csv"}, timeout=20)
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["topic"], row["payload"], row["encoding"]) for row in rows] == [
        ("own/null/a", "1", "json"),
        ("own/null/a", "", "null"),
        ("own/null/b", "", "text"),
        ("own/null/c", "", "null"),
    ]

    def latest() -> list[tuple[str, object, str]]:
        topics = httpx.get(f"{url}/api/v1/topics", params={"topic": "own/null/#"}, timeout=20).json()["topics"]
        return sorted((each["topic"], each["payload"], each["encoding"]) for each in topics)

    eventually(lambda: latest() == sorted(expected[1:]), what=latest)
    with SseReader(url, [("topic", "own/null/#"), ("snapshot", "1")]) as snapshot:
        eventually(lambda: len(snapshot.events) >= 3, what=snapshot)
        found = sorted(
            (each.json["topic"], each.json["encoding"]) for each in snapshot.events if each.name == "snapshot"
        )
    assert found == [("own/null/a", "null"), ("own/null/b", "text"), ("own/null/c", "null")]


@pytest.mark.parametrize(
    ("identity", "shown"),
    [
        (b"n1-7", "n1-7"),
        (b"plant-a.1_x-0", "plant-a.1_x-0"),
        (b"n20261127143000-1", "n20261127143000-1"),
        (b"7", None),
        (b"n1-", None),
        (b"-7", None),
        (b"n1-07", None),
        (b"n1-0", "n1-0"),
        (b"n1-99999999999999999999", None),
        (b"n 1-7", None),
        (b"\xff-7", None),
        (b"x" * 65 + b"-7", None),
        (None, None),
    ],
)
def test_odd_ids_are_replaced_by_the_place(
    shared_server: SharedServer, identity: bytes | None, shown: str | None
) -> None:
    topic = f"own/id/{identity!r}"
    with shared_server.reader("own/id/+") as reader:
        (written,) = shared_server.produce("own", named(topic, b"1", ("mqtt.id", identity), partition=1))
        eventually(lambda: len(reader.messages) == 1, what=reader)
    assert reader.messages[0]["id"] == (shown or f"k1-{written.offset}")


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_batches_are_read(shared_server: SharedServer, compression: str) -> None:
    topic = f"own/compressed/{compression}"
    with shared_server.reader(topic) as reader:
        shared_server.produce("own", *[named(topic, b"%d" % n) for n in range(300)], compression=compression)
        eventually(lambda: len(reader.messages) == 300, what=reader)
    assert [message["payload"] for message in reader.messages] == list(range(300))
    assert records(shared_server.http_url, "own", topic=topic) == reader.messages


def test_aborted_transactions_are_never_shown(shared_server: SharedServer) -> None:
    """What was given up is no message, and markers of transactions are none either."""
    client, topic = shared_server.kafka.client, shared_server.topics["own"]

    async def write() -> None:
        async with client.transaction(topic, [named("own/tx", b"1"), named("own/tx", b"2")], commits=True):
            pass
        async with client.transaction(topic, [named("own/tx", b"-1"), named("own/tx", b"-2")], commits=False):
            await client.produce(topic, [named("own/tx", b"3")])
        async with client.transaction(topic, [named("own/tx", b"4")], commits=True):
            await asyncio.sleep(0)
        await client.produce(topic, [named("own/tx", b"5")])

    with shared_server.reader("own/tx") as reader:
        blocking(write())
        eventually(lambda: len(reader.messages) >= 5, what=reader)
        assert [message["payload"] for message in reader.messages] == [1, 2, 3, 4, 5]
    for order, expected in (("asc", reader.messages), ("desc", reader.messages[::-1])):
        assert records(shared_server.http_url, "own", topic="own/tx", order=order) == expected
    first = next(event.event_id for event in reader.events if event.name == "message")
    with SseReader(shared_server.http_url, [("topic", "own/tx"), ("cursor", first)]) as resumed:
        eventually(lambda: len(resumed.messages) >= 4, what=resumed)
        assert [message["payload"] for message in resumed.messages] == [2, 3, 4, 5]


def test_devices_are_acknowledged_while_a_transaction_is_open_and_shown_behind_it(shared_server: SharedServer) -> None:
    """As every consumer of committed records has it: what stands behind an open transaction comes with its end."""
    client, topic = shared_server.kafka.client, shared_server.topics["own"]
    payloads: list[int] = []

    async def write(port: int) -> None:
        given = [named("own/open", b"%d" % partition, partition=partition) for partition in (0, 1)]
        async with client.transaction(topic, given, commits=True):
            with RawClient(port) as device:
                device.connect()
                device.publish_acknowledged("own/open", b"2")
            payloads.extend(message["payload"] for message in reader.messages)

    with shared_server.reader("own/open") as reader:
        blocking(write(shared_server.mqtt_port))
        eventually(lambda: len(reader.messages) >= 3, what=reader)
        assert payloads == []
        assert sorted(message["payload"] for message in reader.messages) == [0, 1, 2]
    assert len(records(shared_server.http_url, "own", topic="own/open")) == 3


def test_foreign_records_and_ours_share_an_order(shared_server: SharedServer) -> None:
    """In each partition that of Kafka, live and in history."""
    with shared_server.reader("own/both/#") as reader, RawClient(shared_server.mqtt_port) as device:
        device.connect("device")
        for number in range(20):
            device.publish_acknowledged("own/both/mine", b"%d" % number)
            shared_server.produce("own", *[named("own/both/theirs", b"%d" % number, partition=p) for p in (0, 1)])
        eventually(lambda: len(reader.messages) == 60, what=reader)
    messages = reader.messages
    for partition in (0, 1):
        offsets = [message["offset"] for message in messages if message["partition"] == partition]
        assert offsets == sorted(set(offsets))
    mine = [message["payload"] for message in messages if message["topic"] == "own/both/mine"]
    assert mine == list(range(20))
    history = records(shared_server.http_url, "own", topic="own/both/#")
    key = lambda message: (message["partition"], message["offset"])  # noqa: E731
    assert sorted(history, key=key) == sorted(messages, key=key)


def test_times_that_fall_stay_outside_a_range_that_they_are_not_of(kafka: KafkaBroker, tmp_path: Path) -> None:
    """A range begins and ends at the first offset at or after a time; what is in between and of another time is not."""
    began_ms = time.time_ns() // 1_000_000 - 60_000
    times = [0, 10, 5, 12, 20, 8]
    with KafkaServer(tmp_path / "data", kafka.bootstrap_servers, partitions=1) as server:
        late = [named("sensors/a", b"%d" % second, timestamp_ms=began_ms + second * 1_000) for second in times]
        eventually(lambda: server.describe()["kafka"]["state"] == "up", 20, "the topic")
        blocking(kafka.client.produce(server.topic, late))
        eventually(lambda: len(server.history()) == len(times))

        def of_range(first: int, last: int) -> list[int]:
            bounds = {"from": str(began_ms + first * 1_000), "to": str(began_ms + last * 1_000)}
            return [record["payload"] for record in server.history(**bounds)]

        assert of_range(5, 15) == [10, 5, 12]
        assert of_range(6, 11) == [10]
        assert of_range(0, 30) == times
        with SseReader(server.http_url, [("topic", "#"), ("since", str(began_ms + 6_000))]) as reader:
            eventually(lambda: len(reader.messages) == 4, what=reader)
            assert [message["payload"] for message in reader.messages] == [10, 12, 20, 8]
