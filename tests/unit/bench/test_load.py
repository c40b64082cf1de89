"""The load loop against a peer that the test itself plays over a socket pair, and through the real relay."""

from __future__ import annotations

import contextlib
import socket
import time
from functools import partial

import pytest

from devices.bench import load as load_module
from devices.bench.checks import CheckFailed, encode_pubacks
from devices.bench.endpoints import EventReader, ExportReader, Publisher, Subscriber
from devices.bench.frames import EVENT_MARK, PublishBlock, PublishLayout
from devices.bench.load import Load, LoadResult
from devices.bench.mqtt import SCENARIOS, run_ceiling
from devices.bench.rounds import Plan
from devices.bench.sse import SCENARIOS as SSE_SCENARIOS
from devices.bench.sse import run_ceiling as run_sse_ceiling
from devices.bench.wire import PeerFailed

LAYOUT = PublishLayout(qos=1)


def new_publisher(connection: socket.socket, window: int = 10) -> Publisher:
    return Publisher(connection, "publisher 0", PublishBlock(LAYOUT, 50), window=window, is_acked=True)


def acknowledge(theirs: socket.socket, first: int, count: int) -> None:
    block = PublishBlock(LAYOUT, 50)
    assert LAYOUT.packet_id_offset is not None
    data, count = block.stamp(first, count)
    theirs.sendall(encode_pubacks(LAYOUT.field(data, LAYOUT.packet_id_offset, ">u2", 0, count)))


def test_a_publisher_stays_a_window_ahead_of_its_acknowledgements(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    publisher = new_publisher(ours, window=10)
    with contextlib.closing(Load([publisher], [])) as load:
        publisher.pump()
        publisher.pump()
        assert publisher.sent == 10
        acknowledge(theirs, 0, 4)
        load.turn(1)
        assert (publisher.checker.received, publisher.sent) == (4, 14)
        assert len(theirs.recv(65536)) == 14 * LAYOUT.frame_bytes


def test_a_publisher_waits_for_its_slowest_follower(pair: tuple[socket.socket, socket.socket]) -> None:
    publisher = new_publisher(pair[0], window=10)
    received = [10, 3]
    for number in range(2):
        publisher.is_followed_by(partial(received.__getitem__, number))
    publisher.pump()
    assert publisher.sent == 10
    publisher.checker.received = 10
    publisher.pump()
    assert publisher.sent == 13


def test_a_full_socket_is_gone_on_with_later(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    publisher = new_publisher(ours, window=5_000)
    with contextlib.closing(Load([publisher], [])) as load:
        publisher.pump()
        assert publisher.is_blocked
        data = b""
        while len(data) < 5_000 * LAYOUT.frame_bytes:
            load.turn(0)
            data += theirs.recv(65536)
    sequences = LAYOUT.sequence.column(data, 0, 5_000, LAYOUT.frame_bytes)
    assert sequences.tolist() == list(range(5_000))


def test_a_subscriber_acknowledges_whole_frames_and_keeps_the_rest(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    subscriber = Subscriber(ours, "subscriber 0", LAYOUT)
    data = bytes(PublishBlock(LAYOUT, 50).stamp(0, 3)[0])
    cut = 2 * LAYOUT.frame_bytes + 30
    with contextlib.closing(Load([], [subscriber])) as load:
        theirs.sendall(data[:cut])
        load.turn(1)
        assert subscriber.received() == 2
        assert theirs.recv(100) == b"\x40\x02\x00\x01\x40\x02\x00\x02"
        theirs.sendall(data[cut:])
        load.turn(1)
        assert subscriber.received() == 3


def test_topics_are_split_between_subscribers() -> None:
    scenario = SCENARIOS["subscriptions"]
    layout = scenario.layout(Plan())
    filters = [scenario.filters(layout, number) for number in range(scenario.subscribers)]
    assert len({each for of_one in filters for each in of_one}) == 100_000
    assert filters[3][0] == "bench/+/000003"
    assert filters[3][1] == "bench/dev/000103"


def test_what_never_comes_back_fails_the_drain(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module, "DRAIN_TIMEOUT_S", 0.05)
    ours, theirs = pair
    publisher = new_publisher(ours)
    with contextlib.closing(Load([publisher], [])) as load:
        publisher.pump()
        acknowledge(theirs, 0, 9)
        with pytest.raises(CheckFailed, match=r"loss: .* only 9 of 10"):
            load.drain()


def test_a_repeat_after_the_last_message_fails_the_drain(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    publisher = new_publisher(ours)
    with contextlib.closing(Load([publisher], [])) as load:
        publisher.pump()
        acknowledge(theirs, 0, 10)
        acknowledge(theirs, 9, 1)
        with pytest.raises(CheckFailed, match="acknowledgement"):
            load.drain()


def test_a_server_that_closes_fails_the_run(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with contextlib.closing(Load([], [Subscriber(ours, "subscriber 0", LAYOUT)])) as load:
        theirs.close()
        with pytest.raises(PeerFailed, match="closed the connection"):
            load.turn(1)


def chunked(numbers: list[int], events_in_a_chunk: int) -> bytes:
    data = b""
    for start in range(0, len(numbers), events_in_a_chunk):
        chunk = b"".join(
            b'data: {"payload":{' + EVENT_MARK + b"%08d}}\n\n" % number
            for number in numbers[start : start + events_in_a_chunk]
        )
        data += b"%x\r\n" % len(chunk) + chunk + b"\r\n"
    return data


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 17, 1_000])
def test_http_chunks_may_be_cut_anywhere(pair: tuple[socket.socket, socket.socket], piece_bytes: int) -> None:
    ours, theirs = pair
    data = chunked(list(range(40)), 7)
    reader = EventReader(ours, "reader 0", body=data[:5], is_chunked=True)
    with contextlib.closing(Load([], [reader])) as load:
        for start in range(5, len(data), piece_bytes):
            theirs.sendall(data[start : start + piece_bytes])
            load.turn(1)
        assert reader.received() == 40


def test_a_loss_over_a_chunks_border_is_caught(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(CheckFailed, match="loss"):
        EventReader(pair[0], "reader 0", body=chunked([0, 1, 3, 4], 2), is_chunked=True)


def test_the_last_chunk_ends_the_stream(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(PeerFailed, match="ended the stream"):
        EventReader(pair[0], "reader 0", body=chunked([0], 1) + b"0\r\n\r\n", is_chunked=True)


def read(receiver: EventReader, messages: int) -> LoadResult:
    with contextlib.closing(Load([], [receiver])) as load:
        return load.read(messages=messages, seconds=2, server_cpu_s=lambda: 0.0, begun_s=time.perf_counter() - 1)


def test_an_export_is_read_to_its_end(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    reader = ExportReader(ours, "export", body=chunked([0, 1], 1), is_chunked=True)
    theirs.sendall(chunked([2, 3], 2) + b"0\r\n\r\n")
    result = read(reader, 1_000)
    assert (reader.has_ended, result.messages) == (True, 4)


def test_reading_ends_with_the_last_wanted_message_and_counts_from_the_question(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    theirs.sendall(chunked([0, 1, 2], 3))
    result = read(EventReader(ours, "reader 0", is_chunked=True), 3)
    assert result.messages == 3
    assert 1 <= result.seconds < 3


def test_what_the_server_works_with_is_not_counted_as_others(pair: tuple[socket.socket, socket.socket]) -> None:
    spent = iter([0.0, 1e6])
    with contextlib.closing(Load([], [EventReader(pair[0], "reader 0")])) as load:
        result = load.read(messages=0, seconds=0, server_cpu_s=lambda: 0.0, beside_cpu_s=lambda: next(spent))
    assert result.other_cpu_s == 0


@pytest.mark.parametrize(
    "key", ["q0_1_1", "q1_1_1", "q1_1_10", "q2_1_1", "q0_100_1", "q1_v5", "q1_ws", "subscriptions"]
)
def test_the_ceiling_is_measured_through_a_relay(key: str) -> None:
    result = run_ceiling(SCENARIOS[key], Plan(ceiling_s=0.05))
    assert result.messages > 0
    assert result.sent * max(1, SCENARIOS[key].subscribers // SCENARIOS[key].publishers) >= result.messages


def test_the_ceiling_of_sse_is_measured_through_a_relay() -> None:
    assert run_sse_ceiling(SSE_SCENARIOS["sse_100"], Plan(ceiling_s=0.5)).messages > 0
