"""PUBACK, PUBREC, PUBREL, PUBCOMP (MQTT 5 §3.4–3.7, §4.3).

A client that acknowledges in order sends exactly the bytes that stand in a ready table, so a read of acknowledgements
is checked by comparing slices; only what deviates is taken packet by packet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.codec.encode import (
    PUBACK_STREAM,
    PUBCOMP_STREAM,
    PUBREC_STREAM,
    PUBREL_STREAM,
)
from broker.codec.errors import ProtocolError
from broker.codec.packets import Pubrel
from broker.sessions.inflight import Flight, Inflight, holds, take, take_first

if TYPE_CHECKING:
    from collections import deque

    from broker.codec.packets import Puback, Pubcomp, Pubrec
    from broker.protocol.connection import Connection


# hot path: tests/bench/receive.py
def receive_acknowledgements(connection: Connection, data: bytes, position: int, now_ms: int) -> int:
    """Take the acknowledgements at `position` that are the next ones expected; returns the position after them."""
    session = connection.session
    assert session is not None
    inflight = session.inflight
    if inflight is None:
        return position
    first_byte = data[position]
    if first_byte == 0x40:
        reached = _take_run(inflight.unacknowledged, PUBACK_STREAM, data, position)
        inflight.count -= (reached - position) // 4
    elif first_byte == 0x50:
        reached = _take_pubrecs(connection, inflight, data, position)
    else:
        reached = _take_run(inflight.uncompleted, PUBCOMP_STREAM, data, position)
        inflight.count -= (reached - position) // 4
    if first_byte == 0x70 and reached > position and session.owed is not None:
        session.owed.end(session, [data[at] << 8 | data[at + 1] for at in range(position + 2, reached, 4)])
    if reached > position and (session.queue or session.replays or session.held):
        is_starving = inflight.count == 0
        session.send_queued(now_ms)
        if is_starving:  # it has nothing to do until this arrives, and other reads of the turn may be long
            connection.engine.metrics.bytes_sent += connection.outbox.write_now()
    return reached


def _take_run(flights: deque[Flight], stream: bytes, data: bytes, position: int) -> int:
    while flights:
        flight = flights[0]
        count = min(flight.end_row - flight.row, (len(data) - position) // 4)
        first = 4 * flight.first_id
        if not count or data[position : position + 4 * count] != stream[first : first + 4 * count]:
            # Perhaps only the beginning agrees: one at a time costs little and ends at the first that differs.
            while count and data[position : position + 4] == stream[first : first + 4]:
                position += 4
                first += 4
                count -= 1
                take_first(flights, 1)
            return position
        take_first(flights, count)
        position += 4 * count
    return position


def _take_pubrecs(connection: Connection, inflight: Inflight, data: bytes, position: int) -> int:
    """PUBRECs in order: each is answered by a PUBREL of the same id. [MQTT-4.3.3-6]"""
    flights = inflight.unreceived
    while flights:
        flight = flights[0]
        count = min(flight.end_row - flight.row, (len(data) - position) // 4)
        first_id = flight.first_id
        if not count or data[position : position + 4 * count] != PUBREC_STREAM[4 * first_id : 4 * (first_id + count)]:
            return position
        received = Flight(first_id, flight.run, flight.row, flight.row + count)
        take_first(flights, count)
        pubrels = PUBREL_STREAM[4 * first_id : 4 * (first_id + count)]
        owed = connection.session.owed if connection.session is not None else None
        if owed is not None and connection.session is not None:
            inflight.uncompleted.append(received)
            owed.release(connection.session, received, pubrels)
        else:
            inflight.released(received)
            connection.outbox.append(pubrels)
        position += 4 * count
    return position


def handle_puback(connection: Connection, packet: Puback, now_ms: int) -> None:
    """One PUBACK, in whatever order; a reason code of 0x80 or more ends the message too.

    Raises:
        ProtocolError: it answers a message of QoS 2. [MQTT-4.3.3-1]
    """
    session = connection.session
    assert session is not None
    inflight = session.inflight
    if inflight is None:
        return
    if take(inflight.unacknowledged, packet.packet_id) is not None:
        inflight.count -= 1
        session.send_queued(now_ms)
    elif holds(inflight.unreceived, packet.packet_id) or holds(inflight.uncompleted, packet.packet_id):
        raise ProtocolError("PUBACK for a message of QoS 2")


def handle_pubrec(connection: Connection, packet: Pubrec, now_ms: int) -> None:
    """One PUBREC; 0x80 or more ends the message, an unknown id is answered as any other. [MQTT-4.3.3-4]

    Raises:
        ProtocolError: it answers a message of QoS 1.
    """
    session = connection.session
    assert session is not None
    inflight = session.inflight
    flight = take(inflight.unreceived, packet.packet_id) if inflight is not None else None
    if inflight is not None and flight is not None:
        if packet.reason_code >= 0x80:
            inflight.count -= 1
            if session.owed is not None:
                session.owed.end(session, [packet.packet_id])
            session.send_queued(now_ms)
            return
        if session.owed is not None:
            inflight.uncompleted.append(flight)
        else:
            inflight.released(flight)
    elif inflight is not None and holds(inflight.unacknowledged, packet.packet_id):
        raise ProtocolError("PUBREC for a message of QoS 1")
    elif packet.reason_code >= 0x80:
        return
    answer = PUBREL_STREAM[4 * packet.packet_id : 4 * packet.packet_id + 4]
    if flight is not None and session.owed is not None:
        session.owed.release(session, flight, answer)
    else:
        connection.outbox.append(answer)


def handle_pubcomp(connection: Connection, packet: Pubcomp, now_ms: int) -> None:
    """One PUBCOMP.

    Raises:
        ProtocolError: it answers a message of QoS 1, or one that has not been released. [MQTT-4.3.3-5]
    """
    session = connection.session
    assert session is not None
    inflight = session.inflight
    if inflight is None:
        return
    if take(inflight.uncompleted, packet.packet_id) is not None:
        inflight.count -= 1
        if session.owed is not None:
            session.owed.end(session, [packet.packet_id])
        session.send_queued(now_ms)
    elif holds(inflight.unacknowledged, packet.packet_id) or holds(inflight.unreceived, packet.packet_id):
        raise ProtocolError("PUBCOMP for a message that was not released")


# hot path: tests/bench/receive.py
def receive_pubrels(connection: Connection, data: bytes, position: int) -> int:
    """Take the PUBRELs without a reason code that stand at `position`; returns the position after them."""
    end = position
    last = len(data) - 4
    while end <= last and data[end] == 0x62 and data[end + 1] == 2:
        end += 4
    session = connection.session
    assert session is not None
    inbound = session.inbound
    if session.expiry_s or (inbound is not None and (inbound.restored or inbound.repeated)):
        for at in range(position + 2, end, 4):
            if data[at] or data[at + 1]:
                handle_pubrel(connection, Pubrel(data[at] << 8 | data[at + 1]), 0)
            else:
                return at - 2
        return end
    unreleased = inbound.unreleased if inbound is not None else {}
    answers: list[bytes] = []
    for at in range(position + 2, end, 4):
        packet_id = data[at] << 8 | data[at + 1]
        if packet_id:
            if packet_id in unreleased:
                del unreleased[packet_id]
            answers.append(PUBCOMP_STREAM[4 * packet_id : 4 * packet_id + 4])
        else:  # `decode_pubrel` comes to it, and says what is wrong
            end = at - 2
            break
    if answers:
        connection.outbox.append(b"".join(answers))
    return end


def handle_pubrel(connection: Connection, packet: Pubrel, now_ms: int) -> None:
    """PUBREL: the packet id is free again, durably so before PUBCOMP if the session is kept. [MQTT-4.3.3-11]"""
    session = connection.session
    assert session is not None
    packet_id = packet.packet_id
    is_known = session.inbound is not None and session.inbound.release(packet_id)
    answer = PUBCOMP_STREAM[4 * packet_id : 4 * packet_id + 4]
    if is_known and session.expiry_s and connection.engine.sink is not None:
        outbox = connection.outbox
        connection.engine.sink.release(session.client_id, packet_id, lambda: outbox.append(answer))
    else:
        connection.outbox.append(answer)
