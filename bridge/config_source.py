"""Reading a configuration: a TOML file, over it the environment, over that the command line.

Every mistake is a `ConfigError` that names its place (file and line, variable or flag), the key and the nearest valid
one. A key of a later version is an error too: ignoring it would be a false promise.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bridge.config import Config, KafkaTopicTable, Retention, StreamConfig, StreamTable
from bridge.config_environment import environment_settings, unknown_variables
from bridge.config_remote import EgressTable, IngestTable, circles_of, faults_of
from bridge.config_section import Section, key_names
from bridge.config_text import KeyPath, key_lines, line_of, section_text, unknown_key_text
from bridge.quantities import age_text
from bridge.streams.kafka.keys import KeyTemplate, KeyTemplateInvalid
from broker.codec.errors import MqttError
from broker.topics.names import validate_topic_filter

KAFKA_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
NOT_IN_TOPIC_TEMPLATE = re.compile(r"[+#\0]|\{(?!(?:topic|key|partition)\})[^}]*\}?")
STREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CURSOR_NAMES_BYTES_MAX = 1_900
"""A cursor names every stream in at most 2 KiB; so much of it is left for them."""
CURSOR_POSITION_BYTES = 36
"""What epoch, offset and separators of one stream take in a cursor."""
CURSOR_KAFKA_BYTES = 64
CURSOR_PARTITION_BYTES = 7
"""What a Kafka stream takes, with its spool, and each of its partitions."""
LATER: tuple[KeyPath, ...] = (
    ("mqtt", "tls"),
    ("mqtt", "drop"),
    ("websocket", "tls"),
    ("http", "tls"),
    ("http", "trusted_proxies"),
    ("auth", "password_file"),
    ("auth", "jwt"),
    ("auth", "amqtt_plugins"),
    ("acl",),
)
"""Keys that are known and do nothing yet: an error."""


class ConfigError(Exception):
    """The configuration cannot be used; each problem is a sentence with its place."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Layer:
    """One source of settings, and how to name a place in it."""

    values: Mapping[str, Any]
    name: str
    """A file's path, or a word for the source."""
    line_by_path: dict[KeyPath, int]
    name_by_path: Mapping[KeyPath, str]

    def place(self, path: KeyPath) -> str | None:
        """`config/headrace.toml line 7`, `--mqtt`; None when the path is not of this layer."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.name_by_path:
                return self.name_by_path[path[:length]]
        if not _has(self.values, path):
            return None
        line = line_of(path, self.line_by_path)
        return f"{self.name} line {line}" if line else self.name


def load_config(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Config:
    """Read and check the configuration.

    `flags` maps a flag to its value, as given: `--mqtt`, `--ws`, `--http`, `--data`, `--log`.

    Raises:
        ConfigError: a source cannot be read, or says something that is not valid.
    """
    given = os.environ if environment is None else environment
    layers = [_flag_layer(flags or {}), _environment_layer(given)]
    if file is not None:
        layers.append(_file_layer(file))
    return _judged(layers, unknown_variables(given, _password_variables(layers)))


def judged(values: Mapping[str, Any]) -> Config:
    """The configuration that some values of TOML are.

    Raises:
        ConfigError: they are not valid.
    """
    return _judged([Layer(values, "the configuration", {}, {})])


def _judged(layers: list[Layer], unknown: Iterable[str] = ()) -> Config:
    """`unknown`: what else is wrong already."""
    found = list(unknown)
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        _merge(merged, layer.values)
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        problems = [_located(path, text, layers) for path, text in _problems_of(error)]
        raise ConfigError(list(dict.fromkeys([*found, *problems]))) from error
    problems = found + [_located(path, text, layers) for path, text in _inconsistencies(config)]
    if problems:
        raise ConfigError(problems)
    return config


def _file_layer(file: Path) -> Layer:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise ConfigError([f"cannot read the configuration {file}: {reason}."]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file} is not UTF-8 text."]) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        place = f"{file} line {found[1]}" if found else str(file)
        reason = re.sub(r"\s*\(at .*\)$", "", str(error))
        raise ConfigError([f"{place}: not valid TOML: {reason[:1].lower()}{reason[1:]}."]) from error
    return Layer(values, str(file), key_lines(text), {})


FLAG_PATHS: dict[str, KeyPath] = {
    "--data": ("data",),
    "--mqtt": ("mqtt", "bind"),
    "--ws": ("websocket", "bind"),
    "--http": ("http", "bind"),
    "--log": ("log", "format"),
}


def _flag_layer(flags: Mapping[str, str]) -> Layer:
    values: dict[str, Any] = {}
    for flag, value in flags.items():
        _put(values, FLAG_PATHS[flag], value)
    return Layer(values, "command line", {}, {FLAG_PATHS[flag]: flag for flag in flags})


def _environment_layer(environment: Mapping[str, str]) -> Layer:
    values: dict[str, Any] = {}
    name_by_path: dict[KeyPath, str] = {}
    for variable, path, value in environment_settings(environment):
        name_by_path[path] = f"environment {variable}"
        _put(values, path, value)
    return Layer(values, "environment", {}, name_by_path)


def _password_variables(layers: list[Layer]) -> frozenset[str]:
    """Variables that have the passwords of other brokers: they may be called anything."""
    tables = [table for layer in layers for kind in ("ingest", "egress") for table in _tables(layer.values.get(kind))]
    return frozenset(str(table["password_env"]) for table in tables if "password_env" in table)


def _tables(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _put(values: dict[str, Any], path: KeyPath, value: object) -> None:
    for part in path[:-1]:
        inner = values.setdefault(str(part), {})
        values = inner if isinstance(inner, dict) else {}
    values[str(path[-1])] = value


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _has(values: object, path: KeyPath) -> bool:
    for part in path:
        is_member = isinstance(values, list) and isinstance(part, int) and part < len(values)
        if not is_member and not (isinstance(values, Mapping) and part in values):
            return False
        values = values[part]  # type: ignore[index]  # it is one of the two
    return True


def _located(path: KeyPath, text: str, layers: list[Layer]) -> str:
    for layer in layers:
        for length in range(len(path), 0, -1):
            place = layer.place(path[:length])
            if place is not None and (length == len(path) or layer is layers[-1]):
                return f"{place}: {text}"
    return text


def _problems_of(error: ValidationError) -> Iterator[tuple[KeyPath, str]]:
    """Pydantic's findings in our words."""
    for found in error.errors(include_url=False):
        path: KeyPath = found["loc"]
        names = tuple(part for part in path if isinstance(part, str))
        if found["type"] == "extra_forbidden":
            if names in LATER:
                is_table = isinstance(found["input"], dict | list) and len(names) == len(path)
                what = (
                    section_text(path)
                    if is_table and len(names) == len(path)
                    else f'{section_text(path[:-1])} key "{path[-1]}"'
                )
                yield path, f"{what} is not available in this version."
            else:
                yield path, unknown_key_text(path, _known_keys(path[:-1]), is_table=isinstance(found["input"], dict))
            continue
        key = path[:-1] if isinstance(path[-1], int) else path  # not the member of a list
        where = f"{section_text(key[:-1])} {key[-1]}" if len(key) > 1 else str(key[-1])
        if found["type"] == "tuple_type" and len(path) == 1:
            yield path, f"{where}: must be tables, each under [[{where}]]."
            continue
        yield path, f"{where}: {_reason(found['type'], found['msg'], found.get('ctx', {}))}."


def _reason(kind: str, message: str, context: Mapping[str, Any]) -> str:
    match kind:
        case "value_error":
            return message.removeprefix("Value error, ")
        case "greater_than_equal":
            return f"must be at least {context['ge']:,}"
        case "less_than_equal":
            return f"must be at most {context['le']:,}"
        case "literal_error":
            return f"must be {context['expected'].replace(chr(39), chr(34))}"
        case "missing":
            return "is missing"
        case "tuple_type" | "list_type":
            return 'must be a list, like ["a", "b"]'
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be a table, with keys of its own"
        case "path_type" | "string_type":
            return "must be a text, in quotes"
        case "bool_type" | "bool_parsing":
            return "must be true or false"
        case "int_type" | "int_parsing" | "int_from_float" | "int_parsing_size":
            return "must be a whole number"
        case "float_type" | "float_parsing" | "finite_number":
            return "must be a number"
        case "too_short":
            return f"must have at least {context['min_length']:,}"
        case "too_long":
            return f"must have at most {context['max_length']:,}"
        case _:
            return message.replace("Input should", "must")


UNSTORED_LEVELS = ("$share", "$replay", "$SYS")
"""First levels that are no topics of devices."""

INNER_TABLES: dict[str, type[Section]] = {
    "streams": StreamTable,
    "retention": Retention,
    "ingest": IngestTable,
    "egress": EgressTable,
}


def _known_keys(path: KeyPath) -> list[str]:
    table: type[Section] = Config
    for part in path:
        if table is StreamTable and part == "kafka":
            table = KafkaTopicTable  # not the [kafka] at the top
        elif isinstance(part, str):
            table = INNER_TABLES.get(part) or type(getattr(Config(), part))
    return key_names(table)


def _inconsistencies(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """What no single key can show."""
    yield from _wrong_addresses(config)
    taken = {"system": "is built in", "default": "is built in; to replace it set default_stream = false"}
    if not config.default_stream:
        del taken["default"]
    for index, stream in enumerate(config.stream_tables):
        path: KeyPath = ("streams", index)
        if not STREAM_NAME.fullmatch(stream.name):
            yield (*path, "name"), f'[[streams]] name "{stream.name}": use letters, digits and . _ - , at most 64.'
        if stream.name in taken:
            yield (*path, "name"), f'[[streams]] name "{stream.name}" {taken[stream.name]}.'
        taken[stream.name] = "is used twice"
        for topic_filter in stream.topics:
            fault = topic_filter_fault(topic_filter)
            if fault:
                yield (*path, "topics"), f'[[streams]] topics: "{topic_filter}" is not a topic filter: {fault}.'
        yield from _wrong_kafka(config, stream, path)
        if stream.deliver == "committed":
            yield (*path, "deliver"), '[[streams]] deliver = "committed" is not available in this version.'
    for kind, tables in (("ingest", config.ingest_tables), ("egress", config.egress_tables)):
        for index, key, text in faults_of(tables, kind):
            yield (kind, index, key), text
    for index, text in circles_of(config.ingest_tables, config.egress_tables):
        yield ("egress", index), text
    if sum(map(_cursor_bytes, config.streams)) > CURSOR_NAMES_BYTES_MAX:
        yield (
            ("streams",),
            "[[streams]]: so many streams and partitions do not fit into a cursor; use fewer or shorter names.",
        )


def _cursor_bytes(stream: StreamConfig) -> int:
    if stream.kafka is None:
        return len(stream.name) + CURSOR_POSITION_BYTES
    return len(stream.name) + CURSOR_KAFKA_BYTES + CURSOR_PARTITION_BYTES * stream.kafka.partitions


def _wrong_kafka(config: Config, stream: StreamTable, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if stream.storage != "kafka":
        if stream.kafka is not None:
            yield (*path, "kafka"), f'[[streams]] kafka: stream "{stream.name}" has storage = "{stream.storage}".'
        return
    topics = [each.kafka.topic for each in config.streams if each.kafka is not None]
    topic = (stream.kafka.topic if stream.kafka else None) or stream.name
    if topics.count(topic) > 1:
        yield (*path, "kafka"), f'[[streams]] kafka: topic "{topic}" is used by two streams.'
    if KAFKA_TOPIC.fullmatch(topic) is None or topic in (".", ".."):
        yield (*path, "kafka"), f'[[streams]] kafka: "{topic}" is no topic name of Kafka: letters, digits and . _ -'
    if topic.startswith("__"):
        yield (*path, "kafka"), f'[[streams]] kafka: "{topic}": topics that begin so are Kafka\'s own.'
    if stream.kafka is not None:
        template = stream.kafka.topic_template
        if template is not None and (what := _not_in_topic(template)):
            yield (
                (*path, "kafka"),
                f"[[streams]] kafka: topic_template: {what} makes no topic name; {{topic}}, {{key}} and {{partition}} "
                "stand for something, and there are no wildcards.",
            )
        try:
            KeyTemplate(stream.kafka.key)
        except KeyTemplateInvalid as error:
            yield (*path, "kafka"), f"[[streams]] kafka: key: {error}."
    age_ms = stream.retention.age_ms if stream.retention is not None else None
    spool_age_s = config.kafka.spool_age_s_max
    if age_ms is not None and spool_age_s is not None and age_ms <= spool_age_s * 1000:
        yield (
            (*path, "retention"),
            f'[[streams]] retention: stream "{stream.name}" is kept no longer than [kafka] spool_age_s_max '
            f"({age_text(spool_age_s * 1000)}), so Kafka would drop what was spooled for so long.",
        )


def _not_in_topic(template: str) -> str | None:
    """What of a template makes no topic name; None: nothing."""
    if not template:
        return "it"
    wrong = NOT_IN_TOPIC_TEMPLATE.search(template)
    return f'"{wrong[0]}" in "{template}"' if wrong else None


def _wrong_addresses(config: Config) -> Iterator[tuple[KeyPath, str]]:
    if config.has_users or config.auth.allow_anonymous:
        return
    for section, bind in (("mqtt", config.mqtt.bind), ("websocket", config.websocket.bind), ("http", config.http.bind)):
        if bind is not None and not bind.is_loopback:
            yield (
                (section, "bind"),
                f"{bind} can be reached by other computers and no users exist, so anyone there could read and send. "
                "Use 127.0.0.1, or set [auth] allow_anonymous = true.",
            )


def topic_filter_fault(topic_filter: str) -> str | None:
    """Why a stream cannot have this topic filter; None when it can."""
    try:
        validate_topic_filter(topic_filter)
    except MqttError as error:
        return str(error)
    first_level = topic_filter.split("/")[0]
    return f"topics below {first_level} are not stored" if first_level in UNSTORED_LEVELS else None
