"""Events of the server itself: bounded, kept while the log fails, and limits and clocks that are watched."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from bridge.presence.server_events import KEPT_MAX, ClockWatch, LimitsHit, ServerEvents
from broker.publish_run import PublishRun


class Recorder:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.routed: list[dict[str, object]] = []
        self.stored: list[dict[str, object]] = []

    def publish_own(
        self,
        rows: Sequence[tuple[str, bytes]],
        *,
        retain: bool = False,
        is_routed: bool = True,
        is_stored: bool = True,
    ) -> list[PublishRun]:
        assert not retain
        for topic_name, payload in rows:
            event = orjson.loads(payload)
            assert topic_name == f"$server/{event['kind']}"
            if is_routed:
                self.routed.append(event)
            if is_stored:
                self.stored.append(event)
        return []


class Parts:
    def __init__(self, events_max: int = 3) -> None:
        self.now_ms = 1_800_000_000_000
        self.is_failing = False
        self.recorder = Recorder()
        self.events = ServerEvents(lambda: self.now_ms, events_max)

    def connect(self) -> Parts:
        self.events.connect(self.recorder, lambda: self.is_failing)
        return self


def test_a_storm_of_one_kind_is_bounded_and_says_what_was_left_out() -> None:
    parts = Parts().connect()
    for number in range(10):
        parts.events.tell("connect_refused", reason="quota_exceeded", number=number)
    parts.events.tell("command", action="x")
    assert [event.get("number") for event in parts.recorder.stored] == [0, 1, 2, None]
    parts.now_ms += 1_000
    parts.events.tick()
    assert parts.recorder.stored[-1] == {
        "kind": "connect_refused",
        "time": "2027-01-15T08:00:01.000Z",
        "left_out": 7,
    }
    parts.events.tell("connect_refused", reason="quota_exceeded")
    assert "left_out" not in parts.recorder.stored[-1]
    assert parts.events.left_out == {"connect_refused": 7}


def test_events_before_anyone_can_publish_are_told_then_with_their_time() -> None:
    parts = Parts()
    parts.events.tell("kafka_down", reason="x")
    parts.now_ms += 5_000
    parts.connect()
    assert [event["time"] for event in parts.recorder.stored] == ["2027-01-15T08:00:00.000Z"]


def test_what_a_failing_log_did_not_take_is_stored_when_it_is_back_and_sent_once() -> None:
    parts = Parts(events_max=10_000).connect()
    parts.is_failing = True
    for number in range(KEPT_MAX + 5):
        parts.events.tell("disk_full", number=number)
    parts.events.tick()
    assert parts.recorder.stored == []
    parts.is_failing = False
    parts.events.tick()
    parts.events.tick()
    assert [event["number"] for event in parts.recorder.stored] == list(range(5, KEPT_MAX + 5))
    assert len(parts.recorder.routed) == KEPT_MAX + 5


def test_texts_of_strangers_are_cut() -> None:
    parts = Parts().connect()
    parts.events.tell("connect_refused", client_id="x" * 60_000)
    assert parts.recorder.stored[0]["client_id"] == "x" * 256


def test_a_limit_that_is_hit_without_end_is_told_every_ten_seconds() -> None:
    parts = Parts().connect()
    counts = {"mqtt.queued_messages_max": 0, "live.readers_max": 0}
    hits = LimitsHit(parts.events, lambda: counts)
    for _ in range(21):
        counts["mqtt.queued_messages_max"] += 5
        hits.tick()
        parts.now_ms += 1_000
    told = [(event["limit"], event["count"], event["total"]) for event in parts.recorder.stored]
    assert told == [
        ("mqtt.queued_messages_max", 5, 5),
        ("mqtt.queued_messages_max", 50, 55),
        ("mqtt.queued_messages_max", 50, 105),
    ]


def test_a_clock_that_is_set_is_noticed_once() -> None:
    wall, monotonic = [1_000_000], [5.0]
    watch = ClockWatch(lambda: wall[0], lambda: monotonic[0])
    jumps = []
    for wall_step, monotonic_step in ((1_000, 1.0), (-3_599_000, 1.0), (1_000, 1.0), (1_200, 1.0), (9_000, 9.0)):
        wall[0] += wall_step
        monotonic[0] += monotonic_step
        jumps.append(watch.jump_ms())
    assert jumps == [0, -3_600_000, 0, 0, 0]
