"""Delivery: rows of a run on their way to subscribers, encoded at most once for each form.

A form is (MQTT version, QoS of the delivery). For the common forms the bytes of the publisher's read are used as they
stand; a QoS 1 delivery only gets other packet ids between the slices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.codec import constants
from broker.codec.encode import encode_publish_head
from broker.codec.properties import Properties, decode_properties, encode_properties

if TYPE_CHECKING:
    from broker.publish_run import PublishRun


class Delivery:
    """Rows `row` to `end_row - 1` of `run`, all of the same QoS as published."""

    __slots__ = ("_parts", "_qos0_v4", "_qos0_v5", "end_row", "is_reliable", "row", "run", "share")

    def __init__(self, run: PublishRun, row: int, end_row: int, is_reliable: bool, share: str = "") -> None:
        self.run = run
        self.row = row
        self.end_row = end_row
        self.is_reliable = is_reliable
        """The rows were published with QoS 1 or 2."""
        self.share = share
        """The shared subscription, `$share/name/filter`, for which one session takes them; empty: none."""
        self._qos0_v4: bytes | None = None
        self._qos0_v5: bytes | None = None
        self._parts: dict[tuple[bool, int], list[bytes]] | None = None

    def qos0(self, is_v5: bool) -> bytes:
        """The rows as QoS 0 frames without RETAIN, back to back."""
        if is_v5:
            if self._qos0_v5 is None:
                self._qos0_v5 = self._encode_qos0(True)
            return self._qos0_v5
        if self._qos0_v4 is None:
            self._qos0_v4 = self._encode_qos0(False)
        return self._qos0_v4

    def _encode_qos0(self, is_v5: bool) -> bytes:
        run = self.run
        if run.is_v5 == is_v5 and run.is_plain and not self.is_reliable:
            if run.retain:
                return without_retain(run, self.row, self.end_row)
            return run.data[run.frame_start(self.row) : run.ends[self.end_row - 1]]
        frames: list[bytes] = []
        for row in range(self.row, self.end_row):
            front, back = split_frame(run, row, is_v5, 0)
            frames.append(front)
            frames.append(back)
        return b"".join(frames)

    def reliable_parts(self, is_v5: bool, qos: int) -> list[bytes]:
        """The rows as QoS 1 or 2 frames without RETAIN, with a place for a packet id at each odd index.

        The list is shared: copy it before the ids are put in.
        """
        if self._parts is None:
            self._parts = {}
        parts = self._parts.get((is_v5, qos))
        if parts is None:
            parts = self._parts[is_v5, qos] = self._encode_reliable(is_v5, qos)
        return parts

    def _encode_reliable(self, is_v5: bool, qos: int) -> list[bytes]:
        run = self.run
        data = run.data
        parts = [b""] * (2 * (self.end_row - self.row) + 1)
        if run.is_plain and run.is_v5 == is_v5 and (run.qos == 2) is (qos == 2):
            # From one packet id to the next is one slice of the read: a payload and the next frame's head.
            before = 1 if is_v5 else 0  # the empty property length stands between packet id and payload
            first, end = run.frame_start(self.row), run.ends[self.end_row - 1]
            if run.retain:
                data = without_retain(run, self.row, self.end_row)
                before, first, end = before + first, 0, end - first
            starts = run.payload_starts[self.row : self.end_row]
            if before:
                starts = [start - before for start in starts]
            parts[0] = data[first : starts[0] - 2]
            # Compiled code walks two lists at once without making a tuple for each step, as pairwise does.
            parts[2:-1:2] = [data[start : after - 2] for start, after in zip(starts, starts[1:])]  # noqa: B905, RUF007
            parts[-1] = data[starts[-1] : end]
            return parts
        previous_back = b""
        index = 0
        for row in range(self.row, self.end_row):
            front, back = split_frame(run, row, is_v5, qos)
            parts[index] = previous_back + front
            previous_back = back
            index += 2
        parts[index] = previous_back
        return parts


def without_retain(run: PublishRun, row: int, end_row: int) -> bytes:
    """Rows of a run as they were published, but without RETAIN. [MQTT-3.3.1-12]"""
    start = run.frame_start(row)
    frames = bytearray(run.data[start : run.ends[end_row - 1]])
    frames[0] &= 0xFE
    for end in run.ends[row : end_row - 1]:
        frames[end - start] &= 0xFE
    return bytes(frames)


def split_frame(
    run: PublishRun,
    row: int,
    is_v5: bool,
    qos: int,
    *,
    retain: bool = False,
    identifiers: tuple[int, ...] = (),
    now_ms: int = 0,
    alias: int = 0,
    is_alias_known: bool = False,
) -> tuple[bytes, bytes]:
    """One row as a PUBLISH for a subscriber, cut where the packet id belongs (QoS 0: joined it is the frame).

    `identifiers` are the subscription identifiers to name (MQTT 5 §3.3.2.3.8). A message expiry interval is reduced by
    the time that the message waited until `now_ms`. [MQTT-3.3.2-6] With a topic `alias` that the client knows already
    the topic name is left out.
    """
    route = run.routes[row]
    payload = run.data[run.payload_starts[row] : run.ends[row]]
    properties = row_properties(run, row, identifiers, now_ms, alias) if is_v5 else b""
    encoded_topic = b"\0\0" if is_alias_known else route.encoded_topic
    length = len(encoded_topic) + len(properties) + len(payload) + (2 if qos else 0)
    first_byte = 0x30 | qos << 1 | (1 if retain else 0)
    return encode_publish_head(first_byte, length) + encoded_topic, properties + payload


def row_properties(run: PublishRun, row: int, identifiers: tuple[int, ...], now_ms: int, alias: int = 0) -> bytes:
    """A row's properties with their length, as an MQTT 5 subscriber gets them."""
    if run.is_plain or not run.is_v5:
        encoded = b"\0"
    else:
        frame_start = run.frame_start(row)
        position = frame_start + 1
        while run.data[position] & 0x80:
            position += 1
        position += 1 + len(run.routes[row].encoded_topic) + (2 if run.data[frame_start] & 0x06 else 0)
        encoded = run.data[position : run.payload_starts[row]]
    if not identifiers and not run.expires_at_ms:
        if not alias:
            return encoded
        if encoded == b"\0":
            return b"\x03\x23" + alias.to_bytes(2, "big")
    properties, _ = decode_properties(encoded, 0, constants.PUBLISH)
    if properties is None:
        properties = Properties()
    if identifiers:
        properties.subscription_identifiers = list(identifiers)
    if alias:
        properties.topic_alias = alias
    if run.expires_at_ms and now_ms:
        left_s = (run.expires_at_ms - now_ms + 999) // 1000
        # A clock that was set back gives no message more life than it was published with.
        properties.message_expiry_interval = max(1, min(left_s, properties.message_expiry_interval or left_s))
    return encode_properties(properties, constants.PUBLISH)
