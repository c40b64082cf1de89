"""History of a Kafka stream through every question that there is, over its partitions."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet

from tests.kafka.streams import KafkaServer
from tests.support.conditions import eventually
from tests.support.http_client import SseReader
from tests.support.kafka import KafkaBroker
from tests.support.mqtt_client import RawClient


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def ask(server: KafkaServer, path: str, **query: object) -> Any:
    answer = httpx.get(f"{server.http_url}/api/v1/{path}", params=query, timeout=20)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return answer


def test_every_question_is_answered_over_all_partitions(kafka: KafkaBroker, tmp_path: Path) -> None:
    with KafkaServer(tmp_path / "data", kafka.bootstrap_servers) as server:
        client = RawClient(server.mqtt_port)
        client.connect("p1")
        begun = now_ms()
        for number in range(30):
            client.publish_acknowledged(f"sensors/{number % 5}", b'{"n":%d}' % number)
        middle = now_ms() + 1
        eventually(lambda: now_ms() > middle, 5, "another millisecond")
        for number in range(30, 40):
            client.publish_acknowledged(f"sensors/{number % 5}", b'{"n":%d}' % number)
        client.close()
        eventually(lambda: len(server.history()) == 40, 20, "all records")

        histogram = ask(server, "histogram", topic="sensors/#", to=now_ms() + 1, buckets=2, **{"from": begun}).json()
        assert sum(bucket["count"] for bucket in histogram["buckets"]) == 40
        assert histogram["complete"] is True
        early = ask(server, "histogram", topic="sensors/3", to=middle, buckets=1, **{"from": begun}).json()
        assert [bucket["count"] for bucket in early["buckets"]] == [6]

        series = ask(server, "series", topic="sensors/+", field="/n", points=1, **{"from": "-1h"}).json()
        assert (series["min"], series["max"], series["count"]) == ([0], [39], [40])

        state = ask(server, "topics", topic="sensors/#", at=middle - 1).json()
        assert {each["topic"]: each["payload"]["n"] for each in state["topics"]} == {
            f"sensors/{number % 5}": number for number in range(25, 30)
        }
        assert state["complete"] is True

        file = ask(server, "streams/telemetry/records", format="parquet").content
        rows = pyarrow.parquet.ParquetFile(io.BytesIO(file)).read().to_pylist()
        assert sorted(row["payload"] for row in rows) == sorted(b'{"n":%d}' % number for number in range(40))
        assert len({row["partition"] for row in rows}) > 1
        found = ask(server, "streams/telemetry/records", contains='"n":7}', client_id="p1").json()["records"]
        assert [record["payload"]["n"] for record in found] == [7]
        place = f"{found[0]['partition']}/{found[0]['offset']}"
        assert ask(server, f"streams/telemetry/records/{place}").json() == found[0]
        assert ask(server, f"streams/telemetry/records/{place}", raw=1).content == b'{"n":7}'


def test_replay_keeps_the_order_of_time_over_partitions_and_ends(kafka: KafkaBroker, tmp_path: Path) -> None:
    with KafkaServer(tmp_path / "data", kafka.bootstrap_servers) as server:
        client = RawClient(server.mqtt_port)
        client.connect("p1")
        for number in range(20):
            before = now_ms()
            client.publish_acknowledged(f"sensors/{number % 5}", b"%d" % number)
            eventually(lambda before=before: now_ms() > before + 1, 5, "another millisecond")  # type: ignore[misc]
        client.close()
        end = now_ms() + 1
        eventually(lambda: len(server.history()) == 20 and now_ms() > end, 20, "all records")
        for speed in ("max", "100000"):
            query = [("topic", "sensors/#"), ("since", "-1h"), ("until", str(end)), ("speed", speed)]
            with SseReader(server.http_url, query) as reader:
                eventually(lambda: 204 in reader.statuses, 20, "the end, and nothing after it")
            assert [event.json["payload"] for event in reader.events if event.name == "message"] == list(range(20))
            assert reader.events[-1].name == "end"


def test_one_spooled_record_by_its_place_while_it_waits_and_when_it_has_moved(
    kafka_broker: KafkaBroker, tmp_path: Path
) -> None:
    with KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers) as server:
        eventually(lambda: server.describe()["kafka"]["state"] == "up", 20, "the topic")
        kafka_broker.kill()
        with RawClient(server.mqtt_port) as device:
            device.connect("p1")
            for number in range(20):
                device.publish_acknowledged(f"sensors/{number}", b"%d" % number)
        spooled = server.history()
        assert [record["payload"] for record in spooled] == list(range(20))

        def by_place(record: dict[str, Any], **query: object) -> httpx.Response:
            place = f"streams/telemetry/records/{record['partition']}/{record['offset']}"
            return ask(server, place, epoch=record["epoch"], **query)

        for record in spooled:
            assert by_place(record).json() == record
            assert by_place(record, raw=1).content == b"%d" % record["payload"]
        kafka_broker.start()
        eventually(lambda: "directly again" in server.stderr_text, 40, "the spool to be empty")
        moved = {record["id"]: record for record in server.history()}
        for record in spooled:
            assert by_place(record).json() == moved[record["id"]]
            assert by_place(record, raw=1).content == b"%d" % record["payload"]
            assert moved[record["id"]]["epoch"] != record["epoch"]


def test_counts_and_states_have_what_is_spooled_while_kafka_is_away(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    with (
        KafkaServer(tmp_path / "data", kafka_broker.bootstrap_servers) as server,
        RawClient(server.mqtt_port) as device,
    ):
        device.connect("p1")
        eventually(lambda: server.describe()["kafka"]["state"] == "up", 20, "the topic")
        for number in range(5):
            device.publish_acknowledged(f"sensors/{number}", b"%d" % number)
        eventually(lambda: len(server.history()) == 5, 20, "what is in Kafka")
        kafka_broker.kill()
        for number in range(10, 20):
            device.publish_acknowledged(f"sensors/{number}", b"%d" % number)
        eventually(lambda: server.waits_in_spool() == 10, 20, "the spool")

        def answers(is_complete: bool) -> tuple[int, list[int], list[int]]:
            histogram = ask(server, "histogram", topic="sensors/#", buckets=1, **{"from": "-1h"}).json()
            series = ask(server, "series", topic="sensors/#", points=1, **{"from": "-1h"}).json()
            state = ask(server, "topics", topic="sensors/#", at="now").json()
            assert [each["complete"] for each in (histogram, series, state)] == [is_complete] * 3
            return histogram["buckets"][0]["count"], series["count"], [each["payload"] for each in state["topics"]]

        assert answers(is_complete=False) == (10, [10], list(range(10, 20)))
        kafka_broker.start()
        eventually(lambda: "directly again" in server.stderr_text, 40, "the spool to be empty")
        count, counts, last = answers(is_complete=True)
        assert (count, counts, sorted(last)) == (15, [15], [*range(5), *range(10, 20)])
