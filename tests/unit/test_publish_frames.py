"""Records as PUBLISH frames for replays: every version and QoS, properties, limits, and the columns beside them."""

from __future__ import annotations

import pytest

from bridge.history.scan import PublishColumns, PublishForm
from bridge.publish_frames import PublishFrames, fixed_header_bytes
from bridge.records import RecordRun, Topic
from broker.codec.decode import Decoder
from broker.codec.encode import encode_publish
from broker.codec.packets import Publish
from broker.codec.properties import Properties
from broker.replay import ReplayPiece

TIME_MS = 1_795_374_000_123
TIME = "2026-11-22T19:00:00.123Z"
PLACE = ("telemetry~k3~0.", "~~other~e~0.7")


def run_of(
    packets: list[Publish], *, is_v5: bool, base_offset: int = 8_812, client_id: str = "p1", partition: int = 0
) -> RecordRun:
    """Stored records, with a prefix that is not theirs."""
    data = b"before"
    starts, ends, topics, known = [], [], [], {}
    for packet in packets:
        frame = encode_publish(packet, 5 if is_v5 else 4)
        data += frame
        starts.append(len(data) - len(packet.payload))
        ends.append(len(data))
        topics.append(known.setdefault(packet.topic_name, Topic(packet.topic_name)))
    return RecordRun(
        data,
        6,
        topics,
        starts,
        ends,
        base_offset=base_offset,
        first_number=1,
        node_run="n7",
        received_at_ms=TIME_MS,
        client_id=client_id,
        is_v5=is_v5,
        partition=partition,
    )


def publish(number: int, qos: int, retain: bool = False, properties: Properties | None = None) -> Publish:
    """Payloads and topics of many lengths."""
    payload = b"%d" % number + b"x" * (number * 37 % 20_000)
    return Publish(f"a/{number % 3}{'/b' * (number % 70)}", payload, qos, retain, False, 9 if qos else 0, properties)


def encoded(
    run: RecordRun, form: PublishForm, rows: list[int] | None = None, now_ms: int = TIME_MS
) -> tuple[list[Publish], PublishColumns]:
    """The frames, decoded."""
    frames = PublishFrames(form, "telemetry", now_ms)
    chosen = list(range(len(run))) if rows is None else rows
    items = frames.encode("k3", run, chosen)
    frames.keep(run, chosen, items, PLACE)
    columns = frames.columns()
    data = b"".join(items)
    assert frames.count == len([item for item in items if item])
    if columns.rows is not None:
        data = ReplayPiece(data, frames.count, columns.rows, form.is_v5, str).numbered(0, frames.count, 1)
    decoder = Decoder(268_435_455)
    decoder.protocol_level = 5 if form.is_v5 else 4
    packets = decoder.feed(data)
    assert decoder.error is None, decoder.error
    assert all(isinstance(packet, Publish) for packet in packets)
    return packets, columns  # type: ignore[return-value]


def fields(offset: int, partition: int = 0) -> list[tuple[str, str]]:
    return [
        ("stream", "telemetry"),
        ("epoch", "k3"),
        ("partition", str(partition)),
        ("offset", str(offset)),
        ("time", TIME),
    ]


@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("wanted", [0, 1, 2])
@pytest.mark.parametrize("from_v5", [False, True])
@pytest.mark.parametrize("to_v5", [False, True])
def test_records_come_in_the_subscribers_version_and_the_lower_qos(
    published: int, wanted: int, from_v5: bool, to_v5: bool
) -> None:
    sent = [publish(number, published, properties=None) for number in range(300)]
    run = run_of(sent, is_v5=from_v5, base_offset=9_900)  # from four digits to five: not of one length
    for rows in (None, list(range(20, 90, 3)), [5]):
        packets, columns = encoded(run, PublishForm(to_v5, wanted), rows)
        chosen = rows if rows is not None else range(300)
        qos = min(published, wanted)
        assert [(packet.topic_name, packet.payload, packet.qos, packet.retain) for packet in packets] == [
            (sent[row].topic_name, sent[row].payload, qos, False) for row in chosen
        ]
        if to_v5:
            assert [packet.properties.user_properties for packet in packets if packet.properties] == [
                fields(9_900 + row) for row in chosen
            ]
        assert (columns.rows is None) == (qos == 0)
        if qos:
            assert [packet.packet_id for packet in packets] == list(range(1, len(packets) + 1))
            assert columns.rows is not None
            assert columns.rows.stretches == ((len(packets), qos),)
            assert columns.cursor_behind(0) == f"{PLACE[0]}{9_900 + chosen[0] + 1}{PLACE[1]}"


def test_published_properties_stand_before_those_of_the_record() -> None:
    properties = Properties()
    properties.content_type = "text/plain"
    properties.correlation_data = b"\x02\x00"
    properties.response_topic = "r/1"
    properties.user_properties = [("a", "1"), ("offset", "mine"), ("a", "2")]
    run = run_of([publish(3, 1, properties=properties), publish(4, 1, properties=Properties())], is_v5=True)
    (first, second), _ = encoded(run, PublishForm(True, 1, subscription_identifier=300))
    assert first.properties is not None
    assert second.properties is not None
    assert first.properties.user_properties == [*properties.user_properties, *fields(8_812)]
    assert first.properties.content_type == "text/plain"
    assert first.properties.correlation_data == b"\x02\x00"
    assert first.properties.response_topic == "r/1"
    assert first.properties.subscription_identifiers == [300]
    assert second.properties.user_properties == fields(8_813)
    (plain, _), _ = encoded(run, PublishForm(False, 1))
    assert plain.payload == first.payload


@pytest.mark.parametrize(("waited_ms", "left_s"), [(0, 60), (30_500, 30), (60_000, 0), (10**9, 0)])
def test_message_expiry_says_what_is_left_and_an_expired_record_comes_too(waited_ms: int, left_s: int) -> None:
    """[MQTT-3.3.2-6]"""
    properties = Properties()
    properties.message_expiry_interval = 60
    properties.user_properties = [("a", "1")]
    run = run_of([publish(3, 1, properties=properties)], is_v5=True)
    (packet,), _ = encoded(run, PublishForm(True, 1), now_ms=TIME_MS + waited_ms)
    assert packet.properties is not None
    assert packet.properties.message_expiry_interval == left_s
    assert packet.properties.user_properties == [("a", "1"), *fields(8_812)]


@pytest.mark.parametrize("to_v5", [False, True])
@pytest.mark.parametrize("as_published", [False, True])
def test_retain_is_set_only_where_it_is_wanted_as_published(to_v5: bool, as_published: bool) -> None:
    """[MQTT-3.3.1-12], [MQTT-3.3.1-13]"""
    run = run_of([publish(number, 1, retain=True) for number in range(4)], is_v5=False)
    packets, _ = encoded(run, PublishForm(to_v5, 1, retain_as_published=as_published))
    assert {packet.retain for packet in packets} == {as_published}


def test_mixed_rows_keep_their_order_and_have_stretches() -> None:
    sent = [publish(number, 1 if number % 5 else 0) for number in range(40)]
    run = run_of(sent, is_v5=True)
    frames = PublishFrames(PublishForm(True, 2), "telemetry", TIME_MS)
    items = frames.encode("k3", run, range(40))
    frames.keep(run, range(40), items, PLACE)
    later = run_of([publish(1, 2)], is_v5=False, base_offset=9_000)
    more = frames.encode("k3", later, [0])
    frames.keep(later, [0], more, ("next~", ""))
    columns = frames.columns()
    assert columns.rows is not None
    assert columns.rows.stretches[:4] == ((1, 0), (5, 1), (6, 0), (10, 1))
    assert columns.rows.stretches[-2:] == ((40, 1), (41, 2))
    assert columns.cursor_behind(39) == f"{PLACE[0]}{8_812 + 40}{PLACE[1]}"
    assert columns.cursor_behind(40) == "next~9001"
    piece = ReplayPiece(b"".join(items + more), 41, columns.rows, True, str)
    assert piece.stretch(0) == (1, 0)
    assert piece.stretch(1) == (5, 1)
    assert piece.stretch(40) == (41, 2)
    assert piece.frames(5, 6) == items[5]
    front, back = piece.split(40, True)
    assert front + b"\0\0" + back == more[0]


def test_frames_larger_than_the_client_takes_are_left_out_and_counted() -> None:
    """[MQTT-3.1.2-25]"""
    run = run_of([publish(number, 1) for number in range(50)], is_v5=False)
    every, _ = encoded(run, PublishForm(True, 1))
    kept = [row for row, packet in enumerate(every) if len(encode_publish(packet, 5)) <= 1_000]
    packets, columns = encoded(run, PublishForm(True, 1, packet_bytes_max=1_000))
    assert 0 < len(kept) < 50
    assert [packet.payload for packet in packets] == [every[row].payload for row in kept]
    assert columns.left_out == 50 - len(kept)
    assert columns.cursor_behind(len(kept) - 1) == f"{PLACE[0]}{8_812 + kept[-1] + 1}{PLACE[1]}"


def test_no_local_leaves_out_the_clients_own_records() -> None:
    """[MQTT-3.8.3-3]"""
    frames = PublishFrames(PublishForm(True, 1, left_out_client_id="p1"), "telemetry", TIME_MS)
    assert frames.leaves_out(run_of([publish(1, 0)], is_v5=True, client_id="p1"))
    assert not frames.leaves_out(run_of([publish(1, 0)], is_v5=True, client_id="p2"))


def test_partition_is_the_records() -> None:
    run = run_of([publish(1, 0), publish(2, 0)], is_v5=True, partition=11)
    packets, _ = encoded(run, PublishForm(True, 0))
    assert [packet.properties.user_properties for packet in packets if packet.properties] == [
        fields(8_812, 11),
        fields(8_813, 11),
    ]


@pytest.mark.parametrize("body", [0, 1, 126, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
def test_length_of_the_fixed_header(body: int) -> None:
    header = 2 if body < 128 else 3 if body < 16_384 else 4 if body < 2_097_152 else 5
    assert fixed_header_bytes(header + body) == header
