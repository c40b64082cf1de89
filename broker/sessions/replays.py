"""Replays: the subscriptions of a session that are fed from what was stored, and their way into its outbox.

A replay pulls pieces only while its client takes them, so that nothing is dropped for it and little waits: the log is
its queue. What the session owes besides goes first. Without a connection it does not read; its position waits.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from broker.outbox import count_qos0
from broker.replay import ReplayRequest, ReplayState
from broker.sessions.inflight import Inflight

if TYPE_CHECKING:
    from broker.codec.packets import Subscription
    from broker.config import BrokerConfig
    from broker.metrics import Metrics
    from broker.outbox import Outbox
    from broker.owed import Owed
    from broker.replay import ReplayFeed, ReplayPiece, ReplaySource
    from broker.sessions.inflight import Flight
    from broker.sessions.session import Session


IDLE_NOTED_S = 60
"""Once in so many seconds the place of a replay is noted for which nothing comes."""
NOTED_MAX = 1_000
"""Replays that are noted in a second, some milliseconds' work; with more that move, it takes so much longer."""


class Replays:
    """What the replays of one broker share."""

    def __init__(self, source: ReplaySource, config: BrokerConfig, metrics: Metrics) -> None:
        self.source = source
        self.config = config
        self.metrics = metrics
        self.count = 0
        """Replay subscriptions, of kept sessions too."""
        self.refused = 0
        """Those that were one too many."""
        self.reading: dict[Replay, None] = {}
        """Those of kept sessions with a connection; who is first has been noted longest ago."""
        self.moved: dict[Replay, None] = {}
        """Those of them that have sent something, or had it acknowledged, since they were noted."""

    def has_room(self, session: Session) -> bool:
        """Whether the session may have one more."""
        own = len(session.replays) if session.replays is not None else 0
        if self.count >= self.config.replays_max:
            self.metrics.limits.hit("replays_max")
            return False
        if own >= self.config.replays_per_client_max:
            self.metrics.limits.hit("replays_per_client_max")
            return False
        return True

    def add(self, session: Session, state: ReplayState, way: object | None = None) -> Replay:
        """A replay for the session; `Replay.open` sets it going. `way`: of the one that it goes on with."""
        if session.replays is None:
            session.replays = {}
        replay = session.replays[state.name] = Replay(self, session, state, way or object())
        self.count += 1
        return replay

    def take_moved(self) -> list[Replay]:
        """Those whose place is to be noted now: who has moved, and some of the others, whose stream may have."""
        reading, moved = self.reading, self.moved
        for replay in list(islice(reading, len(reading) // IDLE_NOTED_S + 1)):
            moved[replay] = None
        taken = list(islice(moved, NOTED_MAX))
        for replay in taken:
            del moved[replay]
            if replay in reading:
                del reading[replay]
                reading[replay] = None
        return taken

    def remove(self, session: Session, name: str) -> ReplayState | None:
        """End a replay; what is in flight of it is still delivered. [MQTT-3.10.4-2]"""
        replay = session.replays.pop(name, None) if session.replays is not None else None
        if replay is None:
            return None
        replay.close()
        self.count -= 1
        if not session.replays:
            session.replays = None
        return replay.state()


class Replay:
    """One replay subscription (`broker.replay.ReplayReader`)."""

    __slots__ = (
        "_asked",
        "_feed",
        "_pieces",
        "_replays",
        "_row",
        "_state",
        "_waiting_bytes",
        "noted_position",
        "position",
        "session",
        "way",
    )

    def __init__(self, replays: Replays, session: Session, state: ReplayState, way: object) -> None:
        self._replays = replays
        self.session = session
        self._state = state
        self.position = state.position
        """While there is no feed."""
        self.way = way
        """The same for all that go on with each other: what is in flight of one is in flight of the next."""
        self.noted_position = ""
        """As the store has it."""
        self._feed: ReplayFeed | None = None
        self._pieces: deque[ReplayPiece] = deque()
        self._row = 0
        """The first frame of the first piece that has not been sent."""
        self._asked = 0
        """Pieces pulled and not yet here."""
        self._waiting_bytes = 0
        """Of what has been sent and waits for the store: QoS 2, and whatever came behind it."""

    def state(self) -> ReplayState:
        """All that is needed to go on with it later; what is in flight is somebody else's."""
        return self._state_at(self._position())

    def acknowledged_state(self) -> ReplayState:
        """The same for after a restart, which forgets what is in flight: behind the last of what has been taken."""
        inflight = self.session.inflight
        position = inflight.replayed_from(self.way) if inflight is not None and inflight.count else None
        return self._state_at(position if position is not None else self._position())

    def _state_at(self, position: str) -> ReplayState:
        state = self._state
        return ReplayState(
            state.name,
            state.topic_filter,
            state.since,
            position,
            state.qos,
            state.no_local,
            state.retain_as_published,
            state.subscription_identifier,
        )

    def _position(self) -> str:
        if self._pieces:
            return self._pieces[0].position_at(self._row)
        return self._feed.position() if self._feed is not None else self.position

    def open(self) -> None:
        """The client is there: read on."""
        session, state = self.session, self._state
        request = ReplayRequest(
            name=state.name,
            topic_filter=state.topic_filter,
            position=self.position,
            is_v5=session.is_v5,
            qos=state.qos,
            retain_as_published=state.retain_as_published,
            subscription_identifier=state.subscription_identifier if session.is_v5 else 0,
            left_out_client_id=session.client_id if state.no_local else None,
            packet_bytes_max=session.packet_bytes_max,
        )
        self._feed = self._replays.source.open(request, self)
        if session.is_kept:
            self._replays.reading[self] = None
        self._pull()

    def close(self) -> None:
        """The client is gone, or wants it no more: note the position and stop reading."""
        feed = self._feed
        if feed is None:
            return
        self.position = self._position()
        self._feed = None
        self._replays.reading.pop(self, None)
        self._replays.moved.pop(self, None)
        self._pieces.clear()
        self._row = self._asked = 0
        feed.close()

    def take(self, piece: ReplayPiece) -> None:
        """A piece that was pulled."""
        self._asked -= 1
        piece.way = self.way
        self._pieces.append(piece)
        if piece.left_out:
            self._replays.metrics.dropped_messages["packet_too_large"] += piece.left_out
        self.send()

    def send(self) -> None:
        """Send what outbox and quota allow, and pull what there is room for."""
        if self._feed is None:
            return
        if self.session.is_kept:
            self._replays.moved[self] = None
        pieces = self._pieces
        while pieces:
            piece = pieces[0]
            if not self._can_write() or not self._send_rows(piece):
                return
            pieces.popleft()
            self._row = 0
            self._pull()
        self._pull()

    def _pull(self) -> None:
        most = self._replays.config.replay_pieces_max
        while self._feed is not None and self._asked + len(self._pieces) < most:
            self._asked += 1
            self._feed.pull()

    def _can_write(self) -> bool:
        """Whether the connection takes more; if not, the session is called when it does."""
        outbox = self.session.outbox
        if outbox is None:
            return False
        if outbox.is_blocked or outbox.pending_bytes > self._replays.config.replay_waiting_bytes_max:
            outbox.waiting = self.session
            return False
        return self._can_wait()

    # hot path: tests/bench/replay.py
    def _send_rows(self, piece: ReplayPiece) -> bool:
        """Send the rest of a piece as far as the quota lets; returns whether all of it has left."""
        session = self.session
        outbox = session.outbox
        assert outbox is not None
        metrics = self._replays.metrics
        if piece.rows is None:
            if piece.data:
                self._write(outbox, piece.data)
            outbox.messages_out += piece.count
            metrics.messages_delivered += piece.count
            metrics.messages_replayed += piece.count
            return True
        if session.inflight is None:
            session.inflight = Inflight()
        inflight = session.inflight
        first_row = row = self._row
        while row < piece.count:
            end_row, qos = piece.stretch(row)
            if qos == 0:
                self._write(outbox, piece.frames(row, end_row))
                row = end_row
                continue
            room = min(session.quota - inflight.count, inflight.room())
            if room <= 0:
                break
            flight = inflight.add(piece, row, min(end_row, row + room), qos)
            frames = piece.numbered(row, flight.end_row, flight.first_id)
            self._write(outbox, frames, flight, qos)
            row = flight.end_row
        self._row = row
        outbox.messages_out += row - first_row
        metrics.messages_delivered += row - first_row
        metrics.messages_replayed += row - first_row
        return row == piece.count

    def _write(self, outbox: Outbox, frames: bytes, flight: Flight | None = None, qos: int = 0) -> None:
        """Send frames in the order of the stream: behind a QoS 2 message that waits for the store all others wait."""
        session = self.session
        owed = session.owed
        if owed is None or (qos < 2 and not self._waiting_bytes):
            outbox.append(frames)
        elif flight is None:
            self._wait(owed, frames, is_sent=False)
        else:
            if qos == 2:
                owed.send(session, flight, False, (), frames)
            else:
                owed.send_when_durable(session, flight, qos, frames)
            self._wait(owed, frames, is_sent=True)

    def _wait(self, owed: Owed, frames: bytes, *, is_sent: bool) -> None:
        """Frames wait for the store; `is_sent`: somebody else sends them then, as those of QoS 1 and 2."""
        connection = self.session.connection

        def durable() -> None:
            was_full = not self._can_wait()
            self._waiting_bytes -= len(frames)
            outbox = self.session.outbox
            if outbox is not None and not is_sent and self.session.connection is connection:
                outbox.append(frames)
            elif not is_sent:
                self._replays.metrics.dropped_messages["connection_lost"] += count_qos0((frames,))
            if was_full:
                self.send()

        self._waiting_bytes += len(frames)
        owed.when_durable(durable)

    def _can_wait(self) -> bool:
        return self._waiting_bytes <= self._replays.config.replay_waiting_bytes_max


def replay_state(subscription: Subscription, topic_filter: str, since: str, position: str) -> ReplayState:
    """A replay that has not begun, as a subscription asks for it."""
    return ReplayState(
        subscription.topic_filter,
        topic_filter,
        since,
        position,
        subscription.qos,
        subscription.no_local,
        subscription.retain_as_published,
        subscription.subscription_identifier,
    )


def open_replays(session: Session) -> None:
    """The session has a connection again."""
    for replay in tuple((session.replays or {}).values()):
        replay.open()


def close_replays(session: Session) -> None:
    """The session's connection is gone."""
    for replay in (session.replays or {}).values():
        replay.close()


def send_replays(session: Session) -> None:
    """There may be room again. Each time another replay is the first, so that none lives on what others leave."""
    replays = session.replays
    if not replays:
        return
    for replay in tuple(replays.values()):
        replay.send()
    if len(replays) > 1:
        name = next(iter(replays))
        replays[name] = replays.pop(name)
