"""Connections that break anywhere, in both directions: QoS 2 arrives once, QoS 1 at least once, both in order."""

from __future__ import annotations

import random
from collections import deque

import pytest

from broker.codec.packets import Connack, Puback, Pubcomp, Publish, Pubrec, Pubrel, Subscribe, Subscription
from broker.codec.properties import Properties
from broker.engine import Engine
from tests.support.engine_client import EngineClient, HoldingSink, make_engine

MESSAGES = 25
STEPS_MAX = 4_000


class Party:
    """A client whose connection may break at any packet; what it knows stays."""

    def __init__(self, engine: Engine, client_id: str, level: int, randomness: random.Random) -> None:
        self.engine = engine
        self.client_id = client_id
        self.level = level
        self.randomness = randomness
        self.inbox: deque[object] = deque()
        self.client: EngineClient | None = None
        self.receive_maximum = 65_535
        self.unanswered: set[int] = set()
        """Packet ids of what has come on this connection and was not answered to its end."""

    def connect(self) -> None:
        properties = None
        if self.level == 5:
            properties = Properties()
            properties.session_expiry_interval = 600
            properties.receive_maximum = self.receive_maximum = self.randomness.randint(1, 5)
        self.client = EngineClient(self.engine, self.level)
        self.inbox.clear()
        self.unanswered.clear()
        self.client.connect(self.client_id, clean_start=False, properties=properties)
        self.resume()

    def cut(self) -> None:
        """The connection is gone, and with it perhaps what was on its way."""
        assert self.client is not None
        self.client.connection.lost()
        self.client = None

    def step(self) -> None:
        """Do one thing."""
        if self.client is None:
            self.connect()
            return
        if self.randomness.random() < 0.08:
            self.cut()
            return
        for packet in self.client.received():
            if isinstance(packet, Publish):
                self.unanswered.add(packet.packet_id)
                assert len(self.unanswered) <= self.receive_maximum
            if not isinstance(packet, Connack):
                self.inbox.append(packet)
        if self.inbox and self.randomness.random() < 0.7:
            self.take(self.inbox.popleft())
        else:
            self.idle()

    def send(self, packet: object) -> None:
        assert self.client is not None
        self.client.send(packet)

    def resume(self) -> None:
        """Connected again."""

    def idle(self) -> None:
        """Nothing to answer."""

    def take(self, packet: object) -> None:
        """A packet has come."""
        raise NotImplementedError


class Publisher(Party):
    """Sends numbers with QoS 1 and 2 alternating."""

    def __init__(self, engine: Engine, level: int, randomness: random.Random) -> None:
        super().__init__(engine, "publisher", level, randomness)
        self.next_number = 0
        self.unacknowledged: dict[int, Publish] = {}
        self.unreleased: list[int] = []

    @property
    def is_done(self) -> bool:
        return self.next_number == MESSAGES and not self.unacknowledged and not self.unreleased

    def idle(self) -> None:
        if self.next_number < MESSAGES and len(self.unacknowledged) + len(self.unreleased) < 4:
            number = self.next_number
            self.next_number += 1
            qos = 1 + number % 2
            packet_id = number % 8 + 1
            if packet_id in self.unacknowledged or packet_id in self.unreleased:
                self.next_number -= 1
                return
            publish = Publish(f"t/{qos}", b"%d" % number, qos, packet_id=packet_id)
            self.unacknowledged[packet_id] = publish
            self.send(publish)

    def resume(self) -> None:
        for packet_id, first in list(self.unacknowledged.items()):
            self.send(Publish(first.topic_name, first.payload, first.qos, dup=True, packet_id=packet_id))
        for packet_id in self.unreleased:
            self.send(Pubrel(packet_id))

    def take(self, packet: object) -> None:
        assert isinstance(packet, (Puback, Pubrec, Pubcomp)), packet
        assert packet.reason_code < 0x80, packet
        if isinstance(packet, Pubcomp):
            if packet.packet_id in self.unreleased:
                self.unreleased.remove(packet.packet_id)
            return
        known = self.unacknowledged.pop(packet.packet_id, None)
        if isinstance(packet, Pubrec) and known is not None:
            self.unreleased.append(packet.packet_id)
        if isinstance(packet, Pubrec):
            self.send(Pubrel(packet.packet_id))


class Subscriber(Party):
    """Notes what it gets."""

    def __init__(self, engine: Engine, level: int, randomness: random.Random) -> None:
        super().__init__(engine, "subscriber", level, randomness)
        self.pending: set[int] = set()
        self.got: dict[int, list[int]] = {1: [], 2: []}

    def take(self, packet: object) -> None:
        if isinstance(packet, Pubrel):
            self.pending.discard(packet.packet_id)
            self.unanswered.discard(packet.packet_id)
            self.send(Pubcomp(packet.packet_id))
            return
        assert isinstance(packet, Publish), packet
        if packet.qos == 1:
            self.got[1].append(int(packet.payload))
            self.unanswered.discard(packet.packet_id)
            self.send(Puback(packet.packet_id))
            return
        if packet.packet_id not in self.pending:
            self.pending.add(packet.packet_id)
            self.got[2].append(int(packet.payload))
        self.send(Pubrec(packet.packet_id))


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("seed", range(20))
def test_each_message_arrives_as_its_qos_says(level: int, seed: int) -> None:
    """[MQTT-4.3.2-3] [MQTT-4.3.3-10] [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.4-9]"""
    randomness = random.Random(seed)
    sink = HoldingSink()
    engine = make_engine(sink)
    publisher, subscriber = Publisher(engine, level, randomness), Subscriber(engine, level, randomness)
    subscriber.connect()
    subscriber.send(Subscribe(1, [Subscription("t/#", 2)]))
    assert subscriber.client is not None
    subscriber.client.received()
    publisher.connect()
    expected = {qos: [number for number in range(MESSAGES) if 1 + number % 2 == qos] for qos in (1, 2)}
    for _ in range(STEPS_MAX):
        randomness.choice((publisher, subscriber)).step()
        if randomness.random() < 0.3:
            sink.commit(randomness.randint(1, 3))
        for done in sink.done:
            done()
        sink.done.clear()
        if (
            publisher.is_done
            and len(subscriber.got[2]) >= len(expected[2])
            and set(subscriber.got[1]) >= {*expected[1]}
        ):
            break
    assert subscriber.got[2] == expected[2], "once each, in order"
    first_times = list(dict.fromkeys(subscriber.got[1]))
    assert first_times == expected[1], "at least once each, in order"
