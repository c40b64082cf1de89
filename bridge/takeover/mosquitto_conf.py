"""mosquitto.conf as our configuration: lines to options, options to settings, the rest to notes.

A line is an option and its value, parted by spaces; `listener` and `connection` begin blocks that the following lines
belong to, as in mosquitto.conf(5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bridge.takeover import mosquitto_options as options
from bridge.takeover.mosquitto_bridges import BRIDGE_OPTIONS, Bridge, translate_bridge
from bridge.takeover.translation import CannotTranslate, Place, Translation

INCLUDES_MAX = 1_000
"""Files of include_dir."""
INCLUDE_DEPTH_MAX = 3
FILE_BYTES_MAX = 4 * 1024 * 1024
UNLIMITED_QUEUE = 1_000_000
S_BY_UNIT = {"h": 3_600, "d": 86_400, "w": 7 * 86_400, "m": 30 * 86_400, "y": 365 * 86_400}
SESSION_EXPIRY_S_MAX = 2**32 - 2
TRUE, FALSE = ("true", "1"), ("false", "0")
SECTIONS = {"mqtt": "mqtt", "websockets": "websocket"}
"""By protocol."""
LOG_LEVELS = {
    "debug": "debug",
    "all": "debug",
    "information": "info",
    "notice": "info",
    "subscribe": "info",
    "unsubscribe": "info",
    "websockets": "info",
    "warning": "warn",
    "error": "error",
}
LEVEL_ORDER = ("debug", "info", "warn", "error")
DEFAULTS = """\
Where the file says nothing, Headrace's own defaults hold. Some differ from Mosquitto's: packets up to 1 MiB
([mqtt] packet_bytes_max), sessions live 7 days at most (session_expiry_s_max), 10,000 messages are queued for a
session (queued_messages_max), and everything that is published is kept for 24 hours or 1 GiB (docs/streams.md)."""


@dataclass(frozen=True, slots=True)
class Line:
    """One option with its value."""

    place: Place
    option: str
    value: str

    @property
    def what(self) -> str:
        """As it was written, without secrets."""
        is_secret = "pass" in self.option or "psk" in self.option or "_opt_" in self.option
        return self.option if is_secret else f"{self.option} {self.value}".strip()


@dataclass(slots=True)
class Listener:
    """A `listener` with the lines that belong to it; the first may be the default one."""

    place: Place | None = None
    port: int = 1883
    host: str | None = None
    protocol: str = "mqtt"
    connections: Line | None = None
    """Its max_connections."""
    tls: list[Line] = field(default_factory=list)
    allow_anonymous: Line | None = None
    """Its own, by per_listener_settings or listener_allow_anonymous."""

    @property
    def what(self) -> str:
        """As a note names it."""
        return f"listener {self.port}" + (f" {self.host}" if self.host else "")


@dataclass(slots=True)
class Configuration:
    """What was found before it becomes ours."""

    translation: Translation
    default: Listener = field(default_factory=Listener)
    listeners: list[Listener] = field(default_factory=list)
    bridges: list[Bridge] = field(default_factory=list)
    allow_anonymous: Line | None = None
    """For the listeners that say nothing of their own."""
    is_per_listener: bool = False
    """Lines behind `per_listener_settings true` are about the listener that they stand under, or about none."""
    restricts: Line | None = None
    """What keeps clients from doing everything, and is not available here."""
    log_level: str | None = None


def translate_mosquitto(file: Path) -> Translation:
    """Read `file` and what it includes.

    Raises:
        CannotTranslate: a file cannot be read.
    """
    translation = Translation(str(file), "Mosquitto's configuration", remarks=[DEFAULTS])
    found = Configuration(translation)
    for line in read_lines(file, translation):
        _take(found, line)
    _put_listeners(found)
    if found.log_level is not None:
        translation.put("log", "level", found.log_level)
    for bridge in found.bridges:
        translate_bridge(bridge, translation, [each.name for each in found.bridges])
    translation.notes.sort(key=lambda note: (note.place.file != str(file), note.place.file, note.place.line))
    return translation


def read_lines(file: Path, translation: Translation, depth: int = 0) -> Iterator[Line]:
    """The options of a file, with those of `include_dir` where it stands (in the order of their names)."""
    included = 0
    for number, text in enumerate(_text_of(file).splitlines(), 1):
        stripped = text.strip()
        if not stripped or stripped.startswith("#"):
            continue
        option, _, value = stripped.partition(" ")
        line = Line(Place(str(file), number), option, value.strip())
        if option != "include_dir":
            yield line
            continue
        directory = Path(line.value)
        if depth >= INCLUDE_DEPTH_MAX:
            translation.note(line.place, line.what, "files that include files that include files are not followed")
            continue
        try:
            files = sorted(each for each in directory.iterdir() if each.name.endswith(".conf"))
        except OSError as error:
            translation.note(line.place, line.what, f"the folder cannot be read: {(error.strerror or '').lower()}")
            continue
        for each in files:
            included += 1
            if included > INCLUDES_MAX:
                translation.note(line.place, line.what, f"only the first {INCLUDES_MAX} files were read")
                break
            yield from read_lines(each, translation, depth + 1)


def _text_of(file: Path) -> str:
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise CannotTranslate(f"{file} has more than {FILE_BYTES_MAX} bytes: it is no mosquitto.conf.")
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise CannotTranslate(f"cannot read {file}: {(error.strerror or str(error)).lower()}.") from error


def _take(found: Configuration, line: Line) -> None:
    """One line, in the block that it stands in."""
    translation, option = found.translation, line.option
    if option == "connection":
        found.bridges.append(Bridge(line.place, line.value))
        return
    if found.bridges and option in BRIDGE_OPTIONS:
        found.bridges[-1].lines.append(line)
        return
    if option in BRIDGE_OPTIONS:
        translation.note(line.place, line.what, "it stands before any `connection`")
        return
    if line.value.lower() in options.ALWAYS_SO.get(option, ()) and option not in ("protocol",):
        return
    taker = TAKERS.get(option)
    if taker is not None:
        taker(found, line)
    elif option in options.LISTENER:
        _take_listener_option(found, line)
    elif option.startswith(("auth_opt_", "plugin_opt_")):
        translation.note(line.place, line.what, options.PLUGINS)
    elif option in options.GENERAL:
        translation.note(line.place, line.what, options.GENERAL[option])
    else:
        translation.note(line.place, line.what, "no option of Mosquitto 2 that is known here; is it spelt right?")
    if option in options.RESTRICTING:
        found.restricts = line


def _current(found: Configuration) -> Listener:
    return found.listeners[-1] if found.listeners else found.default


def _take_listener_option(found: Configuration, line: Line) -> None:
    if line.option in options.TLS_OPTIONS:
        _current(found).tls.append(line)
    found.translation.note(line.place, line.what, options.LISTENER[line.option])


def _take_listener(found: Configuration, line: Line) -> None:
    port, _, host = line.value.partition(" ")
    host = host.strip()
    if not port.isdigit() or int(port) > 65_535:
        found.translation.note(line.place, line.what, "its port is no number up to 65535")
        return
    if port == "0":
        found.translation.note(line.place, line.what, "Unix sockets are not listened on: use a loopback address")
        return
    found.listeners.append(Listener(line.place, int(port), host or None))


def _take_port(found: Configuration, line: Line) -> None:
    if line.value.isdigit() and 0 < int(line.value) <= 65_535:
        found.default.port, found.default.place = int(line.value), line.place
    else:
        found.translation.note(line.place, line.what, "its port is no number up to 65535")


def _take_bind_address(found: Configuration, line: Line) -> None:
    found.default.host, found.default.place = line.value, line.place


def _take_protocol(found: Configuration, line: Line) -> None:
    if line.value not in ("mqtt", "websockets"):
        found.translation.note(line.place, line.what, "a listener speaks mqtt or websockets")
        return
    _current(found).protocol = line.value


def _take_max_connections(found: Configuration, line: Line) -> None:
    number = _number(line.value)
    if number is None or number <= 0:
        if line.value != "-1":
            found.translation.note(line.place, line.what, "it is no number above 0")
        return
    _current(found).connections = line


def _take_per_listener(found: Configuration, line: Line) -> None:
    found.is_per_listener = line.value not in FALSE
    if found.is_per_listener:
        found.translation.note(line.place, line.what, options.GENERAL[line.option])


def _take_anonymous(found: Configuration, line: Line) -> None:
    _note_anonymous(found, line)
    if found.is_per_listener:
        _current(found).allow_anonymous = line
    else:
        found.allow_anonymous = line


def _take_listener_anonymous(found: Configuration, line: Line) -> None:
    _note_anonymous(found, line)
    _current(found).allow_anonymous = line


def _note_anonymous(found: Configuration, line: Line) -> None:
    if line.value not in TRUE:
        text = options.USERS if line.value in FALSE else "it is true or false"
        found.translation.note(line.place, line.what, text)


def _take_log_type(found: Configuration, line: Line) -> None:
    level = LOG_LEVELS.get(line.value)
    if level is None:
        text = "nothing at all cannot be logged: 2> /dev/null" if line.value == "none" else "no kind of log lines"
        found.translation.note(line.place, line.what, text)
    elif found.log_level is None or LEVEL_ORDER.index(level) < LEVEL_ORDER.index(found.log_level):
        found.log_level = level


def _take_log_dest(found: Configuration, line: Line) -> None:
    if line.value != "stderr":
        found.translation.note(line.place, line.what, options.LOGGING)


def _take_expiration(found: Configuration, line: Line) -> None:
    number, unit = _number(line.value[:-1]), line.value[-1:]
    if number is None or unit not in S_BY_UNIT:
        found.translation.note(line.place, line.what, "no time: a number and h, d, w, m or y")
        return
    seconds = min(number * S_BY_UNIT[unit], SESSION_EXPIRY_S_MAX)
    found.translation.put("mqtt", "session_expiry_s_max", seconds)


def _take_message_size(found: Configuration, line: Line) -> None:
    """The payload alone is meant; topic and header come on top of it."""
    _put_number(found, line, "packet_bytes_max", 1024, 256 * 1024 * 1024, more=65_535 + 1_024)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _put_number(
    found: Configuration, line: Line, key: str, least: int, most: int, *, zero: int | None = None, more: int = 0
) -> None:
    """Set a key of [mqtt]; `zero`: what 0 means there, and None that it means the option had not been given."""
    number = _number(line.value)
    if number is None:
        found.translation.note(line.place, line.what, "it is no whole number")
        return
    if number == 0:
        if zero is None:
            return
        wanted = zero
    else:
        wanted = number + more
    value = max(least, min(wanted, most))
    found.translation.put("mqtt", key, value)
    if value != wanted or (number == 0 and key == "queued_messages_max"):
        found.translation.note(line.place, line.what, f"taken as [mqtt] {key} = {value}: every queue has a bound here")


def _numbered(
    key: str, least: int, most: int, *, zero: int | None = None, more: int = 0
) -> Callable[[Configuration, Line], None]:
    return lambda found, line: _put_number(found, line, key, least, most, zero=zero, more=more)


def _take_retain_available(found: Configuration, line: Line) -> None:
    found.translation.put("mqtt", "retained_messages_max", 0)
    text = "taken as [mqtt] retained_messages_max = 0: a PUBLISH with RETAIN is refused with 0x97"
    found.translation.note(line.place, line.what, text)


TAKERS: dict[str, Callable[[Configuration, Line], None]] = {
    "listener": _take_listener,
    "port": _take_port,
    "bind_address": _take_bind_address,
    "protocol": _take_protocol,
    "max_connections": _take_max_connections,
    "per_listener_settings": _take_per_listener,
    "allow_anonymous": _take_anonymous,
    "listener_allow_anonymous": _take_listener_anonymous,
    "log_type": _take_log_type,
    "log_dest": _take_log_dest,
    "persistent_client_expiration": _take_expiration,
    "retain_available": _take_retain_available,
    "max_packet_size": _numbered("packet_bytes_max", 1024, 256 * 1024 * 1024),
    "message_size_limit": _take_message_size,
    "max_queued_messages": _numbered("queued_messages_max", 0, 10**9, zero=UNLIMITED_QUEUE),
    "max_queued_bytes": _numbered("queued_bytes_max", 0, 10**12),
    "max_inflight_messages": _numbered("inflight_messages_max", 1, 65_535, zero=65_535),
    "max_keepalive": _numbered("keep_alive_s_max", 1, 65_535, zero=65_535),
    "max_topic_alias": _numbered("topic_alias_maximum", 0, 65_535, zero=0),
    "sys_interval": _numbered("sys_interval_s", 0, 65_535, zero=0),
}


# Listeners


def _put_listeners(found: Configuration) -> None:
    """One address for MQTT and one for WebSocket; none that was closed or encrypted becomes an open one.

    What is written holds for all of them. So a closed one beside an open one is left out, and where all are closed they
    are on this computer alone.
    """
    translation = found.translation
    listeners = [found.default] if found.default.place is not None or not found.listeners else []
    listeners += found.listeners
    plain = [each for each in listeners if not _left_out_as_encrypted(found, each)]
    is_any_open = any(_lets_everyone_in(found, each) for each in plain)
    taken: list[Listener] = []
    is_exposed = False
    for listener in plain:
        if listener.place is None:  # nothing was said: loopback and 1883 there and here
            taken.append(listener)
            continue
        section = SECTIONS[listener.protocol]
        is_open = _lets_everyone_in(found, listener)
        if is_any_open and not is_open:
            text = f"left out, since nobody is let in without a user, as on another listener: {options.USERS}"
            translation.note(listener.place, listener.what, text)
            continue
        if "bind" in translation.values.get(section, {}):
            text = f"[{section}] has one address: run a second server, or bind 0.0.0.0"
            translation.note(listener.place, listener.what, text)
            continue
        host = listener.host or "0.0.0.0"
        if not _is_loopback(host) and (found.restricts is not None or not is_open):
            reason = (
                f"{found.restricts.option} restricts clients there and cannot here"
                if found.restricts is not None
                else f"nobody is let in without a user: {options.USERS}"
            )
            translation.note(listener.place, listener.what, f"on this computer alone, since {reason}")
            host = "127.0.0.1"
        is_exposed = is_exposed or not _is_loopback(host)
        taken.append(listener)
        translation.put(section, "bind", f"[{host}]:{listener.port}" if ":" in host else f"{host}:{listener.port}")
    if is_exposed:
        translation.put("auth", "allow_anonymous", True)
    _put_connections(translation, taken)


def _left_out_as_encrypted(found: Configuration, listener: Listener) -> bool:
    if listener.place is None or all(line.option not in options.MAKES_TLS for line in listener.tls):
        return False
    found.translation.note(listener.place, listener.what, f"left out, since it is encrypted: {options.TLS}")
    return True


def _put_connections(translation: Translation, listeners: list[Listener]) -> None:
    """There each listener has its limit, here all have one together."""
    lines = [each.connections for each in listeners if each.connections is not None]
    if len(lines) == len(listeners):
        if lines:
            translation.put("mqtt", "connections_max", sum(int(line.value) for line in lines))
        return
    for line in lines:
        text = "[mqtt] connections_max counts all listeners together, and another one has no limit"
        translation.note(line.place, line.what, text)


def _lets_everyone_in(found: Configuration, listener: Listener) -> bool:
    """As Mosquitto 2 decides it: anonymous clients only where that is said, or where no listener is configured."""
    line = listener.allow_anonymous or (None if found.is_per_listener else found.allow_anonymous)
    return line.value in TRUE if line is not None else listener.place is None


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host == "::1" or host.startswith("127.")
