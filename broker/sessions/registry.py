"""SessionRegistry: sessions by client id, take-over, expiry and delayed wills (MQTT 5 §3.1.2.11, §3.1.3.2.2).

Time is a number of seconds that the engine counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.due import Due
from broker.sessions.session import Session

if TYPE_CHECKING:
    from broker.codec.packets import Will
    from broker.config import BrokerConfig
    from broker.metrics import Metrics


class DelayedWill:
    """A will that waits for its delay or for the session's end, whichever comes first."""

    __slots__ = ("client_id", "due_s", "is_v5", "will")

    def __init__(self, client_id: str, will: Will, is_v5: bool, due_s: int) -> None:
        self.client_id = client_id
        self.will = will
        self.is_v5 = is_v5
        self.due_s = due_s


class SessionRegistry:
    """All sessions; at most `sessions_max`."""

    def __init__(self, config: BrokerConfig, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self.session_by_client_id: dict[str, Session] = {}
        self._expiring: Due[Session] = Due()
        """Of those without a connection."""
        self._delayed_will_by_client_id: dict[str, DelayedWill] = {}

    def __len__(self) -> int:
        return len(self.session_by_client_id)

    @property
    def is_full(self) -> bool:
        """No further client id can have a session."""
        return len(self.session_by_client_id) >= self._config.sessions_max

    def create(self, client_id: str) -> Session:
        """A new session in place of any old one, which the caller has ended."""
        session = Session(client_id, self._config, self._metrics)
        self.session_by_client_id[client_id] = session
        return session

    def remove(self, session: Session) -> None:
        """Forget a session."""
        self.wanted(session)
        if self.session_by_client_id.get(session.client_id) is session:
            del self.session_by_client_id[session.client_id]

    def wanted(self, session: Session) -> None:
        """The client is back: the session does not end by time."""
        self._expiring.discard(session, session.expires_at_s)

    def expire_later(self, session: Session, now_s: int) -> None:
        """The client has gone: the session ends when its expiry interval has passed."""
        self.expire_at(session, now_s + session.expiry_s + 1)  # the second that runs is not a whole one

    def expire_at(self, session: Session, at_s: int) -> None:
        """A session without a connection ends at a second of the engine's that is still to come."""
        session.expires_at_s = at_s
        self._expiring.put(session, at_s)

    def expired(self, now_s: int) -> list[Session]:
        """The sessions that end now."""
        return self._expiring.take(now_s)

    @property
    def expiring(self) -> int:
        """Sessions that end by time unless their client comes back."""
        return len(self._expiring)

    def delay_will(self, client_id: str, will: Will, is_v5: bool, due_s: int) -> None:
        """Keep a will until `due_s`."""
        self._delayed_will_by_client_id[client_id] = DelayedWill(client_id, will, is_v5, due_s)

    def take_delayed_will(self, client_id: str) -> DelayedWill | None:
        """Remove and return the client's delayed will: it came back, or its session ends."""
        return self._delayed_will_by_client_id.pop(client_id, None)

    def delayed_will(self, client_id: str) -> DelayedWill | None:
        """The client's delayed will."""
        return self._delayed_will_by_client_id.get(client_id)

    def due_wills(self, now_s: int) -> list[DelayedWill]:
        """Remove and return the wills whose delay is over."""
        due = [delayed for delayed in self._delayed_will_by_client_id.values() if delayed.due_s <= now_s]
        for delayed in due:
            del self._delayed_will_by_client_id[delayed.client_id]
        return due
