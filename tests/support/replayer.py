"""Replayer: a subscriber of a replay with a kept session, which is cut and comes back."""

from __future__ import annotations

import threading

from tests.support import mqtt_wire as wire
from tests.support.mqtt_client import ConnectionEnded, RawClient

KEPT: wire.Properties = {wire.SESSION_EXPIRY: 3_600}
"""CONNECT properties of a session that is kept."""


class Replayer(threading.Thread):
    """A kept session that comes back whenever it is cut; a number that comes again without DUP is seen twice."""

    def __init__(self, port: int, name: str, qos: int, version: int, client_id: str) -> None:
        super().__init__(daemon=True)
        self.seen: list[int] = []
        """Payloads, which are numbers, in the order in which they came first."""
        self.topics: list[str] = []
        """The topic of each."""
        self.repeats = 0
        self.connections = 0
        self.surprises: list[wire.Packet] = []
        self._arguments = (port, name, qos, version, client_id)
        self._stopped = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._follow()
            except (ConnectionEnded, OSError):
                self._stopped.wait(0.01)

    def _follow(self) -> None:
        port, name, qos, version, client_id = self._arguments
        with RawClient(port, version) as client:
            connack = client.connect(client_id, clean=False, properties=KEPT if version == wire.V5 else None)
            if not connack.session_present:
                client.send(wire.subscribe(1, (name, qos), version=version))
            self.connections += 1
            while not self._stopped.is_set():
                try:
                    packet = client.next_packet(timeout_s=0.2)
                except TimeoutError:
                    continue
                self._take(client, packet)

    def _take(self, client: RawClient, packet: wire.Packet) -> None:
        if packet.packet_type == wire.PUBREL:
            client.send(wire.acknowledgement(wire.PUBCOMP, packet.packet_id))
        elif packet.packet_type == wire.PUBLISH:
            if packet.topic == "$replay/gap":
                self.surprises.append(packet)
                return
            number = int(packet.payload)
            if packet.dup and number in self.seen:
                self.repeats += 1
            else:
                self.seen.append(number)
                self.topics.append(packet.topic)
            answer = wire.PUBACK if packet.qos == 1 else wire.PUBREC
            client.send(wire.acknowledgement(answer, packet.packet_id))
        elif packet.packet_type != wire.SUBACK:
            self.surprises.append(packet)

    def stop(self) -> None:
        self._stopped.set()
        self.join(10)
