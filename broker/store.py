"""Store: the broker's port to what outlives its process. What a turn has changed leaves by it, as one batch.

The bridge implements it; a broker without one begins with nothing. All calls are plain and happen on the event loop's
thread. Changes become durable in the order in which they are handed over, and never later than a publish that is
handed to the sink after them. Why each change is what it is: docs/adr/0012.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from broker.retained import RetainedMessage

RetainedRow = tuple[str, bytes, bool, str, int, int]
"""Topic name, frame, is MQTT 5, client id, time of receipt and of expiry (epoch ms; 0: never)."""


class SessionRow(NamedTuple):
    """A kept session, but for its subscriptions. Times are epoch milliseconds."""

    client_id: str
    is_v5: bool
    expiry_s: int
    expires_at_ms: int
    """0: it has a connection."""
    will: bytes | None
    """A PUBLISH in the client's version; None: there is none, or it has been published."""
    will_delay_s: int
    will_due_ms: int
    """0: the session has a connection."""


class SubscriptionRow(NamedTuple):
    """One subscription of a kept session."""

    client_id: str
    topic_filter: str
    options: int
    """The byte of SUBSCRIBE (MQTT 5 §3.8.3.1)."""
    identifier: int
    """0: none."""
    since: str | None
    """None: a usual one; else a replay (`broker.replay.ReplayState`)."""
    replay_filter: str
    position: str
    begins: Position
    """Records before it are no messages of this subscription; kept when it is replaced."""


Position = dict[int, int]
"""By the number of a log that can be referred to: the first record that counts."""


class FlightRow(NamedTuple):
    """A QoS 2 message on its way to a kept session: which packet id stands for which record."""

    client_id: str
    packet_id: int
    log_id: int
    offset: int
    is_released: bool
    """PUBREC has come: the record is not needed any more."""
    retain: bool
    identifiers: tuple[int, ...]
    """The subscription identifiers that it names."""


class StoredRecord(NamedTuple):
    """A record of QoS 1 or 2, read back."""

    log_id: int
    offset: int
    topic_name: str
    frame: bytes
    is_v5: bool
    client_id: str
    received_at_ms: int


class CopyRow(NamedTuple):
    """A message that waits for a session, as a copy: its log cannot be referred to, or is about to drop it."""

    client_id: str
    number: int
    """Its place in the order of what the session is owed; references to it are (0, number)."""
    qos: int
    retain: bool
    identifiers: tuple[int, ...]
    topic_name: str
    frame: bytes
    is_v5: bool
    publisher: str
    received_at_ms: int
    share: str = ""
    """The shared subscription that it came by; empty: none."""


class CopiesTaken:
    """Copies for a session; of a number that is there already nothing changes."""

    __slots__ = ("rows",)

    def __init__(self, rows: list[CopyRow]) -> None:
        self.rows = rows


class CopiesEnd:
    """A session's copies with a number before this one are not owed any more."""

    __slots__ = ("before", "client_id")

    def __init__(self, client_id: str, before: int) -> None:
        self.client_id = client_id
        self.before = before


class PositionChange:
    """What a session is owed begins at `position`; None: at the mark, like for all who are owed nothing older.

    QoS 2 messages before `settled` that are over need not be known any more.
    """

    __slots__ = ("client_id", "position", "settled")

    def __init__(self, client_id: str, position: Position | None, settled: Position) -> None:
        self.client_id = client_id
        self.position = position
        self.settled = settled


class MarkChange:
    """No session without a position of its own is owed anything before this one."""

    __slots__ = ("position",)

    def __init__(self, position: Position) -> None:
        self.position = position


class FlightsSent:
    """Packet ids are given to records; their PUBLISHes leave when that is durable."""

    __slots__ = ("rows",)

    def __init__(self, rows: list[FlightRow]) -> None:
        self.rows = rows


class FlightsReleased:
    """PUBREC has come for `count` packet ids from `first_id` on."""

    __slots__ = ("client_id", "count", "first_id")

    def __init__(self, client_id: str, first_id: int, count: int) -> None:
        self.client_id = client_id
        self.first_id = first_id
        self.count = count


class FlightsEnd:
    """Packet ids are free; their records are not owed any more, which is remembered until `PositionChange.settled`."""

    __slots__ = ("client_id", "packet_ids")

    def __init__(self, client_id: str, packet_ids: list[int]) -> None:
        self.client_id = client_id
        self.packet_ids = packet_ids


class SessionChange:
    """A kept session is begun, or is another than before."""

    __slots__ = ("row",)

    def __init__(self, row: SessionRow) -> None:
        self.row = row


class SessionEnd:
    """Forget a session and all that is its."""

    __slots__ = ("client_id",)

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id


class SubscriptionChange:
    """A subscription is made or replaced."""

    __slots__ = ("row",)

    def __init__(self, row: SubscriptionRow) -> None:
        self.row = row


class ReplayMoved:
    """A subscription's replay stands elsewhere."""

    __slots__ = ("client_id", "position", "topic_filter")

    def __init__(self, client_id: str, topic_filter: str, position: str) -> None:
        self.client_id = client_id
        self.topic_filter = topic_filter
        self.position = position


class SubscriptionEnd:
    """And one is removed."""

    __slots__ = ("client_id", "topic_filter")

    def __init__(self, client_id: str, topic_filter: str) -> None:
        self.client_id = client_id
        self.topic_filter = topic_filter


class RetainedChange:
    """Topics have other retained messages; None: one has none any more."""

    __slots__ = ("message_by_topic",)

    def __init__(self, message_by_topic: dict[str, RetainedMessage | None]) -> None:
        self.message_by_topic = message_by_topic


class Durable:
    """`tell` is to be called once every change before this one is durable."""

    __slots__ = ("tell",)

    def __init__(self, tell: Callable[[], None]) -> None:
        self.tell = tell


SessionStatement = (
    SessionChange
    | SessionEnd
    | SubscriptionChange
    | SubscriptionEnd
    | ReplayMoved
    | PositionChange
    | MarkChange
    | FlightsSent
    | FlightsReleased
    | FlightsEnd
    | CopiesTaken
    | CopiesEnd
)
Change = RetainedChange | SessionStatement | Durable


class Store(Protocol):
    """Keeps what a broker knows over its end, however it ends."""

    def load_retained(self) -> Iterable[RetainedRow]:
        """Every retained message, in whatever order. For the start: it may block."""

    def load_sessions(self) -> Iterable[SessionRow]:
        """Every kept session."""

    def load_subscriptions(self) -> Iterable[SubscriptionRow]:
        """All their subscriptions."""

    def load_positions(self) -> dict[str, Position]:
        """By client id, for the sessions that have one of their own."""

    def load_mark(self) -> Position | None:
        """The last `MarkChange`; None: there was none."""

    def load_flights(self) -> Iterable[FlightRow]:
        """Those that are not over, in the order in which they were sent."""

    def load_ended_flights(self) -> Iterable[tuple[str, int, int]]:
        """Client id, log and offset of QoS 2 messages that are over, as far as they are remembered."""

    def load_copies(self) -> Iterable[CopyRow]:
        """Those that are left, each session's in their order."""

    def read_records(self, position: Position, is_wanted: Callable[[str], bool]) -> Iterable[StoredRecord]:
        """Records of QoS 1 and 2 from a position on whose topic is wanted, in the order of each log."""

    def position(self) -> Position:
        """The end of what is committed now. Every committed record has been routed."""

    def log_id(self, stream: object) -> int:
        """The number of the log of `SinkTopic.stream`; 0: its records cannot be referred to."""

    def is_failing(self) -> bool:
        """Nothing becomes durable at the moment; what was handed over waits."""

    def hold(self, position: Position) -> None:
        """Records from there on are referred to: retention leaves them until the next call."""

    def wanted(self) -> Position:
        """For each log in which retention waits for `hold`: where it would begin next."""

    def keep(self, changes: Sequence[Change]) -> None:
        """Take a turn's changes, in order."""

    def flush(self) -> None:
        """The turn is over: nothing more will be handed over that could be written with them."""
