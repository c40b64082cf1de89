"""The QoS 2 ends of a load against a peer that the test plays: every packet in its turn, or the run fails."""

from __future__ import annotations

import contextlib
import socket

import pytest

from devices.bench.checks import CheckFailed
from devices.bench.exactly_once import ExactlyOncePublisher, ExactlyOnceSubscriber
from devices.bench.frames import PACKET_ID_COUNT, PublishBlock, PublishLayout
from devices.bench.load import Load

LAYOUT = PublishLayout(qos=2)


def packets(kind: int, *packet_ids: int) -> bytes:
    return b"".join(bytes([kind, 2]) + packet_id.to_bytes(2, "big") for packet_id in packet_ids)


def publishes(first: int, count: int) -> bytes:
    return bytes(PublishBlock(LAYOUT, 100).stamp(first, count)[0])


def new_publisher(connection: socket.socket) -> ExactlyOncePublisher:
    return ExactlyOncePublisher(connection, "publisher 0", PublishBlock(LAYOUT, 50), window=10)


def test_a_publisher_releases_what_was_recorded(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    publisher = new_publisher(ours)
    with contextlib.closing(Load([publisher], [])) as load:
        publisher.pump()
        assert len(theirs.recv(65_536)) == 10 * LAYOUT.frame_bytes
        theirs.sendall(packets(0x50, 1, 2, 3) + packets(0x70, 1))
        load.turn(1)
        assert theirs.recv(12) == packets(0x62, 1, 2, 3)
        assert (publisher.checker.received, publisher.sent) == (1, 11)


@pytest.mark.parametrize(
    ("data", "failure"),
    [
        (packets(0x50, 2), "PUBREC 2 came where 1 was due"),
        (packets(0x50, 1, 1), "PUBREC 1 came where 2 was due"),
        (packets(0x70, 1), "PUBCOMP came before PUBREC"),
        (packets(0x50, 1, 2) + packets(0x70, 2), "PUBCOMP 2 came where 1 was due"),
        (packets(0x40, 1), "neither PUBREC nor PUBCOMP"),
    ],
)
def test_an_answer_out_of_turn_fails(pair: tuple[socket.socket, socket.socket], data: bytes, failure: str) -> None:
    ours, theirs = pair
    publisher = new_publisher(ours)
    with contextlib.closing(Load([publisher], [])) as load:
        publisher.pump()
        theirs.sendall(data)
        with pytest.raises(CheckFailed, match=failure):
            load.turn(1)


def test_packet_ids_go_round(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    publisher = new_publisher(ours)
    publisher.checker.received = publisher._recorded = publisher.sent = PACKET_ID_COUNT - 1
    with contextlib.closing(Load([publisher], [])) as load:
        publisher.is_stopped = True
        theirs.sendall(packets(0x50, PACKET_ID_COUNT, 1) + packets(0x70, PACKET_ID_COUNT, 1))
        load.turn(1)
        assert publisher.checker.received == PACKET_ID_COUNT + 1


@pytest.mark.parametrize("piece_bytes", [7, 91, 100_000])
@pytest.mark.parametrize("run", [1, 2, 40])
def test_a_subscriber_answers_each_packet_wherever_it_is_cut(
    pair: tuple[socket.socket, socket.socket], piece_bytes: int, run: int
) -> None:
    ours, theirs = pair
    subscriber = ExactlyOnceSubscriber(ours, "subscriber 0", LAYOUT)
    data = expected = b""
    for first in range(0, 80, run):
        ids = range(first + 1, first + run + 1)
        data += publishes(first, run) + packets(0x62, *ids)
        expected += packets(0x50, *ids) + packets(0x70, *ids)
    with contextlib.closing(Load([], [subscriber])) as load:
        answered = b""
        for start in range(0, len(data), piece_bytes):
            theirs.sendall(data[start : start + piece_bytes])
            load.turn(1)
        while len(answered) < len(expected):
            load.turn(0)
            answered += theirs.recv(65_536)
        assert answered == expected
        assert subscriber.received() == 80


@pytest.mark.parametrize(
    ("data", "failure"),
    [
        (publishes(0, 1) + publishes(0, 1), "repeat: 0 came again where 1 was due"),
        (publishes(0, 20) + publishes(21, 20), "loss: 21 came where 20 was due"),
        (publishes(0, 1) + packets(0x62, 2), "PUBREL came for 0002 where 0001 was due"),
        (publishes(0, 20) + packets(0x62, *range(1, 20), 21), "PUBREL came for"),
        (packets(0x62, 1), "PUBREL came for 0001 where  was due"),
        (b"\x3d" + publishes(0, 1)[1:], "not the PUBLISH that was sent: starts with 0x3d"),
    ],
)
def test_what_a_subscriber_should_not_get_fails(
    pair: tuple[socket.socket, socket.socket], data: bytes, failure: str
) -> None:
    ours, theirs = pair
    with contextlib.closing(Load([], [ExactlyOnceSubscriber(ours, "subscriber 0", LAYOUT)])) as load:
        theirs.sendall(data)
        with pytest.raises(CheckFailed, match=failure):
            load.turn(1)
