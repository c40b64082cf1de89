"""SUBSCRIBE and UNSUBSCRIBE (MQTT 5 §3.8–3.11)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from broker.codec.encode import encode_suback, encode_unsuback
from broker.codec.errors import TopicFilterInvalid
from broker.codec.packets import Suback, Unsuback
from broker.hooks import SubscriptionRequest, granted_qos
from broker.protocol.handlers.fan_out import send_retained
from broker.replay import REPLAY_PREFIX, ReplayRefused
from broker.sessions.replays import replay_state
from broker.topics.names import SHARE_PREFIX, refuse_control_characters, split_shared, validate_topic_filter

if TYPE_CHECKING:
    from broker.codec.packets import Subscribe, Subscription, Unsubscribe
    from broker.protocol.connection import Connection
    from broker.replay import ReplayState
    from broker.sessions.replays import Replay
    from broker.sessions.session import Session

TOPIC_FILTER_INVALID = 0x8F
QUOTA_EXCEEDED = 0x97
IMPLEMENTATION_SPECIFIC_ERROR = 0x83
FAILURE_3_1_1 = 0x80
NO_SUBSCRIPTION_EXISTED = 0x11

SINCE = "since"
"""The user property that makes every filter of an MQTT 5 SUBSCRIBE a replay."""


def handle_subscribe(connection: Connection, packet: Subscribe, now_ms: int) -> None:
    """Add the subscriptions, answer with one code each, then send what is retained or stored. [MQTT-3.8.4-5]"""
    session = connection.session
    assert session is not None
    _check_filters([subscription.topic_filter for subscription in packet.subscriptions])
    identifiers = packet.properties.subscription_identifiers if packet.properties is not None else None
    sinces = _sinces(connection, packet)
    reason_codes: list[int] = []
    retained_for: list[Subscription] = []
    replays: list[Replay] = []
    for subscription in packet.subscriptions:
        if identifiers:
            subscription.subscription_identifier = identifiers[0]
        if connection.is_bridge:  # two brokers must not send one message to and fro, and keep what is retained so
            subscription.retain_as_published = True
            subscription.no_local = not subscription.topic_filter.startswith(SHARE_PREFIX)
        try:
            wanted = _judge(connection, session, subscription.topic_filter, sinces)
            if connection.engine.hooks.on_subscribe is not None:
                _ask(connection, subscription, wanted)
            state = _replay_state(connection, session, subscription, wanted, now_ms) if wanted is not None else None
        except Refused as refused:
            reason_codes.append(refused.reason_code if connection.is_v5 else FAILURE_3_1_1)
            continue
        reason_codes.append(subscription.qos)
        if state is not None:
            replays.append(_add_replay(connection, session, subscription, state))
            continue
        is_new = _add(connection, session, subscription)
        if subscription.topic_filter.startswith(SHARE_PREFIX):  # retained messages are for no one member (§4.8.2)
            continue
        if subscription.retain_handling == 0 or (subscription.retain_handling == 1 and is_new):  # [MQTT-3.3.1-9..11]
            retained_for.append(subscription)
    answer = encode_suback(Suback(packet.packet_id, reason_codes), connection.protocol_level)
    engine = connection.engine
    dam = engine.kept.dam(connection)

    def send() -> None:
        _send_answer(connection, session, answer)
        if dam is not None:
            engine.kept.open(dam)
        for replay in replays:
            if replay in (session.replays or {}).values():  # else it has been replaced meanwhile
                replay.open()

    engine.kept.when_durable(connection, send)
    for subscription in retained_for:
        send_retained(engine, session, subscription)
    if dam is not None:
        dam.close()


def _check_filters(topic_filters: list[str]) -> None:
    """All of them, before any has an effect; `$replay` has words of its own for what is wrong with one.

    Raises:
        MalformedPacket: one is no topic filter; none of the packet is granted.
    """
    for topic_filter in topic_filters:
        refuse_control_characters(topic_filter)
        if not topic_filter.startswith(REPLAY_PREFIX):
            validate_topic_filter(topic_filter)


class Refused(Exception):
    """A topic filter is not granted."""

    def __init__(self, reason_code: int) -> None:
        super().__init__(f"0x{reason_code:02x}")
        self.reason_code = reason_code


class Wanted(NamedTuple):
    """What a replay subscription asks for."""

    topic_filter: str
    since: str


def _sinces(connection: Connection, packet: Subscribe) -> list[str]:
    """The user properties `since`; without something stored they are whatever the client means by them."""
    if packet.properties is None or connection.engine.replays is None:
        return []
    return [text for name, text in packet.properties.user_properties if name == SINCE]


def _judge(connection: Connection, session: Session, name: str, sinces: list[str]) -> Wanted | None:
    """The one place that says which topic filters are granted; returns what to replay, None for a usual subscription.

    Raises:
        Refused: with the reason for it.
    """
    config = connection.engine.config
    try:
        validate_topic_filter(name)
    except TopicFilterInvalid as error:
        raise Refused(TOPIC_FILTER_INVALID) from error
    shared_filter = split_shared(name)[1] if name.startswith(SHARE_PREFIX) else ""
    if shared_filter and (sinces or shared_filter.startswith(REPLAY_PREFIX)):
        raise Refused(TOPIC_FILTER_INVALID)
    replays = connection.engine.replays
    if replays is None and name.startswith(REPLAY_PREFIX):
        raise Refused(IMPLEMENTATION_SPECIFIC_ERROR)
    wanted = _wanted(name, sinces)
    limits = connection.engine.metrics.limits
    if (shared_filter or name).count("/") >= config.subscription_topic_levels_max:
        limits.hit("subscription_topic_levels_max")
        raise Refused(TOPIC_FILTER_INVALID)
    subscriptions = session.subscriptions
    if (
        subscriptions is not None
        and name not in subscriptions
        and len(subscriptions) >= config.subscriptions_per_client_max
    ):
        limits.hit("subscriptions_per_client_max")
        raise Refused(QUOTA_EXCEEDED)
    shared = connection.engine.router.shared
    if shared_filter and not shared.has_room(session, name):
        limits.hit("shared_members_max" if name in shared.groups else "shared_groups_max")
        raise Refused(QUOTA_EXCEEDED)
    is_one_more = session.replays is None or name not in session.replays
    if wanted is not None and replays is not None and is_one_more and not replays.has_room(session):
        replays.refused += 1
        raise Refused(QUOTA_EXCEEDED)
    return wanted


def _ask(connection: Connection, subscription: Subscription, wanted: Wanted | None) -> None:
    """Have the program's hook judge a filter: it may lower its QoS.

    Raises:
        Refused: with the hook's reason.
    """
    hook = connection.engine.hooks.on_subscribe
    assert hook is not None
    share_name, topic_filter = split_shared(subscription.topic_filter)
    since = None
    if wanted is not None:
        topic_filter, since = wanted.topic_filter, wanted.since
    answer = hook(connection, SubscriptionRequest(subscription, topic_filter, share_name, since))
    subscription.qos, reason_code = granted_qos(answer, subscription.qos)
    if reason_code:
        raise Refused(reason_code)


def _wanted(name: str, sinces: list[str]) -> Wanted | None:
    """What `$replay/{since}/{filter}`, or the user property `since` beside a filter, asks for."""
    if not name.startswith(REPLAY_PREFIX):
        if len(sinces) > 1:
            raise Refused(TOPIC_FILTER_INVALID)
        return Wanted(name, sinces[0]) if sinces else None
    since, _, topic_filter = name[len(REPLAY_PREFIX) :].partition("/")
    if not topic_filter or topic_filter.startswith((REPLAY_PREFIX, SHARE_PREFIX)):
        raise Refused(TOPIC_FILTER_INVALID)
    return Wanted(topic_filter, since)


def _replay_state(
    connection: Connection, session: Session, subscription: Subscription, wanted: Wanted, now_ms: int
) -> ReplayState:
    """Where the replay begins: a subscription that is made again goes on where it stands. [MQTT-3.8.4-4]

    Raises:
        Refused: `since` is no time.
    """
    replays = connection.engine.replays
    assert replays is not None  # it was judged
    known = session.replays.get(subscription.topic_filter) if session.replays is not None else None
    state = known.state() if known is not None else None
    if state is not None and state.since == wanted.since:
        position = state.position
    else:
        try:
            position = replays.source.start(wanted.topic_filter, wanted.since, now_ms)
        except ReplayRefused as refused:
            raise Refused(refused.reason_code) from refused
    return replay_state(subscription, wanted.topic_filter, wanted.since, position)


def _add(connection: Connection, session: Session, subscription: Subscription) -> bool:
    is_new = _keep(session, subscription)
    engine = connection.engine
    if engine.replays is not None:
        engine.replays.remove(session, subscription.topic_filter)
    engine.router.subscribe(session, subscription.topic_filter, subscription)
    engine.kept.subscribed(session, subscription, None)
    return is_new


def _add_replay(connection: Connection, session: Session, subscription: Subscription, state: ReplayState) -> Replay:
    """Its messages come from what was stored, live ones too: the router does not know it, so none comes twice."""
    is_new = _keep(session, subscription)
    engine = connection.engine
    assert engine.replays is not None
    known = (session.replays or {}).get(subscription.topic_filter)
    way = known.way if known is not None and known.state().since == state.since else None
    if not is_new and engine.replays.remove(session, subscription.topic_filter) is None:
        engine.router.unsubscribe(session, subscription.topic_filter)
    replay = engine.replays.add(session, state, way)
    engine.kept.subscribed(session, subscription, replay.acknowledged_state())
    return replay


def _keep(session: Session, subscription: Subscription) -> bool:
    if session.subscriptions is None:
        session.subscriptions = {}
    is_new = subscription.topic_filter not in session.subscriptions
    session.subscriptions[subscription.topic_filter] = subscription
    _end_fan_out(session, subscription.topic_filter)
    return is_new


def _end_fan_out(session: Session, topic_filter: str) -> None:
    """The subscription ends, or is made again: what is retained and was not sent for it yet is not any more."""
    if session.fan_out is not None and session.fan_out.subscription.topic_filter == topic_filter:
        session.fan_out.end()


def handle_unsubscribe(connection: Connection, packet: Unsubscribe, now_ms: int) -> None:
    """Remove the subscriptions; what was already sent or queued is still delivered. [MQTT-3.10.4-2]"""
    del now_ms
    session = connection.session
    assert session is not None
    _check_filters(packet.topic_filters)
    reason_codes: list[int] = []
    for topic_filter in packet.topic_filters:
        if session.subscriptions is None or session.subscriptions.pop(topic_filter, None) is None:
            reason_codes.append(NO_SUBSCRIPTION_EXISTED)
        else:
            _end_fan_out(session, topic_filter)
            replays = connection.engine.replays
            if replays is None or replays.remove(session, topic_filter) is None:
                connection.engine.router.unsubscribe(session, topic_filter)
            connection.engine.kept.unsubscribed(session, topic_filter)
            reason_codes.append(0)
    answer = encode_unsuback(Unsuback(packet.packet_id, reason_codes), connection.protocol_level)

    connection.engine.kept.when_durable(connection, lambda: _send_answer(connection, session, answer))


def _send_answer(connection: Connection, session: Session, answer: bytes) -> None:
    """SUBACK or UNSUBACK; one over the client's Maximum Packet Size has its effect unsaid. [MQTT-3.1.2-25]"""
    if session.packet_bytes_max and len(answer) > session.packet_bytes_max:
        return
    connection.engine.metrics.answer_bytes_sent += len(answer)
    connection.outbox.append(answer)
