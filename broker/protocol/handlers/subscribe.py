"""SUBSCRIBE and UNSUBSCRIBE (MQTT 5 §3.8–3.11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.codec.encode import encode_suback, encode_unsuback
from broker.codec.errors import MqttError
from broker.codec.packets import Suback, Unsuback
from broker.delivery import Delivery
from broker.protocol.handlers.publish import make_run
from broker.topics.names import validate_topic_filter

if TYPE_CHECKING:
    from broker.codec.packets import Subscribe, Subscription, Unsubscribe
    from broker.protocol.connection import Connection
    from broker.retained import RetainedMessage
    from broker.sessions.session import Session

TOPIC_FILTER_INVALID = 0x8F
QUOTA_EXCEEDED = 0x97
SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E
IMPLEMENTATION_SPECIFIC_ERROR = 0x83
FAILURE_3_1_1 = 0x80
NO_SUBSCRIPTION_EXISTED = 0x11


def handle_subscribe(connection: Connection, packet: Subscribe, now_ms: int) -> None:
    """Add the subscriptions, answer with one code each, then send the retained messages. [MQTT-3.8.4-5]"""
    session = connection.session
    assert session is not None
    identifiers = packet.properties.subscription_identifiers if packet.properties is not None else None
    reason_codes: list[int] = []
    retained_for: list[Subscription] = []
    for subscription in packet.subscriptions:
        if identifiers:
            subscription.subscription_identifier = identifiers[0]
        refusal = _refusal(connection, session, subscription.topic_filter)
        if refusal:
            reason_codes.append(refusal if connection.is_v5 else FAILURE_3_1_1)
            continue
        is_new = _add(connection, session, subscription)
        reason_codes.append(subscription.qos)
        if subscription.retain_handling == 0 or (subscription.retain_handling == 1 and is_new):  # [MQTT-3.3.1-9..11]
            retained_for.append(subscription)
    connection.outbox.append(encode_suback(Suback(packet.packet_id, reason_codes), connection.protocol_level))
    for subscription in retained_for:
        for message in connection.engine.retained.match(subscription.topic_filter):
            _send_retained(connection, session, subscription, message, now_ms)


def _refusal(connection: Connection, session: Session, topic_filter: str) -> int:
    """Why a filter is not granted; 0: it is."""
    config = connection.engine.config
    try:
        validate_topic_filter(topic_filter)
    except MqttError as error:
        return error.reason_code
    if topic_filter.startswith("$share/"):
        return SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
    if topic_filter.startswith("$replay/"):
        return IMPLEMENTATION_SPECIFIC_ERROR
    if topic_filter.count("/") >= config.subscription_topic_levels_max:
        return TOPIC_FILTER_INVALID
    subscriptions = session.subscriptions
    if (
        subscriptions is not None
        and topic_filter not in subscriptions
        and len(subscriptions) >= config.subscriptions_per_client_max
    ):
        return QUOTA_EXCEEDED
    return 0


def _add(connection: Connection, session: Session, subscription: Subscription) -> bool:
    if session.subscriptions is None:
        session.subscriptions = {}
    is_new = subscription.topic_filter not in session.subscriptions
    session.subscriptions[subscription.topic_filter] = subscription
    connection.engine.router.subscribe(session, subscription.topic_filter, subscription)
    return is_new


def _send_retained(
    connection: Connection, session: Session, subscription: Subscription, message: RetainedMessage, now_ms: int
) -> None:
    """One retained message with RETAIN set. [MQTT-3.3.1-8]"""
    if message.expires_at_ms and now_ms >= message.expires_at_ms:  # [MQTT-3.3.2-5]
        connection.engine.retained.remove(message.topic_name)
        return
    if subscription.no_local and message.client_id == session.client_id:
        return
    packet = message.publish()
    route = connection.engine.router.add_route(message.topic_name, message.topic_name.encode())
    run = make_run(packet, route, message.is_v5, message.client_id, message.received_at_ms, None)
    delivery = Delivery(run, 0, 1, packet.qos > 0)
    identifiers = (subscription.subscription_identifier,) if subscription.subscription_identifier else ()
    qos = min(packet.qos, subscription.qos)
    if qos:
        session.deliver_reliably(delivery, qos, True, identifiers)
    else:
        session.send_qos0_rows(delivery, True, identifiers, now_ms)


def handle_unsubscribe(connection: Connection, packet: Unsubscribe, now_ms: int) -> None:
    """Remove the subscriptions; what was already sent or queued is still delivered. [MQTT-3.10.4-2]"""
    del now_ms
    session = connection.session
    assert session is not None
    reason_codes: list[int] = []
    for topic_filter in packet.topic_filters:
        if session.subscriptions is None or session.subscriptions.pop(topic_filter, None) is None:
            reason_codes.append(NO_SUBSCRIPTION_EXISTED)
        else:
            connection.engine.router.unsubscribe(session, topic_filter)
            reason_codes.append(0)
    connection.outbox.append(encode_unsuback(Unsuback(packet.packet_id, reason_codes), connection.protocol_level))
