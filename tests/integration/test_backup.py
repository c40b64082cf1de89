"""`headrace backup` and `restore` with a real server under load: what was acknowledged before is there, and once."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import mqtt_wire as wire
from tests.support.commands import RunningCommand, headrace
from tests.support.conditions import eventually
from tests.support.http_client import SseReader, records
from tests.support.mqtt_client import ConnectionEnded, RawClient
from tests.support.server import ServerProcess

WINDOW = 200


class Load:
    """Publishes numbers with QoS 1 until it is stopped; `acknowledged` of them are stored."""

    def __init__(self, server: ServerProcess, topic: str) -> None:
        self.acknowledged = 0
        self._topic = topic
        self._client = RawClient(server.mqtt_port)
        self._client.connect()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(ConnectionEnded, OSError):  # the server was killed
            self._publish()

    def _publish(self) -> None:
        sent = 0
        while not self._stopped.is_set() or self.acknowledged < sent:
            if sent - self.acknowledged < WINDOW and not self._stopped.is_set():
                payloads = [json.dumps({"n": number, "pad": "x" * 300}).encode() for number in range(sent, sent + 50)]
                frames = [
                    wire.publish(self._topic, payload, 1, (sent + row) % 60_000 + 1)
                    for row, payload in enumerate(payloads)
                ]
                self._client.send(b"".join(frames))
                sent += 50
            else:
                self._client.expect(wire.PUBACK)
                self.acknowledged += 1

    def stop(self) -> None:
        """Wait for the last acknowledgement."""
        self._stopped.set()
        self._thread.join(20)
        self._client.close()


@pytest.fixture
def load(server: ServerProcess) -> Iterator[Load]:
    running = Load(server, "load")
    yield running
    running.stop()


def test_backup_under_load_has_what_was_acknowledged_before_it_and_nothing_twice(
    server: ServerProcess, load: Load, tmp_path: Path
) -> None:
    eventually(lambda: load.acknowledged > 5_000, 30)
    before = load.acknowledged
    ended = headrace("backup", tmp_path / "copy", "--data", server.data_directory)
    after = load.acknowledged + WINDOW
    assert ended.returncode == 0, ended.stderr
    assert f"To put it back: headrace restore {tmp_path / 'copy'} --data DIR" in ended.stderr
    eventually(lambda: load.acknowledged > after)
    ended = headrace("restore", tmp_path / "copy", "--data", tmp_path / "restored")
    assert ended.returncode == 0, ended.stderr
    with ServerProcess(tmp_path / "restored") as restored:
        found = [record["payload"]["n"] for record in records(restored.http_url, topic="load")]
    assert found == list(range(len(found)))
    assert before <= len(found) <= after


def test_readers_with_a_cursor_from_after_the_backup_get_a_gap_and_then_everything(
    server: ServerProcess, tmp_path: Path
) -> None:
    """The offsets that they have seen are given again, to other records."""

    def publish(*payloads: str) -> None:
        with RawClient(server.mqtt_port) as client:
            client.connect()
            for payload in payloads:
                client.publish_acknowledged("t", payload.encode())

    publish("kept 0", "kept 1")
    assert headrace("backup", tmp_path / "copy", "--data", server.data_directory).returncode == 0
    with SseReader(server.http_url, [("topic", "#"), ("since", "0")]) as reader:
        publish("lost 2", "lost 3")
        eventually(lambda: [each["payload"] for each in reader.messages[-2:]] == ["lost 2", "lost 3"])
        server.terminate()
        ended = headrace("restore", tmp_path / "copy", "--data", server.data_directory, "--force")
        assert ended.returncode == 0, ended.stderr
        seen = len(reader.events)
        server.start()
        publish("new 2", "new 3", "new 4")
        eventually(lambda: reader.messages[-1]["payload"] == "new 4", what=str(reader))
        since = reader.events[seen:]
    gaps = [event.json for event in since if event.name == "gap"]
    assert [gap["reason"] for gap in gaps] == ["epoch"]
    names = [event.name for event in since if event.name in ("gap", "message")]
    assert names.index("gap") < names.index("message")
    expected = ["kept 0", "kept 1", "new 2", "new 3", "new 4"]
    assert [event.json["payload"] for event in since if event.name == "message"] == expected
    identities = [event.json["id"] for event in reader.events if event.name == "message"]
    assert len(set(identities)) == 2 + 2 + 3, "a record id was given twice"


def test_backup_of_a_killed_server_has_what_it_had_acknowledged(server: ServerProcess, tmp_path: Path) -> None:
    load = Load(server, "killed")
    eventually(lambda: load.acknowledged > 1_000)
    server.kill()
    load.stop()
    assert headrace("backup", tmp_path / "copy", "--data", server.data_directory).returncode == 0
    assert headrace("restore", tmp_path / "copy", "--data", tmp_path / "restored").returncode == 0
    with ServerProcess(tmp_path / "restored") as restored:
        found = [record["payload"]["n"] for record in records(restored.http_url, topic="killed")]
    assert found == list(range(len(found)))
    assert len(found) >= load.acknowledged


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_backup_that_is_broken_off_leaves_no_file_under_its_name(
    server: ServerProcess, load: Load, tmp_path: Path, number: signal.Signals
) -> None:
    eventually(lambda: load.acknowledged > 20_000, 40)
    load.stop()
    for attempt in range(5):  # a quick one may be complete before the signal comes
        copy = tmp_path / f"copy-{attempt}"
        with RunningCommand("backup", copy, "--data", server.data_directory) as running:
            eventually(lambda copy=copy: list(tmp_path.glob(f"{copy.name}*")), interval_s=0.001)
            running.send(number)
            code = running.wait()
        if code != 0:
            break
    assert code == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert not copy.exists()
    assert headrace("backup", copy, "--data", server.data_directory).returncode == 0
    assert [path.name for path in tmp_path.glob(f"{copy.name}*")] == [copy.name]


def test_restore_into_the_directory_of_a_running_server_is_refused(server: ServerProcess, tmp_path: Path) -> None:
    assert headrace("backup", tmp_path / "copy", "--data", server.data_directory).returncode == 0
    ended = headrace("restore", tmp_path / "copy", "--data", server.data_directory, "--force")
    assert ended.returncode == 1
    assert f"is in use by headrace (pid {server.pid}, since " in ended.stderr


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    ended = headrace("backup", tmp_path / "copy", "--data", tmp_path)
    assert (ended.returncode, ended.stderr) == (
        1,
        f"error: there is no headrace.sqlite in {tmp_path}. Another directory: --data DIR\n",
    )
    ended = headrace("restore", tmp_path / "copy", "--data", tmp_path)
    assert (ended.returncode, ended.stderr) == (1, f"error: there is no file {tmp_path / 'copy'}.\n")
    assert headrace("backup").returncode == 2
