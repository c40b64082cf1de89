"""[[ingest]] beside a real mosquitto: what comes in, over kills of either side, shared, over TLS, with a password."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from pathlib import Path

import httpx
import pytest

from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually
from tests.support.http_client import SseReader, metrics, records
from tests.support.mosquitto import MOSQUITTO, MosquittoProcess, free_port
from tests.support.mqtt_client import ConnectionEnded, RawClient
from tests.support.server import ServerProcess

pytestmark = pytest.mark.skipif(not Path(MOSQUITTO).exists(), reason="mosquitto is not installed")


def ingest(port: int, *lines: str, name: str = "plant", topics: str = "plant/#") -> str:
    """The table for a mosquitto on loopback."""
    return "\n".join(
        ["[[ingest]]", f'name = "{name}"', f'broker = "mqtt://127.0.0.1:{port}"', f'topics = ["{topics}"]', *lines, ""]
    )


def is_subscribed(mosquitto: MosquittoProcess, filters: int = 1) -> bool:
    """Some client has subscribed, and its SUBACK is on its way."""
    return mosquitto.log_text.count("Sending SUBACK to headrace") >= filters


def is_connected(server: ServerProcess, name: str = "plant") -> bool:
    return metrics(server.http_url).get(f'headrace_ingest_connected{{name="{name}"}}') == 1.0


def test_messages_of_another_broker_are_records_events_and_publishes(tmp_path: Path) -> None:
    """Topic, QoS, RETAIN, properties; readers and MQTT subscribers see them as any other."""
    with (
        MosquittoProcess(tmp_path / "m") as mosquitto,
        RawClient(mosquitto.port) as publisher,
        ServerProcess(tmp_path / "data", ingest(mosquitto.port, "qos = 2")) as server,
        RawClient(server.mqtt_port) as subscriber,
        SseReader(server.http_url, [("topic", "plant/#")]) as reader,
    ):
        publisher.connect("p")
        subscriber.connect("s")
        subscriber.subscribe(("plant/#", 2))
        eventually(lambda: is_subscribed(mosquitto))
        publisher.publish("plant/0", b"zero")
        publisher.publish_acknowledged("plant/1", b"1", 1, retain=True)
        publisher.publish_acknowledged("plant/2", b'{"a":2}', 2)
        properties: wire.Properties = {wire.CONTENT_TYPE: "text/plain", wire.USER_PROPERTY: [("k", "v"), ("k", "w")]}
        publisher.publish("plant/3", b"three", 1, properties=properties)
        publisher.publish("elsewhere", b"x", 1)
        eventually(lambda: len(reader.messages) == 4, what=reader)
        found = {event["topic"]: event for event in reader.messages}
        assert [(each["qos"], each["retain"], each["payload"]) for each in found.values()] == [
            (0, False, "zero"),
            (1, True, 1),
            (2, False, {"a": 2}),
            (1, False, "three"),
        ]
        assert {each["client_id"] for each in found.values()} == {"$ingest/plant"}
        assert found["plant/3"]["properties"] == {
            "content_type": "text/plain",
            "user_properties": [["k", "v"], ["k", "w"]],
        }
        got = [subscriber.expect(wire.PUBLISH) for _ in range(4)]
        assert sorted((each.topic, each.qos) for each in got) == [  # QoS 2 is delivered once it is stored
            ("plant/0", 0),
            ("plant/1", 1),
            ("plant/2", 2),
            ("plant/3", 1),
        ]
        with RawClient(server.mqtt_port) as late:
            late.connect("late")
            late.subscribe("plant/#")
            retained = late.expect(wire.PUBLISH)
            assert (retained.topic, retained.payload, retained.retain) == ("plant/1", b"1", True)


def test_topics_and_retained_messages_as_configured(tmp_path: Path) -> None:
    """Every way to treat retained messages, with both versions, each under a prefix of its own."""
    ways = [(version, retained) for version in ("5", "3.1.1") for retained in ("keep", "plain", "skip")]
    port = free_port()
    tables = [
        ingest(
            port,
            'remove_prefix = "plant/"',
            f'prefix = "hall/{index}/"',
            f'retained = "{retained}"',
            f'version = "{version}"',
            name=f"way{index}",
        )
        for index, (version, retained) in enumerate(ways)
    ]
    with MosquittoProcess(tmp_path / "m", port=port) as mosquitto, RawClient(port) as publisher:
        publisher.connect("p")
        publisher.publish_acknowledged("plant/a/t", b"old", retain=True)
        with ServerProcess(tmp_path / "data", "".join(tables)) as server:
            eventually(lambda: is_subscribed(mosquitto, len(ways)))
            publisher.publish_acknowledged("plant/b", b"new")
            eventually(lambda: [each["payload"] for each in records(server.http_url)].count("new") == len(ways))
            for index, (version, retained) in enumerate(ways):
                found = records(server.http_url, topic=f"hall/{index}/#")
                expected = {"keep": [("a/t", "old", True)], "plain": [("a/t", "old", False)], "skip": []}[retained]
                assert [(each["topic"], each["payload"], each["retain"]) for each in found] == [
                    (f"hall/{index}/{topic}", payload, retain)
                    for topic, payload, retain in [*expected, ("b", "new", False)]
                ], (version, retained)


MORE_THAN_CAN_BE = 10_000_000
"""Messages that no test has the time to send."""


class Producer:
    """Publishes to mosquitto, each message to a topic of its own, as fast as it is acknowledged, up to a number."""

    def __init__(self, port: int, qos: int, numbers: range) -> None:
        self.acknowledged: list[str] = []
        self._port = port
        self._qos = qos
        self._numbers = numbers
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with RawClient(self._port) as client:
                client.connect(f"producer{self._qos}")
                for number in self._numbers:
                    topic = f"plant/{self._qos}/{number}"
                    client.publish_acknowledged(topic, b"x" * 100, self._qos)
                    self.acknowledged.append(topic)
        except (ConnectionEnded, OSError):
            return  # mosquitto was killed

    def join(self) -> list[str]:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.acknowledged


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_kill_of_headrace_in_mid_flow_loses_nothing_and_doubles_no_qos_2(tmp_path: Path) -> None:
    """Whatever mosquitto acknowledged to its publishers is here after three kills; QoS 2 once, and in order."""
    acknowledged: list[str] = []
    with (
        MosquittoProcess(tmp_path / "m") as mosquitto,
        ServerProcess(tmp_path / "data", ingest(mosquitto.port, "qos = 2")) as server,
    ):
        eventually(lambda: is_subscribed(mosquitto))
        for first in (0, 1_000, 2_000):
            producers = [Producer(mosquitto.port, qos, range(first, first + 1_000)) for qos in (1, 2)]
            answers = mosquitto.log_text.count("Received PUBREC from headrace")
            eventually(lambda n=answers: mosquitto.log_text.count("Received PUBREC from headrace") > n + 100)  # type: ignore[misc]
            server.kill()
            acknowledged += [topic for each in producers for topic in each.join()]
            server.start()
        assert len(acknowledged) == 6_000
        eventually(lambda: set(acknowledged) == {each["topic"] for each in records(server.http_url)}, 30)
        stored = [each["topic"] for each in records(server.http_url)]
        of_qos_2 = [topic for topic in stored if topic.startswith("plant/2/")]
        assert of_qos_2 == [f"plant/2/{number}" for number in range(3_000)]
        assert re.search(r"Sending PUBLISH to headrace\S+ \(d1, q[12]", mosquitto.log_text), "nothing was in flight"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_kill_of_mosquitto_in_mid_flow_loses_nothing_that_was_acknowledged_to_it(tmp_path: Path) -> None:
    """What mosquitto's log says that Headrace acknowledged is stored; it comes back, and messages flow again."""
    with (
        MosquittoProcess(tmp_path / "m") as mosquitto,
        ServerProcess(tmp_path / "data", ingest(mosquitto.port, "reconnect_s_max = 0.5")) as server,
    ):
        eventually(lambda: is_subscribed(mosquitto))
        mosquitto.save()
        for first in (0, MORE_THAN_CAN_BE, 2 * MORE_THAN_CAN_BE):
            producer = Producer(mosquitto.port, 1, range(first, first + MORE_THAN_CAN_BE))
            answers = len(acknowledged_topics(mosquitto.log_text))
            eventually(lambda n=answers: len(acknowledged_topics(mosquitto.log_text)) > n + 100)  # type: ignore[misc]
            mosquitto.kill()
            assert len(producer.join()) < MORE_THAN_CAN_BE
            eventually(lambda: not is_connected(server))
            mosquitto.start()
            eventually(lambda: is_connected(server))
        publisher = RawClient(mosquitto.port)
        publisher.connect("last")
        publisher.publish_acknowledged("plant/last")
        publisher.close()
        eventually(lambda: "plant/last" in {each["topic"] for each in records(server.http_url)})
        taken = acknowledged_topics(mosquitto.log_text)
        assert len(taken) > 300
        assert taken <= {each["topic"] for each in records(server.http_url)}


def acknowledged_topics(log_text: str) -> set[str]:
    """Topics of the messages for which mosquitto has logged a PUBACK of ours."""
    sent = re.compile(r"Sending PUBLISH to headrace\S+ \(d\d, q1, r\d, m(\d+), '([^']+)'")
    answered = re.compile(r"Received PUBACK from headrace\S+ \(Mid: (\d+)")
    topic_by_mid: dict[str, str] = {}
    taken: set[str] = set()
    for line in log_text.splitlines():
        if found := sent.search(line):
            topic_by_mid[found[1]] = found[2]
        elif found := answered.search(line):
            taken.add(topic_by_mid[found[1]])
    return taken


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_two_servers_share_a_subscription(tmp_path: Path) -> None:
    """Each message goes to one of them; after a kill of one nothing is missing."""
    table = 'share = "both"'
    with (
        MosquittoProcess(tmp_path / "m") as mosquitto,
        ServerProcess(tmp_path / "a", ingest(mosquitto.port, table)) as first,
        ServerProcess(tmp_path / "b", ingest(mosquitto.port, table)) as second,
        RawClient(mosquitto.port) as publisher,
    ):
        eventually(lambda: is_subscribed(mosquitto, 2))
        publisher.connect("p")
        for number in range(200):
            publisher.publish_acknowledged(f"plant/{number}")

        def stored() -> tuple[list[str], list[str]]:
            a, b = ([each["topic"] for each in records(server.http_url)] for server in (first, second))
            return a, b

        eventually(lambda: sum(map(len, stored())) == 200)
        a, b = stored()
        assert len({*a, *b}) == 200
        assert min(len(a), len(b)) > 50
        first.kill()
        for number in range(200, 300):
            publisher.publish_acknowledged(f"plant/{number}")
        first.start()
        eventually(lambda: len({topic for each in stored() for topic in each}) == 300)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ca.pem`, and `server.pem` with `server.key` for 127.0.0.1, made by openssl."""
    folder = tmp_path_factory.mktemp("certificates")
    openssl = shutil.which("openssl")
    assert openssl is not None, "openssl is needed to make certificates"
    new = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    for name, extension in (("server", "subjectAltName=IP:127.0.0.1"), ("other", "subjectAltName=DNS:other.example")):
        subprocess.run(
            [*new, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}", "-addext", extension],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    return folder


def test_tls_is_verified_and_the_password_comes_from_a_file(tmp_path: Path, certificates: Path) -> None:
    """A broker whose certificate is not known is not spoken to; with its certificate given, all is well.

    A second listener wants a certificate of ours too.
    """
    port, strict_port = free_port(), free_port()
    passwords = tmp_path / "passwords"
    passwords.touch(0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "headrace", "tell nobody"], check=True)
    served = f"certfile {certificates}/server.pem\nkeyfile {certificates}/server.key\n"
    listeners = (
        f"allow_anonymous false\npassword_file {passwords}\nlistener {port} 127.0.0.1\n{served}"
        f"listener {strict_port} 127.0.0.1\n{served}cafile {certificates}/other.pem\nrequire_certificate true\n"
    )
    secret = tmp_path / "secret"
    secret.write_text("wrong\n", encoding="utf-8")
    signed_in = ('username = "headrace"', f'password_file = "{secret}"', "reconnect_s_max = 0.2")
    trusted = (*signed_in, f'ca_file = "{certificates}/server.pem"')
    shown = (
        *trusted,
        f'certificate_file = "{certificates}/other.pem"',
        f'key_file = "{certificates}/other.key"',
    )
    tables = [
        ingest(port, *signed_in, name="unknown"),
        ingest(port, *trusted),
        ingest(strict_port, *shown, name="shown"),
        ingest(strict_port, *trusted, name="hidden"),
    ]
    with (
        MosquittoProcess(tmp_path / "m", listeners, port) as mosquitto,
        ServerProcess(tmp_path / "data", "".join(tables).replace("mqtt://", "mqtts://")) as server,
    ):

        def error_of(name: str) -> str:
            rows = httpx.get(f"{server.http_url}/api/v1/system").json()["ingest"]
            return next(str(row["error"]) for row in rows if row["name"] == name).lower()

        eventually(lambda: "self-signed" in error_of("unknown").replace("self signed", "self-signed"))
        eventually(lambda: "not authorized" in error_of("plant"))
        secret.write_text("tell nobody\n", encoding="utf-8")
        eventually(lambda: is_connected(server), what=server.stderr_text)
        eventually(lambda: is_connected(server, "shown"), what=server.stderr_text)
        eventually(lambda: is_subscribed(mosquitto, 2))
        assert not is_connected(server, "unknown")
        assert not is_connected(server, "hidden")
        assert "tell nobody" not in server.stderr_text
