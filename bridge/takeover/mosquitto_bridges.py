"""A `connection` of mosquitto.conf as [[ingest]] and [[egress]] tables.

Topics with the same prefixes and QoS become one table; `in` one that takes, `out` one that sends, `both` one of each.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from bridge.config_remote import EgressTable, IngestTable, faults_of
from bridge.takeover import mosquitto_options as options
from bridge.takeover.translation import Place, Translation

if TYPE_CHECKING:
    from bridge.takeover.mosquitto_conf import Line

TRANSLATED = (
    *("address", "addresses", "topic", "bridge_protocol_version", "remote_clientid", "remote_username"),
    *("remote_password", "clientid", "username", "password", "keepalive_interval", "restart_timeout", "cleansession"),
    *("bridge_cafile", "bridge_certfile", "bridge_keyfile", "bridge_insecure", "bridge_outgoing_retain"),
)
BRIDGE_OPTIONS = frozenset((*TRANSLATED, *options.BRIDGE))
ALIASES = {
    "addresses": "address",
    "clientid": "remote_clientid",
    "username": "remote_username",
    "password": "remote_password",
}
VERSIONS = {"mqttv50": "5", "mqttv311": "3.1.1", "mqttv31": "3.1.1"}
PORTS = {False: 1883, True: 8883}


@dataclass(slots=True)
class Bridge:
    """A `connection` with the lines that belong to it."""

    place: Place
    name: str
    lines: list[Line] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Route:
    """Topics that go one way with the same prefixes and QoS."""

    kind: str
    qos: int
    local_prefix: str
    remote_prefix: str


def translate_bridge(bridge: Bridge, translation: Translation, names: list[str]) -> None:
    """Append the tables of one bridge to `translation.values`."""
    common: dict[str, Any] = {}
    of_kind: dict[str, dict[str, Any]] = {"ingest": {}, "egress": {}}
    patterns: dict[Route, list[tuple[Line, str]]] = {}
    is_encrypted = any(line.option in ("bridge_cafile", "bridge_capath", "bridge_certfile") for line in bridge.lines)
    for line in bridge.lines:
        _take(line, translation, common, of_kind, patterns, is_encrypted)
    if "broker" not in common:
        translation.note(bridge.place, f"connection {bridge.name}", "it has no address that can be used")
        return
    if not patterns:
        translation.note(bridge.place, f"connection {bridge.name}", "it has no topic that can be taken")
    _settle_version(bridge, translation, common, patterns)
    if "username" not in common and common.pop("password_file", None) is not None:
        translation.note(bridge.place, f"connection {bridge.name}", "a password needs remote_username")
    for number, (route, lines) in enumerate(patterns.items()):
        name = _name(bridge.name, number, names)
        table = {"name": name, **_topics_of(route, [pattern for _, pattern in lines]), "qos": route.qos}
        if common.get("client_id") and number:
            common["client_id"] = None
            text = f"each table is a client of its own: {name} gets an id that is made once"
            translation.note(bridge.place, f"connection {bridge.name}", text)
        table |= {key: value for key, value in common.items() if value is not None} | of_kind[route.kind]
        if "password_file" in table:
            table["password_file"] = f"{bridge_file(bridge.name)}.secret"
        fault = fault_of(route.kind, table)
        if fault is not None:
            line = lines[0][0]
            translation.note(line.place, line.what, f"this server cannot do it: {fault}")
            continue
        translation.values.setdefault(route.kind, []).append(table)


def fault_of(kind: str, values: dict[str, Any]) -> str | None:
    """Why a table would not be taken; None when it would be."""
    try:
        table = IngestTable(**values) if kind == "ingest" else EgressTable(**values)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, found['loc']))}: {found['msg'].removeprefix('Value error, ')}"
    return next((text for _, _, text in faults_of((table,), kind)), None)


def _take(
    line: Line,
    translation: Translation,
    common: dict[str, Any],
    of_kind: dict[str, dict[str, Any]],
    patterns: dict[Route, list[tuple[Line, str]]],
    is_encrypted: bool,
) -> None:
    option, value = ALIASES.get(line.option, line.option), line.value
    if value.lower() in options.BRIDGE_ALWAYS_SO.get(option, ()):
        return
    match option:
        case "address":
            _take_address(line, translation, common, is_encrypted)
        case "topic":
            _take_topic(line, translation, patterns)
        case "bridge_protocol_version" if value in VERSIONS:
            common["version"] = VERSIONS[value]
            if value == "mqttv31":
                translation.note(line.place, line.what, "3.1.1 is spoken to other brokers instead of 3.1")
        case "remote_clientid":
            common["client_id"] = value
        case "remote_username":
            common["username"] = value
        case "remote_password":
            common["password_file"] = True  # named after its bridge
            text = "no password stands in the configuration: write it into the file that password_file names"
            translation.note(line.place, line.what, text)
        case "keepalive_interval" if value.isdigit():
            common["keep_alive_s"] = max(5, min(int(value), 65_535))
        case "restart_timeout" if value.split() and all(part.isdigit() for part in value.split()):
            common["reconnect_s_max"] = max(1, min(int(value.split()[-1]), 3_600))
        case "cleansession":
            of_kind["ingest"]["session_expiry_s"] = 0
        case "bridge_cafile":
            common["ca_file"] = value
        case "bridge_certfile":
            common["certificate_file"] = value
        case "bridge_keyfile":
            common["key_file"] = value
        case "bridge_insecure":
            common["check_hostname"] = False
        case "bridge_outgoing_retain":
            of_kind["egress"]["retain"] = False
        case _:
            text = options.BRIDGE.get(option, f"{value!r} is no value that it can have")
            translation.note(line.place, line.what, text)


def _take_address(line: Line, translation: Translation, common: dict[str, Any], is_encrypted: bool) -> None:
    addresses = line.value.split()
    if not addresses:
        translation.note(line.place, line.what, "it names no host")
        return
    first = addresses[0]
    host, colon, port = first.rpartition(":")
    if not colon or not port.isdigit() or (":" in host and not host.endswith("]")):
        host, port = first, str(PORTS[is_encrypted])
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    common["broker"] = f"{'mqtts' if is_encrypted else 'mqtt'}://{host}:{port}"
    if len(addresses) > 1:
        translation.note(line.place, line.what, "only the first is connected to; give a name that stands for several")


def _take_topic(line: Line, translation: Translation, patterns: dict[Route, list[tuple[Line, str]]]) -> None:
    """`topic pattern [out|in|both [qos [local-prefix [remote-prefix]]]]`; `""` is an empty prefix or pattern."""
    try:
        parts = shlex.split(line.value, posix=True)
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 5:
        translation.note(line.place, line.what, "it is not: topic PATTERN DIRECTION QOS LOCAL-PREFIX REMOTE-PREFIX")
        return
    pattern, direction, qos, local, remote = (*parts, *("", "out", "0", "", "")[len(parts) :])
    if direction not in ("in", "out", "both") or qos not in ("0", "1", "2"):
        translation.note(line.place, line.what, "the direction is in, out or both, and the QoS 0, 1 or 2")
        return
    if not pattern and not (local and remote):
        translation.note(line.place, line.what, "without a pattern both prefixes are needed")
        return
    if direction in ("in", "both"):
        patterns.setdefault(Route("ingest", int(qos), local, remote), []).append((line, pattern))
    if direction in ("out", "both"):
        patterns.setdefault(Route("egress", int(qos), local, remote), []).append((line, pattern))


def _topics_of(route: Route, patterns: list[str]) -> dict[str, Any]:
    here, there = route.local_prefix, route.remote_prefix
    removed, added = (there, here) if route.kind == "ingest" else (here, there)
    table: dict[str, Any] = {"topics": [removed + pattern for pattern in patterns]}
    if removed:
        table["remove_prefix"] = removed
    if added:
        table["prefix"] = added
    return table


def _settle_version(
    bridge: Bridge, translation: Translation, common: dict[str, Any], patterns: dict[Route, list[tuple[Line, str]]]
) -> None:
    """A bridge in both directions needs MQTT 5, by which we know again what we have sent."""
    if common.get("version") == "3.1.1" and {"ingest", "egress"} <= {route.kind for route in patterns}:
        del common["version"]
        line = next(each for each in bridge.lines if each.option == "bridge_protocol_version")
        text = "left out: with both directions MQTT 5 tells apart what we have sent ourselves; it is tried first"
        translation.note(line.place, line.what, text)


def bridge_file(name: str) -> str:
    """A name as our tables take it."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:48]
    return cleaned or "bridge"


def _name(bridge: str, number: int, names: list[str]) -> str:
    """Of a table: the bridge's, with a number when there are several."""
    base = bridge_file(bridge)
    position = [bridge_file(each) for each in names].index(base)
    if sum(bridge_file(each) == base for each in names) > 1:
        base = f"{base}-{names.index(bridge, position) + 1}"
    return base if not number else f"{base}-{number + 1}"
