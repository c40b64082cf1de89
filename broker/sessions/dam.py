"""Dam: what a kept session is sent after a SUBSCRIBE, until the SUBACK that waits for the store has left.

Retained messages and what is published after them are sent in their order from the SUBSCRIBE on [MQTT-4.6.0-6]; they
gather in an outbox that nobody flushes, and go behind the SUBACK. What that takes is bounded as for a connection that
is full. Answers do not wait, nor does anybody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.outbox import Outbox

if TYPE_CHECKING:
    from broker.sessions.session import Session


class Dam:
    """Of one SUBSCRIBE; one more may come before it is open."""

    __slots__ = ("_bytes_before", "_connection_outbox", "_outbox", "is_open", "session")

    def __init__(self, session: Session, connection_outbox: Outbox) -> None:
        before = session.outbox
        transport = connection_outbox.transport
        assert before is not None
        assert transport is not None
        self.session = session
        self._connection_outbox = connection_outbox
        self._bytes_before = before.pending_bytes if before.is_blocked else 0
        self._outbox = Outbox(transport, [])
        self._outbox.is_touched = True  # by itself: no flush knows of it
        self.is_open = False
        session.outbox = self._outbox

    def close(self) -> None:
        """What is retained is here: what comes from now on counts as for a connection that is full."""
        if not self.is_open:
            self._outbox.is_blocked = True
            self._outbox.pending_bytes = self._bytes_before

    def open(self) -> None:
        """All of it goes to the connection, and what comes from now on."""
        if self.is_open:
            return
        self.is_open = True
        outbox, connection_outbox = self._outbox, self._connection_outbox
        for chunk in outbox.chunks or ():
            connection_outbox.append(chunk)
        connection_outbox.messages_out += outbox.messages_out
        if self.session.outbox is outbox:
            self.session.outbox = connection_outbox
        if outbox.waiting is not None:
            connection_outbox.waiting = outbox.waiting
            connection_outbox.touch()

    def drop(self) -> int:
        """The connection is gone; returns how many messages of QoS 0 are, too."""
        self.is_open = True
        return self._outbox.forget()
