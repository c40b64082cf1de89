"""Bytes to packets: the fast run of plain publishes, the frame at a position, and `Decoder`, which joins reads.

The server uses `decode_publishes` and, for all that it leaves, `next_frame` with `decode_packet`. `Decoder` does the
same the plain way, for clients and as the oracle of the fast path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from broker.codec.decode_packets import decode_packet
from broker.codec.errors import MqttError, NotAnswered, PacketTooLarge
from broker.codec.packets import Connect, Packet

__all__ = ["Decoder", "PublishColumns", "decode_packet", "decode_publishes", "next_frame"]

_QOS_1 = 0x32
_QOS_2 = 0x34
_NO_BYTE = -1
_PUBLISH_BYTES_MIN = 4
_SHORT_FRAME_BYTES_MAX = 129
"""The largest frame whose Remaining Length is one byte."""


class Streamed:
    """A cached route, as far as a decoder looks at it."""

    __slots__ = ("stream",)

    def __init__(self, stream: object) -> None:
        self.stream = stream
        """Rows of one run have the same."""


RouteT = TypeVar("RouteT", bound=Streamed)


class PublishColumns:
    """Where `decode_publishes` puts its rows; the columns of a `PublishRun`."""

    __slots__ = ("ends", "packet_ids", "payload_starts", "routes")

    def __init__(self) -> None:
        self.routes: list[Any] = []
        self.payload_starts: list[int] = []
        self.ends: list[int] = []
        self.packet_ids: list[int] = []
        """Empty while every row is of QoS 0; else one for each row, 0 for QoS 0."""


# hot path: tests/bench/decode_publishes.py
def decode_publishes(
    data: bytes,
    position: int,
    routes: dict[bytes, RouteT],
    open_route: Callable[[bytes], RouteT | None],
    is_v5: bool,
    columns: PublishColumns,
    frame_bytes_max: int,
    reliable_byte: int = _QOS_1,
) -> int:
    """Append a row for each plain PUBLISH from `position` on; returns the position after the last one.

    Plain is QoS 0 or 1 (with a `reliable_byte` of 0x34: QoS 2 alone), whole, without RETAIN, DUP and properties; with
    0x33 and 0x35 each has RETAIN. What is anything else, breaks a rule, is larger than `frame_bytes_max`, has no route
    or one of another stream than the rows before it, is left where it is: the caller takes it by `next_frame`, which
    also says what is wrong with it. A `frame_bytes_max` below 129 leaves everything, so that only frames with a longer
    header need be measured.

    `routes` is keyed by the topic's UTF-8 bytes. `open_route` is asked for those it does not hold; it validates the
    topic (an `MqttError` counts as no route) and may cache what it returns.
    """
    if frame_bytes_max < _SHORT_FRAME_BYTES_MAX:
        return position
    size = len(data)
    route_column = columns.routes
    payload_starts = columns.payload_starts
    ends = columns.ends
    packet_ids = columns.packet_ids
    stream: object = route_column[0].stream if route_column else None
    unreliable_byte = reliable_byte - 2 if reliable_byte < _QOS_2 else _NO_BYTE
    try:
        # Asked first, for an exception at the end of each read costs as much as five rows.
        while position + _PUBLISH_BYTES_MIN <= size:
            first_byte = data[position]
            length = data[position + 1]
            topic_start = position + 4
            if length > 127:
                more = data[position + 2]
                if 0 < more < 128:
                    length = length & 0x7F | more << 7
                    topic_start = position + 5
                else:
                    length, topic_start = _long_length(data, position)
                if topic_start + length - position - 2 > frame_bytes_max:
                    return position
            end = topic_start + length - 2
            if end > size:
                return position
            payload_start = topic_start + (data[topic_start - 2] << 8 | data[topic_start - 1])
            topic = data[topic_start:payload_start]
            route = routes.get(topic)
            if route is None:
                if payload_start > end or (first_byte != unreliable_byte and first_byte != reliable_byte):
                    return position
                route = _open_route(open_route, topic)
                if route is None:
                    return position
            if route.stream is not stream:
                if route_column:
                    return position
                stream = route.stream
            packet_id = 0
            if first_byte == reliable_byte:
                packet_id = data[payload_start] << 8 | data[payload_start + 1]
                if packet_id == 0:
                    return position
                payload_start += 2
            elif first_byte != unreliable_byte:
                return position
            if is_v5:
                if data[payload_start] != 0:
                    return position
                payload_start += 1
            # A length that lies made the bytes above come from the next frame; nothing was kept of them yet.
            if payload_start > end:
                return position
            if packet_id != 0:
                if not packet_ids:
                    packet_ids.extend([0] * len(route_column))
                packet_ids.append(packet_id)
            elif packet_ids:
                packet_ids.append(0)
            route_column.append(route)
            payload_starts.append(payload_start)
            ends.append(end)
            position = end
        return position
    except IndexError:  # the data ends within the frame at `position`
        return position


def _open_route(open_route: Callable[[bytes], RouteT | None], topic: bytes) -> RouteT | None:
    try:
        return open_route(topic)
    except MqttError:
        return None  # `decode_packet` comes to the same frame and raises it again


def _long_length(data: bytes, position: int) -> tuple[int, int]:
    """Remaining Length of three or four bytes, and where a PUBLISH's topic begins; one that is not so ends the run."""
    second, third = data[position + 2], data[position + 3]
    if second > 127:
        length = data[position + 1] & 0x7F | (second & 0x7F) << 7 | (third & 0x7F) << 14
        if 0 < third < 128:
            return length, position + 6
        fourth = data[position + 4]
        if third > 127 and 0 < fourth < 128:
            return length | fourth << 21, position + 7
    raise IndexError


def next_frame(data: bytes, position: int, packet_bytes_max: int) -> tuple[int, int, int] | None:
    """First byte, start of the body and end of the frame at `position`; None while it is not whole.

    `packet_bytes_max` counts the fixed header too, as Maximum Packet Size does (MQTT 5 §3.1.2.11.4). A Remaining Length
    padded with zero bits is taken: 3.1.1 allows it, and small clients write it so that they can fill it in later.

    Raises:
        PacketTooLarge: as soon as the header says so, before the body has come.
        NotAnswered: a Remaining Length of more than four bytes.
    """
    extent = _frame_extent(data, position, packet_bytes_max)
    if extent is None or extent[1] > len(data):
        return None
    return data[position], extent[0], extent[1]


def _frame_extent(data: bytes, position: int, packet_bytes_max: int) -> tuple[int, int] | None:
    extent = read_header(data, position)
    if extent is not None and extent[1] - position > packet_bytes_max:
        raise PacketTooLarge(f"packet of {extent[1] - position} bytes")
    return extent


def read_header(data: bytes, position: int) -> tuple[int, int] | None:
    """Start of the body and end of the frame, which may lie beyond the data; None while the header is not whole.

    Raises:
        NotAnswered: a Remaining Length of more than four bytes.
    """
    size = len(data)
    length = 0
    index = position + 1
    for shift in (0, 7, 14, 21):
        if index >= size:
            return None
        byte = data[index]
        index += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    else:
        raise NotAnswered("Remaining Length of more than four bytes")
    return index, index + length


class Decoder:
    """Packets from reads that are cut anywhere.

    `protocol_level` is 0 until CONNECT comes and sets it; a client sets it itself, to what it sent. A packet that
    breaks a rule ends it: `error` is set, and what comes after is dropped.
    """

    __slots__ = ("_needed_bytes", "_packet_bytes_max", "_tail", "error", "protocol_level")

    def __init__(self, packet_bytes_max: int) -> None:
        self._packet_bytes_max = packet_bytes_max
        self._tail = bytearray()
        self._needed_bytes = 0
        """The size of the frame that `_tail` begins, as soon as it is known: nothing is copied before it is there."""
        self.protocol_level = 0
        self.error: MqttError | None = None

    @property
    def pending_bytes(self) -> int:
        """Bytes of an unfinished packet; less than `packet_bytes_max`."""
        return len(self._tail)

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that are now whole. After a bad one `error` is set; those before it are still returned."""
        packets: list[Packet] = []
        if self.error is not None:
            return packets
        if self._tail:
            self._tail += data
            if len(self._tail) < self._needed_bytes:
                return packets
            data = bytes(self._tail)
            self._tail.clear()
        try:
            position = self._decode(data, packets)
        except MqttError as error:
            self.error = error
        else:
            self._tail += data[position:]
        return packets

    def _decode(self, data: bytes, packets: list[Packet]) -> int:
        """Append the whole packets; returns the position of the unfinished one."""
        position = 0
        self._needed_bytes = 0
        while position < len(data):
            extent = _frame_extent(data, position, self._packet_bytes_max)
            if extent is None:
                break
            body_start, end = extent
            if end > len(data):
                self._needed_bytes = end - position
                break
            packet: Packet = decode_packet(data[position], data[body_start:end], self.protocol_level)
            if isinstance(packet, Connect):
                self.protocol_level = packet.protocol_level
            packets.append(packet)
            position = end
        return position
