"""Publishes that are not taken: how their client is told, and which of a run they are.

A hook may refuse any; those with RETAIN for which there is no room among the retained messages are refused too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.codec.encode import encode_puback, encode_pubrec
from broker.codec.packets import Puback, Publish, Pubrec
from broker.hooks import Publishes
from broker.publish_run import PublishRun, part
from broker.sessions.inbound import content_of, inbound_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.hooks import Client
    from broker.protocol.connection import Connection

QUOTA_EXCEEDED = 0x97

REFUSALS = {
    "reserved_topic": "only the server publishes to this topic",
    "retained_full": "no room for another retained message",
    "hook": "the server does not take it",
}
"""What a client that asked for reasons is told, by the reason of the metric."""


def refuse(connection: Connection, packet: Publish, reason_code: int, reason: str) -> None:
    """MQTT 5 is told; in 3.1.1 the publish is acknowledged, dropped and counted."""
    connection.engine.metrics.refused_publishes[reason] += 1
    if packet.qos == 0:
        return
    if not connection.is_v5:
        reason_code = 0
    text = REFUSALS[reason]
    packet_bytes_max = connection.session.packet_bytes_max if connection.session is not None else 0
    if packet.qos == 1:
        puback = Puback(packet.packet_id, reason_code)
        connection.answer_in_order(connection.explained(encode_puback, puback, text, packet_bytes_max))
        return
    pubrec = Pubrec(packet.packet_id, reason_code)
    connection.answer_in_order(connection.explained(encode_pubrec, pubrec, text, packet_bytes_max))
    if reason_code == 0 and connection.session is not None:  # PUBREL will come
        content = content_of(packet.topic_name, packet.payload)
        inbound_of(connection.session).unreleased[packet.packet_id] = content


def take_retained(connection: Connection, run: PublishRun, take: Callable[[PublishRun], None]) -> None:
    """Take a run with RETAIN; a row for which there is no room among the retained messages is refused."""
    engine = connection.engine
    if engine.retained.has_room_for(run):
        take(run)
        return
    for row in range(len(run)):
        one = part(run, row, row + 1)
        if engine.retained.has_room_for(one):
            take(one)
        else:
            engine.retained_full()
            refuse(connection, _packet_of(run, row), QUOTA_EXCEEDED, "retained_full")


def take_judged(connection: Connection, run: PublishRun, hook: Callable[[Client, Publishes], None]) -> None:
    """Have the program's hook judge a run of plain publishes, and take what it lets pass; in order. [MQTT-4.6.0-2]"""
    hook(connection, publishes := Publishes(run))
    verdicts = publishes.verdicts
    if not verdicts:
        _take_run(connection, run)
        return
    row = 0
    for refused_row in [*sorted(verdicts), len(run)]:
        if row < refused_row:
            _take_run(connection, part(run, row, refused_row))
        if refused_row < len(run):
            refuse(connection, _packet_of(run, refused_row), verdicts[refused_row], "hook")
        row = refused_row + 1


def _take_run(connection: Connection, run: PublishRun) -> None:
    if run.retain:
        take_retained(connection, run, connection.take)
    else:
        connection.take(run)


def _packet_of(run: PublishRun, row: int) -> Publish:
    """As much of a row as its refusal needs."""
    packet_id = run.packet_ids[row] if run.packet_ids else 0
    return Publish(run.routes[row].topic_name, qos=run.qos if packet_id else 0, packet_id=packet_id)
