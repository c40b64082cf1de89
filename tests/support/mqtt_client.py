"""RawClient: a blocking MQTT client that sends exactly what a test says and shows exactly what came back."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections import deque
from types import TracebackType
from typing import Self

from tests.support import mqtt_wire as wire

TIMEOUT_S = 10.0


class ConnectionEnded(Exception):
    """The server closed the connection while a packet was awaited."""


class RawClient:
    """One connection over TCP. Nothing is answered by itself: tests send their own acknowledgements."""

    def __init__(self, port: int, version: int = wire.V5, timeout_s: float = TIMEOUT_S) -> None:
        self.version = version
        self.timeout_s = timeout_s
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self._next_packet_id = 0
        self._kept_back: deque[wire.Packet] = deque()

    # Sending

    def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self.socket.sendall(data)

    def packet_id(self) -> int:
        """A fresh one."""
        self._next_packet_id = self._next_packet_id % 65_535 + 1
        return self._next_packet_id

    def connect(
        self,
        client_id: str = "",
        *,
        clean: bool = True,
        keep_alive: int = 0,
        will: wire.Will | None = None,
        properties: wire.Properties | None = None,
    ) -> wire.Packet:
        """CONNECT and the CONNACK to it, which must be a success."""
        self.send(
            wire.connect(
                client_id, self.version, clean=clean, keep_alive=keep_alive, will=will, connect_properties=properties
            )
        )
        connack = self.expect(wire.CONNACK)
        assert connack.reason_code == 0, f"refused: {connack}"
        return connack

    def publish(
        self,
        topic: str,
        payload: bytes = b"",
        qos: int = 0,
        *,
        retain: bool = False,
        dup: bool = False,
        packet_id: int | None = None,
        properties: wire.Properties | None = None,
    ) -> int:
        """Send a PUBLISH; returns its packet id (0 for QoS 0)."""
        if packet_id is None:
            packet_id = self.packet_id() if qos else 0
        self.send(
            wire.publish(
                topic,
                payload,
                qos,
                packet_id,
                version=self.version,
                retain=retain,
                dup=dup,
                publish_properties=properties,
            )
        )
        return packet_id

    def publish_acknowledged(self, topic: str, payload: bytes = b"", qos: int = 1, *, retain: bool = False) -> None:
        """A whole QoS 1 or 2 exchange as the sender."""
        packet_id = self.publish(topic, payload, qos, retain=retain)
        answer = self.expect(wire.PUBACK if qos == 1 else wire.PUBREC)
        assert (answer.packet_id, answer.reason_code & 0x80) == (packet_id, 0), answer
        if qos == 2:
            self.send(wire.acknowledgement(wire.PUBREL, packet_id))
            answer = self.expect(wire.PUBCOMP)
            assert answer.packet_id == packet_id, answer

    def subscribe(self, *filters: str | tuple[str, int], properties: wire.Properties | None = None) -> list[int]:
        """SUBSCRIBE; returns the reason codes of its SUBACK. Retained messages may follow."""
        packet_id = self.packet_id()
        self.send(wire.subscribe(packet_id, *filters, version=self.version, subscribe_properties=properties))
        suback = self.expect(wire.SUBACK)
        assert suback.packet_id == packet_id, suback
        return suback.reason_codes

    def unsubscribe(self, *filters: str) -> list[int]:
        """UNSUBSCRIBE; returns the reason codes of its UNSUBACK (none before MQTT 5)."""
        packet_id = self.packet_id()
        self.send(wire.unsubscribe(packet_id, *filters, version=self.version))
        unsuback = self.expect(wire.UNSUBACK)
        assert unsuback.packet_id == packet_id, unsuback
        return unsuback.reason_codes

    # Receiving

    def next_packet(self, timeout_s: float | None = None) -> wire.Packet:
        """The next packet.

        Raises:
            ConnectionEnded: there is none, the server closed.
            TimeoutError: none came.
        """
        if self._kept_back:
            return self._kept_back.popleft()
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        while True:
            found = self._take()
            if found is not None:
                return found
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise TimeoutError("no packet came")
            self.socket.settimeout(remaining_s)
            try:
                data = self._read()
            except ConnectionError as error:
                raise ConnectionEnded(repr(error)) from error
            finally:
                with contextlib.suppress(OSError):
                    self.socket.settimeout(self.timeout_s)
            if not data:
                raise ConnectionEnded("closed by the server")
            self._buffer += data

    def _read(self) -> bytes:
        return self.socket.recv(65_536)

    def _take(self) -> wire.Packet | None:
        buffer = self._buffer
        remaining = shift = 0
        for index in range(1, min(5, len(buffer))):
            remaining |= (buffer[index] & 0x7F) << shift
            shift += 7
            if not buffer[index] & 0x80:
                end = index + 1 + remaining
                if len(buffer) < end:
                    return None
                found = wire.parse(buffer[0], bytes(buffer[index + 1 : end]), self.version)
                del buffer[:end]
                return found
        return None

    def expect(self, packet_type: int) -> wire.Packet:
        """The next packet, which must be of this type."""
        found = self.next_packet()
        assert found.packet_type == packet_type, f"expected packet type {packet_type}, got {found}"
        return found

    def expect_publish(self, topic: str | None = None, payload: bytes | None = None) -> wire.Packet:
        """The next packet, which must be a PUBLISH (of this topic and payload); it is acknowledged."""
        found = self.expect(wire.PUBLISH)
        assert topic is None or found.topic == topic, found
        assert payload is None or found.payload == payload, found
        if found.qos == 1:
            self.send(wire.acknowledgement(wire.PUBACK, found.packet_id))
        elif found.qos == 2:
            self.send(wire.acknowledgement(wire.PUBREC, found.packet_id))
            others: list[wire.Packet] = []
            while (release := self.next_packet()).packet_type != wire.PUBREL:
                others.append(release)
            assert release.packet_id == found.packet_id, release
            self.send(wire.acknowledgement(wire.PUBCOMP, found.packet_id))
            self._kept_back.extend(others)
        return found

    def ping(self) -> None:
        """PINGREQ and its answer: everything sent before has been taken, and nothing else was waiting."""
        self.send(wire.pingreq())
        self.expect(wire.PINGRESP)

    def expect_nothing(self) -> None:
        """The server has sent nothing, and answers: what would have come has had its chance."""
        self.ping()

    def next_packet_or_end(self) -> wire.Packet | None:
        """The next packet; None when the server closed instead."""
        try:
            return self.next_packet()
        except ConnectionEnded:
            return None

    def expect_closed(self, reason_code: int | None = None) -> None:
        """The server closes; in MQTT 5 it says `reason_code` in a DISCONNECT before, when one is given."""
        if reason_code is not None and self.version == wire.V5:
            found = self.expect(wire.DISCONNECT)
            assert found.reason_code == reason_code, f"expected {reason_code:#x}, got {found.reason_code:#x} {found}"
        try:
            found = self.next_packet()
        except ConnectionEnded:
            return
        raise AssertionError(f"expected the end of the connection, got {found}")

    # The end

    def disconnect(self) -> None:
        """DISCONNECT and close."""
        with contextlib.suppress(OSError):
            self.send(wire.disconnect())
        self.close()

    def close(self) -> None:
        """Close without a word, as a lost connection."""
        self.socket.close()

    def reset(self) -> None:
        """Close with RST at once."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
