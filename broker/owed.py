"""Owed: which messages kept sessions have yet to get, as far as the store has to know it to give them after a crash.

A message that waits for a session is a record of a log already, so nothing is written for it. What is written is where
to begin to look: once a second a mark, which holds for every session that was owed nothing then, and a position for
each session that was. After a crash the records from there on are matched against the subscriptions again. QoS 1 may
then come twice; of QoS 2 each packet id is a row that says what it stands for, before its first byte leaves
(docs/adr/0012).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from broker.publish_run import PublishRun
from broker.sessions.resending import hold
from broker.store import (
    CopiesEnd,
    CopiesTaken,
    CopyRow,
    Durable,
    FlightRow,
    FlightsEnd,
    FlightsReleased,
    FlightsSent,
    MarkChange,
    PositionChange,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.delivery import Delivery
    from broker.sessions.inflight import Flight
    from broker.sessions.session import Session
    from broker.sink import Origin
    from broker.store import Change, Position, Store

MARKS_MAX = 4_096
"""Beyond them every second of the older half is forgotten: positions are found a little too early then."""

SYSTEM_PREFIX = "$SYS/"
"""What the broker says about itself is told again soon, so it is not copied."""
FEW_SESSIONS = 2_000
"""With no more than these, what retention has to leave is found anew each second, with more each `MANY_SESSIONS_S`."""
MANY_SESSIONS_S = 10


def copy_row(
    session: Session, run: PublishRun, row: int, qos: int, retain: bool, identifiers: tuple[int, ...], share: str
) -> CopyRow:
    """One row of a run, for one session."""
    frame = run.data[run.frame_start(row) : run.ends[row]]
    return CopyRow(
        session.client_id,
        run.number + row,
        qos,
        retain,
        identifiers,
        run.routes[row].topic_name,
        frame,
        run.is_v5,
        run.client_id,
        run.received_at_ms,
        share,
    )


class Owed:
    """What one broker's kept sessions are owed."""

    def __init__(self, store: Store, put_down: Callable[[Change], None], clock: Callable[[], int]) -> None:
        """`clock` gives epoch milliseconds."""
        self.store = store
        self._put_down = put_down
        self._clock = clock
        self.copies = 0
        """Messages that were copied because no log has them that can be referred to."""
        self.copied = 0
        """Messages that were copied because retention was about to drop them."""
        self.next_number = 0
        """Rows are numbered in the order in which they are taken (`PublishRun.number`)."""
        self._active: set[Session] = set()
        """Sessions whose position may have changed since the last second."""
        self._position_by_session: dict[Session, Position] = {}
        """As the store has it. Sessions that are not here are owed nothing from before the mark."""
        self._ended: set[Session] = set()
        """Sessions of whom the store remembers QoS 2 messages that are over."""
        self._copying: dict[Session, int] = {}
        """Sessions that may have copies, and the number before which none is left."""
        self._copied_before: dict[Session, int] = {}
        """Of these sessions every message with a lower number is a copy, whatever log it came from."""
        self._paused: set[Origin] = set()
        self._held: Position | None = None
        """From where on records are not to be dropped, as the store has been told."""
        self._seconds = 0
        # Marks: rows with a lower number than `_mark_numbers[i]` that were routed then are not beyond `_marks[i]`.
        self._mark_numbers: list[int] = []
        self._marks: list[Position] = []

    def number(self, run: PublishRun) -> None:
        """A run is taken."""
        run.number = self.next_number
        self.next_number += len(run.routes)

    def touch(self, session: Session) -> None:
        """A kept session's position may have changed."""
        self._active.add(session)

    def given(
        self, session: Session, delivery: Delivery, count: int, qos: int, retain: bool, identifiers: tuple[int, ...]
    ) -> None:
        """The first `count` rows were sent to a kept session, or queued for it."""
        self._active.add(session)
        run = delivery.run
        # Which member of a shared subscription has a message is nowhere but here.
        if run.log_id or (not delivery.share and self.store.log_id(run.stream)):
            return
        if run.routes[delivery.row].topic_name.startswith(SYSTEM_PREFIX):
            return
        rows = range(delivery.row, delivery.row + count)
        self._put_down(
            CopiesTaken([copy_row(session, run, row, qos, retain, identifiers, delivery.share) for row in rows])
        )
        self._copying.setdefault(session, 0)
        self.copies += count

    def wait_for_copies(self, run: PublishRun) -> None:
        """Copies of a run were made; while they cannot be stored, its publisher is not read from."""
        run.waits_for_store = True
        if run.origin is not None and self.store.is_failing():
            run.origin.pause_reading()
            self._paused.add(run.origin)

    def forget(self, session: Session) -> None:
        """A session has ended, or is kept no more."""
        self._active.discard(session)
        self._ended.discard(session)
        self._position_by_session.pop(session, None)
        self._copying.pop(session, None)
        self._copied_before.pop(session, None)

    # QoS 2

    def send(self, session: Session, flight: Flight, retain: bool, identifiers: tuple[int, ...], frames: bytes) -> None:
        """Send QoS 2 PUBLISHes when it is durable what their packet ids stand for. [MQTT-4.3.3-1]"""
        rows: list[FlightRow] = []
        for place in range(flight.end_row - flight.row):
            log_id, offset = self._reference(session, flight, flight.row + place)
            packet_id = flight.first_id + place
            rows.append(FlightRow(session.client_id, packet_id, log_id, offset, False, retain, identifiers))
        self._put_down(FlightsSent(rows))
        self.send_when_durable(session, flight, 2, frames)

    def send_when_durable(self, session: Session, flight: Flight, qos: int, frames: bytes) -> None:
        """Send PUBLISHes when all is durable that has been put down so far."""
        connection = session.connection
        flight.is_durable = False

        def durable() -> None:
            flight.is_durable = True
            if session.outbox is None:
                flight.is_sent = False
                return
            if session.connection is connection:
                session.outbox.append(frames)
            else:  # it has connected again meanwhile: behind what it was sent before, as its client has room
                hold(session, flight, qos, is_again=False)
                session.send_queued(self._clock())

        self.when_durable(durable)

    def when_durable(self, tell: Callable[[], None]) -> None:
        """Call `tell` when all is durable that has been put down so far."""
        self._put_down(Durable(tell))

    def release(self, session: Session, flight: Flight, pubrels: bytes) -> None:
        """PUBREC has come for what is now in `flight`: PUBREL leaves when that is durable. [MQTT-4.3.3-6]"""
        flight.is_durable = False

        def durable() -> None:
            flight.is_durable = True
            if session.outbox is not None:
                session.outbox.append(pubrels)

        self._put_down(FlightsReleased(session.client_id, flight.first_id, flight.end_row - flight.row))
        self._put_down(Durable(durable))

    def end(self, session: Session, packet_ids: list[int]) -> None:
        """PUBCOMP has come, or a PUBREC that ends the message."""
        self._put_down(FlightsEnd(session.client_id, packet_ids))
        self._ended.add(session)
        self._active.add(session)

    def _reference(self, session: Session, flight: Flight, row: int) -> tuple[int, int]:
        """Log and offset; (0, number) for a copy."""
        run = flight.run
        if not isinstance(run, PublishRun):  # a replay goes on where it stood; only the packet id is known
            return 0, 0
        number = run.number + row
        log_id = run.log_id or self.store.log_id(run.stream)
        if log_id <= 0 or flight.share or number < self._copied_before.get(session, 0):
            return 0, number
        return log_id, run.base_offset + row

    # Once a second

    def tick(self) -> None:
        """Note where each session that got something stands, and the mark for all the others."""
        self._seconds += 1
        if self._paused and not self.store.is_failing():
            paused, self._paused = self._paused, set()
            for origin in paused:
                origin.resume_reading()
        mark = self.store.position()
        is_new = not self._marks or mark != self._marks[-1]
        if is_new:
            self._add_mark(self.next_number, mark)
        active, self._active = self._active, set()
        for session in active:
            if session.is_kept:
                self._note(session, mark)
        if is_new:
            self._put_down(MarkChange(mark))
        self._let_retention_go_on(mark)

    def _note(self, session: Session, mark: Position) -> None:
        before = self._position_by_session.get(session)
        oldest = session.oldest_owed()
        self._drop_copies(session, oldest)
        if oldest is None:
            if before is not None or session in self._ended:
                self._position_by_session.pop(session, None)
                self._ended.discard(session)
                self._put_down(PositionChange(session.client_id, None, mark))
            return
        oldest = max(oldest, self._copied_before.get(session, 0))
        index = bisect_right(self._mark_numbers, oldest) - 1
        position = self._marks[index] if index >= 0 else before
        assert position is not None  # what is older than every mark came with the position that it was found from
        if position is not before and position != before:
            self._position_by_session[session] = position
            self._put_down(PositionChange(session.client_id, position, position))
        if session.outbox is not None:
            self._active.add(session)  # it acknowledges while nothing new is given to it

    def _drop_copies(self, session: Session, oldest: int | None) -> None:
        """Copies of what has been taken go."""
        dropped_before = self._copying.get(session)
        if dropped_before is None:
            return
        if oldest is None:
            del self._copying[session]
            self._copied_before.pop(session, None)
            oldest = self.next_number
        if oldest > dropped_before:
            self._put_down(CopiesEnd(session.client_id, oldest))
            if session in self._copying:
                self._copying[session] = oldest

    # Retention

    def _let_retention_go_on(self, mark: Position) -> None:
        """Records that retention wants to drop are copied for those who are owed them, then it may."""
        wanted = self.store.wanted()
        if not wanted and len(self._position_by_session) > FEW_SESSIONS and self._seconds % MANY_SESSIONS_S:
            return
        for session, position in list(self._position_by_session.items()):
            if any(position.get(log_id, 0) < offset for log_id, offset in wanted.items()):
                self._copy_all(session, mark)
        held = dict(mark)
        for position in self._position_by_session.values():
            for log_id in held:
                held[log_id] = min(held[log_id], position.get(log_id, 0))
        if held != self._held:
            self._held = held
            self._put_down(Durable(lambda: self.store.hold(held)))

    def _copy_all(self, session: Session, mark: Position) -> None:
        """Everything that a session is owed now becomes copies, within the limits of its queue."""
        rows: list[CopyRow] = []
        flights: list[FlightRow] = []
        if session.inflight is not None:
            for qos, flight in session.inflight.in_order():
                run = flight.run
                if not isinstance(run, PublishRun):
                    continue
                for row in range(flight.row, flight.end_row):
                    rows.append(copy_row(session, run, row, qos, flight.retain, flight.identifiers, flight.share))
                    if qos == 2:
                        packet_id = flight.first_id + row - flight.row
                        number = run.number + row
                        flights.append(
                            FlightRow(session.client_id, packet_id, 0, number, False, flight.retain, flight.identifiers)
                        )
        for queued in session.queue or ():
            delivery = queued.delivery
            rows += [
                copy_row(session, delivery.run, row, queued.qos, queued.retain, queued.identifiers, delivery.share)
                for row in range(delivery.row, delivery.end_row)
            ]
        self._copied_before[session] = self.next_number
        self._copying.setdefault(session, 0)
        del self._position_by_session[session]
        self._put_down(CopiesTaken(rows))
        if flights:
            self._put_down(FlightsSent(flights))
        self._put_down(PositionChange(session.client_id, None, mark))
        self.copied += len(rows)

    def _add_mark(self, number: int, position: Position) -> None:
        self._mark_numbers.append(number)
        self._marks.append(position)
        if len(self._marks) > MARKS_MAX:
            half = MARKS_MAX // 2
            del self._mark_numbers[1:half:2]
            del self._marks[1:half:2]

    # The start

    def begin(self, first_number: int) -> Position:
        """Begin to number; returns the mark of the run before."""
        self.next_number = first_number
        mark = self.store.load_mark()
        if mark is None:
            mark = self.store.position()
            self._put_down(MarkChange(mark))
        return mark

    def found_copies(self, session: Session) -> None:
        """The store had copies for a session."""
        self._copying[session] = 0

    def ready(self) -> None:
        """What comes from now on is newer than all that was found."""
        self._add_mark(self.next_number, self.store.position())

    def found(self, session: Session, position: Position | None, mark: Position, has_ended: bool) -> None:
        """All that a session was owed is queued again, found from its own position in the store or from the mark."""
        if has_ended:
            self._ended.add(session)
        if position is not None:
            self._position_by_session[session] = position
        elif session.oldest_owed() is not None:
            self._position_by_session[session] = mark
            self._put_down(PositionChange(session.client_id, mark, mark))
        self._active.add(session)
