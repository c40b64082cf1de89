"""kill -9 while groups are being written: what was acknowledged is there, in order, and readers resume exactly."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path

import pytest

from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually
from tests.support.http_client import SseReader, records
from tests.support.mqtt_client import ConnectionEnded, RawClient
from tests.support.server import ServerProcess

ROUNDS = 12
WINDOW = 800
"""Unfinished publishes of one client: below the Receive Maximum of the server."""
BATCH = 50


class Publisher:
    """Publishes numbers as fast as its window allows, in a thread, until the connection ends."""

    def __init__(self, server: ServerProcess, client_id: str, topic: str, qos: int, version: int) -> None:
        self.server = server
        self.client_id = client_id
        self.topic = topic
        self.qos = qos
        self.version = version
        self.sent = 0
        """Numbers 0 to sent - 1 were handed to the kernel."""
        self.acknowledged = 0
        """Numbers 0 to acknowledged - 1 have their PUBACK or PUBREC."""
        self.completed = 0
        """Exchanges that are over: what Receive Maximum counts (MQTT 5 §4.9)."""
        self.surprises: list[wire.Packet] = []
        self._first_answer = wire.PUBACK if qos == 1 else wire.PUBREC
        self._client = self._connect()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _connect(self) -> RawClient:
        client = RawClient(self.server.mqtt_port, self.version)
        kept: wire.Properties | None = {wire.SESSION_EXPIRY: 3600} if self.version == wire.V5 else None
        client.connect(self.client_id, clean=self.qos == 1, properties=kept if self.qos == 2 else None)
        return client

    def frame(self, number: int, *, dup: bool = False) -> bytes:
        payload = json.dumps({"n": number}).encode()
        return wire.publish(self.topic, payload, self.qos, number + 1, version=self.version, dup=dup)

    def _run(self) -> None:
        client = self._client
        try:
            while self.sent < 65_000:
                if self.sent - self.completed <= WINDOW - BATCH:
                    client.send(b"".join(self.frame(number) for number in range(self.sent, self.sent + BATCH)))
                    self.sent += BATCH
                else:
                    self._take_answer(client)
        except (ConnectionEnded, OSError):
            self._take_the_rest(client)

    def _take_the_rest(self, client: RawClient) -> None:
        """What had come before the end counts too."""
        try:
            while True:
                self._take_answer(client)
        except (ConnectionEnded, OSError):
            client.close()

    def _take_answer(self, client: RawClient) -> None:
        found = client.next_packet()
        if found.packet_type == wire.PUBCOMP:
            self.completed += 1
            return
        if (found.packet_type, found.packet_id) != (self._first_answer, self.acknowledged + 1):
            self.surprises.append(found)
        self.acknowledged += 1
        if self.qos == 1:
            self.completed += 1
        else:
            client.send(wire.acknowledgement(wire.PUBREL, found.packet_id))

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()

    def repeat_unacknowledged(self) -> None:
        """What a client does after the crash: QoS 2 publishes again with DUP, in order, and releases all."""
        client = self._connect()
        for first in range(self.acknowledged, self.sent, BATCH):
            numbers = range(first, min(first + BATCH, self.sent))
            client.send(b"".join(self.frame(number, dup=True) for number in numbers))
            for number in numbers:
                assert client.expect(wire.PUBREC).packet_id == number + 1
        for number in range(self.completed, self.sent):
            client.send(wire.acknowledgement(wire.PUBREL, number + 1))
            assert client.expect(wire.PUBCOMP).packet_id == number + 1
        client.disconnect()


def numbers_of(stored: list[dict[str, object]], topic: str) -> list[int]:
    found = []
    for record in stored:
        if record["topic"] == topic:
            payload = record["payload"]
            assert isinstance(payload, dict)
            found.append(payload["n"])
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """Twelve rounds; QoS 1 is stored as a gapless row from the first, QoS 2 exactly once after its repeat."""
    chance = random.Random(7)
    rounds_in_flight = 0
    acknowledged_total = 0
    with ServerProcess(tmp_path / "data") as server, SseReader(server.http_url, [("topic", "kill/#")]) as reader:
        for round_number in range(ROUNDS):
            publishers = [
                Publisher(server, f"r{round_number}p{index}", f"kill/{round_number}/{index}", qos, version)
                for index, (qos, version) in enumerate([(1, wire.V311), (1, wire.V5), (2, wire.V311), (2, wire.V5)])
            ]
            enough = chance.randrange(1_000, 4_000)
            eventually(lambda p=publishers, e=enough: sum(one.acknowledged for one in p) > e)  # type: ignore[misc]
            server.kill()
            for one in publishers:
                one.join()
            in_flight = sum(one.sent - one.acknowledged for one in publishers)
            rounds_in_flight += in_flight > 0
            acknowledged_total += sum(one.acknowledged for one in publishers)
            server.start()
            stored = records(server.http_url, topic=f"kill/{round_number}/#")
            offsets = [record["offset"] for record in stored]
            assert offsets == sorted(set(offsets))
            for one in publishers:
                found = numbers_of(stored, one.topic)
                assert found == list(range(len(found))), f"{one.topic} has a gap, a repeat or a swap"
                assert one.acknowledged <= len(found) <= one.sent
                assert not one.surprises
                if one.qos == 2:
                    one.repeat_unacknowledged()
                    again = numbers_of(records(server.http_url, topic=one.topic), one.topic)
                    assert again == list(range(one.sent)), f"{one.topic}: {len(again)} stored, {one.sent} sent"
        assert rounds_in_flight >= ROUNDS * 2 // 3, f"something was in flight in only {rounds_in_flight} rounds"
        assert acknowledged_total > 1_000 * ROUNDS

        everything = records(server.http_url, topic="kill/#")
        eventually(lambda: len(reader.messages) >= len(everything), timeout_s=60, what=reader)
        assert [event["offset"] for event in reader.messages] == [record["offset"] for record in everything]
        assert {event["epoch"] for event in reader.messages} == {record["epoch"] for record in everything}
        assert not [event for event in reader.events if event.name == "gap"]
        assert reader.connections > ROUNDS
        server.terminate()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_reader_with_a_rare_filter_resumes_over_a_crash(tmp_path: Path) -> None:
    """Its cursor moves without events; after the crash it sees each record of its filter once."""
    with ServerProcess(tmp_path / "data") as server:
        with SseReader(server.http_url, [("topic", "rare/+")]) as reader:
            for round_number in range(3):
                with RawClient(server.mqtt_port) as client:
                    client.connect()
                    for number in range(300):
                        client.publish_acknowledged(f"common/{number}", b"x")
                    client.publish_acknowledged(f"rare/{round_number}", b"%d" % round_number)
                server.kill()
                server.start()
            with RawClient(server.mqtt_port) as client:
                client.connect()
                client.publish_acknowledged("rare/last", b"3")
            eventually(lambda: len(reader.messages) >= 4)
            assert [event["payload"] for event in reader.messages] == [0, 1, 2, 3]
        server.terminate()
