"""`headrace check-config`: the configuration in effect, as TOML, and what it means that is easily missed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from bridge.cli.serve import say
from bridge.config import Config, Retention, StreamConfig
from bridge.config_source import load_config
from bridge.config_text import quoted
from bridge.quantities import Address, age_text, size_text
from bridge.remote.address import BrokerAddress
from bridge.start_checks import addresses
from bridge.stream_map import overlaps
from bridge.streams.kafka.settings import KafkaTopicSettings


def run_check_config(config_file: Path | None, flags: Mapping[str, str]) -> None:
    """Print the effective configuration.

    Raises:
        ConfigError: it is not valid.
    """
    config = load_config(config_file, flags=flags)
    say(f"# {config_file or 'no configuration file'}: valid. In effect:", *config_lines(config), *remarks(config))


def config_lines(config: Config) -> Iterator[str]:
    """The configuration as TOML that is taken as it is, with every default written out.

    Passwords are comments without their value, and so are the streams that are there anyway.
    """
    places = addresses(config)
    tables: list[tuple[str, BaseModel]] = []
    for name, field in Config.model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            tables.append((name, value))
        elif not isinstance(value, tuple):
            yield f"{field.alias or name} = {toml_value(value)}"
    for name, table in tables:
        if name == "kafka" and not config.uses_kafka:
            continue
        yield ""
        yield f"[{name}]"
        for key in type(table).model_fields:
            value = getattr(table, key)
            if value is None and key != "bind":
                continue
            if key.endswith("password"):
                yield f'# {key} = "…"'
                continue
            if key == "bind":
                value = places[{"websocket": "mqtt-ws"}.get(name, name)]
            yield f"{key} = {toml_value(value, is_size='bytes' in key)}"
    for stream in config.streams:
        yield ""
        is_built_in = stream.name == "system" or (stream.name == "default" and config.default_stream)
        if is_built_in:
            yield "# built in:"
        yield from (f"# {line}" if is_built_in else line for line in _stream_lines(stream))
    for kind, remotes in (("ingest", config.ingest_tables), ("egress", config.egress_tables)):
        for remote in remotes:
            yield ""
            yield f"[[{kind}]]"
            yield from (
                f"{key} = {toml_value(value, is_size='bytes' in key)}"
                for key in type(remote).model_fields
                if (value := getattr(remote, key)) is not None
            )


def _stream_lines(stream: StreamConfig) -> Iterator[str]:
    yield "[[streams]]"
    yield f"name = {toml_value(stream.name)}"
    yield f"topics = {toml_value(stream.topics)}"
    yield f"storage = {toml_value(stream.storage)}"
    yield f"ack = {toml_value(stream.ack)}"
    yield f"retention = {toml_value(stream.retention)}"
    if stream.kafka is not None:
        yield f"kafka = {_kafka_table(stream.kafka)}"


def _kafka_table(kafka: KafkaTopicSettings) -> str:
    keys = ("topic", "partitions", "replication", "key", "create", "topic_template")
    values = [(key, getattr(kafka, key)) for key in keys]
    return f"{{ {', '.join(f'{key} = {toml_value(value)}' for key, value in values if value is not None)} }}"


def remarks(config: Config) -> Iterator[str]:
    """Consequences that are easily missed."""
    yield ""
    if not config.default_stream and not any("#" in table.topics for table in config.stream_tables):
        yield "# A topic that no stream above matches reaches MQTT subscribers only: not the live events,"
        yield "# not history, not the dashboard (default_stream = false)."
    for egress in config.egress_tables:
        for topic_filter in egress.topics:
            if not any(overlaps(each, topic_filter) for stream in config.streams for each in stream.topics):
                yield f'# [[egress]] "{egress.name}": no stream has topics of "{topic_filter}": nothing of it is sent.'
    if any(table.storage == "memory" for table in config.stream_tables):
        yield "# A memory stream is empty after each start."
    if all(address.is_loopback for address in addresses(config).values()):
        yield "# All addresses are loopback ones: only this computer can connect."
    else:
        yield "# No users exist and an address is open to the network: whoever reaches it can read and send everything."


def toml_value(value: object, *, is_size: bool = False) -> str:
    """A value as it may stand in the configuration file."""
    if isinstance(value, Retention):
        parts = [f'age = "{age_text(value.age_ms).replace(" ", "")}"'] if value.age_ms is not None else []
        parts += [f"bytes = {toml_value(value.bytes, is_size=True)}"] if value.bytes is not None else []
        return f"{{ {', '.join(parts)} }}" if parts else "{}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and is_size:
        text = size_text(value)
        return quoted(text.replace(" ", "")) if text.endswith("iB") else str(value)
    if isinstance(value, tuple):
        return f"[{', '.join(toml_value(each) for each in value)}]"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str | Path | Address | BrokerAddress):
        return quoted(str(value))
    raise TypeError(f"no way to write {value!r}")
