"""The tables for other brokers, `[[ingest]]` and `[[egress]]`: keys, defaults, and mistakes that no single key shows.

A password never stands in the configuration: it is read from a file, or from a variable of the environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field, PlainValidator

from bridge.config_section import Count, Seconds, Section, WholeSeconds
from bridge.quantities import parse_time_ms
from bridge.remote.address import BrokerAddress
from bridge.stream_map import overlaps
from broker.codec.errors import MqttError
from broker.routing import RESERVED_PREFIXES
from broker.topics.names import validate_topic_filter, validate_topic_name

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CLIENT_ID_BYTES_MAX = 65_535
SHARE = re.compile(r"[^/+#\s]{1,64}")


def _parse_broker(value: object) -> BrokerAddress:
    return value if isinstance(value, BrokerAddress) else BrokerAddress.parse(value)


class RemoteTable(Section):
    """What is said of a broker that we connect to as a client."""

    name: str = Field(description="Letters, digits, . _ -; at most 64.", examples=["plant"])
    broker: Annotated[BrokerAddress, PlainValidator(_parse_broker)] = Field(
        description="mqtt://HOST:PORT, or mqtts:// with TLS; the port is 1883 or 8883 when it is not given.",
        examples=["mqtts://broker.example:8883"],
    )
    topics: tuple[str, ...] = Field(
        min_length=1, max_length=256, description="MQTT topic filters.", examples=[["sensors/#"]]
    )
    remove_prefix: str = Field("", description="Taken away from the front of each topic; every filter begins with it.")
    prefix: str = Field("", description="Put before each topic (after remove_prefix), like plant1/.")
    client_id: str | None = Field(
        None, description="Who we are there; without it a name that is made once and kept.", examples=["headrace-1"]
    )
    username: str | None = Field(None, description="User there.", examples=["headrace"])
    password_file: str | None = Field(
        None, description="File whose first line is the password; read for each connection.", examples=["plant.secret"]
    )
    password_env: str | None = Field(
        None, description="Or the environment's variable that has it.", examples=["PLANT_PASSWORD"]
    )
    version: Literal["auto", "5", "3.1.1"] = Field(
        "auto", description="MQTT 5 or 3.1.1. auto: 5, and 3.1.1 when the broker does not know 5."
    )
    ca_file: str | None = Field(
        None, description="With mqtts: certificates that are trusted (PEM); else the system's.", examples=["ca.pem"]
    )
    certificate_file: str | None = Field(None, description="Our certificate (PEM).", examples=["client.pem"])
    key_file: str | None = Field(None, description="Its key (PEM).", examples=["client.key"])
    check_hostname: bool = Field(True, description="The broker's certificate must name the host of `broker`.")
    keep_alive_s: WholeSeconds = Field(
        30, ge=5, le=65_535, description="A broker that has been silent for one and a half times this is left."
    )
    connect_timeout_s: Seconds = Field(10.0, ge=1, le=600, description="Time for a connection, up to CONNACK.")
    reconnect_s_max: Seconds = Field(
        30.0, ge=0.1, le=3_600, description="Longest wait before the next try; it doubles up to this, with jitter."
    )


class IngestTable(RemoteTable):
    """One `[[ingest]]` table: a broker whose messages are taken into the streams."""

    topics: tuple[str, ...] = Field(
        min_length=1, max_length=256, description="MQTT topic filters to subscribe to.", examples=[["sensors/#"]]
    )
    qos: Literal[0, 1, 2] = Field(1, description="Highest QoS that is asked for.")
    share: str | None = Field(
        None, description="Subscribe as $share/NAME/…: several servers divide the messages.", examples=["headrace"]
    )
    retained: Literal["keep", "plain", "skip"] = Field(
        "keep",
        description="Retained messages: keep (retained here too), plain (stored, not retained), skip (those that the "
        "broker has from before are not taken).",
    )
    session_expiry_s: WholeSeconds = Field(
        7 * 86_400, ge=0, le=2**32 - 1, description="How long the broker keeps what comes while we are away (MQTT 5)."
    )
    receive_maximum: Count = Field(
        1_000, ge=1, le=65_535, description="QoS 1 and 2 messages not yet stored; the broker holds back the rest."
    )

    @property
    def subscribed(self) -> tuple[str, ...]:
        """The filters as they stand in SUBSCRIBE."""
        return self.topics if self.share is None else tuple(f"$share/{self.share}/{each}" for each in self.topics)


class EgressTable(RemoteTable):
    """One `[[egress]]` table: a broker that is sent what matches some filters."""

    topics: tuple[str, ...] = Field(
        min_length=1, max_length=256, description="MQTT topic filters of what is sent.", examples=[["sensors/#"]]
    )
    qos: Literal[0, 1, 2] = Field(
        1,
        description="Of everything that is sent. 1: acknowledged, so nothing is lost. 2: and once, unless the process "
        "ends. 0: written and forgotten.",
    )
    retain: bool = Field(True, description="Send RETAIN as it was published.")
    since: str = Field(
        "now", description="Where the first start begins: now, or a time like -24h. Later ones go on where it stood."
    )
    inflight_max: Count = Field(
        1_000, ge=1, le=65_535, description="Messages sent and not yet acknowledged; the rest waits in the log."
    )

    def reaches(self, ingest: IngestTable) -> bool:
        """Something that is sent would come back by this ingest."""
        there = [self.prefix + each.removeprefix(self.remove_prefix) for each in self.topics]
        return self.broker.is_same_broker(ingest.broker) and any(
            overlaps(sent, taken) for sent in there for taken in ingest.topics
        )


def circles_of(ingests: Sequence[IngestTable], egresses: Sequence[EgressTable]) -> Iterator[tuple[int, str]]:
    """(index of the egress, text) where messages would go round and nothing could tell: 3.1.1 has no properties."""
    for index, egress in enumerate(egresses):
        for ingest in ingests:
            if egress.reaches(ingest) and "3.1.1" in (egress.version, ingest.version):
                yield (
                    index,
                    f'[[egress]] "{egress.name}" sends what [[ingest]] "{ingest.name}" takes back, and with MQTT 3.1.1 '
                    "that cannot be told apart. Use MQTT 5 for both, or other topics.",
                )


def faults_of(tables: Sequence[RemoteTable], kind: str) -> Iterator[tuple[int, str, str]]:
    """(index, key, text) of each fault of the `[[kind]]` tables."""
    taken: set[str] = set()
    for index, table in enumerate(tables):
        for key, text in (*_faults_of_one(table), *_faults_of_prefixes(table)):
            yield index, key, f"[[{kind}]] {key}: {text}."
        if table.name in taken:
            yield index, "name", f'[[{kind}]] name "{table.name}" is used twice.'
        taken.add(table.name)
        if isinstance(table, EgressTable):
            try:
                parse_time_ms(table.since, 0)
            except ValueError as error:
                yield index, "since", f"[[{kind}]] since: {error}."
        if isinstance(table, IngestTable):
            yield from ((index, key, f"[[{kind}]] {key}: {text}.") for key, text in _faults_of_ingest(table))


def _faults_of_one(table: RemoteTable) -> Iterator[tuple[str, str]]:
    if NAME.fullmatch(table.name) is None:
        yield "name", f'"{table.name}": use letters, digits and . _ - , at most 64'
    if table.client_id is not None and not 0 < len(table.client_id.encode()) <= CLIENT_ID_BYTES_MAX:
        yield "client_id", "a client id has at least one character; leave the key out to have one made"
    if table.password_file is not None and table.password_env is not None:
        yield "password_env", "give password_file or password_env, not both"
    if (table.password_file is not None or table.password_env is not None) and table.username is None:
        yield "username", "a password needs a user name (MQTT 3.1.1 §3.1.2.9)"
    if (table.certificate_file is None) != (table.key_file is None):
        yield "key_file", "certificate_file and key_file belong together"
    if not table.broker.is_encrypted and (table.ca_file or table.certificate_file):
        yield "broker", f"{table.broker} is not encrypted, and certificates are given: write mqtts://"


def _faults_of_prefixes(table: RemoteTable) -> Iterator[tuple[str, str]]:
    for topic_filter in table.topics:
        try:
            validate_topic_filter(topic_filter)
        except MqttError as error:
            yield "topics", f'"{topic_filter}" is not a topic filter: {error}'
        if topic_filter.startswith("$share/"):
            yield "topics", f'"{topic_filter}": give the filter alone, and the name of the group as share'
        if not topic_filter.startswith(table.remove_prefix):
            yield "remove_prefix", f'the filter "{topic_filter}" does not begin with "{table.remove_prefix}"'
    for key, prefix in (("prefix", table.prefix), ("remove_prefix", table.remove_prefix)):
        if prefix:
            try:
                validate_topic_name(prefix.encode())
            except MqttError as error:
                yield key, f'"{prefix}" cannot begin a topic: {error}'
    if table.prefix.startswith(RESERVED_PREFIXES):
        yield "prefix", f'only the server itself publishes to "{table.prefix}"'


def _faults_of_ingest(table: IngestTable) -> Iterator[tuple[str, str]]:
    for topic_filter in table.topics:
        here = table.prefix + topic_filter.removeprefix(table.remove_prefix)
        if here.startswith(RESERVED_PREFIXES):
            yield "topics", f'only the server itself publishes to "{here}"; give a prefix'
    if table.share is not None and SHARE.fullmatch(table.share) is None:
        yield "share", f'"{table.share}" is no share name: no / + # and no spaces (MQTT 5 §4.8.2)'
