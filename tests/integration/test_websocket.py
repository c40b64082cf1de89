"""MQTT over WebSocket against the real server: packets in frames, frames in reads, both doors together."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import mqtt_wire as wire
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess
from tests.support.websocket_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    TEXT,
    RawWebSocket,
    WebSocketMqttClient,
    encode_frame,
)


@pytest.fixture(params=["ws_port", "http_port"])
def client(request: pytest.FixtureRequest, shared_server: ServerProcess) -> Iterator[WebSocketMqttClient]:
    """Over each port that speaks it."""
    with WebSocketMqttClient(getattr(shared_server, request.param)) as opened:
        yield opened


def test_several_packets_in_one_frame(client: WebSocketMqttClient) -> None:
    """[MQTT-6.0.0-2]"""
    client.send(
        wire.connect("ws-several")
        + wire.subscribe(1, ("ws/several", 1))
        + wire.publish("ws/several", b"x", 1, 2)
        + wire.pingreq()
    )
    found = [client.next_packet().packet_type for _ in range(5)]
    assert found[0] == wire.CONNACK
    assert sorted(found[1:]) == sorted([wire.SUBACK, wire.PUBLISH, wire.PUBACK, wire.PINGRESP])


def test_the_subprotocol_is_mqtt(shared_server: ServerProcess) -> None:
    """[MQTT-6.0.0-4]"""
    with RawWebSocket(shared_server.ws_port) as opened:
        assert opened.handshake().headers["sec-websocket-protocol"] == "mqtt"


@pytest.mark.parametrize("size", [1, 2, 7])
def test_one_packet_over_several_frames(client: WebSocketMqttClient, size: int) -> None:
    """[MQTT-6.0.0-2]"""
    data = wire.connect(f"ws-split-{size}") + wire.publish("ws/split", b"payload", 1, 9) + wire.pingreq()
    for position in range(0, len(data), size):
        client.send(data[position : position + size])
    found = [client.next_packet().packet_type for _ in range(3)]
    assert found[0] == wire.CONNACK
    assert sorted(found[1:]) == sorted([wire.PUBACK, wire.PINGRESP])


def test_a_packet_in_fragments_of_a_message(client: WebSocketMqttClient) -> None:
    """RFC 6455 §5.4"""
    data = wire.connect("ws-fragments")
    client.websocket.send(data[:3], BINARY, fin=False)
    client.websocket.send(data[3:9], CONTINUATION, fin=False)
    client.websocket.send(data[9:], CONTINUATION)
    assert client.expect(wire.CONNACK).reason_code == 0


def test_both_doors_lead_to_the_same_broker(shared_server: ServerProcess, client: WebSocketMqttClient) -> None:
    client.connect("ws-both")
    client.subscribe(("ws/both/#", 1))
    with RawClient(shared_server.mqtt_port) as other:
        other.connect("tcp-both")
        other.subscribe(("ws/other/#", 2))
        for number in range(200):
            other.publish("ws/both/a", b"%d" % number)
        other.publish_acknowledged("ws/both/a", b"end", 2)
        for number in range(200):
            client.expect_publish("ws/both/a", b"%d" % number)
        client.expect_publish("ws/both/a", b"end")
        client.publish_acknowledged("ws/other/b", b"back", 2)
        other.expect_publish("ws/other/b", b"back")


def test_disconnect_packet_ends_the_websocket_too(client: WebSocketMqttClient) -> None:
    client.connect("ws-end")
    client.send(wire.disconnect())
    client.websocket.expect_close(1000)


def test_last_words_before_the_close_frame_count(shared_server: ServerProcess, client: WebSocketMqttClient) -> None:
    with RawClient(shared_server.mqtt_port) as watcher:
        watcher.connect("ws-watcher")
        watcher.subscribe(("ws/last/#", 1))
        client.connect("ws-last", will=wire.Will("ws/last/will", b"gone", 1))
        client.websocket.socket.sendall(
            encode_frame(BINARY, wire.publish("ws/last/a", b"x") + wire.disconnect()) + encode_frame(CLOSE, b"\x03\xe8")
        )
        watcher.expect_publish("ws/last/a", b"x")
        watcher.expect_nothing()


def test_close_without_disconnect_publishes_the_will(shared_server: ServerProcess, client: WebSocketMqttClient) -> None:
    with RawClient(shared_server.mqtt_port) as watcher:
        watcher.connect("ws-watcher2")
        watcher.subscribe(("ws/will", 1))
        client.connect("ws-will", will=wire.Will("ws/will", b"gone", 1))
        client.websocket.send(b"\x03\xe8", CLOSE)
        watcher.expect_publish("ws/will", b"gone")


def test_text_frame_is_refused(shared_server: ServerProcess) -> None:
    """[MQTT-6.0.0-1]"""
    with RawWebSocket(shared_server.ws_port).open() as websocket:
        websocket.send(b"hello", TEXT)
        websocket.expect_close(1003)


def test_frame_above_its_limit_is_refused(shared_server: ServerProcess) -> None:
    with RawWebSocket(shared_server.ws_port).open() as websocket:
        websocket.socket.sendall(encode_frame(BINARY, b"x" * 17_000_000)[:100])
        websocket.expect_close(1009)


def test_a_frame_may_be_larger_than_a_packet(client: WebSocketMqttClient) -> None:
    """[MQTT-6.0.0-2]"""
    client.connect("ws-large-frame")
    packets = [wire.publish("ws/large", b"x" * 10_000, qos=1, packet_id=number) for number in range(1, 201)]
    client.websocket.send(b"".join(packets), BINARY)
    for number in range(1, 201):
        assert client.expect(wire.PUBACK).packet_id == number


def test_foreign_page_is_refused(shared_server: ServerProcess) -> None:
    with RawWebSocket(shared_server.ws_port) as websocket:
        assert websocket.handshake(headers=[("Origin", "https://evil.example")]).status == 403


def test_page_of_the_dashboard_may_connect(shared_server: ServerProcess) -> None:
    with RawWebSocket(shared_server.ws_port) as websocket:
        assert websocket.handshake(headers=[("Origin", shared_server.http_url)]).status == 101


def test_server_says_goodbye_when_it_stops(server: ServerProcess) -> None:
    with WebSocketMqttClient(server.ws_port) as client:
        client.connect("ws-stop")
        server.process.terminate()
        assert client.expect(wire.DISCONNECT).reason_code == 0x8B
        client.websocket.expect_close(1000)
    assert server.wait() == 0
