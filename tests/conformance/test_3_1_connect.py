"""CONNECT and CONNACK (MQTT 3.1.1 and 5, §3.1, §3.2)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.conftest import Connect
from tests.support import mqtt_wire as wire
from tests.support.mqtt_client import ConnectionEnded, RawClient
from tests.support.server import ServerProcess

Open = Callable[..., RawClient]

REQUEST_PROBLEM_INFORMATION = 0x17
RESPONSE_INFORMATION = 0x1A


def corrupt_flags(packet: bytes, flags: int, version: int) -> bytes:
    """The CONNECT with another connect flags byte."""
    position = 2 + 2 + len("MQTT") + 1
    assert packet[position - 1] == version
    return packet[:position] + bytes((flags,)) + packet[position + 1 :]


def test_first_packet_must_be_connect(opened: Open, version: int) -> None:
    """[MQTT-3.1.0-1]"""
    client = opened(version)
    client.send(wire.publish("a", b"x", version=version))
    client.expect_closed()


def test_second_connect_is_a_protocol_error(connected: Connect, name: str, version: int) -> None:
    """[MQTT-3.1.0-2] [MQTT-3.2.0-2] [MQTT-4.13.1-1] [MQTT-4.13.2-1]"""
    client = connected(name, version)
    client.send(wire.connect(name, version))
    client.expect_closed(0x82)


def test_nothing_is_taken_after_a_protocol_error(connected: Connect, name: str, version: int) -> None:
    """[MQTT-4.13.1-1]"""
    watcher = connected(version=version)
    watcher.subscribe(f"{name}/#")
    client = connected(version=version)
    client.send(wire.connect(name, version) + wire.publish(f"{name}/late", b"x", version=version))
    client.expect_closed(0x82)
    watcher.expect_nothing()


def test_mqtt_3_1_is_spoken(opened: Open, name: str) -> None:
    client = opened(wire.V31)
    client.connect(name)
    assert client.subscribe((f"{name}/a", 1)) == [1]
    client.publish(f"{name}/a", b"x", 1)
    received = {client.next_packet().packet_type for _ in range(2)}
    assert received == {wire.PUBACK, wire.PUBLISH}


@pytest.mark.parametrize("level", [0, 1, 6, 0x7F, 0x80, 0x86])
def test_unknown_protocol_level_is_refused(opened: Open, name: str, level: int) -> None:
    """[MQTT-3.1.2-2], in the form of 5.0: nobody knows what a client of such a level reads"""
    client = opened(wire.V5)
    client.send(wire.connect(name, wire.V311).replace(b"MQTT\x04", b"MQTT" + bytes((level,))))
    assert client.expect(wire.CONNACK).reason_code == 0x84
    client.expect_closed()


@pytest.mark.parametrize(("protocol_name", "level"), [("MQTT", 3), ("MQIsdp", 4), ("MQIsdp", 5), ("MQIsdp", 0x84)])
def test_level_of_another_name_is_refused(opened: Open, name: str, protocol_name: str, level: int) -> None:
    """[MQTT-3.1.2-2] [MQTT-3.1.2-2] of 3.1.1"""
    client = opened(wire.V311)
    body = wire.string(protocol_name) + bytes((level, 2, 0, 0)) + wire.string(name)
    client.send(wire.packet(wire.CONNECT, body))
    assert client.expect(wire.CONNACK).reason_code == 0x01
    client.expect_closed()


@pytest.mark.parametrize("protocol_name", [b"MQTX", b"mqtt", b"MQT", b"MQTTT", b"", b"MQIsdq", b"\xff\xff\xff\xff"])
def test_wrong_protocol_name_is_closed_without_a_word(
    opened: Open, name: str, version: int, protocol_name: bytes
) -> None:
    """[MQTT-3.1.2-1] and [MQTT-3.1.4-1]"""
    client = opened(version)
    body = wire.string(protocol_name) + bytes((version, 2, 0, 0)) + wire.string(name)
    client.send(wire.packet(wire.CONNECT, body))
    client.expect_closed()


def test_3_1_1_says_nothing_to_a_malformed_connect(opened: Open, name: str) -> None:
    """[MQTT-3.1.4-1] of 3.1.1, [MQTT-3.1.2-22] of 3.1.1, [MQTT-3.2.2-6] of 3.1.1: closed without a CONNACK"""
    for broken in (
        corrupt_flags(wire.connect(name, wire.V311), 0x03, wire.V311),
        wire.connect(name, wire.V311, will=wire.Will("a/#", b"")),
        wire.connect(name, wire.V311, will=wire.Will("", b"")),
        wire.connect(name, wire.V311, password=b"x"),  # without a user name [MQTT-3.1.2-22] of 3.1.1
        b"\x11" + wire.connect(name, wire.V311)[1:],
    ):
        client = opened(wire.V311)
        client.send(broken)
        client.expect_closed()


def test_connack_that_is_too_large_for_the_client_is_not_sent(opened: Open, name: str) -> None:
    """[MQTT-3.1.2-24]"""
    client = opened(wire.V5)
    client.send(wire.connect(name, connect_properties={wire.MAXIMUM_PACKET_SIZE: 8}))
    client.expect_closed()


def test_reserved_flag_must_be_zero(opened: Open, name: str, version: int) -> None:
    """[MQTT-3.1.2-3]"""
    client = opened(version)
    client.send(corrupt_flags(wire.connect(name, version), 0x03, version))
    expect_refused(client)


@pytest.mark.parametrize(
    "flags",
    [
        0x02 | 0x08,  # will QoS without will flag [MQTT-3.1.2-11]
        0x02 | 0x20,  # will retain without will flag [MQTT-3.1.2-13]
    ],
)
def test_will_flags_without_a_will_are_refused(opened: Open, name: str, version: int, flags: int) -> None:
    """[MQTT-3.1.2-11] [MQTT-3.1.2-13]"""
    client = opened(version)
    client.send(corrupt_flags(wire.connect(name, version), flags, version))
    expect_refused(client)


def test_will_qos_3_is_refused(opened: Open, name: str, version: int) -> None:
    """[MQTT-3.1.2-12]"""
    client = opened(version)
    packet = wire.connect(name, version, will=wire.Will(f"{name}/will", b"x"))
    client.send(corrupt_flags(packet, 0x02 | 0x04 | 0x18, version))
    expect_refused(client)


def test_bytes_after_the_payload_are_malformed(opened: Open, name: str, version: int) -> None:
    """[MQTT-3.1.2-16] [MQTT-3.1.2-18] [MQTT-3.1.4-1] [MQTT-3.1.2-11] of 3.1.1: what no flag promises is not there"""
    client = opened(version)
    packet = wire.connect(name, version)
    client.send(bytes((packet[0], packet[1] + 1)) + packet[2:] + b"\0")
    expect_refused(client)


def test_truncated_fields_are_malformed(opened: Open, name: str, version: int) -> None:
    """[MQTT-3.1.4-1] [MQTT-3.1.3-3]: a remaining length that ends inside the client id"""
    client = opened(version)
    packet = wire.connect(name, version)
    client.send(bytes((packet[0], packet[1] - 3)) + packet[2:-3])
    expect_refused(client)


def test_client_id_must_be_utf_8(opened: Open, name: str, version: int) -> None:
    """[MQTT-1.5.4-1]"""
    client = opened(version)
    client.send(wire.connect("aa", version).replace(b"aa", b"\xff\xfe"))
    expect_refused(client)


def test_mqtt_3_1_knows_no_session_present(opened: Open, name: str) -> None:
    """The byte is reserved in 3.1, as in Mosquitto's answer"""
    first = opened(wire.V31)
    first.connect(name, clean=False)
    first.disconnect()
    second = opened(wire.V31)
    assert not second.connect(name, clean=False).session_present
    assert not opened(wire.V5).connect(name).session_present


@pytest.mark.parametrize(("asked", "is_told"), [(None, False), (0, False), (1, True)])
def test_reason_strings_only_for_those_who_ask(
    connected: Connect, opened: Open, name: str, asked: int | None, is_told: bool
) -> None:
    """[MQTT-3.1.2-29]"""
    properties: wire.Properties = {} if asked is None else {REQUEST_PROBLEM_INFORMATION: asked}
    client = connected(name, properties=properties)
    client.publish("$server/x", b"", 1)
    assert (wire.REASON_STRING in client.expect(wire.PUBACK).properties) == is_told
    client.publish("$server/x", b"", 2)
    assert (wire.REASON_STRING in client.expect(wire.PUBREC).properties) == is_told
    client.publish("a", b"", 1, properties={wire.TOPIC_ALIAS: 65_535})
    farewell = client.expect(wire.DISCONNECT)
    assert (farewell.reason_code, wire.REASON_STRING in farewell.properties) == (0x94, is_told)
    refused = opened()
    refused.send(wire.connect(name, connect_properties={**properties, wire.AUTHENTICATION_METHOD: "SCRAM-X"}))
    connack = refused.expect(wire.CONNACK)
    assert (connack.reason_code, wire.REASON_STRING in connack.properties) == (0x8C, is_told)


def test_a_reason_string_that_does_not_fit_is_left_out(connected: Connect, opened: Open, name: str) -> None:
    """[MQTT-3.14.2-3] [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.2.2-19]"""
    asked: wire.Properties = {REQUEST_PROBLEM_INFORMATION: 1, wire.MAXIMUM_PACKET_SIZE: 36}
    client = connected(name, properties=asked)
    client.publish("$server/x", b"", 1)
    client.publish("$server/x", b"", 2)
    client.publish("a", b"", 1, properties={wire.TOPIC_ALIAS: 65_535})
    answers = [client.expect(kind) for kind in (wire.PUBACK, wire.PUBREC, wire.DISCONNECT)]
    assert [(one.reason_code, one.properties) for one in answers] == [(0x87, {}), (0x87, {}), (0x94, {})]
    refused = opened()
    refused.send(wire.connect(name, connect_properties={**asked, wire.AUTHENTICATION_METHOD: "SCRAM-X"}))
    connack = refused.expect(wire.CONNACK)
    assert (connack.reason_code, connack.properties) == (0x8C, {})


def test_empty_client_id_with_clean_start_gets_one(opened: Open) -> None:
    """[MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]"""
    client = opened(wire.V5)
    connack = client.connect("")
    assigned = connack.properties[wire.ASSIGNED_CLIENT_ID]
    assert assigned
    assert opened(wire.V5).connect("").properties[wire.ASSIGNED_CLIENT_ID] != assigned
    opened(wire.V5).connect(assigned)
    client.expect_closed(0x8E)


def test_empty_client_id_with_clean_session_is_taken(connected: Connect, name: str, version: int) -> None:
    """[MQTT-3.1.3-6]"""
    clients = [connected("", version), connected("", version)]
    for client in clients:
        client.subscribe(name)
    connected().publish_acknowledged(name, b"x")
    for client in clients:
        client.expect_publish(name, b"x")


def test_empty_client_id_without_clean_session_is_refused_in_3_1_1(opened: Open) -> None:
    """[MQTT-3.1.3-7] of 3.1.1, [MQTT-3.1.3-8] of 3.1.1, [MQTT-3.1.3-9] of 3.1.1, [MQTT-3.2.2-5] of 3.1.1"""
    client = opened(wire.V311)
    client.send(wire.connect("", wire.V311, clean=False))
    assert client.expect(wire.CONNACK).reason_code == 2
    client.expect_closed()


@pytest.mark.parametrize("prefix", ["$ingest/", "$egress/"])
def test_a_client_id_of_the_servers_own_is_refused(
    connected: Connect, opened: Open, name: str, version: int, prefix: str
) -> None:
    """[MQTT-3.1.3-8] [MQTT-3.1.3-9] of 3.1.1: in records such a client id means another broker"""
    client = opened(version)
    client.send(wire.connect(prefix + name, version))
    assert client.expect(wire.CONNACK).reason_code == (0x85 if version == wire.V5 else 2)
    client.expect_closed()
    connected(f"x{prefix}{name}", version)
    connected(prefix.rstrip("/") + name, version)


def test_client_ids_of_letters_and_digits(connected: Connect, version: int) -> None:
    """[MQTT-3.1.3-5] [MQTT-3.1.3-3]"""
    for client_id in ("0", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ"):
        connected(client_id, version).ping()


def test_the_acknowledge_flags_are_nothing_but_session_present(opened: Open, name: str, version: int) -> None:
    """[MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.1.4-5]"""
    client = opened(version)
    client.send(wire.connect(name, version))
    head = client.socket.recv(4)
    assert (head[0], head[2], head[3]) == (0x20, 0, 0)


def test_nothing_is_taken_after_a_refused_connect(connected: Connect, opened: Open, name: str, version: int) -> None:
    """[MQTT-3.1.4-6] [MQTT-3.2.2-7]"""
    watcher = connected(version=version)
    watcher.subscribe(f"{name}/#")
    client = opened(version)
    refused = wire.connect("", version, clean=False)
    if version == wire.V5:
        refused = wire.connect(name, connect_properties={wire.AUTHENTICATION_METHOD: "x"})
    client.send(refused + wire.publish(f"{name}/late", b"x", version=version) + wire.pingreq())
    assert client.expect(wire.CONNACK).reason_code != 0
    client.expect_closed()
    watcher.expect_nothing()


@pytest.mark.parametrize(
    "flags",
    [
        0x02 | 0x04,  # a will [MQTT-3.1.2-9]
        0x02 | 0x80,  # a user name
        0x02 | 0xC0,  # a user name and a password
    ],
)
def test_fields_that_the_flags_promise_are_there(opened: Open, name: str, version: int, flags: int) -> None:
    """[MQTT-3.1.2-9] [MQTT-3.1.2-17] [MQTT-3.1.2-19] [MQTT-3.1.3-1]"""
    client = opened(version)
    client.send(corrupt_flags(wire.connect(name, version), flags, version))
    expect_refused(client)


def test_a_user_name_and_a_password_are_taken(opened: Open, name: str, version: int) -> None:
    """[MQTT-3.1.2-17] [MQTT-3.1.2-19] [MQTT-3.1.3-1]"""
    client = opened(version)
    will = wire.Will(f"{name}/will", b"x")
    client.send(wire.connect(name, version, will=will, username="ü", password=b"\0\xff"))
    assert client.expect(wire.CONNACK).reason_code == 0


def test_no_authentication_and_no_response_information_unasked(opened: Open, name: str) -> None:
    """[MQTT-4.12.0-6] [MQTT-3.1.2-28]"""
    properties = opened(wire.V5).connect(name).properties
    assert not {wire.AUTHENTICATION_METHOD, wire.AUTHENTICATION_DATA, RESPONSE_INFORMATION} & set(properties)


@pytest.mark.slow
def test_server_keep_alive_counts_where_it_is_sent(tmp_path: Path) -> None:
    """[MQTT-3.2.2-21] [MQTT-3.2.2-22]"""
    with ServerProcess(tmp_path / "data", "[mqtt]\nkeep_alive_s_max = 1\n") as server:
        kept = RawClient(server.mqtt_port)
        assert wire.SERVER_KEEP_ALIVE not in kept.connect("short", keep_alive=1).properties
        endless = [RawClient(server.mqtt_port) for _ in range(2)]
        for client, asked in zip(endless, (0, 600), strict=True):
            assert client.connect(f"asks-{asked}", keep_alive=asked).properties[wire.SERVER_KEEP_ALIVE] == 1
        for client in (kept, *endless):
            client.expect_closed(0x8D)
            client.close()


def test_session_present_is_zero_when_refused(opened: Open) -> None:
    """[MQTT-3.2.2-4] of 3.1.1"""
    client = opened(wire.V311)
    client.send(wire.connect("", wire.V311, clean=False))
    assert not client.expect(wire.CONNACK).session_present


def test_duplicate_property_is_a_protocol_error(opened: Open, name: str) -> None:
    """[MQTT-3.1.2-11.2]: Session Expiry Interval more than once"""
    client = opened(wire.V5)
    client.send(wire.connect(name, connect_properties={wire.SESSION_EXPIRY: [1, 2]}))
    expect_refused(client, {0x81, 0x82})


@pytest.mark.parametrize(
    "properties",
    [
        {wire.RECEIVE_MAXIMUM: 0},  # §3.1.2.11.3
        {wire.MAXIMUM_PACKET_SIZE: 0},  # §3.1.2.11.4
        {0x19: 2},  # Request Response Information is 0 or 1, §3.1.2.11.6
        {wire.TOPIC_ALIAS: 1},  # no property of CONNECT
        {wire.AUTHENTICATION_DATA: b"x"},  # without a method, §3.1.2.11.10
    ],
)
def test_illegal_property_is_refused(opened: Open, name: str, properties: wire.Properties) -> None:
    client = opened(wire.V5)
    client.send(wire.connect(name, connect_properties=properties))
    expect_refused(client, {0x81, 0x82})


def test_unknown_authentication_method_is_refused(opened: Open, name: str) -> None:
    """[MQTT-4.12.0-1] [MQTT-4.12.0-4] [MQTT-3.1.4-2] [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-3.2.2-8]
    [MQTT-4.13.2-1] [MQTT-3.14.0-1]"""
    client = opened(wire.V5)
    client.send(wire.connect(name, connect_properties={wire.AUTHENTICATION_METHOD: "SCRAM-X"}))
    expect_refused(client, {0x8C})


def test_take_over_tells_the_first_connection(connected: Connect, name: str, version: int) -> None:
    """[MQTT-3.1.4-3] [MQTT-3.14.4-2]"""
    first = connected(name, version)
    second = connected(name, version)
    first.expect_closed(0x8E)
    second.ping()


def test_packets_may_follow_connect_at_once(opened: Open, name: str, version: int) -> None:
    """[MQTT-3.2.0-1] [MQTT-3.1.4-5]: clients need not wait for CONNACK"""
    client = opened(version)
    client.send(
        wire.connect(name, version)
        + wire.subscribe(1, name, version=version)
        + wire.publish(name, b"early", version=version)
        + wire.pingreq()
    )
    assert client.expect(wire.CONNACK).reason_code == 0
    assert client.expect(wire.SUBACK).packet_id == 1
    received = sorted(client.next_packet().packet_type for _ in range(2))
    assert received == [wire.PUBLISH, wire.PINGRESP]


def test_any_split_of_the_bytes_gives_the_same(opened: Open, name: str, version: int) -> None:
    """[MQTT-4.2-1]: the transport is a stream of bytes"""
    client = opened(version)
    data = wire.connect(name, version) + wire.subscribe(1, name, version=version) + wire.pingreq()
    for position in range(len(data)):
        client.send(data[position : position + 1])
    assert [client.next_packet().packet_type for _ in range(3)] == [wire.CONNACK, wire.SUBACK, wire.PINGRESP]


@pytest.mark.slow
def test_silent_client_is_closed_after_one_and_a_half_keep_alives(connected: Connect, version: int) -> None:
    """[MQTT-3.1.2-22]"""
    client = connected(version=version, keep_alive=1)
    client.timeout_s = 10
    client.expect_closed(0x8D)


@pytest.mark.slow
def test_packets_keep_a_client_alive(connected: Connect) -> None:
    """[MQTT-3.1.2-22]"""
    client = connected(keep_alive=1)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            client.next_packet(timeout_s=0.6)
        client.ping()


def expect_refused(client: RawClient, reason_codes: set[int] | None = None) -> None:
    """No session: a CONNACK with an error (or none, §4.13), then the end."""
    try:
        found = client.next_packet()
    except ConnectionEnded:
        return
    assert found.packet_type == wire.CONNACK
    assert found.reason_code != 0
    if reason_codes is not None:
        assert found.reason_code in reason_codes, hex(found.reason_code)
    client.expect_closed()
