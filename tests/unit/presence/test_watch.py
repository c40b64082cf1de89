"""Presences between an engine and a store: batches, order, memory of the gone, and retained messages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from bridge.presence.store import SqliteDevices
from bridge.presence.watch import GATHER_MS, PresenceLimits, Presences
from bridge.streams.sqlite_store import SqliteStore
from broker.codec.packets import Disconnect, Publish
from broker.codec.properties import Properties
from broker.engine import Engine
from tests.support.engine_client import NOW_MS, EngineClient, HoldingSink, make_engine, turn


class Parts:
    """An engine with presences; what they ask to be called later waits in `soon`."""

    def __init__(self, store: SqliteDevices | None = None, **limits: int) -> None:
        self.now_ms = NOW_MS
        self.soon: list[Callable[[], None]] = []
        self.gathers = False
        """Changes soon after others wait too; else no time passes for them."""
        self.sink = HoldingSink()
        self.pending_bytes = 0
        self.presences = Presences(PresenceLimits(**limits), lambda: self.now_ms, store)
        self.engine: Engine = make_engine(self.sink, watch=self.presences)
        self.presences.connect(self.engine, self.soon.append, self._later, lambda: self.pending_bytes)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        assert 0 < seconds <= GATHER_MS / 1000
        if self.gathers:
            self.soon.append(call)
        else:
            call()

    def client(self, client_id: str, level: int = 5, **more: object) -> EngineClient:
        client = EngineClient(self.engine, level)
        client.now_ms = self.now_ms
        client.connect(client_id, **more)
        return client

    def rounds(self) -> int:
        """Let the loop go round until nothing asks for another one; returns how often."""
        count = 0
        while self.soon:
            calls, self.soon = self.soon, []
            for call in calls:
                call()
            turn(self.engine)
            count += 1
        return count


def kept(expiry_s: int = 3600) -> dict[str, object]:
    properties = Properties()
    properties.session_expiry_interval = expiry_s
    return {"clean": False, "properties": properties}


def told(client: EngineClient) -> list[tuple[str, int, bool, str]]:
    """What a subscriber of presence got."""
    found = [orjson.loads(packet.payload) for packet in client.received() if isinstance(packet, Publish)]
    return [(each["client_id"], each["seq"], each["online"], each["reason"]) for each in found]


def test_subscribers_are_told_in_order() -> None:
    parts = Parts()
    watcher = parts.client("w")
    watcher.subscribe("$presence/#", 1)
    one = parts.client("p", **kept())
    parts.client("p", **kept())
    one.lose()
    other = parts.client("p")
    other.send(Disconnect(0, Properties()))
    assert told(watcher) == [
        ("p", 1, True, "connected"),
        ("p", 2, True, "taken_over"),
        ("p", 3, True, "taken_over"),
        ("p", 4, False, "client_disconnected"),
    ]


def test_a_take_over_of_a_session_that_ends_with_its_connection_is_never_offline() -> None:
    parts = Parts()
    watcher = parts.client("w")
    watcher.subscribe("$presence/p")
    parts.client("p", 4)
    parts.client("p", 4)
    assert [online for _, _, online, _ in told(watcher)] == [True, True]


def test_who_subscribes_gets_the_newest_of_each_as_retained() -> None:
    parts = Parts()
    parts.client("a/b").lose()
    parts.client("c")
    watcher = parts.client("w")
    packets = watcher.subscribe("$presence/+", 1)
    retained = [(packet.topic_name, packet.retain, packet.qos) for packet in packets if isinstance(packet, Publish)]
    assert sorted(retained) == [("$presence/a%2Fb", True, 1), ("$presence/c", True, 1), ("$presence/w", True, 1)]


@pytest.mark.parametrize("topic_filter", ["$presence/a%2Fb", "$presence/a%2Fb/#", "$presence/+/#"])
def test_one_client_is_found_by_its_topic(topic_filter: str) -> None:
    parts = Parts()
    parts.client("a/b")
    assert [topic for topic, _, _ in parts.presences.retained(topic_filter)] == ["$presence/a%2Fb"]


@pytest.mark.parametrize("topic_filter", ["$presence/a%2fb", "$presence/a", "$presence/%", "$presence/a%2Fb/c", "$x"])
def test_other_filters_take_nothing(topic_filter: str) -> None:
    parts = Parts()
    parts.client("a/b")
    assert list(parts.presences.retained(topic_filter)) == []


def test_clients_may_not_publish_there() -> None:
    parts = Parts()
    client = parts.client("p")
    client.send(Publish("$presence/p", b"{}", 1, True, False, 7, Properties()))
    assert [packet.reason_code for packet in client.received()] == [0x87]  # type: ignore[attr-defined]


def test_ten_thousand_at_once_are_told_in_batches_between_which_messages_go() -> None:
    """Nothing of it needs a task: a batch is one run, and the loop has its turn between two of them."""
    parts = Parts(batch_changes_max=200)
    watcher = parts.client("w")
    watcher.subscribe("news")
    publisher = parts.client("p")
    parts.sink.runs.clear()
    for number in range(10_000):
        client = EngineClient(parts.engine)
        client.now_ms = NOW_MS
        client.connection.receive(b"\x10\x12\0\4MQTT\4\2\0\0\0\6c%05d" % number, NOW_MS)
    turn(parts.engine)
    assert parts.presences.changes < 500
    assert parts.presences.waiting > 9_500
    publisher.send(Publish("news", b"1", 0, False, False, 0, Properties()))
    assert [type(packet) for packet in watcher.received()] == [Publish]  # though most are still to be told
    assert parts.presences.waiting > 9_500
    parts.rounds()
    runs = [run for run in parts.sink.runs if run.client_id == "$server"]
    assert sum(len(run) for run in runs) == 10_000
    assert max(len(run) for run in runs) < 500
    assert parts.presences.online == 10_002


def test_what_happens_soon_after_is_told_together() -> None:
    parts = Parts()
    parts.gathers = True
    watcher = parts.client("w")
    watcher.subscribe("$presence/#", 1)
    parts.now_ms += GATHER_MS
    parts.client("a")
    assert told(watcher) == [("a", 1, True, "connected")]  # after a pause: at once
    parts.sink.runs.clear()
    parts.client("b").lose()
    parts.client("c")
    parts.client("b")
    assert (told(watcher), parts.presences.waiting) == ([], 4)
    assert parts.rounds() == 1
    assert told(watcher) == [
        ("b", 1, True, "connected"),
        ("b", 2, False, "connection_lost"),
        ("c", 1, True, "connected"),
        ("b", 3, True, "connected"),
    ]
    assert [len(run) for run in parts.sink.runs] == [4]
    parts.now_ms += GATHER_MS
    parts.client("d")
    assert told(watcher) == [("d", 1, True, "connected")]


def test_who_asks_for_states_does_not_wait_for_what_is_gathered() -> None:
    parts = Parts()
    parts.gathers = True
    parts.client("a")
    parts.client("b")
    assert "b" not in parts.presences.device_by_client_id
    parts.presences.catch_up()
    assert parts.presences.device_by_client_id["b"].presence.online
    parts.rounds()
    assert parts.presences.changes == 2


def test_a_clock_that_is_set_back_holds_no_change() -> None:
    parts = Parts()
    parts.gathers = True
    parts.client("a")
    parts.now_ms -= 3_600_000
    parts.client("b")
    assert parts.presences.changes == 2


def test_a_stop_tells_everyone_offline_before_it_ends() -> None:
    """However many there are: what is left for later rounds of the loop would never be told."""
    parts = Parts(batch_changes_max=10)
    for number in range(100):
        parts.client(f"c{number}")
    parts.rounds()
    parts.engine.shut_down()
    turn(parts.engine)
    assert parts.presences.online > 0
    parts.presences.tell_all()
    assert (parts.presences.online, parts.presences.waiting) == (0, 0)
    reasons = {orjson.loads(payload)["reason"] for _, payload, _ in parts.presences.retained("$presence/#")}
    assert reasons == {"server_shutdown"}


def test_the_gone_are_remembered_for_their_time_and_no_longer() -> None:
    parts = Parts(gone_s=60)
    parts.client("p").lose()
    parts.now_ms += 59_000
    parts.presences.tick()
    assert "p" in parts.presences.device_by_client_id
    parts.now_ms += 1_000
    parts.presences.tick()
    assert not parts.presences.device_by_client_id
    assert list(parts.presences.retained("$presence/#")) == []


def test_who_has_a_session_is_not_gone() -> None:
    parts = Parts(gone_s=60)
    parts.client("p", **kept()).lose()
    parts.now_ms += 3_000_000
    parts.presences.tick()
    assert parts.presences.with_session == 1


def test_who_comes_back_is_not_forgotten_later() -> None:
    parts = Parts(gone_s=60)
    parts.client("p").lose()
    parts.client("p")
    parts.now_ms += 100_000
    parts.presences.tick()
    assert (parts.presences.online, parts.presences.gone) == (1, 0)


def test_above_the_limit_the_one_that_is_gone_longest_is_forgotten() -> None:
    """However many come and go; those that are here or have a session do not count."""
    parts = Parts(gone_devices_max=5)
    presences = parts.presences
    parts.client("here")
    parts.client("kept", **kept()).lose()
    for number in range(100):
        parts.client(f"p{number}").lose()
        parts.client("p0").lose()  # which is always the last to go
        assert presences.gone == min(number + 1, 5)
    assert list(presences.device_by_client_id) == ["here", "kept", "p0", "p96", "p97", "p98", "p99"]
    assert list(presences._gone) == ["p96", "p97", "p98", "p99", "p0"]
    assert (presences.forgotten, presences.limit_hits.count["presence.gone_devices_max"]) == (95, 95)
    assert (presences.waiting, presences._dirty) == (0, {})
    assert (presences.online, presences.with_session) == (1, 1)


class RefusingDevices(SqliteDevices):
    """A disk that is full for as long as it is told to be."""

    is_full = False

    @property
    def failure(self) -> str | None:
        return "no space left on device" if self.is_full else super().failure


async def test_while_the_disk_is_full_no_more_waits_for_it_than_is_known_here_and_there(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path, reader_processes=0)
    devices = RefusingDevices(store)
    parts = Parts(devices, gone_devices_max=3)
    for name in ("a", "b", "c"):
        parts.client(name).lose()
    devices.is_full = True
    for number in range(50):
        parts.client(f"p{number}").lose()
    parts.client("a").lose()  # forgotten, and back: what the store has of it is of before
    assert set(parts.presences._dirty) == {"a", "b", "c", "p48", "p49"}
    for number in range(3):
        parts.client(f"q{number}").lose()
    assert set(parts.presences._dirty) == {"a", "b", "c", "q0", "q1", "q2"}
    devices.is_full = False
    parts.presences.tick()
    assert parts.presences._dirty == {}
    await store.close()
    store = SqliteStore.open(tmp_path, reader_processes=0)
    assert {device.presence.client_id for device in SqliteDevices(store).load()} == {"q0", "q1", "q2"}
    await store.close()


def test_an_administrator_closes_and_forgets() -> None:
    parts = Parts()
    watcher = parts.client("w")
    watcher.subscribe("$presence/p")
    client = parts.client("p", **kept())
    assert parts.engine.close_by_admin("p")
    assert not parts.engine.close_by_admin("p")
    turn(parts.engine)
    assert isinstance(packet := client.received()[-1], Disconnect)
    assert packet.reason_code == 0x98
    assert parts.engine.forget_by_admin("p")
    assert not parts.engine.forget_by_admin("p")
    turn(parts.engine)
    assert told(watcher) == [
        ("p", 1, True, "connected"),
        ("p", 2, False, "closed_by_admin"),
        ("p", 3, False, "session_forgotten"),
    ]
    assert parts.engine.sessions.session_by_client_id.keys() == {"w"}


def test_counters_are_of_the_connection_and_stay_behind_it() -> None:
    parts = Parts()
    client = parts.client("p")
    client.subscribe("a")
    client.send(*[Publish("a", b"x", 0, False, False, 0, Properties()) for _ in range(3)])
    device = parts.presences.device_by_client_id["p"]
    counted = device.counted()
    assert (counted.messages_in, counted.messages_out) == (3, 3)
    client.lose()
    assert device.connection is None
    assert device.counted() == counted


def test_restless_devices_are_counted_within_ten_minutes() -> None:
    parts = Parts()
    for _ in range(3):
        parts.client("p").lose()
    device = parts.presences.device_by_client_id["p"]
    assert device.connects(NOW_MS) == 3
    assert device.connects(NOW_MS + 600_000) == 0


def test_a_log_that_is_far_behind_is_given_no_more() -> None:
    parts = Parts(pending_bytes_max=65_536)
    parts.pending_bytes = 65_537
    watcher = parts.client("w")
    watcher.subscribe("$presence/p")
    parts.client("p")
    assert told(watcher) == [("p", 1, True, "connected")]
    assert parts.sink.runs == []
    assert parts.presences.not_stored == 2


async def test_numbers_go_on_over_a_restart_and_nobody_is_left_hanging(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path, reader_processes=0)
    devices = SqliteDevices(store)
    parts = Parts(devices)
    parts.presences.load(lambda _: False)
    parts.client("here")
    parts.client("gone").lose()
    parts.client("kept", **kept()).lose()
    await store.close()  # as a crash would leave it: nobody was told of an end

    store = SqliteStore.open(tmp_path, reader_processes=0)
    parts = Parts(SqliteDevices(store))
    parts.presences.load(lambda client_id: client_id == "kept")
    watcher = parts.client("w")
    watcher.subscribe("$presence/#")
    watcher.received()
    again = {topic: orjson.loads(payload) for topic, payload, _ in parts.presences.retained("$presence/#")}
    assert [(again[f"$presence/{name}"]["seq"], again[f"$presence/{name}"]["reason"]) for name in ("here", "gone")] == [
        (2, "server_restart"),
        (2, "connection_lost"),
    ]
    assert again["$presence/kept"]["session"]
    parts.client("here")
    assert told(watcher) == [("here", 3, True, "connected")]
    await store.close()


async def test_the_forgotten_are_forgotten_by_the_store_too(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path, reader_processes=0)
    parts = Parts(SqliteDevices(store), gone_s=1)
    parts.presences.load(lambda _: False)
    parts.client("p").lose()
    parts.now_ms += 1_000
    parts.presences.tick()
    await store.close()
    store = SqliteStore.open(tmp_path, reader_processes=0)
    assert SqliteDevices(store).load() == []
    await store.close()
