"""KeptSubscriber: a client with a kept session that does what MQTT asks of a receiver, over connections and kills.

What it has received is its own state, as on a device: QoS 2 messages by packet id until PUBREL (MQTT 5 §4.3.3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tests.support import mqtt_wire as wire
from tests.support.mqtt_client import ConnectionEnded, RawClient

EXPIRY_S = 3_600


class KeptSubscriber:
    """One client id; `connect` as often as needed."""

    def __init__(self, port: int, client_id: str, version: int) -> None:
        self.client_id = client_id
        self.version = version
        self.received: list[tuple[str, bytes, int]] = []
        """Topic, payload and QoS, in the order of coming; a QoS 2 message once for each time that it was new."""
        self.flags: Counter[str] = Counter()
        self._port = port
        self._unreleased: set[int] = set()
        self._client: RawClient | None = None

    def connect(self, *, is_new: bool = False) -> RawClient:
        """Open a connection; the session must be there unless `is_new`."""
        client = self._client = RawClient(self._port, self.version)
        kept: wire.Properties | None = {wire.SESSION_EXPIRY: EXPIRY_S} if self.version == wire.V5 else None
        connack = client.connect(self.client_id, clean=False, properties=kept)
        assert connack.session_present is not is_new, f"{self.client_id}: session present {connack.session_present}"
        return client

    def close(self) -> None:
        """Go without a word."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def take(self, packet: wire.Packet, *, answers: bool = True) -> None:
        """Take one packet of the server, and answer it."""
        client = self._client
        assert client is not None
        if packet.packet_type == wire.PUBREL:
            self._unreleased.discard(packet.packet_id)
            if answers:
                client.send(wire.acknowledgement(wire.PUBCOMP, packet.packet_id))
            return
        assert packet.packet_type == wire.PUBLISH, packet
        self.flags["dup"] += packet.dup
        if packet.qos == 2 and packet.packet_id in self._unreleased:
            self.flags["repeated"] += 1
        else:
            self.received.append((packet.topic, packet.payload, packet.qos))
        if packet.qos == 2:
            self._unreleased.add(packet.packet_id)
        if answers and packet.qos:
            kind = wire.PUBACK if packet.qos == 1 else wire.PUBREC
            client.send(wire.acknowledgement(kind, packet.packet_id))

    def read_until_the_end(self, answered: int | None = None) -> None:
        """Read until the connection ends; after `answered` packets nothing is acknowledged any more."""
        client = self._client
        assert client is not None
        count = 0
        try:
            while True:
                packet = client.next_packet()
                self.take(packet, answers=answered is None or count < answered)
                count += 1
        except (ConnectionEnded, OSError):
            self.close()

    def drain(self, is_enough: Callable[[], bool]) -> None:
        """Read and answer until enough has come, and then what comes before a ping's answer."""
        client = self._client
        assert client is not None
        while not is_enough():
            self.take(client.next_packet())
        client.send(wire.pingreq())
        while (packet := client.next_packet()).packet_type != wire.PINGRESP:
            self.take(packet)
