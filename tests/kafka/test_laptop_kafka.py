"""`make kafka-up` and `kafka-down`: brokers that stay when the command is over, and say what is in the way."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from scripts.kafka.distribution import ROOT, SMALL_JAVA_OPTIONS, KafkaDistribution, KafkaMissing
from scripts.kafka.metadata import fetch_metadata
from scripts.kafka.node import free_ports, is_port_free
from tests.support.conditions import eventually
from tests.support.kafka import own_ports
from tests.support.kafka_client import KafkaClient, blocking

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kafka_distribution")]

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def port() -> int:
    """The first of eight ports in a row that are free."""
    firsts = own_ports()[:-8]
    return next(port for port in free_ports(firsts) if all(is_port_free(port + above) for above in range(8)))


@pytest.fixture
def command(tmp_path: Path, port: int) -> Iterator[Command]:
    """Runs what the make targets run, on spare ports and in a folder of the test's own."""

    def run(*arguments: str, port: int = port, **environment: str) -> subprocess.CompletedProcess[str]:
        options = ["--directory", str(tmp_path / "kafka"), "--port", str(port)]
        heap = {"KAFKA_HEAP_OPTS": " ".join(SMALL_JAVA_OPTIONS)}
        return subprocess.run(
            [sys.executable, "-m", "scripts.kafka", *options, *arguments],
            cwd=ROOT,
            env={**os.environ, **heap, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    yield run
    run("down")


def pids(text: str) -> list[int]:
    return [int(pid) for pid in re.findall(r"pid (\d+)", text)]


def is_alive(pid: int) -> bool:
    """A process that ended may wait for its parent to look at it: that one is not alive."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_up_leaves_a_broker_running_and_down_keeps_its_records(command: Command, port: int) -> None:
    up = command("up")
    assert up.returncode == 0, up.stderr
    assert f"127.0.0.1:{port}" in up.stdout
    client = KafkaClient([f"127.0.0.1:{port}"])
    topic = blocking(client.create_topic())
    written = blocking(client.produce(topic, [b"kept"]))

    again = command("up")
    assert "was up already" in again.stdout
    assert pids(again.stdout) == pids(up.stdout)

    down = command("down")
    assert pids(down.stdout) == pids(up.stdout)
    assert not is_alive(pids(up.stdout)[0])
    assert "is not running" in command("down").stdout

    assert command("up").returncode == 0
    assert blocking(client.read_all(topic)) == written


@pytest.mark.timeout(180)
def test_three_brokers_come_up_together_and_go_down_together(command: Command, port: int) -> None:
    up = command("up", "--brokers", "3")
    assert up.returncode == 0, up.stderr
    assert [broker.port for broker in fetch_metadata("127.0.0.1", port + 2).brokers] == [port, port + 2, port + 4]
    other = command("up", "--brokers", "1")
    assert other.returncode == 1
    assert "make kafka-down" in other.stderr

    os.kill(pids(up.stdout)[1], signal.SIGKILL)
    healed = command("up", "--brokers", "3")
    assert healed.returncode == 0, healed.stderr
    assert pids(healed.stdout)[::2] == pids(up.stdout)[::2]

    os.kill(pids(healed.stdout)[0], signal.SIGSTOP)
    assert command("down").returncode == 0
    assert not any(is_alive(pid) for pid in pids(healed.stdout))
    assert command("clean").returncode == 0
    assert "removed" not in command("clean").stdout


def test_a_broker_on_other_ports_is_known(command: Command, port: int) -> None:
    assert command("up").returncode == 0
    elsewhere = command("up", port=port + 4)
    assert elsewhere.returncode == 1
    assert f"127.0.0.1:{port}" in elsewhere.stderr
    assert command("clean").returncode == 1
    assert f"127.0.0.1:{port}" in command("down", port=port + 4).stdout


def test_a_port_in_use_is_named_with_who_uses_it(command: Command, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        refused = command("up")
    assert refused.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in refused.stderr
    assert str(os.getpid()) in refused.stderr
    assert "KAFKA_PORT" in refused.stderr


def test_missing_java_is_said_with_what_to_install(command: Command, tmp_path: Path) -> None:
    refused = command("up", PATH=str(tmp_path), JAVA_HOME="")
    assert refused.returncode == 1
    assert "default-jre-headless" in refused.stderr


def test_missing_maven_is_said_when_jars_have_to_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kafka_distribution: KafkaDistribution
) -> None:
    java = Path(kafka_distribution.java("")[0])
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(java)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(KafkaMissing, match="maven"):
        KafkaDistribution(tmp_path / "cache").fetch()


@pytest.mark.parametrize("arguments", [[], ["BROKERS=3", "KAFKA_PORT=19092", "KAFKA_DIRECTORY=elsewhere"]])
def test_make_passes_its_variables_on(arguments: list[str]) -> None:
    said = subprocess.run(
        ["make", "-n", "kafka-up", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},  # without the variables of a make that runs these tests
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    wanted = ("19092", "elsewhere", "3") if arguments else ("9092", "build/kafka", "1")
    assert "-m scripts.kafka --port {} --directory {} up --brokers {}".format(*wanted) in said


def test_no_broker_outlives_tests_that_are_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from tests.support.kafka import KafkaCluster\n"
        f"cluster = KafkaCluster(Path({str(tmp_path)!r}))\n"
        "cluster.start(); print(cluster.brokers[0].pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        pid = int(tests.stdout.readline())
        assert is_alive(pid)
        tests.kill()
    eventually(lambda: not is_alive(pid), what="the broker ended")
