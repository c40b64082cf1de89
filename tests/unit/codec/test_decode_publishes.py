"""decode_publishes against decode_packet, row for row, and each way in which it stops."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.codec.decode import PublishColumns, decode_packet, decode_publishes, next_frame
from broker.codec.encode import encode
from broker.codec.errors import MqttError
from broker.codec.packets import Packet, Pingreq, Puback, Publish
from broker.routing import Route
from broker.topics.names import validate_topic_name
from tests.support.wire_cases import properties

FRAME_BYTES_MAX = 1 << 20


class Stream:
    """A sink's topic of this stream."""

    stream = "stream"


class Routes:
    """Routes by topic; topics that begin with `a` are in one stream, `$` is refused, the others are in none."""

    def __init__(self) -> None:
        self.by_topic: dict[bytes, Route] = {}
        self.opened: list[bytes] = []

    def open(self, topic: bytes) -> Route | None:
        topic_name = validate_topic_name(topic)
        self.opened.append(topic)
        if topic_name.startswith("$"):
            return None
        route = self.by_topic[topic] = Route(topic_name, b"", Stream() if topic_name.startswith("a") else None)
        return route


def walk(
    data: bytes, level: int, position: int = 0, frame_bytes_max: int = FRAME_BYTES_MAX, routes: Routes | None = None
) -> tuple[int, PublishColumns]:
    columns = PublishColumns()
    routes = routes if routes is not None else Routes()
    reached = decode_publishes(data, position, routes.by_topic, routes.open, level == 5, columns, frame_bytes_max)
    return reached, columns


def expected(
    data: bytes, level: int, position: int, frame_bytes_max: int
) -> tuple[int, list[tuple[str, int, int, int]]]:
    """What `decode_publishes` must find: the plain form of it."""
    routes = Routes()
    rows: list[tuple[str, int, int, int]] = []
    first: Route | None = None
    while position < len(data):
        try:
            frame = next_frame(data, position, frame_bytes_max)
            if frame is None or frame[0] not in (0x30, 0x32):
                break
            packet = decode_packet(frame[0], data[frame[1] : frame[2]], level)
        except MqttError:
            break
        route = routes.open(packet.topic_name.encode()) if packet.topic_name else None
        if packet.properties is not None or route is None or (first is not None and route.stream is not first.stream):
            break
        first = first or route
        end = frame[2]
        rows.append((packet.topic_name, end - len(packet.payload), end, packet.packet_id))
        position = end
    return position, rows


def check(data: bytes, level: int, position: int = 0, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
    """The walk, from cold and from warm routes, is what the plain form says."""
    reached, rows = expected(data, level, position, frame_bytes_max)
    routes = Routes()
    for _ in ("cold", "warm"):
        found, columns = walk(data, level, position, frame_bytes_max, routes)
        packet_ids = columns.packet_ids or [0] * len(columns.routes)
        names = [route.topic_name for route in columns.routes]
        assert found == reached
        assert list(zip(names, columns.payload_starts, columns.ends, packet_ids, strict=True)) == rows
        assert any(columns.packet_ids) or not columns.packet_ids


PLAIN = st.builds(
    lambda topic, payload, packet_id: Publish(topic, payload, 1 if packet_id else 0, packet_id=packet_id),
    st.sampled_from(("a", "a/b", "a/b/é", "a/b/c/d")),
    st.sampled_from((b"", b"x", bytes(50), bytes(125), bytes(130), bytes(20_000))),
    st.sampled_from((0, 0, 1, 300, 65_535)),
)
OTHERS = st.sampled_from(
    (
        Publish("a", b"x", retain=True),
        Publish("a", b"x", 2, packet_id=1),
        Publish("a", b"x", 1, dup=True, packet_id=1),
        Publish("a", b"x", properties=properties(topic_alias=1)),
        Publish("b", b"x"),
        Publish("$a", b"x"),
        Publish("a/+", b"x"),
        Puback(5),
        Pingreq(),
    )
)


@settings(max_examples=150, deadline=None)
@given(
    packets=st.lists(st.integers(0, 5).flatmap(lambda pick: OTHERS if pick == 0 else PLAIN), max_size=8),
    level=st.sampled_from((4, 5)),
    cut=st.integers(0, 40),
    junk=st.sampled_from((b"", b"\xc0\x00", b"\x30")),
    frame_bytes_max=st.sampled_from((100, 140, 2_000, FRAME_BYTES_MAX)),
)
def test_it_agrees_with_decode_packet_row_for_row(
    packets: list[Packet], level: int, cut: int, junk: bytes, frame_bytes_max: int
) -> None:
    data = junk + b"".join(encode(packet, level) for packet in packets)
    if frame_bytes_max < 129:  # then all is left to the slow path
        assert walk(data, level, len(junk), frame_bytes_max)[0] == len(junk)
    else:
        check(data[: len(data) - cut], level, len(junk), frame_bytes_max)


@settings(max_examples=200, deadline=None)
@given(
    packets=st.lists(PLAIN.filter(lambda publish: len(publish.payload) < 1_000), min_size=1, max_size=4),
    level=st.sampled_from((4, 5)),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=3),
)
def test_it_agrees_on_frames_that_lie(packets: list[Publish], level: int, changes: list[tuple[int, int]]) -> None:
    data = bytearray(b"".join(encode(packet, level) for packet in packets))
    for index, byte in changes:
        data[index % len(data)] = byte
    if not has_padded_length(bytes(data)):
        check(bytes(data), level)


def has_padded_length(data: bytes) -> bool:
    """Remaining Lengths padded with zeros are legal in 3.1.1 and left to the slow path; the oracle takes them."""
    position = 0
    while position < len(data):
        try:
            frame = next_frame(data, position, FRAME_BYTES_MAX)
        except MqttError:
            return False
        if frame is None:
            return False
        if frame[1] - position > 2 and data[frame[1] - 1] == 0:
            return True
        position = frame[2]
    return False


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("size", [0, 100, 128, 16_250, 17_000, 2_100_000])
def test_frames_of_every_length_are_walked(size: int, level: int) -> None:
    data = encode(Publish("a", bytes(size), 1, packet_id=9), level)
    assert walk(data, level, frame_bytes_max=max(129, len(data)))[1].packet_ids == [9]
    if size > 128:
        assert walk(data, level, frame_bytes_max=len(data) - 1)[0] == 0


def test_a_padded_length_is_left_to_the_slow_path() -> None:
    for data in ("308300000161", "30838000000161", "3083808000000161", "30ff80808001000161"):
        assert walk(bytes.fromhex(data), 4)[0] == 0


def test_packet_ids_stay_empty_while_all_is_qos_0() -> None:
    data = encode(Publish("a", b"x"), 4) * 3
    assert walk(data, 4)[1].packet_ids == []
    data += encode(Publish("a", b"x", 1, packet_id=7), 4) + encode(Publish("a"), 4)
    assert walk(data, 4)[1].packet_ids == [0, 0, 0, 7, 0]


def test_no_route_is_opened_for_a_topic_that_its_frame_does_not_hold() -> None:
    """The topic's length reaches into the next frame."""
    routes = Routes()
    data = bytes.fromhex("3003000561") + encode(Publish("abcdef"), 4)
    assert walk(data, 4, routes=routes)[0] == 0
    assert routes.opened == []


def test_a_run_ends_where_the_stream_changes() -> None:
    data = encode(Publish("a"), 4) + encode(Publish("a/b"), 4) + encode(Publish("b"), 4) + encode(Publish("a"), 4)
    reached, columns = walk(data, 4)
    assert [route.topic_name for route in columns.routes] == ["a", "a/b"]
    assert [route.topic_name for route in walk(data, 4, reached)[1].routes] == ["b"]


@pytest.mark.parametrize("qos", [1, 2])
def test_with_retain_all_have_it(qos: int) -> None:
    columns = PublishColumns()
    packets = [Publish("a", b"1", qos, True, False, number, None) for number in (7, 8)]
    data = b"".join(encode(packet, 4) for packet in [*packets, Publish("a", b"1", qos, False, False, 9, None)])
    routes = Routes()
    reached = decode_publishes(data, 0, routes.by_topic, routes.open, False, columns, FRAME_BYTES_MAX, 0x31 | qos << 1)
    assert (reached, columns.packet_ids) == (2 * len(data) // 3, [7, 8])


def test_columns_that_hold_rows_already_go_on_in_their_stream() -> None:
    routes = Routes()
    _, columns = walk(encode(Publish("b"), 4), 4, routes=routes)
    assert decode_publishes(encode(Publish("a"), 4), 0, routes.by_topic, routes.open, False, columns, 999) == 0
    assert decode_publishes(encode(Publish("c"), 4), 0, routes.by_topic, routes.open, False, columns, 999) > 0
