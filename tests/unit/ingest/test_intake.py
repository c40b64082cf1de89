"""The intake: append, commit, acknowledge, show; and what happens while a log cannot follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bridge.ingest.intake import Intake, IntakeLimits
from bridge.records import Topic
from bridge.streams.memory_log import MemoryLog
from broker.publish_run import PublishRun
from broker.routing import Route


class RecordingOrigin:
    """A connection's side of the sink."""

    def __init__(self, events: list[str]) -> None:
        self.events = events
        self.is_paused = False
        self.refused: list[int] = []

    def acknowledge(self, run: PublishRun) -> None:
        run.is_done = True
        self.events.append(f"ack {run.packet_ids}")

    def refuse(self, run: PublishRun, reason_code: int) -> None:
        self.refused += run.packet_ids

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class SlowLog(MemoryLog):
    """A memory log that commits when it is told to, and can fail."""

    held: bool = True

    def flush(self) -> None:
        if not self.held and self.failure is None:
            super().flush()

    def withdraw(self, run: PublishRun) -> bool:
        if run in self._pending:
            self._pending.remove(run)
            return True
        return False


class Recorder:
    def __init__(self, events: list[str]) -> None:
        self.events = events

    def committed(self, log: MemoryLog, runs: Sequence[PublishRun]) -> None:
        self.events += [f"live {run.packet_ids}" for run in runs]


class Parts:
    def __init__(self, log: SlowLog, limits: IntakeLimits | None = None) -> None:
        self.events: list[str] = []
        self.now = 0.0
        self.log = log
        self.intake = Intake(lambda topic_name: log, [log], None, limits or IntakeLimits(), lambda: self.now)
        self.intake.connect(Recorder(self.events), lambda: None)
        self.origin = RecordingOrigin(self.events)

    def run(self, packet_id: int, qos: int = 1, is_v5: bool = True) -> PublishRun:
        route = Route("t", b"\0\1t", Topic("t", self.log))
        frame = b"\x32\x06\x00\x01t\x00\x01x"
        return PublishRun(
            frame,
            0,
            [route],
            [7],
            [8],
            [packet_id] if qos else [],
            is_v5=is_v5,
            client_id="c",
            received_at_ms=1,
            origin=self.origin,
            reliable=1 if qos else 0,
            qos=qos,
        )


def test_a_run_is_acknowledged_after_its_commit_and_shown_after_that() -> None:
    parts = Parts(SlowLog("s", acknowledges_on_receipt=False))
    parts.intake.submit([parts.run(1), parts.run(2)])
    assert parts.events == []
    parts.log.held = False
    parts.log.flush()
    assert parts.events == ["ack [1]", "ack [2]", "live [1]", "live [2]"]


def test_a_log_that_acknowledges_on_receipt_does_so_before_the_commit() -> None:
    parts = Parts(SlowLog("s", acknowledges_on_receipt=True))
    parts.intake.submit([parts.run(1)])
    assert parts.events == ["ack [1]"]


def test_numbers_rise_over_runs() -> None:
    parts = Parts(SlowLog("s"))
    first, second = parts.run(1), parts.run(2)
    parts.intake.submit([first])
    parts.intake.submit([second])
    assert (first.first_number, second.first_number) == (1, 2)


def test_one_failing_acknowledgement_does_not_hold_back_the_others() -> None:
    parts = Parts(SlowLog("s", acknowledges_on_receipt=False))
    broken = parts.run(1)

    class Broken(RecordingOrigin):
        def acknowledge(self, run: PublishRun) -> None:
            raise RuntimeError("transport is gone")

    broken.origin = Broken(parts.events)
    parts.intake.submit([broken, parts.run(2)])
    parts.log.held = False
    parts.log.flush()
    assert parts.events == ["ack [2]", "live [1]", "live [2]"]


def test_while_a_log_fails_qos_0_is_dropped_and_a_busy_connection_is_paused_until_it_recovers() -> None:
    parts = Parts(SlowLog("s", acknowledges_on_receipt=False), IntakeLimits(held_publishes_max=3))
    parts.log.failure = "disk full"
    parts.intake.submit([parts.run(0, qos=0), parts.run(1), parts.run(2)])
    assert parts.intake.dropped_qos0 == 1
    assert not parts.origin.is_paused
    parts.intake.submit([parts.run(3)])
    assert parts.origin.is_paused
    assert parts.events == []
    parts.log.failure, parts.log.held = None, False
    parts.log.flush()
    assert not parts.origin.is_paused
    assert [event for event in parts.events if event.startswith("ack")] == ["ack [1]", "ack [2]", "ack [3]"]


def test_after_hold_s_mqtt_5_is_refused_and_3_1_1_goes_on_waiting() -> None:
    parts = Parts(SlowLog("s", acknowledges_on_receipt=False), IntakeLimits(hold_s=60))
    parts.log.failure = "disk full"
    parts.intake.submit([parts.run(1), parts.run(2, is_v5=False)])
    parts.now = 59
    parts.intake.tick()
    assert parts.origin.refused == []
    parts.now = 61
    parts.intake.tick()
    assert parts.origin.refused == [1]
    parts.log.failure, parts.log.held = None, False
    parts.log.flush()
    assert parts.events == ["ack [2]", "live [2]"]


def test_a_log_over_its_bytes_pauses_its_publishers_until_half() -> None:
    parts = Parts(SlowLog("s", acknowledges_on_receipt=False), IntakeLimits(pending_bytes_max=20))
    parts.intake.submit([parts.run(1), parts.run(2)])
    assert not parts.origin.is_paused
    parts.intake.submit([parts.run(3)])
    assert parts.origin.is_paused
    parts.log.held = False
    parts.log.flush()
    assert not parts.origin.is_paused


def test_a_retained_message_on_kafka_is_acknowledged_when_record_and_row_are_durable() -> None:
    """Whichever is the later: its record is kept elsewhere, so one transaction cannot cover both."""
    durable: list[Callable[[], None]] = []
    parts = Parts(SlowLog("s", acknowledges_on_receipt=False))
    parts.log.reads_back = True
    parts.intake._when_durable = durable.append
    first, second = parts.run(1), parts.run(2)
    first.retain = second.retain = True
    parts.intake.submit([first])
    parts.log.held = False
    parts.log.flush()
    assert parts.events == []
    durable.pop()()
    assert parts.events == ["ack [1]"]
    parts.log.held = True
    parts.intake.submit([second])
    durable.pop()()
    assert parts.events == ["ack [1]"]
    parts.log.held = False
    parts.log.flush()
    assert parts.events == ["ack [1]", "ack [2]"]
