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


class SubscriptionEnd:
    """And one is removed."""

    __slots__ = ("client_id", "topic_filter")

    def __init__(self, client_id: str, topic_filter: str) -> None:
        self.client_id = client_id
        self.topic_filter = topic_filter


class RetainedChange:
    """A topic has another retained message; None: it has none any more."""

    __slots__ = ("message", "topic_name")

    def __init__(self, topic_name: str, message: RetainedMessage | None) -> None:
        self.topic_name = topic_name
        self.message = message


class Durable:
    """`tell` is to be called once every change before this one is durable."""

    __slots__ = ("tell",)

    def __init__(self, tell: Callable[[], None]) -> None:
        self.tell = tell


Change = RetainedChange | SessionChange | SessionEnd | SubscriptionChange | SubscriptionEnd | Durable


class Store(Protocol):
    """Keeps what a broker knows over its end, however it ends."""

    def load_retained(self) -> Iterable[RetainedRow]:
        """Every retained message, in whatever order. For the start: it may block."""

    def load_sessions(self) -> Iterable[SessionRow]:
        """Every kept session."""

    def load_subscriptions(self) -> Iterable[SubscriptionRow]:
        """All their subscriptions."""

    def keep(self, changes: Sequence[Change]) -> None:
        """Take a turn's changes, in order."""

    def flush(self) -> None:
        """The turn is over: nothing more will be handed over that could be written with them."""
