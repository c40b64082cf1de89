"""Publishes of the server itself: many rows as one run, past the cache of routes, which is for what devices send."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.codec.encode import encode_publish_head
from broker.presence import SERVER_CLIENT_ID
from broker.publish_run import PublishRun
from broker.retained import RetainedMessage
from broker.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.sink import SinkTopic

FIRST_BYTE = 0x32
"""PUBLISH with QoS 1."""
PACKET_ID_AND_NO_PROPERTIES = b"\0\x01\0"
TOPIC_BYTES_MAX = 65_535


def own_runs(
    rows: Sequence[tuple[str, bytes]], open_topic: Callable[[str], SinkTopic | None], now_ms: int, *, retain: bool
) -> list[PublishRun]:
    """Rows (topic name, payload) as MQTT 5 frames of QoS 1, in order; a run for each stretch of one stream.

    Nobody waits for them to be stored: they have no origin and nothing of them is acknowledged.
    """
    runs: list[PublishRun] = []
    first_byte = FIRST_BYTE | 1 if retain else FIRST_BYTE
    chunks: list[bytes] = []
    routes: list[Route] = []
    payload_starts: list[int] = []
    ends: list[int] = []
    size = 0

    def finish() -> None:
        run = PublishRun(
            b"".join(chunks),
            0,
            routes,
            payload_starts,
            ends,
            [1] * len(routes),
            is_v5=True,
            client_id=SERVER_CLIENT_ID,
            received_at_ms=now_ms,
            qos=1,
            retain=retain,
        )
        runs.append(run)

    for topic_name, payload in rows:
        topic = topic_name.encode()
        route = Route(topic_name, len(topic).to_bytes(2, "big") + topic, open_topic(topic_name))
        route.is_cached = False
        if routes and route.stream is not routes[0].stream:
            finish()
            chunks, routes, payload_starts, ends, size = [], [], [], [], 0
        head = encode_publish_head(first_byte, 2 + len(topic) + 3 + len(payload))
        chunks += (head, route.encoded_topic, PACKET_ID_AND_NO_PROPERTIES, payload)
        size += len(head) + 2 + len(topic) + 3 + len(payload)
        routes.append(route)
        payload_starts.append(size - len(payload))
        ends.append(size)
    if routes:
        finish()
    return runs


def own_retained(topic_name: str, payload: bytes, time_ms: int) -> RetainedMessage:
    """A retained message of the server's own, made when someone asks for it."""
    (run,) = own_runs([(topic_name, payload)], lambda _: None, time_ms, retain=True)
    return RetainedMessage.of(run)
