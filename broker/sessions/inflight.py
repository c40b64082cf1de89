"""Inflight: QoS 1 and 2 messages sent to a client and not yet acknowledged.

Packet ids are handed out in sequence, so what is in flight is a short list of ranges of consecutive ids. Clients
acknowledge in order ([MQTT-4.6.0-2] asks it of them too), so the usual acknowledgement takes from the first range;
one that comes out of order splits a range.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from broker.replay import ReplayPiece

if TYPE_CHECKING:
    from broker.publish_run import PublishRun

PACKET_ID_MAX = 65_535


class Flight:
    """Rows `row` to `end_row - 1` of `run` (or of a piece of a replay), sent with the packet ids from `first_id` on."""

    __slots__ = ("end_row", "first_id", "identifiers", "is_durable", "is_sent", "retain", "row", "run", "share")

    def __init__(
        self,
        first_id: int,
        run: PublishRun | ReplayPiece | None,
        row: int,
        end_row: int,
        retain: bool = False,
        identifiers: tuple[int, ...] = (),
        share: str = "",
    ) -> None:
        self.first_id = first_id
        self.run = run
        """None: it was read back after PUBREC, when only the id counts."""
        self.row = row
        self.end_row = end_row
        self.retain = retain
        self.identifiers = identifiers
        """The subscription identifiers that the rows name; they and RETAIN are the same when they are sent again."""
        self.share = share
        """As in `Delivery`."""
        self.is_durable = True
        """False: the store does not know of it yet, so nothing has been sent."""
        self.is_sent = True
        """False: when the store knew of it the client was away."""


class Inflight:
    """One session's messages in flight, in the order in which they were sent."""

    __slots__ = ("count", "next_id", "unacknowledged", "uncompleted", "unreceived")

    def __init__(self) -> None:
        self.next_id = 1
        self.count = 0
        """Messages of both QoS that take a place in the client's Receive Maximum (MQTT 5 §4.9)."""
        self.unacknowledged: deque[Flight] = deque()
        """QoS 1, waiting for PUBACK."""
        self.unreceived: deque[Flight] = deque()
        """QoS 2, waiting for PUBREC."""
        self.uncompleted: deque[Flight] = deque()
        """QoS 2, PUBREL sent, waiting for PUBCOMP. Only the ids count here."""

    def room(self) -> int:
        """How many packet ids can be handed out in sequence before one that is in use comes up."""
        next_id = self.next_id
        ids_free = PACKET_ID_MAX
        for flights in (self.unacknowledged, self.unreceived):
            if flights:  # in the order of their ids, so the first is the next that would come up again
                ids_free = min(ids_free, (flights[0].first_id - next_id) % PACKET_ID_MAX)
        for flight in self.uncompleted:  # in the order of the PUBRECs
            ids_free = min(ids_free, (flight.first_id - next_id) % PACKET_ID_MAX)
        return ids_free

    def released(self, flight: Flight) -> None:
        """PUBREC has come for these: they wait for PUBCOMP, in as few ranges as may be, since `room` looks at each."""
        uncompleted = self.uncompleted
        if uncompleted:
            last = uncompleted[-1]
            if last.first_id + last.end_row - last.row == flight.first_id:
                last.end_row += flight.end_row - flight.row
                last.run = None
                return
        flight.run = None
        uncompleted.append(flight)

    def in_order(self) -> list[tuple[int, Flight]]:
        """(QoS, messages) of all PUBLISHes that may have to be sent again, as they were sent first."""
        latest_id = self.next_id - 1
        flights = [(1, flight) for flight in self.unacknowledged] + [(2, flight) for flight in self.unreceived]
        return sorted(flights, key=lambda each: (latest_id - each[1].first_id) % PACKET_ID_MAX, reverse=True)

    def replayed_from(self, way: object) -> str | None:
        """The position of the oldest message of a replay that the client has not taken; None: there is none."""
        latest_id = self.next_id - 1
        oldest: str | None = None
        oldest_age = -1
        for flights in (self.unacknowledged, self.unreceived):
            for flight in flights:  # in the order of their ids
                piece = flight.run
                if isinstance(piece, ReplayPiece) and piece.way is way:
                    age = (latest_id - flight.first_id) % PACKET_ID_MAX
                    if age > oldest_age:
                        oldest, oldest_age = piece.position_at(flight.row), age
                    break
        return oldest

    def add(
        self,
        run: PublishRun | ReplayPiece,
        row: int,
        end_row: int,
        qos: int,
        retain: bool = False,
        identifiers: tuple[int, ...] = (),
        share: str = "",
    ) -> Flight:
        """Hand out packet ids for as many of the rows as fit before the ids begin again at 1."""
        first_id = self.next_id
        end_row = min(end_row, row + PACKET_ID_MAX - first_id + 1)
        flight = Flight(first_id, run, row, end_row, retain, identifiers, share)
        (self.unacknowledged if qos == 1 else self.unreceived).append(flight)
        count = end_row - row
        self.count += count
        next_id = first_id + count
        self.next_id = next_id if next_id <= PACKET_ID_MAX else 1
        return flight


def take_first(flights: deque[Flight], count: int) -> None:
    """Remove the first `count` messages of the first range."""
    flight = flights[0]
    flight.row += count
    flight.first_id += count
    if flight.row == flight.end_row:
        flights.popleft()


def take(flights: deque[Flight], packet_id: int) -> Flight | None:
    """Remove `packet_id` wherever it is; returns its message as a range of one, or None when it is not there."""
    for index, flight in enumerate(flights):
        position = packet_id - flight.first_id
        if 0 <= position < flight.end_row - flight.row:
            row = flight.row + position
            taken = Flight(packet_id, flight.run, row, row + 1, flight.retain, flight.identifiers, flight.share)
            if position == 0:
                flight.row += 1
                flight.first_id += 1
                if flight.row == flight.end_row:
                    del flights[index]
            elif row + 1 == flight.end_row:
                flight.end_row = row
            else:
                rest = Flight(
                    packet_id + 1, flight.run, row + 1, flight.end_row, flight.retain, flight.identifiers, flight.share
                )
                flight.end_row = row
                flights.insert(index + 1, rest)
            return taken
    return None


def holds(flights: deque[Flight], packet_id: int) -> bool:
    """Whether `packet_id` is one of theirs."""
    return any(0 <= packet_id - flight.first_id < flight.end_row - flight.row for flight in flights)
