"""Each limit of the engine: what happens over it, that it is counted, and that nobody else notices."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.codec.packets import (
    Connack,
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Subscription,
)
from broker.codec.properties import Properties
from broker.engine import Engine
from broker.protocol.connection import PAUSED_BY_RATE
from broker.protocol.handlers.fan_out import SLICE
from tests.support.engine_client import NOW_MS, EngineClient, connect_packet, make_engine, turn


def connected(engine: Engine, client_id: str, level: int = 5, **more: object) -> EngineClient:
    client = EngineClient(engine, level)
    client.connect(client_id, **more)
    return client


def publish(topic_name: str = "a", payload: bytes = b"x", qos: int = 0, packet_id: int = 0, **more: bool) -> Publish:
    return Publish(topic_name, payload, qos, more.get("retain", False), False, packet_id, Properties())


def refused(engine: Engine, client_id: str = "one-more", level: int = 5) -> int:
    """The code with which a CONNECT is refused."""
    client = EngineClient(engine, level)
    client.send(connect_packet(client_id, level))
    connack = client.received()[0]
    assert isinstance(connack, Connack)
    assert client.transport.is_closed
    return connack.reason_code


def last(client: EngineClient) -> object:
    return client.received()[-1]


def properties(**values: int) -> Properties:
    made = Properties()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def disconnected_with(code: int, *packets: Publish) -> Callable[[Engine, EngineClient], None]:
    def check(engine: Engine, client: EngineClient) -> None:
        client.send(*packets)
        told = last(client)
        assert isinstance(told, Disconnect)
        assert told.reason_code == code

    return check


def subscribed_with(code: int, *filters: str) -> Callable[[Engine, EngineClient], None]:
    def check(engine: Engine, client: EngineClient) -> None:
        for index, topic_filter in enumerate(filters):
            client.send(Subscribe(index + 1, [Subscription(topic_filter, 0)], Properties()))
        told = last(client)
        assert isinstance(told, Suback)
        assert told.reason_codes == [code]

    return check


def over_members(engine: Engine, client: EngineClient) -> None:
    connected(engine, "member").subscribe("$share/a/x")
    subscribed_with(0x97, "$share/a/x")(engine, client)


def acknowledged_with(code: int, *packets: Publish) -> Callable[[Engine, EngineClient], None]:
    def check(engine: Engine, client: EngineClient) -> None:
        client.send(*packets)
        told = last(client)
        assert isinstance(told, Puback)
        assert told.reason_code == code

    return check


def aliased() -> Publish:
    packet = publish()
    packet.properties = properties(topic_alias=6)
    return packet


def over_queue(engine: Engine, client: EngineClient) -> None:
    away = connected(engine, "away", clean=False, properties=properties(session_expiry_interval=60))
    away.subscribe("q", 1)
    away.lose()
    for number in range(1, 5):
        client.send(publish("q", b"x" * 100, 1, number))
    assert engine.metrics.dropped_messages["queue_full"] in {1, 2}


def over_outbox(engine: Engine, client: EngineClient) -> None:
    slow, fast = connected(engine, "slow"), connected(engine, "fast")
    for each in (slow, fast):
        each.subscribe("q")
    slow.connection.pause_writing()
    for _ in range(3):
        client.send(publish("q", b"x" * 70_000))
    assert engine.metrics.dropped_messages["outbox_full"] == 2
    assert len(fast.received()) == 3


def over_routes(engine: Engine, client: EngineClient) -> None:
    client.send(*(publish(f"r/{number}") for number in range(1_001)))


def over_fan_outs(engine: Engine, client: EngineClient) -> None:
    many = 4 * SLICE
    client.send(*(publish(f"r/{number}", retain=True) for number in range(many)))
    first, second = connected(engine, "first"), connected(engine, "second")
    assert len([packet for packet in first.subscribe("r/#") if isinstance(packet, Publish)]) < many
    assert len([packet for packet in second.subscribe("r/#") if isinstance(packet, Publish)]) == many


def over_time(seconds: int, client_id: str | None = None) -> Callable[[Engine, EngineClient], None]:
    def check(engine: Engine, client: EngineClient) -> None:
        silent = EngineClient(engine)
        if client_id is not None:
            silent.connect(client_id)
            silent.send_bytes(b"\xe0\0")  # DISCONNECT; its transport takes no last bytes
        for _ in range(seconds + 1):
            engine.tick(NOW_MS)
        turn(engine)
        assert silent.transport.is_closed

    return check


def over_unreleased(engine: Engine, client: EngineClient) -> None:
    disconnected_with(0x93, *(publish("u", b"x", 2, number) for number in range(1, 4)))(engine, client)


def asks_for(**values: int) -> Callable[[Engine, EngineClient], None]:
    def check(engine: Engine, client: EngineClient) -> None:
        asking = EngineClient(engine, 5)
        keep_alive_s = values.get("keep_alive_s", 0)
        own = {name: value for name, value in values.items() if name != "keep_alive_s"}
        connack = asking.connect("asks", keep_alive_s=keep_alive_s, properties=properties(**own))
        assert connack.properties is not None
        told = connack.properties.server_keep_alive if keep_alive_s else connack.properties.session_expiry_interval
        assert told == 10

    return check


def over_connections(code: int) -> Callable[[Engine, EngineClient], None]:
    def check(engine: Engine, client: EngineClient) -> None:
        connected(engine, "second")
        assert refused(engine) == code

    return check


LIMITS: list[tuple[str, int, Callable[[Engine, EngineClient], None]]] = [
    ("packet_bytes_max", 1_024, disconnected_with(0x95, publish(payload=b"x" * 2_000))),
    ("connections_max", 2, over_connections(0x97)),
    ("connects_per_s_max", 2, over_connections(0x9F)),
    ("sessions_max", 2, over_connections(0x97)),
    ("receive_maximum", 2, over_unreleased),
    ("topic_alias_maximum", 5, disconnected_with(0x94, aliased())),
    ("unreleased_per_client_max", 2, over_unreleased),
    ("queued_messages_max", 3, over_queue),
    ("queued_bytes_max", 200, over_queue),
    ("outbox_bytes_max", 65_536, over_outbox),
    ("subscriptions_per_client_max", 1, subscribed_with(0x97, "a", "b")),
    ("subscription_topic_levels_max", 3, subscribed_with(0x8F, "a/b/c/d")),
    ("shared_groups_max", 1, subscribed_with(0x97, "$share/a/x", "$share/b/x")),
    ("shared_members_max", 1, over_members),
    ("topic_levels_max", 3, disconnected_with(0x90, publish("a/b/c/d"))),
    (
        "retained_messages_max",
        1,
        acknowledged_with(0x97, publish("a", retain=True), publish("b", b"x", 1, 1, retain=True)),
    ),
    ("retained_bytes_max", 1_000, acknowledged_with(0x97, publish("b", b"x" * 2_000, 1, 1, retain=True))),
    ("routes_max", 1_000, over_routes),
    ("routes_bytes_max", 1_000, over_routes),
    ("retained_fan_outs_max", 1, over_fan_outs),
    ("connect_timeout_s", 3, over_time(4)),
    ("close_timeout_s", 3, over_time(4, "goes")),
    ("session_expiry_s_max", 10, asks_for(session_expiry_interval=20)),
    ("keep_alive_s_max", 10, asks_for(keep_alive_s=20)),
]


@pytest.mark.parametrize(("name", "value", "check"), LIMITS, ids=[name for name, _, _ in LIMITS])
def test_limit_is_kept_counted_and_nobody_elses_business(
    name: str, value: int, check: Callable[[Engine, EngineClient], None]
) -> None:
    engine = make_engine(**{name: value})
    bystander, client = connected(engine, "bystander"), None
    if name not in {"connections_max", "sessions_max", "connects_per_s_max"}:
        client = connected(engine, "client")
    assert not engine.metrics.limits.count
    check(engine, client or bystander)
    assert engine.metrics.limits.count[name] >= 1
    assert engine.metrics.limits.last_ms[name] == NOW_MS
    bystander.received()
    bystander.send(Pingreq())
    assert isinstance(bystander.received()[-1], Pingresp)


@pytest.mark.parametrize("level", [4, 5])
def test_late_loop_refuses_new_clients_and_serves_the_others(level: int) -> None:
    engine = make_engine()
    there = connected(engine, "there")
    there.subscribe("a", 1)
    engine.is_late = lambda: True
    assert refused(engine, level=level) == (0x97 if level == 5 else 3)
    assert engine.is_full()
    there.send(publish("a", b"x", 1, 1))
    assert [type(packet) for packet in there.received()] == [Publish, Puback]
    engine.is_late = lambda: False
    connected(engine, "later", level)
    assert engine.metrics.limits.count == {"loop_delay_ms_max": 2}


def test_rate_of_connects_begins_anew_each_second() -> None:
    engine = make_engine(connects_per_s_max=1)
    connected(engine, "a")
    assert refused(engine, level=4) == 3
    engine.tick(NOW_MS)
    connected(engine, "b")


def test_client_over_its_rate_is_not_read_from_and_loses_nothing() -> None:
    engine = make_engine(client_messages_per_s_max=10)
    client, other = connected(engine, "fast", keep_alive_s=2), connected(engine, "other")
    other.subscribe("a")
    client.send(*(publish() for _ in range(15)))
    assert not client.transport.is_reading
    assert len(other.received()) == 15
    assert engine.metrics.limits.count == {"client_messages_per_s_max": 1}
    ((held, wait_ms),) = engine.held
    assert held is client.connection
    assert wait_ms == 501
    for _ in range(10):
        engine.tick(NOW_MS)  # the keep alive does not run while it is held
    assert client.connection.close_reason is None
    held.resume_reading(PAUSED_BY_RATE)
    assert client.transport.is_reading
    other.send(*(publish() for _ in range(10)))
    assert other.transport.is_reading


def test_who_is_held_twice_is_read_from_when_both_let_go() -> None:
    engine = make_engine(client_bytes_per_s_max=1_000)
    client = connected(engine, "both")
    client.send(publish(payload=b"x" * 2_000))
    client.connection.pause_reading()
    client.connection.resume_reading(PAUSED_BY_RATE)
    assert not client.transport.is_reading
    assert client.connection.is_paused
    client.connection.resume_reading()
    assert client.transport.is_reading
    assert not client.connection.is_paused
