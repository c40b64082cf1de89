"""`/mqtt` on the HTTP port of the real server: who may upgrade, and that other requests are answered as ever."""

from __future__ import annotations

import json
from urllib.request import urlopen

import paho.mqtt.client as paho
import pytest

from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually
from tests.support.mqtt_client import RawClient
from tests.support.paho_client import PahoClient
from tests.support.server import ServerProcess
from tests.support.websocket_client import BINARY, RawWebSocket, WebSocketMqttClient, encode_frame


@pytest.fixture
def http_port(shared_server: ServerProcess) -> int:
    return shared_server.http_port


def test_client_that_speaks_before_the_answer_loses_nothing(http_port: int) -> None:
    with RawWebSocket(http_port) as client:
        frames = encode_frame(BINARY, wire.connect("early", wire.V311)) + encode_frame(BINARY, wire.pingreq())
        client.socket.sendall(client.request() + frames)
        assert client.read_answer().status == 101
        answers = b""
        while len(answers) < 6 and (frame := client.next_frame()) is not None:  # one frame or two
            answers += frame.payload
        assert answers == b"\x20\x02\0\0\xd0\0"


def test_head_that_comes_byte_by_byte_is_one(http_port: int) -> None:
    with RawWebSocket(http_port) as client:
        request = client.request("/mqtt?x=1")
        for position in range(0, len(request), 7):
            client.socket.sendall(request[position : position + 7])
        assert client.read_answer().status == 101


def test_connection_that_was_used_for_http_can_upgrade(http_port: int) -> None:
    with RawWebSocket(http_port) as client:
        assert client.handshake(raw=b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").body == b'{"status":"ok"}'
        assert client.handshake().status == 101


@pytest.mark.parametrize(
    ("headers", "subprotocol", "status"),
    [
        ((("Origin", "http://elsewhere.example"),), "mqtt", 403),
        ((("Origin", "http://127.0.0.1:1"),), "mqtt", 101),
        ((), None, 400),
        ((), "soap", 400),
        ((), "soap, mqtt", 101),
        ((("Sec-WebSocket-Version", "12"),), "mqtt", 426),
        ((("X", "y" * 70_000),), "mqtt", 431),
    ],
)
def test_handshakes_are_judged_as_on_the_websocket_port(
    http_port: int, headers: tuple[tuple[str, str], ...], subprotocol: str | None, status: int
) -> None:
    with RawWebSocket(http_port) as client:
        assert client.handshake(subprotocol=subprotocol, headers=headers).status == status


@pytest.mark.parametrize("path", ["/healthz", "/api/v1/session"])
def test_upgrade_of_another_path_is_a_request_like_any(http_port: int, path: str) -> None:
    with RawWebSocket(http_port) as client:
        assert client.handshake(path=path).status == 200


def test_packet_over_the_limit_closes(shared_server: ServerProcess, http_port: int) -> None:
    with RawClient(shared_server.mqtt_port) as bystander, WebSocketMqttClient(http_port) as client:
        bystander.connect("bystander")
        client.connect("too-large")
        client.send(wire.publish("a", b"x" * ((1 << 20) - 5)))
        assert client.next_packet().reason_code == 0x95
        client.websocket.expect_close(1000)
        bystander.send(wire.pingreq())
        bystander.expect(wire.PINGRESP)


def test_paho_connects_to_it(shared_server: ServerProcess) -> None:
    with PahoClient(shared_server, "paho-http", "http", paho.MQTTv311) as client:
        client.subscribe(("on-http/#", 1))
        client.publish("on-http/a", b"x", 1)
        eventually(lambda: client.received == [("on-http/a", b"x", 1, False)])


def test_system_names_the_address(shared_server: ServerProcess) -> None:
    with urlopen(f"{shared_server.http_url}/api/v1/system") as answer:
        listen = json.load(answer)["listen"]
    urls = [each["url"] for each in listen if each["kind"] == "mqtt-ws"]
    assert urls == [shared_server.ws_url, f"ws://127.0.0.1:{shared_server.http_port}/mqtt"]
