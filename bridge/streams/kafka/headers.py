"""The headers of a record of ours, as the contract's §7 fixes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.encoding import properties_start
from broker.codec.constants import PUBLISH
from broker.codec.properties import decode_properties

if TYPE_CHECKING:
    from bridge.records import RecordRun
    from broker.publish_run import PublishRun

Header = tuple[str, bytes]

USER_PREFIX = "mqtt.user."
PROPERTY_NAMES = (
    "mqtt.content_type",
    "mqtt.response_topic",
    "mqtt.correlation_data",
    "mqtt.message_expiry_interval",
    "mqtt.payload_format_indicator",
)
"""Headers that a record has only when it has the property, beside those of `USER_PREFIX`."""
_DIGITS = [b"0", b"1", b"2", b"3"]


def headers_of(run: PublishRun | RecordRun, row: int, topic: bytes, node_run: str, number: int) -> list[Header]:
    """A record's headers, in the order of the contract."""
    data = run.data
    frame_start = run.ends[row - 1] if row else run.start
    headers = [
        *kind_headers(data[frame_start], topic, run.client_id),
        ("mqtt.id", f"{node_run}-{number}".encode()),
        ("mqtt.time", b"%d" % run.received_at_ms),
    ]
    if run.is_v5:
        headers += _property_headers(data, frame_start)
    return headers


def kind_headers(first_byte: int, topic: bytes, client_id: str) -> list[Header]:
    """Those that all records of a topic, a client and a kind of frame have in common."""
    return [
        ("mqtt.topic", topic),
        ("mqtt.qos", _DIGITS[first_byte >> 1 & 3]),
        ("mqtt.retain", _DIGITS[first_byte & 1]),
        ("mqtt.client_id", client_id.encode()),
    ]


def _property_headers(data: bytes, frame_start: int) -> list[Header]:
    position = properties_start(data, frame_start)
    if not data[position]:
        return []
    properties, _ = decode_properties(data, position, PUBLISH)
    if properties is None:
        return []
    headers: list[Header] = []
    if properties.content_type is not None:
        headers.append(("mqtt.content_type", properties.content_type.encode()))
    if properties.response_topic is not None:
        headers.append(("mqtt.response_topic", properties.response_topic.encode()))
    if properties.correlation_data is not None:
        headers.append(("mqtt.correlation_data", properties.correlation_data))
    if properties.message_expiry_interval is not None:
        headers.append(("mqtt.message_expiry_interval", b"%d" % properties.message_expiry_interval))
    if properties.payload_format_indicator is not None:
        headers.append(("mqtt.payload_format_indicator", b"%d" % properties.payload_format_indicator))
    headers += [(USER_PREFIX + name, value.encode()) for name, value in properties.user_properties or ()]
    return headers
