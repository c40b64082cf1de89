"""`headrace replay` with the real server, real files and real brokers: nothing twice, nothing left out."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pyarrow.parquet
import pytest

from tests.support import mqtt_wire as wire
from tests.support.commands import RunningCommand, headrace
from tests.support.conditions import eventually
from tests.support.faulty_proxy import FaultyProxy
from tests.support.http_client import records
from tests.support.mqtt_client import RawClient
from tests.support.paho_client import PahoClient
from tests.support.server import ServerProcess
from tests.support.small_disk import SmallDisk

PAYLOADS = [
    b'{"temp": 21.50}',
    b"text",
    b'"quoted", text',
    b"two\r\nlines",
    b"",
    b"\xff\xfe\r\n\x00",
    b"1e3",
    b'{"a":\n1}',
]


def publish(server: ServerProcess, rows: list[tuple[str, bytes]], client_id: str = "p") -> None:
    """With QoS 1, acknowledged, in order."""
    with RawClient(server.mqtt_port) as client:
        client.connect(client_id)
        for first in range(0, len(rows), 500):
            part = rows[first : first + 500]
            frames = [wire.publish(topic, payload, 1, number + 1) for number, (topic, payload) in enumerate(part)]
            client.send(b"".join(frames))
            for _ in part:
                client.expect(wire.PUBACK)


def publish_apart(server: ServerProcess, count: int, topic: str = "paced") -> None:
    """Records of different milliseconds."""
    with RawClient(server.mqtt_port) as client:
        client.connect()
        for number in range(count):
            client.publish_acknowledged(topic, b"%d" % number)
            began = time.time_ns() // 1_000_000
            eventually(lambda began=began: time.time_ns() // 1_000_000 > began, interval_s=0.0002)


def slow_speed(server: ServerProcess, stream: str = "default") -> str:
    """A speed at which all records of a stream take ten seconds, however long it took to publish them."""
    times = [datetime.fromisoformat(record["time"]) for record in records(server.http_url, stream)]
    return f"{max((times[-1] - times[0]).total_seconds() / 10, 0.001):.4f}"


def source(server: ServerProcess, door: str) -> list[object]:
    """The options that read a stream of a server through one of the two doors."""
    return ["--data", server.data_directory] if door == "directory" else ["--url", server.http_url]


doors = pytest.mark.parametrize("door", ["directory", "server"])


class TestExport:
    """To files and pipes."""

    @doors
    def test_has_everything_that_was_published_byte_for_byte(
        self, shared_server: ServerProcess, door: str, tmp_path: Path
    ) -> None:
        rows = [(f"exact/{door}/{number}", payload) for number, payload in enumerate(PAYLOADS)]
        publish(shared_server, rows)
        file = tmp_path / "out.csv"
        options = ["--topic", f"exact/{door}/#", "--output", file]
        ended = headrace("replay", "default", *source(shared_server, door), *options)
        assert (ended.returncode, ended.stdout) == (0, "")
        assert ended.stderr.startswith(f"{len(rows)} records, ")
        found = list(csv.DictReader(io.StringIO(file.read_bytes().decode(), newline="")))
        assert [(row["topic"], row["payload"]) for row in found if row["encoding"] != "base64"] == [
            (topic, payload.decode()) for topic, payload in rows if b"\xff" not in payload
        ]
        assert [row["payload"] for row in found if row["encoding"] == "base64"] == ["//4NCgA="]
        assert not file.with_name("out.csv.resume").exists()

    @doors
    def test_to_a_pipe_is_what_the_server_answers(self, shared_server: ServerProcess, door: str) -> None:
        publish(shared_server, [(f"pipe/{door}", payload) for payload in PAYLOADS])
        ended = headrace("replay", "default", *source(shared_server, door), "--topic", f"pipe/{door}")
        assert ended.returncode == 0
        found = [json.loads(line) for line in ended.stdout.splitlines()]
        assert found == records(shared_server.http_url, topic=f"pipe/{door}")
        assert len(found) == len(PAYLOADS)

    @doors
    def test_parquet_file_has_the_same_columns_as_the_csv(
        self, shared_server: ServerProcess, door: str, tmp_path: Path
    ) -> None:
        publish(shared_server, [(f"parquet/{door}", payload) for payload in PAYLOADS])
        file = tmp_path / "out.parquet"
        command = ["replay", "default", *source(shared_server, door), "--topic", f"parquet/{door}"]
        ended = headrace(*command, "--output", file)
        assert ended.returncode == 0, ended.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]
        table = pyarrow.parquet.read_table(file)
        expected = list(csv.DictReader(io.StringIO(headrace(*command, "--format", "csv").stdout, newline="")))
        assert table.column("payload").to_pylist() == PAYLOADS
        for column in ("topic", "encoding", "client_id", "stream", "epoch"):
            assert table.column(column).to_pylist() == [row[column] for row in expected]
        assert table.column("offset").to_pylist() == [int(row["offset"]) for row in expected]

    @doors
    def test_parquet_file_is_whole_or_not_there(self, server: ServerProcess, door: str, tmp_path: Path) -> None:
        publish(server, [("half", os.urandom(2_000)) for _ in range(4_000)])
        with SmallDisk(tmp_path / "small", "4m") as disk:
            file = disk.path / "out.parquet"
            ended = headrace("replay", "default", *source(server, door), "--output", file)
            assert ended.returncode == 1
            assert f"error: cannot write {file}: no space left on device." in ended.stderr
            assert list(disk.path.iterdir()) == []

    @doors
    def test_range_is_that_of_the_times(self, server: ServerProcess, door: str) -> None:
        publish_apart(server, 6)
        times = [record["time"] for record in records(server.http_url)]
        options = ["--from", times[2], "--to", times[5]]
        ended = headrace("replay", "default", *source(server, door), *options)
        assert [json.loads(line)["payload"] for line in ended.stdout.splitlines()] == [2, 3, 4]
        relative = headrace("replay", "default", *source(server, door), "--from", "-15m", "--format", "csv")
        assert len(relative.stdout.splitlines()) == 7

    def test_of_a_stopped_server_is_the_same(self, server: ServerProcess) -> None:
        publish(server, [("stopped", b"%d" % number) for number in range(1_200)])
        expected = headrace("replay", "default", "--data", server.data_directory)
        server.terminate()
        stopped = headrace("replay", "default", "--data", server.data_directory)
        assert (stopped.returncode, stopped.stdout) == (0, expected.stdout)
        assert len(stopped.stdout.splitlines()) == 1_200

    def test_of_a_killed_server_has_what_it_had_acknowledged(self, server: ServerProcess) -> None:
        publish(server, [("killed", b"%d" % number) for number in range(700)])
        server.kill()
        ended = headrace("replay", "default", "--data", server.data_directory)
        assert [json.loads(line)["payload"] for line in ended.stdout.splitlines()] == list(range(700))

    def test_keeps_the_lock_free_and_the_server_writing(self, server: ServerProcess, tmp_path: Path) -> None:
        publish(server, [("before", b"%d" % number) for number in range(3_000)])
        options = ["--output", tmp_path / "out", "--speed", "0.0001"]
        with RunningCommand("replay", "default", "--data", server.data_directory, *options):
            eventually(lambda: (tmp_path / "out").exists() and (tmp_path / "out").stat().st_size > 0)
            publish(server, [("meanwhile", b"%d" % number) for number in range(3_000)])
        assert len(records(server.http_url, topic="meanwhile")) == 3_000

    @doors
    def test_killed_in_the_middle_goes_on_to_the_same_file(
        self, server: ServerProcess, door: str, tmp_path: Path
    ) -> None:
        publish_apart(server, 300)
        whole = headrace("replay", "default", *source(server, door), "--format", "csv").stdout.encode()
        file = tmp_path / "out.csv"
        command = ["replay", "default", *source(server, door), "--output", file, "--resume"]
        for lines in (40, 120):
            with RunningCommand(*command, "--speed", "0.1") as running:
                eventually(
                    lambda lines=lines: file.exists() and file.read_bytes().count(b"\n") > lines,
                    40,
                    "lines in the file",
                )
                running.kill()
            with file.open("ab") as torn:
                torn.write(b'2026-11-22T19:00:00.123Z,"torn')
        publish(server, [("too/late", b"behind --to")])
        ended = headrace(*command)
        assert ended.returncode == 0, ended.stderr
        assert file.read_bytes().decode() == whole.decode().replace("\n", "\r\n")
        again = headrace(*command)
        assert again.returncode == 1
        assert "that export is complete" in again.stderr

    @doors
    def test_ctrl_c_ends_with_130_and_says_how_to_go_on(self, server: ServerProcess, door: str, tmp_path: Path) -> None:
        publish_apart(server, 100)
        file = tmp_path / "out.ndjson"
        command = ["replay", "default", *source(server, door), "--output", file]
        with RunningCommand(*command, "--speed", slow_speed(server)) as running:
            eventually(lambda: file.exists() and file.read_bytes().count(b"\n") > 10, 20)
            running.send(signal.SIGINT)
            assert running.wait() == 130
            assert f"records are in {file}. To go on: the same command with --resume." in running.stderr
            assert "Traceback" not in running.stderr
        assert "was interrupted. To go on: --resume" in headrace(*command).stderr
        assert headrace(*command, "--resume").returncode == 0
        assert [json.loads(line)["payload"] for line in file.read_text().splitlines()] == list(range(100))

    def test_connection_that_breaks_again_and_again_leaves_nothing_out(
        self, server: ServerProcess, tmp_path: Path
    ) -> None:
        publish(server, [("broken", b'"\r\n' + b"%05d" % number + b"x" * 2_000) for number in range(1_500)])
        whole = headrace("replay", "default", "--data", server.data_directory, "--format", "csv")
        file = tmp_path / "out.csv"
        with FaultyProxy(server.http_port) as proxy:
            proxy.slow_down(1_500_000)
            options = ["--url", f"http://127.0.0.1:{proxy.port}", "--output", file]
            with RunningCommand("replay", "default", *options) as running:
                for number in range(3):
                    eventually(lambda number=number: proxy.bytes_to_client > (number + 1) * 500_000, 40)
                    proxy.cut(with_reset=number == 1)
                assert running.wait() == 0, running.stderr
            assert proxy.cuts_total == 3
        assert file.read_bytes().decode().replace("\r\n", "\n") == whole.stdout

    def test_what_retention_dropped_before_going_on_is_told(self, tmp_path: Path) -> None:
        config = '[[streams]]\nname = "small"\ntopics = ["#"]\nretention = { bytes = "300KiB" }\n'
        with ServerProcess(tmp_path / "data", config) as server:
            publish_apart(server, 50)
            file = tmp_path / "out"
            command = ["replay", "small", "--data", server.data_directory, "--output", file]
            with RunningCommand(*command, "--speed", slow_speed(server, "small")) as running:
                eventually(lambda: file.exists() and file.read_bytes().count(b"\n") > 5, 20)
                running.kill()
            publish(server, [("fill", b"x" * 4_000)] * 1_000)
            eventually(lambda: records(server.http_url, "small")[0]["topic"] == "fill")
            ended = headrace(*command, "--resume")
        assert ended.returncode == 0
        assert "records were dropped by retention before they could be read." in ended.stderr


class TestRefusals:
    """What cannot be replayed, and what to do instead."""

    def test_stream_that_is_not_there_names_those_that_are(self, shared_server: ServerProcess) -> None:
        ended = headrace("replay", "telemetry", "--data", shared_server.data_directory)
        assert ended.returncode == 1
        assert 'there is no stream "telemetry"' in ended.stderr
        assert "there are system, default" in ended.stderr
        ended = headrace("replay", "telemetry", "--url", shared_server.http_url)
        assert ended.returncode == 1
        assert "There is no stream 'telemetry'" in ended.stderr

    def test_stream_on_kafka_needs_to_be_told_where(self, server: ServerProcess) -> None:
        server.terminate()
        with sqlite3.connect(server.data_directory / "headrace.sqlite") as connection:
            connection.execute("INSERT INTO stream(id, name, epoch) VALUES (9, 'spool:iot', 's1')")
            for table in ("batch", "chunk"):
                connection.execute(f"CREATE TABLE {table}_9 AS SELECT * FROM {table}_1 LIMIT 0")
        connection.close()
        ended = headrace("replay", "iot", "--data", server.data_directory)
        assert ended.returncode == 1
        assert "stream iot is on Kafka" in ended.stderr
        assert "-c FILE" in ended.stderr
        assert "--url" in ended.stderr

    def test_stream_begun_anew_is_not_gone_on_with(self, tmp_path: Path) -> None:
        config = '[[streams]]\nname = "m"\ntopics = ["#"]\nstorage = "memory"\n'
        with ServerProcess(tmp_path / "data", config) as server:
            publish_apart(server, 50)
            file = tmp_path / "out"
            command = ["replay", "m", "--url", server.http_url, "--output", file]
            with RunningCommand(*command, "--speed", slow_speed(server, "m")) as running:
                eventually(lambda: file.exists() and file.read_bytes().count(b"\n") > 5, 20)
                running.kill()
            server.restart()
            ended = headrace(*command, "--resume")
        assert ended.returncode == 1
        assert "stream m has begun anew since" in ended.stderr

    def test_full_disk_is_told_and_going_on_needs_only_room(self, server: ServerProcess, tmp_path: Path) -> None:
        publish(server, [("full", b"x" * 1_000)] * 3_000)
        with SmallDisk(tmp_path / "small", "4m") as disk:
            file = disk.path / "out"
            (disk.path / "filler").write_bytes(b"x" * 2_000_000)
            command = ["replay", "default", "--data", server.data_directory, "--output", file]
            ended = headrace(*command)
            assert ended.returncode == 1
            assert f"error: cannot write {file}: no space left on device." in ended.stderr
            (disk.path / "filler").unlink()
            assert headrace(*command, "--resume").returncode == 0
            offsets = [json.loads(line)["offset"] for line in file.read_text().splitlines()]
        assert offsets == list(range(3_000))

    def test_device_that_takes_nothing_is_told(self, shared_server: ServerProcess) -> None:
        publish(shared_server, [("full", b"x")])
        ended = headrace("replay", "default", "--data", shared_server.data_directory, "--output", "/dev/full")
        assert ended.returncode == 1
        assert ended.stderr == "error: cannot write /dev/full: no space left on device.\n"


@contextlib.contextmanager
def broker(command: list[str], port: int) -> Iterator[None]:
    """Another broker, as a process."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: _listens(port), 20, what=command[0])
        yield
    finally:
        process.terminate()
        process.wait(10)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port: int = reserved.getsockname()[1]
        return port


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[int]:
    """A Mosquitto of the test's own; its port."""
    program = shutil.which("mosquitto")
    if program is None:
        pytest.skip("mosquitto is not installed")
    port = free_port()
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with broker([program, "-c", str(config)], port):
        yield port


@pytest.fixture
def amqtt(tmp_path: Path) -> Iterator[int]:
    """A broker that knows MQTT 3.1.1 alone; its port."""
    port = free_port()
    config = tmp_path / "amqtt.yaml"
    config.write_text(
        f"listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:{port}\n"
        "plugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin:\n    allow_anonymous: true\n"
    )
    with broker([sys.executable, "-W", "ignore", "-m", "amqtt.scripts.broker_script", "-c", str(config)], port):
        yield port


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


class Listener(PahoClient):
    """Notes when each message came."""

    def __init__(self, port: int, topic_filter: str, version: int = paho.MQTTv5) -> None:
        target = ServerProcess("unused")
        target.mqtt_port = port
        super().__init__(target, version=version)
        self.times: list[float] = []
        self.client.on_message = self._take
        self.subscribe((topic_filter, 1))  # a client shows QoS 2 later than what came behind it

    def _take(self, client: Any, data: Any, message: paho.MQTTMessage) -> None:
        self.times.append(time.monotonic())
        self.messages.append(message)


class TestToMqtt:
    """To Mosquitto and to another Headrace."""

    @doors
    def test_mosquitto_gets_every_message_in_order_with_its_qos_retain_and_properties(
        self, shared_server: ServerProcess, mosquitto: int, door: str
    ) -> None:
        topic = f"again/{door}"
        with RawClient(shared_server.mqtt_port) as client:
            client.connect()
            for number, payload in enumerate(PAYLOADS):
                properties = {wire.CONTENT_TYPE: "x/y", wire.USER_PROPERTY: [("n", str(number)), ("n", "again")]}
                client.publish(topic, payload, number % 3, retain=number == 3, properties=properties)
        eventually(lambda: len(records(shared_server.http_url, topic=topic)) == len(PAYLOADS))
        with Listener(mosquitto, "copy/#") as listener:
            options = ["--topic", topic, "--to-mqtt", f"mqtt://127.0.0.1:{mosquitto}", "--prefix", "copy/"]
            if door == "server":
                options += ["--speed", "max"]
            ended = headrace("replay", "default", *source(shared_server, door), *options)
            assert ended.returncode == 0, ended.stderr
            assert ended.stderr == f"{len(PAYLOADS)} messages to mqtt://127.0.0.1:{mosquitto}\n"
            eventually(lambda: len(listener.messages) >= len(PAYLOADS))
            assert [(name, payload, qos) for name, payload, qos, _ in listener.received] == [
                (f"copy/{topic}", payload, min(number % 3, 1)) for number, payload in enumerate(PAYLOADS)
            ]
            sent = [message.properties.json() for message in listener.messages if message.properties]
            assert [each["ContentType"] for each in sent] == ["x/y"] * len(PAYLOADS)
            assert [each["UserProperty"] for each in sent] == [
                [("n", str(number)), ("n", "again")] for number in range(len(PAYLOADS))
            ]
        with Listener(mosquitto, "copy/#") as late:
            eventually(lambda: late.messages)
            assert late.received == [(f"copy/{topic}", PAYLOADS[3], 0, True)]

    def test_distances_are_those_of_the_records_divided_by_the_speed(
        self, server: ServerProcess, mosquitto: int
    ) -> None:
        """Messages of one burst, then a pause: twice as fast, it is half as long, whatever the machine adds."""
        publish(server, [("burst", b"%d" % number) for number in range(3)])
        time.sleep(3)
        publish(server, [("burst", b"%d" % number) for number in range(3, 6)])
        with Listener(mosquitto, "#") as listener:
            began = time.monotonic()
            options = ["--to-mqtt", f"mqtt://127.0.0.1:{mosquitto}", "--speed", "2"]
            ended = headrace("replay", "default", "--data", server.data_directory, *options)
            assert ended.returncode == 0, ended.stderr
            eventually(lambda: len(listener.messages) == 6)
            pause = listener.times[3] - listener.times[2]
            assert 0.7 <= pause <= time.monotonic() - began
            assert pause > 3 * (listener.times[2] - listener.times[0])
        assert [payload for _, payload, _, _ in listener.received] == [b"%d" % number for number in range(6)]

    @doors
    def test_interrupted_goes_on_with_every_message_exactly_once(
        self, server: ServerProcess, shared_server: ServerProcess, door: str, tmp_path: Path
    ) -> None:
        publish_apart(server, 200, "once")
        prefix = f"{door}-once/"
        state = ["--state", tmp_path / "state"] if door == "server" else []
        command = ["replay", "default", *source(server, door), *state, "--prefix", prefix]
        command += ["--to-mqtt", f"mqtt://127.0.0.1:{shared_server.mqtt_port}", "--resume"]

        def copies() -> list[int]:
            return [record["payload"] for record in records(shared_server.http_url, topic=f"{prefix}#")]

        with RunningCommand(*command, "--speed", "0.1") as running:
            eventually(lambda: len(copies()) > 20, 20)
            running.send(signal.SIGTERM)
            assert running.wait() == 130
            assert "has acknowledged" in running.stderr
            assert "the same command with --resume" in running.stderr
        count = len(copies())
        assert 20 < count < 200
        ended = headrace(*command, "--speed", "max")
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.startswith("200 messages to ")
        assert copies() == list(range(200))
        assert not list(server.data_directory.glob("*.resume"))

    def test_killed_goes_on_and_leaves_nothing_out(self, server: ServerProcess, shared_server: ServerProcess) -> None:
        publish_apart(server, 200, "killed")
        command = ["replay", "default", "--data", server.data_directory, "--prefix", "killed-copy/", "--resume"]
        command += ["--to-mqtt", f"mqtt://127.0.0.1:{shared_server.mqtt_port}"]

        def copies() -> list[int]:
            return [record["payload"] for record in records(shared_server.http_url, topic="killed-copy/#")]

        with RunningCommand(*command, "--speed", slow_speed(server)) as running:
            eventually(lambda: len(copies()) > 40, 30)
            running.kill()
        before = len(copies())
        assert before < 200
        assert headrace(*command, "--speed", "max").returncode == 0
        found = copies()
        assert sorted(set(found)) == list(range(200))
        assert found[before:] == list(range(found[before], 200))
        assert found[before] <= before, "a message was left out"
        assert found[before] > 0, "it began anew"

    def test_broker_that_is_killed_and_comes_back_gets_the_rest(self, server: ServerProcess, tmp_path: Path) -> None:
        publish_apart(server, 150, "crash")
        with ServerProcess(tmp_path / "target") as target:
            options = ["--to-mqtt", f"mqtt://127.0.0.1:{target.mqtt_port}", "--prefix", "x/", "--speed", "0.1"]
            with RunningCommand("replay", "default", "--data", server.data_directory, *options) as running:
                eventually(lambda: len(records(target.http_url, topic="x/#")) > 20, 20)
                target.kill()
                target.start()
                assert running.wait() == 0, running.stderr
            found = [record["payload"] for record in records(target.http_url, topic="x/#")]
        assert list(dict.fromkeys(found)) == list(range(150))

    def test_broker_of_3_1_1_gets_messages_without_properties(self, server: ServerProcess, amqtt: int) -> None:
        with RawClient(server.mqtt_port) as client:
            client.connect()
            client.publish("old", b"1", 1, properties={wire.CONTENT_TYPE: "x/y"})
            client.expect(wire.PUBACK)
        with Listener(amqtt, "old", paho.MQTTv311) as listener:
            options = ["--to-mqtt", f"mqtt://127.0.0.1:{amqtt}"]
            ended = headrace("replay", "default", "--data", server.data_directory, *options)
            assert ended.returncode == 0, ended.stderr
            assert "speaks MQTT 3.1.1, which has no properties" in ended.stderr
            eventually(lambda: listener.messages)
            assert [(topic, payload) for topic, payload, _, _ in listener.received] == [("old", b"1")]

    def test_topics_that_nobody_may_publish_are_left_out_and_told(
        self, shared_server: ServerProcess, tmp_path: Path
    ) -> None:
        config = '[[streams]]\nname = "own"\ntopics = ["$own/#", "plain"]\n'
        with ServerProcess(tmp_path / "data", config) as server:
            publish(server, [("$own/a", b"1"), ("plain", b"2")])
            command = ["replay", "own", "--data", server.data_directory]
            command += ["--to-mqtt", f"mqtt://127.0.0.1:{shared_server.mqtt_port}"]
            ended = headrace(*command)
            assert ended.returncode == 1
            assert "error: 1 messages were left out: their topic begins with $" in ended.stderr
            assert "1 messages to mqtt" in ended.stderr
            assert headrace(*command, "--prefix", "under/").returncode == 0
        assert len(records(shared_server.http_url, topic="under/#")) == 2

    def test_message_larger_than_the_broker_takes_is_left_out_and_told(
        self, server: ServerProcess, tmp_path: Path
    ) -> None:
        publish(server, [("size", b"x" * 5_000), ("size", b"small")])
        with ServerProcess(tmp_path / "target", "[mqtt]\npacket_bytes_max = 2048\n") as target:
            options = ["--to-mqtt", f"mqtt://127.0.0.1:{target.mqtt_port}"]
            ended = headrace("replay", "default", "--data", server.data_directory, *options)
            assert ended.returncode == 1
            assert "takes packets up to 2,048 bytes" in ended.stderr
            assert [record["payload"] for record in records(target.http_url)] == ["small"]

    def test_over_websocket(self, server: ServerProcess, shared_server: ServerProcess) -> None:
        publish(server, [("ws", b"%d" % number) for number in range(600)])
        options = ["--to-mqtt", shared_server.ws_url, "--prefix", "over-", "--speed", "max"]
        ended = headrace("replay", "default", "--data", server.data_directory, *options)
        assert ended.returncode == 0, ended.stderr
        found = records(shared_server.http_url, topic="over-ws")
        assert [record["payload"] for record in found] == list(range(600))

    def test_user_and_password_of_the_url(self, server: ServerProcess, tmp_path: Path) -> None:
        if shutil.which("mosquitto") is None or shutil.which("mosquitto_passwd") is None:
            pytest.skip("mosquitto is not installed")
        publish(server, [("in", b"1")])
        port = free_port()
        subprocess.run(["mosquitto_passwd", "-b", "-c", str(tmp_path / "users"), "anna", "p@ss"], check=True)
        (tmp_path / "users").chmod(0o644)
        tmp_path.chmod(0o755)
        config = tmp_path / "mosquitto.conf"
        config.write_text(f"user root\nlistener {port} 127.0.0.1\npassword_file {tmp_path / 'users'}\n")
        command = ["replay", "default", "--data", server.data_directory, "--to-mqtt"]
        with broker([str(shutil.which("mosquitto")), "-c", str(config)], port):
            refused = headrace(*command, f"mqtt://anna:wrong@127.0.0.1:{port}")
            accepted = headrace(*command, f"mqtt://anna:p%40ss@127.0.0.1:{port}")
        assert refused.returncode == 1
        assert f"error: mqtt://127.0.0.1:{port} refuses the connection: not authorized." in refused.stderr
        assert "wrong" not in refused.stderr
        assert (accepted.returncode, accepted.stderr) == (0, f"1 messages to mqtt://127.0.0.1:{port}\n")

    def test_place_that_cannot_be_kept_is_told_before_anything_is_sent(
        self, server: ServerProcess, shared_server: ServerProcess, tmp_path: Path
    ) -> None:
        publish(server, [("unkept", b"1")])
        options = ["--to-mqtt", f"mqtt://127.0.0.1:{shared_server.mqtt_port}", "--state", tmp_path / "no" / "where"]
        ended = headrace("replay", "default", "--data", server.data_directory, *options)
        assert ended.returncode == 1
        assert "Choose another place: --state FILE." in ended.stderr
        assert records(shared_server.http_url, topic="unkept") == []

    def test_no_broker_is_exit_code_1(self, shared_server: ServerProcess) -> None:
        publish(shared_server, [("nobody", b"1")])
        options = ["--topic", "nobody", "--to-mqtt", "mqtt://127.0.0.1:1"]
        ended = headrace("replay", "default", "--data", shared_server.data_directory, *options)
        assert ended.returncode == 1
        assert "error: no broker answers at mqtt://127.0.0.1:1: connection refused." in ended.stderr
