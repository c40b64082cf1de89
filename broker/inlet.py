"""Inlet: publishes that a part of this process takes from another broker, and their acknowledgements back to it.

They enter like a client's: routed at once, QoS 2 when it is stored, acknowledged in their order after that. An inlet
outlives its owner's connections: what QoS 2 packet ids are stored is state of the session, like a client's, and
survives a restart of the process by the sink. No socket, no await and no clock in it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from broker.codec.encode import PUBACKS, PUBREC_STREAM, encode_pubcomp
from broker.codec.errors import MqttError
from broker.codec.packets import Pubcomp
from broker.protocol.answers import acknowledgements
from broker.protocol.handlers.publish import make_run
from broker.publish_run import PublishRun, read_run

if TYPE_CHECKING:
    from broker.codec.packets import Publish
    from broker.engine import Engine


class InletOwner(Protocol):
    """Who has the connection."""

    def answer(self, data: bytes) -> None:
        """Send acknowledgements."""

    def stalled(self) -> None:
        """A log has not taken what came for too long: leave, so that the other broker keeps it and repeats it."""

    def pause_reading(self) -> None:
        """Stop reading."""

    def resume_reading(self) -> None:
        """Read again."""


class Inlet:
    """One session at another broker, from this side (`broker.sink.Origin`)."""

    def __init__(self, engine: Engine, client_id: str, owner: InletOwner) -> None:
        self.client_id = client_id
        """The client id that the records carry."""
        self.received = 0
        """Publishes taken, repeats left out."""
        self.repeated = 0
        """QoS 2 publishes that were here already."""
        self.unstored = 0
        """QoS 1 and 2 publishes that wait to be stored."""
        self._engine = engine
        self._owner = owner
        self._pending: deque[PublishRun | bytes] = deque()
        """What the other broker waits for, in the order of its publishes; of this connection alone."""
        self._unreleased: set[int] = set(engine.sink.unreleased(client_id)) if engine.sink is not None else set()
        """QoS 2 packet ids that are stored, or not to be, and not released."""
        self._storing: dict[int, PublishRun] = {}
        """Those that wait to be stored."""
        self._connection = 0

    # A connection

    def begin(self, session_present: bool) -> None:
        """A connection begins. Without its old session the other broker's packet ids mean nothing any more."""
        self._connection += 1
        self._pending.clear()
        if session_present:
            return
        self._unreleased.clear()
        self._storing.clear()
        if self._engine.sink is not None:
            self._engine.sink.forget(self.client_id)

    def end(self) -> None:
        """It is over: what is stored from now on has nobody to be told."""
        self._connection += 1
        self._pending.clear()

    # Publishes

    def take_run(self, data: bytes, position: int, *, is_v5: bool, packet_bytes_max: int, now_ms: int) -> int:
        """Take the plain publishes that stand at `position`, as they are; returns the position after them."""
        run = read_run(
            data,
            position,
            self._engine.router,
            packet_bytes_max,
            is_v5=is_v5,
            client_id=self.client_id,
            received_at_ms=now_ms,
            origin=self,
        )
        if run is None:
            return position
        self._take(run, now_ms)
        return run.ends[-1]

    def take(self, packet: Publish, *, is_v5: bool, now_ms: int) -> str | None:
        """Take any publish; its topic may have been changed. Returns why it was dropped (and acknowledged), or None."""
        if packet.qos == 2 and self._is_repeat(packet):
            return None
        try:
            route = self._engine.router.open_route(packet.topic_name.encode())
        except MqttError:
            self.drop(packet)
            return "bad_topic"
        if route is None:
            self.drop(packet)
            return "reserved_topic"
        if packet.retain and not self._engine.can_retain(packet):
            self._engine.metrics.dropped_messages["retained_full"] += 1
            packet.retain = False  # it is stored and delivered all the same
        if packet.properties is not None:
            packet.properties.subscription_identifiers = []  # they were ours to that broker
        run = make_run(packet, route, is_v5, self.client_id, now_ms, self)
        if packet.qos == 2:
            run.keeps_packet_ids = True
            self._storing[packet.packet_id] = run
        self._take(run, now_ms)
        return None

    def drop(self, packet: Publish) -> None:
        """Acknowledge without taking: the other broker would repeat it for ever."""
        if packet.qos == 1:
            self._answer_in_order(PUBACKS[packet.packet_id])
        elif packet.qos == 2:
            self._unreleased.add(packet.packet_id)
            self._answer_in_order(PUBREC_STREAM[4 * packet.packet_id : 4 * packet.packet_id + 4])

    def release(self, packet_id: int, level: int) -> None:
        """PUBREL: PUBCOMP leaves when the id is forgotten on disk. [MQTT-4.3.3-11]"""
        if packet_id not in self._unreleased or self._engine.sink is None:
            self._unreleased.discard(packet_id)
            self._owner.answer(encode_pubcomp(Pubcomp(packet_id), level))
            return
        connection = self._connection

        def released() -> None:
            if connection == self._connection:
                self._unreleased.discard(packet_id)
                self._owner.answer(encode_pubcomp(Pubcomp(packet_id), level))

        self._engine.sink.release(self.client_id, packet_id, released)

    def _is_repeat(self, packet: Publish) -> bool:
        """QoS 2 sent again, with a packet id that is not released: answered once it is stored. [MQTT-4.3.3-10]

        DUP says so [MQTT-3.3.1-1]. Without it the message is another: brokers with more than 65,535 messages for us
        have been seen to give an id again that is still in use.
        """
        packet_id = packet.packet_id
        if not packet.dup:
            return False
        first = self._storing.get(packet_id)
        if first is None and packet_id not in self._unreleased:
            return False
        self.repeated += 1
        if first is not None:
            self._pending.append(first)
        else:
            self._answer_in_order(PUBREC_STREAM[4 * packet_id : 4 * packet_id + 4])
        return True

    def _take(self, run: PublishRun, now_ms: int) -> None:
        self._engine.now_ms = now_ms
        self.received += len(run)
        if run.reliable:
            self.unstored += run.reliable
            self._pending.append(run)
        self._engine.take(run)

    # broker.sink.Origin

    def acknowledge(self, run: PublishRun) -> None:
        """The run is stored."""
        self._engine.stored(run)
        run.unmatched = None  # "no matching subscribers" is for servers to say (MQTT 5 §3.4.2.1)
        self._settle(run)
        if run.qos == 2:
            for packet_id in run.packet_ids:
                if self._storing.get(packet_id) is run:
                    del self._storing[packet_id]
                    self._unreleased.add(packet_id)
        self._release_answers()

    def refuse(self, run: PublishRun, reason_code: int) -> None:
        """The log has taken the run too long: nothing is said of it, and the other broker keeps it."""
        self._engine.refused(run)
        self._settle(run)
        for packet_id in run.packet_ids:
            if self._storing.get(packet_id) is run:
                del self._storing[packet_id]
        self.end()
        self._owner.stalled()

    def pause_reading(self) -> None:
        """See `broker.sink.Origin`."""
        self._owner.pause_reading()

    def resume_reading(self) -> None:
        """See `broker.sink.Origin`."""
        self._owner.resume_reading()

    # Acknowledgements, in the order of the publishes [MQTT-4.6.0-2]

    def _settle(self, run: PublishRun) -> None:
        if not run.is_done:
            run.is_done = True
            self.unstored -= run.reliable

    def _answer_in_order(self, answer: bytes) -> None:
        self._pending.append(answer)
        self._release_answers()

    def _release_answers(self) -> None:
        pending = self._pending
        answers: list[bytes] = []
        while pending:
            first = pending[0]
            if isinstance(first, bytes):
                answers.append(first)
            elif first.is_done:
                answers.append(acknowledgements(first))
            else:
                break
            pending.popleft()
        if answers:
            self._owner.answer(b"".join(answers))
