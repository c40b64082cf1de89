"""KeptSessions: what the store is told of sessions that outlive their connection, and how they come back at a start.

A session is kept while its expiry interval is not 0. CONNACK does not wait for the store: what is promised to a client
begins with its SUBACK, which does, as UNSUBACK (docs/adr/0012).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.sessions.dam import Dam
from broker.sessions.inbound import inbound_of
from broker.sessions.rows import decode_will, session_row, subscription_of, subscription_row
from broker.store import Durable, ReplayMoved, SessionChange, SessionEnd, SubscriptionChange, SubscriptionEnd

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.codec.packets import Subscription
    from broker.engine import Engine
    from broker.protocol.connection import Connection
    from broker.replay import ReplayState
    from broker.sessions.replays import Replay
    from broker.sessions.session import Session
    from broker.store import Position, SessionRow, Store


class KeptSessions:
    """See the module's docstring. Without a store every method does nothing."""

    def __init__(self, engine: Engine, store: Store | None) -> None:
        self._engine = engine
        self._store = store
        self._dams: dict[Session, list[Dam]] = {}

    def begun(self, connection: Connection) -> None:
        """A connection has its session, and its will."""
        session = connection.session
        assert session is not None
        if self._store is None:
            return
        if not session.expiry_s:  # it ends with the connection, and a crash ends the connection
            self.forget(session)
            return
        session.is_kept = True
        session.owed = self._engine.owed
        if session.owed is not None:
            session.owed.touch(session)
        self._engine.changes.append(SessionChange(session_row(session, connection.will, connection.is_v5)))

    def left(self, session: Session) -> None:
        """A session has no connection any more, or its delayed will has gone."""
        if not session.is_kept:
            return
        self._engine.changes.append(SessionChange(self._row_without_connection(session)))
        for replay in (session.replays or {}).values():
            self._note(replay)

    def _row_without_connection(self, session: Session) -> SessionRow:
        engine = self._engine
        expires_at_ms = engine.now_ms + 1000 * (session.expires_at_s - engine.seconds)
        delayed = engine.sessions.delayed_will(session.client_id)
        if delayed is None:
            return session_row(session, None, session.is_v5, expires_at_ms)
        due_ms = engine.now_ms + 1000 * (delayed.due_s - engine.seconds)
        return session_row(session, delayed.will, delayed.is_v5, expires_at_ms, due_ms)

    def forget(self, session: Session) -> None:
        """A session has ended."""
        if session.is_kept:
            session.is_kept = False
            session.owed = None
            if self._engine.owed is not None:
                self._engine.owed.forget(session)
            self._engine.changes.append(SessionEnd(session.client_id))

    def subscribed(self, session: Session, subscription: Subscription, replay: ReplayState | None) -> None:
        """A subscription is made or replaced."""
        if session.is_kept:
            begins = self._store.position() if self._store is not None else {}
            row = subscription_row(session.client_id, subscription, replay, begins)
            self._engine.changes.append(SubscriptionChange(row))

    def tick(self) -> None:
        """A second has passed: note where replays stand that have moved; what waits for a failing disk goes on."""
        if self._dams and self._store is not None and self._store.is_failing():
            self._open_all()
        replays = self._engine.replays
        if replays is not None and replays.reading:
            for replay in replays.take_moved():
                self._note(replay)

    def _note(self, replay: Replay) -> None:
        state = replay.acknowledged_state()
        if replay.session.is_kept and state.position != replay.noted_position:
            replay.noted_position = state.position
            self._engine.changes.append(ReplayMoved(replay.session.client_id, state.name, state.position))

    def unsubscribed(self, session: Session, topic_filter: str) -> None:
        """A subscription is gone."""
        if session.is_kept:
            self._engine.changes.append(SubscriptionEnd(session.client_id, topic_filter))

    def when_durable(self, connection: Connection, tell: Callable[[], None]) -> None:
        """Call `tell` once the changes so far are durable, if the connection's session is kept and still its own."""
        session = connection.session
        assert session is not None
        if not session.is_kept:
            tell()
            return

        def durable() -> None:
            if session.connection is connection:
                tell()

        self._engine.changes.append(Durable(durable))

    # Behind a SUBACK

    def dam(self, connection: Connection) -> Dam | None:
        """Have what a connection's session is sent wait for `open`; None: it does not.

        Nor does it while nothing becomes durable: other subscriptions go on then, and the SUBACK comes when it can.
        """
        session = connection.session
        assert session is not None
        if not session.is_kept or self._store is None or self._store.is_failing():
            return None
        if connection.outbox.transport is None:
            return None
        dam = Dam(session, connection.outbox)
        self._dams.setdefault(session, []).append(dam)
        return dam

    def open(self, dam: Dam) -> None:
        """The SUBACK has left."""
        dams = self._dams.get(dam.session, [])
        if dam in dams:
            dams.remove(dam)
            dam.open()
            if not dams:
                del self._dams[dam.session]

    def _open_all(self) -> None:
        dams, self._dams = self._dams, {}
        for of_session in dams.values():
            for dam in of_session:
                dam.open()

    def drop_dams(self, session: Session) -> int:
        """A session's connection is gone; returns how many messages of QoS 0 that waited for a SUBACK are, too."""
        return sum(dam.drop() for dam in self._dams.pop(session, ()))

    # The start

    def restore(self) -> dict[tuple[str, str], Position]:
        """Have the sessions that the store has, none of them connected; returns where each subscription begins."""
        begins: dict[tuple[str, str], Position] = {}
        if self._store is None:
            return begins
        for row in self._store.load_sessions():
            self._restore_session(row)
        engine = self._engine
        sessions = engine.sessions.session_by_client_id
        for subscription_values in self._store.load_subscriptions():
            session = sessions.get(subscription_values.client_id)
            if session is None:
                continue
            subscription, replay = subscription_of(subscription_values)
            if session.subscriptions is None:
                session.subscriptions = {}
            if replay is None:
                begins[session.client_id, subscription.topic_filter] = subscription_values.begins
                engine.router.subscribe(session, subscription.topic_filter, subscription)
            elif engine.replays is not None:
                engine.replays.add(session, replay)
            else:
                continue
            session.subscriptions[subscription.topic_filter] = subscription
        return begins

    def _restore_session(self, row: SessionRow) -> None:
        engine = self._engine
        session = engine.sessions.create(row.client_id)
        session.is_kept = True
        session.owed = engine.owed
        session.is_v5 = row.is_v5
        session.expiry_s = row.expiry_s
        unreleased = engine.sink.unreleased(row.client_id) if engine.sink is not None else None
        if unreleased:
            inbound_of(session).restore(unreleased)
        expires_in_s = self._seconds_until(row.expires_at_ms) if row.expires_at_ms else row.expiry_s
        engine.sessions.expire_at(session, engine.seconds + max(1, expires_in_s))
        if row.will is not None:
            delay_s = min(row.will_delay_s, row.expiry_s)
            due_in_s = self._seconds_until(row.will_due_ms) if row.will_due_ms else delay_s
            will = decode_will(row.will, row.is_v5)
            engine.sessions.delay_will(row.client_id, will, row.is_v5, engine.seconds + due_in_s)
        if not row.expires_at_ms:  # its time runs from now on, also over the next crash
            self.left(session)

    def _seconds_until(self, time_ms: int) -> int:
        return max(0, (time_ms - self._engine.now_ms + 999) // 1000)
