"""An egress over memory streams, to brokers that acknowledge late, out of order, not at all, or refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bridge.config_remote import EgressTable
from bridge.egress.mqtt_sink import MqttSink
from broker.codec.encode import encode
from broker.codec.packets import Connack, Connect, Packet, Puback, Publish
from broker.codec.properties import Properties
from tests.support.conditions import eventually_async
from tests.support.other_broker import OtherBroker, Script, welcome
from tests.unit.live.test_replays import NOW_MS, Side, opened


class Notes:
    """What is kept, in memory; `done` is told at once."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def get(self, name: str) -> str | None:
        return self.texts.get(name)

    def put(self, name: str, text: str, done: Callable[[], None]) -> None:
        self.texts[name] = text
        done()


def acknowledging(code: int = 0) -> Script:
    """A broker that takes everything, or says why not."""

    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        if isinstance(packet, Publish) and packet.qos:
            writer.write(encode(Puback(packet.packet_id, code), level))
        else:
            welcome(writer, packet, level)

    return script


@asynccontextmanager
async def sending(
    side: Side, script: Script, notes: Notes | None = None, mark: str | None = None, **table: Any
) -> AsyncIterator[Any]:
    """(broker, sink)"""
    broker = OtherBroker(script)
    port = await broker.open()
    values = {"name": "x", "broker": f"mqtt://127.0.0.1:{port}", "topics": ("#",), "reconnect_s_max": 0.1, **table}
    sink = MqttSink(
        EgressTable(**values),
        "me",
        side.source,
        [side.a, side.b],
        notes or Notes(),
        now_ms=NOW_MS,
        left_out_client_ids=frozenset(),
        mark=mark,
        packet_bytes_max=1 << 20,
    )
    sink.start()
    try:
        yield broker, sink
    finally:
        await sink.close()
        await broker.close()


def payloads(broker: OtherBroker) -> list[int]:
    return [int(packet.payload) for packet in broker.packets if isinstance(packet, Publish)]


def publish(side: Side, numbers: range) -> None:
    for number in numbers:
        side.publish("a/x", b"%d" % number, 1)


async def test_what_is_in_flight_is_bounded_and_the_rest_waits_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.egress.mqtt_sink.DRAIN_S", 0.01)
    async with opened(Side()) as side, sending(side, welcome, inflight_max=3) as (broker, sink):
        publish(side, range(10))
        await eventually_async(lambda: sink.in_flight == 3)
        await eventually_async(lambda: payloads(broker) == [0, 1, 2])
        assert (sink.behind, sink.acknowledged) == (10, 0)


async def test_the_receive_maximum_of_the_other_broker_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.egress.mqtt_sink.DRAIN_S", 0.01)

    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        if isinstance(packet, Connect):
            properties = Properties()
            properties.receive_maximum = 2
            writer.write(encode(Connack(False, 0, properties), level))

    async with opened(Side()) as side, sending(side, script) as (_, sink):
        publish(side, range(5))
        await eventually_async(lambda: sink.in_flight == 2)


async def test_acknowledgements_out_of_order_move_the_place_when_all_before_them_are_there() -> None:
    waiting: list[int] = []

    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        if isinstance(packet, Publish):
            waiting.append(packet.packet_id)
            if len(waiting) == 4:
                writer.write(b"".join(encode(Puback(each), level) for each in (waiting[2], waiting[1], waiting[3])))
        else:
            welcome(writer, packet, level)

    async with opened(Side()) as side, sending(side, script) as (broker, sink):
        publish(side, range(4))
        await eventually_async(lambda: len(waiting) == 4)
        await eventually_async(lambda: len(sink._flights._early) == 3)
        assert (sink.acknowledged, sink.behind) == (0, 4)
        broker.write(encode(Puback(waiting[0]), 5))
        await eventually_async(lambda: sink.acknowledged == 4)
        assert sink.in_flight == 0
        await eventually_async(lambda: sink.behind == 0)


async def test_the_place_is_kept_and_the_next_start_goes_on_there() -> None:
    notes = Notes()
    async with opened(Side()) as side:
        async with sending(side, acknowledging(), notes) as (broker, sink):
            publish(side, range(5))
            await eventually_async(lambda: sink.acknowledged == 5)
        publish(side, range(5, 8))
        async with sending(side, acknowledging(), notes) as (broker, sink):
            await eventually_async(lambda: sink.acknowledged == 3)
            assert payloads(broker) == [5, 6, 7]


async def test_a_lost_connection_repeats_what_was_in_flight_alone() -> None:
    seen: list[int] = []

    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        if isinstance(packet, Publish):
            seen.append(int(packet.payload))
            if seen == [0, 1, 2]:
                writer.transport.abort()
            elif len(seen) != 3:
                writer.write(encode(Puback(packet.packet_id), level))
        else:
            welcome(writer, packet, level)

    async with opened(Side()) as side, sending(side, script, inflight_max=1) as (_, sink):
        publish(side, range(6))
        await eventually_async(lambda: sink.acknowledged == 6)
        assert seen == [0, 1, 2, 2, 3, 4, 5]


async def test_what_is_refused_for_good_is_counted_and_passed_over() -> None:
    async with opened(Side()) as side, sending(side, acknowledging(0x87)) as (_, sink):
        publish(side, range(3))
        await eventually_async(lambda: sink.in_flight == 0 and sink.dropped)
        await eventually_async(lambda: sink.dropped == {"not_authorized": 3})
        assert sink.client.connections == 1


async def test_what_is_refused_for_now_is_tried_again() -> None:
    codes = [0x97, 0x97, 0]

    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        if isinstance(packet, Publish):
            code = codes.pop(0) if len(codes) > 1 else codes[0]
            writer.write(encode(Puback(packet.packet_id, code), level))
        else:
            welcome(writer, packet, level)

    async with opened(Side()) as side, sending(side, script, inflight_max=1) as (broker, sink):
        publish(side, range(2))
        await eventually_async(lambda: sink.acknowledged == 2)
        assert payloads(broker) == [0, 0, 0, 1]
        assert not sink.dropped


async def test_packet_ids_begin_again_when_they_are_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.egress.flights.PACKET_ID_MAX", 7)
    async with opened(Side()) as side, sending(side, acknowledging(), inflight_max=3) as (broker, sink):
        publish(side, range(40))
        await eventually_async(lambda: sink.acknowledged == 40)
        assert payloads(broker) == list(range(40))
        ids = [packet.packet_id for packet in broker.packets if isinstance(packet, Publish)]
        assert ids == [number % 7 + 1 for number in range(40)]


async def test_qos_0_is_written_and_the_place_moves() -> None:
    async with opened(Side()) as side, sending(side, welcome, qos=0) as (broker, sink):
        publish(side, range(20))
        await eventually_async(lambda: payloads(broker) == list(range(20)))
        assert {packet.qos for packet in broker.packets if isinstance(packet, Publish)} == {0}
        await eventually_async(lambda: sink.behind == 0)


@pytest.mark.parametrize(("name", "value"), [("maximum_packet_size", 60), ("retain_available", 0), ("maximum_qos", 0)])
async def test_what_the_other_broker_says_it_takes_is_kept(name: str, value: int) -> None:
    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        if isinstance(packet, Connect):
            properties = Properties()
            setattr(properties, name, value)
            writer.write(encode(Connack(False, 0, properties), level))
        elif isinstance(packet, Publish) and packet.qos:
            writer.write(encode(Puback(packet.packet_id), level))

    async with opened(Side()) as side, sending(side, script) as (broker, sink):
        side.publish("a/x", b"1" * 100)
        side.publish("a/x", b"2", retain=True)
        await eventually_async(lambda: 2 in payloads(broker))
        found = [packet for packet in broker.packets if isinstance(packet, Publish)]
        assert len(found) == (1 if name == "maximum_packet_size" else 2)
        assert found[-1].retain is (name != "retain_available")
        assert found[-1].qos == (0 if name == "maximum_qos" else 1)
        assert sink.dropped == ({"too_large": 1} if name == "maximum_packet_size" else {})


async def test_history_is_sent_first_when_it_is_asked_for() -> None:
    async with opened(Side()) as side:
        publish(side, range(3))
        async with sending(side, acknowledging(), since="-1h") as (broker, sink):
            await eventually_async(lambda: sink.acknowledged == 3)
            publish(side, range(3, 5))
            await eventually_async(lambda: sink.acknowledged == 5)
            assert payloads(broker) == list(range(5))


async def test_records_that_are_gone_are_counted_and_the_rest_is_sent() -> None:
    notes = Notes()
    async with opened(Side(bytes_max=400)) as side:
        publish(side, range(2))
        async with sending(side, acknowledging(), notes):
            await eventually_async(lambda: "egress.x" in notes.texts)
        publish(side, range(2, 200))
        async with sending(side, acknowledging(), notes) as (broker, sink):
            await eventually_async(lambda: payloads(broker)[-1:] == [199])
            assert sink.gaps == 1
            assert sink.lost + len(payloads(broker)) == 198


async def test_without_mqtt_5_nothing_is_sent_that_would_circle() -> None:
    async with opened(Side()) as side, sending(side, acknowledging(), mark="me", version="3.1.1") as (broker, sink):
        publish(side, range(2))
        await eventually_async(lambda: "would circle" in str(sink.client.failure))
        await eventually_async(lambda: sink.client.connections > 1)
        assert payloads(broker) == []


async def test_the_mark_goes_with_every_message() -> None:
    async with opened(Side()) as side, sending(side, acknowledging(), mark="me") as (broker, sink):
        publish(side, range(2))
        await eventually_async(lambda: sink.acknowledged == 2)
        found = [packet.properties for packet in broker.packets if isinstance(packet, Publish)]
        assert [each.user_properties for each in found if each is not None] == [[("headrace-from", "me")]] * 2
