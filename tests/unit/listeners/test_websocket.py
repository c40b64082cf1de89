"""The WebSocket side of MQTT over WebSocket: handshakes, frames, pings. A recorder stands where the MQTT side would.

Real sockets on loopback, an event loop in a thread; it also watches what we use of picows beyond its public interface.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import uvloop
from picows import WSCloseCode

from broker.config import BrokerConfig
from broker.listeners.websocket import WebSocketListener
from broker.listeners.websocket_connection import READ_BYTES_MAX
from broker.metrics import Metrics
from broker.outbox import Transport
from tests.support.conditions import eventually
from tests.support.websocket_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RawWebSocket,
    encode_frame,
)

T = TypeVar("T")


class Recorder:
    """What a `Connection` is told."""

    def __init__(self, transport: Transport, peer: str, transport_kind: str) -> None:
        self.transport = transport
        self.peer = peer
        self.transport_kind = transport_kind
        self.reads: list[bytes] = []
        self.is_lost = False
        self.close_reasons: list[str] = []
        self.is_full = False

    @property
    def data(self) -> bytes:
        return b"".join(self.reads)

    def receive(self, data: bytes, now_ms: int) -> None:
        self.reads.append(data)

    def lost(self) -> None:
        self.is_lost = True

    def close(self, reason: str) -> None:
        self.close_reasons.append(reason)

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False


class Port:
    """A listening WebSocket port in a loop of its own."""

    def __init__(self, loop_factory: Callable[[], asyncio.AbstractEventLoop], **config: Any) -> None:
        self.opened: list[Recorder] = []
        self.loop = loop_factory()
        engine = SimpleNamespace(
            config=BrokerConfig(**config), connections=set(), open=self._open, metrics=Metrics(), is_full=self._is_full
        )
        turn: Any = SimpleNamespace(engine=engine, now_ms=lambda: 1, schedule=lambda: None)
        self.engine = engine
        self.listener = WebSocketListener(turn, visit_interval_s=1)
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.listener.open("127.0.0.1", 0), self.loop).result(5)
        self.port: int = self.listener.sockets[0].getsockname()[1]
        # Time is the test's: no beats by themselves.
        self.call(self._stop_beats)

    def _stop_beats(self) -> None:
        assert self.listener._timer is not None
        self.listener._timer.cancel()

    def _is_full(self) -> bool:
        return len(self.engine.connections) >= self.engine.config.connections_max

    def _open(self, transport: Transport, peer: str, transport_kind: str) -> Recorder:
        recorder = Recorder(transport, peer, transport_kind)
        self.opened.append(recorder)
        return recorder

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` in the loop."""

        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(5)

    def beat(self, count: int = 1) -> None:
        for _ in range(count):
            self.call(self.listener.beat)

    def connect(self) -> tuple[RawWebSocket, Recorder]:
        client = RawWebSocket(self.port).open()
        eventually(lambda: bool(self.opened))
        return client, self.opened.pop()

    def close(self) -> None:
        self.call(self.listener.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def port(request: pytest.FixtureRequest) -> Iterator[Port]:
    opened = Port(
        request.param,
        packet_bytes_max=100_000,
        websocket_frame_bytes_max=1_000,
        allowed_origins=("https://iot.example",),
    )
    yield opened
    opened.close()


class TestHandshake:
    def test_mqtt_is_chosen(self, port: Port) -> None:
        """[MQTT-6.0.0-3]"""
        with RawWebSocket(port.port) as client:
            answer = client.handshake(subprotocol="chat, mqttv3.1, mqtt")
            assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, "mqtt")

    def test_it_is_answered_as_it_was_written(self, port: Port) -> None:
        """RFC 6455 §4.2.2: one of the values that the client has sent."""
        with RawWebSocket(port.port) as client:
            answer = client.handshake(subprotocol="chat, MQTT")
            assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, "MQTT")

    def test_mqttv31_is_chosen_when_it_is_all_there_is(self, port: Port) -> None:
        with RawWebSocket(port.port) as client:
            answer = client.handshake(subprotocol="mqttv3.1")
            assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, "mqttv3.1")

    @pytest.mark.parametrize(
        ("status", "request_parts"),
        [
            (400, {"subprotocol": None}),
            (400, {"subprotocol": "chat"}),
            (404, {"path": "/"}),
            (404, {"path": "/mqtt/x"}),
            (426, {"without": ["Upgrade"]}),
            (426, {"without": ["Connection"]}),
            (426, {"headers": [("Upgrade", "h2c")]}),
            (426, {"headers": [("Sec-WebSocket-Version", "8")]}),
            (400, {"without": ["Sec-WebSocket-Key"]}),
            (400, {"headers": [("Sec-WebSocket-Key", "short")]}),
            (403, {"headers": [("Origin", "https://evil.example")]}),
            (403, {"headers": [("Origin", "null")]}),
            (403, {"headers": [("Origin", "http://[")]}),
            (403, {"headers": [("Origin", "https://127.0.0.1.evil.example")]}),
        ],
    )
    def test_is_refused_with_a_status_and_words(self, port: Port, status: int, request_parts: dict[str, Any]) -> None:
        with RawWebSocket(port.port) as client:
            answer = client.handshake(**request_parts)
            assert answer.status == status
            assert answer.body
            assert client.next_frame() is None
        assert not port.opened

    @pytest.mark.parametrize(
        "raw",
        [
            b"POST /mqtt HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /mqtt HTTP/1.0\r\nHost: a\r\n\r\n",
            b"nonsense\r\n\r\n",
            b"GET /mqtt HTTP/1.1\r\nno colon\r\n\r\n",
        ],
    )
    def test_not_an_upgrade_request_is_answered_400(self, port: Port, raw: bytes) -> None:
        with RawWebSocket(port.port) as client:
            assert client.handshake(raw=raw).status == 400

    @pytest.mark.parametrize("origin", ["http://127.0.0.1:8000", "https://iot.example", "HTTPS://IOT.example"])
    def test_own_and_named_origins_may_connect(self, port: Port, origin: str) -> None:
        with RawWebSocket(port.port) as client:
            assert client.handshake(headers=[("Origin", origin)]).status == 101

    def test_firefox_sends_a_list_of_connection_options(self, port: Port) -> None:
        with RawWebSocket(port.port) as client:
            assert client.handshake(headers=[("Connection", "keep-alive, Upgrade")]).status == 101

    def test_a_query_is_allowed(self, port: Port) -> None:
        with RawWebSocket(port.port) as client:
            assert client.handshake(path="/mqtt?access_token=x").status == 101

    def test_request_and_first_frame_may_come_together(self, port: Port) -> None:
        with RawWebSocket(port.port) as client:
            assert client.handshake(raw=client.request() + encode_frame(BINARY, b"\x10")).status == 101
            eventually(lambda: port.opened and port.opened[0].data == b"\x10")

    def test_request_may_come_byte_by_byte(self, port: Port) -> None:
        with RawWebSocket(port.port) as client:
            request = client.request()
            for position in range(len(request) - 1):
                client.socket.sendall(request[position : position + 1])
            assert client.handshake(raw=request[-1:]).status == 101

    def test_too_large_a_request_is_closed(self, port: Port) -> None:
        with RawWebSocket(port.port) as client:
            client.socket.sendall(b"GET /mqtt HTTP/1.1\r\nX: " + b"x" * 17_000)
            with pytest.raises(ConnectionError):
                client.read_answer()

    def test_full_server_says_when_to_come_back(self, port: Port) -> None:
        port.engine.connections = range(port.engine.config.connections_max)
        with RawWebSocket(port.port) as client:
            answer = client.handshake()
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) > 0

    def test_unfinished_handshake_is_ended_after_its_time(self, port: Port) -> None:
        with RawWebSocket(port.port) as client, RawWebSocket(port.port) as finished:
            client.socket.sendall(b"GET /mqtt HTTP/1.1\r\n")
            finished.open()
            eventually(lambda: len(port.listener._handshakes) == 1)
            port.beat(9)
            assert len(port.listener._handshakes) == 1
            port.beat()
            assert client.read_answer().status == 408
            assert client.next_frame() is None
            assert len(port.opened) == 1


class TestFrames:
    def test_packets_and_frames_need_not_be_aligned(self, port: Port) -> None:
        """[MQTT-6.0.0-2]"""
        client, recorder = port.connect()
        with client:
            client.send(b"abc")
            client.send(b"")
            client.send(b"d")
            client.send(b"ef" * 200)
            client.send(b"gh" * 33_000)
            eventually(lambda: recorder.data == b"abcd" + b"ef" * 200 + b"gh" * 33_000)

    def test_frames_of_one_read_are_one_receive(self, port: Port) -> None:
        client, recorder = port.connect()
        with client:
            client.socket.sendall(b"".join(encode_frame(BINARY, bytes((number,))) for number in range(100)))
            eventually(lambda: recorder.data == bytes(range(100)))
            assert len(recorder.reads) < 5

    def test_a_ping_at_the_end_of_a_read_holds_nothing_back(self, port: Port) -> None:
        client, recorder = port.connect()
        with client:
            client.socket.sendall(encode_frame(BINARY, b"abc") + encode_frame(PING, b"?"))
            eventually(lambda: recorder.data == b"abc")
            found = client.next_frame()
            assert found is not None
            assert (found.opcode, found.payload) == (PONG, b"?")

    def test_fragments_of_a_message_come_as_bytes(self, port: Port) -> None:
        client, recorder = port.connect()
        with client:
            client.send(b"a", fin=False)
            client.send(b"", CONTINUATION, fin=False)
            client.send(b"?", PING)
            client.send(b"b", CONTINUATION, fin=False)
            client.send(b"c", CONTINUATION)
            client.send(b"d")
            eventually(lambda: recorder.data == b"abcd")

    def test_text_is_refused(self, port: Port) -> None:
        """[MQTT-6.0.0-1]"""
        client, recorder = port.connect()
        with client:
            client.socket.sendall(encode_frame(BINARY, b"before") + encode_frame(TEXT, b"text"))
            client.expect_close(1003)
        eventually(lambda: recorder.is_lost)
        assert recorder.data == b"before"
        assert recorder.close_reasons == ["protocol_error"]

    @pytest.mark.parametrize(
        ("code", "frames"),
        [
            (1002, [encode_frame(CONTINUATION, b"x")]),
            (1002, [encode_frame(BINARY, b"x", fin=False), encode_frame(BINARY, b"y")]),
            (1002, [encode_frame(BINARY, b"x", is_masked=False)]),
            (1002, [encode_frame(BINARY, b"x", rsv=4)]),
            (1002, [encode_frame(3, b"x")]),
            (1002, [encode_frame(PING, b"x", fin=False)]),
            (1002, [encode_frame(PING, b"x" * 126)]),
            (1009, [encode_frame(BINARY, b"x" * 100_006)[:20]]),
        ],
    )
    def test_wrong_frames_close_with_a_code(self, port: Port, code: int, frames: list[bytes]) -> None:
        client, recorder = port.connect()
        with client:
            client.socket.sendall(b"".join(frames))
            client.expect_close(code)
        eventually(lambda: recorder.is_lost)

    def test_the_largest_packet_fits(self, port: Port) -> None:
        client, recorder = port.connect()
        with client:
            client.send(b"x" * 100_005)
            eventually(lambda: len(recorder.data) == 100_005)

    def test_nothing_more_is_read_after_a_frame_that_is_too_large(self, port: Port) -> None:
        client, recorder = port.connect()
        client.socket.settimeout(5)
        with client, pytest.raises(OSError):  # noqa: PT011, PT012  # reset or broken pipe, whichever comes first
            client.socket.sendall(encode_frame(BINARY, b"x" * 50_000_000))
            while True:
                client.socket.sendall(b"x" * 65_536)
        eventually(lambda: recorder.is_lost)
        assert not recorder.data

    @pytest.mark.parametrize(
        ("payload", "answer"),
        [(b"\x03\xe8", 1000), (b"\x03\xe9bye", 1001), (b"", 1000), (b"\x0f\xa0", 1000), (b"\x03\xee", 1000)],
    )
    def test_close_is_answered(self, port: Port, payload: bytes, answer: int) -> None:
        """With its own code where that has a name; of others nothing is kept."""
        codes = len(WSCloseCode._value2member_map_)
        client, recorder = port.connect()
        with client:
            client.socket.sendall(encode_frame(BINARY, b"last") + encode_frame(CLOSE, payload))
            found = client.next_frame()
            assert found is not None
            assert (found.opcode, found.close_code) == (CLOSE, answer)
            assert client.next_frame() is None
        eventually(lambda: recorder.is_lost)
        assert recorder.data == b"last"
        assert len(WSCloseCode._value2member_map_) == codes

    def test_lost_peer_is_told(self, port: Port) -> None:
        client, recorder = port.connect()
        client.close()
        eventually(lambda: recorder.is_lost)
        assert port.call(lambda: port.listener.open_connections) == 0


class TestTransport:
    def test_one_write_is_one_frame(self, port: Port) -> None:
        client, recorder = port.connect()
        with client:
            for size in (1, 125, 126, 8_192, 8_193, 65_535, 65_536, 300_000):
                data = bytes((size & 0xFF,)) * size
                port.call(lambda data=data: recorder.transport.write(data))  # type: ignore[misc]
                found = client.next_frame()
                assert found is not None
                assert (found.opcode, found.payload) == (BINARY, data)

    def test_frames_stay_whole_when_the_peer_reads_slowly(self, port: Port) -> None:
        """A view of a header that the next frame overwrites would show here."""
        client, recorder = port.connect()

        def write_much() -> None:
            for number in range(400):
                recorder.transport.write(bytes((number & 0xFF,)) * (20_000 + number))
                recorder.transport.write(bytes((number & 0xFF,)))

        with client:
            port.call(write_much)
            assert recorder.is_full
            for number in range(400):
                for size in (20_000 + number, 1):
                    found = client.next_frame()
                    assert found is not None
                    assert (len(found.payload), found.payload[-1]) == (size, number & 0xFF)
            eventually(lambda: not recorder.is_full)

    def test_close_waits_for_the_peers_answer(self, port: Port) -> None:
        client, recorder = port.connect()
        with client:
            port.call(recorder.transport.close)
            client.send(b"too late")
            client.expect_close(1000)
        eventually(lambda: recorder.is_lost)
        assert not recorder.data

    def test_abort_does_not(self, port: Port) -> None:
        client, recorder = port.connect()
        with client:
            port.call(recorder.transport.abort)
            assert client.next_frame() is None
        eventually(lambda: recorder.is_lost)

    def test_writing_after_the_end_does_nothing(self, port: Port) -> None:
        client, recorder = port.connect()
        client.close()
        eventually(lambda: recorder.is_lost)
        for call in (
            lambda: recorder.transport.write(b"x"),
            lambda: recorder.transport.write(b"x" * 10_000),
            recorder.transport.pause_reading,
            recorder.transport.resume_reading,
            recorder.transport.close,
            recorder.transport.abort,
        ):
            port.call(call)

    def test_paused_reading_takes_nothing_more(self, port: Port) -> None:
        client, recorder = port.connect()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        with client:
            port.call(recorder.transport.pause_reading)
            client.send(b"x" * 1000)
            port.beat(5)
            assert not recorder.is_lost  # a paused peer is not taken for dead
            assert not recorder.data
            port.call(recorder.transport.resume_reading)
            eventually(lambda: len(recorder.data) == 1000)


class TestLiveness:
    def test_pings_come_and_answers_keep_it_open(self, port: Port) -> None:
        client, recorder = port.connect()
        with client:
            for _ in range(5):
                port.beat()
                found = client.next_frame()
                assert found is not None
                assert found.opcode == PING
                heard = port.opened, recorder
                client.send(found.payload, PONG)
                eventually(lambda: all(one.is_heard for one in port.listener._bucket_of), what=str(heard))
            assert not recorder.is_lost

    def test_an_unmasked_pong_to_our_ping_is_taken(self, port: Port) -> None:
        """paho-mqtt sends such, against RFC 6455 §5.3; alone, or in one write with what comes next."""
        client, recorder = port.connect()
        with client:
            for extra in (b"", encode_frame(BINARY, b"next"), encode_frame(BINARY, b"!")):
                port.beat(2 if recorder.data else 1)
                found = client.next_frame()
                assert found is not None
                assert found.opcode == PING
                client.socket.sendall(b"\x8a\x00" + extra)
                eventually(lambda: all(one.is_heard for one in port.listener._bucket_of))
            eventually(lambda: recorder.data == b"next!")
            assert not recorder.is_lost

    def test_who_has_sent_mqtt_is_not_pinged(self, port: Port) -> None:
        """A busy paho-mqtt would answer in the middle of what it sends, where its unmasked pong cannot be told."""
        client, recorder = port.connect()
        with client:
            for number in range(1, 4):
                client.send(b"x")
                eventually(lambda: len(recorder.data) == number)  # noqa: B023
                port.beat()
            client.send(b"?", PING)
            found = client.next_frame()
            assert found is not None
            assert found.opcode == PONG  # and no ping before it
            port.beat(2)
            found = client.next_frame()
            assert found is not None
            assert found.opcode == PING
            assert not recorder.is_lost

    def test_an_unmasked_pong_that_nobody_asked_for_is_refused(self, port: Port) -> None:
        """RFC 6455 §5.1."""
        client, recorder = port.connect()
        with client:
            client.socket.sendall(b"\x8a\x00")
            eventually(lambda: recorder.is_lost)

    def test_a_silent_peer_is_cut_after_two_intervals(self, port: Port) -> None:
        client, recorder = port.connect()
        with client:
            port.beat(2)
            assert not recorder.is_lost
            port.beat(1)
            eventually(lambda: recorder.is_lost)

    def test_bytes_of_an_unfinished_frame_are_signs_of_life(self, port: Port) -> None:
        client, recorder = port.connect()
        with client:
            frame = encode_frame(BINARY, b"slow upload")
            for position in range(len(frame)):
                client.socket.sendall(frame[position : position + 1])
                eventually(lambda: all(one.is_heard for one in port.listener._bucket_of))
                port.beat()
            eventually(lambda: recorder.data == b"slow upload")


def test_reads_stay_bounded_when_a_peer_sends_much(port: Port) -> None:
    """picows' buffer would double with each read that fills it."""
    client, recorder = port.connect()
    with client:
        frame = encode_frame(BINARY, b"x" * 1_000)
        client.socket.sendall(frame * 20_000)
        eventually(lambda: len(recorder.data) == 20_000_000, timeout_s=20)
        assert max(len(read) for read in recorder.reads) <= READ_BYTES_MAX + 1_000
