"""Bad input ends the connection it came by, with the reason, and nothing else."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

import pytest

from tests.support import mqtt_wire as wire
from tests.support.mqtt_client import ConnectionEnded, RawClient
from tests.support.server import ServerProcess
from tests.support.websocket_client import RawWebSocket, WebSocketMqttClient

BAD: dict[str, tuple[bytes, int | None]] = {
    "second CONNECT": (wire.connect("bad"), 0x82),
    "CONNACK from a client": (wire.packet(wire.CONNACK, b"\0\0\0"), 0x82),
    "QoS 3": (wire.packet(wire.PUBLISH, b"\0\1a\0\1\0", 6), 0x81),
    "five bytes of length": (b"\x30\xff\xff\xff\xff\x01", None),
    "over the packet limit": (b"\x30" + wire.variable_byte_integer(2_000_000), 0x95),
    "topic beyond the packet": (wire.packet(wire.PUBLISH, b"\0\x09a"), 0x81),
    "PUBREL with wrong flags": (wire.packet(wire.PUBREL, b"\0\1", 0), 0x81),
    "bad UTF-8 in a filter": (wire.subscribe(1, "X").replace(b"X", b"\xff"), 0x81),
    "unknown property": (wire.packet(wire.PUBLISH, b"\0\1a\x02\x7f\x00"), 0x81),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("transport", ["tcp", "websocket"])
def test_ends_with_its_reason_and_spares_the_others(shared_server: ServerProcess, kind: str, transport: str) -> None:
    data, reason_code = BAD[kind]
    with RawClient(shared_server.mqtt_port) as other:
        other.connect()
        other.subscribe(("good/#", 1))
        bad = RawClient(shared_server.mqtt_port) if transport == "tcp" else WebSocketMqttClient(shared_server.ws_port)
        with bad:
            bad.connect("bad")
            bad.publish("good/before", b"kept", 1)
            bad.expect(wire.PUBACK)
            bad.send(data)
            bad.expect_closed(reason_code)
        other.expect_publish("good/before", b"kept")
        other.publish_acknowledged("fine", b"x")


def test_noise_never_hurts_the_server(shared_server: ServerProcess) -> None:
    """Random bytes, and valid packets with one byte changed."""
    chance = random.Random(11)
    valid = (
        wire.connect("noise", connect_properties={wire.SESSION_EXPIRY: 0, wire.USER_PROPERTY: [("a", "b")]})
        + wire.subscribe(1, ("noise/#", 1))
        + wire.publish("noise/a", b"x", 1, 2, publish_properties={wire.CONTENT_TYPE: "t"})
        + wire.publish("noise/b", b"y", 2, 3)
        + wire.acknowledgement(wire.PUBREL, 3)
        + wire.unsubscribe(4, "noise/#")
        + wire.pingreq()
    )
    for _ in range(300):
        data = bytearray(valid)
        if chance.random() < 0.2:
            data = bytearray(chance.randbytes(chance.randrange(1, 200)))
        else:
            data[chance.randrange(len(data))] = chance.randrange(256)
        # Its end is what each waits for.
        with contextlib.suppress(ConnectionEnded, OSError), RawClient(shared_server.mqtt_port) as client:
            client.send(bytes(data))
            client.socket.shutdown(socket.SHUT_WR)
            while True:
                client.next_packet()
    with RawClient(shared_server.mqtt_port) as client:
        client.connect()
        client.publish_acknowledged("alive", b"x")
    assert shared_server.is_running
    assert "Traceback" not in shared_server.stderr_text


def test_bytes_before_connect_are_bounded(shared_server: ServerProcess) -> None:
    """A CONNECT that claims 200 MB is refused by its head."""
    with RawClient(shared_server.mqtt_port) as client:
        client.send(b"\x10" + wire.variable_byte_integer(200_000_000) + b"x" * 1000)
        assert client.next_packet_or_end() is None


def test_http_on_the_mqtt_port_is_closed(shared_server: ServerProcess) -> None:
    with RawClient(shared_server.mqtt_port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.next_packet_or_end() is None


@pytest.mark.slow
def test_silence_before_connect_is_ended(tmp_path: Path) -> None:
    """Over both doors."""
    with (
        ServerProcess(tmp_path / "data", "[mqtt]\nconnect_timeout_s = 1\n") as server,
        RawClient(server.mqtt_port, timeout_s=20) as tcp,
        RawWebSocket(server.ws_port, 20) as handshake,
        RawWebSocket(server.ws_port, 20).open() as upgraded,
    ):
        tcp.send(wire.connect("slow")[:5])
        assert tcp.next_packet_or_end() is None
        assert handshake.read_answer().status == 408
        upgraded.expect_close(1000)


def test_nothing_of_a_bad_connection_is_left(shared_server: ServerProcess) -> None:
    """Its client id can be used again at once."""
    for _ in range(20):
        with RawClient(shared_server.mqtt_port) as client:
            client.connect("again")
            client.send(b"\xf0\xff\xff\xff\xff\xff")
            client.expect_closed()
    with RawClient(shared_server.mqtt_port) as client:
        client.connect("again")
        client.ping()
