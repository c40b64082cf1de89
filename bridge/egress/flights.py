"""Flights: messages on their way to another broker, in order, and how far each has come (MQTT 5 §4.3, §4.4).

Packet ids are given in a row and begin anew when all are used and nothing is under way, so those in flight are a
stretch. With QoS 2 flights outlive a connection: in the same session each is gone on with where it stood.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from broker.codec.constants import PACKET_ID_MAX
from broker.codec.encode import PACKET_IDS, PUBREL_STREAM
from broker.codec.errors import ProtocolError

if TYPE_CHECKING:
    from broker.replay import ReplayPiece

DUP = 0x08


class Flights:
    """Those of one egress."""

    def __init__(self) -> None:
        self.qos = 1
        """Of all of them."""
        self.reached: tuple[ReplayPiece, int] | None = None
        """The last piece and row before which everything has ended, since `clear`."""
        self._rows: deque[tuple[int, ReplayPiece, int]] = deque()
        """(packet id, piece, row) in order."""
        self._early: set[int] = set()
        """Packet ids that have ended before those in front of them."""
        self._released: dict[int, None] = {}
        """QoS 2: those for which PUBREC has come and PUBREL was sent, in the order of the former. [MQTT-4.6.0-4]"""
        self._again: deque[tuple[int, ReplayPiece, int]] = deque()
        """Those of `_rows` that are still to be sent once more."""
        self._packet_id = 0
        """The last one that was given."""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def has_again(self) -> bool:
        """Some have to be sent once more before anything new."""
        return bool(self._again)

    def clear(self) -> None:
        """A new session: nothing is under way in it."""
        self.reached = None
        self._rows.clear()
        self._early.clear()
        self._released.clear()
        self._again.clear()
        self._packet_id = 0

    # Sending

    def room(self, window: int) -> int:
        """How many may be sent now, when at most `window` may be under way."""
        if self._packet_id == PACKET_ID_MAX and not self._rows:
            self._packet_id = 0
        return min(window - len(self._rows), PACKET_ID_MAX - self._packet_id)

    def send(self, piece: ReplayPiece, row: int, count: int) -> bytes:
        """The frames of some rows, which are under way from now on."""
        first_id = self._packet_id + 1
        self._packet_id += count
        self._rows.extend([(first_id + index, piece, row + index) for index in range(count)])
        return piece.numbered(row, row + count, first_id)

    def resume(self) -> tuple[bytes, str]:
        """The connection is new and the session is not: PUBREL for what was released, and the place behind the rest.

        The other messages are to be had from `again`. [MQTT-4.4.0-1]
        """
        ended = self._early.union(self._released)
        self._again = deque(flight for flight in self._rows if flight[0] not in ended)
        _, piece, row = self._rows[-1]
        return b"".join([_pubrel(packet_id) for packet_id in self._released]), piece.position_at(row + 1)

    def again(self, window: int, is_v5: bool) -> bytes:
        """The next of those that are sent once more, with DUP; as many as `window` allows to be under way."""
        frames = []
        under_way = len(self._rows) - len(self._early) - len(self._again)
        while self._again and under_way < window:
            packet_id, piece, row = self._again.popleft()
            front, back = piece.split(row, is_v5)
            frames.append(bytes((front[0] | DUP,)) + front[1:] + PACKET_IDS[packet_id] + back)  # [MQTT-3.3.1-1]
            under_way += 1
        return b"".join(frames)

    # Answers

    def received(self, packet_id: int) -> bytes:
        """PUBREC: the PUBREL that answers it.

        Raises:
            ProtocolError: it does not answer a PUBLISH of QoS 2.
        """
        if self.qos != 2 or not self._holds(packet_id):
            raise ProtocolError("PUBREC for something that was not sent")
        self._released[packet_id] = None
        return _pubrel(packet_id)

    def completed(self, packet_id: int) -> int:
        """PUBCOMP; returns how many messages have ended with it, in order.

        Raises:
            ProtocolError: it does not answer a PUBREL.
        """
        if packet_id not in self._released:
            raise ProtocolError("PUBCOMP for something that was not released")
        return self.ended(packet_id)

    def acknowledged(self, packet_id: int) -> int:
        """PUBACK; as `completed`. One of something that is not under way is passed over.

        Raises:
            ProtocolError: it answers a PUBLISH of QoS 2.
        """
        if self.qos == 2:
            raise ProtocolError("PUBACK for QoS 2")
        return self.ended(packet_id) if self._holds(packet_id) else 0

    def ended(self, packet_id: int) -> int:
        """Nothing more comes for a message that is under way; as `completed`."""
        rows = self._rows
        self._released.pop(packet_id, None)
        if rows[0][0] != packet_id:
            self._early.add(packet_id)
            return 0
        count = 0
        while True:
            _, piece, row = rows.popleft()
            count += 1
            if not rows or rows[0][0] not in self._early:
                break
            self._early.discard(rows[0][0])
        self.reached = (piece, row + 1)
        return count

    def _holds(self, packet_id: int) -> bool:
        rows = self._rows
        return bool(rows) and rows[0][0] <= packet_id <= rows[-1][0] and packet_id not in self._early


def _pubrel(packet_id: int) -> bytes:
    return PUBREL_STREAM[4 * packet_id : 4 * packet_id + 4]
