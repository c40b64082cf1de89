"""A generator is worth what its checks catch: each loss, repeat and swap must fail the run."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from devices.bench.checks import (
    CheckFailed,
    EventScanner,
    ManyPublishersChecker,
    NumberCollector,
    PubackChecker,
    PublishChecker,
    encode_pubacks,
    judge_stored,
)
from devices.bench.frames import EVENT_MARK, PACKET_ID_COUNT, PublishBlock, PublishLayout
from devices.bench.kept import AnyOrderChecker


def frames_of(layout: PublishLayout, numbers: list[int], publisher: int = 0) -> bytearray:
    block = PublishBlock(layout, 50, publisher)
    return bytearray(b"".join(bytes(block.stamp(number, 1)[0]) for number in numbers))


def check(layout: PublishLayout, numbers: list[int]) -> PublishChecker:
    checker = PublishChecker(layout, "subscriber 0")
    checker.check(frames_of(layout, numbers), len(numbers))
    return checker


@pytest.mark.parametrize("layout", [PublishLayout(qos=0), PublishLayout(qos=1), PublishLayout(qos=1, is_json=True)])
def test_messages_in_order_are_counted(layout: PublishLayout) -> None:
    checker = check(layout, list(range(120)))
    checker.check(frames_of(layout, [120, 121]), 2)
    assert checker.received == 122


@pytest.mark.parametrize(
    ("numbers", "failure"),
    [
        ([0, 1, 3, 4], r"loss: 3 came where 2 was due \(1 missing\)"),
        ([1, 2, 3], "loss: 1 came where 0 was due"),
        ([0, 1, 1, 2], "repeat: 1 came again where 2 was due"),
        ([0, 2, 1, 3], "swap: 2 came before 1"),
    ],
)
@pytest.mark.parametrize("layout", [PublishLayout(qos=0), PublishLayout(qos=1, is_json=True)])
def test_a_loss_a_repeat_and_a_swap_are_named(layout: PublishLayout, numbers: list[int], failure: str) -> None:
    with pytest.raises(CheckFailed, match=f"subscriber 0: {failure}"):
        check(layout, numbers)


def test_each_third_message_is_followed_from_its_first_on() -> None:
    layout = PublishLayout(qos=0)
    checker = PublishChecker(layout, "subscriber 1", first=1, step=3)
    numbers = list(range(1, 300, 3))
    checker.check(frames_of(layout, numbers), len(numbers))
    assert (checker.received, checker.next_sequence) == (100, 301)
    with pytest.raises(CheckFailed, match="subscriber 1: loss: 302 came where 301 was due"):
        checker.check(frames_of(layout, [302]), 1)


@pytest.mark.parametrize("numbers", [[0, 1, 2], [0, 2], [0, 0], [1]])
def test_one_at_a_time_is_checked_as_many(numbers: list[int]) -> None:
    layout = PublishLayout(qos=2)
    buffer = frames_of(layout, numbers)

    def outcome(is_alone: bool) -> tuple[int, str]:
        checker = PublishChecker(layout, "s")
        try:
            for row in range(len(numbers)):
                start = row * layout.frame_bytes
                if is_alone:
                    checker.check_one(buffer, start)
                else:
                    checker.check(buffer, 1, start)
        except CheckFailed as error:
            return checker.received, str(error)
        return checker.received, ""

    assert outcome(True) == outcome(False)


def test_one_at_a_time_a_wrong_topic_is_caught() -> None:
    layout = PublishLayout(qos=0)
    buffer = frames_of(layout, [0])
    buffer[layout.topic_end - 1] = ord("9")
    with pytest.raises(CheckFailed, match="under another message's topic"):
        PublishChecker(layout, "s").check_one(buffer, 0)


def test_in_any_order_each_has_to_come_once() -> None:
    layout = PublishLayout(qos=0, is_retained=True)
    checker = AnyOrderChecker(layout, "s")
    checker.check(frames_of(layout, [2, 0, 3]), 3)
    with pytest.raises(CheckFailed, match="of 4 3 came, 3 in all"):
        checker.judge(4)
    checker.check(frames_of(layout, [1]), 1)
    checker.judge(4)
    checker.check(frames_of(layout, [1]), 1)
    with pytest.raises(CheckFailed, match="of 4 4 came, 5 in all"):
        checker.judge(4)
    with pytest.raises(CheckFailed, match="not the PUBLISH that was kept"):
        checker.check(frames_of(PublishLayout(qos=0), [1]), 1)


def test_a_loss_between_two_reads_is_caught() -> None:
    layout = PublishLayout(qos=0)
    checker = check(layout, [0, 1])
    with pytest.raises(CheckFailed, match="loss"):
        checker.check(frames_of(layout, [3]), 1)


def test_a_payload_under_another_topic_is_caught() -> None:
    layout = PublishLayout(qos=0)
    data = frames_of(layout, [0, 1, 2])
    data[layout.frame_bytes + layout.topic_end - 1] = ord("9")
    with pytest.raises(CheckFailed, match="another message's topic"):
        PublishChecker(layout, "s").check(data, 3)


def test_another_packet_between_the_publishes_is_caught() -> None:
    layout = PublishLayout(qos=1)
    data = frames_of(layout, [0, 1])
    data[layout.frame_bytes] |= 0x08  # DUP
    with pytest.raises(CheckFailed, match="0x3a"):
        PublishChecker(layout, "s").check(data, 2)


def test_packet_ids_chosen_by_the_server_do_not_matter_and_are_acknowledged() -> None:
    layout = PublishLayout(qos=1)
    data = frames_of(layout, [0, 1])
    assert layout.packet_id_offset is not None
    column = layout.field(data, layout.packet_id_offset, ">u2", 0, 2)
    column[:] = [900, 7]
    PublishChecker(layout, "s").check(data, 2)
    assert encode_pubacks(column) == b"\x40\x02\x03\x84\x40\x02\x00\x07"


def test_many_publishers_may_mix_but_each_keeps_its_order() -> None:
    layout = PublishLayout(qos=0)
    checker = ManyPublishersChecker(layout, 2, "s")
    mixed = frames_of(layout, [0], 1) + frames_of(layout, [0, 1], 0) + frames_of(layout, [1, 2], 1)
    checker.check(mixed, 5)
    assert (checker.received, checker.received_from(0), checker.received_from(1)) == (5, 2, 3)


@pytest.mark.parametrize(("numbers", "failure"), [([1], "loss"), ([0, 0], "repeat"), ([1, 0], "swap")])
def test_many_publishers_a_fault_names_the_publisher(numbers: list[int], failure: str) -> None:
    layout = PublishLayout(qos=0)
    data = frames_of(layout, [0, 1], 0) + frames_of(layout, numbers, 1)
    with pytest.raises(CheckFailed, match=f"s, publisher 1: {failure}"):
        ManyPublishersChecker(layout, 2, "s").check(data, 2 + len(numbers))


def pubacks(packet_ids: list[int]) -> bytearray:
    return bytearray(encode_pubacks(np.array(packet_ids, dtype=">u2")))


def test_acknowledgements_in_order_are_counted_past_the_end_of_packet_ids() -> None:
    checker = PubackChecker("publisher 0")
    checker.check(pubacks(list(range(1, PACKET_ID_COUNT + 1))), PACKET_ID_COUNT)
    checker.check(pubacks([1, 2]), 2)
    assert checker.received == PACKET_ID_COUNT + 2


@pytest.mark.parametrize("packet_ids", [[2], [1, 1], [1, 3, 2], [1, 2, 4]])
def test_acknowledgements_lost_repeated_or_swapped_are_caught(packet_ids: list[int]) -> None:
    with pytest.raises(CheckFailed, match="acknowledgement"):
        PubackChecker("publisher 0").check(pubacks(packet_ids), len(packet_ids))


def events(numbers: list[int], first_offset: int = 97) -> bytes:
    """Events whose length changes where their offset gets a digit more."""
    return b"".join(
        b'event: message\nid: %d\ndata: {"payload":{' % (first_offset + row) + EVENT_MARK + b'%08d,"x":1}}\n\n' % number
        for row, number in enumerate(numbers)
    )


def scan(data: bytes, cuts: list[int]) -> EventScanner:
    scanner = EventScanner("reader 0")
    buffer = bytearray(b"junk" + data + b"junk")
    edges = [0, *sorted(cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        scanner.feed(buffer, 4 + start, 4 + end)
    return scanner


def test_events_are_counted_however_the_stream_is_cut() -> None:
    data = events(list(range(300)))
    choose = random.Random(5)
    for pieces in (0, 1, 3, 20, 400):
        cuts = [choose.randrange(len(data) + 1) for _ in range(pieces)]
        assert scan(data, cuts).received == 300, cuts
    assert scan(data, list(range(len(data)))).received == 300


@pytest.mark.parametrize("position", [0, 1, 2, 50, 150])
@pytest.mark.parametrize("is_cut", [False, True])
def test_an_event_lost_repeated_or_swapped_is_caught(position: int, is_cut: bool) -> None:
    good = list(range(200))
    lost = good[:position] + good[position + 1 :]
    repeated = good[: position + 1] + good[position:]
    swapped = [*good[:position], position + 1, position, *good[position + 2 :]]
    for numbers, failure in ((lost, "loss|swap"), (repeated, "repeat"), (swapped, "swap|loss")):
        data = events(numbers)
        with pytest.raises(CheckFailed, match=failure):
            scan(data, list(range(0, len(data), 7)) if is_cut else [])


def test_heartbeats_and_other_events_are_passed_over() -> None:
    data = events([0, 1]) + b": still here\n\nid: 9\n\n" + events([2, 3])
    assert scan(data, []).received == 4


def test_numbers_behind_another_mark_are_followed_too() -> None:
    rows = b"".join(b'sensors/a,"{""tick"":1%08d}",json\r\n' % number for number in range(30))
    scanner = EventScanner("export", mark=b'tick"":1')
    scanner.feed(bytearray(b"topic,payload,encoding\r\n" + rows), 0, 24 + len(rows))
    assert scanner.received == 30


def collect(data: bytes, cuts: list[int]) -> NumberCollector:
    collector = NumberCollector("reader 0")
    for start, end in itertools.pairwise([0, *sorted(cuts), len(data)]):
        collector.feed(bytearray(data), start, end)
    return collector


def test_numbers_of_several_partitions_are_collected_however_the_stream_is_cut() -> None:
    numbers = [number for partition in range(4) for number in range(partition, 80, 4)]
    data = events(numbers)
    for cuts in ([], list(range(0, len(data), 7)), list(range(len(data)))):
        collector = collect(data, cuts)
        assert collector.received == 80
        collector.judge(80, topic_count=8)


@pytest.mark.parametrize(
    ("numbers", "failure"),
    [
        ([0, 1, 2, 3, 4, 6, 7], "1 never came, first 5"),
        ([0, 1, 2, 3, 4, 5, 6], "1 never came, first 7"),
        ([0, 1, 2, 3, 0, 4, 5, 6, 7], "repeat"),
        ([0, 4, 2, 3, 1, 5, 6, 7, 7], "repeat"),
        ([4, 0, 1, 2, 3, 5, 6, 7], "repeat: 0 came again where 8 was due"),
    ],
)
def test_a_collected_number_lost_repeated_or_before_its_topics_last_is_caught(numbers: list[int], failure: str) -> None:
    with pytest.raises(CheckFailed, match=failure):
        collect(events(numbers), []).judge(8, topic_count=4)


def stored(rows: list[tuple[int, int, int]], acknowledged: int) -> str | None:
    """Rows are (publisher, partition, sequence)."""
    publishers, partitions, sequences = (np.array(column) for column in zip(*rows, strict=True))
    return judge_stored(sequences, publishers, partitions, sequences % 4, 4, acknowledged)


def test_what_each_publisher_sent_stands_once_and_in_order_in_each_partition() -> None:
    rows = [(0, 0, 0), (1, 0, 0), (0, 0, 2), (0, 1, 1), (1, 1, 1), (0, 1, 3)]
    assert stored(rows, 6) is None


@pytest.mark.parametrize(
    ("rows", "acknowledged", "failure"),
    [
        ([(0, 0, 0), (0, 0, 2), (0, 1, 3)], 3, "publisher 0: loss: 2 stands where 1 was due"),
        ([(0, 0, 0), (0, 1, 1)], 3, "loss: 3 were acknowledged, the log has 2"),
        ([(7, 0, 0), (7, 0, 0)], 1, "publisher 7: repeat: 0 stands behind 0"),
        ([(0, 0, 0), (0, 1, 0)], 1, "publisher 0: repeat: 0 stands where 1 was due"),
        ([(0, 0, 0), (0, 0, 2), (0, 0, 1)], 3, "publisher 0: swap: 1 stands behind 2"),
    ],
)
def test_what_a_log_has_lost_repeated_or_swapped_is_named(
    rows: list[tuple[int, int, int]], acknowledged: int, failure: str
) -> None:
    assert stored(rows, acknowledged) == failure


def test_a_stored_message_under_another_topic_is_named() -> None:
    one = np.array([0, 1])
    failure = judge_stored(one, np.zeros(2, int), np.zeros(2, int), np.array([0, 3]), 4, 2)
    assert failure == "message 1 of publisher 0 has another message's topic"
