"""Store: the broker's port to what outlives its process. What a turn has changed leaves by it, as one batch.

The bridge implements it; a broker without one begins with nothing. All calls are plain and happen on the event loop's
thread. Changes become durable in the order in which they are handed over, and never later than a publish that is
handed to the sink after them. Why each change is what it is: docs/adr/0012.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from broker.retained import RetainedMessage

RetainedRow = tuple[str, bytes, bool, str, int, int]
"""Topic name, frame, is MQTT 5, client id, time of receipt and of expiry (epoch ms; 0: never)."""


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


Change = RetainedChange | Durable


class Store(Protocol):
    """Keeps what a broker knows over its end, however it ends."""

    def load_retained(self) -> Iterable[RetainedRow]:
        """Every retained message, in whatever order. For the start: it may block."""

    def keep(self, changes: Sequence[Change]) -> None:
        """Take a turn's changes, in order."""

    def flush(self) -> None:
        """The turn is over: nothing more will be handed over that could be written with them."""
