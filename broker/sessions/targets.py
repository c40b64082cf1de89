"""Target: how a session takes what is published to a topic. A session has few of them, however many subscriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.sessions.session import Session


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
