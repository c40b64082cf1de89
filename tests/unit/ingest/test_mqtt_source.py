"""An ingest against brokers that answer as scripts say, and a sink that commits when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bridge.config_remote import IngestTable
from bridge.ingest.mqtt_source import MqttSource
from bridge.remote.link import LinkFailed
from broker.codec.encode import encode
from broker.codec.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsubscribe,
)
from broker.codec.properties import Properties
from broker.config import BrokerConfig
from broker.server import Broker
from tests.support.conditions import eventually_async
from tests.support.engine_client import HoldingSink
from tests.support.other_broker import OtherBroker, Script


class Notes:
    """What is kept, in memory."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def get(self, name: str) -> str | None:
        return self.texts.get(name)

    def put(self, name: str, text: str) -> None:
        self.texts[name] = text


def serving(*publishes: Publish, session_present: bool = False, codes: tuple[int, ...] = (1,)) -> Script:
    """Takes CONNECT and SUBSCRIBE, and sends some publishes with the SUBACK, or the CONNACK of a kept session."""

    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        data = b"".join(encode(each, level) for each in publishes)
        if isinstance(packet, Connect):
            writer.write(encode(Connack(session_present), level) + (data if session_present else b""))
        elif isinstance(packet, Subscribe):
            writer.write(encode(Suback(packet.packet_id, list(codes)), level) + (b"" if session_present else data))

    return script


class Parts:
    """An ingest, the broker that it takes into, and the one that it takes from."""

    def __init__(self, other: OtherBroker, sink: HoldingSink, source: MqttSource) -> None:
        self.other = other
        self.sink = sink
        self.source = source

    def of_kind(self, kind: type[Packet]) -> list[Any]:
        return [packet for packet in self.other.packets if isinstance(packet, kind)]

    @property
    def acknowledged(self) -> list[int]:
        return [packet.packet_id for packet in self.of_kind(Puback)]

    @property
    def stored(self) -> list[str]:
        return [route.topic_name for run in self.sink.runs for route in run.routes]


@asynccontextmanager
async def taking(script: Script, notes: Notes | None = None, **table: Any) -> AsyncIterator[Parts]:
    other = OtherBroker(script)
    port = await other.open()
    values = {"name": "x", "broker": f"mqtt://127.0.0.1:{port}", "topics": ("a/#",), "reconnect_s_max": 0.1, **table}
    sink = HoldingSink()
    async with Broker(BrokerConfig(tcp_bind=None), sink) as broker:
        source = MqttSource(IngestTable(**values), "me", broker, notes or Notes(), mark="us", packet_bytes_max=1 << 20)
        source.start()
        try:
            yield Parts(other, sink, source)
        finally:
            sink.commit()
            await source.close()
            await other.close()


async def test_a_message_is_acknowledged_once_it_is_stored() -> None:
    async with taking(serving(Publish("a/1", b"x", 1, packet_id=7))) as parts:
        await eventually_async(lambda: parts.stored == ["a/1"])
        await eventually_async(lambda: parts.of_kind(Pingreq))
        assert parts.acknowledged == []
        parts.sink.commit()
        await eventually_async(lambda: parts.acknowledged == [7])


async def test_the_end_waits_for_what_is_about_to_be_stored() -> None:
    async with taking(serving(Publish("a/1", b"x", 1, packet_id=7))) as parts:
        await eventually_async(lambda: parts.stored == ["a/1"])
        ending = asyncio.create_task(parts.source.close())
        await asyncio.sleep(0)
        parts.sink.commit()
        await ending
        await eventually_async(lambda: Disconnect() in parts.other.packets)
        assert parts.acknowledged == [7]


async def test_a_kept_session_is_not_subscribed_again_unless_something_has_changed() -> None:
    notes = Notes()
    async with taking(serving(), notes, topics=("a/#", "b")) as parts:
        await eventually_async(lambda: notes.texts)
        (subscribe,) = parts.of_kind(Subscribe)
        assert [each.topic_filter for each in subscribe.subscriptions] == ["a/#", "b"]
    async with taking(serving(session_present=True), notes, topics=("a/#", "b")) as parts:
        await eventually_async(lambda: parts.of_kind(Pingreq))
        assert not parts.of_kind(Subscribe)
    async with taking(serving(session_present=True), notes, topics=("b", "c")) as parts:
        await eventually_async(lambda: parts.of_kind(Subscribe))
        assert [each.topic_filters for each in parts.of_kind(Unsubscribe)] == [["a/#"]]
    async with taking(serving(), notes, topics=("b", "c")) as parts:
        await eventually_async(lambda: parts.of_kind(Subscribe))


async def test_subscriptions_say_how_retained_messages_are_wanted() -> None:
    async with taking(serving(), share="g", qos=2, retained="skip") as parts:
        await eventually_async(lambda: parts.of_kind(Subscribe))
        (subscription,) = parts.of_kind(Subscribe)[0].subscriptions
        assert (subscription.topic_filter, subscription.qos) == ("$share/g/a/#", 2)
        assert (subscription.retain_as_published, subscription.retain_handling) == (False, 2)


async def test_a_filter_that_is_refused_is_shown() -> None:
    async with taking(serving(codes=(1, 0x87)), topics=("a/#", "b")) as parts:
        await eventually_async(lambda: parts.source.refused_filters == {"b": "not authorized"})
        assert parts.source.describe()["refused_filters"] == {"b": "not authorized"}


async def test_a_3_1_1_broker_is_not_read_from_while_too_much_waits() -> None:
    """It knows no Receive Maximum; at half of it reading goes on."""
    many = [Publish("a/1", b"x", 1, packet_id=number) for number in range(1, 8)]
    later: list[asyncio.StreamWriter] = []

    def script(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
        serving(*many)(writer, packet, level)
        later.append(writer)

    async with taking(script, version="3.1.1", receive_maximum=4) as parts:
        await eventually_async(lambda: parts.source.inlet.unstored == 7)
        assert parts.source.pauses == 1
        later[-1].write(encode(Publish("a/late", b"x", 1, packet_id=9), 4))
        await later[-1].drain()
        assert parts.source._pauses == {"unstored"}
        assert "a/late" not in parts.stored
        parts.sink.commit()
        await eventually_async(lambda: parts.stored == ["a/late"])
        await eventually_async(lambda: parts.acknowledged == list(range(1, 8)))


async def test_a_log_that_stalls_ends_the_connection_without_an_answer() -> None:
    async with taking(serving(Publish("a/1", b"x", 1, packet_id=7))) as parts:
        await eventually_async(lambda: parts.stored == ["a/1"])
        (run,) = parts.sink.runs
        parts.sink.runs.clear()
        assert run.origin is not None
        run.origin.refuse(run, 0x97)
        await eventually_async(lambda: parts.source.client.connections == 2)
        assert (parts.source.stalls, parts.acknowledged) == (1, [])
        await eventually_async(lambda: parts.stored == ["a/1"])


async def test_a_log_that_cannot_follow_stays_unread_over_a_new_connection() -> None:
    async with taking(serving(Publish("a/1", b"x", 1, packet_id=7))) as parts:
        await eventually_async(lambda: parts.stored == ["a/1"])
        parts.source.pause_reading()
        assert parts.source.client.link is not None
        parts.source.client.link.abort(LinkFailed("cut"))
        await eventually_async(lambda: parts.source.client.connections == 2)
        await eventually_async(lambda: len(parts.of_kind(Subscribe)) == 2)
        assert parts.source.client.link is not None
        assert parts.source.client.link._is_paused
        assert parts.stored == ["a/1"]
        parts.source.resume_reading()
        await eventually_async(lambda: parts.stored == ["a/1", "a/1"])


async def test_what_we_have_sent_ourselves_does_not_come_in() -> None:
    properties = Properties()
    properties.user_properties = [("headrace-from", "us")]
    others = Properties()
    others.user_properties = [("headrace-from", "them")]
    publishes = (
        Publish("a/ours", b"x", 1, packet_id=1, properties=properties),
        Publish("a/theirs", b"x", 1, packet_id=2, properties=others),
    )
    async with taking(serving(*publishes)) as parts:
        await eventually_async(lambda: parts.stored == ["a/theirs"])
        await eventually_async(lambda: parts.acknowledged == [1])
        assert parts.source.dropped == {"own": 1}


async def test_topics_that_do_not_fit_are_acknowledged_and_counted() -> None:
    publishes = (
        Publish("elsewhere", b"x", 1, packet_id=1),
        Publish("a/" + "t" * 65_000, b"x", 1, packet_id=2),
        Publish("a/fine", b"x", 1, packet_id=3),
    )
    async with taking(serving(*publishes), remove_prefix="a/", prefix="p" * 1_000 + "/") as parts:
        await eventually_async(lambda: parts.stored == ["p" * 1_000 + "/fine"])
        assert parts.source.dropped == {"bad_topic": 2}
        parts.sink.commit()
        await eventually_async(lambda: parts.acknowledged == [1, 2, 3])


async def test_a_topic_alias_that_was_not_allowed_breaks_the_protocol() -> None:
    properties = Properties()
    properties.topic_alias = 1
    async with taking(serving(Publish("", b"x", properties=properties))) as parts:
        await eventually_async(lambda: Disconnect(0x82) in parts.other.packets)
        assert "breaks the protocol" in str(parts.source.client.failure)
