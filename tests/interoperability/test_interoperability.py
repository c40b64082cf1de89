"""The script that every client library plays, in MQTT 3.1 (TCP alone), 3.1.1 and 5, over TCP and WebSocket."""

from __future__ import annotations

import itertools

import pytest

from tests.interoperability.stage import Stage, wait_for_messages
from tests.support.conditions import eventually

VERSIONS = ("3.1", "3.1.1", "5")

pytestmark = pytest.mark.timeout(300)  # the first that needs a driver builds it, if `make test` has not done so


def test_publish_and_receive_every_qos(stage: Stage) -> None:
    subscriber = stage.connect("subscriber")
    publisher = stage.connect("publisher")
    assert subscriber.subscribe(f"{stage.topic}/all/#", 2) == 2
    low = stage.connect("low")
    assert low.subscribe(f"{stage.topic}/#", 1) == 1
    for qos in (0, 1, 2):
        publisher.publish(f"{stage.topic}/all/{qos}", b"%d" % qos, qos)
    wait_for_messages(subscriber, [(f"{stage.topic}/all/{qos}", b"%d" % qos, qos, False) for qos in (0, 1, 2)])
    wait_for_messages(low, [(f"{stage.topic}/all/{qos}", b"%d" % qos, min(qos, 1), False) for qos in (0, 1, 2)])


@pytest.mark.parametrize(("qos", "count"), [(0, 200), (1, 800), (2, 200)])
def test_many_at_once_arrive_in_order(stage: Stage, qos: int, count: int) -> None:
    """Less than the server's Receive Maximum, which not every library looks at."""
    subscriber = stage.connect("subscriber")
    subscriber.subscribe(stage.topic, qos)
    payloads = [b"%d" % number for number in range(count)]
    stage.connect("publisher").burst(stage.topic, payloads, qos)
    wait_for_messages(subscriber, [(stage.topic, payload, qos, False) for payload in payloads])


def test_client_hears_itself(stage: Stage) -> None:
    client = stage.connect("client")
    client.subscribe(stage.topic, 1)
    client.publish(stage.topic, b"to all", 1)
    wait_for_messages(client, [(stage.topic, b"to all", 1, False)])


def test_clients_of_all_versions_hear_each_other(stage: Stage) -> None:
    """Properties go to those who know them."""
    others = [stage.connect_reference(version) for version in ("3.1.1", "5")]
    own = stage.connect("own")
    clients = [own, *others]
    for client in clients:
        client.subscribe(f"{stage.topic}/+", 2)
    properties = {"user_properties": [["unit", "K"]], "content_type": "text/plain"}
    own.publish(f"{stage.topic}/own", b"1", 1, **(properties if stage.is_v5 else {}))
    others[0].publish(f"{stage.topic}/3.1.1", b"2", 2)
    others[1].publish(f"{stage.topic}/5", b"3", 1, **properties)
    expected = [
        (f"{stage.topic}/own", b"1", 1, False),
        (f"{stage.topic}/3.1.1", b"2", 2, False),
        (f"{stage.topic}/5", b"3", 1, False),
    ]
    for client, is_v5 in zip(clients, (stage.is_v5, False, True), strict=True):
        eventually(lambda: len(client.messages) == 3, what=str(client.received))  # noqa: B023
        # A library may show a QoS 2 message when its exchange ends, and so behind a later one of QoS 1.
        assert sorted(client.received) == sorted(expected)
        found = {message.topic.rpartition("/")[2]: message.properties for message in client.messages}
        assert found["5"] == (properties if is_v5 else {})
        assert found["own"] == (properties if is_v5 and stage.is_v5 else {})
        assert found["3.1.1"] == {}


def test_retained(stage: Stage) -> None:
    publisher = stage.connect("publisher")
    early = stage.connect("early")
    early.subscribe(stage.topic, 1)
    publisher.publish(stage.topic, b"first", 1, retain=True)
    publisher.publish(stage.topic, b"kept", 1, retain=True)
    wait_for_messages(early, [(stage.topic, b"first", 1, False), (stage.topic, b"kept", 1, False)])
    late = stage.connect("late")
    late.subscribe(f"{stage.topic}/#", 1)
    wait_for_messages(late, [(stage.topic, b"kept", 1, True)])
    publisher.publish(stage.topic, b"", 1, retain=True)
    last = stage.connect("last")
    last.subscribe(f"{stage.topic}/#", 1)
    publisher.publish(f"{stage.topic}/mark", b"mark", 1)
    wait_for_messages(last, [(f"{stage.topic}/mark", b"mark", 1, False)])


def test_will_after_a_broken_connection(stage: Stage) -> None:
    witness = stage.connect("witness")
    witness.subscribe(f"{stage.topic}/will", 1)
    doomed = stage.connect_doomed("doomed", will={"topic": f"{stage.topic}/will", "payload": b"gone", "qos": 1})
    doomed.process.kill()
    doomed.is_open = False
    wait_for_messages(witness, [(f"{stage.topic}/will", b"gone", 1, False)])


def test_no_will_after_disconnect(stage: Stage) -> None:
    witness = stage.connect("witness")
    witness.subscribe(f"{stage.topic}/+", 1)
    polite = stage.connect("polite", will={"topic": f"{stage.topic}/will", "payload": b"gone", "qos": 1})
    polite.disconnect()
    witness.publish(f"{stage.topic}/mark", b"mark", 1)
    wait_for_messages(witness, [(f"{stage.topic}/mark", b"mark", 1, False)])


def test_kept_session_gets_what_it_missed(stage: Stage) -> None:
    publisher = stage.connect("publisher")
    sleeper = stage.connect("sleeper", clean=False)
    if stage.tells("session present"):
        assert sleeper.session_present is False
    sleeper.subscribe(f"{stage.topic}/#", 2)
    sleeper.disconnect()
    # A library may show a QoS 2 message when its exchange ends, and so behind later ones of QoS 1.
    for number, qos in enumerate((1, 1, 2)):
        publisher.publish(f"{stage.topic}/{number}", b"%d" % qos, qos)
    sleeper = stage.connect("sleeper", clean=False)
    if stage.tells("session present") and stage.version != "3.1":  # which has no such flag
        assert sleeper.session_present is True
    expected = [(f"{stage.topic}/{number}", b"%d" % qos, qos, False) for number, qos in enumerate((1, 1, 2))]
    wait_for_messages(sleeper, expected)
    publisher.publish(f"{stage.topic}/live", b"live", 2)
    wait_for_messages(sleeper, [*expected, (f"{stage.topic}/live", b"live", 2, False)])


def test_unacknowledged_messages_come_again(stage: Stage) -> None:
    subscriber = stage.connect_doomed("subscriber", clean=False, hold_acknowledgements=True)
    subscriber.subscribe(stage.topic, 1)
    publisher = stage.connect("publisher")
    messages = [(stage.topic, b"%d" % number) for number in range(3)]
    publisher.publish_all(messages, 1)
    eventually(lambda: len(subscriber.messages) == 3)
    subscriber.process.kill()
    subscriber.is_open = False
    for _ in range(2):  # the first time it acknowledges them
        subscriber = stage.connect("subscriber", clean=False)
        publisher.publish(stage.topic, b"mark", 1)
        wait_for_messages(
            subscriber, [*((*message, 1, False) for message in messages), (stage.topic, b"mark", 1, False)]
        )
        subscriber.disconnect()
        messages = []


def test_clean_start_forgets_the_session(stage: Stage) -> None:
    publisher = stage.connect("publisher")
    sleeper = stage.connect("sleeper", clean=False)
    sleeper.subscribe(f"{stage.topic}/old", 1)
    sleeper.disconnect()
    publisher.publish(f"{stage.topic}/old", b"missed", 1)
    sleeper = stage.connect("sleeper")
    sleeper.subscribe(f"{stage.topic}/new", 1)
    publisher.publish(f"{stage.topic}/old", b"not heard", 1)
    publisher.publish(f"{stage.topic}/new", b"new", 1)
    wait_for_messages(sleeper, [(f"{stage.topic}/new", b"new", 1, False)])


@pytest.mark.parametrize(
    ("topic_filter", "matches", "others"),
    [
        ("+/b", ["a/b", "/b"], ["a", "a/b/c", "b"]),
        ("a/#", ["a", "a/b", "a/b/c/", "a//"], ["b", "aa/b"]),
        ("+/+/c", ["a/b/c", "//c"], ["a/c", "a/b/c/d"]),
    ],
)
def test_wildcards(stage: Stage, topic_filter: str, matches: list[str], others: list[str]) -> None:
    client = stage.connect("client")
    client.subscribe(f"{stage.topic}/{topic_filter}", 1)
    topics = list(itertools.chain(others, matches))
    client.publish_all([(f"{stage.topic}/{topic}", topic.encode()) for topic in topics], 1)
    wait_for_messages(client, [(f"{stage.topic}/{topic}", topic.encode(), 1, False) for topic in matches])


def test_unsubscribe(stage: Stage) -> None:
    client = stage.connect("client")
    client.subscribe(f"{stage.topic}/old", 1)
    client.subscribe(f"{stage.topic}/new", 1)
    reason = client.unsubscribe(f"{stage.topic}/old")
    assert reason in (0, None)
    client.publish(f"{stage.topic}/old", b"no", 1)
    client.publish(f"{stage.topic}/new", b"yes", 1)
    wait_for_messages(client, [(f"{stage.topic}/new", b"yes", 1, False)])


def test_large_payload(stage: Stage) -> None:
    client = stage.connect("client")
    client.subscribe(stage.topic, 2)
    payload = bytes(range(1, 256)) * 800  # 204 kB
    for qos in (0, 1, 2):
        client.publish(stage.topic, payload, qos)
    wait_for_messages(client, [(stage.topic, payload, qos, False) for qos in (0, 1, 2)])


def test_empty_payload_and_payload_of_all_bytes(stage: Stage) -> None:
    client = stage.connect("client")
    client.subscribe(stage.topic, 1)
    payloads = [b"", bytes(range(256)), b"\0", "21,5 °C".encode()]
    client.publish_all([(stage.topic, payload) for payload in payloads], 1)
    wait_for_messages(client, [(stage.topic, payload, 1, False) for payload in payloads])


def test_unicode_topics(stage: Stage) -> None:
    client = stage.connect("client")
    client.subscribe(f"{stage.topic}/größe/+/#", 1)
    topics = [f"{stage.topic}/größe/{name}" for name in ("温度", "влажность/°C", "🌡️/😀", " spaces ", "ﬁ/A\u030a")]
    client.publish_all([(topic, b"") for topic in topics], 1)
    wait_for_messages(client, [(topic, b"", 1, False) for topic in topics])


def test_shared_subscription(stage: Stage) -> None:
    members = [stage.connect(f"member{number}") for number in range(2)]
    for member in members:
        assert member.subscribe(f"$share/workers/{stage.topic}/#", 1) == 1
    witness = stage.connect("witness")
    witness.subscribe(f"{stage.topic}/#", 1)
    messages = [(f"{stage.topic}/{number}", b"%d" % number) for number in range(12)]
    witness.publish_all(messages, 1)
    wait_for_messages(witness, [(*message, 1, False) for message in messages])
    eventually(lambda: sum(len(member.messages) for member in members) == len(messages))
    # A member that is slow for a moment is passed over, so who gets which is for the tests of the engine.
    assert all(member.messages for member in members)
    assert sorted(itertools.chain(*(member.received for member in members))) == sorted(witness.received)


def test_take_over(stage: Stage) -> None:
    first = stage.connect("client")
    first.subscribe(f"{stage.topic}/first", 1)
    second = stage.connect("client")
    second.subscribe(f"{stage.topic}/second", 1)
    eventually(lambda: first.close_reasons, what="the older connection closed")
    if stage.is_v5 and stage.tells("close reason"):
        assert first.close_reasons == [0x8E]
    second.publish(f"{stage.topic}/first", b"nobody", 1)
    second.publish(f"{stage.topic}/second", b"here", 1)
    wait_for_messages(second, [(f"{stage.topic}/second", b"here", 1, False)])
    assert not second.close_reasons


def test_refused_connection(stage: Stage) -> None:
    """A will below `$presence`, where only the server publishes."""
    refused = stage.connect("refused", will={"topic": f"$presence/{stage.client_id('x')}", "payload": b"no"})
    # Some libraries translate the return code of 3.1.1 into the reason code of MQTT 5.
    assert refused.reason in ((0x87,) if stage.is_v5 else (5, 0x87))
    assert stage.connect("refused").reason == 0


def test_refused_subscription(stage: Stage) -> None:
    client = stage.connect("client")
    assert client.subscribe("$replay/never/x", 1) == (0x8F if stage.is_v5 else 0x80)
    if not client.is_open:  # mosquitto_sub ends when all that it asked for is refused
        client = stage.connect("again")
    client.subscribe(stage.topic, 1)
    client.publish(stage.topic, b"still here", 1)
    wait_for_messages(client, [(stage.topic, b"still here", 1, False)])


def test_refused_publish(stage: Stage) -> None:
    """MQTT 5 is told why; 3.1.1 has no words for it, and is acknowledged."""
    client = stage.connect("client")
    client.subscribe(stage.topic, 1)
    reason = client.publish(f"$presence/{stage.client_id('x')}", b"no", 1)
    if stage.is_v5 and stage.tells("puback reason"):
        assert reason == 0x87
    client.publish(stage.topic, b"still here", 1)
    wait_for_messages(client, [(stage.topic, b"still here", 1, False)])
