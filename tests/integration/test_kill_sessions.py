"""kill -9 and kept sessions: what was acknowledged holds after the restart."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually
from tests.support.http_client import metrics, records
from tests.support.kept_subscriber import KeptSubscriber
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess

KEPT = {wire.SESSION_EXPIRY: 3_600}


def kept_client(server: ServerProcess, client_id: str, version: int = wire.V5, **more: object) -> RawClient:
    client = RawClient(server.mqtt_port, version)
    client.connect(client_id, clean=False, properties=KEPT if version == wire.V5 else None, **more)  # type: ignore[arg-type]
    return client


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_a_subscription_holds_from_its_suback_on(server: ServerProcess, how: str) -> None:
    clients = [kept_client(server, f"k{version}", version) for version in (wire.V311, wire.V5)]
    for client in clients:
        assert client.subscribe(("held/#", 1)) == [1]
    getattr(server, how)()
    server.start()
    with RawClient(server.mqtt_port) as publisher:
        publisher.connect()
        publisher.publish_acknowledged("held/1", b"while it was away")
    for client in clients:
        client.close()
        with RawClient(server.mqtt_port, client.version) as again:
            properties = KEPT if client.version == wire.V5 else None
            assert again.connect(f"k{client.version}", clean=False, properties=properties).session_present
            again.expect_publish("held/1", b"while it was away")


def test_an_offline_session_gets_each_message_once_and_in_order(server: ServerProcess) -> None:
    """Published and acknowledged, with QoS 1 and 2, around two kills and a stop."""
    subscribers = [KeptSubscriber(server.mqtt_port, f"k{version}", version) for version in (wire.V311, wire.V5)]
    for subscriber in subscribers:
        assert subscriber.connect(is_new=True).subscribe(("owed/#", 2)) == [2]
        subscriber.close()
    sent: list[tuple[str, bytes, int]] = []
    for how in ("kill", "kill", "terminate"):
        with RawClient(server.mqtt_port) as publisher:
            publisher.connect()
            for number in range(40):
                qos = 1 + number % 2
                sent.append((f"owed/{qos}", b"%d" % len(sent), qos))
                publisher.publish_acknowledged(*sent[-1])
        getattr(server, how)()
        server.start()
    for subscriber in subscribers:
        subscriber.connect()
        subscriber.drain(lambda one=subscriber: len(one.received) >= len(sent))  # type: ignore[misc]
        subscriber.close()
        for topic in ("owed/1", "owed/2"):  # in order for each topic and QoS [MQTT-4.6.0-6]
            of_topic = [each for each in sent if each[0] == topic]
            assert [each for each in subscriber.received if each[0] == topic] == of_topic


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_a_replay_goes_on_behind_what_was_acknowledged(server: ServerProcess, how: str) -> None:
    """Also while something else is in flight; after a kill as it stood at the last tick."""
    with RawClient(server.mqtt_port) as publisher:
        publisher.connect()
        for number in range(12):
            publisher.publish_acknowledged("t", b"%d" % number)
        client = kept_client(server, "k")
        client.subscribe(("$replay/-1h/t", 1), ("other", 1))
        for packet in [client.expect(wire.PUBLISH) for _ in range(12)][:9]:
            client.send(wire.acknowledgement(wire.PUBACK, packet.packet_id))
        publisher.publish_acknowledged("other", b"not acknowledged")
        assert client.expect(wire.PUBLISH).topic == "other"
        client.ping()  # what was acknowledged has been taken
    if how == "kill":
        eventually(lambda: noted_position(server).endswith(".9"), what="the replay's place is noted")
    getattr(server, how)()
    client.close()
    server.start()
    with kept_client(server, "k") as again:
        found = [again.expect(wire.PUBLISH) for _ in range(4)]
        assert {packet.payload for packet in found} == {b"9", b"10", b"11", b"not acknowledged"}
        again.expect_nothing()


def noted_position(server: ServerProcess) -> str:
    """Where the one replay stands in the file."""
    with closing(sqlite3.connect(server.data_directory / "headrace.sqlite")) as file:
        return str(file.execute("SELECT position FROM subscription WHERE since IS NOT NULL").fetchone()[0])


def test_a_message_that_was_on_its_way_comes_again(server: ServerProcess) -> None:
    """With QoS 2 under its packet id, with DUP, and after PUBREC not at all."""
    subscriber = KeptSubscriber(server.mqtt_port, "k", wire.V5)
    client = subscriber.connect(is_new=True)
    client.subscribe(("owed/#", 2))
    with RawClient(server.mqtt_port) as publisher:
        publisher.connect()
        for number in range(3):
            publisher.publish_acknowledged("owed/2", b"%d" % number, 2)
        publisher.publish_acknowledged("owed/1", b"3", 1)
    found = [packet for packet in [client.next_packet() for _ in range(4)] if packet.qos == 2]
    client.send(wire.acknowledgement(wire.PUBREC, found[0].packet_id))
    assert client.expect(wire.PUBREL).packet_id == found[0].packet_id
    server.kill()
    subscriber.close()
    server.start()
    client = subscriber.connect()
    again = [client.next_packet() for _ in range(4)]
    of_qos_2 = [packet for packet in again if packet.packet_type == wire.PUBLISH and packet.qos == 2]
    assert [(each.packet_id, each.payload, each.dup) for each in of_qos_2] == [
        (each.packet_id, each.payload, True) for each in found[1:]
    ]
    (pubrel,) = [packet for packet in again if packet.packet_type == wire.PUBREL]
    assert pubrel.packet_id == found[0].packet_id
    (of_qos_1,) = [packet for packet in again if packet.packet_type == wire.PUBLISH and packet.qos == 1]
    assert of_qos_1.payload == b"3"
    client.expect_nothing()
    subscriber.close()


MEMORY_AND_NONE = 'default_stream = false\n[[streams]]\nname = "mem"\ntopics = ["mem/#"]\nstorage = "memory"\n'
SHORT = '[[streams]]\nname = "short"\ntopics = ["#"]\nretention = { bytes = "64KiB" }\n'


def test_messages_that_no_log_on_disk_has_are_kept_too(tmp_path: Path) -> None:
    """Of a memory stream and of none, QoS 1 and 2; a retained message that was not taken; a shared subscription."""
    with ServerProcess(tmp_path / "data", MEMORY_AND_NONE) as server:
        with RawClient(server.mqtt_port) as publisher:
            publisher.connect()
            publisher.publish_acknowledged("none/retained", b"r", 1, retain=True)
            subscriber = KeptSubscriber(server.mqtt_port, "k", wire.V5)
            client = subscriber.connect(is_new=True)
            client.subscribe(("none/#", 2), ("mem/#", 2), ("$share/s/shared/#", 2))
            assert client.expect(wire.PUBLISH).payload == b"r"
            subscriber.close()
            sent = [(f"{where}/{qos}", b"%d" % qos, qos) for where in ("none", "mem", "shared") for qos in (1, 2)]
            for message in sent:
                publisher.publish_acknowledged(*message)
        server.kill()
        server.start()
        subscriber.connect()
        subscriber.drain(lambda: len(subscriber.received) >= len(sent) + 1)
        assert sorted(subscriber.received) == sorted([*sent, ("none/retained", b"r", 1)])
        subscriber.close()
        server.kill()
        server.start()
        subscriber.connect()
        assert [each for each in subscriber.received if each[2] == 2] == [each for each in sent if each[2] == 2]
        subscriber.close()
        server.terminate()


def test_retention_drops_nothing_that_a_session_is_owed(tmp_path: Path) -> None:
    """The log is far beyond its bytes when the server is killed; the offline session gets all of its messages."""
    with ServerProcess(tmp_path / "data", SHORT) as server:
        subscriber = KeptSubscriber(server.mqtt_port, "k", wire.V5)
        subscriber.connect(is_new=True).subscribe(("owed/#", 2))
        subscriber.close()
        sent = [(f"owed/{qos}", b"%d" % number, qos) for number in range(20) for qos in (1, 2)]
        with RawClient(server.mqtt_port) as publisher:
            publisher.connect()
            for message in sent:
                publisher.publish_acknowledged(*message)

            def is_dropped() -> bool:
                publisher.publish_acknowledged("other", b"x" * 32_000)
                return bool(records(server.http_url, "short", limit="1")[0]["offset"] > len(sent))

            eventually(is_dropped, timeout_s=30)
        assert metrics(server.http_url)["headrace_retention_copies_total"] == len(sent)
        server.kill()
        server.start()
        subscriber.connect()
        subscriber.drain(lambda: len(subscriber.received) >= len(sent))
        assert sorted(subscriber.received) == sorted(sent)
        subscriber.close()
        server.terminate()
