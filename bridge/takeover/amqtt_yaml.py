"""aMQTT's YAML (0.11) as our configuration: the broker's keys, its listeners and its own plug-ins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from bridge.quantities import Address
from bridge.takeover.mosquitto_options import RULES, TLS, USERS
from bridge.takeover.translation import CannotTranslate, Place, Translation

FILE_BYTES_MAX = 1024 * 1024
PLUGIN = "this is a plug-in of aMQTT: plug-ins are not loaded in this version"
NOBODY = f"on this computer alone, since nobody is let in without a user: {USERS}"
RESTRICTED = "on this computer alone, since a plug-in restricts clients there and cannot here"
DEFAULTS = """\
Where the file says nothing, Headrace's own defaults hold. Beside what aMQTT does: MQTT 5, and everything that is
published is kept for 24 hours or 1 GiB (docs/streams.md)."""

TOP_KEYS = {
    "timeout_disconnect_delay": "a client that is silent for one and a half times its keep alive is closed",
    "auth": USERS,
    "topic_check": RULES,
}
LISTENER_KEYS = {
    "ssl": TLS,
    "cafile": TLS,
    "capath": TLS,
    "cadata": TLS,
    "certfile": TLS,
    "keyfile": TLS,
    "reader": "transports of your own are not taken: listen on TCP or WebSocket",
    "writer": "transports of your own are not taken: listen on TCP or WebSocket",
}
PLUGINS = {
    "FileAuthPlugin": USERS,
    "UserAuthDBPlugin": USERS,
    "UserAuthCertPlugin": TLS,
    "UserAuthJwtPlugin": USERS,
    "UserAuthLdapPlugin": USERS,
    "UserAuthHttpPlugin": USERS,
    "DjangoAuthPlugin": USERS,
    "TopicAccessControlListPlugin": RULES,
    "TopicTabooPlugin": RULES,
    "TopicAuthDBPlugin": RULES,
    "TopicAuthJwtPlugin": RULES,
    "TopicAuthLdapPlugin": RULES,
    "TopicAuthHttpPlugin": RULES,
    "UserTopicACLPlugin": RULES,
    "ShadowTopicAuthPlugin": RULES,
    "ShadowPlugin": "device shadows are not kept: the latest message of each topic is GET /api/v1/topics",
    "SessionDBPlugin": "what is published is stored in the data directory by itself; its database is not read",
    "SQLitePlugin": "what is published is stored in the data directory by itself; its database is not read",
}
SAME = ("EventLoggerPlugin", "PacketLoggerPlugin")
"""Plug-ins whose work is done here anyway: what is logged follows [log] level."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One of `listeners`, its `default` filled in."""

    name: str
    place: Place
    kind: str
    bind: Address
    connections_max: int
    is_encrypted: bool


def translate_amqtt(file: Path) -> Translation:
    """Read `file`.

    Raises:
        CannotTranslate: it cannot be read, or is no YAML mapping.
    """
    translation = Translation(str(file), "aMQTT's configuration", remarks=[DEFAULTS])
    is_anonymous = True  # without any `plugins` and `auth`, aMQTT lets everybody in
    has_rules = False
    listeners: list[Listener] = []
    for key, place, node in _pairs(_root(file), str(file)):
        name = key.replace("-", "_")
        if name == "listeners":
            listeners = list(_listeners(node, str(file), translation))
        elif name == "plugins":
            is_anonymous = _take_plugins(node, str(file), translation)
            has_rules = has_rules or any(note.text in (RULES, PLUGIN) for note in translation.notes)
        elif name == "sys_interval":
            _put_seconds(translation, place, key, node, "sys_interval_s", 65_535)
        elif name == "session_expiry_interval":
            _put_seconds(translation, place, key, node, "session_expiry_s_max", 2**32 - 2)
        elif name == "auth":
            is_anonymous = _take_auth(place, node, str(file), translation)
        else:
            translation.note(place, key, TOP_KEYS.get(name, "no key of aMQTT 0.11 that is known here"))
            has_rules = has_rules or name == "topic_check"
    closed = RESTRICTED if has_rules else NOBODY if not is_anonymous else None
    _put_listeners(listeners, translation, closed)
    translation.notes.sort(key=lambda note: note.place.line)
    return translation


def _root(file: Path) -> yaml.Node | None:
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise CannotTranslate(f"{file} has more than {FILE_BYTES_MAX} bytes: it is no configuration of aMQTT.")
        text = file.read_text(encoding="utf-8")
        root: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise CannotTranslate(f"cannot read {file}: {(error.strerror or str(error)).lower()}.") from error
    except UnicodeDecodeError as error:
        raise CannotTranslate(f"{file} is not UTF-8 text.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file} line {mark.line + 1}" if mark is not None else str(file)
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise CannotTranslate(f"{where}: not valid YAML: {problem}.") from error
    if isinstance(root, yaml.ScalarNode) and not root.value:
        return None  # nothing but a document's beginning
    if root is not None and not isinstance(root, yaml.MappingNode):
        raise CannotTranslate(f"{file} is no mapping of keys to values.")
    return root


def _pairs(node: yaml.Node | None, file: str) -> Iterator[tuple[str, Place, yaml.Node]]:
    """Key, where it stands, and value, of a mapping or of a list of mappings; nothing of anything else."""
    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            if isinstance(each, yaml.ScalarNode):
                yield each.value, _place(each, file), yaml.MappingNode("tag:yaml.org,2002:map", [])
            else:
                yield from _pairs(each, file)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield str(key.value), _place(key, file), value


def _place(node: yaml.Node, file: str) -> Place:
    return Place(file, node.start_mark.line + 1)


def _text(node: yaml.Node) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""


def _is_true(node: yaml.Node) -> bool:
    return _text(node).lower() in ("true", "yes", "on")


def _whole(node: yaml.Node) -> int | None:
    text = _text(node)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _put_seconds(translation: Translation, place: Place, key: str, node: yaml.Node, ours: str, most: int) -> None:
    seconds = _whole(node)
    if seconds is None:
        if _text(node).lower() not in ("", "null", "~"):
            translation.note(place, f"{key}: {_text(node)}", "it is no number of seconds")
        return
    translation.put("mqtt", ours, min(seconds, most))


# Listeners


def _listeners(node: yaml.Node, file: str, translation: Translation) -> Iterator[Listener]:
    """Those that have an address; what they do not say is as `default` says it."""
    found = {name: (place, dict_of(inner)) for name, place, inner in _pairs(node, file)}
    default = found.get("default", (Place(file, node.start_mark.line + 1), {}))[1]
    for name, _, inner in _pairs(node, file):
        for key, place, value in _pairs(inner, file):
            text = LISTENER_KEYS.get(key.replace("-", "_"))
            if text is not None and not (key == "ssl" and not _is_true(value)):
                translation.note(place, f"{name}.{key}", text)
            elif text is None and key.replace("-", "_") not in ("type", "bind", "max_connections", "ssl"):
                translation.note(place, f"{name}.{key}", "no key of a listener of aMQTT 0.11 that is known here")
    for name, (place, own) in found.items():
        values = {**default, **own}
        kind = _text(values["type"]) if "type" in values else "tcp"
        bind = _text(values["bind"]) if "bind" in values else "0.0.0.0:1883"
        if kind not in ("tcp", "ws"):
            translation.note(place, f"{name}.type: {kind}", "a listener is tcp or ws")
            continue
        try:
            address = Address.parse(bind if ":" in bind else f"{bind}:{1883 if kind == 'tcp' else 8080}")
        except ValueError as error:
            translation.note(place, f"{name}.bind", str(error))
            continue
        connections = _whole(values["max_connections"]) if "max_connections" in values else 0
        is_encrypted = ("ssl" in values and _is_true(values["ssl"])) or "certfile" in values
        yield Listener(name, place, kind, address, connections or 0, is_encrypted)


def dict_of(node: yaml.Node) -> dict[str, yaml.Node]:
    """A mapping's values by key, with `_` in it for `-`."""
    return {key.replace("-", "_"): value for key, _, value in _pairs(node, "")}


def _put_listeners(listeners: list[Listener], translation: Translation, closed: str | None) -> None:
    """`closed`: why no address may be open to a network."""
    is_exposed = False
    taken: list[Listener] = []
    for listener in listeners:
        section = "mqtt" if listener.kind == "tcp" else "websocket"
        what = f"listener {listener.name}"
        if listener.is_encrypted:
            translation.note(listener.place, what, f"left out, since it is encrypted: {TLS}")
            continue
        if "bind" in translation.values.get(section, {}):
            translation.note(listener.place, what, f"[{section}] has one address: run a second server, or bind 0.0.0.0")
            continue
        bind = listener.bind
        if closed is not None and not bind.is_loopback:
            translation.note(listener.place, what, closed)
            bind = Address("127.0.0.1", bind.port)
        is_exposed = is_exposed or not bind.is_loopback
        taken.append(listener)
        translation.put(section, "bind", str(bind))
    limited = [each for each in taken if each.connections_max]
    if limited and len(limited) == len(taken):
        translation.put("mqtt", "connections_max", sum(each.connections_max for each in limited))
    for listener in limited if len(limited) < len(taken) else ():
        text = "[mqtt] connections_max counts all listeners together, and another one has no limit"
        translation.note(listener.place, f"{listener.name}.max_connections", text)
    if is_exposed:
        translation.put("auth", "allow_anonymous", True)


# Plug-ins


def _take_plugins(node: yaml.Node, file: str, translation: Translation) -> bool:
    """Whether they let everybody in. (A list of them was the form before 0.11 and is read too.)"""
    is_anonymous = False
    for path, place, inner in _pairs(node, file):
        name = path.rpartition(".")[2]
        values = dict_of(inner)
        if name == "AnonymousAuthPlugin":
            is_anonymous = "allow_anonymous" not in values or _is_true(values["allow_anonymous"])
            if not is_anonymous:
                translation.note(place, path, USERS)
        elif name == "BrokerSysPlugin":
            if "sys_interval" in values:
                _put_seconds(translation, place, "sys_interval", values["sys_interval"], "sys_interval_s", 65_535)
        elif name not in SAME:
            translation.note(place, path, PLUGINS.get(name, PLUGIN))
    return is_anonymous


def _take_auth(place: Place, node: yaml.Node, file: str, translation: Translation) -> bool:
    """The form before 0.11: `auth: {plugins: [auth_anonymous], allow-anonymous: true, password-file: …}`."""
    values = dict_of(node)
    is_anonymous = "allow_anonymous" in values and _is_true(values["allow_anonymous"])
    for key, where, _ in _pairs(node, file):
        if key.replace("-", "_") == "password_file":
            translation.note(where, f"auth.{key}", USERS)
        elif key.replace("-", "_") not in ("plugins", "allow_anonymous"):
            translation.note(where, f"auth.{key}", PLUGIN)
    if not is_anonymous:
        translation.note(place, "auth", USERS)
    return is_anonymous
