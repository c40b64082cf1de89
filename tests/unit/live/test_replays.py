"""Replays over real streams: memory logs, hub, intake and engine, without a socket."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bridge.ingest.intake import Intake, IntakeLimits
from bridge.live.hub import Hub
from bridge.live.latest import LatestValues
from bridge.live.limits import LiveLimits
from bridge.live.replays import LogReplays, parse_since_ms
from bridge.stream_map import StreamMap
from bridge.streams.log import StreamLogError
from bridge.streams.memory_log import MemoryLog
from broker.codec.packets import Puback, Pubcomp, Publish, Pubrec, Suback, Subscribe, Subscription
from broker.codec.properties import Properties
from broker.config import BrokerConfig
from broker.engine import Engine
from broker.replay import ReplayPiece, ReplayRefused, ReplayRequest
from broker.sessions.session import Session
from tests.support.conditions import eventually_async
from tests.support.engine_client import EngineClient, turn

NOW_MS = 1_800_000_000_000


class FailingLog(MemoryLog):
    """A log whose history cannot be read for a while."""

    failures_left = 0

    async def scan(self, request: Any) -> Any:
        if self.failures_left:
            self.failures_left -= 1
            raise StreamLogError("the disk is away")
        return await super().scan(request)


class Side:
    """Stream `a` takes a/#, stream `b` takes b/#; nothing takes the rest."""

    def __init__(
        self, *, bytes_max: int = 1 << 30, live: dict[str, int] | None = None, broker: dict[str, int] | None = None
    ) -> None:
        self.clock_ms = NOW_MS
        self.a = FailingLog("a", bytes_max=bytes_max, node_run="n7", clock=lambda: self.clock_ms)
        self.b = MemoryLog("b", bytes_max=bytes_max, node_run="n7", clock=lambda: self.clock_ms)
        streams = StreamMap([(self.a, ["a/#"]), (self.b, ["b/#"])])
        self.latest = LatestValues("n7")
        self.hub = Hub([self.a, self.b], "n7", self.latest, LiveLimits(**(live or {})))  # type: ignore[arg-type]
        self.intake = Intake(streams.stream_for, [self.a, self.b], None, IntakeLimits(), time.monotonic)
        self.intake.connect(self.hub, lambda: None)
        self.source = LogReplays(self.hub, streams.streams_for, self._on_given, retry_s=0.01)
        self.engine = Engine(BrokerConfig(**(broker or {})), self.intake, self.source)
        self.publishers: dict[int, EngineClient] = {}
        self._packet_id = 0

    def _on_given(self) -> None:
        turn(self.engine)

    def connected(self, client_id: str = "s", *, level: int = 5, **more: Any) -> EngineClient:
        """A client whose session is kept."""
        properties = Properties()
        properties.session_expiry_interval = 3_600
        for name in ("receive_maximum", "maximum_packet_size"):
            if name in more:
                setattr(properties, name, more.pop(name))
        client = EngineClient(self.engine, level)
        client.connect(client_id, clean=False, properties=properties if level == 5 else None, **more)
        return client

    def publish(self, topic_name: str, payload: bytes, qos: int = 1, *, level: int = 5, retain: bool = False) -> None:
        """One publish, committed."""
        publisher = self.publishers.get(level)
        if publisher is None:
            publisher = self.publishers[level] = EngineClient(self.engine, level)
            publisher.connect(f"p{level}")
        self._packet_id = self._packet_id % 500 + 1
        packet = Publish(topic_name, payload, qos, retain, False, self._packet_id if qos else 0)
        publisher.now_ms = self.clock_ms
        publisher.send(packet)
        if qos == 2:
            publisher.send_bytes(b"\x62\x02" + self._packet_id.to_bytes(2))
        publisher.received()


@asynccontextmanager
async def opened(side: Side) -> AsyncIterator[Side]:
    await side.latest.open([side.a, side.b])
    side.hub.open()
    side.source.open_feeders()
    try:
        yield side
    finally:
        await side.source.close()
        await side.hub.close()
        await side.latest.close()


class Collected:
    """What a client gets, acknowledged as it comes."""

    def __init__(self, client: EngineClient) -> None:
        self.client = client
        self.packets: list[Publish] = []

    def take(self) -> None:
        for packet in self.client.received():
            if isinstance(packet, Publish):
                self.packets.append(packet)
                if packet.qos == 1:
                    self.client.send(Puback(packet.packet_id))
                elif packet.qos == 2:
                    self.client.send(Pubrec(packet.packet_id))
                    self.client.send(Pubcomp(packet.packet_id))

    async def until(self, count: int) -> list[Publish]:
        def has() -> bool:
            self.take()
            return len(self.packets) >= count

        await eventually_async(has, what=f"{count} messages", interval_s=0.001)
        return self.packets

    @property
    def payloads(self) -> list[bytes]:
        return [packet.payload for packet in self.packets]


def fields(packet: Publish) -> dict[str, str]:
    assert packet.properties is not None
    return dict(packet.properties.user_properties)


def subscribe(client: EngineClient, name: str = "$replay/-1h/#", qos: int = 1, **options: Any) -> Collected:
    properties = Properties()
    identifier = options.pop("subscription_identifier", 0)
    if identifier:
        properties.subscription_identifiers = [identifier]
    client.send(Subscribe(1, [Subscription(name, qos, **options)], properties if client.level == 5 else None))
    (suback,) = client.received()
    assert suback == Suback(1, [qos])
    return Collected(client)


def session_of(client: EngineClient) -> Session:
    session = client.connection.session
    assert session is not None
    return session


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_history_of_two_streams_then_live(level: int, qos: int) -> None:
    async with opened(Side()) as side:
        for number in range(30):
            side.publish(f"{'ab'[number % 2]}/x", b"%d" % number, 2)
        collected = subscribe(side.connected(level=level), qos=qos)
        await collected.until(30)
        assert collected.payloads == [b"%d" % number for number in [*range(0, 30, 2), *range(1, 30, 2)]]
        for number in range(30, 60):
            side.publish(f"{'ab'[number % 2]}/x", b"%d" % number, 2)
        await collected.until(60)
        for stream, rest in (("a", 0), ("b", 1)):
            of_stream = [int(each.payload) for each in collected.packets if each.topic_name == f"{stream}/x"]
            assert of_stream == list(range(rest, 60, 2))
        assert {packet.qos for packet in collected.packets} == {qos}
        if level == 5:
            assert [
                (fields(each)["stream"], fields(each)["offset"])
                for each in collected.packets
                if each.topic_name == "b/x"
            ] == [("b", str(offset)) for offset in range(30)]


async def test_now_begins_with_what_is_committed_next() -> None:
    async with opened(Side()) as side:
        side.publish("a/x", b"before")
        collected = subscribe(side.connected(), "$replay/now/#")
        side.publish("a/x", b"after")
        assert [packet.payload for packet in await collected.until(1)] == [b"after"]


async def test_since_is_found_by_time_in_each_stream() -> None:
    async with opened(Side()) as side:
        for number in range(10):
            side.clock_ms = NOW_MS + 1000 * number
            side.publish("a/x", b"a%d" % number)
            side.publish("b/x", b"b%d" % number)
        client = side.connected()
        client.now_ms = side.clock_ms
        collected = subscribe(client, f"$replay/{NOW_MS + 7_000}/+/x")
        assert [packet.payload for packet in await collected.until(6)] == [b"a7", b"a8", b"a9", b"b7", b"b8", b"b9"]
        relative = subscribe(client, "$replay/-1500ms/a/#")
        assert [packet.payload for packet in await relative.until(2)] == [b"a8", b"a9"]


async def test_filter_that_reaches_no_stream_is_granted_and_silent() -> None:
    async with opened(Side()) as side:
        collected = subscribe(side.connected(), "$replay/-1h/c/#")
        side.publish("c/x", b"1")
        side.publish("a/x", b"2")
        witness = subscribe(side.connected("other"), "$replay/-1h/a/#")
        await witness.until(1)
        collected.take()
        assert collected.packets == []


async def test_options_of_the_subscription_hold() -> None:
    async with opened(Side()) as side:
        client = side.connected("p5", maximum_packet_size=2_000)
        side.publishers[5] = client
        side.publish("a/own", b"0")
        side.publish("a/x", b"1", 1, level=4, retain=True)
        side.publish("a/x", b"x" * 3_000, 1, level=4)
        side.publish("a/x", b"2", 0, level=4)
        collected = subscribe(
            client, no_local=True, retain_as_published=True, subscription_identifier=77, retain_handling=0
        )
        await collected.until(2)
        side.publish("a/x", b"3", 1, level=4)
        await collected.until(3)
        assert [(each.payload, each.qos, each.retain) for each in collected.packets] == [
            (b"1", 1, True),
            (b"2", 0, False),
            (b"3", 1, False),
        ]
        assert all(each.properties and each.properties.subscription_identifiers == [77] for each in collected.packets)
        assert side.engine.metrics.dropped_messages["packet_too_large"] == 1


@pytest.mark.parametrize("level", [4, 5])
async def test_gap_of_retention_is_told_and_everything_kept_follows(level: int) -> None:
    async with opened(Side(bytes_max=60_000)) as side:
        client = side.connected(level=level)
        collected = subscribe(client)
        side.publish("a/x", b"first")
        await collected.until(1)
        client.lose()
        for number in range(200):
            side.publish("a/x", b"%d" % number + b"." * 1_000)
        kept_from = side.a.first_offset
        assert kept_from > 1
        again = Collected(side.connected(level=level))
        packets = await again.until(1 + 200 - (kept_from - 1))
        gap = packets[0]
        assert gap.topic_name == "$replay/gap"
        assert gap.qos == 1
        data = json.loads(gap.payload)
        assert data == {
            "from": f"a~{side.a.epoch}~0.1~~b~{side.b.epoch}~0.0",
            "to": f"a~{side.a.epoch}~0.{kept_from}~~b~{side.b.epoch}~0.0",
            "lost": kept_from - 1,
            "reason": "retention",
        }
        if level == 5:
            assert fields(gap) == {"reason": "retention", "filter": "$replay/-1h/#"}
        assert [int(each.payload.split(b".")[0]) for each in packets[1:]] == list(range(kept_from - 1, 200))
        assert side.source.gaps == 1


async def test_subscriber_that_is_too_slow_for_retention_is_told_while_it_reads() -> None:
    async with opened(Side(bytes_max=400_000, live={"replay_piece_bytes_max": 20_000})) as side:
        for number in range(100):
            side.publish("a/x", b"%d" % number + b"." * 1_000)
        client = side.connected(receive_maximum=1)
        subscribe(client)
        await eventually_async(lambda: session_of(client).inflight is not None)
        for number in range(100, 1_000):
            side.publish("a/x", b"%d" % number + b"." * 1_000)
        collected = Collected(client)
        session_of(client).quota = 1_000
        client.received()
        client.send(Puback(1))

        def has_all() -> bool:
            collected.take()
            return bool(collected.packets) and collected.packets[-1].payload.startswith(b"999.")

        await eventually_async(has_all)
        lost = 0
        expected = 1
        for packet in collected.packets:
            if packet.topic_name == "$replay/gap":
                missing = json.loads(packet.payload)["lost"]
                lost += missing
                expected += missing
            else:
                assert int(packet.payload.split(b".")[0]) == expected
                expected += 1
        assert lost > 0
        assert expected == 1_000


class Pieces:
    """A reader that keeps what it is given."""

    def __init__(self) -> None:
        self.pieces: list[ReplayPiece] = []

    def take(self, piece: ReplayPiece) -> None:
        self.pieces.append(piece)


class Broken:
    """A reader that cannot."""

    def take(self, piece: ReplayPiece) -> None:
        raise RuntimeError("broken")


def request_at(position: str, **more: Any) -> ReplayRequest:
    values: dict[str, Any] = {
        "name": "$replay/-1h/#",
        "topic_filter": "#",
        "position": position,
        "is_v5": True,
        "qos": 1,
        "retain_as_published": False,
        "subscription_identifier": 0,
        "left_out_client_id": None,
        "packet_bytes_max": 0,
    }
    return ReplayRequest(**(values | more))


async def test_position_of_another_epoch_is_told_and_everything_kept_follows() -> None:
    async with opened(Side()) as side:
        side.publish("a/x", b"1")
        reader = Pieces()
        position = f"a~mOTHER~0.17~~b~{side.b.epoch}~0.0"
        feed = side.source.open(request_at(position), reader)
        feed.pull()
        feed.pull()
        await eventually_async(lambda: len(reader.pieces) == 2)
        gap, rest = reader.pieces
        assert b'"reason":"epoch"' in gap.data
        assert gap.position_at(0) == position
        assert gap.position_at(1) == f"a~{side.a.epoch}~0.0~~b~{side.b.epoch}~0.0"
        assert rest.count == 1
        feed.close()


async def test_gap_that_the_client_cannot_take_is_counted() -> None:
    """[MQTT-3.1.2-25]"""
    async with opened(Side()) as side:
        side.publish("a/x", b"1")
        reader = Pieces()
        feed = side.source.open(request_at("a~mOTHER~0.17", packet_bytes_max=150), reader)
        feed.pull()
        feed.pull()
        await eventually_async(lambda: len(reader.pieces) == 2)
        gap, rest = reader.pieces
        assert (gap.count, gap.data, gap.left_out) == (0, b"", 1)
        assert rest.count == 1
        feed.close()


async def test_reader_that_fails_stops_no_other() -> None:
    async with opened(Side(live={"feeders": 1})) as side:
        side.publish("a/x", b"1")
        for _ in range(3):
            side.source.open(request_at("@0"), Broken()).pull()
        collected = subscribe(side.connected())
        assert [packet.payload for packet in await collected.until(1)] == [b"1"]


async def test_position_moves_on_while_nothing_matches() -> None:
    """Else what retention drops of other topics would be a gap."""
    async with opened(Side(bytes_max=60_000)) as side:
        client = side.connected()
        collected = subscribe(client, "$replay/-1h/a/rare")
        side.publish("a/rare", b"1")
        await collected.until(1)
        await eventually_async(
            lambda: session_of(client).replays["$replay/-1h/a/rare"].state().position.endswith("0.1")
        )  # type: ignore[index]
        for _ in range(300):
            side.publish("a/often", b"." * 1_000)
        assert side.a.first_offset > 2
        side.publish("a/rare", b"2")
        await collected.until(2)
        for _ in range(300):
            side.publish("a/often", b"." * 1_000)
        client.lose()
        again = Collected(side.connected())
        side.publish("a/rare", b"3")
        await again.until(1)
        assert collected.payloads + again.payloads == [b"1", b"2", b"3"]
        assert side.source.gaps == 0


async def test_history_that_cannot_be_read_is_tried_again() -> None:
    async with opened(Side()) as side:
        for number in range(10):
            side.publish("a/x", b"%d" % number)
        side.a.failures_left = 3
        collected = subscribe(side.connected())
        await collected.until(10)
        assert collected.payloads == [b"%d" % number for number in range(10)]
        assert side.source.read_failures == 3


async def test_subscribers_at_the_same_place_share_what_is_read() -> None:
    async with opened(Side()) as side:
        for number in range(100):
            side.publish("a/x", b"%d" % number)
        many = [subscribe(side.connected(f"s{index}")) for index in range(10)]
        for collected in many:
            await collected.until(100)
        before = side.source.pieces.shared
        assert before >= 8
        side.publish("a/x", b"100")
        for collected in many:
            await collected.until(101)
        assert side.source.pieces.shared >= before + 8


async def test_nothing_is_read_for_a_client_that_is_away() -> None:
    async with opened(Side()) as side:
        client = side.connected()
        subscribe(client)
        client.lose()
        position = session_of(client).replays["$replay/-1h/#"].state().position  # type: ignore[index]
        side.publish("a/x", b"1")
        again = Collected(side.connected())
        assert [packet.payload for packet in await again.until(1)] == [b"1"]
        assert position != session_of(again.client).replays["$replay/-1h/#"].state().position  # type: ignore[index]


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_breaks_each_message_comes_once_and_in_order(seed: int) -> None:
    """Random publishes, acknowledgements, cuts and take-overs; the offsets of QoS 1 and 2 say what came."""
    choose = random.Random(seed)
    limits = {
        "replay_piece_bytes_max": choose.choice([2_000, 20_000, 262_144]),
        "scan_records_max": choose.choice([7, 500]),
    }
    async with opened(Side(live=limits)) as side:
        reliable: dict[str, list[int]] = {"a": [], "b": []}
        offsets = {"a": 0, "b": 0}

        def publish_some() -> None:
            for _ in range(choose.randrange(40)):
                stream, qos = choose.choice("ab"), choose.randrange(3)
                side.publish(f"{stream}/{choose.randrange(3)}", b"." * choose.randrange(300), qos)
                if qos:
                    reliable[stream].append(offsets[stream])
                offsets[stream] += 1

        publish_some()
        seen: dict[str, list[int]] = {"a": [], "b": []}
        outstanding: list[Publish] = []
        maximum = choose.choice([1, 5, 1_000])
        client = side.connected(receive_maximum=maximum)
        subscribe(client, qos=choose.choice([1, 2]))

        def take(acknowledges: Callable[[], bool]) -> None:
            for packet in client.received():
                if isinstance(packet, Publish) and packet.qos:
                    place = fields(packet)
                    offset, of_stream = int(place["offset"]), seen[place["stream"]]
                    if not packet.dup or offset not in of_stream:  # the first copy may have been lost with its bytes
                        of_stream.append(offset)
                    outstanding.append(packet)
                    assert len(outstanding) <= maximum
            while outstanding and acknowledges():
                packet = outstanding.pop(0)
                client.send(Puback(packet.packet_id) if packet.qos == 1 else Pubrec(packet.packet_id))
                if packet.qos == 2:
                    client.send(Pubcomp(packet.packet_id))

        for _ in range(60):
            what = choose.random()
            if what < 0.3:
                publish_some()
            elif what < 0.4:
                outstanding.clear()
                if choose.random() < 0.5:
                    client.lose()
                    publish_some()
                client = side.connected(receive_maximum=maximum)
            else:
                take(lambda: choose.random() < 0.7)
            await asyncio.sleep(0)

        def is_over() -> bool:
            take(lambda: True)
            return seen == reliable

        await eventually_async(is_over, timeout_s=5, what="all of it", interval_s=0.001)
        assert side.source.gaps == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-15m", NOW_MS - 900_000),
        ("-24h", NOW_MS - 86_400_000),
        ("1700000000000", 1_700_000_000_000),
        ("2026-11-22T19:00:00Z", 1_795_374_000_000),
        ("2026-11-22T19:00:00.123Z", 1_795_374_000_123),
    ],
)
def test_since(text: str, expected: int) -> None:
    assert parse_since_ms(text, NOW_MS) == expected


@pytest.mark.parametrize(
    "text", ["", "x", "-", "-1", "-1y", "24h", "2026-11-22T19:00:00", "2026-11-22T19:00:00+01:00", "Z", "١٢", "-1hZ"]
)
async def test_since_that_is_no_time_is_refused(text: str) -> None:
    async with opened(Side()) as side:
        with pytest.raises(ReplayRefused) as refused:
            side.source.start("#", text, NOW_MS)
        assert refused.value.reason_code == 0x8F
