"""MqttSource: takes the messages of a broker that people already run into the streams, by the same intake as devices'.

It is a client with a kept session. A message is acknowledged to that broker once it is committed here; until then that
broker keeps it, and repeats it after whatever ends the connection, this process or that broker. QoS 2 is taken exactly
once: packet id and record commit in one transaction, and a repeat of the id is answered and not stored again. A log
that cannot follow stops the reading, so that what waits here is bounded.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from typing import TYPE_CHECKING, Protocol

from bridge.remote.client import RemoteClient
from bridge.remote.link import LinkFailed
from bridge.remote.mark import MARK
from broker.codec.encode import encode_subscribe, encode_unsubscribe
from broker.codec.errors import ProtocolError
from broker.codec.packets import Publish, Pubrel, Suback, Subscribe, Subscription, Unsuback, Unsubscribe
from broker.codec.reason_codes import reason_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.config_remote import IngestTable
    from bridge.remote.link import Link
    from broker.codec.packets import Connack, Packet
    from broker.inlet import Inlet
    from broker.server import Broker

log = logging.getLogger("headrace.ingest")

INGEST_CLIENT_ID = "$ingest/"
"""What the client id of ingested records begins with, before the name of the ingest."""
DRAIN_S = 2.0
"""At the end so long is waited for what was read to be stored, so that it need not be repeated."""
TOPIC_BYTES_MAX = 65_535
SUBSCRIBE_ID, UNSUBSCRIBE_ID = 1, 2
RETAIN_HANDLING = {"keep": 1, "plain": 1, "skip": 2}
"""MQTT 5 §3.8.3.1: 1: retained messages come with a subscription that is new; 2: not at all."""
EXPECTED = ("retained", "own")
"""Reasons to take no message that need no words: it was asked for."""


class Texts(Protocol):
    """Where small texts outlive the process (`bridge.streams.notes.Notes`)."""

    def get(self, name: str) -> str | None:
        """The text; None when there is none."""

    def put(self, name: str, text: str) -> None:
        """Keep it."""


class MqttSource:
    """One `[[ingest]]`. The names of its methods are those of `LinkUser` and `InletOwner`."""

    def __init__(
        self, table: IngestTable, client_id: str, broker: Broker, notes: Texts, *, mark: str, packet_bytes_max: int
    ) -> None:
        """`mark`: what our own egresses put into messages that would come back here (`bridge.remote.mark`)."""
        self.table = table
        self.name = table.name
        self.bytes_received = 0
        self.stalls = 0
        """How often a log that failed too long ended the connection."""
        self.pauses = 0
        """How often reading was paused."""
        self.dropped: Counter[str] = Counter()
        """Messages acknowledged and not taken, by reason."""
        self.refused_filters: dict[str, str] = {}
        """Filters that the broker has refused, with its reason."""
        self.inlet: Inlet = broker.open_inlet(INGEST_CLIENT_ID + table.name, self)
        self.client = RemoteClient(
            table,
            client_id,
            self,
            log,
            keeps_session=table.session_expiry_s > 0,
            session_expiry_s=table.session_expiry_s,
            receive_maximum=table.receive_maximum,
            packet_bytes_max=packet_bytes_max,
        )
        self._turn = broker.turn
        self._notes = notes
        self._packet_bytes_max = packet_bytes_max
        self._link: Link | None = None
        self._pauses: set[str] = set()
        """Why reading is paused at the moment."""
        self._takes_as_it_is = not table.prefix and not table.remove_prefix
        self._mark = (MARK, mark)
        self._note = f"ingest.{table.name}"
        self._on_settled: Callable[[], None] = lambda: None

    # Life

    def start(self) -> None:
        """Connect, and stay connected."""
        self.client.start()

    async def close(self) -> None:
        """Read no more, wait a moment for what was read to be stored and acknowledged, and disconnect."""
        if self._link is not None:
            self._pause("closing")
            if self.inlet.unstored:
                settled = asyncio.Event()
                self._on_settled = settled.set
                try:
                    await asyncio.wait_for(settled.wait(), DRAIN_S)
                except TimeoutError:
                    log.info("%s: %d messages were not stored in time", self.name, self.inlet.unstored)
        await self.client.close()

    # bridge.remote.link.LinkUser

    def opened(self, link: Link, connack: Connack) -> None:
        """Subscribe; where the session is there, the filters are there too, unless ours have changed since."""
        self._link = link
        if self._pauses:
            link.pause_reading()
        self.inlet.begin(connack.session_present)
        table = self.table
        wanted = list(table.subscribed)
        options = {"filters": wanted, "qos": table.qos, "retained": table.retained}
        known = json.loads(self._notes.get(self._note) or "{}") if connack.session_present else {}
        if known == options:
            return
        gone = [each for each in known.get("filters", ()) if each not in wanted]
        if gone:
            link.send(encode_unsubscribe(Unsubscribe(UNSUBSCRIBE_ID, gone), link.level))
        subscriptions = [
            Subscription(
                topic_filter,
                table.qos,
                retain_as_published=table.retained == "keep",
                retain_handling=RETAIN_HANDLING[table.retained],
            )
            for topic_filter in wanted
        ]
        link.send(encode_subscribe(Subscribe(SUBSCRIBE_ID, subscriptions), link.level))

    def closed(self) -> None:
        """Whatever was not acknowledged is repeated."""
        self._link = None
        self._pauses.discard("unstored")  # what waits for the log stays: it has not recovered
        self.inlet.end()

    def receive_run(self, data: bytes, position: int) -> int:
        """Plain publishes under their own topics are taken as they stand in the read."""
        link = self._link
        if link is None or not self._takes_as_it_is:
            return position
        reached = self.inlet.take_run(
            data, position, is_v5=link.is_v5, packet_bytes_max=self._packet_bytes_max, now_ms=self._turn.now_ms()
        )
        if reached > position:
            self.bytes_received += reached - position
            self._taken()
        return reached

    def receive(self, packet: Packet) -> None:
        """Any other packet. Raises: MqttError"""
        link = self._link
        if link is None:
            return
        if isinstance(packet, Publish):
            self._receive_publish(link, packet)
        elif isinstance(packet, Pubrel):
            self.inlet.release(packet.packet_id, link.level)
            self._turn.schedule()
        elif isinstance(packet, Suback):
            self._subscribed(packet)
        elif not isinstance(packet, Unsuback):
            raise ProtocolError(f"{type(packet).__name__.upper()} for something that was not sent")

    def receive_too_large(self, first_byte: int, packet_id: int, size: int) -> None:
        """A 3.1.1 broker cannot be told how much we take: acknowledged and dropped, or it would come for ever."""
        self._drop("too_large", f"a message of {size} bytes")
        self.inlet.drop(Publish("", qos=first_byte >> 1 & 3, packet_id=packet_id))

    def has_room(self) -> None:
        """Acknowledgements need no room of ours."""

    def _receive_publish(self, link: Link, packet: Publish) -> None:
        if not packet.topic_name:
            raise ProtocolError("a topic alias, though none was allowed")
        self.bytes_received += len(packet.payload) + len(packet.topic_name)
        reason = self._change(packet)
        if reason is not None:
            self.inlet.drop(packet)
        else:
            reason = self.inlet.take(packet, is_v5=link.is_v5, now_ms=self._turn.now_ms())
        if reason is not None:
            self._drop(reason, packet.topic_name)
        self._taken()

    def _change(self, packet: Publish) -> str | None:
        """Give a message its topic here and its RETAIN; returns why it is not wanted, or None."""
        table = self.table
        if packet.properties is not None and self._mark in packet.properties.user_properties:
            return "own"
        if packet.retain and table.retained != "keep":
            if table.retained == "skip":
                return "retained"
            packet.retain = False
        if not self._takes_as_it_is:
            if not packet.topic_name.startswith(table.remove_prefix):
                return "bad_topic"
            packet.topic_name = table.prefix + packet.topic_name[len(table.remove_prefix) :]
            if not packet.topic_name or len(packet.topic_name.encode()) > TOPIC_BYTES_MAX:
                return "bad_topic"
        return None

    def _taken(self) -> None:
        self._turn.schedule()
        if self.inlet.unstored > self.table.receive_maximum:
            self._pause("unstored")  # 3.1.1 has no Receive Maximum, and what came by the last connection may still wait

    def _drop(self, reason: str, what: str) -> None:
        if not self.dropped[reason] and reason not in EXPECTED:
            fields = {"name": self.name, "reason": reason, "what": what}
            log.warning("a message was not taken; more of them are counted", extra={"fields": fields})
        self.dropped[reason] += 1

    def _subscribed(self, packet: Suback) -> None:
        wanted = self.table.subscribed
        self.refused_filters = {
            topic_filter: reason_name(code)
            for topic_filter, code in zip(wanted, packet.reason_codes, strict=False)
            if code >= 0x80
        }
        for topic_filter, reason in self.refused_filters.items():
            fields = {"name": self.name, "filter": topic_filter, "why": reason}
            log.error("the broker refuses a filter", extra={"fields": fields})
        if not self.refused_filters:
            options = {"filters": list(wanted), "qos": self.table.qos, "retained": self.table.retained}
            self._notes.put(self._note, json.dumps(options))

    # broker.inlet.InletOwner

    def answer(self, data: bytes) -> None:
        """Acknowledgements leave with the turn."""
        if self._link is not None:
            self._link.send(data)
        if "unstored" in self._pauses and self.inlet.unstored <= self.table.receive_maximum // 2:
            self._resume("unstored")
        if not self.inlet.unstored:
            self._on_settled()

    def stalled(self) -> None:
        """Come back later: what is not acknowledged is repeated then."""
        if self._link is not None:
            self.stalls += 1
            self._link.abort(LinkFailed("the log has not taken its messages for too long"))

    def pause_reading(self) -> None:
        """The log cannot follow."""
        self._pause("log")

    def resume_reading(self) -> None:
        """It can again."""
        self._resume("log")

    def _pause(self, reason: str) -> None:
        if not self._pauses:
            self.pauses += 1
        self._pauses.add(reason)
        if self._link is not None:
            self._link.pause_reading()

    def _resume(self, reason: str) -> None:
        self._pauses.discard(reason)
        if not self._pauses and self._link is not None:
            self._link.resume_reading()

    # What is shown of it

    def describe(self) -> dict[str, object]:
        """As `/api/v1/system` shows it."""
        return {
            **self.client.describe(),
            "topics": list(self.table.subscribed),
            "received": self.inlet.received,
            "unstored": self.inlet.unstored,
            "repeated": self.inlet.repeated,
            "dropped": dict(self.dropped),
            "refused_filters": self.refused_filters,
        }
