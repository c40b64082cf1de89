"""Retained messages on their way to new subscriptions, in slices: who subscribes to everything must not hold the loop.

Of each topic the subscription gets what was retained when it was made, and before whatever is published after that: a
live message whose topic has not been reached yet brings the retained one along, also when it takes its place. A client
that reads slowly, or has as much in flight as it takes, is waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.delivery import Delivery
from broker.protocol.handlers.publish import make_run
from broker.retained_frames import send_retained_qos0
from broker.topics.names import matches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.codec.packets import Subscription
    from broker.engine import Engine
    from broker.publish_run import PublishRun
    from broker.retained import RetainedMessage
    from broker.sessions.session import Session

SLICE = 1_000
"""Messages sent in a turn; a millisecond or two."""
OWN_SLICE = 100
"""The same of those that are made for their client alone."""
STALE_NAMES = 1_000
"""Names are forgotten when there are so many more of them than twice what is retained."""


class FanOut:
    """One subscription's retained messages, while its connection has the session."""

    __slots__ = ("_engine", "_is_due", "_seen", "_session", "_walk", "subscription")

    def __init__(self, engine: Engine, session: Session, subscription: Subscription) -> None:
        self.subscription = subscription
        self._engine = engine
        self._session = session
        self._walk = engine.retained.walk(subscription.topic_filter)
        self._seen: set[str] = set()
        """Topic names that are not to be looked at again."""
        self._is_due = False
        """It is in `Engine.due_fan_outs`."""

    def begin(self) -> None:
        """Send the first slice; when that is not all, the others follow."""
        self._session.fan_out = self
        self._engine.fan_outs[self] = None
        self._send_slice()

    def end(self) -> None:
        """Nothing more is sent."""
        self._session.fan_out = None
        self._engine.fan_outs.pop(self, None)

    def resume(self) -> None:
        """There may be room for a slice."""
        if not self._is_due:
            self._is_due = True
            self._engine.due_fan_outs.append(self)

    def bring(self, run: PublishRun, row: int, end_row: int) -> None:
        """Rows are about to be delivered: what is retained of their topics goes before them."""
        for route in run.routes[row:end_row]:
            if route.topic_name not in self._seen:
                message = self._engine.retained.get(route.topic_name)
                if message is not None:
                    self._send_early(message)

    def replace(self, run: PublishRun) -> None:
        """Rows with RETAIN are about to be kept: what they replace goes first, they themselves are live messages."""
        self.bring(run, 0, len(run))
        retained = self._engine.retained
        if len(self._seen) > 2 * len(retained) + STALE_NAMES:  # what has no message is not found by the walk either
            self._seen = {topic_name for topic_name in self._seen if retained.get(topic_name) is not None}
        self._seen.update([route.topic_name for route in run.routes])

    def _send_early(self, message: RetainedMessage) -> None:
        self._seen.add(message.topic_name)
        if matches(self.subscription.topic_filter, message.topic_name):
            send_one(self._engine, self._session, self.subscription, message)

    def next_turn(self) -> None:
        """It is this one's turn."""
        self._is_due = False
        session = self._session
        outbox = session.outbox
        if session.fan_out is not self or outbox is None:
            return
        if outbox.is_blocked or outbox.pending_bytes > self._engine.config.outbox_reliable_bytes_max:
            outbox.waiting = session
        elif not session.queue:  # else it is resumed when that is sent
            self._send_slice()

    def _send_slice(self) -> None:
        session, engine, subscription = self._session, self._engine, self.subscription
        is_any = takes_any(session, subscription)
        count = SLICE if is_any else min(OWN_SLICE, engine.config.queued_messages_max)
        topic_names = self._walk.take(count)
        messages = self._messages_of(topic_names)
        if is_any:
            messages = send_retained_qos0(session, messages)
        for message in messages:
            send_one(engine, session, subscription, message)
        if len(topic_names) < count:
            self.end()
        elif not session.queue:
            self.resume()

    def _messages_of(self, topic_names: Sequence[str]) -> list[RetainedMessage]:
        """Their messages, which are then seen."""
        get, seen = self._engine.retained.get, self._seen
        messages = [get(topic_name) for topic_name in topic_names if topic_name not in seen]
        seen.update(topic_names)
        return [message for message in messages if message is not None]

    def leave(self) -> None:
        """The connection is gone: a kept session queues what it is owed, as far as there is room."""
        session = self._session
        if session.expiry_s and self.subscription.qos:
            while session.queued_messages < self._engine.config.queued_messages_max:
                topic_names = self._walk.take(OWN_SLICE)
                if not topic_names:
                    break
                for message in self._messages_of(topic_names):
                    send_one(self._engine, session, self.subscription, message)
        self.end()


def send_retained(engine: Engine, session: Session, subscription: Subscription) -> None:
    """Send what is retained for a new subscription: a little at once, much in slices. [MQTT-3.3.1-9]"""
    is_sliced = session.outbox is not None and session.fan_out is None
    if is_sliced and len(engine.fan_outs) >= engine.config.retained_fan_outs_max:
        is_sliced = False
        engine.metrics.limits.hit("retained_fan_outs_max")
    if is_sliced:
        messages = engine.own_retained_for(subscription.topic_filter)
        FanOut(engine, session, subscription).begin()
    else:
        messages = engine.retained_for(subscription.topic_filter, engine.now_ms)
        if takes_any(session, subscription):
            messages = send_retained_qos0(session, messages)
    for message in messages:
        send_one(engine, session, subscription, message)


def send_slices(engine: Engine) -> None:
    """One slice, for who has waited longest; once a turn."""
    if engine.due_fan_outs:
        engine.due_fan_outs.popleft().next_turn()


def takes_any(session: Session, subscription: Subscription) -> bool:
    """Nothing about the subscription or its client makes a retained message its own, or too large."""
    return (
        not subscription.qos
        and not subscription.no_local
        and not subscription.subscription_identifier
        and session.aliases is None
        and not session.packet_bytes_max
        and session.outbox is not None
        and not session.outbox.is_blocked
    )


def send_one(engine: Engine, session: Session, subscription: Subscription, message: RetainedMessage) -> None:
    """One retained message with RETAIN set. [MQTT-3.3.1-8]"""
    now_ms = engine.now_ms
    if subscription.no_local and message.client_id == session.client_id:
        return
    if message.expires_at_ms and now_ms >= message.expires_at_ms:  # while it waited [MQTT-3.3.2-5]
        return
    packet = message.publish()
    route = engine.router.add_route(message.topic_name, message.topic_name.encode())
    run = make_run(packet, route, message.is_v5, message.client_id, message.received_at_ms, None)
    run.stream = None  # it is no new record
    delivery = Delivery(run, 0, 1, packet.qos > 0)
    identifiers = (subscription.subscription_identifier,) if subscription.subscription_identifier else ()
    qos = min(packet.qos, subscription.qos)
    if qos:
        session.deliver_reliably(delivery, qos, True, identifiers, now_ms)
    else:
        session.send_qos0_rows(delivery, True, identifiers, now_ms)
