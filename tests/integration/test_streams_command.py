"""`headrace streams …` beside a running server and without one."""

from __future__ import annotations

import asyncio
import json
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.http.test_stream_operations import bury
from tests.support.commands import headrace
from tests.support.conditions import eventually
from tests.support.http_client import records
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess

CONFIG = '[[streams]]\nname = "old"\ntopics = ["old/#"]\n'


def publish(server: ServerProcess, topic: str, count: int) -> None:
    with RawClient(server.mqtt_port) as client:
        client.connect()
        for number in range(count):
            client.publish_acknowledged(topic, b"%d" % number)


@pytest.fixture
def with_leftover(tmp_path: Path) -> ServerProcess:
    """A server on a directory that has a stream of an earlier configuration, with five records."""
    with ServerProcess(tmp_path / "data", CONFIG) as before:
        publish(before, "old/x", 5)
        before.terminate()
    return ServerProcess(tmp_path / "data")


def test_list_beside_a_server_and_without_one(with_leftover: ServerProcess) -> None:
    data = ("--data", with_leftover.data_directory)
    with with_leftover as server:
        publish(server, "a", 3)
        running = headrace("streams", "list", *data)
        by_url = headrace("streams", "list", "--url", server.http_url)
        as_json = json.loads(headrace("streams", "list", *data, "--format", "json").stdout)
        server.terminate()
    stopped = headrace("streams", "list", *data)
    head, system, default, old = running.stdout.splitlines()
    # `system` is told of the stop, and of the publisher.
    assert [head, default, old] == [line for line in stopped.stdout.splitlines() if not line.startswith("system ")]
    assert head.split() == ["name", "storage", "records", "bytes", "oldest", "newest", "retention"]
    assert system.split()[:2] == ["system", "sqlite"]
    assert default.split()[:3] == ["default", "sqlite", "3"]
    assert default.endswith("24 h or 1 GiB")
    assert "of 1 GiB, 0 %" in default
    assert old.split()[:3] == ["old", "sqlite", "5"]
    assert old.endswith("not configured")
    assert [line.split()[0] for line in by_url.stdout.splitlines()] == ["name", "system", "default"]
    assert [stream["records"] for stream in as_json["streams"]][1:] == [3, 5]
    assert [stream["configured"] for stream in as_json["streams"]] == [True, True, False]


def test_describe_says_all_that_is_known(server: ServerProcess) -> None:
    publish(server, "a", 3)
    found = headrace("streams", "describe", "default", "--data", server.data_directory)
    lines = dict(line.split("  ", 1) for line in found.stdout.splitlines())
    assert lines["name"].strip() == "default"
    assert lines["topics"].strip() == "#"
    assert lines["partition 0"].strip() == "offsets 0 to 3"
    ended = headrace("streams", "describe", "nobody", "--data", server.data_directory)
    assert (ended.returncode, ended.stderr) == (1, 'error: there is no stream "nobody"; there are system, default.\n')


@pytest.mark.parametrize("is_running", [True, False])
def test_trim_by_the_server_or_without_one(server: ServerProcess, is_running: bool) -> None:
    publish(server, "a", 10)
    if not is_running:
        server.terminate()
    data = ("--data", server.data_directory)
    ended = headrace("streams", "trim", "default", "--before", "7", "--yes", *data)
    assert (ended.returncode, ended.stderr) == (0, "default: 7 records dropped; it begins with offset 7.\n")
    left = [json.loads(line)["offset"] for line in headrace("replay", "default", *data).stdout.splitlines()]
    assert left == [7, 8, 9]
    ended = headrace("streams", "trim", "default", "--before", "now", "--yes", *data)
    assert ended.stderr == "default: 3 records dropped; it begins with offset 10.\n"
    if not is_running:
        server.start()
    publish(server, "a", 1)
    assert [record["offset"] for record in records(server.http_url)] == [10]


@pytest.mark.parametrize("is_running", [True, False])
def test_delete_by_the_server_or_without_one(with_leftover: ServerProcess, is_running: bool) -> None:
    data = ("--data", with_leftover.data_directory)
    command = ("streams", "delete", "old", "--yes", *data)
    if is_running:
        with with_leftover:
            ended = headrace(*command)
            again = headrace(*command)
    else:
        ended = headrace(*command)
        again = headrace(*command)
    assert ended.returncode == 0, ended.stderr
    assert "old: deleted (5 records, " in ended.stderr
    assert again.returncode == 1
    assert 'there is no stream "old"' in again.stderr
    assert "\nold " not in headrace("streams", "list", *data).stdout
    with ServerProcess(with_leftover.data_directory, CONFIG) as anew:
        assert records(anew.http_url, "old") == []


def test_configured_stream_is_not_deleted(server: ServerProcess) -> None:
    ended = headrace("streams", "delete", "default", "--yes", "--data", server.data_directory)
    assert ended.returncode == 1
    assert "is configured, and devices may write to it" in ended.stderr
    ended = headrace("streams", "delete", "default", "--yes", "--url", server.http_url)
    assert ended.returncode == 1
    assert "is configured, and devices may write to it" in ended.stderr


def test_delete_by_url_of_what_only_the_server_knows(with_leftover: ServerProcess) -> None:
    with with_leftover as server:
        ended = headrace("streams", "delete", "old", "--yes", "--url", server.http_url)
        assert ended.returncode == 0, ended.stderr
        assert "old: deleted (5 records, " in ended.stderr
        ended = headrace("streams", "delete", "old", "--yes", "--url", server.http_url)
        assert ended.returncode == 1
        assert "There is no stream 'old' on disk" in ended.stderr


def test_without_a_terminal_nothing_is_dropped_unasked(server: ServerProcess) -> None:
    publish(server, "a", 2)
    ended = headrace("streams", "trim", "default", "--before", "1", "--data", server.data_directory)
    assert ended.returncode == 2
    assert "Nobody can be asked here: do it with --yes." in ended.stderr
    assert len(records(server.http_url)) == 2


@pytest.mark.parametrize(("answer", "left"), [("n\n", 2), ("y\n", 1)])
def test_on_a_terminal_it_asks(server: ServerProcess, answer: str, left: int) -> None:
    publish(server, "a", 2)
    ours, theirs = pty.openpty()
    command = ["streams", "trim", "default", "--before", "1", "--data", str(server.data_directory)]
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge.cli", *command], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, text=True
    )
    with open(ours, "w", closefd=True) as terminal:
        terminal.write(answer)
        terminal.flush()
        _, asked = process.communicate(timeout=30)
    assert asked.startswith("Drop of stream default (2 records, ")
    assert process.returncode == (0 if left == 1 else 1)
    assert len(records(server.http_url)) == left


def test_server_that_was_killed_is_not_waited_for(server: ServerProcess) -> None:
    """Its lock is free, though the file still names it."""
    publish(server, "a", 4)
    server.kill()
    data = ("--data", server.data_directory)
    assert headrace("streams", "list", *data).stdout.splitlines()[2].split()[:3] == ["default", "sqlite", "4"]
    assert headrace("streams", "trim", "default", "--before", "3", "--yes", *data).returncode == 0
    server.start()
    assert [record["offset"] for record in records(server.http_url)] == [3]


def test_dead_letters_beside_a_server_and_without_one(tmp_path: Path) -> None:
    asyncio.run(bury(tmp_path / "data", [b'{"n":1}', b"two\nlines"]))
    data = ("--data", tmp_path / "data")
    without = headrace("streams", "dead-letters", "default", *data)
    lines = headrace("streams", "dead-letters", "default", *data, "--format", "ndjson").stdout.splitlines()
    with ServerProcess(tmp_path / "data"):
        beside = headrace("streams", "dead-letters", "default", *data)
        none = headrace("streams", "dead-letters", "system", *data)
    assert without.stdout == beside.stdout
    assert without.stdout.splitlines()[:3] == [
        '1970-01-01T00:00:01.000Z  a/b  from p"1é, qos 1',
        "  MESSAGE_TOO_LARGE",
        '  {"n": 1}',
    ]
    assert without.stdout.splitlines()[-1] == "  two\\nlines"
    assert [json.loads(line)["record"]["payload"] for line in lines] == [{"n": 1}, "two\nlines"]
    assert none.stdout == "no dead letters\n"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "text"),
    [
        (("trim", "x"), 2, "give --before T|OFFSET or --bytes SIZE"),
        (("trim", "x", "--before", "1", "--bytes", "1"), 2, "give --before T|OFFSET or --bytes SIZE"),
        (("trim", "x", "--before", "yesterday"), 2, "--before: 'yesterday' is no time"),
        (("trim", "x", "--bytes", "much"), 2, '--bytes: "much" is not a size'),
        (("list", "--url", "ftp://x"), 2, "--url: ftp://x is not a server's address"),
        (("list", "--url", "http://127.0.0.1:1"), 1, "no server answers at http://127.0.0.1:1: connection refused."),
        (("list",), 1, "there is no headrace.sqlite in"),
        ((), 2, "dead-letters"),
    ],
)
def test_errors_say_what_to_do(tmp_path: Path, arguments: tuple[str, ...], exit_code: int, text: str) -> None:
    ended = headrace("streams", *arguments, *(("--data", tmp_path) if arguments else ()))
    assert ended.returncode == exit_code
    assert text in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr


def test_trim_of_a_large_stream_beside_a_writer(server: ServerProcess) -> None:
    """The writer goes on, and what it writes meanwhile is kept."""
    with RawClient(server.mqtt_port) as client:
        client.connect()
        for _ in range(60):
            for _ in range(100):
                client.publish("big", b"x" * 2_000, 1)
            for _ in range(100):
                client.next_packet()
        ended = headrace("streams", "trim", "default", "--bytes", "1MB", "--yes", "--data", server.data_directory)
        assert ended.returncode == 0, ended.stderr
        client.publish_acknowledged("big", b"last")
    found = records(server.http_url)
    assert found[-1]["payload"] == "last"
    eventually(lambda: sum(len(record["payload"]) for record in records(server.http_url)) < 1_000_000)
