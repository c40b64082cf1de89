"""PUBLISH that is not plain: RETAIN, DUP, QoS 2, properties, topic alias, or a topic that may not be published to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.codec.encode import encode_puback, encode_publish, encode_pubrec
from broker.codec.errors import ProtocolError, TopicAliasInvalid
from broker.codec.packets import Puback, Publish, Pubrec
from broker.hooks import Publishes
from broker.protocol.handlers.exactly_once import answer_repeat, check_unreleased, take_exactly_once
from broker.publish_run import PublishRun, part

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.hooks import Client
    from broker.protocol.connection import Connection
    from broker.routing import Route
    from broker.sessions.session import Session
    from broker.sink import Origin

NOT_AUTHORIZED = 0x87
QUOTA_EXCEEDED = 0x97

REFUSALS = {
    "reserved_topic": "only the server publishes to this topic",
    "retained_full": "no room for another retained message",
    "hook": "the server does not take it",
}
"""What a client that asked for reasons is told, by the reason of the metric."""


def handle_publish(connection: Connection, packet: Publish, now_ms: int) -> None:
    """Validate, resolve the alias, and hand the publish on as a run of one row.

    Raises:
        TopicAliasInvalid: the alias is above what was announced.
        ProtocolError: the alias stands for no topic yet.
    """
    if packet.properties is not None:
        if packet.properties.subscription_identifiers:  # [MQTT-3.3.4-6]
            raise ProtocolError("a subscription identifier in a publish of a client")
        if packet.properties.topic_alias is not None:
            _resolve_alias(connection, packet)
    topic = packet.topic_name.encode()
    router = connection.engine.router
    route = router.routes.get(topic) or router.open_route(topic)
    session = connection.session
    assert session is not None
    if packet.qos == 2:
        if _is_repeat(session, packet):
            answer_repeat(connection, session, packet.packet_id)
            return
        check_unreleased(connection, session)
    if route is None:
        _refuse(connection, packet, NOT_AUTHORIZED, "reserved_topic")
        return
    if packet.retain and not connection.engine.can_retain(packet):
        _refuse(connection, packet, QUOTA_EXCEEDED, "retained_full")
        return
    run = make_run(packet, route, connection.is_v5, connection.client_id, now_ms, connection)
    hook = connection.engine.hooks.on_publish
    if hook is not None:
        hook(connection, publishes := Publishes(run))
        if publishes.verdicts:
            _refuse(connection, packet, publishes.verdicts[0], "hook")
            return
    if packet.qos == 2:
        take_exactly_once(connection, session, run)
    else:
        connection.take(run)


def make_run(
    packet: Publish, route: Route, is_v5: bool, client_id: str, now_ms: int, origin: Origin | None
) -> PublishRun:
    """A run of one row: the publish as a canonical frame (no alias, no DUP)."""
    properties = packet.properties
    expiry_s = properties.message_expiry_interval if properties is not None else None
    packet.dup = False
    if properties is not None:
        properties.topic_alias = None
    frame = encode_publish(packet, 5 if is_v5 else 4)
    run = PublishRun(
        frame,
        0,
        [route],
        [len(frame) - len(packet.payload)],
        [len(frame)],
        [packet.packet_id] if packet.qos else [],
        is_v5=is_v5,
        client_id=client_id,
        received_at_ms=now_ms,
        origin=origin,
        reliable=1 if packet.qos else 0,
        qos=packet.qos,
        retain=packet.retain,
        is_plain=not packet.retain and (properties is None or properties.is_empty),
    )
    if expiry_s is not None:
        run.expires_at_ms = now_ms + 1000 * expiry_s
    return run


def take_judged(connection: Connection, run: PublishRun, hook: Callable[[Client, Publishes], None]) -> None:
    """Have the program's hook judge a run of plain publishes, and take what it lets pass; in order. [MQTT-4.6.0-2]"""
    hook(connection, publishes := Publishes(run))
    verdicts = publishes.verdicts
    if not verdicts:
        connection.take(run)
        return
    row = 0
    for refused_row in [*sorted(verdicts), len(run)]:
        if row < refused_row:
            connection.take(part(run, row, refused_row))
        if refused_row < len(run):
            packet_id = run.packet_ids[refused_row] if run.packet_ids else 0
            packet = Publish(run.routes[refused_row].topic_name, qos=1 if packet_id else 0, packet_id=packet_id)
            _refuse(connection, packet, verdicts[refused_row], "hook")
        row = refused_row + 1


def _resolve_alias(connection: Connection, packet: Publish) -> None:
    """Topic alias to topic name, or the other way round remembered (MQTT 5 §3.3.2.3.4)."""
    assert packet.properties is not None
    alias = packet.properties.topic_alias
    assert alias is not None
    if not 0 < alias <= connection.engine.config.topic_alias_maximum:  # [MQTT-3.3.2-9]
        raise TopicAliasInvalid(f"topic alias {alias} is above Topic Alias Maximum")
    if connection.inbound_aliases is None:
        connection.inbound_aliases = {}
    if packet.topic_name:
        connection.inbound_aliases[alias] = packet.topic_name
        return
    topic_name = connection.inbound_aliases.get(alias)
    if topic_name is None:
        raise ProtocolError(f"topic alias {alias} stands for no topic yet")
    packet.topic_name = topic_name


def _is_repeat(session: Session, packet: Publish) -> bool:
    """QoS 2 with a packet id that is not released yet: the same message again. [MQTT-4.3.3-10]"""
    if session.unreleased is not None and packet.packet_id in session.unreleased:
        return True
    # After a restart a client that lost its session may use the id for a new message; DUP tells them apart.
    restored = session.restored_unreleased
    return restored is not None and packet.dup and packet.packet_id in restored


def _refuse(connection: Connection, packet: Publish, reason_code: int, reason: str) -> None:
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
        if connection.session.unreleased is None:
            connection.session.unreleased = set()
        connection.session.unreleased.add(packet.packet_id)
