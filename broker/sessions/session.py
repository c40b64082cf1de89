"""Session: what a client's subscriptions, messages in flight and queue are (MQTT 5 §4.1), and delivery to it.

While a connection is attached the session writes to its outbox. What the client's quota or a slow connection does not
take yet waits in `queue`, in order, within limits; nothing here waits, reads a clock or knows a socket.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from broker.codec.encode import PACKET_IDS
from broker.delivery import Delivery, split_frame
from broker.publish_run import PublishRun, compact, rows_bytes
from broker.sessions.inflight import Flight, Inflight
from broker.sessions.queueing import Queued, enqueue
from broker.sessions.replays import send_replays
from broker.sessions.resending import send_held
from broker.sessions.targets import Target

if TYPE_CHECKING:
    from broker.codec.packets import Subscription
    from broker.config import BrokerConfig
    from broker.metrics import Metrics
    from broker.outbox import Outbox
    from broker.owed import Owed
    from broker.protocol.close_reason import CloseReason
    from broker.protocol.handlers.fan_out import FanOut
    from broker.sessions.aliases import OutboundAliases
    from broker.sessions.inbound import Inbound
    from broker.sessions.replays import Replay


class Attached(Protocol):
    """The connection that a session serves, as the session's owner sees it."""

    def take_over(self) -> None:
        """Close: another connection has the client id now. [MQTT-3.1.4-3]"""

    def close(self, reason: CloseReason, reason_code: int = 0) -> None:
        """Close for another reason."""

    def release_acks(self) -> None:
        """A publish that this connection only repeated has been stored."""


class Session:
    """One client id's state. `outbox` is None while the client is away."""

    __slots__ = (
        "aliases",
        "client_id",
        "config",
        "connection",
        "expires_at_s",
        "expiry_s",
        "fan_out",
        "held",
        "held_messages",
        "inbound",
        "inflight",
        "is_kept",
        "is_v5",
        "metrics",
        "outbox",
        "owed",
        "packet_bytes_max",
        "queue",
        "queued_bytes",
        "queued_messages",
        "quota",
        "replays",
        "subscriptions",
        "targets",
    )

    def __init__(self, client_id: str, config: BrokerConfig, metrics: Metrics) -> None:
        self.client_id = client_id
        self.config = config
        self.metrics = metrics
        self.connection: Attached | None = None
        self.outbox: Outbox | None = None
        self.is_v5 = False
        self.expiry_s = 0
        """Seconds that the session outlives its connection."""
        self.expires_at_s = 0
        self.is_kept = False
        """The store has it."""
        self.owed: Owed | None = None
        """Not None: the store has to know what is sent and queued."""
        self.quota = config.inflight_messages_max
        """The client's Receive Maximum, or our own bound if that is lower (MQTT 5 §4.9)."""
        self.packet_bytes_max = 0
        """The client's Maximum Packet Size; 0: none. [MQTT-3.1.2-24]"""
        self.aliases: OutboundAliases | None = None
        """Of this connection; None: the client takes none."""
        # The rest is made when it is first needed: most sessions are idle.
        self.subscriptions: dict[str, Subscription] | None = None
        self.targets: dict[tuple[int, bool, bool, tuple[int, ...], Target | None], Target] | None = None
        self.replays: dict[str, Replay] | None = None
        """Those of the subscriptions that are replays, by topic filter as subscribed."""
        self.fan_out: FanOut | None = None
        """Retained messages that are sent to this connection in slices."""
        self.inflight: Inflight | None = None
        self.held: deque[tuple[int, Flight, bool]] | None = None
        """(QoS, messages, whether they were sent before) in flight that this connection has not been sent yet: they are
        more than it takes."""
        self.held_messages = 0
        self.queue: deque[Queued] | None = None
        self.queued_messages = 0
        self.queued_bytes = 0
        self.inbound: Inbound | None = None
        """Its client's publishes of QoS 2."""

    def target(
        self,
        qos: int,
        no_local: bool,
        retain_as_published: bool,
        identifiers: tuple[int, ...],
        own: Target | None = None,
    ) -> Target:
        """The session's one Target with these options."""
        if self.targets is None:
            self.targets = {}
        key = (qos, no_local, retain_as_published, identifiers, own)
        target = self.targets.get(key)
        if target is None:
            target = self.targets[key] = Target(self, qos, no_local, retain_as_published, identifiers, own)
        return target

    # Delivery

    def deliver_qos0(self, delivery: Delivery) -> None:
        """Send the rows with QoS 0; dropped and counted when the client is away or reads too slowly."""
        outbox = self.outbox
        if outbox is None:
            return
        if self.fan_out is not None:
            self.fan_out.bring(delivery.run, delivery.row, delivery.end_row)
        count = delivery.end_row - delivery.row
        if outbox.is_blocked and outbox.pending_bytes > self.config.outbox_bytes_max:
            self.metrics.dropped_messages["outbox_full"] += count
            self.metrics.limits.hit("outbox_bytes_max")
            return
        if self.aliases is not None:
            self.send_qos0_rows(delivery, False, (), 0)
            return
        chunk = delivery.qos0(self.is_v5)
        if self.packet_bytes_max and len(chunk) > self.packet_bytes_max:
            self.send_qos0_rows(delivery, False, (), 0)
            return
        outbox.append(chunk)
        self.metrics.messages_delivered += count
        outbox.messages_out += count

    def deliver_as_read(self, run: PublishRun, row: int, end_row: int) -> None:
        """As `deliver_qos0` of plain rows of QoS 0: where nothing asks for more, their bytes as they stand."""
        outbox = self.outbox
        if outbox is None:
            return
        if (
            outbox.is_blocked
            or self.aliases is not None
            or self.packet_bytes_max
            or self.is_v5 is not run.is_v5
            or self.fan_out is not None
        ):
            self.deliver_qos0(Delivery(run, row, end_row, False))
            return
        outbox.append(run.data[run.frame_start(row) : run.ends[end_row - 1]])
        self.count_sent(end_row - row)

    def count_sent(self, count: int) -> None:
        """So many publishes of QoS 0 are in the outbox."""
        assert self.outbox is not None
        self.metrics.messages_delivered += count
        self.outbox.messages_out += count

    def deliver_reliably(
        self,
        delivery: Delivery,
        qos: int,
        retain: bool = False,
        identifiers: tuple[int, ...] = (),
        now_ms: int = 0,
    ) -> None:
        """Send the rows with QoS 1 or 2, or queue what cannot leave now.

        `now_ms` is for messages that have waited, retained ones: their message expiry interval is reduced by that.
        """
        if self.fan_out is not None:
            self.fan_out.bring(delivery.run, delivery.row, delivery.end_row)
        owed = self.owed
        if owed is not None and not delivery.run.number:  # the server's own, or a retained message
            owed.number(delivery.run)
        if self.queue or self.outbox is None:
            taken = enqueue(self, delivery, qos, retain, identifiers)
        else:
            sent_row = self._send(delivery, qos, retain, identifiers, now_ms)
            taken = sent_row - delivery.row
            if sent_row < delivery.end_row:
                rest = Delivery(delivery.run, sent_row, delivery.end_row, delivery.is_reliable, delivery.share)
                taken += enqueue(self, rest, qos, retain, identifiers)
        if owed is not None and taken:
            owed.given(self, delivery, taken, qos, retain, identifiers)

    def deliver_special(self, delivery: Delivery, target: Target, now_ms: int) -> None:
        """Rows for a subscription whose options make its frames its own."""
        run = delivery.run
        if run.client_id == self.client_id:  # [MQTT-3.8.3-3]
            if target.no_local:
                return
            target = target.own or target
        retain = run.retain and target.retain_as_published  # [MQTT-3.3.1-12], [MQTT-3.3.1-13]
        qos = min(target.qos, run.qos) if delivery.is_reliable else 0
        if not retain and not target.identifiers:
            if qos:
                self.deliver_reliably(delivery, qos)
            else:
                self.deliver_qos0(delivery)
        elif qos:
            self.deliver_reliably(delivery, qos, retain, target.identifiers)
        else:
            self.send_qos0_rows(delivery, retain, target.identifiers, now_ms)

    def send_qos0_rows(self, delivery: Delivery, retain: bool, identifiers: tuple[int, ...], now_ms: int) -> None:
        """QoS 0 rows one by one: what makes a frame this client's own, or too large for it, is looked at for each."""
        outbox = self.outbox
        if outbox is None:
            return
        if self.fan_out is not None:
            self.fan_out.bring(delivery.run, delivery.row, delivery.end_row)
        for row in range(delivery.row, delivery.end_row):
            if outbox.is_blocked and outbox.pending_bytes > self.config.outbox_bytes_max:
                self.metrics.dropped_messages["outbox_full"] += 1
                self.metrics.limits.hit("outbox_bytes_max")
                continue
            frame = self._frame(delivery.run, row, 0, retain, identifiers, now_ms)
            if frame is not None:
                outbox.append(frame[0] + frame[1])
                outbox.messages_out += 1
                self.metrics.messages_delivered += 1

    def _frame(
        self, run: PublishRun, row: int, qos: int, retain: bool, identifiers: tuple[int, ...], now_ms: int
    ) -> tuple[bytes, bytes] | None:
        """One row as `split_frame` has it, with a topic alias for who takes such.

        QoS 2 of a kept session has none: its frames wait for the store, and the alias would be used before that.
        None, and counted, when it is over the client's Maximum Packet Size. [MQTT-3.1.2-25]
        """
        alias = 0
        is_alias_known = False
        if self.aliases is not None and not (qos == 2 and self.owed is not None):
            alias, is_alias_known = self.aliases.choose(run.routes[row].encoded_topic)
        frame = split_frame(
            run,
            row,
            self.is_v5,
            qos,
            retain=retain,
            identifiers=identifiers,
            now_ms=now_ms,
            alias=alias,
            is_alias_known=is_alias_known,
        )
        size = len(frame[0]) + len(frame[1]) + (2 if qos else 0)
        if not self.packet_bytes_max or size <= self.packet_bytes_max:
            return frame
        self.metrics.dropped_messages["packet_too_large"] += 1
        if self.aliases is not None and alias and not is_alias_known:
            self.aliases.take_back(run.routes[row].encoded_topic)
        return None

    def _send(self, delivery: Delivery, qos: int, retain: bool, identifiers: tuple[int, ...], now_ms: int = 0) -> int:
        """Send as many of the rows as quota, packet ids and the outbox allow; returns the first row not sent."""
        outbox = self.outbox
        assert outbox is not None
        if self.inflight is None:
            self.inflight = Inflight()
        inflight = self.inflight
        row, end_row = delivery.row, delivery.end_row
        is_special = (
            retain
            or bool(identifiers)
            or bool(self.packet_bytes_max)
            or bool(delivery.run.expires_at_ms)
            or self.aliases is not None
        )
        while row < end_row:
            room = min(self.quota - inflight.count, inflight.room())
            if room <= 0:
                break
            if outbox.pending_bytes > self.config.outbox_reliable_bytes_max:
                outbox.waiting = self
                break
            if is_special:
                row += self._send_special(delivery, row, qos, retain, identifiers, now_ms)
                continue
            run = delivery.run
            last_row = min(end_row, row + room)
            flight = inflight.add(*compact(run, row, last_row), qos, share=delivery.share)
            sent = flight.end_row - flight.row
            if row != delivery.row or row + sent != end_row:
                parts = Delivery(run, row, row + sent, delivery.is_reliable).reliable_parts(self.is_v5, qos)
            else:
                parts = delivery.reliable_parts(self.is_v5, qos).copy()
            parts[1::2] = PACKET_IDS[flight.first_id : flight.first_id + sent]
            if qos == 2 and self.owed is not None:
                self.owed.send(self, flight, retain, identifiers, b"".join(parts))
            else:
                outbox.append(b"".join(parts))
            outbox.messages_out += sent
            self.metrics.messages_delivered += sent
            row += sent
        return row

    def _send_special(
        self, delivery: Delivery, row: int, qos: int, retain: bool, identifiers: tuple[int, ...], now_ms: int
    ) -> int:
        """Send one row whose frame is not like the others; returns 1."""
        run = delivery.run
        assert self.outbox is not None
        assert self.inflight is not None
        if run.expires_at_ms and now_ms >= run.expires_at_ms:  # [MQTT-3.3.2-5]
            self.metrics.dropped_messages["expired"] += 1
            return 1
        frame = self._frame(run, row, qos, retain, identifiers, now_ms)
        if frame is None:
            return 1
        front, back = frame
        flight = self.inflight.add(*compact(run, row, row + 1), qos, retain, identifiers, delivery.share)
        data = front + PACKET_IDS[flight.first_id] + back
        if qos == 2 and self.owed is not None:
            self.owed.send(self, flight, retain, identifiers, data)
        else:
            self.outbox.append(data)
        self.outbox.messages_out += 1
        self.metrics.messages_delivered += 1
        return 1

    # The queue

    def send_queued(self, now_ms: int) -> None:
        """Send from the queue what quota and outbox allow; replays get what room is left."""
        if self.held is not None and not send_held(self, now_ms):
            return
        self._send_queue(now_ms)
        if self.replays is not None:
            send_replays(self)
        if self.fan_out is not None and not self.queue:
            self.fan_out.resume()

    def _send_queue(self, now_ms: int) -> None:
        queue = self.queue
        while queue and self.outbox is not None:
            first = queue[0]
            delivery = first.delivery
            sent_row = self._send(delivery, first.qos, first.retain, first.identifiers, now_ms)
            if sent_row == delivery.row:
                return
            size = rows_bytes(delivery.run, delivery.row, sent_row)
            self.queued_messages -= sent_row - delivery.row
            self.queued_bytes -= size
            self.metrics.queued_messages -= sent_row - delivery.row
            self.metrics.queued_bytes -= size
            if sent_row < delivery.end_row:
                first.delivery = Delivery(
                    delivery.run, sent_row, delivery.end_row, delivery.is_reliable, delivery.share
                )
                return
            queue.popleft()
        if not queue:
            self.queue = None

    def oldest_owed(self) -> int | None:
        """The number of the oldest message that the client has not taken, replays aside; None: there is none."""
        oldest: int | None = None
        if self.inflight is not None:
            for flights in (self.inflight.unacknowledged, self.inflight.unreceived):
                for flight in flights:
                    if isinstance(flight.run, PublishRun):
                        number = flight.run.floor or flight.run.number + flight.row
                        oldest = number if oldest is None else min(oldest, number)
                        break
        if self.queue:
            delivery = self.queue[0].delivery
            number = delivery.run.floor or delivery.run.number + delivery.row
            oldest = number if oldest is None else min(oldest, number)
        return oldest
