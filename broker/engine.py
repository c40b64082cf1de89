"""Engine: the registries of the broker and what crosses connections: sessions, wills, timers, routing and the sink.

No socket, no await and no clock in it: the turn hands it the time, and `seconds` counts the ticks.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from broker.codec import constants
from broker.codec.packets import Publish
from broker.codec.reason_codes import reason_word
from broker.due import Due
from broker.hooks import Hooks
from broker.kept_sessions import KeptSessions
from broker.metrics import Metrics
from broker.owed import Owed
from broker.own_publishes import own_retained, own_runs
from broker.presence import CONNECTED, DISCONNECTED, PRESENCE_PREFIX, REFUSED, SESSION_ENDED, ConnectionChange
from broker.protocol import state as states
from broker.protocol.close_reason import CloseReason
from broker.protocol.connection import KEEP_ALIVE_TIMEOUT, SERVER_SHUTTING_DOWN, Connection
from broker.protocol.handlers import acknowledge, connect, disconnect, publish, subscribe
from broker.restore import OwedMessages
from broker.retained import Retained
from broker.routing import Router
from broker.sessions.inbound import inbound_of
from broker.sessions.queueing import unsent
from broker.sessions.registry import SessionRegistry
from broker.sessions.replays import Replays, close_replays
from broker.store import Durable
from broker.stored_origin import StoredOrigin
from broker.sys_topics import SysTopics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from broker.codec.errors import MqttError
    from broker.codec.packets import Will
    from broker.config import BrokerConfig
    from broker.hooks import Client
    from broker.outbox import Outbox, Transport
    from broker.presence import PresenceWatch
    from broker.protocol.handlers.fan_out import FanOut
    from broker.publish_run import PublishRun
    from broker.replay import ReplaySource
    from broker.retained import RetainedMessage
    from broker.sessions.session import Session
    from broker.sink import Origin, Sink, SinkTopic
    from broker.store import Change, Store

log = logging.getLogger("headrace.mqtt")

HANDLERS: dict[int, Callable[[Connection, Any, int], None]] = {
    constants.CONNECT: connect.handle_connect,
    constants.PUBLISH: publish.handle_publish,
    constants.PUBACK: acknowledge.handle_puback,
    constants.PUBREC: acknowledge.handle_pubrec,
    constants.PUBREL: acknowledge.handle_pubrel,
    constants.PUBCOMP: acknowledge.handle_pubcomp,
    constants.SUBSCRIBE: subscribe.handle_subscribe,
    constants.UNSUBSCRIBE: subscribe.handle_unsubscribe,
    constants.PINGREQ: disconnect.handle_pingreq,
    constants.DISCONNECT: disconnect.handle_disconnect,
}


QUOTA_EXCEEDED = 0x97
CONNECTION_RATE_EXCEEDED = 0x9F
LIMIT_BY_REASON_CODE = {
    0x93: "receive_maximum",
    0x94: "topic_alias_maximum",
    0x95: "packet_bytes_max",
}
"""The limit that a peer broke, for errors that are nothing else."""
ADMINISTRATIVE_ACTION = 0x98

HINTS = {
    "TLS": "TLS is not available in this version: connect without it, or put a TLS proxy in front.",
    "HTTP": "The dashboard has a port of its own, which the server prints when it starts.",
}


def other_protocol(data: bytes) -> str:
    """What a peer speaks whose first bytes are no CONNECT, when it can be told; else an empty text."""
    if data[:2] == b"\x16\x03":  # a TLS record of type handshake
        return "TLS"
    if data.startswith((b"GET ", b"POST ", b"HEAD ", b"PUT ", b"OPTIONS ", b"PRI ")):
        return "HTTP"
    return ""


def _is_forgotten(connection: Connection) -> bool:
    """Its session ends with it."""
    return connection.session is None or not connection.session.expiry_s


class Engine:
    """One broker's state."""

    def __init__(
        self,
        config: BrokerConfig,
        sink: Sink | None = None,
        replay_source: ReplaySource | None = None,
        store: Store | None = None,
        watch: PresenceWatch | None = None,
    ) -> None:
        self.config = config
        self.sink = sink
        self.store = store
        self.hooks = Hooks()
        self.watch = watch
        self.connection_changes: list[ConnectionChange] = []
        """What happened to connections in this turn, for the watch."""
        self.handlers = HANDLERS
        self.metrics = Metrics()
        self.metrics.limits.clock = lambda: self.now_ms
        self.fan_outs: dict[FanOut, None] = {}
        """Retained messages on their way to new subscriptions."""
        self.due_fan_outs: deque[FanOut] = deque()
        """Those that there is room for, a slice in a turn."""
        self.replays = Replays(replay_source, config, self.metrics) if replay_source is not None else None
        """None: nothing is stored, and `$replay` subscriptions are refused."""
        self.touched: list[Outbox] = []
        """Outboxes that the next flush writes."""
        self.runs: list[PublishRun] = []
        """This turn's publishes for the sink."""
        self.changes: list[Change] = []
        """What this turn has changed of what the store keeps; empty without a store."""
        self.seconds = 0
        """Seconds since the start, counted by `tick`."""
        self.now_ms = 0
        """Epoch milliseconds of the current read or tick, for what happens in its course."""
        self.port_by_transport: dict[str, int] = {}
        """The port of each listener, by `Connection.transport_kind`: for messages to people."""
        self.connections: dict[Connection, None] = {}
        """All that have a transport; a dictionary takes half of the memory that a set does."""
        self.on_last_lost: Callable[[], None] = lambda: None
        """Called when the last connection's transport is gone."""
        self.router = Router(config, self._open_sink_topic, self.metrics.limits)
        self.sessions = SessionRegistry(config, self.metrics)
        self.retained = Retained(config, self._put_down if store is not None else None)
        self.owed = Owed(store, self._put_down, lambda: self.now_ms) if store is not None else None
        """None: there is no store."""
        self.kept = KeptSessions(self, store)
        self.sys_topics = SysTopics(self)
        self.clients_connected = 0
        """Sessions with a connection."""
        self.heap_bytes: Callable[[], int] = lambda: 0
        """What the process has in memory; 0: not known."""
        self.is_late: Callable[[], bool] = lambda: False
        """Whether the event loop is later than `loop_delay_ms_max`."""
        self.held: list[tuple[Connection, int]] = []
        """Connections that have just overdrawn their allowance, with the milliseconds that each has to wait."""
        self._connects_in_second = 0
        self._looks: Due[Connection] = Due()
        """When each connection is looked at next."""
        self._claims = 0

    def _open_sink_topic(self, topic_name: str) -> SinkTopic | None:
        return self.sink.open_topic(topic_name) if self.sink is not None else None

    def _put_down(self, change: Change) -> None:
        self.changes.append(change)

    def restore(self, now_ms: int) -> None:
        """Take what the store has kept, before anyone connects."""
        self.now_ms = now_ms
        if self.store is None:
            return
        left_out = self.retained.restore(self.store.load_retained())
        if left_out:
            self.metrics.dropped_messages["retained_full"] += left_out
            log.warning("%d retained messages are not shown: there are more than the limits allow", left_out)
        self.retained.expire(now_ms)
        begins = self.kept.restore()
        if self.owed is not None:
            OwedMessages(self, self.owed, begins).find()
        self.publish_due_wills()

    # Connections

    def open(self, transport: Transport, peer: str, transport_kind: str) -> Connection:
        """A peer has connected; it has `connect_timeout_s` for its CONNECT."""
        connection = Connection(self, transport, peer, transport_kind)
        self.connections[connection] = None
        self.metrics.connections_accepted += 1
        self.file_timer(connection, self.config.connect_timeout_s)
        return connection

    def is_full(self) -> bool:
        """Whether one more connection is one too many, or the loop is late already; who asks is about to refuse it."""
        if len(self.connections) >= self.config.connections_max:
            self.metrics.limits.hit("connections_max")
            return True
        if self.is_late():
            self.metrics.limits.hit("loop_delay_ms_max")
            return True
        return False

    def connect_refusal(self) -> tuple[int, str] | None:
        """Reason code and text for a CONNECT at a bad time; None: it may be taken. Its connection counts already."""
        if len(self.connections) > self.config.connections_max:
            self.metrics.limits.hit("connections_max")
            return QUOTA_EXCEEDED, "connections_max is reached"
        if self.is_late():
            self.metrics.limits.hit("loop_delay_ms_max")
            return QUOTA_EXCEEDED, "the server is overloaded"
        self._connects_in_second += 1
        if 0 < self.config.connects_per_s_max < self._connects_in_second:
            self.metrics.limits.hit("connects_per_s_max")
            return CONNECTION_RATE_EXCEEDED, "connects_per_s_max is reached"
        return None

    def lost(self, connection: Connection) -> None:
        """A connection's transport is gone."""
        self.connections.pop(connection, None)
        self._looks.discard(connection, connection.next_look_s)
        if not self.connections:
            self.on_last_lost()

    def attach(self, connection: Connection, client_id: str, clean_start: bool, expiry_s: int) -> tuple[Session, bool]:
        """Give the connection its session; returns it and whether it was there before. [MQTT-3.1.2-4..6]"""
        session = self.sessions.session_by_client_id.get(client_id)
        if session is not None and session.connection is not None:
            session.connection.take_over()
            session = self.sessions.session_by_client_id.get(client_id)
        is_present = session is not None and not clean_start
        delayed = self.sessions.take_delayed_will(client_id)
        if session is not None and clean_start:
            if delayed is not None:  # the old session ends now, and its will with it [MQTT-3.1.3-9]
                self.publish_will(client_id, delayed.will, delayed.is_v5)
            self.end_session(session)
            session = None
        if session is None:
            session = self.sessions.create(client_id)
            if self.sink is not None:
                restored = self.sink.unreleased(client_id)
                if clean_start:
                    self.sink.forget(client_id)
                elif restored:
                    inbound_of(session).restored = set(restored)
        else:
            self.sessions.wanted(session)
        session.connection = connection
        self.clients_connected += 1
        session.outbox = connection.outbox
        session.is_v5 = connection.is_v5
        session.expiry_s = expiry_s
        connection.session = session
        if session.inbound is not None:
            session.inbound.connected()
        self.router.shared.moved(session)
        self._claims += 1
        connection.claim = self._claims
        if self.watch is not None:
            self.connection_changes.append(ConnectionChange(CONNECTED, client_id, connection, "", self.now_ms))
        return session, is_present

    def ended(self, connection: Connection) -> None:
        """The MQTT side of a connection is over."""
        reason = connection.close_reason or CloseReason.CONNECTION_LOST
        self.metrics.connections_closed[reason] += 1
        session = connection.session
        if session is None or session.connection is not connection:
            return
        if self.watch is not None and reason is not CloseReason.TAKEN_OVER:  # a take-over never shows as offline
            change = ConnectionChange(DISCONNECTED, session.client_id, connection, reason, self.now_ms)
            change.has_session = session.expiry_s > 0
            self.connection_changes.append(change)
        session.connection = None
        self.clients_connected -= 1
        session.outbox = None
        if dropped := self.kept.drop_dams(session):
            self.metrics.dropped_messages["connection_lost"] += dropped
        self.router.shared.moved(session)
        close_replays(session)
        if session.fan_out is not None:
            session.fan_out.leave()
        will = connection.will
        connection.will = None
        if will is not None:
            delay_s = (will.properties.will_delay_interval or 0) if will.properties is not None else 0
            if delay_s and session.expiry_s:
                due_s = self.seconds + min(delay_s, session.expiry_s) + 1  # the second that runs is not a whole one
                self.sessions.delay_will(session.client_id, will, connection.is_v5, due_s)
            else:
                self.publish_will(session.client_id, will, connection.is_v5)
        if session.expiry_s:
            self.sessions.expire_later(session, self.seconds)
            self.kept.left(session)
        else:
            self.end_session(session)
        if self.hooks.on_close is not None:
            self._tell_closed(self.hooks.on_close, connection, reason)

    def _tell_closed(
        self, on_close: Callable[[Client, CloseReason], None], connection: Connection, reason: CloseReason
    ) -> None:
        try:
            on_close(connection, reason)
        except Exception:  # the program's, not ours: what ends here has others that wait for it
            log.exception("on_close failed", extra={"fields": {"client": connection.client_id}})

    def end_session(self, session: Session) -> None:
        """Forget a session and all that it waits for."""
        self.kept.forget(session)
        self.router.forget(session)
        self.router.shared.redeliver(session, self.now_ms, self.metrics)
        if self.replays is not None:
            for name in tuple(session.replays or ()):
                self.replays.remove(session, name)
        session.subscriptions = None
        session.inflight = None
        self.metrics.dropped_messages["session_ended"] += unsent(session)
        session.queue = None
        self.metrics.queued_messages -= session.queued_messages
        self.metrics.queued_bytes -= session.queued_bytes
        session.queued_messages = session.queued_bytes = 0
        self.sessions.remove(session)
        if self.sink is not None and session.expiry_s:
            self.sink.forget(session.client_id)

    def connect_refused(self, connection: Connection, client_id: str, reason: str) -> None:
        """A connection does not get as far as a session: for the watch."""
        if self.watch is not None:
            self.connection_changes.append(ConnectionChange(REFUSED, client_id, connection, reason, self.now_ms))

    def close_by_admin(self, client_id: str) -> bool:
        """Close a client's connection; its session stays as long as it would after any other end. False: not there."""
        session = self.sessions.session_by_client_id.get(client_id)
        if session is None or session.connection is None:
            return False
        session.connection.close(CloseReason.CLOSED_BY_ADMIN, ADMINISTRATIVE_ACTION)
        return True

    def forget_by_admin(self, client_id: str) -> bool:
        """End a client's session, and its connection first; False when there is none."""
        session = self.sessions.session_by_client_id.get(client_id)
        if session is None:
            return False
        self.close_by_admin(client_id)
        if self.sessions.session_by_client_id.get(client_id) is session:
            self._end_kept_session(session, CloseReason.SESSION_FORGOTTEN)
        return True

    def _end_kept_session(self, session: Session, reason: CloseReason) -> None:
        """A session ends while no connection has it: its delayed will is due. [MQTT-3.1.3-9]"""
        delayed = self.sessions.take_delayed_will(session.client_id)
        if delayed is not None:
            self.publish_will(delayed.client_id, delayed.will, delayed.is_v5)
        self.end_session(session)
        if self.watch is not None:
            self.connection_changes.append(
                ConnectionChange(SESSION_ENDED, session.client_id, None, reason, self.now_ms)
            )

    # Publishes

    def publish_own(
        self,
        rows: Sequence[tuple[str, bytes]],
        *,
        retain: bool = False,
        is_routed: bool = True,
        is_stored: bool = True,
    ) -> list[PublishRun]:
        """Publish rows (topic name, payload) of the server itself, also below the names that only it may use.

        `is_routed`: to subscribers; `is_stored`: to the sink. Rows with RETAIN are shown as retained by whoever made
        them (`PresenceWatch.retained`): none is kept here. Returns the rows as runs, in order.
        """
        runs = own_runs(rows, self._open_sink_topic, self.now_ms, retain=retain)
        for run in runs:
            if is_routed:
                self.router.route(run)
            if is_stored and run.stream is not None:
                self.runs.append(run)
        return runs

    def take(self, run: PublishRun) -> None:
        """Route a run and put it down for the sink; QoS 2 is routed when it is stored. [MQTT-4.3.3-9]"""
        self.metrics.messages_received += len(run.routes)
        if self.owed is not None:
            self.owed.number(run)
        if run.qos < 2:
            self._deliver(run)
        elif run.retain:
            self.retained.storing(run)
        if run.stream is not None:
            self.runs.append(run)
        elif run.origin is not None and run.reliable:
            self._acknowledge(run, run.origin)

    def _acknowledge(self, run: PublishRun, origin: Origin) -> None:
        """A run that no stream takes is safe when what it leaves in the store is."""
        if self.changes:
            self.changes.append(Durable(lambda: origin.acknowledge(run)))
        else:
            origin.acknowledge(run)

    def refused(self, run: PublishRun) -> None:
        """A run will never be stored."""
        if run.retain and run.qos == 2:
            self.retained.refused(run)

    def stored(self, run: PublishRun) -> None:
        """A run is as durable as it will be."""
        if run.qos == 2:
            self._deliver(run)

    def _deliver(self, run: PublishRun) -> None:
        if run.retain:
            for fan_out in list(self.fan_outs):
                fan_out.replace(run)
            if left_out := self.retained.put(run):
                self.metrics.dropped_messages["retained_full"] += left_out
                self.retained_full()
        if self.owed is None:
            self.router.route(run)
        else:
            copies = self.owed.copies
            self.router.route(run)
            if self.owed.copies != copies:
                self.owed.wait_for_copies(run)
        if run.unmatched is not None and self.replays is not None and self.replays.count:
            run.unmatched = None  # a replay may take them, later: nobody knows yet

    def can_retain(self, packet: Publish) -> bool:
        """There is room for the message among the retained."""
        if not packet.payload or self.retained.has_room(packet.topic_name, len(packet.payload)):
            return True
        self.retained_full()
        return False

    def retained_full(self) -> None:
        """Count that there was no room for a retained message."""
        is_by_count = len(self.retained) >= self.config.retained_messages_max
        self.metrics.limits.hit("retained_messages_max" if is_by_count else "retained_bytes_max")

    def retained_for(self, topic_filter: str, now_ms: int) -> list[RetainedMessage]:
        """What is retained for a new subscription, the server's own topics included."""
        return self.retained.match(topic_filter, now_ms) + self.own_retained_for(topic_filter)

    def own_retained_for(self, topic_filter: str) -> list[RetainedMessage]:
        """Of that, what the server itself says."""
        found = self.sys_topics.match(topic_filter)
        if self.watch is not None and topic_filter.startswith(PRESENCE_PREFIX):
            found += [own_retained(*row) for row in self.watch.retained(topic_filter)]
        return found

    def publish(self, packet: Publish, client_id: str, now_ms: int, origin: Origin | None) -> tuple[PublishRun, int]:
        """Publish from inside the server, as MQTT 5; returns the run and how many subscriptions it matches.

        Raises:
            MqttError: the topic name is not valid.
        """
        topic = packet.topic_name.encode()
        self.router.open_route(topic)
        route = self.router.add_route(packet.topic_name, topic)
        matching = len(self.router.subscriptions.match(packet.topic_name))
        run = publish.make_run(packet, route, True, client_id, now_ms, origin)
        if origin is not None:
            run.reliable = 1  # who asks from inside wants to know of QoS 0 too when it is stored
        self.metrics.messages_received += 1
        if self.owed is not None:
            self.owed.number(run)
        if run.retain and run.qos == 2:
            self.retained.storing(run)
        if run.qos == 2 and run.stream is not None and self.owed is not None:
            run.origin = StoredOrigin(self, origin)
            self.runs.append(run)
            return run, matching
        self._deliver(run)
        if run.stream is not None:
            # It has been delivered: `stored` must not do so again.
            run.qos = min(run.qos, 1)
            self.runs.append(run)
        elif origin is not None and run.reliable:
            self._acknowledge(run, origin)
        return run, matching

    def publish_will(self, client_id: str, will: Will, is_v5: bool) -> None:
        """Publish a will, like a publish of its client. [MQTT-3.1.2-8]"""
        packet = Publish(will.topic_name, will.payload, will.qos, will.retain, False, 1 if will.qos else 0, None)
        packet.properties = will.properties if is_v5 else None
        if packet.properties is not None:
            packet.properties.will_delay_interval = None  # it is of the will, not of its PUBLISH (§3.1.3.2.2)
        route = self.router.open_route(packet.topic_name.encode())
        if route is None or (packet.retain and not self.can_retain(packet)):
            self.metrics.refused_publishes["reserved_topic" if route is None else "retained_full"] += 1
            return
        self.publish(packet, client_id, self.now_ms, None)

    def publish_due_wills(self) -> None:
        """Publish the wills whose delay is over."""
        for delayed in self.sessions.due_wills(self.seconds):
            self.publish_will(delayed.client_id, delayed.will, delayed.is_v5)
            session = self.sessions.session_by_client_id.get(delayed.client_id)
            if session is not None:
                self.kept.left(session)

    # Time

    def file_timer(self, connection: Connection, in_s: int) -> None:
        """Look at the connection in `in_s` seconds, and not before."""
        self._looks.discard(connection, connection.next_look_s)
        connection.next_look_s = self.seconds + in_s + 1
        self._looks.put(connection, connection.next_look_s)

    def tick(self, now_ms: int) -> None:
        """A second has passed."""
        self.now_ms = now_ms
        self.seconds += 1
        self.retained.expire(now_ms)
        self._connects_in_second = 0
        for connection in self._looks.take(self.seconds):
            self._look_at(connection)
        for session in self.sessions.expired(self.seconds):
            self.metrics.sessions_expired += 1
            self._end_kept_session(session, CloseReason.SESSION_EXPIRED)
        self.publish_due_wills()
        self.sys_topics.tick()
        self.kept.tick()
        if self.owed is not None:
            self.owed.tick()

    def _look_at(self, connection: Connection) -> None:
        if connection.state == states.CLOSED:
            if connection in self.connections:
                self.metrics.limits.hit("close_timeout_s")
                connection.cut()
            return
        if connection.state == states.AWAITING_CONNECT:
            self.metrics.limits.hit("connect_timeout_s")
            connection.close(CloseReason.CONNECT_TIMEOUT)
            return
        longest_s = connection.silence_s_max
        if not longest_s:
            return
        silent_s = 0 if connection.is_paused else self.seconds - connection.last_in_s
        if silent_s > longest_s:  # [MQTT-3.1.2-22]
            connection.close(CloseReason.KEEP_ALIVE_TIMEOUT, KEEP_ALIVE_TIMEOUT)
        else:
            self.file_timer(connection, longest_s - silent_s)

    def shut_down(self) -> None:
        """Tell every client and close; those with kept sessions first, which may take over from the others."""
        self.router.shared.close()
        for connection in sorted(self.connections, key=_is_forgotten):
            connection.close(CloseReason.SERVER_SHUTDOWN, SERVER_SHUTTING_DOWN)
        if self.owed is not None:
            self.owed.tick()

    # What goes wrong

    def on_protocol_error(self, connection: Connection, error: MqttError, data: bytes) -> None:
        """Say once, for people, why a connection is closed; `data` is the read with the mistake in it."""
        if error.reason_code in LIMIT_BY_REASON_CODE:
            self.metrics.limits.hit(LIMIT_BY_REASON_CODE[error.reason_code])
        if connection.state == states.AWAITING_CONNECT and (other := other_protocol(data)):
            port = self.port_by_transport.get(connection.transport_kind, 0)
            host = connection.peer.rpartition(":")[0]
            log.warning("%s spoke %s to port %d, which is plain MQTT. %s", host, other, port, HINTS[other])
            self.connect_refused(connection, "", f"spoke_{other.lower()}")
            return
        if connection.state == states.AWAITING_CONNECT:
            self.connect_refused(connection, "", reason_word(error.reason_code))
        log.warning(
            "device broke the protocol",
            extra={
                "fields": {
                    "reason": type(error).__name__,
                    "detail": str(error),
                    "client": connection.client_id,
                    "from": connection.peer,
                }
            },
        )

    def on_internal_error(self, connection: Connection) -> None:
        """A bug of ours: with its traceback."""
        log.exception(
            "a connection ended by an error of the server",
            extra={"fields": {"client": connection.client_id, "from": connection.peer}},
        )
