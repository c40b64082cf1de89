"""QoS 2 publishes as clients usually send them, many in a read: taken as one run, without those that are repeats.

What is not plain (DUP, properties), and anything while a hook looks at publishes, goes packet by packet through
`handle_publish`, which this must agree with (MQTT 5 §4.3.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.codec.constants import LEVEL_3_1
from broker.codec.encode import PUBREC_STREAM
from broker.codec.errors import ReceiveMaximumExceeded
from broker.protocol.handlers.judge import take_retained
from broker.publish_run import part, read_run
from broker.sessions.inbound import inbound_of

if TYPE_CHECKING:
    from broker.protocol.connection import Connection
    from broker.publish_run import PublishRun
    from broker.sessions.session import Session


# hot path: tests/bench/receive.py
def receive_exactly_once(connection: Connection, data: bytes, position: int, now_ms: int) -> int:
    """Take the plain QoS 2 publishes that stand at `position`; returns the position after them.

    Raises:
        ReceiveMaximumExceeded: more are unreleased than the client was told, or than `unreleased_per_client_max`.
        ProtocolError: one came for the third time.
    """
    engine = connection.engine
    session = connection.session
    assert session is not None
    if engine.hooks.on_publish is not None:
        return position
    run = read_run(
        data,
        position,
        engine.router,
        engine.config.packet_bytes_max,
        is_v5=connection.is_v5,
        client_id=connection.client_id,
        received_at_ms=now_ms,
        origin=connection,
        qos=2,
        retain=data[position] & 1 == 1,
    )
    if run is None:
        return position
    reached = run.ends[-1]
    inbound = inbound_of(session)
    packet_ids = run.packet_ids
    if len(set(packet_ids)) == len(packet_ids) and inbound.unreleased.keys().isdisjoint(packet_ids):
        _take(connection, session, run)
        return reached
    row = 0
    fresh: set[int] = set()
    for number, packet_id in enumerate(packet_ids):
        if packet_id in inbound.unreleased or packet_id in fresh:
            if row < number:
                _take(connection, session, part(run, row, number))
                fresh.clear()
                row = number
            payload = run.data[run.payload_starts[number] : run.ends[number]]
            topic_name, may_resend = run.routes[number].topic_name, connection.protocol_level == LEVEL_3_1
            if inbound.is_repeat(packet_id, topic_name, payload, dup=False, may_resend=may_resend):
                answer_repeat(connection, session, packet_id)
                row = number + 1
                continue
        fresh.add(packet_id)
    if row < len(packet_ids):
        _take(connection, session, part(run, row, len(packet_ids)))
    return reached


def answer_repeat(connection: Connection, session: Session, packet_id: int) -> None:
    """PUBREC for what is here already, when it is stored. [MQTT-4.3.3-10]"""
    first = session.inbound.storing.get(packet_id) if session.inbound is not None else None
    if first is not None:
        connection.answer_stored(first, packet_id)
    else:
        connection.answer_in_order(PUBREC_STREAM[4 * packet_id : 4 * packet_id + 4])


def check_unreleased(connection: Connection, session: Session) -> int:
    """How many QoS 2 publishes more the client may send before it releases some.

    Raises:
        ReceiveMaximumExceeded: none.
    """
    config = connection.engine.config
    room = config.unreleased_per_client_max - len(inbound_of(session).unreleased)
    if connection.is_v5:
        left = config.receive_maximum - connection.outstanding
        if left <= 0:  # [MQTT-3.3.4-9]
            raise ReceiveMaximumExceeded("more unreleased QoS 2 publishes than Receive Maximum")
        room = min(room, left)
    if room <= 0:
        connection.engine.metrics.limits.hit("unreleased_per_client_max")
        raise ReceiveMaximumExceeded("more unreleased QoS 2 publishes than unreleased_per_client_max")
    return room


def _take(connection: Connection, session: Session, run: PublishRun) -> None:
    """Take rows that are all new, as far as there is room for them; the next one then ends the connection."""
    room = check_unreleased(connection, session)
    if len(run) <= room:
        _take_new(connection, session, run)
        return
    row = 0
    while row < len(run):
        end_row = min(len(run), row + check_unreleased(connection, session))
        _take_new(connection, session, part(run, row, end_row))
        row = end_row


def _take_new(connection: Connection, session: Session, run: PublishRun) -> None:
    if run.retain:
        take_retained(connection, run, lambda rows: take_exactly_once(connection, session, rows))
    else:
        take_exactly_once(connection, session, run)


def take_exactly_once(connection: Connection, session: Session, run: PublishRun) -> None:
    """Note the packet ids of QoS 2 publishes that are new, and hand them on."""
    inbound = inbound_of(session)
    inbound.taken(run)
    run.keeps_packet_ids = session.expiry_s > 0
    if run.stream is not None:
        storing = inbound.storing
        for packet_id in run.packet_ids:
            storing[packet_id] = run
    connection.take(run)
