"""Latest values: settled in slices, bounded, and the state at a committed position."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from bridge.live.entries import ENTRY_BYTES, Entry
from bridge.live.latest import SELECT_TOPICS, SLICE_TOPICS, LatestValues
from bridge.live.snapshots import TopicNodes
from bridge.streams.frames import decode_body, encode_segment
from bridge.streams.sqlite_store import SqliteStore
from tests.support.log_contract import Committed, FakeClock, Opened, RunMaker
from tests.unit.live.parts import Side


async def chosen(latest: LatestValues, *filters: str) -> list[Entry]:
    await latest.settled()
    return [entry async for entries in latest.select(latest.capture(), filters) for entry in entries]


def payloads(entries: Sequence[Entry]) -> dict[str, bytes]:
    found = {}
    for entry in entries:
        run = entry.run()
        found[entry.topic.name] = run.data[run.payload_starts[0] : run.ends[0]]
    return found


async def test_newest_record_and_count_of_each_topic() -> None:
    async with Side() as side:
        side.publish(("a", b"1"), ("b", b"2"), ("a", b"3"))
        assert payloads(await chosen(side.latest, "#")) == {"a": b"3", "b": b"2"}
        side.publish(("b", b"4"))
        entries = await chosen(side.latest, "#")
        assert payloads(entries) == {"a": b"3", "b": b"4"}
        assert {entry.topic.name: (entry.count, entry.offset) for entry in entries} == {"a": (2, 2), "b": (2, 3)}
        assert side.latest.offsets == {"default": {0: 4}}


async def test_records_that_are_read_back_count_too() -> None:
    """As those of Kafka are, whose topics know of no stream."""
    async with Side() as side:
        log = side.logs["default"]
        run = RunMaker(log).run([b"1", b"2", b"3"], topics=["a", "b", "a"])
        side.latest.read(log, decode_body(b"".join(encode_segment(run, 7)), 0, {}))
        assert payloads(await chosen(side.latest, "#")) == {"a": b"3", "b": b"2"}


async def test_filters_choose_and_dollar_topics_need_to_be_named() -> None:
    async with Side() as side:
        side.publish(("a/b", b"1"), ("a/c", b"2"), ("$server/x", b"3"))
        assert set(payloads(await chosen(side.latest, "#"))) == {"a/b", "a/c"}
        assert set(payloads(await chosen(side.latest, "a/+", "$server/#"))) == {"a/b", "a/c", "$server/x"}
        assert set(payloads(await chosen(side.latest, "a/b", "nothing"))) == {"a/b"}


async def test_many_topics_are_settled_in_slices_and_a_snapshot_is_of_one_position() -> None:
    async with Side() as side:
        count = SLICE_TOPICS * 3 + SELECT_TOPICS
        for first in range(0, count, 100):
            side.publish(*[(f"t/{number}", b"0") for number in range(first, first + 100)])
        settling = asyncio.create_task(chosen(side.latest, "t/#"))
        await asyncio.sleep(0)
        side.publish(("t/0", b"1"))
        entries = await settling
        assert len(entries) == count
        assert all(entry.offset < count for entry in entries)


async def test_old_topics_leave_when_there_are_too_many() -> None:
    async with Side() as side:
        side.latest._entries.topics_max = 3
        for number in range(5):
            side.publish((f"t/{number}", b"0"))
        await side.latest.settled()
        side.publish(("t/2", b"1"))
        await side.latest.settled()
        side.publish(("t/5", b"0"))
        assert set(payloads(await chosen(side.latest, "#"))) == {"t/4", "t/2", "t/5"}
        assert side.latest.evicted == 3
        sizes = [len(entry.frame) + ENTRY_BYTES for entry in side.latest.capture()]
        assert side.latest.bytes == sum(sizes)


async def test_bytes_are_bounded_too() -> None:
    async with Side() as side:
        side.latest._entries.bytes_max = 10_000
        for number in range(50):
            side.publish((f"t/{number}", b"x" * 600))
        await side.latest.settled()
        assert side.latest.bytes <= 10_000
        assert side.latest.evicted > 30


async def test_what_leaves_memory_unsaved_is_saved_soon_and_found_after_a_restart(tmp_path: Path) -> None:
    """A stranger may send a new topic with each message; saving on time alone would keep all of them for that time."""
    store = SqliteStore.open(tmp_path, reader_processes=0)
    log = store.open_log("default")
    opened = Opened(log, RunMaker(log), Committed(log), FakeClock())
    latest = LatestValues("n1", topics_max=100)
    await latest.open([log])
    most = 0
    for first in range(0, 3_000, 100):
        run = opened.maker.run([b"x"] * 100, topics=[f"t/{number}" for number in range(first, first + 100)])
        await opened.store(run)
        latest.committed(log, [run])
        await latest.settled()
        await asyncio.sleep(0)  # the one who saves has a turn
        await latest.settled()
        most = max(most, len(latest._entries.unsaved["default"]))
    assert most < 1_000
    assert latest.evicted == 2_900
    await latest.close()
    await store.close()
    store = SqliteStore.open(tmp_path, reader_processes=0)
    entries, checkpoint = store.open_log("default").load_latest()
    assert (len(entries), checkpoint) == (3_000, {0: 3_000})
    await store.close()


async def test_no_read_buffer_stays_alive() -> None:
    async with Side() as side:
        side.publish(("a", b"1"), ("b", b"x" * 100_000))
        side.publish(("b", b"2"))
        await side.latest.settled()
        assert side.latest.bytes < 2_000
        assert len(side.latest._window) == 0


async def test_windows_do_not_pile_up_while_every_turn_brings_many_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each keeps some megabytes of what was read in memory."""
    monkeypatch.setattr("bridge.live.latest.WINDOW_TOPICS_MAX", 500)
    monkeypatch.setattr("bridge.live.latest.SLICE_TOPICS", 15)
    async with Side() as side:
        most = 0
        for turn in range(30):
            side.publish(*[(f"t/{turn}/{number}", b"0") for number in range(501)])
            most = max(most, len(side.latest._settling))
            await asyncio.sleep(0)
        assert most < 10


async def test_nodes_count_topics_and_rates() -> None:
    async with Side() as side:
        side.publish(("a/b/c", b"1"), ("a/d", b"2"), ("e", b"3"))
        tree = TopicNodes(1, 1795374000000)
        tree.add(await chosen(side.latest, "#"))
        assert [(node["prefix"], node["topics"]) for node in tree.page(10, "")["nodes"]] == [("a", 2), ("e", 1)]
        first = tree.page(1, "")
        assert ([node["prefix"] for node in first["nodes"]], first["next"]) == (["a"], "a")
        assert [node["prefix"] for node in tree.page(1, "a")["nodes"]] == ["e"]
