"""Readers over a real hub and memory streams: no gap, no repeat, and nobody hurts another."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from bridge.live.held import Overflow
from bridge.live.hub import TooManyReaders
from bridge.live.limits import LiveLimits
from bridge.live.reader import Place, Reader
from bridge.live.snapshots import Snapshot
from bridge.live.start import Start, start_at_time
from bridge.streams.memory_log import MemoryLog
from broker.topics.names import matches
from tests.unit.live.parts import MemoryOutlet, Side, turns, until

SMALL = LiveLimits(
    waiting_bytes_max=6_000,
    conflate_from_bytes=3_000,
    feed_bytes_max=2_000,
    chunk_bytes_max=2_000,
    park_records_max=40,
    park_bytes_max=4_000,
)


async def test_live_reader_knows_its_position_before_the_first_event() -> None:
    async with Side() as side:
        side.publish(("a", b"1"))
        outlet = side.open("#")
        first = outlet.events
        assert [event.name for event in first] == ["", ""]
        side.publish(("a", b"2"))
        resumed = side.open("#", cursor=first[1].id)
        await until(lambda: resumed.messages())
        assert resumed.offsets() == [1]


async def test_equal_filters_get_the_same_bytes_and_are_encoded_once() -> None:
    async with Side() as side:
        outlets = [side.open("a/#") for _ in range(5)]
        side.publish(("a/b", b"1"), ("c", b"2"), ("a", b"3"))
        assert side.hub.events == 2
        assert len({bytes(outlet.written) for outlet in outlets}) == 1
        assert outlets[0].offsets() == [0, 2]


async def test_different_filters_over_one_stream_share_the_encoding() -> None:
    async with Side() as side:
        wide, narrow = side.open("#"), side.open("a")
        side.publish(("a", b"1"), ("b", b"2"), ("a", b"3"))
        assert side.hub.events == 3
        assert (wide.offsets(), narrow.offsets()) == ([0, 1, 2], [0, 2])


async def test_overlapping_filters_of_one_reader_give_an_event_once() -> None:
    async with Side() as side:
        outlet = side.open("#", "a/+", "a/b")
        side.publish(("a/b", b"1"), ("a/b", b"2"))
        assert outlet.offsets() == [0, 1]


async def test_history_then_live_without_gap_or_repeat() -> None:
    async with Side(limits=SMALL) as side:
        for number in range(100):
            side.publish(("a", b"%d" % number), ("b", b"x"))
        outlet = side.open("a", start=await start_at_time(list(side.logs.values()), 0))
        for number in range(100, 200):
            side.publish(("a", b"%d" % number), ("b", b"x"))
            await turns(1)
        await until(lambda: outlet.reader is not None and outlet.reader.place is Place.LIVE)
        side.publish(("a", b"200"))
        assert [event.data["payload"] for event in outlet.messages()] == list(range(201))
        names = [event.name for event in outlet.events if event.name]
        assert names.count("live") == 1
        live = next(event for event in outlet.events if event.name == "live")
        assert live.id == live.data["cursor"]


async def test_two_streams_resume_each_at_its_own_place() -> None:
    async with Side(MemoryLog("one", node_run="n7"), MemoryLog("two", node_run="n7")) as side:
        outlet = side.open("#")
        side.publish(("a", b"1"), stream="one")
        side.publish(("b", b"2"), stream="two")
        cursor = outlet.last_id()
        side.publish(("a", b"3"), stream="one")
        side.publish(("b", b"4"), stream="two")
        resumed = side.open("#", cursor=cursor)
        await until(lambda: len(resumed.messages()) == 2)
        assert [event.data["payload"] for event in resumed.messages()] == [3, 4]
        assert resumed.last_id() == outlet.last_id()


@pytest.mark.parametrize(
    ("make", "reason", "lost", "then"),
    [
        (lambda log: f"default~other~0.{log.next_offset}", "epoch", None, "all"),
        (lambda log: f"default~{log.epoch}~0.0", "retention", 20, "all"),
        (lambda log: f"default~{log.epoch}~0.999999", "unknown", None, "live"),
        (lambda log: f"gone~e1~0.5~~default~{log.epoch}~0.{log.next_offset}", "unknown", None, "live"),
    ],
    ids=["epoch", "retention", "beyond the end", "stream not configured"],
)
async def test_a_cursor_that_cannot_be_kept_is_told_as_a_gap(make, reason, lost, then) -> None:  # type: ignore[no-untyped-def]
    log = MemoryLog("default", node_run="n7", bytes_max=20_000)
    async with Side(log) as side:
        for number in range(20):
            side.publish(("a", b"%d" % number))
        log._kept.bytes_max = 1
        side.publish(("a", b"20"))
        log._kept.bytes_max = 1 << 20
        side.publish(("a", b"21"))
        assert log.first_offset == 20
        cursor = make(log)
        outlet = side.open("#", cursor=cursor)
        await until(lambda: any(event.name == "live" for event in outlet.events))
        gaps = [event for event in outlet.events if event.name == "gap"]
        assert len(gaps) == 1
        gap = gaps[0]
        assert (gap.data["reason"], gap.data["lost"], gap.data["from"]) == (reason, lost, cursor)
        assert gap.id == gap.data["to"]
        assert outlet.offsets() == ([20, 21] if then == "all" else [])
        side.publish(("a", b"22"))
        assert outlet.offsets()[-1] == 22


async def test_stream_that_the_cursor_does_not_name_begins_live() -> None:
    async with Side(MemoryLog("one", node_run="n7"), MemoryLog("two", node_run="n7")) as side:
        side.publish(("a", b"1"), stream="one")
        side.publish(("b", b"2"), stream="two")
        outlet = side.open("#", cursor=f"one~{side.logs['one'].epoch}~0.0")
        await until(lambda: any(event.name == "live" for event in outlet.events))
        assert [event.data["payload"] for event in outlet.messages()] == [1]
        assert not [event for event in outlet.events if event.name == "gap"]


async def test_full_replay_reader_is_fed_from_the_log_and_loses_nothing() -> None:
    async with Side(limits=SMALL) as side:
        slow, other = side.open("#"), side.open("#")
        slow.stop_reading()
        for number in range(300):
            side.publish(("a", b"%d" % number))
        assert slow.reader is not None
        assert slow.reader.place is Place.FULL
        assert slow.waiting_most < SMALL.waiting_bytes_max + 1_000
        assert other.offsets() == list(range(300))
        slow.read()
        await until(lambda: slow.reader is not None and slow.reader.place is Place.LIVE)
        side.publish(("a", b"300"))
        assert slow.offsets() == list(range(301))


async def test_only_retention_makes_a_gap_for_a_slow_replay_reader() -> None:
    log = MemoryLog("default", node_run="n7", bytes_max=20_000)
    async with Side(log, limits=SMALL) as side:
        slow = side.open("#")
        slow.stop_reading()
        for number in range(500):
            side.publish(("a", b"%d" % number))
        assert log.first_offset > 100
        slow.read()
        await until(lambda: slow.reader is not None and slow.reader.place is Place.LIVE)
        gaps = [event for event in slow.events if event.name == "gap"]
        assert [gap.data["reason"] for gap in gaps] == ["retention"]
        assert len(slow.offsets()) + gaps[0].data["lost"] == 500
        assert slow.offsets() == sorted(set(slow.offsets()))


async def test_full_conflate_reader_gets_the_latest_of_each_topic() -> None:
    async with Side(limits=SMALL) as side:
        slow = side.open("#", overflow="conflate")
        slow.stop_reading()
        for number in range(300):
            side.publish((f"t{number % 7}", b"%d" % number))
        assert slow.reader is not None
        assert slow.reader.place is Place.HOLDING
        before = len(slow.messages())
        slow.read()
        assert slow.reader.place is Place.LIVE
        late = slow.messages()[before:]
        assert sorted(event.data["payload"] for event in late) == list(range(293, 300))
        ids = [event.data["offset"] for event in late]
        assert ids == sorted(ids)
        side.publish(("t0", b"300"))
        assert slow.messages()[-1].data["payload"] == 300
        assert not [event for event in slow.events if event.name == "gap"]


async def test_conflate_reader_cut_while_it_drains_misses_no_latest_value() -> None:
    async with Side(limits=SMALL) as side:
        slow = side.open("#", overflow="conflate")
        slow.stop_reading()
        for number in range(400):
            side.publish((f"t{number % 50}", b"%d" % number))
        events = slow.events
        for cut in range(2, len(events) + 1):
            cursor = next(event.id for event in reversed(events[:cut]) if event.id is not None)
            seen = {event.data["topic"]: event.data["payload"] for event in events[:cut] if event.name == "message"}
            resumed = side.open("#", cursor=cursor)
            await until(lambda resumed=resumed: any(event.name == "live" for event in resumed.events))
            seen |= {event.data["topic"]: event.data["payload"] for event in resumed.messages()}
            assert seen == {f"t{number % 50}": number for number in range(350, 400)}
            assert resumed.reader is not None
            resumed.reader.close()


async def test_conflate_reader_with_too_many_topics_falls_back_to_the_log() -> None:
    async with Side(limits=SMALL) as side:
        slow = side.open("#", overflow="conflate")
        slow.stop_reading()
        for number in range(200):
            side.publish((f"topic/{number}", b"%d" % number))
        assert slow.reader is not None
        assert slow.reader.place is Place.FULL
        assert slow.reader.held is None
        slow.read()
        await until(lambda: slow.reader is not None and slow.reader.place is Place.LIVE)
        assert slow.offsets() == list(range(200))


async def test_full_drop_newest_reader_is_told_how_many_are_gone() -> None:
    async with Side(limits=SMALL) as side:
        slow = side.open("t/+", overflow="drop_newest")
        slow.stop_reading()
        for number in range(200):
            side.publish(("t/1", b"%d" % number), ("other", b"x"))
        assert slow.reader is not None
        assert slow.reader.place is Place.HOLDING
        sent = len(slow.messages())
        slow.read()
        assert slow.reader.place is Place.LIVE
        side.publish(("t/1", b"200"))
        assert [event.data["payload"] for event in slow.messages()] == [*range(sent), 200]
        (gap,) = [event for event in slow.events if event.name == "gap"]
        assert (gap.data["lost"], gap.data["reason"], gap.data["to"]) == (200 - sent, "overflow", gap.id)
        before = slow.events[slow.events.index(gap) - 1]
        resumed = side.open("t/+", cursor=gap.data["from"])  # what is gone for it is still in the log
        await until(lambda: len(resumed.messages()) == 201 - sent)
        assert (before.name, resumed.messages()[0].data["payload"]) == ("message", sent)
        assert (side.hub.dropped, slow.reader.dropped) == (200 - sent, 200 - sent)
        assert slow.waiting_most < 2 * SMALL.waiting_bytes_max


async def test_full_drop_oldest_reader_gets_the_newest_behind_a_gap() -> None:
    async with Side(limits=SMALL) as side:
        slow = side.open("#", overflow="drop_oldest")
        slow.stop_reading()
        for number in range(200):
            side.publish(("t", b"%d" % number))
        sent = len(slow.messages())
        slow.read()
        assert slow.reader is not None
        assert slow.reader.place is Place.LIVE
        side.publish(("t", b"200"))
        (gap,) = [event for event in slow.events if event.name == "gap"]
        payloads = [event.data["payload"] for event in slow.messages()]
        assert payloads == [*range(sent), *range(sent + gap.data["lost"], 201)]
        assert (gap.data["lost"] > 50, gap.data["reason"]) == (True, "overflow")
        assert gap.data["to"].endswith(f".{sent + gap.data['lost']}")


async def test_full_disconnect_reader_is_closed_and_resumes_where_it_was() -> None:
    async with Side(limits=SMALL) as side:
        cut: list[Reader] = []
        side.hub.on_cut = cut.append
        slow, other = side.open("#", overflow="disconnect"), side.open("#")
        slow.stop_reading()
        for number in range(200):
            side.publish(("t", b"%d" % number))
            await turns(1)
        assert (slow.is_closed, cut, side.hub.cut) == (True, [slow.reader], 1)
        assert other.offsets() == list(range(200))
        resumed = side.open("#", cursor=slow.last_id(), overflow="disconnect")
        await until(lambda: slow.offsets() + resumed.offsets() == list(range(200)))
        assert not resumed.is_closed


async def test_a_failing_outlet_hurts_nobody_else() -> None:
    class Broken(MemoryOutlet):
        is_broken = False

        def write(self, data: bytes) -> None:
            if self.is_broken:
                raise RuntimeError("the transport is gone")
            super().write(data)

    async with Side() as side:
        first, broken, last = side.open("#"), Broken(), None
        side.open("#", outlet=broken)
        last = side.open("#")
        broken.is_broken = True
        side.publish(("a", b"1"))
        side.publish(("a", b"2"))
        assert first.offsets() == last.offsets() == [0, 1]
        assert broken.is_closed
        assert len(side.hub.readers) == 2


async def test_heartbeat_tells_the_position_only_when_it_moved_without_an_event() -> None:
    async with Side() as side:
        outlet = side.open("a")
        side.publish(("b", b"1"))
        start = len(outlet.events)
        await side.hub.beat()
        await side.hub.beat()
        comment, position, again = outlet.events[start:]
        assert comment.comment
        assert again.comment
        assert position.name == ""
        assert position.id == f"default~{side.logs['default'].epoch}~0.1"
        assert position.data is None


async def test_snapshot_is_of_a_position_and_moves_no_reader_before_live() -> None:
    async with Side() as side:
        for number in range(10):
            side.publish((f"t{number % 3}", b"%d" % number), ("other", b"0"))
        await side.latest.settled()
        captured = [entry for entry in side.latest.capture() if entry.topic.name != "other"]
        start = Start(dict(side.latest.offsets), says_live=True, snapshot=Snapshot(captured))
        side.publish(("t1", b"10"))
        outlet = side.open("t0", "t1", "t2", start=start)
        await until(lambda: outlet.messages())
        named = [event for event in outlet.events if event.name]
        assert [event.name for event in named] == ["snapshot"] * 3 + ["live", "message"]
        assert {event.data["payload"] for event in named[:3]} == {7, 8, 9}
        assert [event.id for event in named[:3]] == [None] * 3
        assert (named[4].data["payload"], named[4].data["offset"]) == (10, 20)


async def test_readers_over_the_limit_are_refused() -> None:
    async with Side(limits=LiveLimits(readers_max=1)) as side:
        outlet = side.open("#")
        with pytest.raises(TooManyReaders):
            side.open("#")
        assert outlet.reader is not None
        outlet.reader.close()
        side.open("#")


async def test_nothing_is_left_of_closed_readers() -> None:
    async with Side() as side:
        for number in range(10):
            outlet = side.open(f"a/{number}", overflow="conflate")
            side.publish((f"a/{number}", b"1"))
            assert outlet.reader is not None
            outlet.reader.close()
        assert not side.hub.readers
        assert not side.hub._group_by_key
        assert side.hub._listeners.count == 0


@pytest.mark.parametrize("seed", range(40))
async def test_a_reader_cut_anywhere_sees_each_offset_once_and_misses_none(seed: int) -> None:
    """Random runs, turns, pauses, cuts and resumes, with each policy, several streams and a rare filter.

    What is dropped is told: with those, each offset is seen or counted once.
    """
    choose = random.Random(seed)
    names = ["one", "two"][: choose.choice([1, 2])]
    limits = replace(SMALL, waiting_bytes_max=1_500) if seed % 3 == 0 else SMALL
    async with Side(*(MemoryLog(name, node_run="n7") for name in names), limits=limits) as side:
        topics = [f"{kind}/{number}" for kind in "ab" for number in range(5)] + ["rare"]
        filters = choose.choice([("#",), ("rare",), ("a/+",), ("a/1", "b/#"), ("rare", "a/0")])
        sent: list[tuple[str, str, int, int]] = []  # stream, topic, offset, payload
        overflow: Overflow = choose.choice(["replay", "conflate", "drop_oldest", "drop_newest"])
        drops = overflow.startswith("drop")
        lost = [0, 0, 0]
        readers = [(side.open(*filters, overflow=overflow), [], {}) for _ in range(3)]
        outlets = [outlet for outlet, _, _ in readers]
        taken: list[list[tuple[str, int]]] = [[] for _ in readers]
        latest: list[dict[str, int]] = [{} for _ in readers]

        def take(index: int) -> str:
            outlet = outlets[index]
            events = outlet.events
            cut = len(events) if choose.random() < 0.5 else choose.randint(1, len(events))
            while not any(event.id for event in events[:cut]):
                cut += 1
            for event in events[:cut]:
                assert event.name != "gap" or (drops and event.data["reason"] == "overflow")
                if event.name == "gap":
                    lost[index] += event.data["lost"]
                if event.name == "message":
                    taken[index].append((event.data["stream"], event.data["offset"]))
                    latest[index][event.data["topic"]] = event.data["payload"]
            return next(event.id for event in reversed(events[:cut]) if event.id is not None)

        for _ in range(choose.randint(100, 250)):
            stream = choose.choice(names)
            mine = [topic for topic in topics if len(names) == 1 or (topic[0] in "ar") == (stream == "one")]
            log = side.logs[stream]
            for _ in range(choose.randint(1, 3)):
                rows = []
                for _ in range(choose.choice([1, 1, 2, 20])):
                    topic = choose.choice(mine if choose.random() < 0.05 else [t for t in mine if t != "rare"])
                    rows.append((topic, b"%d" % len(sent)))
                    sent.append((stream, topic, -1, len(sent)))
                side.append(rows, stream)
            side.turn()
            assert log.pending_bytes == 0
            index = choose.randrange(len(outlets))
            action = choose.random()
            if action < 0.15:
                outlets[index].stop_reading()
            elif action < 0.4:
                outlets[index].read()
            elif action < 0.5:
                cursor = take(index)
                reader = outlets[index].reader
                assert reader is not None
                reader.close()
                outlets[index] = side.open(*filters, overflow=overflow, cursor=cursor)
            await turns(choose.choice([0, 0, 1, 5]))
        for outlet in outlets:
            outlet.read()
        await until(lambda: all(o.reader is not None and o.reader.place is Place.LIVE for o in outlets))
        expected: list[tuple[str, int]] = []
        last: dict[str, int] = {}
        counters = dict.fromkeys(names, 0)
        for stream, topic, _, payload in sent:
            if any(matches(topic_filter, topic) for topic_filter in filters):
                expected.append((stream, counters[stream]))
                last[topic] = payload
            counters[stream] += 1
        for index, outlet in enumerate(outlets):
            for event in outlet.events:
                assert event.name != "gap" or (drops and event.data["reason"] == "overflow")
                if event.name == "gap":
                    lost[index] += event.data["lost"]
                if event.name == "message":
                    taken[index].append((event.data["stream"], event.data["offset"]))
                    latest[index][event.data["topic"]] = event.data["payload"]
            assert drops or latest[index] == last
            assert not drops or len(taken[index]) + lost[index] == len(expected)
            for name in names:
                mine_taken = [offset for stream, offset in taken[index] if stream == name]
                mine_expected = [offset for stream, offset in expected if stream == name]
                if overflow == "replay":
                    assert mine_taken == mine_expected
                else:
                    assert set(mine_taken) <= set(mine_expected)
                    assert mine_taken == sorted(set(mine_taken))
            if filters in (("rare",), ("#",)) and overflow == "replay":
                assert len(taken[index]) == len(expected)
