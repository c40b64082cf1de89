"""The engine against a model: whatever is subscribed, unsubscribed, lost and published, a ten-line matcher agrees.

The routes that the engine caches, and forgets as subscriptions change, are what this looks for faults in.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.codec.packets import Publish
from tests.support import mqtt_wire as wire
from tests.support.engine_client import EngineClient, make_engine

LEVELS = st.sampled_from(["a", "b", "", "$x"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
FILTERS = (
    st.tuples(st.lists(st.sampled_from(["a", "b", "", "+", "$x"]), min_size=1, max_size=4), st.booleans())
    .map(lambda parts: "/".join([*parts[0], "#"] if parts[1] else parts[0]))
    .filter(bool)
)
CLIENTS = st.integers(0, 3)
STEPS = st.one_of(
    st.tuples(st.just("subscribe"), CLIENTS, FILTERS, st.integers(0, 2)),
    st.tuples(st.just("unsubscribe"), CLIENTS, FILTERS, st.just(0)),
    st.tuples(st.just("unsubscribe_one"), CLIENTS, st.just(""), st.integers(0, 9)),
    st.tuples(st.just("lose"), CLIENTS, st.just(""), st.just(0)),
    st.tuples(st.just("publish"), CLIENTS, TOPICS, st.integers(0, 1)),
    st.tuples(st.just("publish"), CLIENTS, TOPICS, st.integers(0, 1)),
)


def model_matches(topic_filter: str, topic_name: str) -> bool:
    """MQTT 5 §4.7, level by level."""
    filter_levels, levels = topic_filter.split("/"), topic_name.split("/")
    if topic_name.startswith("$") and filter_levels[0] in ("+", "#"):
        return False
    for index, level in enumerate(filter_levels):
        if level == "#":
            return True
        if index >= len(levels) or level not in ("+", levels[index]):
            return False
    return len(filter_levels) == len(levels)


@settings(deadline=None, max_examples=150)
@given(st.lists(STEPS, max_size=60), st.sampled_from([4, 5]), st.sampled_from([250_000, 3]))
def test_engine_delivers_what_the_model_says(
    steps: list[tuple[str, int, str, int]], level: int, routes_max: int
) -> None:
    """With room for all routes and with room for three."""
    engine = make_engine(routes_max=routes_max)

    def connected(index: int) -> EngineClient:
        client = EngineClient(engine, level)
        client.connect(f"client-{index}")
        client.received()
        return client

    clients = [connected(index) for index in range(4)]
    publisher = connected(9)
    model: list[dict[str, int]] = [{} for _ in clients]
    for number, (kind, index, text, qos) in enumerate(steps):
        client, subscriptions = clients[index], model[index]
        if kind == "subscribe":
            client.send_bytes(wire.subscribe(1, (text, qos), version=level))
            client.received()
            subscriptions[text] = qos
        elif kind in ("unsubscribe", "unsubscribe_one"):
            kept = list(subscriptions)
            topic_filter = kept[qos % len(kept)] if kind == "unsubscribe_one" and kept else text or "a"
            client.send_bytes(wire.unsubscribe(1, topic_filter, version=level))
            client.received()
            subscriptions.pop(topic_filter, None)
        elif kind == "lose":
            client.lose()
            clients[index] = connected(index)
            subscriptions.clear()
        else:
            payload = b"%d" % number
            publisher.send_bytes(wire.publish(text, payload, qos, 1 if qos else 0, version=level))
            publisher.received()
            for each, held in zip(clients, model, strict=True):
                matching = [granted for topic_filter, granted in held.items() if model_matches(topic_filter, text)]
                expected = [(text, payload, min(qos, max(matching)))] if matching else []
                found = each.received()
                assert all(isinstance(packet, Publish) for packet in found)
                assert [(p.topic_name, p.payload, p.qos) for p in found if isinstance(p, Publish)] == expected
                for packet in found:
                    if isinstance(packet, Publish) and packet.qos:
                        each.send_bytes(wire.acknowledgement(wire.PUBACK, packet.packet_id))
