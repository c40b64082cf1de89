"""A kept session as plain values, for the store, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.codec.decode import decode_packet, next_frame
from broker.codec.encode import encode_publish
from broker.codec.packets import Publish, Subscription, Will
from broker.replay import ReplayState
from broker.store import SessionRow, SubscriptionRow

if TYPE_CHECKING:
    from broker.sessions.session import Session
    from broker.store import Position

NO_LOCAL = 0x04
RETAIN_AS_PUBLISHED = 0x08


def session_row(
    session: Session, will: Will | None, is_v5: bool, expires_at_ms: int = 0, will_due_ms: int = 0
) -> SessionRow:
    """What is kept of a session; `is_v5`: the version of its will."""
    frame, delay_s = encode_will(will, is_v5) if will is not None else (None, 0)
    return SessionRow(session.client_id, is_v5, session.expiry_s, expires_at_ms, frame, delay_s, will_due_ms)


def encode_will(will: Will, is_v5: bool) -> tuple[bytes, int]:
    """A will as the PUBLISH that it will be, and its delay in seconds (MQTT 5 §3.1.3.2.2)."""
    properties = will.properties if is_v5 else None
    packet = Publish(will.topic_name, will.payload, will.qos, will.retain, False, 1 if will.qos else 0, properties)
    delay_s = properties.will_delay_interval if properties is not None else None
    if properties is None or delay_s is None:
        return encode_publish(packet, 5 if is_v5 else 4), 0
    properties.will_delay_interval = None  # no property of a PUBLISH
    try:
        return encode_publish(packet, 5), delay_s
    finally:
        properties.will_delay_interval = delay_s


def decode_will(frame: bytes, is_v5: bool) -> Will:
    """A will whose delay is over or counted elsewhere."""
    found = next_frame(frame, 0, len(frame))
    assert found is not None
    first_byte, body_start, end = found
    packet: Publish = decode_packet(first_byte, frame[body_start:end], 5 if is_v5 else 4)
    return Will(packet.topic_name, packet.payload, packet.qos, packet.retain, packet.properties)


def subscription_row(
    client_id: str, subscription: Subscription, replay: ReplayState | None, begins: Position
) -> SubscriptionRow:
    """What is kept of a subscription, with the place of a replay."""
    options = (
        subscription.qos
        | (NO_LOCAL if subscription.no_local else 0)
        | (RETAIN_AS_PUBLISHED if subscription.retain_as_published else 0)
        | subscription.retain_handling << 4
    )
    return SubscriptionRow(
        client_id,
        subscription.topic_filter,
        options,
        subscription.subscription_identifier,
        replay.since if replay is not None else None,
        replay.topic_filter if replay is not None else "",
        replay.position if replay is not None else "",
        begins,
    )


def subscription_of(row: SubscriptionRow) -> tuple[Subscription, ReplayState | None]:
    """A subscription as it was, and where its replay stood."""
    options = row.options
    subscription = Subscription(
        row.topic_filter,
        options & 0x03,
        bool(options & NO_LOCAL),
        bool(options & RETAIN_AS_PUBLISHED),
        options >> 4,
        row.identifier,
    )
    if row.since is None:
        return subscription, None
    return subscription, ReplayState(
        row.topic_filter,
        row.replay_filter,
        row.since,
        row.position,
        subscription.qos,
        subscription.no_local,
        subscription.retain_as_published,
        row.identifier,
    )
