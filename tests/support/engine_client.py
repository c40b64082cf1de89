"""A client of an Engine in memory: packets in, packets out, no socket and no clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from broker.codec.decode import Decoder
from broker.codec.encode import encode
from broker.codec.packets import Connack, Connect, Subscribe, Subscription
from broker.codec.properties import Properties
from broker.config import BrokerConfig
from broker.engine import Engine
from broker.outbox import flush
from broker.presence import PresenceWatch
from broker.protocol.handlers.fan_out import send_slices
from broker.publish_run import PublishRun
from broker.sessions.session import Session
from broker.sink import UNKNOWN
from broker.store import (
    Change,
    CopiesEnd,
    CopiesTaken,
    CopyRow,
    FlightRow,
    FlightsEnd,
    FlightsReleased,
    FlightsSent,
    MarkChange,
    Position,
    PositionChange,
    ReplayMoved,
    RetainedChange,
    RetainedRow,
    SessionChange,
    SessionEnd,
    SessionRow,
    StoredRecord,
    SubscriptionChange,
    SubscriptionEnd,
    SubscriptionRow,
)

NOW_MS = 1_800_000_000_000


class RecordingTransport:
    """Keeps what was written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False
        self.is_aborted = False
        self.is_reading = True

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.written.append(data)

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True
        self.is_closed = True

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


class StreamDouble:
    """What a sink's topics point at."""


class HoldingTopic:
    def __init__(self, name: str, stream: object) -> None:
        self.name = name
        self.stream = stream


class HoldingSink:
    """A sink that commits when it is told to."""

    def __init__(self, stream_for: Callable[[str], object | None] | None = None) -> None:
        self._default = StreamDouble()
        self._stream_for = stream_for or (lambda topic_name: self._default)
        self.runs: list[PublishRun] = []
        self.released: list[tuple[str, int]] = []
        self.done: list[Callable[[], None]] = []
        self.forgotten: list[str] = []
        self.stored_ids: dict[str, set[int]] = {}

    def open_topic(self, topic_name: str) -> HoldingTopic | None:
        stream = self._stream_for(topic_name)
        return HoldingTopic(topic_name, stream) if stream is not None else None

    def submit(self, runs: Sequence[PublishRun]) -> None:
        self.runs.extend(runs)

    def commit(self, count: int | None = None) -> None:
        runs, self.runs = self.runs[:count], self.runs[count:] if count is not None else []
        for run in runs:
            if run.origin is not None and run.reliable:
                run.origin.acknowledge(run)

    def release(self, client_id: str, packet_id: int, done: Callable[[], None]) -> None:
        self.released.append((client_id, packet_id))
        self.done.append(done)

    def unreleased(self, client_id: str) -> dict[int, int]:
        return dict.fromkeys(self.stored_ids.get(client_id, ()), UNKNOWN)

    def forget(self, client_id: str) -> None:
        self.forgotten.append(client_id)


class HoldingStore:
    """A store whose changes are durable when it is told to make them so."""

    def __init__(self, rows: Sequence[RetainedRow] = ()) -> None:
        self.rows = rows
        self.sessions: dict[str, SessionRow] = {}
        self.subscriptions: dict[tuple[str, str], SubscriptionRow] = {}
        self.positions: dict[str, Position] = {}
        self.mark: Position | None = None
        self.flights: dict[tuple[str, int], FlightRow] = {}
        self.ended_flights: set[tuple[str, int, int]] = set()
        self.copies: dict[tuple[str, int], CopyRow] = {}
        self.fails = False
        self.held: Position = {}
        self.wanted_first = 0
        """Not 0: retention of log 1 waits."""
        self.records: list[StoredRecord] = []
        """What is committed to the log number 1; tests put it there."""
        self.next_offset = 0
        self.changes: list[Change] = []
        """Those that are not durable yet."""
        self.retained: dict[str, bytes | None] = {}
        """The payload of the last durable change of each topic."""
        self.flushes = 0

    def load_retained(self) -> Sequence[RetainedRow]:
        return self.rows

    def load_sessions(self) -> Sequence[SessionRow]:
        return list(self.sessions.values())

    def load_subscriptions(self) -> Sequence[SubscriptionRow]:
        return list(self.subscriptions.values())

    def load_positions(self) -> dict[str, Position]:
        return dict(self.positions)

    def load_mark(self) -> Position | None:
        return self.mark

    def load_flights(self) -> Sequence[FlightRow]:
        return list(self.flights.values())

    def load_ended_flights(self) -> Sequence[tuple[str, int, int]]:
        return sorted(self.ended_flights)

    def load_copies(self) -> Sequence[CopyRow]:
        return sorted(self.copies.values())

    def is_failing(self) -> bool:
        return self.fails

    def hold(self, position: Position) -> None:
        self.held = position

    def wanted(self) -> Position:
        return {1: self.wanted_first} if self.wanted_first > self.held.get(1, 0) else {}

    def read_records(self, position: Position, is_wanted: Callable[[str], bool]) -> Sequence[StoredRecord]:
        return [each for each in self.records if each.offset >= position.get(1, 0) and is_wanted(each.topic_name)]

    def position(self) -> Position:
        return {1: self.next_offset}

    def drop_records_before(self, offset: int) -> None:
        """What retention does."""
        assert offset <= self.held.get(1, 0)
        self.records = [each for each in self.records if each.offset >= offset]

    def log_id(self, stream: object) -> int:
        return 1 if isinstance(stream, StreamDouble) else 0

    def record(self, run: PublishRun) -> None:
        """Commit a run to the log: give its rows their offsets."""
        run.base_offset = self.next_offset
        for row, route in enumerate(run.routes):
            frame = run.data[run.frame_start(row) : run.ends[row]]
            self.records.append(
                StoredRecord(1, self.next_offset, route.topic_name, frame, run.is_v5, run.client_id, run.received_at_ms)
            )
            self.next_offset += 1

    def keep(self, changes: Sequence[Change]) -> None:
        self.changes.extend(changes)

    def flush(self) -> None:
        self.flushes += 1

    def commit(self) -> None:
        changes, self.changes = self.changes, []
        for change in changes:
            if isinstance(change, RetainedChange):
                for topic_name, message in change.message_by_topic.items():
                    self.retained[topic_name] = message.publish().payload if message is not None else None
            elif isinstance(change, SessionChange):
                self.sessions[change.row.client_id] = change.row
            elif isinstance(change, SubscriptionChange):
                key = (change.row.client_id, change.row.topic_filter)
                before = self.subscriptions.get(key, change.row)
                self.subscriptions[key] = change.row._replace(begins=before.begins)
            elif isinstance(change, PositionChange):
                self._change_position(change)
            elif isinstance(change, MarkChange):
                self.mark = change.position
            elif isinstance(change, FlightsSent):
                for row in change.rows:
                    self.flights.pop((row.client_id, row.packet_id), None)
                    self.flights[row.client_id, row.packet_id] = row
            elif isinstance(change, FlightsReleased):
                for packet_id in range(change.first_id, change.first_id + change.count):
                    row = self.flights[change.client_id, packet_id]
                    self.flights[change.client_id, packet_id] = row._replace(is_released=True)
            elif isinstance(change, FlightsEnd):
                for packet_id in change.packet_ids:
                    row = self.flights.pop((change.client_id, packet_id))
                    if row.log_id:
                        self.ended_flights.add((row.client_id, row.log_id, row.offset))
                    else:
                        self.copies.pop((row.client_id, row.offset), None)
            elif isinstance(change, CopiesTaken):
                for copied in change.rows:
                    self.copies.setdefault((copied.client_id, copied.number), copied)
            elif isinstance(change, CopiesEnd):
                for key in [key for key in self.copies if key[0] == change.client_id and key[1] < change.before]:
                    del self.copies[key]
            elif isinstance(change, ReplayMoved):
                key = (change.client_id, change.topic_filter)
                self.subscriptions[key] = self.subscriptions[key]._replace(position=change.position)
            elif isinstance(change, SubscriptionEnd):
                del self.subscriptions[change.client_id, change.topic_filter]
            elif isinstance(change, SessionEnd):
                del self.sessions[change.client_id]
                self.positions.pop(change.client_id, None)
                self.copies = {key: row for key, row in self.copies.items() if key[0] != change.client_id}
                self.flights = {key: row for key, row in self.flights.items() if key[0] != change.client_id}
                for key in [key for key in self.subscriptions if key[0] == change.client_id]:
                    del self.subscriptions[key]
            else:
                change.tell()

    def _change_position(self, change: PositionChange) -> None:
        if change.position is None:
            self.positions.pop(change.client_id, None)
        else:
            self.positions[change.client_id] = change.position
        for ended in sorted(self.ended_flights):
            if ended[0] == change.client_id and ended[2] < change.settled.get(ended[1], 0):
                self.ended_flights.remove(ended)


class EngineClient:
    """One client of `engine`."""

    def __init__(self, engine: Engine, level: int = 4) -> None:
        self.engine = engine
        self.level = level
        self.transport = RecordingTransport()
        self.connection = engine.open(self.transport, "127.0.0.1:40000", "tcp")
        self._decoder = Decoder(268_435_455)
        self._decoder.protocol_level = level
        self.now_ms = NOW_MS

    def send(self, *packets: object) -> None:
        """Send packets in one read."""
        self.send_bytes(b"".join(encode(packet, self.level) for packet in packets))

    def send_bytes(self, data: bytes) -> None:
        self.connection.receive(data, self.now_ms)
        turn(self.engine)

    def received(self) -> list[object]:
        """The packets written since the last call."""
        data = b"".join(self.transport.written)
        self.transport.written.clear()
        packets = self._decoder.feed(data)
        assert self._decoder.error is None, self._decoder.error
        return packets

    def writes(self) -> int:
        """How many writes since the last `received`."""
        return len(self.transport.written)

    def connect(self, client_id: str, *, clean: bool = True, **more: object) -> Connack:
        """CONNECT and its CONNACK; what came behind it is still to be received."""
        self.send(connect_packet(client_id, self.level, clean=clean, **more))
        data = b"".join(self.transport.written)
        self.transport.written.clear()
        packets = self._decoder.feed(data)
        connack = packets[0]
        assert isinstance(connack, Connack)
        self.transport.written.extend(encode(packet, self.level) for packet in packets[1:])
        return connack

    def subscribe(self, topic_filter: str, qos: int = 0, packet_id: int = 1, **options: object) -> list[object]:
        """SUBSCRIBE to one filter; returns what came, SUBACK first."""
        subscription = Subscription(topic_filter, qos, **options)
        self.send(Subscribe(packet_id, [subscription], Properties() if self.level == 5 else None))
        return self.received()

    def lose(self) -> None:
        """The network connection breaks."""
        self.connection.lost()
        turn(self.engine)


def connect_packet(client_id: str, level: int, *, clean: bool = True, **more: object) -> Connect:
    packet = Connect()
    packet.protocol_name = "MQIsdp" if level == 3 else "MQTT"
    packet.protocol_level = level
    packet.clean_start = clean
    packet.client_id = client_id
    packet.properties = Properties() if level == 5 else None
    for name, value in more.items():
        setattr(packet, name, value)
    return packet


def turn(engine: Engine) -> None:
    """What `broker.turn.Turn.run` does."""
    connection_changes, engine.connection_changes = engine.connection_changes, []
    if connection_changes and engine.watch is not None:
        engine.watch.changed(connection_changes)
    engine.metrics.bytes_sent += flush(engine.touched, engine.now_ms)
    send_slices(engine)
    changes, engine.changes = engine.changes, []
    if changes and engine.store is not None:
        engine.store.keep(changes)
    runs, engine.runs = engine.runs, []
    if runs and engine.sink is not None:
        engine.sink.submit(runs)
    if changes and engine.store is not None:
        engine.store.flush()
    engine.metrics.bytes_sent += flush(engine.touched, engine.now_ms)


def make_engine(
    sink: HoldingSink | None = None,
    store: HoldingStore | None = None,
    watch: PresenceWatch | None = None,
    **limits: Any,
) -> Engine:
    engine = Engine(BrokerConfig(**limits), sink, None, store, watch)
    engine.restore(NOW_MS)
    if store is not None:
        turn(engine)
        store.commit()
    return engine


def unreleased_of(session: Session | None) -> set[int]:
    """The packet ids of QoS 2 that a session's client has not released."""
    return set(session.inbound.unreleased) if session is not None and session.inbound is not None else set()
