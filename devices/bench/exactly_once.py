"""The two ends of a QoS 2 load: PUBLISH, PUBREC, PUBREL, PUBCOMP, each checked to come once and in order.

What comes is a mixture of packets, so it is taken in runs: many of one kind at once where a server writes them so, one
by one where it does not, without numpy, which costs more than a packet.
Source: MQTT 3.1.1 §4.3.3, §4.6.
"""

from __future__ import annotations

import numpy as np

from devices.bench.checks import CheckFailed, PublishChecker
from devices.bench.endpoints import Block, Publisher, Subscriber
from devices.bench.frames import PACKET_ID_COUNT, PACKET_IDS, Column, PublishLayout
from devices.bench.wire import Connection

PUBREC, PUBREL, PUBCOMP = 0x5002, 0x6202, 0x7002
"""The first two bytes of each."""
RUN_MAX = 2_048
"""So many packets are looked at in one step, so that many short runs do not each look at all that came."""
SHORT_RUN = 4


def _encode(kind: int, packet_ids: Column) -> bytes:
    words = packet_ids.astype(">u4")
    words |= kind << 16
    return words.tobytes()


def _ids(first: int, count: int) -> Column:
    """Packet ids of a publisher's messages `first`, …; at most PACKET_ID_COUNT of them."""
    start = first % PACKET_ID_COUNT
    return PACKET_IDS[start : start + count]


class ExactlyOncePublisher(Publisher):
    """Sends QoS 2, answers each PUBREC with PUBREL; a message counts as acknowledged with its PUBCOMP."""

    def __init__(self, connection: Connection, name: str, block: Block, *, window: int) -> None:
        super().__init__(connection, name, block, window=window, is_acked=True)
        self._recorded = 0
        """Messages whose PUBREC came."""
        self._releases = bytearray()

    def on_writable(self) -> None:
        if not self.resume():
            return
        if self._releases:
            releases, self._releases = self._releases, bytearray()
            if not self.send(memoryview(releases)):
                return
        self.pump()

    def on_readable(self, buffer: bytearray, view: memoryview) -> None:
        tail_bytes = len(self._tail)
        view[:tail_bytes] = self._tail
        have = tail_bytes + self.receive(view[tail_bytes:])
        rows, rest = divmod(have, 4)
        if rows:
            self._take(np.ndarray((rows,), dtype=">u4", buffer=buffer).astype(np.uint32))
        self._tail = bytes(view[have - rest : have])

    def _take(self, words: Column) -> None:
        kinds = words >> 16
        recorded = words[kinds == PUBREC] & 0xFFFF
        completed = words[kinds == PUBCOMP] & 0xFFFF
        if len(recorded) + len(completed) != len(words):
            raise CheckFailed(f"{self.name}: neither PUBREC nor PUBCOMP came")
        self._expect(recorded, self._recorded, "PUBREC")
        self._expect(completed, self.checker.received, "PUBCOMP")
        self._recorded += len(recorded)
        self.checker.received += len(completed)
        if self.checker.received > self._recorded:
            raise CheckFailed(f"{self.name}: PUBCOMP came before PUBREC")
        if len(recorded):
            self._releases += _encode(PUBREL, recorded)
            if not self.is_blocked:
                self.on_writable()

    def _expect(self, packet_ids: Column, first: int, what: str) -> None:
        expected = _ids(first, len(packet_ids))
        if not (packet_ids == expected).all():
            row = int(np.argmax(packet_ids != expected))
            raise CheckFailed(f"{self.name}: {what} {packet_ids[row]} came where {expected[row]} was due")


class ExactlyOnceSubscriber(Subscriber):
    """Receives QoS 2, answers PUBREC and PUBCOMP, and sees that PUBRELs come in the order of the PUBRECs."""

    def __init__(self, connection: Connection, name: str, layout: PublishLayout) -> None:
        self._checker = PublishChecker(layout, name)
        super().__init__(connection, name, layout, self._checker)
        assert layout.packet_id_offset is not None, "QoS 2 has packet ids"
        self._id_offset = layout.packet_id_offset
        self._unreleased = bytearray()
        """Packet ids without a PUBREL, as they came."""

    def on_readable(self, buffer: bytearray, view: memoryview) -> None:
        tail_bytes = len(self._tail)
        view[:tail_bytes] = self._tail
        have = tail_bytes + self.receive(view[tail_bytes:])
        position = 0
        while (taken := self._take(buffer, position, have)) > 0:
            position += taken
        self._tail = bytes(view[position:have])
        if self._acknowledgements and not self.is_blocked:
            self.on_writable()

    def _take(self, buffer: bytearray, position: int, have: int) -> int:
        """Bytes of the run of equal packets that begins at a position."""
        if have - position < 4:
            return 0
        is_release = buffer[position] == PUBREL >> 8
        size = 4 if is_release else self._layout.frame_bytes
        rows = min(RUN_MAX, (have - position) // size)
        if not rows:
            return 0
        further = position + SHORT_RUN * size
        if rows <= SHORT_RUN or (buffer[further] == PUBREL >> 8) != is_release:
            (self._take_release if is_release else self._take_publish)(buffer, position)
            return size
        heads: Column = np.ndarray((rows,), dtype="u1", buffer=buffer, offset=position, strides=(size,))
        others = (heads == PUBREL >> 8) != is_release
        if others.any():
            rows = int(np.argmax(others))
        (self._take_releases if is_release else self._take_publishes)(buffer, position, rows)
        return rows * size

    def _take_publish(self, buffer: bytearray, position: int) -> None:
        self._checker.check_one(buffer, position)
        packet_id = buffer[position + self._id_offset : position + self._id_offset + 2]
        self._unreleased += packet_id
        self._acknowledgements += b"\x50\x02" + packet_id

    def _take_publishes(self, buffer: bytearray, position: int, rows: int) -> None:
        self._checker.check(buffer, rows, position)
        packet_ids = self._layout.field(buffer, self._id_offset, ">u2", position, rows)
        self._unreleased += packet_ids.tobytes()
        self._acknowledgements += _encode(PUBREC, packet_ids)

    def _take_release(self, buffer: bytearray, position: int) -> None:
        packet_id = buffer[position + 2 : position + 4]
        if self._unreleased[:2] != packet_id or buffer[position + 1] != 2:
            self._fail_release(bytes(packet_id))
        del self._unreleased[:2]
        self._acknowledgements += b"\x70\x02" + packet_id

    def _take_releases(self, buffer: bytearray, position: int, rows: int) -> None:
        words: Column = np.ndarray((rows,), dtype=">u4", buffer=buffer, offset=position)
        packet_ids = (words & 0xFFFF).astype(">u2").tobytes()
        if (words >> 16 != PUBREL).any() or self._unreleased[: 2 * rows] != packet_ids:
            self._fail_release(packet_ids)
        del self._unreleased[: 2 * rows]
        self._acknowledgements += _encode(PUBCOMP, words & 0xFFFF)

    def _fail_release(self, packet_ids: bytes) -> None:
        due = bytes(self._unreleased[: len(packet_ids)])
        raise CheckFailed(f"{self.name}: PUBREL came for {packet_ids.hex(' ', 2)} where {due.hex(' ', 2)} was due")
