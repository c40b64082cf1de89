"""mosquitto.conf to TOML: what is taken, what is said of the rest, and that the result is always valid."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from bridge.config_source import load_config
from bridge.takeover.mosquitto_bridges import BRIDGE_OPTIONS
from bridge.takeover.mosquitto_conf import translate_mosquitto
from bridge.takeover.translation import CannotTranslate, Translation

MAN_PAGE = """
acl_file address allow_anonymous allow_duplicate_messages allow_zero_length_clientid auth_plugin
auth_plugin_deny_special_chars auto_id_prefix autosave_interval autosave_on_changes bind_address bind_interface
bridge_alpn bridge_attempt_unsubscribe bridge_bind_address bridge_cafile bridge_capath bridge_certfile bridge_identity
bridge_insecure bridge_keyfile bridge_max_packet_size bridge_outgoing_retain bridge_protocol_version bridge_psk
bridge_require_ocsp bridge_tls_version cafile capath certfile check_retain_source ciphers ciphers_tls1.3 cleansession
clientid_prefixes connection connection_messages crlfile dhparamfile http_dir idle_timeout include_dir
keepalive_interval keyfile listener local_cleansession local_clientid local_password local_username log_dest
log_facility log_timestamp log_timestamp_format log_type max_connections max_inflight_bytes max_inflight_messages
max_keepalive max_packet_size max_qos max_queued_bytes max_queued_messages max_topic_alias memory_limit
message_size_limit mount_point notification_topic notifications notifications_local_only password_file
per_listener_settings persistence persistence_file persistence_location persistent_client_expiration pid_file port
protocol psk_file psk_hint queue_qos0_messages remote_clientid remote_password remote_username require_certificate
restart_timeout retain_available round_robin set_tcp_nodelay socket_domain start_type sys_interval threshold tls_engine
tls_engine_kpass_sha1 tls_keyform tls_version topic try_private upgrade_outgoing_qos use_identity_as_username
use_subject_as_username use_username_as_clientid user websockets_headers_size websockets_log_level auth_opt_x
"""
"""Every option of mosquitto.conf(5) of Mosquitto 2.0.11."""


def translated(tmp_path: Path, text: str) -> Translation:
    file = tmp_path / "mosquitto.conf"
    file.write_text(text, encoding="utf-8")
    translation = translate_mosquitto(file)
    made = tmp_path / "made.toml"
    made.write_text(translation.text(), encoding="utf-8")
    load_config(made, {})  # whatever the file said
    return translation


def values_of(tmp_path: Path, text: str) -> dict[str, Any]:
    """What it becomes, when nothing is to be said of it."""
    translation = translated(tmp_path, text)
    assert not translation.notes, translation.notes
    return tomllib.loads(translation.text())


def notes_of(tmp_path: Path, text: str) -> list[tuple[int, str]]:
    return [(note.place.line, note.text) for note in translated(tmp_path, text).notes]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# a comment\n\n   # another\n", {}),
        ("max_packet_size 2000", {"mqtt": {"packet_bytes_max": 2000}}),
        ("message_size_limit 1000", {"mqtt": {"packet_bytes_max": 1000 + 65_535 + 1_024}}),
        ("max_packet_size 0", {}),
        ("max_queued_messages 500", {"mqtt": {"queued_messages_max": 500}}),
        ("max_queued_bytes 1000", {"mqtt": {"queued_bytes_max": 1000}}),
        ("max_queued_bytes 0", {}),
        ("max_inflight_messages 20", {"mqtt": {"inflight_messages_max": 20}}),
        ("max_inflight_messages 0", {"mqtt": {"inflight_messages_max": 65_535}}),
        ("max_keepalive 60", {"mqtt": {"keep_alive_s_max": 60}}),
        ("max_topic_alias 5", {"mqtt": {"topic_alias_maximum": 5}}),
        ("sys_interval 30", {"mqtt": {"sys_interval_s": 30}}),
        ("persistent_client_expiration 2h", {"mqtt": {"session_expiry_s_max": 7_200}}),
        ("persistent_client_expiration 14d", {"mqtt": {"session_expiry_s_max": 14 * 86_400}}),
        ("persistent_client_expiration 1w", {"mqtt": {"session_expiry_s_max": 7 * 86_400}}),
        ("persistent_client_expiration 2m", {"mqtt": {"session_expiry_s_max": 60 * 86_400}}),
        ("persistent_client_expiration 1000y", {"mqtt": {"session_expiry_s_max": 2**32 - 2}}),
        ("max_connections 10", {"mqtt": {"connections_max": 10}}),
        ("max_connections -1", {}),
        ("log_dest stderr\nlog_type error\nlog_type warning", {"log": {"level": "warn"}}),
        ("log_type all", {"log": {"level": "debug"}}),
        ("persistence true\nallow_zero_length_clientid true\nset_tcp_nodelay TRUE", {}),
        ("port 1884", {"mqtt": {"bind": "0.0.0.0:1884"}, "auth": {"allow_anonymous": True}}),
    ],
)
def test_options_that_have_an_equivalent(tmp_path: Path, text: str, expected: dict[str, Any]) -> None:
    if text.startswith("port"):
        text += "\nallow_anonymous true"
    assert values_of(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("listener 1883\nallow_anonymous true", {"mqtt": "0.0.0.0:1883"}),
        ("listener 1883 127.0.0.1\nallow_anonymous true", {"mqtt": "127.0.0.1:1883"}),
        ("listener 1883 ::1\nallow_anonymous true", {"mqtt": "[::1]:1883"}),
        ("listener 1883 127.0.0.1", {"mqtt": "127.0.0.1:1883"}),
        ("bind_address 127.0.0.1\nport 1885", {"mqtt": "127.0.0.1:1885"}),
        (
            "allow_anonymous true\nlistener 1883\nlistener 9001\nprotocol websockets",
            {"mqtt": "0.0.0.0:1883", "websocket": "0.0.0.0:9001"},
        ),
        ("allow_anonymous true\nlistener 9001 10.0.0.1\nprotocol websockets", {"websocket": "10.0.0.1:9001"}),
    ],
)
def test_listeners_become_addresses(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    values = values_of(tmp_path, text)
    assert {name: values[name]["bind"] for name in ("mqtt", "websocket") if name in values} == expected
    is_open = any("127.0.0.1" not in bind and "::1" not in bind for bind in expected.values())
    assert ("auth" in values) == is_open


@pytest.mark.parametrize(
    "text",
    ["listener 1883", "listener 1883\nallow_anonymous false", "listener 1883\nallow_anonymous false\npassword_file p"],
)
def test_a_listener_that_lets_in_users_only_never_becomes_an_open_one(tmp_path: Path, text: str) -> None:
    translation = translated(tmp_path, text)
    assert translation.values["mqtt"]["bind"] == "127.0.0.1:1883"
    assert "auth" not in translation.values
    assert any("on this computer alone" in note.text for note in translation.notes if note.place.line == 1)


PASSWORDS = "listener 1883 0.0.0.0\npassword_file /pw\n"
OPEN_WEBSOCKET = "listener 9001\nprotocol websockets\nallow_anonymous true\n"


@pytest.mark.parametrize(
    ("text", "expected", "left_out"),
    [
        (f"per_listener_settings true\n{PASSWORDS}listener 1884 127.0.0.1\nallow_anonymous true\n", "mqtt", 2),
        (f"per_listener_settings true\n{PASSWORDS}allow_anonymous false\n{OPEN_WEBSOCKET}", "websocket", 2),
        (f"per_listener_settings 1\n{PASSWORDS}{OPEN_WEBSOCKET}", "websocket", 2),
        (f"allow_anonymous true\n{PASSWORDS}listener_allow_anonymous false\n{OPEN_WEBSOCKET}", "websocket", 2),
        (f"allow_anonymous true\nper_listener_settings true\n{PASSWORDS}{OPEN_WEBSOCKET}", "websocket", 3),
        (f"per_listener_settings true\n{OPEN_WEBSOCKET}{PASSWORDS}", "websocket", 5),
    ],
)
def test_a_listener_with_users_is_left_out_beside_an_open_one(
    tmp_path: Path, text: str, expected: str, left_out: int
) -> None:
    """What is written holds for all listeners, in Mosquitto it may be for one of them."""
    translation = translated(tmp_path, text)
    address = {"mqtt": "127.0.0.1:1884", "websocket": "0.0.0.0:9001"}[expected]
    addresses = {name: translation.values[name] for name in ("mqtt", "websocket") if name in translation.values}
    assert addresses == {expected: {"bind": address}}
    assert ("auth" in translation.values) == (expected == "websocket")
    said = [note.text for note in translation.notes if note.place.line == left_out]
    assert [text.startswith("left out, since nobody is let in without a user") for text in said] == [True]
    refused = {number for number, line in enumerate(text.splitlines(), 1) if line.endswith("anonymous false")}
    assert refused <= {note.place.line for note in translation.notes}


def test_listeners_with_users_are_on_this_computer_alone_when_all_have_them(tmp_path: Path) -> None:
    text = f"per_listener_settings true\nallow_anonymous true\n{PASSWORDS}listener 9001\nprotocol websockets\n"
    values = translated(tmp_path, text).values
    assert values == {"mqtt": {"bind": "127.0.0.1:1883"}, "websocket": {"bind": "127.0.0.1:9001"}}


@pytest.mark.parametrize(
    "text",
    [
        "allow_anonymous 1\nlistener 1883",
        "listener 1883\nlistener_allow_anonymous true",
        "allow_anonymous false\nlistener 1883\nlistener_allow_anonymous true",
        "per_listener_settings true\nlistener 1883\nallow_anonymous true",
        "per_listener_settings true\nper_listener_settings 0\nallow_anonymous true\nlistener 1883",
    ],
)
def test_a_listener_that_lets_everyone_in_is_open_however_that_is_said(tmp_path: Path, text: str) -> None:
    values = translated(tmp_path, text).values
    assert values == {"mqtt": {"bind": "0.0.0.0:1883"}, "auth": {"allow_anonymous": True}}


@pytest.mark.parametrize("line", ["acl_file /acl", "plugin /x.so", "clientid_prefixes secure-"])
def test_a_listener_with_rules_never_becomes_an_open_one(tmp_path: Path, line: str) -> None:
    translation = translated(tmp_path, f"listener 1883\nallow_anonymous true\n{line}\n")
    assert translation.values["mqtt"]["bind"] == "127.0.0.1:1883"
    assert "auth" not in translation.values
    assert f"since {line.split()[0]} restricts" in translation.text()


def test_an_encrypted_listener_never_becomes_an_open_one(tmp_path: Path) -> None:
    text = "allow_anonymous true\nlistener 8883\ncertfile c\nkeyfile k\nlistener 1883 127.0.0.1\n"
    translation = translated(tmp_path, text)
    assert translation.values["mqtt"]["bind"] == "127.0.0.1:1883"
    assert "auth" not in translation.values
    assert [note.place.line for note in translation.notes] == [2, 3, 4]
    assert all("TLS" in note.text for note in translation.notes)


def test_connections_of_listeners_are_counted_together(tmp_path: Path) -> None:
    listeners = "listener 1883 127.0.0.1\nmax_connections 10\nlistener 9001 127.0.0.1\nprotocol websockets\n"
    assert values_of(tmp_path, f"{listeners}max_connections 5\n")["mqtt"]["connections_max"] == 15
    assert [(line, "has no limit" in text) for line, text in notes_of(tmp_path, listeners)] == [(2, True)]


def test_a_second_listener_of_a_kind_is_named(tmp_path: Path) -> None:
    found = notes_of(tmp_path, "allow_anonymous true\nlistener 1883\nlistener 1884\n")
    assert [line for line, _ in found] == [3]
    assert "has one address" in found[0][1]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("acl_file /etc/acl", "access rules"),
        ("password_file /etc/pw", "users"),
        ("auth_plugin /x.so", "plugins"),
        ("auth_opt_db_pass secret", "plugins"),
        ("psk_file /x", "pre-shared"),
        ("allow_zero_length_clientid false", "given one"),
        ("persistence false", "on disk"),
        ("persistence_location /var/lib/mosquitto/", "not read"),
        ("log_dest file /x.log", "standard error"),
        ("log_type none", "nothing"),
        ("log_type loud", "no kind"),
        ("max_queued_messages 0", "has a bound"),
        ("max_queued_messages many", "no whole number"),
        ("retain_available false", "0x97"),
        ("persistent_client_expiration soon", "no time"),
        ("listener x", "port"),
        ("listener 0 /tmp/socket", "Unix"),
        ("protocol http", "mqtt or websockets"),
        ("allow_anonymous maybe", "true or false"),
        ("max_connections none", "no number"),
        ("topic a", "before any `connection`"),
        ("colour blue", "spelt right"),
        ("include_dir /no/such/folder", "cannot be read"),
    ],
)
def test_a_line_without_equivalent_is_named_with_its_reason(tmp_path: Path, line: str, text: str) -> None:
    found = notes_of(tmp_path, f"\n# here it comes\n{line}\n")
    assert [number for number, _ in found] == [3]
    assert text in found[0][1]


@pytest.mark.parametrize("value", ["true", "1", "/some/path", ""])
def test_every_option_of_the_manual_is_known_and_no_value_breaks_the_result(tmp_path: Path, value: str) -> None:
    for option in MAN_PAGE.split():
        before = "connection c\naddress h\ntopic #\n" if option in BRIDGE_OPTIONS else "listener 1884 127.0.0.1\n"
        for _, text in notes_of(tmp_path, f"{before}{option} {value}\n"):
            assert "spelt right" not in text, option


def test_no_secret_is_printed(tmp_path: Path) -> None:
    text = (
        "auth_opt_pg_secret hush1\nplugin_opt_x hush2\nconnection c\naddress h\ntopic # in\nremote_username u\n"
        "remote_password hush3\nlocal_password hush4\nbridge_psk hush5\nbridge_identity i\n"
    )
    assert "hush" not in translated(tmp_path, text).text()


def test_included_files_stand_where_they_are_included(tmp_path: Path) -> None:
    folder = tmp_path / "conf.d"
    folder.mkdir()
    (folder / "b.conf").write_text("max_keepalive 20\n", encoding="utf-8")
    (folder / "a.conf").write_text("max_keepalive 10\nuser nobody\n", encoding="utf-8")
    (folder / "c.txt").write_text("max_keepalive 30\n", encoding="utf-8")
    translation = translated(tmp_path, f"max_keepalive 5\ninclude_dir {folder}\n")
    assert translation.values == {"mqtt": {"keep_alive_s_max": 20}}
    assert f"{folder}/a.conf line 2: user nobody" in translation.text()


def test_files_that_include_themselves_end(tmp_path: Path) -> None:
    (tmp_path / "again.conf").write_text(f"include_dir {tmp_path}\n", encoding="utf-8")
    file = tmp_path / "again.conf"
    assert any("not followed" in note.text for note in translate_mosquitto(file).notes)


@pytest.mark.parametrize("name", ["", "none.conf"])
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(CannotTranslate, match="cannot read"):
        translate_mosquitto(tmp_path / name if name else tmp_path)


def test_bytes_that_are_no_text_are_survived(tmp_path: Path) -> None:
    file = tmp_path / "m.conf"
    file.write_bytes(b"\xff\xfe\x00 x\nuser \x07\x80\n")
    tomllib.loads(translate_mosquitto(file).text())


# Bridges

BRIDGE = "connection cloud\naddress broker.example\n"


def tables(tmp_path: Path, text: str) -> dict[str, Any]:
    values = values_of(tmp_path, BRIDGE + text)
    return {kind: values[kind] for kind in ("ingest", "egress") if kind in values}


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("a/#", {"egress": {"topics": ["a/#"], "qos": 0}}),
        ("a/# out 1", {"egress": {"topics": ["a/#"], "qos": 1}}),
        ("a/# in 2", {"ingest": {"topics": ["a/#"], "qos": 2}}),
        (
            "a/# in 1 local/ remote/",
            {"ingest": {"topics": ["remote/a/#"], "remove_prefix": "remote/", "prefix": "local/", "qos": 1}},
        ),
        (
            "a/# out 1 local/ remote/",
            {"egress": {"topics": ["local/a/#"], "remove_prefix": "local/", "prefix": "remote/", "qos": 1}},
        ),
        ('# out 1 "" site/7/', {"egress": {"topics": ["#"], "prefix": "site/7/", "qos": 1}}),
        ('"" in 1 here/x there/y', {"ingest": {"topics": ["there/y"], "remove_prefix": "there/y", "prefix": "here/x"}}),
    ],
)
def test_topics_of_a_bridge(tmp_path: Path, topic: str, expected: dict[str, dict[str, Any]]) -> None:
    found = tables(tmp_path, f"topic {topic}\n")
    assert set(found) == set(expected)
    for kind, table in expected.items():
        (got,) = found[kind]
        assert {**got, **table} == got
        assert (got["name"], got["broker"]) == ("cloud", "mqtt://broker.example:1883")


def test_both_directions_are_a_table_each(tmp_path: Path) -> None:
    found = tables(tmp_path, "topic a/# both 1\ntopic b/# out 1\n")
    assert [(each["name"], each["topics"]) for each in found["ingest"]] == [("cloud", ["a/#"])]
    assert [(each["name"], each["topics"]) for each in found["egress"]] == [("cloud-2", ["a/#", "b/#"])]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("bridge_protocol_version mqttv311", {"version": "3.1.1"}),
        ("bridge_protocol_version mqttv50", {"version": "5"}),
        ("remote_clientid me\nremote_username u", {"client_id": "me", "username": "u"}),
        ("clientid me\nusername u", {"client_id": "me", "username": "u"}),
        ("keepalive_interval 60\nrestart_timeout 5 20", {"keep_alive_s": 60, "reconnect_s_max": 20}),
        ("restart_timeout 15", {"reconnect_s_max": 15}),
        ("cleansession true", {"session_expiry_s": 0}),
        ("start_type automatic\ntry_private false\nnotifications false", {}),
        (
            "bridge_cafile /ca.pem\nbridge_insecure true",
            {"broker": "mqtts://broker.example:8883", "ca_file": "/ca.pem", "check_hostname": False},
        ),
        (
            "bridge_certfile /c\nbridge_keyfile /k",
            {"broker": "mqtts://broker.example:8883", "certificate_file": "/c", "key_file": "/k"},
        ),
        ("addresses other.example:1884", {"broker": "mqtt://other.example:1884"}),
    ],
)
def test_settings_of_a_bridge(tmp_path: Path, lines: str, expected: dict[str, Any]) -> None:
    (got,) = tables(tmp_path, f"topic # in\n{lines}\n")["ingest"]
    assert {**got, **expected} == got


def test_what_goes_out_without_retain(tmp_path: Path) -> None:
    (got,) = tables(tmp_path, "topic #\nbridge_outgoing_retain false\n")["egress"]
    assert got["retain"] is False


@pytest.mark.parametrize(
    ("lines", "line", "text"),
    [
        ("topic # in\nremote_username u\nremote_password p", 5, "into the file that password_file names"),
        ("topic # in\naddress a b", 4, "only the first"),
        ("topic # up", 3, "the direction is"),
        ("topic # out 1 a b c d", 3, "it is not: topic"),
        ('topic ""', 3, "both prefixes are needed"),
        ("topic a/#/b out", 3, "is not a topic filter"),
        ("topic # in 0 $SYS/ there/", 3, "only the server itself"),
        ("topic # both\nbridge_protocol_version mqttv311", 4, "MQTT 5 tells apart"),
        ("topic # in\nbridge_protocol_version mqttv31", 4, "instead of 3.1"),
        ("topic # in\nbridge_protocol_version 7", 4, "no value"),
        ("topic # in\nstart_type lazy", 4, "whenever it is lost"),
        ("topic # in\nbridge_capath /x", 4, "ca_file"),
        ("topic # in\nnotification_topic x", 4, "headrace_ingest_connected"),
        ("topic # in\nkeepalive_interval soon", 4, "no value"),
        ("try_private true\ntopic #", 3, "not as a bridge"),
    ],
)
def test_lines_of_a_bridge_without_equivalent(tmp_path: Path, lines: str, line: int, text: str) -> None:
    found = notes_of(tmp_path, BRIDGE + lines)
    assert (line, True) in [(number, text in said) for number, said in found], found


def test_a_password_becomes_a_file_that_is_named(tmp_path: Path) -> None:
    text = BRIDGE + "topic # in\nremote_username u\nremote_password p q\n"
    (got,) = translated(tmp_path, text).values["ingest"]
    assert got["password_file"] == "cloud.secret"


def test_bridges_of_one_name_get_two(tmp_path: Path) -> None:
    text = "connection a b\naddress h\ntopic # in\nconnection a-b\naddress i\ntopic # in\n"
    found = tomllib.loads(translated(tmp_path, text).text())["ingest"]
    assert len({each["name"] for each in found}) == 2


@pytest.mark.parametrize("text", ["connection c\ntopic #\n", "connection c\naddress h\n"])
def test_a_bridge_that_leads_nowhere_is_named(tmp_path: Path, text: str) -> None:
    found = notes_of(tmp_path, text)
    assert found[0][0] == 1
    assert "it has no" in found[0][1]
