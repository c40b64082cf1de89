"""Twenty times kill -9 under load: sessions, QoS 2 in both directions and retained messages keep what was promised."""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually
from tests.support.kept_subscriber import EXPIRY_S, KeptSubscriber
from tests.support.mqtt_client import ConnectionEnded, RawClient
from tests.support.server import ServerProcess

ROUNDS = 20
WINDOW = 40
RETAINED_TOPICS = 5


class Publisher:
    """Publishes rising numbers with QoS 1, QoS 2 or RETAIN in turn; after a kill it goes on as MQTT asks it to."""

    def __init__(self, server: ServerProcess, client_id: str, version: int) -> None:
        self.client_id = client_id
        self.version = version
        self.sent: list[tuple[str, bytes, int, bool]] = []
        """Topic, payload, QoS, RETAIN; the place + 1 is the packet id."""
        self.acknowledged: set[int] = set()
        """Packet ids with their PUBACK or PUBREC."""
        self._server = server
        self._open: dict[int, bool] = {}
        """Packet ids of exchanges that are not over; True: PUBREC has come."""
        self._thread: threading.Thread | None = None

    def _connect(self) -> RawClient:
        client = RawClient(self._server.mqtt_port, self.version)
        kept: wire.Properties | None = {wire.SESSION_EXPIRY: EXPIRY_S} if self.version == wire.V5 else None
        client.connect(self.client_id, clean=False, properties=kept)
        return client

    def start(self) -> None:
        """Publish in a thread until the connection ends."""
        self._thread = threading.Thread(target=self._run, args=(self._connect(),), daemon=True)
        self._thread.start()

    def join(self) -> None:
        """The connection has ended."""
        assert self._thread is not None
        self._thread.join(20)
        assert not self._thread.is_alive()

    def finish(self) -> None:
        """Repeat what was not acknowledged, with DUP and in order, and end every exchange. [MQTT-4.4.0-1]"""
        client = self._connect()
        for packet_id, is_received in list(self._open.items()):
            if is_received:
                client.send(wire.acknowledgement(wire.PUBREL, packet_id))
            else:
                self._send(client, packet_id, dup=True)
        while self._open:
            self._take(client, client.next_packet())
        client.disconnect()

    def _run(self, client: RawClient) -> None:
        try:
            while True:
                while len(self._open) < WINDOW:
                    number = len(self.sent)
                    kind = number % 3
                    place = number // 3 % RETAINED_TOPICS  # one QoS each: a repeat of QoS 1 is a new message
                    topic = f"kept/{self.client_id}/{place}" if kind == 2 else f"kill/{kind + 1}"
                    qos = 1 + place % 2 if kind == 2 else kind + 1
                    self.sent.append((topic, f"{self.client_id}:{number}".encode(), qos, kind == 2))
                    self._open[number + 1] = False
                    self._send(client, number + 1)
                self._take(client, client.next_packet())
        except (ConnectionEnded, OSError):
            client.close()

    def _send(self, client: RawClient, packet_id: int, *, dup: bool = False) -> None:
        topic, payload, qos, retain = self.sent[packet_id - 1]
        client.send(wire.publish(topic, payload, qos, packet_id, version=self.version, dup=dup, retain=retain))

    def _take(self, client: RawClient, packet: wire.Packet) -> None:
        if packet.packet_type == wire.PUBREC:
            self.acknowledged.add(packet.packet_id)
            self._open[packet.packet_id] = True
            client.send(wire.acknowledgement(wire.PUBREL, packet.packet_id))
        else:
            assert packet.packet_type in (wire.PUBACK, wire.PUBCOMP), packet
            self.acknowledged.add(packet.packet_id)
            del self._open[packet.packet_id]


def drain(subscriber: KeptSubscriber, publishers: list[Publisher]) -> None:
    """Read until everything that was sent has come."""
    missing = {payload for each in publishers for _, payload, _, retain in each.sent if not retain}
    missing.difference_update([payload for _, payload, _ in subscriber.received])

    def is_enough() -> bool:
        if subscriber.received:
            missing.discard(subscriber.received[-1][1])
        return not missing

    subscriber.drain(is_enough)


def check_received(subscriber: KeptSubscriber, publishers: list[Publisher]) -> None:
    """All that was acknowledged has come; QoS 2 once, each publisher's in order."""
    counts = Counter(payload for _, payload, _ in subscriber.received)
    for publisher in publishers:
        of_qos_2 = [payload for topic, payload, qos, retain in publisher.sent if qos == 2 and not retain]
        came = [payload for topic, payload, _ in subscriber.received if topic == "kill/2" and payload in set(of_qos_2)]
        assert came == of_qos_2, f"{subscriber.client_id}: QoS 2 of {publisher.client_id} is not as it was sent"
        for topic, payload, qos, retain in publisher.sent:
            if qos == 1 and not retain:
                assert counts[payload], f"{subscriber.client_id} has never got {payload!r} of {topic}"


def check_retained(server: ServerProcess, publishers: list[Publisher]) -> None:
    """Each topic has the last message that was sent to it: all of them are acknowledged by now."""
    last = {topic: payload for each in publishers for topic, payload, _, retain in each.sent if retain}
    with RawClient(server.mqtt_port) as client:
        client.connect()
        client.subscribe(("kept/#", 1))
        found = [client.expect_publish() for _ in last]
        client.expect_nothing()
    assert {packet.topic: packet.payload for packet in found} == last


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_rounds(tmp_path: Path) -> None:
    chance = random.Random(5)
    rounds_in_flight = 0
    with ServerProcess(tmp_path / "data") as server:
        subscribers = [KeptSubscriber(server.mqtt_port, f"s{version}", version) for version in (wire.V311, wire.V5)]
        for subscriber in subscribers:
            subscriber.connect(is_new=True).subscribe(("kill/#", 2))
            subscriber.close()
        publishers = [Publisher(server, f"p{version}", version) for version in (wire.V311, wire.V5)]
        for round_number in range(ROUNDS):
            # One subscriber reads and at some moment acknowledges no more; the other is away.
            reading = subscribers[round_number % 2]
            reading.connect()
            answered = chance.randrange(5, 100)
            thread = threading.Thread(target=reading.read_until_the_end, args=(answered,), daemon=True)
            thread.start()
            before = sum(len(each.acknowledged) for each in publishers)
            for publisher in publishers:
                publisher.start()
            enough = before + chance.randrange(50, 300)
            eventually(lambda e=enough: sum(len(each.acknowledged) for each in publishers) > e)  # type: ignore[misc]
            server.kill()
            thread.join(20)
            for publisher in publishers:
                publisher.join()
            rounds_in_flight += any(len(each.sent) > len(each.acknowledged) for each in publishers)
            server.start()
            for publisher in publishers:
                publisher.finish()
            for subscriber in subscribers:
                subscriber.connect()
                drain(subscriber, publishers)
                subscriber.close()
                check_received(subscriber, publishers)
            check_retained(server, publishers)
        assert rounds_in_flight >= ROUNDS // 2
        assert sum(each.flags["dup"] for each in subscribers) > ROUNDS // 2
        server.terminate()
