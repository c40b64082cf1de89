"""What the load generator sends, byte by byte."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from devices.bench.frames import (
    EVENT_MARK,
    PACKET_ID_COUNT,
    BinarySequence,
    DigitSequence,
    EventBlock,
    PublishBlock,
    PublishLayout,
    encode_connect,
    encode_receive_maximum,
    encode_subscribe,
    encode_variable_byte_integer,
    json_payload,
)


def test_connect_asks_for_a_clean_session_of_3_1_1() -> None:
    assert encode_connect("ab", 60) == b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02ab"


def test_subscribe_carries_one_filter() -> None:
    assert encode_subscribe(1, "a/#", 1) == b"\x82\x08\x00\x01\x00\x03a/#\x01"


@pytest.mark.parametrize(("value", "encoded"), [(0, "00"), (127, "7f"), (128, "8001"), (16_384, "808001")])
def test_variable_byte_integers(value: int, encoded: str) -> None:
    assert encode_variable_byte_integer(value).hex() == encoded


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("payload_bytes", [64, 300])
def test_every_frame_has_the_length_that_the_layout_says(qos: int, payload_bytes: int) -> None:
    layout = PublishLayout(qos=qos, payload_bytes=payload_bytes)
    assert {len(layout.frame(number)) for number in (0, 7, 49, 9_999)} == {layout.frame_bytes}


def test_a_block_alternates_topics_and_counts_sequence_and_packet_id() -> None:
    layout = PublishLayout(qos=1)
    data, count = PublishBlock(layout, 100, publisher=3).stamp(0, 100)
    assert count == 100
    frame = bytes(data[51 * layout.frame_bytes : 52 * layout.frame_bytes])
    assert frame[:2] == b"\x32\x54"
    assert frame[2:20] == b"\x00\x10bench/dev/000001"
    assert frame[20:22] == (52).to_bytes(2, "big")
    assert frame[22:34] == (51).to_bytes(8, "big") + (3).to_bytes(4, "big")


def test_a_block_goes_on_at_any_number_and_ends_at_its_buffer() -> None:
    layout = PublishLayout(qos=0)
    block = PublishBlock(layout, 50)
    data, count = block.stamp(1_030, 1_000)
    assert count == block.rows - 1_030 % block.rows
    assert len(data) == count * layout.frame_bytes
    assert layout.sequence.column(data, 0, count, layout.frame_bytes).tolist() == list(range(1_030, 1_030 + count))


def test_packet_ids_begin_again_at_one() -> None:
    layout = PublishLayout(qos=1)
    block = PublishBlock(layout, 50)
    assert layout.packet_id_offset is not None
    data, count = block.stamp(PACKET_ID_COUNT - 15, 50)
    packet_ids = layout.field(data, layout.packet_id_offset, ">u2", 0, count).tolist()
    assert packet_ids == [PACKET_ID_COUNT - 14 + row for row in range(15)] + list(range(1, count - 14))


def test_a_block_holds_more_topics_than_packet_ids_allow_in_whole_cycles() -> None:
    block = PublishBlock(PublishLayout(qos=1, topic_count=10_000), 70_000)
    assert block.rows == 60_000


def test_a_json_payload_is_json_of_the_length_asked_for() -> None:
    payload = json_payload(64)
    assert len(payload) == 64
    assert orjson.loads(payload)["tick"] == 100_000_000
    with pytest.raises(ValueError, match="at least"):
        json_payload(20)


@pytest.mark.parametrize("first", [0, 9_998, 12_345_678, 99_999_990])
def test_digit_words_are_the_eight_digits(first: int) -> None:
    sequence = DigitSequence(0)
    words = sequence.words(first, 5)
    assert words.astype("<u8").tobytes() == b"".join(b"%08d" % (first + row) for row in range(5))
    assert [sequence.number(int(word)) for word in words] == [first + row for row in range(5)]


def test_digit_words_end_at_eight_digits() -> None:
    with pytest.raises(OverflowError):
        DigitSequence(0).words(10**8 - 1, 2)


def test_a_word_that_is_no_number_is_minus_one() -> None:
    assert DigitSequence(0).number(int.from_bytes(b"12345x78", "little")) == -1


def test_binary_words_are_consecutive() -> None:
    assert np.array_equal(BinarySequence(0).words(2**40, 2), [2**40, 2**40 + 1])


def test_an_event_block_stamps_the_digits_of_each_event() -> None:
    event = b"id: 1\ndata: {" + EVENT_MARK + b"00000000}\n\n"
    data, count = EventBlock(event, 4).stamp(6, 10)
    assert count == 2
    assert bytes(data) == event.replace(b"00000000", b"00000006") + event.replace(b"00000000", b"00000007")


def test_the_topics_of_a_cycle_may_be_chosen() -> None:
    layout = PublishLayout(qos=0, topic_numbers=np.array([7, 0, 7, 3]))
    assert [layout.topic(sequence)[-1] for sequence in range(5)] == ["7", "0", "7", "3", "7"]
    data, count = PublishBlock(layout, 8).stamp(0, 8)
    topics = layout.field(data, layout.topic_end - 4, "<u4", 0, count)
    assert (topics == layout.topic_words(np.arange(8))).all()


def test_mqtt_5_has_properties() -> None:
    assert encode_connect("ab", 60, level=5, properties=encode_receive_maximum(100)) == (
        b"\x10\x12\x00\x04MQTT\x05\x02\x00\x3c\x03\x21\x00\x64\x00\x02ab"
    )
    assert encode_subscribe(1, ["a", "b"], 0, level=5) == b"\x82\x0b\x00\x01\x00\x00\x01a\x00\x00\x01b\x00"
    frame = PublishLayout(qos=1, level=5, payload_bytes=12).frame(0)
    assert frame[-13:] == bytes(13)
    assert len(frame) == len(PublishLayout(qos=1, payload_bytes=12).frame(0)) + 1
