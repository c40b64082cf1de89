"""Replays: ends at a time, and history at its own pace, over a real hub and memory streams."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from bridge.cursors import Cursor
from bridge.live import pacing
from bridge.live.limits import LiveLimits
from bridge.live.reader import Place
from bridge.live.start import Start, start_at_cursor, start_at_time, start_live
from bridge.streams.memory_log import MemoryLog
from tests.unit.live.parts import Event, MemoryOutlet, Side, turns, until

T0 = 1_795_374_000_000


class Clock:
    """The wall clock of the live side, which stands still until it is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, now_ms: int) -> None:
        self.now_ms = now_ms
        monkeypatch.setattr("bridge.live.pacing.now_ms", lambda: self.now_ms)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch, T0 + 10_000)


async def since(side: Side, since_ms: int, *, until_ms: int | None = None, speed: float | None = None) -> Start:
    start = await start_at_time(list(side.logs.values()), since_ms)
    start.until_ms, start.speed = until_ms, speed
    return start


def names(outlet: MemoryOutlet) -> list[str]:
    return [event.name for event in outlet.events if event.name]


def payloads(outlet: MemoryOutlet) -> list[object]:
    return [event.data["payload"] for event in outlet.messages()]


async def test_replay_ends_exactly_at_its_time_and_closes(clock: Clock) -> None:
    async with Side() as side:
        for number in range(10):
            side.publish(("a", b"%d" % number), ("b", b"0"), time_ms=T0 + 100 * number)
        outlet = side.open("a", start=await since(side, T0 + 200, until_ms=T0 + 700))
        await until(lambda: outlet.is_closed)
        assert names(outlet) == ["message"] * 5 + ["end"]
        assert payloads(outlet) == [2, 3, 4, 5, 6]
        assert outlet.events[-1].id == str(Cursor({"default": side.logs["default"].position({0: 14})}))
        assert not side.hub.readers


async def test_end_waits_for_what_is_not_committed_yet(clock: Clock) -> None:
    async with Side() as side:
        side.publish(("a", b"0"), time_ms=T0)
        side.append([("a", b"1")], time_ms=T0 + 5)
        outlet = side.open("a", start=await since(side, T0, until_ms=T0 + 10))
        await until(lambda: outlet.messages())
        await turns(50)
        assert names(outlet) == ["message"]
        side.turn()
        side.publish(("a", b"2"), time_ms=T0 + 10)
        await asyncio.wait_for(closed(outlet), 10)
        assert payloads(outlet) == [0, 1]
        assert names(outlet)[-1] == "end"


async def closed(outlet: MemoryOutlet) -> None:
    while not outlet.is_closed:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def test_live_reader_ends_at_a_time_to_come(clock: Clock) -> None:
    async with Side() as side:
        side.publish(("a", b"0"), time_ms=T0)
        end_ms = clock.now_ms + pacing.LEAD_MS + 30
        outlet = side.open("a", start=await since(side, T0, until_ms=end_ms))
        await until(lambda: "live" in names(outlet))
        side.publish(("a", b"1"), time_ms=clock.now_ms)
        assert payloads(outlet) == [0, 1]
        clock.now_ms = end_ms - 1
        await asyncio.wait_for(left_group(side), 10)
        side.publish(("a", b"2"), time_ms=end_ms - 1)
        side.publish(("a", b"3"), time_ms=end_ms)
        await turns(20)
        assert not outlet.is_closed
        clock.now_ms = end_ms
        await asyncio.wait_for(closed(outlet), 10)
        assert payloads(outlet) == [0, 1, 2]
        assert names(outlet) == ["message", "live", "message", "message", "end"]


async def left_group(side: Side) -> None:
    while any(reader.place is Place.LIVE for reader in side.hub.readers):  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def test_end_is_written_after_all_that_waits_and_closes_when_it_was_taken(clock: Clock) -> None:
    async with Side(limits=LiveLimits(feed_bytes_max=2_000)) as side:
        for number in range(100):
            side.publish(("a", b"%d" % number), time_ms=T0 + number)
        outlet = MemoryOutlet()
        outlet.stop_reading()
        side.open("a", start=await since(side, T0, until_ms=T0 + 1_000), outlet=outlet)
        while not outlet.events or outlet.events[-1].name != "end":
            await until(lambda: outlet.is_paused)
            assert not outlet.is_closed
            if outlet.events[-1].name == "end":
                break
            outlet.read()
            outlet.stop_reading()
            await turns(20)
        assert payloads(outlet) == list(range(100))
        assert not outlet.is_closed
        outlet.read()
        assert outlet.is_closed


async def test_paced_events_never_come_before_their_time() -> None:
    async with Side() as side:
        times = [0, 40, 40, 100, 160]
        for number, time_ms in enumerate(times):
            side.publish(("a", b"%d" % number), time_ms=T0 + time_ms)
        loop = asyncio.get_running_loop()
        outlet = side.open("a", start=await since(side, T0 - 60_000, speed=2))
        arrived: list[float] = []
        while len(arrived) < len(times):
            arrived += [loop.time()] * (len(outlet.messages()) - len(arrived))
            await asyncio.sleep(0.001)
        for time_ms, moment in zip(times, arrived, strict=True):
            assert moment - arrived[0] >= time_ms / 1000 / 2 - 0.015
        await until(lambda: "live" in names(outlet))
        side.publish(("a", b"9"), time_ms=T0 + 900_000)
        assert payloads(outlet) == [0, 1, 2, 3, 4, 9]


async def test_paced_replay_of_several_streams_is_in_order_of_time_and_resumes_anywhere() -> None:
    chance = random.Random(5)
    logs = [MemoryLog("one", node_run="n7"), MemoryLog("two", node_run="n7"), MemoryLog("three", node_run="n7")]
    async with Side(*logs) as side:
        time_ms = T0
        for number in range(300):
            time_ms += chance.choice([1, 3])
            side.publish(
                ("a" if number % 3 else "other", b"%d" % number), stream=chance.choice(logs).name, time_ms=time_ms
            )
        outlet = side.open("a", start=await since(side, T0, speed=100_000))
        await until(lambda: "live" in names(outlet))
        numbers = payloads(outlet)
        assert numbers == [number for number in range(300) if number % 3]
        messages = outlet.messages()
        for event in chance.sample(messages, 12):
            rest = await resumed(side, logs, event, speed=100_000)
            assert rest == numbers[messages.index(event) + 1 :]


async def resumed(side: Side, logs: Sequence[MemoryLog], event: Event, speed: float) -> list[object]:
    assert event.id is not None
    start = start_at_cursor(side.hub, logs, Cursor.parse(event.id))
    start.speed = speed
    outlet = side.open("a", start=start)
    await until(lambda: "live" in names(outlet))
    return payloads(outlet)


async def test_paced_replay_with_an_end(clock: Clock) -> None:
    async with Side() as side:
        for number in range(6):
            side.publish(("a", b"%d" % number), time_ms=T0 + 1_000 * number)
        outlet = side.open("a", start=await since(side, T0 + 1_000, until_ms=T0 + 4_000, speed=1_000_000))
        await until(lambda: outlet.is_closed)
        assert payloads(outlet) == [1, 2, 3]
        assert names(outlet)[-1] == "end"


async def test_reader_that_leaves_while_it_waits_leaves_nothing_behind() -> None:
    async with Side() as side:
        side.publish(("a", b"0"), time_ms=T0)
        side.publish(("a", b"1"), time_ms=T0 + 3_600_000)
        outlet = side.open("a", start=await since(side, T0, speed=1))
        await until(lambda: outlet.messages())
        assert outlet.reader is not None
        assert outlet.reader.place is Place.FEEDING
        await side.hub.beat()
        assert outlet.events[-1].id is not None
        outlet.reader.close()
        await turns(20)
        assert not side.hub.readers
        assert payloads(outlet) == [0]


async def test_paced_reader_is_told_of_what_retention_has_dropped() -> None:
    log = MemoryLog("default", node_run="n7", bytes_max=40_000)
    async with Side(log) as side:
        side.publish(("a", b"0"), time_ms=T0)
        start = await since(side, T0, speed=1_000_000)
        for number in range(1, 200):
            side.publish(("a", b"%d" % number), time_ms=T0 + number)
        outlet = side.open("a", start=start)
        await until(lambda: "live" in names(outlet))
        assert names(outlet)[0] == "gap"
        assert outlet.events[2].data["lost"] == log.first_offset
        assert outlet.offsets() == list(range(log.first_offset, 200))


async def test_speed_without_history_is_live_at_once() -> None:
    async with Side() as side:
        side.publish(("a", b"0"), time_ms=T0)
        start = start_live(side.hub, list(side.logs.values()))
        start.speed = 2
        outlet = side.open("a", start=start)
        await until(lambda: any(reader.place is Place.LIVE for reader in side.hub.readers))
        side.publish(("a", b"1"), time_ms=T0)
        assert payloads(outlet) == [1]
