"""Hooks: plain functions of the program around the broker, which are asked, or told, what clients do.

They are called on the event loop's thread in the course of a read, so they must answer at once: nothing else happens
meanwhile. A hook that is not given costs nothing for a message. One that raises is a fault of the program: it is logged
with its traceback and the connection ends (MQTT 5, behind CONNACK: 0x83), so that nothing passes unasked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from broker.codec import constants
from broker.codec.properties import decode_properties
from broker.codec.reason_codes import CODES_BY_PACKET_TYPE, reason_name
from broker.delivery import row_properties

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from broker.codec.packets import Connect, Subscription
    from broker.codec.properties import Properties
    from broker.protocol.close_reason import CloseReason
    from broker.publish_run import PublishRun

NOT_AUTHORIZED = 0x87


class Client(Protocol):
    """Who does it; only to be read, and not to be kept longer than until `on_close`."""

    @property
    def client_id(self) -> str:
        """Its own, or the one that it was given."""

    @property
    def username(self) -> str | None:
        """As CONNECT says it; the broker alone does not check it."""

    @property
    def protocol_level(self) -> int:
        """3, 4 (MQTT 3.1.1) or 5."""

    @property
    def peer(self) -> str:
        """The address it connected from, as `host:port`."""

    @property
    def transport_kind(self) -> str:
        """`tcp`, `websocket`, …"""


class Message:
    """One publish on its way in."""

    __slots__ = ("_publishes", "_row")

    def __init__(self, publishes: Publishes, row: int) -> None:
        self._publishes = publishes
        self._row = row

    @property
    def topic_name(self) -> str:
        """Its topic, with any topic alias resolved."""
        return self._publishes.run.routes[self._row].topic_name

    @property
    def payload(self) -> bytes:
        """A copy of its payload."""
        run = self._publishes.run
        return run.data[run.payload_starts[self._row] : run.ends[self._row]]

    @property
    def qos(self) -> int:
        """0, 1 or 2."""
        run = self._publishes.run
        return run.qos if run.packet_ids and run.packet_ids[self._row] else 0

    @property
    def retain(self) -> bool:
        """RETAIN, as the client set it."""
        return self._publishes.run.retain

    @property
    def properties(self) -> Properties | None:
        """MQTT 5 properties; a copy, decoded with each call. None: there are none."""
        run = self._publishes.run
        if run.is_plain or not run.is_v5:
            return None
        return decode_properties(row_properties(run, self._row, (), 0), 0, constants.PUBLISH)[0]

    def refuse(self, reason_code: int = NOT_AUTHORIZED) -> None:
        """It goes nowhere. MQTT 5 is told `reason_code` in PUBACK or PUBREC; 3.1.1 and QoS 0 have no way to hear it.

        Raises:
            ValueError: no reason code with which a PUBACK can refuse (MQTT 5 §3.4.2.1).
        """
        self._publishes.verdicts[self._row] = _refusal(reason_code, constants.PUBACK)

    def drop(self) -> None:
        """It goes nowhere, and is acknowledged as if it had."""
        self._publishes.verdicts[self._row] = 0


class Publishes:
    """The publishes of one read, or of a part of it, in their order. Only to be used in the hook."""

    __slots__ = ("run", "verdicts")

    def __init__(self, run: PublishRun) -> None:
        self.run = run
        self.verdicts: dict[int, int] = {}
        """By row, for those that do not pass: the reason code, 0: dropped."""

    def __len__(self) -> int:
        return len(self.run)

    def __iter__(self) -> Iterator[Message]:
        return (Message(self, row) for row in range(len(self.run)))

    def __getitem__(self, row: int) -> Message:
        """One of them, from 0 on.

        Raises:
            IndexError: there are not so many.
        """
        if not 0 <= row < len(self.run):
            raise IndexError(row)
        return Message(self, row)

    @property
    def topic_names(self) -> list[str]:
        """The topics of all, for hooks that look at nothing else and have many to look at."""
        return [route.topic_name for route in self.run.routes]


class SubscriptionRequest:
    """One topic filter of a SUBSCRIBE."""

    __slots__ = ("no_local", "qos", "retain_as_published", "retain_handling", "share_name", "since", "topic_filter")

    def __init__(self, subscription: Subscription, topic_filter: str, share_name: str, since: str | None) -> None:
        self.topic_filter = topic_filter
        """What it takes: without `$share/{name}/` or `$replay/{since}/` in front."""
        self.share_name = share_name
        """Of a shared subscription; empty: it is none."""
        self.since = since
        """Of a replay: from when on it wants what was stored; None: it is none."""
        self.qos = subscription.qos
        self.no_local = subscription.no_local
        self.retain_as_published = subscription.retain_as_published
        self.retain_handling = subscription.retain_handling


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the program wants to be asked or told; each may be left out."""

    on_connect: Callable[[Client, Connect], int | None] | None = None
    """A CONNECT that the broker would take. The answer None or 0 takes it; a reason code of 0x80 or more refuses it, in
    CONNACK (§3.2.2.2; 3.1.1 gets the return code that is nearest)."""
    on_publish: Callable[[Client, Publishes], None] | None = None
    """Publishes of one read, before anything is done with them: `Message.refuse` and `Message.drop` keep one from going
    on. Wills are not shown (`on_connect` sees them), nor is what the program itself publishes."""
    on_subscribe: Callable[[Client, SubscriptionRequest], int | None] | None = None
    """A filter that the broker would grant. None grants it as asked; 0, 1 or 2 with at most this QoS; a reason code of
    0x80 or more refuses it, in SUBACK (§3.9.3; 3.1.1 gets 0x80)."""
    on_close: Callable[[Client, CloseReason], None] | None = None
    """A client's connection has ended, whose CONNECT was taken. What this raises is logged and changes nothing."""


def _refusal(reason_code: int, packet_type: int) -> int:
    """The code, if such a packet can refuse with it."""
    if reason_code < 0x80 or reason_code not in CODES_BY_PACKET_TYPE[packet_type]:
        packet_name = constants.PACKET_NAMES[packet_type]
        raise ValueError(f"{packet_name} cannot refuse with {reason_name(reason_code)} (0x{reason_code:02X})")
    return reason_code


def connect_refusal(answer: int | None) -> int:
    """What `on_connect` has answered: 0, or the code that refuses.

    Raises:
        ValueError: it means nothing in a CONNACK.
    """
    return _refusal(answer, constants.CONNACK) if answer else 0


def granted_qos(answer: int | None, qos: int) -> tuple[int, int]:
    """What `on_subscribe` has answered: the QoS, and the code that refuses or 0.

    Raises:
        ValueError: it means nothing in a SUBACK.
    """
    if answer is None:
        return qos, 0
    if 0 <= answer <= 2:
        return min(qos, answer), 0
    return qos, _refusal(answer, constants.SUBACK)
