"""RetainedMessage: the last message with RETAIN of one topic (MQTT 5 §3.3.1.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.codec.decode import decode_packet, next_frame

if TYPE_CHECKING:
    from broker.codec.packets import Publish
    from broker.publish_run import PublishRun

OVERHEAD_BYTES = 300
"""What a retained message costs beside its frame and topic, for the limit of bytes."""


class RetainedMessage:
    """One retained message; `frame` is its canonical record."""

    __slots__ = ("client_id", "expires_at_ms", "frame", "is_v5", "received_at_ms", "topic_name")

    def __init__(self, run: PublishRun) -> None:
        self.topic_name = run.routes[0].topic_name
        self.frame = run.data[run.start : run.ends[0]]
        self.is_v5 = run.is_v5
        self.client_id = run.client_id
        self.received_at_ms = run.received_at_ms
        self.expires_at_ms = run.expires_at_ms

    @property
    def size(self) -> int:
        """Bytes that count against `retained_bytes_max`."""
        return len(self.frame) + len(self.topic_name) + OVERHEAD_BYTES

    def publish(self) -> Publish:
        """The message as a packet."""
        frame = next_frame(self.frame, 0, len(self.frame))
        assert frame is not None
        first_byte, body_start, end = frame
        packet: Publish = decode_packet(first_byte, self.frame[body_start:end], 5 if self.is_v5 else 4)
        return packet
