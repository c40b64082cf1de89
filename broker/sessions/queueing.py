"""The queue of a session: QoS 1 and 2 messages that its client cannot be sent now, within limits."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from broker.delivery import Delivery
from broker.publish_run import compact, rows_bytes

if TYPE_CHECKING:
    from broker.sessions.session import Session


class Queued:
    """Rows that wait in a session's queue, to be sent with `qos` 1 or 2."""

    __slots__ = ("delivery", "identifiers", "qos", "retain")

    def __init__(self, delivery: Delivery, qos: int, retain: bool, identifiers: tuple[int, ...]) -> None:
        self.delivery = delivery
        self.qos = qos
        self.retain = retain
        self.identifiers = identifiers


def enqueue(session: Session, delivery: Delivery, qos: int, retain: bool, identifiers: tuple[int, ...]) -> int:
    """Queue the first rows, as many as the limits allow; returns how many."""
    config = session.config
    if config.queued_drop == "oldest":
        _make_room(session, delivery)
    run, row, end_row = delivery.run, delivery.row, delivery.end_row
    count = min(end_row - row, config.queued_messages_max - session.queued_messages)
    if count < end_row - row or session.queued_bytes >= config.queued_bytes_max:
        is_by_count = count < end_row - row
        session.metrics.limits.hit("queued_messages_max" if is_by_count else "queued_bytes_max")
    if count <= 0 or session.queued_bytes >= config.queued_bytes_max:
        session.metrics.dropped_messages["queue_full"] += end_row - row
        return 0
    if count < end_row - row:
        session.metrics.dropped_messages["queue_full"] += end_row - row - count
    if session.queue is None:
        session.queue = deque()
    run, row, end_row = compact(run, row, row + count)
    kept = Delivery(run, row, end_row, delivery.is_reliable, delivery.share)
    session.queue.append(Queued(kept, qos, retain, identifiers))
    size = rows_bytes(run, row, end_row)
    session.queued_messages += count
    session.queued_bytes += size
    session.metrics.queued_messages += count
    session.metrics.queued_bytes += size
    return count


def _make_room(session: Session, delivery: Delivery) -> None:
    """Drop the oldest of the queue until the rows fit, or nothing is left."""
    config, queue = session.config, session.queue
    messages_max = config.queued_messages_max - (delivery.end_row - delivery.row)
    bytes_max = config.queued_bytes_max - rows_bytes(delivery.run, delivery.row, delivery.end_row)
    dropped = dropped_bytes = 0
    is_by_count = session.queued_messages > messages_max
    while queue and (
        session.queued_messages - dropped > messages_max or session.queued_bytes - dropped_bytes > bytes_max
    ):
        first = queue[0].delivery
        dropped += 1
        dropped_bytes += rows_bytes(first.run, first.row, first.row + 1)
        if first.row + 1 == first.end_row:
            queue.popleft()
        else:
            queue[0].delivery = Delivery(first.run, first.row + 1, first.end_row, first.is_reliable, first.share)
    if dropped:
        session.metrics.limits.hit("queued_messages_max" if is_by_count else "queued_bytes_max")
        session.metrics.dropped_messages["queue_full"] += dropped
        session.queued_messages -= dropped
        session.queued_bytes -= dropped_bytes
        session.metrics.queued_messages -= dropped
        session.metrics.queued_bytes -= dropped_bytes


def unsent(session: Session) -> int:
    """Messages of its own in the queue, which nobody else gets when it ends."""
    own = [queued.delivery for queued in session.queue or () if not queued.delivery.share]
    return sum(delivery.end_row - delivery.row for delivery in own)
