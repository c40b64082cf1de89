"""MqttSink: publishes what matches some filters to another broker, with the log as its queue.

It stands at a place in the streams, like a reader's cursor. What is committed behind it is read, sent in order with at
most so much unacknowledged, and the place moves when the other broker acknowledges (QoS 2: with PUBCOMP); it is kept on
disk. While that broker is away nothing waits in memory but what was in flight: the log keeps it. After a lost
connection QoS 1 goes on at the place, and QoS 2 in the session that both sides still have, so each message arrives
once. After a restart of ours both go on at the place: what was in flight, and what was acknowledged in the last
`SAVE_S` before a crash, is sent again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Protocol

from bridge.cursors import Cursor, CursorInvalid, distance
from bridge.egress.feed import EgressFeed
from bridge.egress.flights import Flights
from bridge.history.scan import BareForm
from bridge.publish_frames import user_property
from bridge.remote.client import RemoteClient
from bridge.remote.link import LinkFailed
from bridge.remote.mark import MARK
from broker.codec.constants import PUBACK, PUBCOMP, PUBREC
from broker.codec.errors import ProtocolError
from broker.codec.packets import Puback, Pubcomp, Pubrec
from broker.codec.reason_codes import reason_name
from broker.replay import ReplayRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridge.config_remote import EgressTable
    from bridge.live.replays import LogReplays
    from bridge.live.start import Gap
    from bridge.remote.link import Link
    from bridge.streams.log import StreamLog
    from broker.codec.packets import Connack, Packet
    from broker.replay import ReplayPiece

log = logging.getLogger("headrace.egress")

SAVE_S = 0.2
"""The place is written to disk so often at most."""
LOOK_S = 10.0
"""While nothing that matches comes, so often: a place far behind would look like a loss to retention."""
DRAIN_S = 2.0
"""At the end so long is waited for acknowledgements, so that they need not be sent again."""
SESSION_EXPIRY_S = 86_400
"""QoS 2: so long that broker is asked to remember what has come to it while there is no connection."""
TRANSIENT = (0x80, 0x83, 0x97)
"""Refusals of a PUBLISH after which the same message is tried again: unspecified, implementation specific, quota."""


class Texts(Protocol):
    """Where small texts outlive the process (`bridge.streams.notes.Notes`)."""

    def get(self, name: str) -> str | None:
        """The text; None when there is none."""

    def put(self, name: str, text: str, done: Callable[[], None]) -> None:
        """Keep it, then call `done`."""


class MqttSink:
    """One `[[egress]]`. The names of its methods are those of `LinkUser` and `ReplayReader`."""

    def __init__(
        self,
        table: EgressTable,
        client_id: str,
        replays: LogReplays,
        logs: Sequence[StreamLog],
        notes: Texts,
        *,
        now_ms: int,
        left_out_client_ids: frozenset[str],
        mark: str | None,
        packet_bytes_max: int,
    ) -> None:
        self.table = table
        self.name = table.name
        self.acknowledged = 0
        """Messages that the other broker has (QoS 0: that were written)."""
        self.gaps = 0
        self.lost = 0
        """Records that retention had dropped before they were sent, as far as they can be counted."""
        self.dropped: Counter[str] = Counter()
        """Messages that were not sent or not taken, by reason."""
        keeps_session = table.qos == 2
        self.client = RemoteClient(
            table,
            client_id,
            self,
            log,
            keeps_session=keeps_session,
            begins_anew=True,  # what an earlier process had in flight there is not known
            session_expiry_s=SESSION_EXPIRY_S if keeps_session else 0,
            packet_bytes_max=packet_bytes_max,
        )
        self._replays = replays
        self._logs = logs
        self._notes = notes
        self._note = f"egress.{table.name}"
        self._mark = mark
        properties = user_property(MARK, mark) if mark is not None else b""
        self._bare = BareForm(table.remove_prefix, table.prefix, properties, left_out_client_ids)
        self._link: Link | None = None
        self._feed: EgressFeed | None = None
        self._piece: ReplayPiece | None = None
        self._row = 0
        """The next of `_piece` to be sent."""
        self._flights = Flights()
        self._form: tuple[object, ...] = ()
        """What the other broker takes, as far as frames depend on it."""
        self._window = table.inflight_max
        self._position = notes.get(self._note) or replays.start_of(table.topics, table.since, now_ms)
        self._saved = ""
        self._is_saving = False
        self._timer: asyncio.TimerHandle | None = None
        self._on_settled: Callable[[], None] = lambda: None

    # Life

    def start(self) -> None:
        """Connect, and stay connected. The place is on disk from the first moment."""
        self._save()
        self.client.start()

    async def close(self) -> None:
        """Send no more, wait a moment for acknowledgements, and keep the place."""
        self._close_feed()
        if self._flights:
            settled = asyncio.Event()
            self._on_settled = settled.set
            try:
                await asyncio.wait_for(settled.wait(), DRAIN_S)
            except TimeoutError:
                log.info("%s: %d messages were not acknowledged in time", self.name, len(self._flights))
        await self.client.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._save()

    # bridge.remote.link.LinkUser

    def opened(self, link: Link, connack: Connack) -> None:
        """Go on behind what is acknowledged, as the other broker can take it."""
        self._link = link
        if self._mark is not None and not link.is_v5:
            link.close(
                LinkFailed("an ingest takes from there what would be sent, and without MQTT 5 that would circle")
            )
            return
        table, properties = self.table, connack.properties
        qos: int = table.qos
        retain, bytes_max, window = table.retain, 0, table.inflight_max
        if properties is not None:
            if properties.maximum_qos is not None:
                qos = min(qos, properties.maximum_qos)
            retain = retain and properties.retain_available != 0
            bytes_max = properties.maximum_packet_size or 0
            window = min(window, properties.receive_maximum or window)
        self._window = window
        form = (link.is_v5, qos, retain, bytes_max)
        position = self._place()
        if self._flights and connack.session_present:
            if form != self._form:
                self.client.begin_anew()
                link.close(LinkFailed("it takes messages in another form than before: a new session is begun"))
                return
            released, position = self._flights.resume()
            link.send(released)
        else:
            if self._flights:
                fields = {"name": self.name, "messages": len(self._flights)}
                log.warning("a new session there: what was in flight may arrive twice", extra={"fields": fields})
            self._begin_session(qos)
        self._form = form
        request = ReplayRequest(self.name, table.topics[0], position, link.is_v5, qos, retain, 0, None, bytes_max)
        self._feed = EgressFeed(
            self._replays,
            self._logs,
            request,
            self,
            filters=table.topics,
            bare=self._bare,
            on_gap=self._on_gap,
        )
        self._pump()
        self._feed.pull()

    def _begin_session(self, qos: int) -> None:
        """Nothing is in flight, and the place stays."""
        self._position = self._place()
        self._flights.clear()
        self._flights.qos = qos

    def closed(self) -> None:
        """QoS 1 that is not acknowledged is read and sent again; QoS 2 stays as far as it has come."""
        self._link = None
        self._close_feed()
        if self._flights.qos != 2:
            self._begin_session(self._flights.qos)
        self._on_settled()

    def receive_run(self, data: bytes, position: int) -> int:
        """A row of PUBACKs, PUBRECs and PUBCOMPs of success. Raises: MqttError"""
        flights, size = self._flights, len(data)
        released = []
        while position + 4 <= size and data[position + 1] == 2:
            first_byte, packet_id = data[position], data[position + 2] << 8 | data[position + 3]
            if first_byte == PUBACK << 4:
                self._settled(flights.acknowledged(packet_id))
            elif first_byte == PUBREC << 4:
                released.append(flights.received(packet_id))
            elif first_byte == PUBCOMP << 4:
                self._settled(flights.completed(packet_id))
            else:
                break
            position += 4
        if self._link is not None:
            if released:
                self._link.send(b"".join(released))
            self._pump()
        return position

    def receive(self, packet: Packet) -> None:
        """Any other packet. Raises: MqttError"""
        flights = self._flights
        if not isinstance(packet, Puback | Pubrec | Pubcomp):
            raise ProtocolError(f"{type(packet).__name__.upper()} for something that was not sent")
        code, packet_id = packet.reason_code, packet.packet_id
        if isinstance(packet, Pubcomp):  # 0x92: it had the message released already
            self._settled(flights.completed(packet_id))
        elif code in TRANSIENT:
            if self._link is not None:
                self._link.close(LinkFailed(f"the broker does not take a message: {reason_name(code)} (0x{code:02x})"))
            return
        elif isinstance(packet, Puback):
            self._settled(flights.acknowledged(packet_id))
        else:
            released = flights.received(packet_id)
            if code >= 0x80:  # the exchange is over [MQTT-4.3.3-4]
                self._settled(flights.ended(packet_id))
            elif self._link is not None:
                self._link.send(released)
        if code >= 0x80 and not isinstance(packet, Pubcomp):
            self._drop(reason_name(code).replace(" ", "_"), 1)
        self._pump()

    def receive_too_large(self, first_byte: int, packet_id: int, size: int) -> None:
        """It is a PUBLISH, and we have subscribed to nothing."""

    def has_room(self) -> None:
        """Send on."""
        self._pump()

    # broker.replay.ReplayReader

    def take(self, piece: ReplayPiece) -> None:
        """What was asked for; the piece before it has been sent."""
        if piece.left_out:
            self._drop("too_large", piece.left_out)
        self._piece, self._row = piece, 0
        self._pump()

    def _pump(self) -> None:
        """Send what may be sent now; ask for more when all of it is."""
        link, piece = self._link, self._piece
        if link is None or self._feed is None:
            return
        if self._flights.has_again and not link.is_full:
            link.send(self._flights.again(self._window, link.is_v5))
        if piece is None or self._flights.has_again:
            return
        if not piece.count:
            self._next_piece()
            return
        if piece.rows is None:  # QoS 0: written is all that there is to know
            if not link.is_full:
                link.send(piece.data)
                self.acknowledged += piece.count
                self._position = self._feed.position()
                self._next_piece()
                self._save_soon()
            return
        while self._row < piece.count:
            room = min(self._flights.room(self._window), piece.count - self._row)
            if room <= 0 or link.is_full:
                return
            link.send(self._flights.send(piece, self._row, room))
            self._row += room
        self._next_piece()

    def _next_piece(self) -> None:
        self._piece = None
        if self._feed is not None:
            self._feed.pull()

    # Acknowledgements

    def _settled(self, count: int) -> None:
        """So many messages have ended, in order."""
        if count:
            self.acknowledged += count
            self._save_soon()
            if not self._flights:
                self._on_settled()

    def _place(self) -> str:
        """Behind everything that has ended."""
        if self._flights.reached is not None:
            piece, row = self._flights.reached
            return piece.position_at(row)
        return self._position

    def _save_soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SAVE_S, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._save()

    def _save(self) -> None:
        """Keep the place, when it has moved and the last one is safe; and look again in a while."""
        feed = self._feed
        if feed is not None and feed.is_waiting and not self._flights and self._piece is None:
            self._position, self._flights.reached = feed.position(), None
        place = self._place()
        if place != self._saved and not self._is_saving:
            self._is_saving = True
            self._saved = place
            self._notes.put(self._note, place, self._on_saved)
        if self.client.state != "closed" and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._on_time)

    def _on_saved(self) -> None:
        self._is_saving = False

    # What goes wrong

    def _close_feed(self) -> None:
        if self._feed is not None:
            self._feed.close()
            self._feed = None
        self._piece = None

    def _on_gap(self, gap: Gap) -> None:
        self.gaps += 1
        self.lost += gap.lost or 0
        fields = {"name": self.name, "reason": gap.reason, "lost": "unknown" if gap.lost is None else gap.lost}
        log.error("records were gone before they were sent", extra={"fields": fields})

    def _drop(self, reason: str, count: int) -> None:
        if not self.dropped[reason]:
            fields = {"name": self.name, "reason": reason}
            log.warning("a message was not taken; more of them are counted", extra={"fields": fields})
        self.dropped[reason] += count

    # What is shown of it

    @property
    def in_flight(self) -> int:
        """Messages sent and not acknowledged."""
        return len(self._flights)

    @property
    def behind(self) -> int | None:
        """Records of its streams behind its place, whether they match or not; None: not known yet."""
        try:
            positions = Cursor.parse(self._place()).position_by_stream
        except CursorInvalid:
            return None
        present = self._replays.hub.offsets
        return sum(
            distance(position.offset_by_partition, present[name])
            for name, position in positions.items()
            if name in present
        )

    def describe(self) -> dict[str, object]:
        """As `/api/v1/system` shows it."""
        return {
            **self.client.describe(),
            "topics": list(self.table.topics),
            "acknowledged": self.acknowledged,
            "in_flight": self.in_flight,
            "behind": self.behind,
            "gaps": self.gaps,
            "lost": self.lost,
            "dropped": dict(self.dropped),
        }
