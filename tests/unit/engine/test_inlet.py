"""The way in for publishes of another broker: order of answers, QoS 2 over connections, what cannot be taken."""

from __future__ import annotations

import pytest

from broker.codec.decode import Decoder
from broker.codec.encode import encode
from broker.codec.packets import Puback, Pubcomp, Publish, Pubrec
from broker.engine import Engine
from broker.inlet import Inlet
from tests.support.engine_client import NOW_MS, EngineClient, HoldingSink, make_engine, turn

BYTES_MAX = 1 << 20


class Owner:
    """A connection to another broker, as far as an inlet sees it."""

    def __init__(self) -> None:
        self.answers: list[object] = []
        self.stalls = 0
        self.is_reading = True

    def answer(self, data: bytes) -> None:
        decoder = Decoder(BYTES_MAX)
        decoder.protocol_level = 5
        self.answers += decoder.feed(data)

    def stalled(self) -> None:
        self.stalls += 1

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


class Parts:
    def __init__(self, **limits: int) -> None:
        self.sink = HoldingSink()
        self.engine: Engine = make_engine(self.sink, **limits)
        self.owner = Owner()
        self.inlet = Inlet(self.engine, "$ingest/x", self.owner)
        self.inlet.begin(session_present=False)

    def take(self, topic: str, qos: int, packet_id: int = 0, *, dup: bool = False, retain: bool = False) -> str | None:
        packet = Publish(topic, b"x", qos, retain, dup, packet_id)
        reason = self.inlet.take(packet, is_v5=False, now_ms=NOW_MS)
        turn(self.engine)
        return reason

    def take_run(self, *packets: Publish) -> None:
        data = b"".join(encode(packet, 4) for packet in packets)
        reached = self.inlet.take_run(data, 0, is_v5=False, packet_bytes_max=BYTES_MAX, now_ms=NOW_MS)
        assert reached == len(data)
        turn(self.engine)


def test_answers_leave_after_the_commit_and_in_order() -> None:
    parts = Parts()
    parts.take_run(Publish("a", b"1", 1, packet_id=7), Publish("a", b"2", 0), Publish("b", b"3", 1, packet_id=9))
    parts.take("c", 2, 8)
    parts.inlet.drop(Publish("d", b"", 1, packet_id=5))
    assert parts.owner.answers == []
    assert parts.inlet.unstored == 3
    parts.sink.commit()
    assert parts.owner.answers == [Puback(7), Puback(9), Pubrec(8), Puback(5)]
    assert (parts.inlet.received, parts.inlet.unstored) == (4, 0)


def test_the_other_broker_is_not_told_whether_somebody_subscribes_here() -> None:
    """Reason code 0x10 is for servers (MQTT 5 §3.4.2.1)."""
    parts = Parts()
    data = encode(Publish("a", b"1", 1, packet_id=3), 5)
    parts.inlet.take_run(data, 0, is_v5=True, packet_bytes_max=BYTES_MAX, now_ms=NOW_MS)
    parts.inlet.take(Publish("a", b"2", 2, packet_id=4), is_v5=True, now_ms=NOW_MS)
    turn(parts.engine)
    parts.sink.commit()
    assert parts.owner.answers == [Puback(3), Pubrec(4)]


def test_subscribers_see_it_at_once_and_qos_2_when_it_is_stored() -> None:
    parts = Parts()
    subscriber = EngineClient(parts.engine)
    subscriber.connect("s")
    subscriber.subscribe("#", 2)
    parts.take_run(Publish("a", b"1", 1, packet_id=1))
    assert [packet.topic_name for packet in subscriber.received()] == ["a"]
    parts.take("b", 2, 2)
    assert subscriber.received() == []
    parts.sink.commit()
    turn(parts.engine)
    assert [packet.topic_name for packet in subscriber.received()] == ["b"]


def test_qos_2_again_on_the_next_connection_is_stored_once() -> None:
    """Whether its commit is over or not when it comes again; PUBCOMP only when the id is forgotten on disk."""
    parts = Parts()
    parts.take("a", 2, 1)
    parts.sink.commit()
    parts.take("a", 2, 2)
    parts.inlet.end()
    parts.owner.answers.clear()
    parts.inlet.begin(session_present=True)
    parts.take("a", 2, 1, dup=True)
    parts.take("a", 2, 2, dup=True)
    assert parts.owner.answers == [Pubrec(1)]
    assert len(parts.sink.runs) == 1
    parts.sink.commit()
    assert parts.owner.answers == [Pubrec(1), Pubrec(2)]
    assert parts.inlet.repeated == 2
    parts.inlet.release(1, 5)
    assert parts.owner.answers[2:] == []
    assert parts.sink.released == [("$ingest/x", 1)]
    parts.sink.done.pop()()
    assert parts.owner.answers[2:] == [Pubcomp(1)]
    parts.take("b", 2, 1)
    assert len(parts.sink.runs) == 1


def test_qos_2_over_a_restart_of_the_process() -> None:
    parts = Parts()
    parts.sink.stored_ids["$ingest/x"] = {4}
    inlet = Inlet(parts.engine, "$ingest/x", parts.owner)
    inlet.begin(session_present=True)
    inlet.take(Publish("a", b"", 2, False, True, 4), is_v5=True, now_ms=NOW_MS)
    assert parts.owner.answers == [Pubrec(4)]
    inlet.begin(session_present=False)
    assert parts.sink.forgotten[-1] == "$ingest/x"
    inlet.take(Publish("a", b"", 2, False, True, 4), is_v5=True, now_ms=NOW_MS)
    turn(parts.engine)
    assert len(parts.sink.runs) == 1


def test_an_id_that_is_given_again_without_dup_is_another_message() -> None:
    parts = Parts()
    parts.take("a", 2, 1)
    parts.take("b", 2, 1)
    assert [run.routes[0].topic_name for run in parts.sink.runs] == ["a", "b"]


def test_a_release_of_something_unknown_is_answered() -> None:
    parts = Parts()
    parts.inlet.release(3, 5)
    assert parts.owner.answers == [Pubcomp(3)]


def test_what_is_stored_after_the_connection_ended_is_told_to_nobody() -> None:
    parts = Parts()
    parts.take("a", 1, 1)
    parts.inlet.end()
    parts.inlet.begin(session_present=True)
    parts.take("a", 1, 1, dup=True)
    parts.sink.commit(1)
    assert parts.owner.answers == []
    parts.sink.commit()
    assert parts.owner.answers == [Puback(1)]


def test_a_log_that_stalls_acknowledges_nothing() -> None:
    """The other broker keeps it: a PUBACK with 0x97 would make it forget the message."""
    parts = Parts()
    parts.take("a", 1, 1)
    parts.take("a", 2, 2)
    for run in parts.sink.runs:
        assert run.origin is not None
        run.origin.refuse(run, 0x97)
    assert parts.owner.stalls == 2
    assert parts.owner.answers == []
    assert parts.inlet.unstored == 0
    parts.inlet.begin(session_present=True)
    parts.take("a", 2, 2, dup=True)
    assert len(parts.sink.runs) == 3


@pytest.mark.parametrize(("topic", "reason"), [("$SYS/x", "reserved_topic"), ("a/+", "bad_topic")])
def test_what_cannot_be_taken_is_acknowledged_and_named(topic: str, reason: str) -> None:
    parts = Parts()
    assert parts.take(topic, 1, 1) == reason
    assert parts.take(topic, 2, 2) == reason
    assert parts.owner.answers == [Puback(1), Pubrec(2)]
    assert parts.sink.runs == []


def test_without_room_for_retained_messages_it_is_stored_all_the_same() -> None:
    parts = Parts(retained_messages_max=0)
    assert parts.take("a", 1, 1, retain=True) is None
    assert [run.retain for run in parts.sink.runs] == [False]
