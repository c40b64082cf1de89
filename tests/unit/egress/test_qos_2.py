"""An egress with QoS 2: over lost connections each message goes on where it stood, in the session that both have."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.codec.encode import encode
from broker.codec.packets import Connack, Connect, Packet, Puback, Pubcomp, Publish, Pubrec, Pubrel
from broker.codec.properties import Properties
from tests.support.conditions import eventually_async
from tests.support.other_broker import welcome
from tests.unit.egress.test_mqtt_sink import payloads, publish, sending
from tests.unit.live.test_replays import Side, opened


class Receiver:
    """A broker's side of QoS 2, which forgets nothing; connections may be cut behind some packet of some number."""

    def __init__(self, *cuts: tuple[type, int], keeps: bool = True, receive_maximum: tuple[int, ...] = ()) -> None:
        self.delivered: list[int] = []
        """Payloads, when they are released."""
        self.events: list[Any] = []
        """As they come: connects (clean start), ids of PUBLISH (with DUP or not) and of PUBREL."""
        self._cuts = list(cuts)
        """(type, n): after the n-th packet of the type since the connection began nothing is answered any more."""
        self._keeps = keeps
        self._receive_maximum = list(receive_maximum)
        self._waiting: dict[int, int] = {}
        self._seen: dict[type, int] = {}
        self._has_session = False
        self._is_cut = False

    def __call__(self, writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        if isinstance(packet, Connect):
            self._connected(writer, packet, level)
        elif not self._is_cut:
            kind = type(packet)
            self._seen[kind] = self._seen.get(kind, 0) + 1
            self._take(writer, packet, level)
            if self._cuts and (kind, self._seen[kind]) == self._cuts[0]:
                self._cuts.pop(0)
                self._is_cut = True
                writer.close()

    def _connected(self, writer: asyncio.StreamWriter, packet: Connect, level: int) -> None:
        self._seen, self._is_cut = {}, False
        self.events.append(("connect", packet.clean_start))
        if packet.clean_start or not self._keeps:
            self._waiting.clear()
            self._has_session = False
        properties = None
        if level == 5:
            properties = Properties()
            if self._receive_maximum:
                properties.receive_maximum = self._receive_maximum.pop(0)
        writer.write(encode(Connack(self._has_session, 0, properties), level))
        self._has_session = self._keeps

    def _take(self, writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        if isinstance(packet, Publish):
            assert packet.qos == 2
            self.events.append((packet.packet_id, packet.dup))
            self._waiting[packet.packet_id] = int(packet.payload)
            writer.write(encode(Pubrec(packet.packet_id), level))
        elif isinstance(packet, Pubrel):
            self.events.append(packet.packet_id)
            found = self._waiting.pop(packet.packet_id, None)
            if found is not None:
                self.delivered.append(found)
            writer.write(encode(Pubcomp(packet.packet_id, 0 if found is not None else 0x92), level))
        else:
            welcome(writer, packet, level)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_messages_go_out_with_qos_2_and_the_place_moves_when_they_are_complete(version: str) -> None:
    async with opened(Side()) as side, sending(side, receiver := Receiver(), qos=2, version=version) as (_, sink):
        publish(side, range(20))
        await eventually_async(lambda: sink.acknowledged == 20)
        assert receiver.delivered == list(range(20))
        await eventually_async(lambda: sink.behind == 0)
        assert sink.in_flight == 0


async def test_a_message_that_is_received_and_not_complete_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.egress.mqtt_sink.DRAIN_S", 0.01)

    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        if isinstance(packet, Publish):
            writer.write(encode(Pubrec(packet.packet_id), level))
        else:
            welcome(writer, packet, level)

    async with opened(Side()) as side, sending(side, script, qos=2) as (broker, sink):
        publish(side, range(3))
        await eventually_async(lambda: sum(isinstance(packet, Pubrel) for packet in broker.packets) == 3)
        assert (sink.acknowledged, sink.in_flight, sink.behind) == (0, 3, 3)


async def test_after_a_lost_connection_each_goes_on_where_it_stood() -> None:
    """PUBREL for what was received, then PUBLISH with DUP, both with their ids, then what is new. [MQTT-4.4.0-1]"""
    receiver = Receiver((Pubrel, 2))
    async with opened(Side()) as side, sending(side, receiver, qos=2, inflight_max=4) as (_, sink):
        publish(side, range(8))
        await eventually_async(lambda: sink.acknowledged == 8)
        assert receiver.delivered == list(range(8))
        second = receiver.events.index(("connect", False))
        assert receiver.events[0] == ("connect", True)
        again = receiver.events[second + 1 :]
        # 1 and 2 were released, and perhaps their PUBCOMP was not seen; of the others PUBREC had come.
        assert [each for each in again[:4] if each in (3, 4)] == [3, 4]
        assert not [each for each in receiver.events if each in ((1, True), (2, True), (3, True))]
        assert sink.client.connections == 2


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", [Publish, Pubrel])
@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_wherever_it_is_cut_each_message_arrives_once_and_in_order(kind: type, count: int, version: str) -> None:
    receiver = Receiver((kind, count), (kind, 1), (Publish, 2), (Pubrel, 1))
    async with (
        opened(Side()) as side,
        sending(side, receiver, qos=2, version=version, inflight_max=3, reconnect_s_max=0.1) as (_, sink),
    ):
        publish(side, range(30))
        await eventually_async(lambda: sink.acknowledged == 30)
        assert receiver.delivered == list(range(30))
        assert sink.client.connections == 5
        await eventually_async(lambda: sink.behind == 0)


async def test_what_was_not_answered_is_sent_again_with_dup_and_its_id() -> None:
    """As much of it as a smaller Receive Maximum allows."""
    silent = True

    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        if isinstance(packet, Connect) or not silent:
            receiver(writer, packet, level)

    receiver = Receiver(receive_maximum=(5, 2))
    async with opened(Side()) as side, sending(side, script, qos=2) as (broker, sink):
        publish(side, range(7))
        await eventually_async(lambda: payloads(broker) == [0, 1, 2, 3, 4])
        broker.cut()
        await eventually_async(lambda: payloads(broker) == [0, 1, 2, 3, 4, 0, 1])
        silent = False
        broker.cut()
        await eventually_async(lambda: sink.acknowledged == 7)
        assert receiver.delivered == list(range(7))
        found = [packet for packet in broker.packets if isinstance(packet, Publish)]
        assert [(each.packet_id, each.dup) for each in found[5:7]] == [(1, True), (2, True)]
        assert [(each.packet_id, each.dup) for each in found[7:]] == [
            *[(number, True) for number in (1, 2, 3, 4, 5)],
            *[(number, False) for number in (6, 7)],
        ]


async def test_when_the_other_broker_has_lost_the_session_nothing_is_left_out() -> None:
    receiver = Receiver((Publish, 3), keeps=False)
    async with opened(Side()) as side, sending(side, receiver, qos=2, inflight_max=4) as (broker, sink):
        publish(side, range(6))
        await eventually_async(lambda: payloads(broker)[-1:] == [5])
        await eventually_async(lambda: sink.acknowledged >= 6 and sink.in_flight == 0)
        assert sorted(set(receiver.delivered)) == list(range(6))
        assert not any(packet.dup for packet in broker.packets if isinstance(packet, Publish))


async def test_an_earlier_process_has_left_nothing_that_could_be_mistaken() -> None:
    """3.1.1 has no session that begins clean and is kept: one is begun to end the old one."""
    for version, expected in (("5", [True]), ("3.1.1", [True, False])):
        receiver = Receiver()
        async with opened(Side()) as side, sending(side, receiver, qos=2, version=version) as (broker, sink):
            publish(side, range(2))
            await eventually_async(lambda: sink.acknowledged == 2)
            connects = [packet for packet in broker.packets if isinstance(packet, Connect)]
            assert [each.clean_start for each in connects] == expected
            if version == "5":
                assert connects[0].properties.session_expiry_interval == 86_400


async def test_a_broker_that_takes_other_frames_than_before_gets_a_new_session() -> None:
    limits = [0, 100, 100]

    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        if isinstance(packet, Connect):
            receiver.events.append(packet.clean_start)
            properties = Properties()
            if limit := limits.pop(0):
                properties.maximum_packet_size = limit
            writer.write(encode(Connack(not packet.clean_start, 0, properties), level))
            if limits:
                return
        if not limits:
            receiver(writer, packet, level) if not isinstance(packet, Connect) else None

    receiver = Receiver()
    async with opened(Side()) as side, sending(side, script, qos=2) as (broker, sink):
        publish(side, range(3))
        await eventually_async(lambda: payloads(broker) == [0, 1, 2])
        broker.cut()
        await eventually_async(lambda: sink.acknowledged == 3)
        assert [each for each in receiver.events if isinstance(each, bool)] == [True, False, True]
        assert receiver.delivered == [0, 1, 2]


async def test_what_is_refused_for_good_is_counted_and_its_exchange_is_over() -> None:
    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        if isinstance(packet, Publish):
            writer.write(encode(Pubrec(packet.packet_id, 0x99 if packet.payload == b"1" else 0x10), level))
        elif isinstance(packet, Pubrel):
            writer.write(encode(Pubcomp(packet.packet_id), level))
        else:
            welcome(writer, packet, level)

    async with opened(Side()) as side, sending(side, script, qos=2) as (broker, sink):
        publish(side, range(3))
        await eventually_async(lambda: sink.acknowledged == 3)
        assert sink.dropped == {"payload_format_invalid": 1}
        assert [packet.packet_id for packet in broker.packets if isinstance(packet, Pubrel)] == [1, 3]


@pytest.mark.parametrize("answer", [Puback(1), Pubcomp(1), Pubrec(9)])
async def test_an_answer_that_does_not_fit_ends_the_connection(answer: Packet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.egress.mqtt_sink.DRAIN_S", 0.01)

    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        if isinstance(packet, Publish):
            writer.write(encode(answer, level))
        else:
            welcome(writer, packet, level)

    async with opened(Side()) as side, sending(side, script, qos=2) as (_, sink):
        publish(side, range(1))
        await eventually_async(lambda: "breaks the protocol" in str(sink.client.failure))
        assert sink.acknowledged == 0


async def test_to_a_broker_that_takes_qos_1_at_most_it_is_qos_1() -> None:
    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        if isinstance(packet, Connect):
            properties = Properties()
            properties.maximum_qos = 1
            writer.write(encode(Connack(False, 0, properties), level))
        elif isinstance(packet, Publish):
            writer.write(encode(Puback(packet.packet_id), level))

    async with opened(Side()) as side, sending(side, script, qos=2) as (broker, sink):
        publish(side, range(3))
        await eventually_async(lambda: sink.acknowledged == 3)
        assert {packet.qos for packet in broker.packets if isinstance(packet, Publish)} == {1}
