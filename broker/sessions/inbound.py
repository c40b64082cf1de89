"""Inbound: what a session knows of its client's QoS 2 publishes, from the first PUBLISH to PUBREL (MQTT 5 §4.3.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.codec.errors import ProtocolError

if TYPE_CHECKING:
    from broker.publish_run import PublishRun
    from broker.sessions.session import Session


class Inbound:
    """A session has one when its client has sent QoS 2, or had before a restart."""

    __slots__ = ("carried", "repeated", "restored", "storing", "unreleased")

    def __init__(self) -> None:
        self.unreleased: set[int] = set()
        """Packet ids of publishes that were taken and not yet released."""
        self.storing: dict[int, PublishRun] = {}
        """Those of them whose records are not stored yet, by packet id: a repeat is answered when they are."""
        self.restored: set[int] = set()
        """Those from before a restart, of a client whose session is gone: only a publish with DUP repeats one."""
        self.carried = 0
        """How many were unreleased when the connection began: they count against nothing that it was told."""
        self.repeated: dict[int, int] = {}
        """By packet id, of those that came again on this connection without DUP: what came last, as a hash."""

    @property
    def outstanding(self) -> int:
        """What counts against the Receive Maximum of this connection (§4.9)."""
        return max(0, len(self.unreleased) - self.carried)

    def connected(self) -> None:
        """Another connection begins."""
        self.carried = len(self.unreleased)
        self.repeated.clear()

    def repeat(self, packet_id: int, topic_name: str, payload: bytes) -> None:
        """A publish came with an id that is in use, and without DUP: once is forgiven. [MQTT-4.4.0-1]

        Raises:
            ProtocolError: it is what came again last time too; as in Mosquitto.
        """
        content = hash((topic_name, payload))
        if self.repeated.get(packet_id) == content:
            raise ProtocolError("a publish without DUP for the third time, its packet identifier in use")
        self.repeated[packet_id] = content

    def taken(self, packet_ids: list[int]) -> None:
        """Publishes with these ids are taken."""
        self.unreleased.update(packet_ids)
        if self.restored:
            self.restored.difference_update(packet_ids)

    def release(self, packet_id: int) -> bool:
        """The id is free again; returns whether it was in use."""
        is_known = packet_id in self.unreleased or packet_id in self.restored
        if self.repeated:
            self.repeated.pop(packet_id, None)
        self.unreleased.discard(packet_id)
        self.restored.discard(packet_id)
        return is_known


def inbound_of(session: Session) -> Inbound:
    """The session's, made when it has none."""
    inbound = session.inbound
    if inbound is None:
        inbound = session.inbound = Inbound()
    return inbound
