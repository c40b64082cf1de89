"""mosquitto_pub and mosquitto_sub, as people run them, against the real server."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.support.conditions import eventually
from tests.support.server import ServerProcess

pytestmark = pytest.mark.skipif(
    not all(shutil.which(program) for program in ("mosquitto_pub", "mosquitto_sub", "stdbuf")),
    reason="mosquitto_pub, mosquitto_sub and stdbuf are not all installed",
)

COUNTER = itertools.count(1)
VERSIONS = ["31", "311", "5"]


@pytest.fixture
def topic() -> str:
    return f"mosquitto/{next(COUNTER)}"


class Subscriber:
    """A running mosquitto_sub; `lines` are what it printed as `topic|payload|qos|retain`."""

    def __init__(self, server: ServerProcess, *arguments: str) -> None:
        self.process = subprocess.Popen(
            # stdbuf: into a pipe mosquitto_sub would keep its debug lines back.
            ["stdbuf", "-oL", "mosquitto_sub", "-p", str(server.mqtt_port), "-d", "-F", "%t|%p|%q|%r", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )
        self.output: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        eventually(lambda: any(line.startswith("Subscribed") for line in self.output), what="SUBACK")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line.rstrip("\n"))

    @property
    def lines(self) -> list[str]:
        return [line for line in self.output if line.count("|") == 3]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(10)
        self._thread.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def kill(self) -> None:
        self.process.kill()
        self.close()


@pytest.fixture
def subscribers() -> Iterator[list[Subscriber]]:
    started: list[Subscriber] = []
    yield started
    for one in started:
        one.close()


def publish(server: ServerProcess, *arguments: str) -> None:
    done = subprocess.run(
        ["mosquitto_pub", "-p", str(server.mqtt_port), *arguments], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_publish_and_subscribe(
    shared_server: ServerProcess, topic: str, subscribers: list[Subscriber], version: str, qos: str
) -> None:
    subscribers.append(Subscriber(shared_server, "-V", version, "-t", f"{topic}/+", "-q", qos))
    publish(shared_server, "-V", version, "-t", f"{topic}/a", "-m", "21.5", "-q", qos)
    eventually(lambda: subscribers[0].lines == [f"{topic}/a|21.5|{qos}|0"], what=str(subscribers[0].output))


def test_many_lines_arrive_in_order(shared_server: ServerProcess, topic: str, subscribers: list[Subscriber]) -> None:
    subscribers.append(Subscriber(shared_server, "-t", topic, "-q", "1"))
    subprocess.run(
        ["mosquitto_pub", "-p", str(shared_server.mqtt_port), "-t", topic, "-q", "1", "-l"],
        input="".join(f"{number}\n" for number in range(1000)),
        text=True,
        check=True,
        timeout=30,
    )
    eventually(lambda: len(subscribers[0].lines) == 1000)
    assert subscribers[0].lines == [f"{topic}|{number}|1|0" for number in range(1000)]


@pytest.mark.parametrize("version", VERSIONS)
def test_retained_message_is_there_for_who_comes_later(
    shared_server: ServerProcess, topic: str, subscribers: list[Subscriber], version: str
) -> None:
    publish(shared_server, "-V", version, "-t", topic, "-m", "kept", "-r", "-q", "1")
    subscribers.append(Subscriber(shared_server, "-V", version, "-t", topic, "-q", "1"))
    eventually(lambda: subscribers[0].lines == [f"{topic}|kept|1|1"])
    publish(shared_server, "-V", version, "-t", topic, "-n", "-r", "-q", "1")
    subscribers.append(Subscriber(shared_server, "-V", version, "-t", topic, "-t", f"{topic}/x", "-q", "1"))
    publish(shared_server, "-t", f"{topic}/x", "-m", "marker", "-q", "1")
    eventually(lambda: subscribers[1].lines == [f"{topic}/x|marker|1|0"])


@pytest.mark.parametrize("version", VERSIONS)
def test_killed_client_leaves_its_will(
    shared_server: ServerProcess, topic: str, subscribers: list[Subscriber], version: str
) -> None:
    subscribers.append(Subscriber(shared_server, "-V", version, "-t", f"{topic}/will", "-q", "1"))
    will = ["--will-topic", f"{topic}/will", "--will-payload", "gone", "--will-qos", "1"]
    doomed = Subscriber(shared_server, "-V", version, "-t", f"{topic}/none", *will)
    doomed.kill()
    eventually(lambda: subscribers[0].lines == [f"{topic}/will|gone|1|0"])


def test_kept_session_gets_what_it_missed(
    shared_server: ServerProcess, topic: str, subscribers: list[Subscriber]
) -> None:
    keeps = ["-i", topic.replace("/", "-"), "-c", "-q", "1", "-t", f"{topic}/#"]
    Subscriber(shared_server, *keeps).close()
    for number in range(3):
        publish(shared_server, "-t", f"{topic}/{number}", "-m", str(number), "-q", "1")
    subscribers.append(Subscriber(shared_server, *keeps))
    eventually(lambda: subscribers[0].lines == [f"{topic}/{number}|{number}|1|0" for number in range(3)])


def test_unsubscribed_topic_stays_away(shared_server: ServerProcess, topic: str, subscribers: list[Subscriber]) -> None:
    client_id = topic.replace("/", "-")
    Subscriber(shared_server, "-i", client_id, "-c", "-q", "1", "-t", f"{topic}/old").close()
    subscribers.append(
        Subscriber(shared_server, "-i", client_id, "-c", "-q", "1", "-t", f"{topic}/new", "-U", f"{topic}/old")
    )
    eventually(lambda: any("UNSUBACK" in line for line in subscribers[0].output))
    publish(shared_server, "-t", f"{topic}/old", "-m", "no", "-q", "1")
    publish(shared_server, "-t", f"{topic}/new", "-m", "yes", "-q", "1")
    eventually(lambda: subscribers[0].lines == [f"{topic}/new|yes|1|0"])


def test_large_payload_and_properties(shared_server: ServerProcess, topic: str, subscribers: list[Subscriber]) -> None:
    subscribers.append(Subscriber(shared_server, "-V", "5", "-t", topic, "-q", "1"))
    publish(
        shared_server, "-V", "5", "-t", topic, "-m", "x" * 100_000, "-q", "1",
        "-D", "PUBLISH", "content-type", "text/plain", "-D", "PUBLISH", "user-property", "a", "b",
    )  # fmt: skip
    eventually(lambda: len(subscribers[0].lines) == 1)
    assert subscribers[0].lines[0] == f"{topic}|{'x' * 100_000}|1|0"


@pytest.mark.parametrize("version", VERSIONS)
def test_shared_subscription_deals_out_each_line_once(
    shared_server: ServerProcess, topic: str, subscribers: list[Subscriber], version: str
) -> None:
    arguments = ("-V", version, "-t", f"$share/workers/{topic}", "-q", "1")
    subscribers.extend(Subscriber(shared_server, *arguments) for _ in range(3))
    subprocess.run(
        ["mosquitto_pub", "-p", str(shared_server.mqtt_port), "-V", version, "-t", topic, "-q", "1", "-l"],
        input="".join(f"{number}\n" for number in range(300)),
        text=True,
        check=True,
        timeout=30,
    )
    eventually(lambda: sum(len(one.lines) for one in subscribers) == 300)
    # A member that is slow for a moment is passed over, so who gets which is for the tests of the engine.
    numbers = [[int(line.split("|")[1]) for line in one.lines] for one in subscribers]
    assert all(each and each == sorted(each) for each in numbers)
    assert sorted(itertools.chain(*numbers)) == list(range(300))
