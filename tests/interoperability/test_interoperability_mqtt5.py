"""The part of the script that only MQTT 5 has words for."""

from __future__ import annotations

import pytest

from tests.interoperability.client_process import Client
from tests.interoperability.stage import Stage, wait_for_messages
from tests.support.conditions import eventually

VERSIONS = ("5",)

pytestmark = pytest.mark.timeout(300)  # the first that needs a driver builds it, if `make test` has not done so


def last_properties(client: Client, count: int = 1) -> dict[str, object]:
    """Properties of the last of `count` messages."""
    eventually(lambda: len(client.messages) >= count, what=f"{count} messages")
    assert len(client.messages) == count
    return client.messages[-1].properties


def test_properties_arrive_as_they_were_sent(stage: Stage) -> None:
    subscriber = stage.connect("subscriber")
    subscriber.subscribe(f"{stage.topic}/#", 1)
    publisher = stage.connect("publisher")
    properties = {
        "content_type": "text/plain",
        "correlation_data": b"request 7".hex(),
        "payload_format_indicator": 1,
        "response_topic": f"{stage.topic}/answer",
        "user_properties": [["unit", "°C"], ["unit", "K"], ["sensor", "a-b"]],
    }
    publisher.publish(f"{stage.topic}/a", b"21.5", 1, **properties)
    found = last_properties(subscriber)
    assert [list(pair) for pair in found.pop("user_properties")] == properties.pop("user_properties")
    assert found == properties
    publisher.publish(f"{stage.topic}/b", b"none", 1)
    assert last_properties(subscriber, 2) == {}


def test_properties_of_a_retained_message(stage: Stage) -> None:
    publisher = stage.connect("publisher")
    publisher.publish(stage.topic, b"{}", 1, retain=True, content_type="application/json", user_properties=[["a", "b"]])
    subscriber = stage.connect("subscriber")
    subscriber.subscribe(stage.topic, 1)
    assert last_properties(subscriber) == {"content_type": "application/json", "user_properties": [["a", "b"]]}
    assert subscriber.messages[0].retain


def test_message_expiry(stage: Stage) -> None:
    publisher = stage.connect("publisher")
    publisher.publish(f"{stage.topic}/long", b"stays", 1, retain=True, message_expiry_interval=1000)
    publisher.publish(f"{stage.topic}/short", b"goes", 1, retain=True, message_expiry_interval=1)

    def what_is_retained() -> list[bytes]:
        reader = stage.connect("reader")
        reader.subscribe(f"{stage.topic}/#", 1)
        eventually(lambda: b"stays" in reader.payloads)
        interval = next(one for one in reader.messages if one.payload == b"stays").properties["message_expiry_interval"]
        assert 900 < interval <= 1000
        reader.disconnect()
        return reader.payloads

    eventually(lambda: what_is_retained() == [b"stays"], interval_s=0.2)


def test_no_local(stage: Stage) -> None:
    client = stage.connect("client")
    other = stage.connect("other")
    client.subscribe(stage.topic, 1, no_local=True)
    client.publish(stage.topic, b"own", 1)
    other.publish(stage.topic, b"other's", 1)
    wait_for_messages(client, [(stage.topic, b"other's", 1, False)])


def test_retain_as_published(stage: Stage) -> None:
    plain = stage.connect("plain")
    plain.subscribe(stage.topic, 1)
    exact = stage.connect("exact")
    exact.subscribe(stage.topic, 1, retain_as_published=True)
    publisher = stage.connect("publisher")
    publisher.publish(stage.topic, b"kept", 1, retain=True)
    publisher.publish(stage.topic, b"passing", 1)
    wait_for_messages(exact, [(stage.topic, b"kept", 1, True), (stage.topic, b"passing", 1, False)])
    wait_for_messages(plain, [(stage.topic, b"kept", 1, False), (stage.topic, b"passing", 1, False)])


@pytest.mark.parametrize(("retain_handling", "times"), [(0, 2), (1, 1), (2, 0)])
def test_retain_handling(stage: Stage, retain_handling: int, times: int) -> None:
    publisher = stage.connect("publisher")
    publisher.publish(stage.topic, b"kept", 1, retain=True)
    subscriber = stage.connect("subscriber")
    for _ in range(2):
        subscriber.subscribe(stage.topic, 1, retain_handling=retain_handling)
    publisher.publish(stage.topic, b"mark", 1)
    wait_for_messages(subscriber, [(stage.topic, b"kept", 1, True)] * times + [(stage.topic, b"mark", 1, False)])


def test_subscription_identifier(stage: Stage) -> None:
    client = stage.connect("client")
    client.subscribe(f"{stage.topic}/a/+", 1, subscription_identifier=268_435_455)
    client.publish(f"{stage.topic}/a/b", b"x", 1)
    assert last_properties(client) == {"subscription_identifiers": [268_435_455]}


def test_reasons_of_success(stage: Stage) -> None:
    client = stage.connect("client")
    client.subscribe(f"{stage.topic}/heard", 1)
    heard, unheard = (client.publish(f"{stage.topic}/{name}", b"", 1) for name in ("heard", "unheard"))
    if stage.tells("puback reason"):
        assert (heard, unheard) == (0, 0x10)
    none = client.unsubscribe(f"{stage.topic}/none")
    if stage.tells("unsuback reason"):
        assert none == 0x11


def test_topic_alias_of_the_client(stage: Stage) -> None:
    client = stage.connect("client")
    client.subscribe(f"{stage.topic}/#", 1)
    for name in ("a", "b"):
        client.publish(f"{stage.topic}/{name}", b"named", 1, topic_alias=1)
        client.publish_all([("", b"1"), ("", b"2")], 1, topic_alias=1)
    wait_for_messages(
        client,
        [(f"{stage.topic}/{name}", text, 1, False) for name in ("a", "b") for text in (b"named", b"1", b"2")],
    )


def test_topic_alias_of_the_server(stage: Stage) -> None:
    subscriber = stage.connect("subscriber", topic_alias_maximum=2)
    subscriber.subscribe(f"{stage.topic}/#", 1)
    publisher = stage.connect("publisher")
    messages = [(f"{stage.topic}/{name}", b"%d" % number) for number in range(10) for name in "abc"]
    publisher.publish_all(messages, 1)
    wait_for_messages(subscriber, [(*message, 1, False) for message in messages])


@pytest.mark.parametrize("qos", [1, 2])
def test_receive_maximum_of_a_kept_session(stage: Stage, qos: int) -> None:
    sleeper = stage.connect("sleeper", clean=False, receive_maximum=3)
    sleeper.subscribe(stage.topic, 2)
    sleeper.disconnect()
    publisher = stage.connect("publisher")
    messages = [(stage.topic, b"%d" % number) for number in range(12)]
    publisher.publish_all(messages, qos)
    sleeper = stage.connect("sleeper", clean=False, receive_maximum=3)
    wait_for_messages(sleeper, [(*message, qos, False) for message in messages])


def test_receive_maximum_holds_messages_back(stage: Stage) -> None:
    subscriber = stage.connect("subscriber", receive_maximum=3, hold_acknowledgements=True)
    subscriber.subscribe(stage.topic, 1)
    publisher = stage.connect("publisher")
    for number in range(8):
        publisher.publish(stage.topic, b"%d" % number, 1)
    publisher.publish(stage.topic, b"unlimited", 0)
    eventually(lambda: len(subscriber.messages) >= 4)
    assert sorted(subscriber.payloads) == [b"0", b"1", b"2", b"unlimited"]
    subscriber.acknowledge()
    eventually(lambda: len(subscriber.messages) >= 9)
    assert [one.payload for one in subscriber.messages if one.qos] == [b"%d" % number for number in range(8)]


def test_maximum_packet_size(stage: Stage) -> None:
    subscriber = stage.connect("subscriber", maximum_packet_size=500)
    subscriber.subscribe(stage.topic, 1)
    publisher = stage.connect("publisher")
    publisher.publish(stage.topic, b"x" * 500, 1)
    publisher.publish(stage.topic, b"x" * 300, 1)
    wait_for_messages(subscriber, [(stage.topic, b"x" * 300, 1, False)])


def test_will_with_properties_and_without_delay(stage: Stage) -> None:
    witness = stage.connect("witness")
    witness.subscribe(f"{stage.topic}/will", 1)
    doomed = stage.connect_doomed(
        "doomed",
        will={
            "topic": f"{stage.topic}/will",
            "payload": b"gone",
            "qos": 1,
            "properties": {"content_type": "text/plain", "will_delay_interval": 0, "user_properties": [["a", "b"]]},
        },
    )
    doomed.process.kill()
    doomed.is_open = False
    assert last_properties(witness) == {"content_type": "text/plain", "user_properties": [["a", "b"]]}


def test_delayed_will_is_sent_when_the_session_ends_and_not_when_the_client_is_back(stage: Stage) -> None:
    witness = stage.connect("witness")
    witness.subscribe(f"{stage.topic}/+", 1)
    will = {"payload": b"gone", "qos": 1, "properties": {"will_delay_interval": 300}}
    back = stage.connect_doomed("back", clean=False, will={**will, "topic": f"{stage.topic}/back"})
    ended = stage.connect("ended", clean=False, will={**will, "topic": f"{stage.topic}/ended"}, process=back.process)
    back.process.kill()
    back.is_open = ended.is_open = False
    stage.connect("back", clean=False).disconnect()
    stage.connect("ended", clean=True)
    wait_for_messages(witness, [(f"{stage.topic}/ended", b"gone", 1, False)])


def test_session_ends_at_a_disconnect_that_says_so(stage: Stage) -> None:
    client = stage.connect("client", clean=False)
    client.disconnect()
    client = stage.connect("client", clean=False)
    if stage.tells("session present"):
        assert client.session_present is True
    client.disconnect(session_expiry_interval=0)
    client = stage.connect("client", clean=False)
    if stage.tells("session present"):
        assert client.session_present is False


def test_server_chooses_the_client_identifier(stage: Stage) -> None:
    client = stage.connect("client", client_id="")
    if stage.tells("connack properties"):
        assert client.properties["assigned_client_identifier"]
    client.subscribe(stage.topic, 1)
    client.publish(stage.topic, b"x", 1)
    wait_for_messages(client, [(stage.topic, b"x", 1, False)])
