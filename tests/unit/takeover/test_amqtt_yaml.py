"""aMQTT's YAML to TOML, in the form of 0.11 and the one before it."""

from __future__ import annotations

import importlib.resources
import tomllib
from pathlib import Path
from typing import Any

import pytest

from bridge.config_source import load_config
from bridge.takeover.amqtt_yaml import translate_amqtt
from bridge.takeover.translation import CannotTranslate, Translation

ANONYMOUS = "plugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin: {allow_anonymous: true}\n"


def translated(tmp_path: Path, text: str) -> Translation:
    file = tmp_path / "amqtt.yaml"
    file.write_text(text, encoding="utf-8")
    translation = translate_amqtt(file)
    made = tmp_path / "made.toml"
    made.write_text(translation.text(), encoding="utf-8")
    load_config(made, {})
    return translation


def values_of(tmp_path: Path, text: str) -> dict[str, Any]:
    translation = translated(tmp_path, text)
    assert not translation.notes, translation.notes
    return tomllib.loads(translation.text())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("---\n", {}),
        ("sys_interval: 20\n", {"mqtt": {"sys_interval_s": 20}}),
        ("session_expiry_interval: 600\n", {"mqtt": {"session_expiry_s_max": 600}}),
        ("session_expiry_interval: null\n", {}),
        (
            "plugins:\n  amqtt.plugins.sys.broker.BrokerSysPlugin: {sys_interval: 5}\n",
            {"mqtt": {"sys_interval_s": 5}},
        ),
        (
            "listeners:\n  default: {type: tcp, bind: '127.0.0.1:1884'}\n",
            {"mqtt": {"bind": "127.0.0.1:1884"}},
        ),
        (
            "listeners:\n  default: {bind: '0.0.0.0:1883', max_connections: 7}\n",
            {"mqtt": {"bind": "0.0.0.0:1883", "connections_max": 7}, "auth": {"allow_anonymous": True}},
        ),
        (
            "listeners:\n  default: {}\n  web: {type: ws, bind: '127.0.0.1:8080'}\n" + ANONYMOUS,
            {
                "mqtt": {"bind": "0.0.0.0:1883"},
                "websocket": {"bind": "127.0.0.1:8080"},
                "auth": {"allow_anonymous": True},
            },
        ),
        (
            "listeners:\n  default: {bind: '127.0.0.1:1883', max-connections: 3}\n"
            "  web: {type: ws, bind: '[::1]:80'}\n",
            {"mqtt": {"bind": "127.0.0.1:1883", "connections_max": 6}, "websocket": {"bind": "[::1]:80"}},
        ),
        (
            "listeners: {default: {bind: '0.0.0.0:1'}}\nauth:\n  plugins: [auth_anonymous]\n  allow-anonymous: true\n",
            {"mqtt": {"bind": "0.0.0.0:1"}, "auth": {"allow_anonymous": True}},
        ),
        (
            "listeners: {default: {bind: '0.0.0.0:1'}}\n"
            "plugins:\n  - amqtt.plugins.authentication.AnonymousAuthPlugin\n",
            {"mqtt": {"bind": "0.0.0.0:1"}, "auth": {"allow_anonymous": True}},
        ),
        (
            "plugins:\n  amqtt.plugins.logging_amqtt.EventLoggerPlugin:\n"
            "  amqtt.plugins.logging_amqtt.PacketLoggerPlugin:\n",
            {},
        ),
    ],
)
def test_keys_that_have_an_equivalent(tmp_path: Path, text: str, expected: dict[str, Any]) -> None:
    assert values_of(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("timeout-disconnect-delay: 2\n", 1, "keep alive"),
        ("colour: blue\n", 1, "no key of aMQTT"),
        ("topic-check:\n  enabled: true\n", 1, "access rules"),
        ("auth:\n  plugins: [auth_file]\n  password-file: /pw\n", 3, "users"),
        ("sys_interval: often\n", 1, "no number of seconds"),
        ("plugins:\n  amqtt.plugins.authentication.FileAuthPlugin: {password_file: /pw}\n", 2, "users"),
        ("plugins:\n  amqtt.plugins.topic_checking.TopicTabooPlugin:\n", 2, "access rules"),
        ("plugins:\n  amqtt.contrib.persistence.SessionDBPlugin:\n", 2, "its database is not read"),
        ("plugins:\n  - my.Plugin:\n      a: 1\n", 2, "plug-ins are not loaded"),
        ("listeners:\n  default:\n    bind: 127.0.0.1:1\n    colour: blue\n", 4, "no key of a listener"),
        ("listeners:\n  default: {bind: 127.0.0.1:1}\n  x: {bind: 127.0.0.1:2}\n", 3, "has one address"),
        ("listeners:\n  default: {type: external}\n", 2, "tcp or ws"),
        (
            "listeners:\n  default: {bind: 127.0.0.1:1}\n  x: {type: ws, bind: 127.0.0.1:2, max_connections: 2}\n",
            3,
            "has no limit",
        ),
        ("listeners:\n  default: {bind: here}\n", 2, "is not an address"),
        ("listeners:\n  default: {bind: '127.0.0.1:99999'}\n", 2, "is not an address"),
    ],
)
def test_a_key_without_equivalent_is_named_with_its_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    if said == "is not an address" and "here" in text:
        text = text.replace("here", "'here:x'")
    found = [(note.place.line, note.text) for note in translated(tmp_path, text).notes]
    assert any(number == line and said in told for number, told in found), found


@pytest.mark.parametrize(
    "plugins",
    [
        "plugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin: {allow_anonymous: false}\n",
        "plugins:\n  amqtt.plugins.authentication.FileAuthPlugin: {password_file: /pw}\n",
        "auth:\n  plugins: [auth_file]\n",
        "plugins: {}\n",
    ],
)
def test_users_only_never_becomes_open_to_all(tmp_path: Path, plugins: str) -> None:
    translation = translated(tmp_path, "listeners: {default: {bind: '0.0.0.0:1883'}}\n" + plugins)
    assert translation.values["mqtt"]["bind"] == "127.0.0.1:1883"
    assert "auth" not in translation.values
    assert any("on this computer alone" in note.text for note in translation.notes)


@pytest.mark.parametrize(
    "rules",
    [
        ANONYMOUS + "  amqtt.plugins.topic_checking.TopicTabooPlugin:\n",
        ANONYMOUS + "  my.own.Plugin:\n",
        ANONYMOUS + "topic-check:\n  enabled: true\n",
    ],
)
def test_rules_never_become_open_to_all(tmp_path: Path, rules: str) -> None:
    translation = translated(tmp_path, "listeners: {default: {bind: '0.0.0.0:1883'}}\n" + rules)
    assert translation.values["mqtt"]["bind"] == "127.0.0.1:1883"
    assert "auth" not in translation.values
    assert "a plug-in restricts clients" in translation.text()


def test_an_encrypted_listener_is_left_out(tmp_path: Path) -> None:
    text = "listeners:\n  default: {bind: '127.0.0.1:1883'}\n  tls: {bind: '0.0.0.0:8883', ssl: on, certfile: c}\n"
    translation = translated(tmp_path, text)
    assert translation.values == {"mqtt": {"bind": "127.0.0.1:1883"}}
    assert {note.place.line for note in translation.notes} == {3}


def test_amqtts_own_default_configuration(tmp_path: Path) -> None:
    text = importlib.resources.files("amqtt.scripts").joinpath("default_broker.yaml").read_text(encoding="utf-8")
    assert values_of(tmp_path, text) == {
        "mqtt": {"sys_interval_s": 20, "bind": "0.0.0.0:1883"},
        "auth": {"allow_anonymous": True},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\n", "line 2: not valid YAML"),
        ("- a\n- b\n", "no mapping"),
        ("hello\n", "no mapping"),
        ("a: !!python/object:os.system x\n", None),
        ("? {a: 1}\n: x\n", None),
        ("listeners: 5\nplugins: x\nauth: y\n", None),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, text: str, said: str | None) -> None:
    if said is None:
        translated(tmp_path, text)
        return
    with pytest.raises(CannotTranslate, match=said):
        translated(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CannotTranslate, match="cannot read"):
        translate_amqtt(tmp_path / "none.yaml")
