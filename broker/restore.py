"""What kept sessions are owed, found again at a start: records from their positions on, and QoS 2 on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.codec.decode import decode_packet, next_frame
from broker.delivery import Delivery
from broker.protocol.handlers.publish import make_run
from broker.sessions.inflight import PACKET_ID_MAX, Flight, Inflight
from broker.shared import ShareGroup
from broker.store import FlightsReleased

if TYPE_CHECKING:
    from broker.engine import Engine
    from broker.owed import Owed
    from broker.publish_run import PublishRun
    from broker.sessions.session import Session
    from broker.sessions.targets import Target
    from broker.store import CopyRow, FlightRow, Position, StoredRecord

NUMBER_BITS = 16
"""Numbers begin at the time in milliseconds, shifted by so many: beyond those of all runs before."""
A_COPY = -1
Begins = dict[tuple[str, str], "Position"]
"""By client id and topic filter: where the subscription begins."""
Reference = tuple[int, int]
"""Log and offset."""


class OwedMessages:
    """One start. The sessions and their subscriptions are there already."""

    def __init__(self, engine: Engine, owed: Owed, begins: Begins) -> None:
        self._engine = engine
        self._owed = owed
        self._store = owed.store
        self._begins = begins
        self._takers_by_topic: dict[str, list[tuple[Target, list[Position]]]] = {}
        # Records that a session must not be given again: QoS 2 messages that are over or on their way.
        self._known: dict[Session, set[Reference]] = {}
        self._flights: dict[Reference, list[tuple[Session, FlightRow]]] = {}
        self._run_by_flight: dict[tuple[str, int], PublishRun] = {}

    def find(self) -> None:
        """Queue for each session what it is owed."""
        engine, store, owed = self._engine, self._store, self._owed
        mark = owed.begin(engine.now_ms << NUMBER_BITS)
        sessions = engine.sessions.session_by_client_id
        positions = {
            sessions[client_id]: position
            for client_id, position in store.load_positions().items()
            if client_id in sessions
        }
        flights = [row for row in store.load_flights() if row.client_id in sessions]
        for client_id, *place in store.load_ended_flights():
            if client_id in sessions:
                self._known.setdefault(sessions[client_id], set()).add((place[0], place[1]))
        ended = set(self._known)
        for row in flights:
            session = sessions[row.client_id]
            self._known.setdefault(session, set()).add((row.log_id, row.offset))
            if not row.is_released:
                self._flights.setdefault((row.log_id, row.offset), []).append((session, row))
        for copied in store.load_copies():
            if copied.client_id in sessions:
                self._take_copy(sessions[copied.client_id], copied)
        start = dict(mark)
        for position in positions.values():
            for log_id in start:
                start[log_id] = min(start[log_id], position.get(log_id, 0))
        for log_id in store.position():
            start.setdefault(log_id, 0)
        for record in store.read_records(start, self._is_wanted):
            self._take(record, positions, mark)
        for row in flights:
            self._restore_flight(sessions[row.client_id], row)
        for session in sessions.values():
            owed.found(session, positions.get(session), mark, session in ended)
        owed.ready()

    def _is_wanted(self, topic_name: str) -> bool:
        return bool(self._takers(topic_name)) or bool(self._flights)

    def _takers(self, topic_name: str) -> list[tuple[Target, list[Position]]]:
        """Who takes a topic with QoS 1 or 2, and where each of the subscriptions that do so begins."""
        takers = self._takers_by_topic.get(topic_name)
        if takers is None:
            router = self._engine.router
            begins: dict[Session, list[Position]] = {}
            for taker, subscription in router.subscriptions.match(topic_name):
                if not isinstance(taker, ShareGroup) and subscription.qos and taker.is_kept:
                    place = self._begins.get((taker.client_id, subscription.topic_filter), {})
                    begins.setdefault(taker, []).append(place)
            route = router.add_route(topic_name, topic_name.encode())
            targets = route.targets or router.resolve(route)
            takers = [
                (target, begins[target.session])
                for target in targets.key
                if not isinstance(target, ShareGroup) and target.session in begins
            ]
            self._takers_by_topic[topic_name] = takers
        return takers

    def _take(self, record: StoredRecord, positions: dict[Session, Position], mark: Position) -> None:
        log_id, offset = reference = (record.log_id, record.offset)
        run: PublishRun | None = None
        for target, begins in self._takers(record.topic_name):
            session = target.session
            if offset < positions.get(session, mark).get(log_id, 0) or reference in self._known.get(session, ()):
                continue
            if not any(offset >= place.get(log_id, 0) for place in begins):
                continue
            run = run or self._run(record)
            session.deliver_special(Delivery(run, 0, 1, True), target, self._engine.now_ms)
        for _, row in self._flights.pop(reference, ()):
            run = run or self._run(record)
            self._run_by_flight[row.client_id, row.packet_id] = run

    def _take_copy(self, session: Session, copied: CopyRow) -> None:
        run = self._run_of(copied.topic_name, copied.frame, copied.is_v5, copied.publisher, copied.received_at_ms)
        run.log_id = A_COPY
        run.number = copied.number
        self._owed.next_number = max(self._owed.next_number, copied.number + 1)
        self._owed.found_copies(session)
        flights = self._flights.get((0, copied.number), ())
        for taker, row in flights:
            if taker is session:
                self._run_by_flight[row.client_id, row.packet_id] = run
                return
        if (0, copied.number) not in self._known.get(session, ()):
            delivery = Delivery(run, 0, 1, True, copied.share)
            session.deliver_reliably(delivery, copied.qos, copied.retain, copied.identifiers)

    def _run(self, record: StoredRecord) -> PublishRun:
        run = self._run_of(record.topic_name, record.frame, record.is_v5, record.client_id, record.received_at_ms)
        run.log_id = record.log_id
        run.base_offset = record.offset
        self._owed.number(run)
        return run

    def _run_of(self, topic_name: str, frame: bytes, is_v5: bool, client_id: str, received_at_ms: int) -> PublishRun:
        found = next_frame(frame, 0, len(frame))
        assert found is not None
        first_byte, body_start, end = found
        packet = decode_packet(first_byte, frame[body_start:end], 5 if is_v5 else 4)
        packet.packet_id = 1
        route = self._engine.router.add_route(topic_name, topic_name.encode())
        return make_run(packet, route, is_v5, client_id, received_at_ms, None)

    def _restore_flight(self, session: Session, row: FlightRow) -> None:
        run = self._run_by_flight.get((row.client_id, row.packet_id))
        is_released = row.is_released
        if run is None and not is_released:
            # There is nothing to send again: of a replay, or its record is gone. The client may have got it and wait
            # for PUBREL; else it would take the next message with this packet id for the same one.
            is_released = True
            self._engine.changes.append(FlightsReleased(row.client_id, row.packet_id, 1))
        if session.inflight is None:
            session.inflight = Inflight()
        inflight = session.inflight
        flight = Flight(row.packet_id, run, 0, 1, row.retain, row.identifiers)
        (inflight.uncompleted if is_released else inflight.unreceived).append(flight)
        inflight.count += 1
        inflight.next_id = row.packet_id % PACKET_ID_MAX + 1
