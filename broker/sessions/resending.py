"""After a reconnect: what a session had in flight is sent again, as its client takes it (MQTT 5 §4.4)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from broker.codec.encode import PACKET_IDS
from broker.delivery import split_frame
from broker.replay import ReplayPiece
from broker.sessions.inflight import Flight, holds, take

if TYPE_CHECKING:
    from broker.sessions.session import Session


def resend(session: Session, pubrel: bytes, now_ms: int) -> None:
    """What is unacknowledged again, in order, with DUP, then PUBRELs. [MQTT-4.4.0-1]

    `pubrel` holds a PUBREL for each packet id, four bytes each, from 0 on. [MQTT-4.6.0-1]
    """
    inflight, outbox = session.inflight, session.outbox
    if inflight is None or outbox is None:
        return
    session.held = deque()
    session.held_messages = 0
    for qos, flight in inflight.in_order():
        if flight.is_durable:  # the others are held when they are
            hold(session, flight, qos, is_again=flight.is_sent)
            flight.is_sent = True
    send_held(session, now_ms)
    for flight in inflight.uncompleted:
        if not flight.is_durable:
            continue
        first_id = flight.first_id
        outbox.append(pubrel[4 * first_id : 4 * (first_id + flight.end_row - flight.row)])


def hold(session: Session, flight: Flight, qos: int, *, is_again: bool) -> None:
    """Have a flight sent behind those that wait for room since the reconnect; `is_again`: it was sent before."""
    if session.held is None:
        session.held = deque()
    rest = Flight(flight.first_id, flight.run, flight.row, flight.end_row, flight.retain, flight.identifiers)
    session.held.append((qos, rest, is_again))
    session.held_messages += rest.end_row - rest.row


def send_held(session: Session, now_ms: int) -> bool:
    """Send again what the client's Receive Maximum and the outbox allow; returns whether all has left."""
    held, inflight, outbox = session.held, session.inflight, session.outbox
    if outbox is None or inflight is None:
        return False
    while held:
        qos, flight, is_again = held[0]
        while flight.row < flight.end_row:
            if inflight.count - session.held_messages >= session.quota:  # [MQTT-3.3.4-9]
                return False
            if outbox.pending_bytes > session.config.outbox_reliable_bytes_max:
                outbox.waiting = session
                return False
            first_id, row = flight.first_id, flight.row
            flight.first_id += 1
            flight.row += 1
            session.held_messages -= 1
            if holds(inflight.unacknowledged if qos == 1 else inflight.unreceived, first_id):
                one = Flight(first_id, flight.run, row, row + 1, flight.retain, flight.identifiers)
                resend_flight(session, one, qos, now_ms, is_again=is_again)
        held.popleft()
    session.held = None
    return True


def resend_flight(session: Session, flight: Flight, qos: int, now_ms: int, *, is_again: bool) -> None:
    """Send some PUBLISHes, with DUP when they were sent before. [MQTT-3.3.1-1]"""
    assert session.outbox is not None
    assert flight.run is not None
    assert session.inflight is not None
    for row in range(flight.row, flight.end_row):
        if isinstance(flight.run, ReplayPiece):
            front, back = flight.run.split(row, session.is_v5)
        else:
            front, back = split_frame(
                flight.run,
                row,
                session.is_v5,
                qos,
                retain=flight.retain,
                identifiers=flight.identifiers,
                now_ms=now_ms,
            )
        packet_id = flight.first_id + row - flight.row
        if session.packet_bytes_max and len(front) + len(back) + 2 > session.packet_bytes_max:  # [MQTT-3.1.2-25]
            session.metrics.dropped_messages["packet_too_large"] += 1
            take(session.inflight.unacknowledged if qos == 1 else session.inflight.unreceived, packet_id)
            session.inflight.count -= 1
            if qos == 2 and session.owed is not None:
                session.owed.end(session, [packet_id])
            continue
        if is_again:
            front = bytes((front[0] | 0x08,)) + front[1:]  # DUP
        session.outbox.append(front + PACKET_IDS[packet_id] + back)
