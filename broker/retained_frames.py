"""Retained messages on their way to a new subscription of QoS 0: from stored frame to sent frame, no packet between.

A dashboard that subscribes to `#` gets them all at once, so this is the one place where their number counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.codec.encode import encode_publish_head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.retained import RetainedMessage
    from broker.sessions.session import Session

RETAINED_QOS_0 = 0x31
"""First byte of a PUBLISH with RETAIN, as it is sent to a new subscription. [MQTT-3.3.1-8]"""


SHORT_LENGTH = 128
_HEADS = [bytes((RETAINED_QOS_0, length)) for length in range(SHORT_LENGTH)]
"""By Remaining Length."""


def retained_frame(message: RetainedMessage, is_v5: bool) -> bytes:
    """The message as a QoS 0 PUBLISH with RETAIN; one that expires has its whole interval."""
    frame = message.frame
    if frame[0] & 0x06 and frame[1] < SHORT_LENGTH and not is_v5 and not message.is_v5:
        topic_end = 4 + (frame[2] << 8 | frame[3])
        return _HEADS[frame[1] - 2] + frame[2:topic_end] + frame[topic_end + 2 :]  # half of what the general way takes
    has_packet_id = frame[0] & 0x06 != 0
    if not has_packet_id and message.is_v5 is is_v5 and frame[0] == RETAINED_QOS_0:
        return frame
    topic = 1
    while frame[topic] & 0x80:
        topic += 1
    topic += 1
    topic_end = topic + 2 + (frame[topic] << 8 | frame[topic + 1])
    rest = topic_end + (2 if has_packet_id else 0)
    if message.is_v5 is not is_v5:
        if is_v5:
            return b"".join(
                (
                    encode_publish_head(RETAINED_QOS_0, topic_end - topic + 1 + len(frame) - rest),
                    frame[topic:topic_end],
                    b"\0",
                    frame[rest:],
                )
            )
        length = shift = 0
        while True:
            digit = frame[rest]
            length |= (digit & 0x7F) << shift
            shift += 7
            rest += 1
            if digit < 0x80:
                break
        rest += length
    head = encode_publish_head(RETAINED_QOS_0, topic_end - topic + len(frame) - rest)
    return head + frame[topic:topic_end] + frame[rest:]


def send_retained_qos0(session: Session, messages: Sequence[RetainedMessage]) -> list[RetainedMessage]:
    """Send messages to a client that takes any frame, and counts no aliases; returns those that expire, not sent."""
    outbox = session.outbox
    assert outbox is not None
    is_v5 = session.is_v5
    expiring: list[RetainedMessage] = []
    frames: list[bytes] = []
    for message in messages:
        if message.expires_at_ms:
            expiring.append(message)
        else:
            frames.append(retained_frame(message, is_v5))
    if frames:
        outbox.append(b"".join(frames))
        session.count_sent(len(frames))
    return expiring
