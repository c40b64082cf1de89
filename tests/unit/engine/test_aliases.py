"""Topic aliases towards a client: by traffic, within its maximum, and never a topic that it does not know."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.codec.packets import Publish
from broker.codec.properties import Properties
from broker.engine import Engine
from broker.sessions.aliases import CONTEST_MESSAGES, OutboundAliases
from tests.support.engine_client import EngineClient, make_engine


class Reader:
    """What a client makes of aliases."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.topic_by_alias: dict[int, bytes] = {}

    def read(self, topic: bytes, alias: int, is_known: bool) -> bytes:
        assert 0 <= alias <= self.maximum
        if is_known:
            return self.topic_by_alias[alias]
        if alias:
            self.topic_by_alias[alias] = topic
        return topic


@given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=300))
def test_the_client_always_reads_the_topic_that_was_meant(maximum: int, messages: list[tuple[int, bool]]) -> None:
    aliases, reader = OutboundAliases(maximum), Reader(maximum)
    for number, is_dropped in messages:
        topic = b"t%d" % number
        alias, is_known = aliases.choose(topic)
        if is_dropped and alias and not is_known:
            aliases.take_back(topic)
        else:
            assert reader.read(topic, alias, is_known) == topic


def test_free_aliases_are_given_at_once() -> None:
    aliases = OutboundAliases(2)
    assert [aliases.choose(topic) for topic in (b"a", b"b", b"c", b"a", b"b", b"c")] == [
        (1, False),
        (2, False),
        (0, False),
        (1, True),
        (2, True),
        (0, False),
    ]


def test_a_topic_that_comes_more_often_takes_the_rarest_ones_alias() -> None:
    aliases = OutboundAliases(2)
    for topic in (b"often", b"once", b"often", b"often"):
        aliases.choose(topic)
    found = [aliases.choose(b"later") for _ in range(CONTEST_MESSAGES + 1)]
    assert found == [(0, False)] * (CONTEST_MESSAGES - 1) + [(2, False), (2, True)]
    assert aliases.choose(b"often") == (1, True)
    assert aliases.choose(b"once") == (0, False)


def test_what_was_once_frequent_does_not_keep_its_alias_for_ever() -> None:
    aliases = OutboundAliases(1)
    for _ in range(1_000):
        aliases.choose(b"past")
    assert any(aliases.choose(b"present") == (1, False) for _ in range(1_000))


def test_many_topics_without_an_alias_cost_no_memory() -> None:
    aliases = OutboundAliases(4)
    for number in range(10_000):
        aliases.choose(b"%d" % number)
    assert len(aliases._waiting) <= 4


def subscriber(engine: Engine, **properties: int) -> EngineClient:
    client = EngineClient(engine, 5)
    asked = Properties()
    for name, value in properties.items():
        setattr(asked, name, value)
    client.connect("s", properties=asked)
    return client


def test_a_topic_is_known_only_when_its_message_has_left() -> None:
    """A message over Maximum Packet Size does not tell the client of an alias. [MQTT-3.1.2-25]"""
    engine = make_engine()
    client = subscriber(engine, topic_alias_maximum=5, maximum_packet_size=60)
    client.subscribe("#", 1)
    publisher = EngineClient(engine, 5)
    publisher.connect("p")
    publisher.send(Publish("t", b"x" * 100), Publish("t", b"small"), Publish("t", b"again", 1, packet_id=1))
    found = [packet for packet in client.received() if isinstance(packet, Publish)]
    assert [(one.topic_name, one.payload, one.properties.topic_alias) for one in found if one.properties] == [
        ("t", b"small", 1),
        ("", b"again", 1),
    ]


def test_aliases_end_with_their_connection() -> None:
    """[MQTT-3.3.2-7]; what is sent again names its topic"""
    engine = make_engine()
    client = subscriber(engine, topic_alias_maximum=5, session_expiry_interval=60)
    client.subscribe("#", 1)
    publisher = EngineClient(engine, 5)
    publisher.connect("p")
    publisher.send(Publish("t", b"1", 1, packet_id=1), Publish("t", b"2", 1, packet_id=2))
    assert [one.topic_name for one in client.received() if isinstance(one, Publish)] == ["t", ""]
    again = EngineClient(engine, 5)
    asked = Properties()
    asked.topic_alias_maximum, asked.session_expiry_interval = 5, 60
    again.connect("s", clean_start=False, properties=asked)
    publisher.send(Publish("t", b"3", 1, packet_id=3))
    found = [one for one in again.received() if isinstance(one, Publish)]
    assert [(one.topic_name, one.payload, one.dup) for one in found] == [
        ("t", b"1", True),
        ("t", b"2", True),
        ("t", b"3", False),
    ]


def test_our_own_bound_counts_too() -> None:
    engine = make_engine(topic_aliases_sent_max=1)
    client = subscriber(engine, topic_alias_maximum=500)
    client.subscribe("#")
    publisher = EngineClient(engine, 5)
    publisher.connect("p")
    publisher.send(*[Publish(topic, b"") for topic in ("a", "b", "a", "b")])
    found = [one for one in client.received() if isinstance(one, Publish)]
    assert [one.topic_name for one in found] == ["a", "b", "", "b"]
