"""decode_packet, next_frame and Decoder: the table of wire cases, and what holds for any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.codec.decode import Decoder, decode_packet, next_frame
from broker.codec.encode import encode
from broker.codec.errors import MalformedPacket, MqttError, PacketTooLarge, ProtocolError
from broker.codec.packets import Connect, Packet, Pingreq, Publish
from tests.support.wire_cases import ILLEGAL, LEGAL, WireCase
from tests.unit.codec.strategies import LEVELS, connects, packets_but_connect

LARGEST = 268_435_460


def decoder_at(level: int, packet_bytes_max: int = LARGEST) -> Decoder:
    decoder = Decoder(packet_bytes_max)
    decoder.protocol_level = level
    return decoder


@pytest.mark.parametrize("case", LEGAL, ids=repr)
def test_legal_bytes_are_their_packet(case: WireCase) -> None:
    decoder = decoder_at(case.level)
    assert decoder.feed(case.data) == [case.packet]
    assert decoder.error is None


@pytest.mark.parametrize("case", ILLEGAL, ids=repr)
def test_illegal_bytes_are_their_error(case: WireCase) -> None:
    decoder = decoder_at(case.level)
    assert decoder.feed(case.data) == []
    assert type(decoder.error) is case.error


@pytest.mark.parametrize("case", LEGAL, ids=repr)
def test_no_legal_body_may_be_cut_and_end_in_anything_but_an_mqtt_error(case: WireCase) -> None:
    """A lying length is malformed, never an IndexError."""
    frame = next_frame(case.data, 0, LARGEST)
    assert frame is not None
    first_byte, body_start, end = frame
    for cut in range(body_start, end):
        try:
            decode_packet(first_byte, case.data[body_start:cut], case.level)
        except MqttError:
            continue


def test_connect_sets_the_level_of_what_follows() -> None:
    decoder = Decoder(LARGEST)
    publish = Publish("a", b"x")
    packets = decoder.feed(encode(Connect("c", 5), 5) + encode(publish, 5))
    assert packets == [Connect("c", 5), publish]
    assert decoder.protocol_level == 5


def test_a_packet_before_connect_is_a_protocol_error() -> None:
    for data in (b"\xc0\x00", b"\x30\x03\x00\x01a"):
        decoder = Decoder(LARGEST)
        assert decoder.feed(data) == []
        assert isinstance(decoder.error, ProtocolError)


def test_packets_before_a_bad_one_are_returned_and_nothing_after_it() -> None:
    decoder = decoder_at(4)
    assert decoder.feed(b"\xc0\x00" + b"\xc1\x00" + b"\xc0\x00") == [Pingreq()]
    assert isinstance(decoder.error, MalformedPacket)
    assert decoder.feed(b"\xc0\x00") == []


def test_a_packet_too_large_is_refused_by_its_header_alone() -> None:
    decoder = decoder_at(4, 1_000)
    assert decoder.feed(b"\x30\xe6\x07") == []
    assert isinstance(decoder.error, PacketTooLarge)


def test_the_largest_packet_is_taken() -> None:
    """Maximum Packet Size counts the fixed header (MQTT 5 §3.1.2.11.4)."""
    decoder = decoder_at(4, 1_000)
    packet = Publish("a", bytes(1_000 - 6))
    data = encode(packet, 4)
    assert len(data) == 1_000
    assert decoder.feed(data) == [packet]


def test_a_remaining_length_of_five_bytes_is_malformed() -> None:
    decoder = decoder_at(4)
    assert decoder.feed(b"\x30\xff\xff\xff\xff") == []
    assert isinstance(decoder.error, MalformedPacket)


def test_next_frame_waits_for_the_rest() -> None:
    data = encode(Publish("a", bytes(200)), 4)
    assert all(next_frame(data[:size], 0, LARGEST) is None for size in range(len(data)))
    assert next_frame(b"\0" + data + b"\0", 1, LARGEST) == (0x30, 4, 1 + len(data))


def test_an_unfinished_packet_never_keeps_more_than_the_limit() -> None:
    decoder = decoder_at(4, 500)
    for byte in encode(Publish("a", bytes(400)), 4)[:-1]:
        decoder.feed(bytes((byte,)))
        assert decoder.pending_bytes <= 500
    assert decoder.feed(b"\0") == [Publish("a", bytes(400))]
    assert decoder.pending_bytes == 0


@st.composite
def sessions(draw: st.DrawFn) -> list[Packet]:
    level = draw(LEVELS)
    return [draw(connects(level)), *draw(st.lists(packets_but_connect(level), max_size=4))]


@settings(max_examples=60, deadline=None)
@given(packets=sessions(), cuts=st.lists(st.integers(0, 600), max_size=6))
def test_any_split_of_the_bytes_gives_the_same_packets(packets: list[Packet], cuts: list[int]) -> None:
    assert isinstance(packets[0], Connect)
    data = b"".join(encode(packet, packets[0].protocol_level) for packet in packets)
    decoder = Decoder(LARGEST)
    found: list[Packet] = []
    start = 0
    for cut in [*sorted(cuts), len(data)]:
        found += decoder.feed(data[start:cut])
        start = max(start, min(cut, len(data)))
    assert decoder.error is None
    assert found == packets


@settings(max_examples=300, deadline=None)
@given(level=st.sampled_from((0, 3, 4, 5)), first_byte=st.integers(0, 255), body=st.binary(max_size=60))
def test_garbage_raises_nothing_but_mqtt_errors(level: int, first_byte: int, body: bytes) -> None:
    try:
        packet = decode_packet(first_byte, body, level)
    except MqttError:
        return
    assert isinstance(packet, Packet)


@settings(max_examples=150, deadline=None)
@given(
    case=st.sampled_from(LEGAL),
    changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=3),
)
def test_packets_with_bytes_changed_raise_nothing_but_mqtt_errors(
    case: WireCase, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(case.data)
    for index, byte in changes:
        data[index % len(data)] = byte
    decoder = decoder_at(case.level)
    for packet in decoder.feed(bytes(data)):
        assert isinstance(packet, Packet)
