"""encode: the table of wire cases, round trips, the ready tables, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from broker.codec.decode import decode_packet, next_frame
from broker.codec.encode import (
    PACKET_IDS,
    PUBACK_STREAM,
    PUBACKS,
    PUBCOMP_STREAM,
    PUBREC_STREAM,
    PUBREL_STREAM,
    encode,
    encode_publish_head,
    encode_remaining_length,
)
from broker.codec.packets import (
    Auth,
    Connect,
    Packet,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Subscription,
    Will,
)
from tests.support.wire_cases import LEGAL, WireCase, properties
from tests.unit.codec.strategies import packets_with_level


@pytest.mark.parametrize("case", [case for case in LEGAL if case.is_canonical], ids=repr)
def test_a_packet_is_its_bytes(case: WireCase) -> None:
    assert case.packet is not None
    assert encode(case.packet, case.level) == case.data


@settings(max_examples=250, deadline=None)
@given(packets_with_level())
def test_decode_undoes_encode(level_and_packet: tuple[int, Packet]) -> None:
    level, packet = level_and_packet
    data = encode(packet, level)
    frame = next_frame(data, 0, len(data))
    assert frame is not None
    first_byte, body_start, end = frame
    assert end == len(data)
    assert decode_packet(first_byte, data[body_start:], level) == packet


@pytest.mark.parametrize("packet_id", [1, 255, 256, 65_535])
def test_the_ready_tables_hold_what_the_functions_make(packet_id: int) -> None:
    place = slice(4 * packet_id, 4 * packet_id + 4)
    for level in (4, 5):
        assert PUBACKS[packet_id] == PUBACK_STREAM[place] == encode(Puback(packet_id), level)
        assert PUBREC_STREAM[place] == encode(Pubrec(packet_id), level)
        assert PUBREL_STREAM[place] == encode(Pubrel(packet_id), level)
        assert PUBCOMP_STREAM[place] == encode(Pubcomp(packet_id), level)
    assert PACKET_IDS[packet_id] == packet_id.to_bytes(2, "big")


@pytest.mark.parametrize("length", [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455])
def test_a_head_says_the_length(length: int) -> None:
    head = encode_publish_head(0x30, length)
    assert head == b"\x30" + encode_remaining_length(length)
    assert next_frame(head, 0, 300_000_000) == ((0x30, len(head), len(head)) if length == 0 else None)


@pytest.mark.parametrize(
    ("packet", "level"),
    [
        (Puback(0), 4),
        (Puback(65_536), 4),
        (Publish("a", qos=1), 4),
        (Publish("a\0"), 4),
        (Publish("\ud800"), 4),
        (Publish("a" * 65_536), 4),
        (Publish("a", properties=properties(receive_maximum=1)), 5),
        (Publish("a", properties=properties(topic_alias=65_536)), 5),
        (Subscribe(0, [Subscription("a")]), 4),
        (Auth(), 4),
        (Will("a"), 4),
    ],
    ids=repr,
)
def test_what_no_peer_may_be_sent_is_refused(packet: Packet, level: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the class is the contract, UnicodeEncodeError is one of it
        encode(packet, level)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Connect("c", username="u", password=b"secret"))
    assert "secret" not in repr([Connect("c", password=b"secret")])


def test_packets_compare_by_type_and_value() -> None:
    assert Puback(1) == Puback(1)
    assert Puback(1) != Puback(2)
    assert Puback(1) != Pubrec(1)
    assert repr(Puback(1)) == "Puback(packet_id=1, reason_code=0, properties=None)"
