"""Connection: one client's side of the protocol, from bytes to effects.

The listener feeds reads to `receive` and tells of a lost peer by `lost`; what goes back leaves by the outbox. Runs of
plain publishes and of acknowledgements are taken whole; every other packet is decoded and handled by itself. Nothing
here waits, knows a socket or reads a clock.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

from broker.codec import constants
from broker.codec.decode import next_frame
from broker.codec.decode_packets import connect_level, decode_packet
from broker.codec.encode import (
    encode_connack,
    encode_disconnect,
)
from broker.codec.errors import (
    MqttError,
    ReceiveMaximumExceeded,
    UnsupportedProtocolVersion,
)
from broker.codec.packets import Connack, Disconnect, Puback, Pubrec
from broker.codec.properties import Properties
from broker.codec.reason_codes import connack_code_3_1_1
from broker.outbox import Outbox
from broker.protocol import state as states
from broker.protocol.answers import Repeat, acknowledgements, pubrec
from broker.protocol.close_reason import BY_REASON_CODE, CloseReason
from broker.protocol.handlers.acknowledge import receive_acknowledgements, receive_pubrels
from broker.protocol.handlers.exactly_once import receive_exactly_once
from broker.protocol.handlers.judge import take_judged, take_retained
from broker.protocol.unfinished import Unfinished
from broker.publish_run import PublishRun, read_run
from broker.store import Durable

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.codec.packets import Will
    from broker.engine import Engine
    from broker.outbox import Transport
    from broker.protocol.allowance import Allowance
    from broker.sessions.session import Session

PacketT = TypeVar("PacketT", Connack, Disconnect, Puback, Pubrec)

REASON_CHARACTERS_MAX = 200
"""Of a reason string; what a peer sent may be part of it."""
PAUSED_BY_LOG = 1
"""A log cannot follow."""
PAUSED_BY_RATE = 2
"""The client has sent more than its allowance."""

SERVER_SHUTTING_DOWN = 0x8B
KEEP_ALIVE_TIMEOUT = 0x8D
SESSION_TAKEN_OVER = 0x8E


class Connection:
    """One network connection; it has a session from CONNECT until it is lost."""

    __slots__ = (
        "_unfinished",
        "allowance",
        "bytes_in",
        "claim",
        "client_id",
        "close_reason",
        "engine",
        "inbound_aliases",
        "is_bridge",
        "is_v5",
        "keep_alive_s",
        "last_in_s",
        "messages_in",
        "next_look_s",
        "outbox",
        "paused_by",
        "peer",
        "pending_acks",
        "pending_publishes",
        "protocol_level",
        "session",
        "state",
        "transport_kind",
        "username",
        "wants_reasons",
        "will",
    )

    def __init__(self, engine: Engine, transport: Transport, peer: str, transport_kind: str) -> None:
        self.engine = engine
        self.outbox = Outbox(transport, engine.touched)
        self.peer = peer
        """The peer's address, for people."""
        self.transport_kind = transport_kind
        """`tcp`, `websocket`, …"""
        self.state = states.AWAITING_CONNECT
        self.protocol_level = 0
        self.is_v5 = False
        self.is_bridge = False
        """The peer is a broker that speaks 3.1 or 3.1.1: it wants RETAIN as published, and nothing back of its own."""
        self.wants_reasons = False
        """The client asked for reason strings (Request Problem Information of 1, MQTT 5 §3.1.2.11.7)."""
        self.client_id = ""
        self.claim = 0
        """Which CONNECT of all since the start this was; 0 before it."""
        self.bytes_in = 0
        self.messages_in = 0
        self.username: str | None = None
        self.session: Session | None = None
        self.will: Will | None = None
        self.keep_alive_s = 0
        self.last_in_s = engine.seconds
        """`Engine.seconds` at the latest read."""
        self.next_look_s = 0
        """When the engine looks at the connection again: CONNECT overdue, silence, or a close that hangs."""
        self.paused_by = 0
        """`PAUSED_BY_…` bits: who has stopped reading from it, and has to let it go on."""
        self.allowance: Allowance | None = None
        """None: it may send as much as it can."""
        self.close_reason: CloseReason | None = None
        self.inbound_aliases: dict[int, str] | None = None
        self.pending_acks: deque[PublishRun | Repeat | bytes] | None = None
        """What the client waits for, in the order of its publishes; bytes are ready and wait for those before."""
        self.pending_publishes = 0
        """QoS 1 publishes taken and not yet acknowledged; of QoS 2 the session knows which are not released."""
        self._unfinished: Unfinished | None = None
        """A packet that is not whole yet."""

    @property
    def is_paused(self) -> bool:
        """It is not read from, so its silence says nothing."""
        return self.paused_by != 0

    @property
    def silence_s_max(self) -> int:
        """One and a half times the keep alive, in seconds; 0: no limit. [MQTT-3.1.2-22]"""
        return (3 * self.keep_alive_s + 1) // 2

    @property
    def outstanding(self) -> int:
        """What counts against the Receive Maximum that the client was told (MQTT 5 §4.9)."""
        inbound = self.session.inbound if self.session is not None else None
        return self.pending_publishes + (inbound.outstanding if inbound is not None else 0)

    # Bytes in

    def receive(self, data: bytes, now_ms: int) -> None:
        """Take one read."""
        engine = self.engine
        engine.now_ms = now_ms
        size = len(data)
        engine.metrics.bytes_received += size
        self.bytes_in += size
        unfinished = self._unfinished
        if unfinished is not None:
            if not unfinished.add(data):
                return
            data = b"".join(unfinished.parts)
            self._unfinished = None
        messages_before = engine.metrics.messages_received
        try:
            self._receive(data, now_ms)
            if self.allowance is not None:
                self._spend(size, engine.metrics.messages_received - messages_before, now_ms)
        except MqttError as error:
            self.fail(error, data)
        except Exception:  # ours, not the peer's: said once in the log, nothing about it to the peer
            engine.on_internal_error(self)
            self.close(CloseReason.INTERNAL_ERROR, 0x83)

    def _spend(self, size: int, messages: int, now_ms: int) -> None:
        """Count a read against the client's allowance; the engine has it wait when that is overdrawn."""
        assert self.allowance is not None
        wait_ms, limit = self.allowance.spend(size, messages, now_ms)
        if wait_ms and self.state == states.CONNECTED:
            self.engine.metrics.limits.hit(limit)
            self.engine.held.append((self, wait_ms))
            self.pause_reading(PAUSED_BY_RATE)

    def _receive(self, data: bytes, now_ms: int) -> None:
        position = 0
        size = len(data)
        packet_bytes_max = self.engine.config.packet_bytes_max
        while position < size:
            if self.state == states.CONNECTED:
                first_byte = data[position]
                if 0x30 <= first_byte <= 0x33:
                    reached = self._receive_publishes(data, position, now_ms)
                    if reached > position:
                        position = reached
                        continue
                elif first_byte == 0x34 or first_byte == 0x35:
                    reached = receive_exactly_once(self, data, position, now_ms)
                    if reached > position:
                        position = reached
                        continue
                elif first_byte == 0x40 or first_byte == 0x50 or first_byte == 0x70 or first_byte == 0x62:
                    if first_byte == 0x62:
                        reached = receive_pubrels(self, data, position)
                    else:
                        reached = receive_acknowledgements(self, data, position, now_ms)
                    if reached > position:
                        self.engine.metrics.packets_received[first_byte >> 4] += (reached - position) // 4
                        self.engine.metrics.control_bytes_received += reached - position
                        position = reached
                        continue
            packet_type = data[position] >> 4
            if packet_type not in states.LEGAL_PACKETS[self.state]:
                if self.state == states.CLOSED:
                    return
                raise states.not_allowed(data, position)
            frame = next_frame(data, position, packet_bytes_max)
            if frame is None:
                if position:  # a part of a packet does not keep a connection alive [MQTT-3.1.2-22]
                    self.last_in_s = self.engine.seconds
                self._unfinished = Unfinished(data[position:] if position else data)
                return
            first_byte, body_start, end = frame
            if self.state == states.AWAITING_CONNECT:
                self.protocol_level = connect_level(data, body_start, end)
            packet = decode_packet(first_byte, data[body_start:end], self.protocol_level)
            if packet_type != constants.PUBLISH:
                self.engine.metrics.packets_received[packet_type] += 1
                self.engine.metrics.control_bytes_received += end - position
            self.engine.handlers[packet_type](self, packet, now_ms)
            position = end
        self.last_in_s = self.engine.seconds

    # hot path: tests/bench/receive.py
    def _receive_publishes(self, data: bytes, position: int, now_ms: int) -> int:
        """Take the plain publishes that stand at `position`, as one run; returns the position after them.

        With RETAIN or without: the first one says which.
        """
        engine = self.engine
        retain = data[position] & 1 == 1
        run = read_run(
            data,
            position,
            engine.router,
            engine.config.packet_bytes_max,
            is_v5=self.is_v5,
            client_id=self.client_id,
            received_at_ms=now_ms,
            origin=self,
            retain=retain,
        )
        if run is None:
            return position
        hook = engine.hooks.on_publish
        if hook is not None:
            take_judged(self, run, hook)
        elif retain:
            take_retained(self, run, self.take)
        else:
            self.take(run)
        return run.ends[-1]

    def take(self, run: PublishRun) -> None:
        """Hand a run on.

        Raises:
            ReceiveMaximumExceeded: the client has more unacknowledged than it was told to. [MQTT-3.3.4-9]
        """
        self.messages_in += len(run.ends)
        if run.reliable:
            self.engine.metrics.reliable_received += run.reliable
            if run.qos < 2:
                self.pending_publishes += run.reliable
            if self.is_v5 and self.outstanding > self.engine.config.receive_maximum:
                raise ReceiveMaximumExceeded("more unacknowledged publishes than Receive Maximum")
            if self.pending_acks is None:
                self.pending_acks = deque()
            self.pending_acks.append(run)
        self.engine.take(run)

    # Acknowledgements out (broker.sink.Origin)

    def acknowledge(self, run: PublishRun) -> None:
        """The run is stored, or needs no storing."""
        self.engine.stored(run)
        if run.qos == 2 and run.waits_for_store:  # it has been routed just now, to sessions that need a copy
            self.engine.changes.append(Durable(lambda: self._acknowledge(run)))
        else:
            self._acknowledge(run)

    def _acknowledge(self, run: PublishRun) -> None:
        run.is_done = True
        if self.pending_acks:
            self.release_acks()
        if run.qos == 2:
            self._stored_exactly_once(run)

    def refuse(self, run: PublishRun, reason_code: int) -> None:
        """The run will never be stored: MQTT 5 is told so for each publish; 3.1.1 has no way to say it."""
        self.engine.metrics.refused_publishes["log_stalled"] += len(run)
        if run.qos == 2 and self.session is not None and self.session.inbound is not None:
            self.session.inbound.refused(run.packet_ids)
        self.engine.refused(run)
        if not self.is_v5:
            return
        run.reason_code = reason_code
        run.is_done = True
        self.release_acks()
        if run.qos == 2:
            self._stored_exactly_once(run)

    def _stored_exactly_once(self, run: PublishRun) -> None:
        """QoS 2: who repeated the publish on another connection meanwhile gets its PUBREC too."""
        session = self.session
        if session is None or session.inbound is None:
            return
        storing = session.inbound.storing
        for packet_id in run.packet_ids:
            storing.pop(packet_id, None)
        if session.connection is not None and session.connection is not self:
            session.connection.release_acks()

    def answer_stored(self, run: PublishRun, packet_id: int) -> None:
        """Send the PUBREC of a repeated publish once the first one, a row of `run`, is stored."""
        if self.pending_acks is None:
            self.pending_acks = deque()
        self.pending_acks.append(Repeat(run, packet_id))
        self.release_acks()

    def answer_in_order(self, answer: bytes) -> None:
        """Send a PUBACK or PUBREC that waits for nothing but those before it. [MQTT-4.6.0-2]"""
        if self.pending_acks:
            self.pending_acks.append(answer)
        else:
            self.outbox.append(answer)

    def release_acks(self) -> None:
        """Send the acknowledgements that are ready and wait for nothing before them."""
        if self.state == states.CLOSED:  # nothing may follow DISCONNECT [MQTT-3.14.4-1]
            self.pending_acks = None
            return
        pending = self.pending_acks
        outbox = self.outbox
        while pending:
            first = pending[0]
            if isinstance(first, bytes):
                outbox.append(first)
            elif isinstance(first, Repeat):
                if not first.run.is_done:
                    return
                outbox.append(pubrec(first.packet_id, first.run.reason_code))
            elif not first.is_done:
                return
            else:
                outbox.append(acknowledgements(first))
                if first.qos < 2:
                    self.pending_publishes -= first.reliable
            pending.popleft()

    def pause_reading(self, by: int = PAUSED_BY_LOG) -> None:
        """Stop reading; the keep alive does not run meanwhile."""
        transport = self.outbox.transport
        if transport is None or self.state == states.CLOSED:
            return
        if not self.paused_by:
            transport.pause_reading()
        self.paused_by |= by

    def resume_reading(self, by: int = PAUSED_BY_LOG) -> None:
        """Read again, unless somebody else has stopped it too."""
        transport = self.outbox.transport
        if self.paused_by & by:
            self.paused_by &= ~by
            if self.paused_by:
                return
            self.last_in_s = self.engine.seconds
            if transport is not None and self.state != states.CLOSED:
                transport.resume_reading()

    # The transport's fullness

    def pause_writing(self) -> None:
        """The transport is full: what is delivered now gathers in the outbox."""
        self.outbox.is_blocked = True

    def resume_writing(self) -> None:
        """The transport has room again."""
        self.outbox.is_blocked = False
        self.outbox.touch()

    # The end

    def fail(self, error: MqttError, data: bytes) -> None:
        """The peer broke the protocol in `data`: it is told the reason where its version has a way to say it."""
        reason = BY_REASON_CODE.get(error.reason_code, CloseReason.PROTOCOL_ERROR)
        self.engine.on_protocol_error(self, error, data)
        if not error.is_told:
            self.close(reason)
            return
        if self.state == states.AWAITING_CONNECT:
            self._answer_bad_connect(error)
        self.close(reason, error.reason_code, str(error))

    def _answer_bad_connect(self, error: MqttError) -> None:
        """A CONNECT that cannot be taken: 3.1.1 has an answer for a wrong version only. [MQTT-3.1.2-2]

        A level that nobody has yet is answered in the newest form, one that belongs to another name in the oldest.
        """
        if isinstance(error, UnsupportedProtocolVersion):
            if self.protocol_level in (constants.LEVEL_3_1, constants.LEVEL_3_1_1, constants.LEVEL_5):
                self.outbox.append(encode_connack(Connack(False, connack_code_3_1_1(error.reason_code)), 4))
            else:
                self.outbox.append(encode_connack(Connack(False, error.reason_code), 5))
        elif self.protocol_level == constants.LEVEL_5:
            self.outbox.append(encode_connack(Connack(False, error.reason_code), 5))

    def explained(
        self, encode: Callable[[PacketT, int], bytes], packet: PacketT, text: str, packet_bytes_max: int
    ) -> bytes:
        """An answer as bytes, with `text` as its reason string for a client that asked for such. [MQTT-3.1.2-29]

        A text that makes it larger than `packet_bytes_max` (0: no limit) is left out. [MQTT-3.4.2-2] [MQTT-3.14.2-3]
        """
        plain = encode(packet, self.protocol_level)
        if not self.wants_reasons or not text:
            return plain
        if packet.properties is None:
            packet.properties = Properties()
        packet.properties.reason_string = text[:REASON_CHARACTERS_MAX].replace("\0", "")
        explained = encode(packet, self.protocol_level)
        return plain if packet_bytes_max and len(explained) > packet_bytes_max else explained

    def close(self, reason: CloseReason, reason_code: int = 0, text: str = "") -> None:
        """End the connection from our side, with DISCONNECT in MQTT 5 after CONNACK. [MQTT-3.14.0-1]

        `text` is for people: a reason string where the client asked for such.
        """
        if self.state == states.CLOSED:
            return
        if self.state == states.CONNECTED and self.is_v5 and reason_code:
            packet_bytes_max = self.session.packet_bytes_max if self.session is not None else 0
            self.outbox.append(self.explained(encode_disconnect, Disconnect(reason_code), text, packet_bytes_max))
        self._end(reason)
        self.outbox.close()
        self.engine.file_timer(self, self.engine.config.close_timeout_s)

    def take_over(self) -> None:
        """Another connection has the client id now. [MQTT-3.1.4-3]"""
        self.close(CloseReason.TAKEN_OVER, SESSION_TAKEN_OVER)

    def lost(self) -> None:
        """The transport is gone, and with it what waited for it: QoS 1 and 2 stay in the session, QoS 0 is dropped."""
        outbox = self.outbox
        outbox.transport = None
        if dropped := outbox.forget():
            self.engine.metrics.dropped_messages["connection_lost"] += dropped
        self._end(CloseReason.CONNECTION_LOST)
        self.engine.lost(self)

    def cut(self) -> None:
        """Close without waiting for the peer."""
        if self.outbox.transport is not None:
            self.outbox.transport.abort()

    def _end(self, reason: CloseReason) -> None:
        """The MQTT side is over: the session is detached, the will goes where it has to. [MQTT-3.1.2-8]"""
        if self.state == states.CLOSED:
            return
        self.state = states.CLOSED
        self.close_reason = reason
        self._unfinished = None
        self.inbound_aliases = None
        self.engine.ended(self)
