"""Session: what a client's subscriptions, messages in flight and queue are (MQTT 5 §4.1), and delivery to it.

While a connection is attached the session writes to its outbox. What the client's quota or a slow connection does not
take yet waits in `queue`, in order, within limits; nothing here waits, reads a clock or knows a socket.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from broker.codec.encode import PACKET_IDS
from broker.delivery import Delivery, split_frame
from broker.publish_run import PublishRun
from broker.replay import ReplayPiece
from broker.sessions.inflight import Flight, Inflight, holds, take
from broker.sessions.replays import send_replays

if TYPE_CHECKING:
    from broker.codec.packets import Subscription
    from broker.config import BrokerConfig
    from broker.metrics import Metrics
    from broker.outbox import Outbox
    from broker.owed import Owed
    from broker.protocol.close_reason import CloseReason
    from broker.protocol.handlers.fan_out import FanOut
    from broker.sessions.aliases import OutboundAliases
    from broker.sessions.replays import Replay


class Attached(Protocol):
    """The connection that a session serves, as the session's owner sees it."""

    def take_over(self) -> None:
        """Close: another connection has the client id now. [MQTT-3.1.4-3]"""

    def close(self, reason: CloseReason, reason_code: int = 0) -> None:
        """Close for another reason."""

    def release_acks(self) -> None:
        """A publish that this connection only repeated has been stored."""


class Target:
    """How one session takes one topic: its subscriptions that match, merged. [MQTT-3.3.4-2]"""

    __slots__ = ("identifiers", "no_local", "own", "qos", "retain_as_published", "session")

    def __init__(
        self,
        session: Session,
        qos: int,
        no_local: bool,
        retain_as_published: bool,
        identifiers: tuple[int, ...],
        own: Target | None = None,
    ) -> None:
        self.session = session
        self.qos = qos
        self.no_local = no_local
        self.retain_as_published = retain_as_published
        self.identifiers = identifiers
        self.own = own
        """What the client gets of its own publishes, when some of the subscriptions are No Local and some are not."""

    @property
    def is_simple(self) -> bool:
        """The same bytes as for every other subscriber will do."""
        return not (self.no_local or self.retain_as_published or self.identifiers or self.own is not None)


class Queued:
    """Rows that wait in a session's queue, to be sent with `qos` 1 or 2."""

    __slots__ = ("delivery", "identifiers", "qos", "retain")

    def __init__(self, delivery: Delivery, qos: int, retain: bool, identifiers: tuple[int, ...]) -> None:
        self.delivery = delivery
        self.qos = qos
        self.retain = retain
        self.identifiers = identifiers


class Session:
    """One client id's state. `outbox` is None while the client is away."""

    __slots__ = (
        "_config",
        "_metrics",
        "aliases",
        "client_id",
        "connection",
        "expires_at_s",
        "expiry_s",
        "fan_out",
        "held",
        "held_messages",
        "inflight",
        "is_kept",
        "is_v5",
        "outbox",
        "owed",
        "packet_bytes_max",
        "queue",
        "queued_bytes",
        "queued_messages",
        "quota",
        "replays",
        "restored_unreleased",
        "storing",
        "subscriptions",
        "targets",
        "unreleased",
    )

    def __init__(self, client_id: str, config: BrokerConfig, metrics: Metrics) -> None:
        self.client_id = client_id
        self._config = config
        self._metrics = metrics
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
        self.held: deque[tuple[int, Flight]] | None = None
        """(QoS, messages) in flight that this connection has not been sent again yet: they are more than it takes."""
        self.held_messages = 0
        self.queue: deque[Queued] | None = None
        self.queued_messages = 0
        self.queued_bytes = 0
        self.unreleased: set[int] | None = None
        """Packet ids of inbound QoS 2 publishes that were taken and not yet released (§4.3.3)."""
        self.storing: dict[int, PublishRun] | None = None
        """Those of them whose records are not stored yet, by packet id: a repeat is answered when they are."""
        self.restored_unreleased: set[int] | None = None
        """Those from before a restart: only a publish with DUP is a repeat of one."""

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
        if outbox.is_blocked and outbox.pending_bytes > self._config.outbox_bytes_max:
            self._metrics.dropped_messages["outbox_full"] += count
            self._metrics.limits.hit("outbox_bytes_max")
            return
        if self.aliases is not None:
            self.send_qos0_rows(delivery, False, (), 0)
            return
        chunk = delivery.qos0(self.is_v5)
        if self.packet_bytes_max and len(chunk) > self.packet_bytes_max:
            self.send_qos0_rows(delivery, False, (), 0)
            return
        outbox.append(chunk)
        self._metrics.messages_delivered += count
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
        self._metrics.messages_delivered += count
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
            taken = self._enqueue(delivery, qos, retain, identifiers)
        else:
            sent_row = self._send(delivery, qos, retain, identifiers, now_ms)
            taken = sent_row - delivery.row
            if sent_row < delivery.end_row:
                rest = Delivery(delivery.run, sent_row, delivery.end_row, delivery.is_reliable, delivery.share)
                taken += self._enqueue(rest, qos, retain, identifiers)
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
            if outbox.is_blocked and outbox.pending_bytes > self._config.outbox_bytes_max:
                self._metrics.dropped_messages["outbox_full"] += 1
                self._metrics.limits.hit("outbox_bytes_max")
                continue
            frame = self._frame(delivery.run, row, 0, retain, identifiers, now_ms)
            if frame is not None:
                outbox.append(frame[0] + frame[1])
                outbox.messages_out += 1
                self._metrics.messages_delivered += 1

    def _frame(
        self, run: PublishRun, row: int, qos: int, retain: bool, identifiers: tuple[int, ...], now_ms: int
    ) -> tuple[bytes, bytes] | None:
        """One row as `split_frame` has it, with a topic alias for who takes such.

        None, and counted, when it is over the client's Maximum Packet Size. [MQTT-3.1.2-25]
        """
        alias = 0
        is_alias_known = False
        if self.aliases is not None:
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
        self._metrics.dropped_messages["packet_too_large"] += 1
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
            if outbox.pending_bytes > self._config.outbox_reliable_bytes_max:
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
            self._metrics.messages_delivered += sent
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
            self._metrics.dropped_messages["expired"] += 1
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
        self._metrics.messages_delivered += 1
        return 1

    # The queue

    def _enqueue(self, delivery: Delivery, qos: int, retain: bool, identifiers: tuple[int, ...]) -> int:
        """Queue the first rows, as many as the limits allow; returns how many."""
        config = self._config
        if config.queued_drop == "oldest":
            self._make_room(delivery)
        run, row, end_row = delivery.run, delivery.row, delivery.end_row
        count = min(end_row - row, config.queued_messages_max - self.queued_messages)
        if count < end_row - row or self.queued_bytes >= config.queued_bytes_max:
            is_by_count = count < end_row - row
            self._metrics.limits.hit("queued_messages_max" if is_by_count else "queued_bytes_max")
        if count <= 0 or self.queued_bytes >= config.queued_bytes_max:
            self._metrics.dropped_messages["queue_full"] += end_row - row
            return 0
        if count < end_row - row:
            self._metrics.dropped_messages["queue_full"] += end_row - row - count
        if self.queue is None:
            self.queue = deque()
        run, row, end_row = compact(run, row, row + count)
        kept = Delivery(run, row, end_row, delivery.is_reliable, delivery.share)
        self.queue.append(Queued(kept, qos, retain, identifiers))
        size = rows_bytes(run, row, end_row)
        self.queued_messages += count
        self.queued_bytes += size
        self._metrics.queued_messages += count
        self._metrics.queued_bytes += size
        return count

    def _make_room(self, delivery: Delivery) -> None:
        """Drop the oldest of the queue until the rows fit, or nothing is left."""
        config, queue = self._config, self.queue
        messages_max = config.queued_messages_max - (delivery.end_row - delivery.row)
        bytes_max = config.queued_bytes_max - rows_bytes(delivery.run, delivery.row, delivery.end_row)
        dropped = dropped_bytes = 0
        is_by_count = self.queued_messages > messages_max
        while queue and (
            self.queued_messages - dropped > messages_max or self.queued_bytes - dropped_bytes > bytes_max
        ):
            first = queue[0].delivery
            dropped += 1
            dropped_bytes += rows_bytes(first.run, first.row, first.row + 1)
            if first.row + 1 == first.end_row:
                queue.popleft()
            else:
                queue[0].delivery = Delivery(first.run, first.row + 1, first.end_row, first.is_reliable, first.share)
        if dropped:
            self._metrics.limits.hit("queued_messages_max" if is_by_count else "queued_bytes_max")
            self._metrics.dropped_messages["queue_full"] += dropped
            self.queued_messages -= dropped
            self.queued_bytes -= dropped_bytes
            self._metrics.queued_messages -= dropped
            self._metrics.queued_bytes -= dropped_bytes

    def unsent(self) -> int:
        """Messages of its own in the queue, which nobody else gets when it ends."""
        own = [queued.delivery for queued in self.queue or () if not queued.delivery.share]
        return sum(delivery.end_row - delivery.row for delivery in own)

    def send_queued(self, now_ms: int) -> None:
        """Send from the queue what quota and outbox allow; replays get what room is left."""
        if self.held is not None and not self._send_held(now_ms):
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
            self._metrics.queued_messages -= sent_row - delivery.row
            self._metrics.queued_bytes -= size
            if sent_row < delivery.end_row:
                first.delivery = Delivery(
                    delivery.run, sent_row, delivery.end_row, delivery.is_reliable, delivery.share
                )
                return
            queue.popleft()
        if not queue:
            self.queue = None

    def resend(self, pubrel: bytes, now_ms: int) -> None:
        """After a reconnect: what is unacknowledged again, in order, with DUP, then PUBRELs. [MQTT-4.4.0-1]

        `pubrel` holds a PUBREL for each packet id, four bytes each, from 0 on. [MQTT-4.6.0-1]
        """
        inflight, outbox = self.inflight, self.outbox
        if inflight is None or outbox is None:
            return
        self.held = deque(
            (qos, Flight(each.first_id, each.run, each.row, each.end_row, each.retain, each.identifiers))
            for qos, each in inflight.in_order()
            if each.is_durable  # the others are sent when they are
        )
        self.held_messages = sum(flight.end_row - flight.row for _, flight in self.held)
        self._send_held(now_ms)
        for flight in inflight.uncompleted:
            if not flight.is_durable:
                continue
            first_id = flight.first_id
            outbox.append(pubrel[4 * first_id : 4 * (first_id + flight.end_row - flight.row)])

    def _send_held(self, now_ms: int) -> bool:
        """Send again what the client's Receive Maximum and the outbox allow; returns whether all has left."""
        held, inflight, outbox = self.held, self.inflight, self.outbox
        if outbox is None or inflight is None:
            return False
        while held:
            qos, flight = held[0]
            while flight.row < flight.end_row:
                if inflight.count - self.held_messages >= self.quota:  # [MQTT-3.3.4-9]
                    return False
                if outbox.pending_bytes > self._config.outbox_reliable_bytes_max:
                    outbox.waiting = self
                    return False
                first_id, row = flight.first_id, flight.row
                flight.first_id += 1
                flight.row += 1
                self.held_messages -= 1
                if holds(inflight.unacknowledged if qos == 1 else inflight.unreceived, first_id):
                    one = Flight(first_id, flight.run, row, row + 1, flight.retain, flight.identifiers)
                    self.resend_flight(one, qos, now_ms)
            held.popleft()
        self.held = None
        return True

    def resend_flight(self, flight: Flight, qos: int, now_ms: int) -> None:
        """Send some PUBLISHes again, with DUP."""
        assert self.outbox is not None
        assert flight.run is not None
        assert self.inflight is not None
        for row in range(flight.row, flight.end_row):
            if isinstance(flight.run, ReplayPiece):
                front, back = flight.run.split(row, self.is_v5)
            else:
                front, back = split_frame(
                    flight.run,
                    row,
                    self.is_v5,
                    qos,
                    retain=flight.retain,
                    identifiers=flight.identifiers,
                    now_ms=now_ms,
                )
            packet_id = flight.first_id + row - flight.row
            if self.packet_bytes_max and len(front) + len(back) + 2 > self.packet_bytes_max:  # [MQTT-3.1.2-25]
                self._metrics.dropped_messages["packet_too_large"] += 1
                take(self.inflight.unacknowledged if qos == 1 else self.inflight.unreceived, packet_id)
                self.inflight.count -= 1
                if qos == 2 and self.owed is not None:
                    self.owed.end(self, [packet_id])
                continue
            front = bytes((front[0] | 0x08,)) + front[1:]  # DUP [MQTT-3.3.1-1]
            self.outbox.append(front + PACKET_IDS[packet_id] + back)

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


def rows_bytes(run: PublishRun, row: int, end_row: int) -> int:
    """Bytes of the rows' frames."""
    return run.ends[end_row - 1] - run.frame_start(row) if end_row > row else 0


def compact(run: PublishRun, row: int, end_row: int) -> tuple[PublishRun, int, int]:
    """The rows as (run, row, end_row) that may be kept: a copy when the run's read is much larger than they are.

    Without it a message that waits for a client would keep a whole read, up to 256 KiB, in memory.
    """
    start = run.frame_start(row)
    end = run.ends[end_row - 1]
    if 8 * (end - start) + 1024 >= len(run.data):
        return run, row, end_row
    copy = PublishRun(
        run.data[start:end],
        0,
        run.routes[row:end_row],
        [position - start for position in run.payload_starts[row:end_row]],
        [position - start for position in run.ends[row:end_row]],
        run.packet_ids[row:end_row],
        is_v5=run.is_v5,
        client_id=run.client_id,
        received_at_ms=run.received_at_ms,
        reliable=run.reliable and end_row - row,
        qos=run.qos,
        retain=run.retain,
        is_plain=run.is_plain,
    )
    copy.expires_at_ms = run.expires_at_ms
    copy.stream = run.stream
    copy.number = run.number + row
    copy.floor = run.floor
    copy.log_id = run.log_id
    if run.base_offset >= 0:
        copy.base_offset = run.base_offset + row
    return copy, 0, end_row - row
