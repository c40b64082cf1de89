"""Who reads a Kafka stream from its beginning to its end is given every record once, most of them fetched ahead."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from bridge.history.kafka_reader import KafkaReader
from bridge.history.scan import Scan, StreamScan
from bridge.streams.kafka.readers import KafkaSource
from bridge.streams.kafka.settings import KafkaSettings
from tests.kafka.streams import KafkaServer, described
from tests.support import mqtt_wire as wire
from tests.support.kafka import KafkaBroker
from tests.support.mqtt_client import RawClient

KIB = 1024
PARTITIONS = 3
RECORDS = 1_500
AT_ONCE = 500


@pytest.mark.parametrize(("cache_bytes", "fetches_ahead"), [(1024 * KIB, True), (64 * KIB, False)])
async def test_stretches_are_fetched_before_they_are_needed(
    kafka: KafkaBroker, tmp_path: Path, cache_bytes: int, fetches_ahead: bool
) -> None:
    """What would push out of the cache what is being read is not fetched."""
    with KafkaServer(tmp_path / "data", kafka.bootstrap_servers, partitions=PARTITIONS) as server:
        with RawClient(server.mqtt_port) as client:
            client.connect("p1")
            for first in range(0, RECORDS, AT_ONCE):
                for number in range(first, first + AT_ONCE):
                    client.publish(f"sensors/{number % 10}", b'{"n":%d,"note":"%b"}' % (number, b"x" * 150), qos=1)
                for _ in range(AT_ONCE):
                    client.expect(wire.PUBACK)
        epoch, topic = described(server, "telemetry")["epoch"], server.topic
    end = await kafka.client.end_offsets(topic)
    settings = KafkaSettings(kafka.bootstrap_servers, fetch_partition_bytes_max=16 * KIB, cache_bytes_max=cache_bytes)
    source = KafkaSource("telemetry", topic, epoch, "spool", 1, None, is_up=True)
    reader = KafkaReader(settings, tmp_path)
    what = Scan("telemetry", epoch, ("sensors/#",), 0, 0, "json", records_max=1_000, bytes_max=32 * KIB)
    position = dict.fromkeys(end, 0)
    found: list[int] = []
    try:
        while position != end:
            piece = await reader.scan(source, StreamScan(what, position, end))
            found += [orjson.loads(line)["payload"]["n"] for line in piece.data.splitlines()]
            position = dict(piece.next_offsets)
    finally:
        await reader.close()
    assert sorted(found) == list(range(RECORDS))
    assert (reader.stretches.fetched_ahead > len(end)) is fetches_ahead
