"""PUBLISH that does not come in a run: DUP, properties, topic alias, or a topic that may not be published to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.codec.constants import LEVEL_3_1
from broker.codec.encode import encode_publish
from broker.codec.errors import ProtocolError, TopicAliasInvalid
from broker.hooks import Publishes
from broker.protocol.handlers.exactly_once import answer_repeat, check_unreleased, take_exactly_once
from broker.protocol.handlers.judge import QUOTA_EXCEEDED, refuse
from broker.publish_run import PublishRun

if TYPE_CHECKING:
    from broker.codec.packets import Publish
    from broker.protocol.connection import Connection
    from broker.routing import Route
    from broker.sessions.session import Session
    from broker.sink import Origin

NOT_AUTHORIZED = 0x87


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
        if _is_repeat(connection, session, packet):
            answer_repeat(connection, session, packet.packet_id)
            return
        check_unreleased(connection, session)
    if route is None:
        refuse(connection, packet, NOT_AUTHORIZED, "reserved_topic")
        return
    if packet.retain and not connection.engine.can_retain(packet):
        refuse(connection, packet, QUOTA_EXCEEDED, "retained_full")
        return
    run = make_run(packet, route, connection.is_v5, connection.client_id, now_ms, connection)
    hook = connection.engine.hooks.on_publish
    if hook is not None:
        hook(connection, publishes := Publishes(run))
        if publishes.verdicts:
            refuse(connection, packet, publishes.verdicts[0], "hook")
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
        is_plain=properties is None or properties.is_empty,
    )
    if expiry_s is not None:
        run.expires_at_ms = now_ms + 1000 * expiry_s
    return run


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


def _is_repeat(connection: Connection, session: Session, packet: Publish) -> bool:
    """QoS 2 with a packet id that is not released yet: the same message again. [MQTT-4.3.3-10]"""
    inbound = session.inbound
    if inbound is None:
        return False
    may_resend = connection.protocol_level == LEVEL_3_1
    return inbound.is_repeat(packet.packet_id, packet.topic_name, packet.payload, dup=packet.dup, may_resend=may_resend)
