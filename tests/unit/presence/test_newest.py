"""Newest presences beside their log: which runs are theirs, also when some of them never get there."""

from __future__ import annotations

import orjson

from bridge.presence.device import Device
from bridge.presence.newest import NewestPresences
from bridge.presence.state import Presence, presence_json, presence_topic
from bridge.records import Topic
from bridge.streams.memory_log import MemoryLog
from broker.own_publishes import own_runs
from broker.publish_run import PublishRun

NOW_MS = 1_795_374_000_000


class Parts:
    def __init__(self) -> None:
        self.log = MemoryLog("system", node_run="n7")
        self.devices: dict[str, Device] = {}
        self.newest = NewestPresences(self.devices, self.log, "n7")
        self.next_offset = 0

    def tell(self, *changes: tuple[str, int], log: MemoryLog | None = None) -> PublishRun:
        """Presences of (client id, seq) as one run."""
        presences = [Presence(name, seq, True, True, NOW_MS, "connected", "device", seq) for name, seq in changes]
        for presence in presences:
            self.devices.setdefault(presence.client_id, Device(presence))
        rows = [(presence_topic(each.client_id), presence_json(each)) for each in presences]
        stream = log or self.log
        (run,) = own_runs(rows, lambda name: Topic(name, stream), NOW_MS + 1000 * changes[0][1], retain=True)
        self.newest.told([run], presences)
        return run

    def commit(self, *runs: PublishRun) -> list[PublishRun]:
        """Returns what is not theirs."""
        for run in runs:
            run.base_offset = run.first_number = self.next_offset
            self.next_offset += len(run)
        return self.newest.committed(runs)

    def settle(self) -> list[str]:
        return self.newest.settle(self.newest.take_open())

    def found(self) -> dict[str, tuple[int, int]]:
        """Seq and offset of each client."""
        return {each.presence.client_id: (each.presence.seq, each.offset) for each in self.newest.capture()}


def test_a_record_counts_when_its_window_is_settled() -> None:
    parts = Parts()
    first, second = parts.tell(("a", 1), ("b", 1)), parts.tell(("a", 2))
    assert parts.commit(first) == []
    taken = parts.newest.take_open()
    assert (parts.commit(second), parts.newest.has_open, parts.found()) == ([], True, {})
    assert parts.newest.settle(taken) == ["$presence/a", "$presence/b"]
    assert parts.found() == {"a": (1, 0), "b": (1, 1)}
    assert parts.settle() == []
    assert parts.found() == {"a": (2, 2), "b": (1, 1)}
    assert not parts.newest.has_open


def test_what_others_stored_there_is_left_to_entries() -> None:
    parts = Parts()
    first = parts.tell(("a", 1))
    (other,) = own_runs([("$server/started", b"{}")], lambda name: Topic(name, parts.log), NOW_MS, retain=False)
    elsewhere = parts.tell(("b", 1), log=MemoryLog("other"))
    assert parts.commit(other, first, elsewhere) == [other, elsewhere]
    parts.settle()
    assert parts.found() == {"a": (1, 1)}


def test_a_run_that_never_came_to_the_log_leaves_nothing_behind() -> None:
    parts = Parts()
    parts.tell(("a", 1))
    second = parts.tell(("a", 2))
    assert parts.commit(second) == []
    parts.settle()
    assert parts.found() == {"a": (2, 0)}
    assert not parts.newest._told
    parts.log.failure = "the disk is full"
    parts.tell(("a", 3))
    assert not parts.newest._told


def test_a_forgotten_client_has_none() -> None:
    parts = Parts()
    parts.commit(parts.tell(("a", 1), ("b", 1)))
    taken = parts.newest.take_open()
    del parts.devices["a"]
    parts.newest.settle(taken)
    assert parts.found() == {"b": (1, 1)}
    del parts.devices["b"]
    assert parts.newest.capture() == []


def test_what_has_changed_is_saved_once() -> None:
    parts = Parts()
    parts.commit(parts.tell(("a", 1), ("b", 1)))
    parts.settle()
    assert [each.presence.client_id for each in parts.newest.take_unsaved()] == ["a", "b"]
    assert parts.newest.take_unsaved() == []
    parts.commit(parts.tell(("b", 2)))
    parts.settle()
    assert [each.presence.seq for each in parts.newest.take_unsaved()] == [2]


def test_an_entry_is_made_like_one_of_the_run() -> None:
    parts = Parts()
    parts.commit(parts.tell(("hall/7", 1)), run := parts.tell(("hall/7", 3)))
    parts.settle()
    (stored,) = parts.newest.capture()
    entry = parts.newest.entry(stored)
    shown = orjson.loads(entry.json())
    assert entry.frame == run.data
    assert (shown["topic"], shown["payload"]["seq"], shown["offset"]) == ("$presence/hall%2F7", 3, 1)
    assert (entry.count, entry.interval_ms, entry.time_ms) == (3, 2000.0, NOW_MS + 3000)
