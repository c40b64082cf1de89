"""Runs as devices send them, as strategies of hypothesis, and the batches that become of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from bridge.records import RecordRun, Topic
from bridge.streams.kafka.batches import BatchBuilder, Heads
from broker.codec.constants import PUBLISH
from broker.codec.primitives import decode_variable_byte_integer
from broker.codec.properties import Properties, encode_properties
from broker.publish_run import PublishRun
from tests.support.log_contract import RunMaker

BYTES_MAX = 900_000
PRODUCER = (77, 3, 12_345)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=20)
property_values = st.fixed_dictionaries(
    {},
    optional={
        "content_type": texts,
        "response_topic": texts,
        "correlation_data": st.binary(max_size=90),
        "message_expiry_interval": st.integers(0, 2**32 - 1),
        "payload_format_indicator": st.sampled_from([0, 1]),
        "user_properties": st.lists(st.tuples(texts, texts), min_size=1, max_size=3),
    },
)
payloads = st.one_of(st.binary(max_size=90), st.just(9_000))
runs = st.fixed_dictionaries(
    {
        "payloads": st.lists(payloads, min_size=1, max_size=6),
        "topics": st.lists(texts, min_size=1, max_size=4),
        "time_ms": st.integers(1_795_374_000_000, 1_795_374_009_000),
        "client_id": texts,
        "qos": st.sampled_from([0, 1, 2]),
        "properties": st.one_of(st.none(), property_values),
        "before": st.binary(max_size=5),
    }
)


@dataclass
class Part:
    """What a builder is given."""

    run: PublishRun | RecordRun
    rows: Sequence[int]
    topics: Sequence[Topic]
    node_run: str = "n7aaaa"

    @property
    def keys(self) -> list[bytes]:
        return [self.topics[row].encoded for row in self.rows]


def part(maker: RunMaker, case: dict[str, Any]) -> Part:
    encoded = None
    if case["properties"] is not None:
        properties = Properties()
        for name, value in case["properties"].items():
            setattr(properties, name, value)
        encoded = encode_properties(properties, PUBLISH)
        _, length_end = decode_variable_byte_integer(encoded, 0)
        encoded = encoded[length_end:]
    payloads = [bytes(payload) for payload in case["payloads"]]  # a number is a length
    run = maker.run(**{**case, "payloads": payloads, "properties": encoded})
    topics: list[Topic] = [route.sink_topic for route in run.routes]  # type: ignore[misc]
    return Part(run, range(len(run)), topics)


def built(
    parts: Sequence[Part], compression: int = 0, bytes_max: int = BYTES_MAX, count_max: int = 1_000
) -> tuple[bytes, int]:
    builder = BatchBuilder(Heads(), compression, bytes_max)
    for each in parts:
        builder.add(each.run, each.rows, each.topics, each.keys, each.node_run, count_max)
    return builder.build(*PRODUCER), builder.count


def a_case(**changes: object) -> dict[str, Any]:
    return {
        "payloads": [b"21.5", b"{}", b""],
        "topics": ["site/1", "site/2"],
        "time_ms": 1_795_374_000_123,
        "client_id": "p1",
        "qos": 1,
        "properties": None,
        "before": b"",
    } | changes
