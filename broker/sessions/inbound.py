"""Inbound: what a session knows of its client's QoS 2 publishes, from the first PUBLISH to PUBREL (MQTT 5 §4.3.3).

A publish whose packet identifier is in use is the same one again when it says so (DUP) or when topic and payload are
those of before. Else it is another message: its client has lost its own state, begins to number anew, and would never
learn that what was acknowledged has gone nowhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.codec.errors import ProtocolError
from broker.sink import UNKNOWN, stored_content

if TYPE_CHECKING:
    from broker.publish_run import PublishRun
    from broker.sessions.session import Session

STORED = 1 << 64
"""What the sink has for a publish (`stored_content`) counts from here on, out of the way of hashes."""


class Inbound:
    """A session has one when its client has sent QoS 2, or had before a restart."""

    __slots__ = ("carried", "repeated", "restored", "storing", "unreleased")

    def __init__(self) -> None:
        self.unreleased: dict[int, int] = {}
        """By packet id, of publishes that were taken and not yet released: `content_of` or, from the store, STORED +
        `stored_content`."""
        self.storing: dict[int, PublishRun] = {}
        """Those of them whose records are not stored yet, by packet id: a repeat is answered when they are."""
        self.restored: set[int] = set()
        """Those from before a restart, of a client whose session is gone: only a publish with DUP repeats one."""
        self.carried = 0
        """How many were unreleased when the connection began: they count against nothing that it was told."""
        self.repeated: set[int] = set()
        """Those that came again on this connection after they had been answered."""

    @property
    def outstanding(self) -> int:
        """What counts against the Receive Maximum of this connection (§4.9)."""
        return max(0, len(self.unreleased) - self.carried)

    def connected(self) -> None:
        """Another connection begins."""
        self.carried = len(self.unreleased)
        self.repeated.clear()

    def restore(self, stored: dict[int, int]) -> None:
        """Unreleased ones that the store had, by packet id (`broker.sink.Sink.unreleased`)."""
        self.unreleased = {packet_id: STORED + content for packet_id, content in stored.items()}

    # hot path: tests/bench/receive.py
    def taken(self, run: PublishRun) -> None:
        """The publishes of a run are taken."""
        packet_ids = run.packet_ids
        data, routes, payload_starts, ends = run.data, run.routes, run.payload_starts, run.ends
        unreleased = self.unreleased
        for row in range(len(packet_ids)):
            content = hash(routes[row].topic_name) ^ hash(data[payload_starts[row] : ends[row]])
            unreleased[packet_ids[row]] = content
        if self.restored:
            self.restored.difference_update(packet_ids)
        if self.repeated:
            self.repeated.difference_update(packet_ids)

    def is_repeat(
        self, packet_id: int, topic_name: str, payload: bytes, *, dup: bool, may_resend: bool = False
    ) -> bool:
        """Whether a publish is one that is here already; to send it again once is forgiven. [MQTT-4.4.0-1]

        `may_resend`: 3.1 lets clients send again whenever they like.

        Raises:
            ProtocolError: it was answered, came again, was answered, and comes again; as in Mosquitto.
        """
        known = self.unreleased.get(packet_id)
        if known is None:
            return dup and packet_id in self.restored
        if not dup and not _is_content(known, topic_name, payload):
            return False
        if packet_id not in self.storing and not may_resend:
            if packet_id in self.repeated:
                raise ProtocolError("a QoS 2 publish for the third time on one connection")
            self.repeated.add(packet_id)
        return True

    def release(self, packet_id: int) -> bool:
        """The id is free again; returns whether it was in use."""
        is_known = packet_id in self.unreleased or packet_id in self.restored
        self.unreleased.pop(packet_id, None)
        self.restored.discard(packet_id)
        self.repeated.discard(packet_id)
        return is_known

    def refused(self, packet_ids: list[int]) -> None:
        """These will never be stored, and their client is told so: it will not release them."""
        for packet_id in packet_ids:
            self.unreleased.pop(packet_id, None)


def content_of(topic_name: str, payload: bytes) -> int:
    """What tells a publish from another one with the same packet id, in this process."""
    return hash(topic_name) ^ hash(payload)


def _is_content(known: int, topic_name: str, payload: bytes) -> bool:
    if known < STORED + UNKNOWN:
        return known == content_of(topic_name, payload)
    return known == STORED + UNKNOWN or known == STORED + stored_content(topic_name, payload)


def inbound_of(session: Session) -> Inbound:
    """The session's, made when it has none."""
    inbound = session.inbound
    if inbound is None:
        inbound = session.inbound = Inbound()
    return inbound
