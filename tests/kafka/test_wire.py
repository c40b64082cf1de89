"""What stands in Kafka of what devices publish, as programs that know nothing of Headrace read it (contract §7)."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest

from tests.kafka.streams import described, kafka_table, stream_table
from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually
from tests.support.kafka import KafkaBroker
from tests.support.kafka_client import KafkaRecord, blocking, unique_topic
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess

pytestmark = pytest.mark.slow

PARTITIONS = 7
KEYS = {
    "plain": "",
    "clients": ', key = "{client_id}"',
    "levels": ', key = "{topic[1]}"',
    "mixed": ', key = "{client_id}:{topic[2]}/{topic[9]}!"',
}
"""By stream and first topic level: what its `kafka` table says of keys."""


class WireServer(ServerProcess):
    """A stream for each way to make keys."""

    def __init__(self, data_directory: Path, kafka: KafkaBroker) -> None:
        self.kafka = kafka
        self.topics = {name: unique_topic(name) for name in KEYS}
        tables = [stream_table(name, f"{name}/#", self.topics[name], PARTITIONS, key) for name, key in KEYS.items()]
        super().__init__(data_directory, "".join(tables) + kafka_table(kafka.bootstrap_servers))

    def read(self, stream: str, topic: str) -> list[KafkaRecord]:
        """Kafka's records of an MQTT topic, in order."""
        found = blocking(self.kafka.client.read_all(self.topics[stream]))
        return [record for record in found if record.header["mqtt.topic"] == topic.encode()]


@pytest.fixture(scope="module")
def wire_server(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WireServer]:
    """One server for this module; use topics of your own in it."""
    with WireServer(tmp_path_factory.mktemp("wire") / "data", kafka) as server:
        for stream in KEYS:
            eventually(lambda stream=stream: described(server, stream)["kafka"]["state"] == "up", 20, stream)  # type: ignore[misc]
        yield server


def test_record_has_key_value_time_and_headers_in_the_order_of_the_contract(wire_server: WireServer) -> None:
    value = bytes(range(256)) * 3
    before_ms = time.time_ns() // 1_000_000
    with RawClient(wire_server.mqtt_port) as client:
        client.connect("gerät-1")
        client.publish(
            "plain/headers/1",
            value,
            1,
            properties={
                wire.CONTENT_TYPE: "image/png",
                wire.RESPONSE_TOPIC: "reply/to/me",
                wire.CORRELATION_DATA: b"\x00\xff7",
                wire.MESSAGE_EXPIRY: 3_600,
                wire.PAYLOAD_FORMAT: 0,
                wire.USER_PROPERTY: [("b", "1"), ("a", "ü"), ("b", "2"), ("", "")],
            },
        )
        client.expect(wire.PUBACK)
    (record,) = wire_server.read("plain", "plain/headers/1")
    assert (record.key, record.value) == (b"plain/headers/1", value)
    assert record.timestamp_ms is not None
    assert before_ms <= record.timestamp_ms <= time.time_ns() // 1_000_000
    identity = record.header["mqtt.id"]
    assert identity is not None
    run, _, number = identity.partition(b"-")
    assert run.isalnum()
    assert number.isdigit()
    assert record.headers == (
        ("mqtt.topic", b"plain/headers/1"),
        ("mqtt.qos", b"1"),
        ("mqtt.retain", b"0"),
        ("mqtt.client_id", "gerät-1".encode()),
        ("mqtt.id", identity),
        ("mqtt.time", b"%d" % record.timestamp_ms),
        ("mqtt.content_type", b"image/png"),
        ("mqtt.response_topic", b"reply/to/me"),
        ("mqtt.correlation_data", b"\x00\xff7"),
        ("mqtt.message_expiry_interval", b"3600"),
        ("mqtt.payload_format_indicator", b"0"),
        ("mqtt.user.b", b"1"),
        ("mqtt.user.a", "ü".encode()),
        ("mqtt.user.b", b"2"),
        ("mqtt.user.", b""),
    )


@pytest.mark.parametrize("version", [wire.V31, wire.V311, wire.V5])
def test_qos_and_retain_are_told(wire_server: WireServer, version: int) -> None:
    topic = f"plain/qos/{version}"
    with RawClient(wire_server.mqtt_port, version) as client:
        client.connect("qos")
        for qos in (0, 1, 2):
            client.publish(topic, b"%d" % qos) if not qos else client.publish_acknowledged(topic, b"%d" % qos, qos)
        client.publish_acknowledged(topic, b"kept", 1, retain=True)
        client.publish_acknowledged(topic, b"", 1, retain=True)
    found = wire_server.read("plain", topic)
    assert [(each.value, each.header["mqtt.qos"], each.header["mqtt.retain"]) for each in found] == [
        (b"0", b"0", b"0"),
        (b"1", b"1", b"0"),
        (b"2", b"2", b"0"),
        (b"kept", b"1", b"1"),
        (b"", b"1", b"1"),
    ]
    assert [len(each.headers) for each in found] == [6] * 5
    numbers = [int((each.header["mqtt.id"] or b"").rpartition(b"-")[2]) for each in found]
    assert numbers == sorted(set(numbers))


def test_keys_are_made_by_the_template(wire_server: WireServer) -> None:
    expected = {
        "clients/a": b"device 1",
        "levels/p7/temp": b"p7",
        "levels": b"",
        "mixed/a/b/c": b"device 1:b/!",
    }
    with RawClient(wire_server.mqtt_port) as client:
        client.connect("device 1")
        for topic in expected:
            client.publish_acknowledged(topic, b"1")
    assert {topic: wire_server.read(topic.partition("/")[0], topic)[0].key for topic in expected} == expected


def test_partition_is_the_one_that_java_chooses(wire_server: WireServer) -> None:
    topics = [f"plain/partition/{number}/{'ä€😀x'[number % 4] * (number % 5)}" for number in range(60)]
    with RawClient(wire_server.mqtt_port) as client:
        client.connect()
        for topic in topics:
            client.publish_acknowledged(topic, b"1")
    ours = {
        record.key: record.partition
        for record in blocking(wire_server.kafka.client.read_all(wire_server.topics["plain"]))
        if (record.key or b"").startswith(b"plain/partition/")
    }
    java_topic = blocking(wire_server.kafka.client.create_topic(partitions=PARTITIONS))
    wire_server.kafka.run_tool(
        "console-producer",
        *("--topic", java_topic, "--reader-property", "parse.key=true", "--reader-property", "key.separator=|"),
        stdin_text="".join(f"{topic}|1\n" for topic in topics),
    )
    javas = {record.key: record.partition for record in blocking(wire_server.kafka.client.read_all(java_topic))}
    assert ours == javas
    assert len(set(ours.values())) == PARTITIONS


def test_kafkas_own_consumer_prints_it(wire_server: WireServer) -> None:
    with RawClient(wire_server.mqtt_port) as client:
        client.connect("probe")
        client.publish("clients/console", b"21.5 \xc2\xb0C", 1, properties={wire.CONTENT_TYPE: "text/plain"})
        client.expect(wire.PUBACK)
    shown = wire_server.kafka.run_tool(
        "console-consumer",
        *("--topic", wire_server.topics["clients"], "--from-beginning", "--timeout-ms", "8000"),
        *[
            argument
            for name in ("timestamp", "partition", "offset", "headers", "key")
            for argument in ("--formatter-property", f"print.{name}=true")
        ],
    )
    (line,) = [line for line in shown.splitlines() if "clients/console" in line]
    (record,) = wire_server.read("clients", "clients/console")
    headers = ",".join(f"{name}:{(value or b'').decode()}" for name, value in record.headers)
    place = f"Partition:{record.partition}\tOffset:{record.offset}"
    assert line == f"CreateTime:{record.timestamp_ms}\t{place}\t{headers}\tprobe\t21.5 °C"


def test_batches_are_idempotent(wire_server: WireServer) -> None:
    """A producer id, and sequence numbers that count every record."""
    with RawClient(wire_server.mqtt_port) as client:
        client.connect()
        for number in range(40):
            client.publish_acknowledged("clients/sequence", b"%d" % number)
    (record, *_) = wire_server.read("clients", "clients/sequence")
    expected = None
    producers = set()
    for producer_id, sequence, count in raw_batches(wire_server, "clients", record.partition or 0):
        assert expected is None or sequence == expected
        expected = sequence + count
        producers.add(producer_id)
    assert len(producers) == 1
    assert min(producers) >= 0


def raw_batches(server: WireServer, stream: str, partition: int) -> list[tuple[int, int, int]]:
    """(producer id, sequence, records) of the batches as they lie in Kafka (KIP-98, record batch v2)."""

    async def fetch() -> bytes:
        client = AIOKafkaClient(bootstrap_servers=server.kafka.bootstrap_servers)
        await client.bootstrap()
        try:
            wanted = [(server.topics[stream], [(partition, 0, 1 << 20)])]
            answer = await client.send(server.kafka.node_id, FetchRequest(100, 1, 1 << 20, 0, wanted))
            return bytes(answer.topics[0][1][0][-1])
        finally:
            await client.close()

    data = blocking(asyncio.wait_for(fetch(), 20))
    found = []
    position = 0
    while position + 61 <= len(data):
        (length,) = struct.unpack_from(">i", data, position + 8)
        producer_id, _, sequence, count = struct.unpack_from(">qhii", data, position + 43)
        found.append((producer_id, sequence, count))
        position += 12 + length
    return found
