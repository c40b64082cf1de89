"""The whole configuration as frozen values, with the default, unit and limit of every key.

`bridge.config_source` reads and judges it. Nothing here is global: who needs a part is given that part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from bridge.config_remote import EgressTable, IngestTable
from bridge.config_section import Count, Seconds, Section, Size, WholeSeconds
from bridge.ingest.intake import IntakeLimits
from bridge.live.limits import LiveLimits
from bridge.presence.watch import PresenceLimits
from bridge.quantities import Address, age_text, parse_age_ms, parse_age_s, parse_size, shown, size_text
from bridge.streams.kafka.settings import KafkaSettings, KafkaTopicSettings
from bridge.web_addresses import parse_origin, parse_root_path
from broker.config import BrokerConfig

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def _parse_bind(value: object) -> Address | None:
    return value if value is None or isinstance(value, Address) else (Address.parse(value) if value != "" else None)


Bind = Annotated[Address | None, PlainValidator(_parse_bind)]


def _listed(value: object) -> object:
    """`a:9092,b:9092` as Kafka's own tools write it, and as an environment variable can."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _limit(parse: Callable[[object], int]) -> Callable[[object], int | None]:
    """One limit of retention: with 0 nothing would be kept of what is acknowledged."""

    def read(value: object) -> int | None:
        limit = None if value is None else parse(value)
        if limit is not None and limit < 1:
            raise ValueError(f"{shown(value)} keeps nothing; leave it out for no such limit")
        return limit

    return read


def _optional_seconds(value: object) -> int | None:
    return None if value is None else int(parse_age_s(value))


class Log(Section):
    """What the server says about itself, on stderr."""

    level: Literal["debug", "info", "warn", "error"] = Field("info", description="The least level that is written.")
    format: Literal["text", "json"] = Field("text", description="Lines for people, or one JSON object a line.")


class Mqtt(Section):
    """MQTT: where, and what one client may cost."""

    bind: Bind = Field(
        None, description="MQTT over TCP: HOST:PORT, port 0 takes a free one.", examples=["0.0.0.0:1883"]
    )
    packet_bytes_max: Size = Field(
        MIB, ge=KIB, le=256 * MIB, description="Largest inbound packet, announced as Maximum Packet Size; over it 0x95."
    )
    websocket_frame_bytes_max: Size = Field(
        16 * MIB,
        ge=KIB,
        le=256 * MIB,
        description="Largest WebSocket frame, of many packets perhaps; one packet always fits. Over it 1009.",
    )
    connections_max: Count = Field(50_000, ge=1, description="Connections at a time, WebSocket included; over it 0x97.")
    connects_per_s_max: Count = Field(
        0, ge=0, description="CONNECTs taken in a second; over it 0x9F (3.1.1: 3, server unavailable). 0: no limit."
    )
    loop_delay_ms_max: Count = Field(
        1_000, ge=50, le=60_000, description="While the event loop is later than this, new connections are refused."
    )
    client_bytes_per_s_max: Size = Field(
        0, ge=0, description="What one client may send in a second; over it it is read from more slowly. 0: no limit."
    )
    client_messages_per_s_max: Count = Field(0, ge=0, description="The same in publishes.")
    connect_timeout_s: WholeSeconds = Field(
        10, ge=1, le=600, description="A connection without a complete CONNECT is closed after this."
    )
    close_timeout_s: WholeSeconds = Field(
        5, ge=1, le=600, description="A closed connection that does not take its last bytes is cut after this."
    )
    keep_alive_s_max: WholeSeconds = Field(
        65_535, ge=1, le=65_535, description="Longest keep alive; MQTT 5 clients that ask for more are told this."
    )
    receive_maximum: Count = Field(
        1_000, ge=1, le=65_535, description="Unacknowledged QoS 1 and 2 publishes of an MQTT 5 client; over it 0x93."
    )
    topic_alias_maximum: Count = Field(
        100, ge=0, le=65_535, description="Topic aliases of an MQTT 5 client; over it 0x94."
    )
    topic_aliases_sent_max: Count = Field(
        100, ge=0, le=65_535, description="Topic aliases given to what is sent to one client that takes them; 0: none."
    )
    inflight_messages_max: Count = Field(
        1_000, ge=1, le=65_535, description="QoS 1 and 2 messages sent to a client that it has not acknowledged."
    )
    queued_messages_max: Count = Field(
        10_000, ge=0, description="Messages kept for a session beyond those; over it some are dropped."
    )
    queued_bytes_max: Size = Field(16 * MIB, ge=0, description="The same in bytes.")
    queued_drop: Literal["newest", "oldest"] = Field(
        "newest", description="Which messages of a session are dropped over these two limits."
    )
    outbox_bytes_max: Size = Field(
        8 * MIB, ge=64 * KIB, description="Waiting for a slow subscriber; over it QoS 0 is dropped for it."
    )
    outbox_reliable_bytes_max: Size = Field(
        MIB, ge=16 * KIB, description="Waiting bytes above which QoS 1 and 2 stay in the session's queue."
    )
    sys_interval_s: WholeSeconds = Field(
        10, ge=0, le=65_535, description="How often $SYS/broker/... is published, when it has changed; 0: never."
    )
    session_expiry_s_max: WholeSeconds = Field(
        7 * 86_400, ge=0, le=2**32 - 2, description="Longest life of a kept session; longer ones are shortened."
    )
    sessions_max: Count = Field(200_000, ge=1, description="Sessions, connected or kept.")
    subscriptions_per_client_max: Count = Field(10_000, ge=1, description="Subscriptions of one session.")
    topic_levels_max: Count = Field(201, ge=1, le=201, description="Levels of one topic name; over it 0x90.")
    subscription_topic_levels_max: Count = Field(201, ge=1, le=32_768, description="Levels of one topic filter.")
    shared_choice: Literal["round_robin", "least_outstanding"] = Field(
        "round_robin",
        description="Who of a shared subscription gets a message: the next, or the one with the fewest unacknowledged.",
    )
    shared_groups_max: Count = Field(10_000, ge=0, description="Shared subscriptions: share name and filter; 0x97.")
    shared_members_max: Count = Field(1_000, ge=1, description="Sessions in one shared subscription; over it 0x97.")
    unreleased_per_client_max: Count = Field(
        10_000, ge=1, le=65_535, description="QoS 2 packet ids of one client that wait for its PUBREL."
    )
    replays_max: Count = Field(10_000, ge=0, description="Replay subscriptions, of kept sessions too; over it 0x97.")
    replays_per_client_max: Count = Field(16, ge=0, description="Replay subscriptions of one session; over it 0x97.")
    replay_pieces_max: Count = Field(
        2, ge=1, le=16, description="Pieces of history (live.replay_piece_bytes_max) read ahead for a replay."
    )
    replay_waiting_bytes_max: Size = Field(
        256 * KIB, ge=16 * KIB, description="Waiting for a connection; above it its replays wait, and lose nothing."
    )
    retained_messages_max: Count = Field(1_000_000, ge=0, description="Retained messages; over it 0x97.")
    retained_bytes_max: Size = Field(256 * MIB, ge=0, description="The same in bytes.")
    retained_fan_outs_max: Count = Field(
        100, ge=0, description="New subscriptions sent retained messages in slices at a time; others in one go."
    )
    routes_max: Count = Field(250_000, ge=1_000, description="Topics whose subscribers are remembered.")
    routes_bytes_max: Size = Field(
        64 * MIB, ge=MIB, description="The same in bytes of their names, which are in memory some five times."
    )


class WebSocket(Section):
    """MQTT over WebSocket, path /mqtt."""

    bind: Bind = Field(None, description="HOST:PORT, port 0 takes a free one.", examples=["0.0.0.0:8083"])


class Http(Section):
    """The API, live events and the dashboard."""

    bind: Bind = Field(None, description="HOST:PORT, port 0 takes a free one.", examples=["0.0.0.0:8000"])
    allowed_origins: tuple[Annotated[str, AfterValidator(parse_origin)], ...] = Field(
        (), description="Origins of other web pages that may use the API or MQTT over WebSocket: https://HOST:PORT, *."
    )
    root_path: Annotated[str, AfterValidator(parse_root_path)] = Field(
        "",
        description="The path below which a proxy shows this server, like /headrace; slashes around it do not matter.",
    )
    connections_max: Count = Field(
        51_000, ge=1, description="Connections at a time, live readers included; over it 503 with Retry-After."
    )
    head_bytes_max: Size = Field(64 * KIB, ge=8 * KIB, le=MIB, description="Request line and headers; over it 431.")
    head_timeout_s: Seconds = Field(10.0, ge=1, le=600, description="Time for a whole request head.")
    body_bytes_max: Size = Field(2 * MIB, ge=KIB, le=256 * MIB, description="Request body; over it 413.")


class Live(Section):
    """Live readers (Server-Sent Events, long polling) and the state they begin with."""

    readers_max: Count = Field(50_000, ge=1, description="Readers at a time; over it 503 with Retry-After.")
    filters_per_reader_max: Count = Field(256, ge=1, le=10_000, description="Topic filters of one request.")
    query_bytes_max: Size = Field(7 * KIB, ge=KIB, le=60 * KIB, description="Query string; proxies refuse about 8 KiB.")
    waiting_bytes_max: Size = Field(
        4 * MIB, ge=64 * KIB, description="Waiting for one reader; over it its overflow policy begins."
    )
    conflate_from_bytes: Size = Field(
        256 * KIB, ge=KIB, description="The same for readers with overflow=conflate or drop_oldest."
    )
    feed_bytes_max: Size = Field(256 * KIB, ge=16 * KIB, le=16 * MIB, description="One piece of replayed history.")
    replay_piece_bytes_max: Size = Field(
        MIB, ge=16 * KIB, le=16 * MIB, description="One piece of history for an MQTT replay subscription."
    )
    chunk_bytes_max: Size = Field(
        256 * KIB, ge=16 * KIB, le=16 * MIB, description="Events of one filter set that are written in one piece."
    )
    scan_records_max: Count = Field(20_000, ge=100, description="Records read for one piece of history.")
    scan_work_max: Count = Field(1_000_000, ge=1_000, description="Records looked at in one search step.")
    park_records_max: Count = Field(
        20_000, ge=1, description="Records that a reader near the end keeps until its history is sent."
    )
    park_bytes_max: Size = Field(4 * MIB, ge=64 * KIB, description="The same in bytes; over it they are read again.")
    feeders: Count = Field(4, ge=1, le=64, description="Readers whose history is read at the same time.")
    heartbeat_s: Seconds = Field(15.0, ge=1, le=15, description="A comment is sent at least so often.")
    retry_ms: int = Field(2_000, ge=0, le=3_600_000, description="How long a browser waits before it connects again.")
    latest_topics_max: Count = Field(
        200_000, ge=1_000, description="Topics whose latest value is in memory; over it the longest silent goes."
    )
    latest_bytes_max: Size = Field(128 * MIB, ge=MIB, description="The same in bytes.")
    poll_wait_s_max: Seconds = Field(60.0, ge=1, le=600, description="Longest `wait` of a poll.")
    poll_events_max: Count = Field(10_000, ge=1, description="Largest `limit` of a poll.")
    records_max: Count = Field(10_000, ge=1, description="Records in one JSON page.")


class History(Section):
    """What one question to history may cost."""

    search_s: Seconds = Field(
        5.0, ge=0.1, le=60, description="A page, histogram, series or state is answered after this with what was found."
    )
    snapshot_s: Seconds = Field(
        60.0, ge=0.1, le=3_600, description="Time for the state that a replay with snapshot=1 begins with; over it 503."
    )
    buckets_max: Count = Field(2_000, ge=1, le=100_000, description="Largest `buckets` of a histogram.")
    exports_max: Count = Field(
        16, ge=1, le=1_000, description="NDJSON, CSV and Parquet exports at a time; over it 503 with Retry-After."
    )
    points_max: Count = Field(5_000, ge=1, le=100_000, description="Largest `points` of a series.")


class Store(Section):
    """Between the broker and the logs."""

    pending_bytes_max: Size = Field(
        64 * MIB, ge=MIB, description="Bytes waiting for a log; above it reading from their publishers pauses."
    )
    held_bytes_max: Size = Field(
        256 * KIB, ge=KIB, description="What a connection may send while its log fails, before reading pauses."
    )
    held_publishes_max: Count = Field(1_000, ge=1, description="The same in publishes.")
    hold_s: WholeSeconds = Field(
        60, ge=1, le=3_600, description="After this MQTT 5 publishers get 0x97 for what a failing log could not take."
    )


class Presence(Section):
    """Who is there: $presence, $server and /api/v1/devices."""

    gone_s: WholeSeconds = Field(
        86_400, ge=1, le=366 * 86_400, description="A client whose session is gone is remembered so long."
    )
    gone_devices_max: Count = Field(
        100_000, ge=0, description="Such clients; over it the one that has been gone longest is forgotten."
    )
    batch_changes_max: Count = Field(
        200,
        ge=1,
        le=10_000,
        description="Changes told in one turn, or more when many wait: messages go between them.",
    )
    pending_bytes_max: Size = Field(
        16 * MIB, ge=64 * KIB, description="Bytes waiting for the log above which changes are sent but not stored."
    )
    server_events_max: Count = Field(
        10, ge=1, le=10_000, description="Events of one kind on $server in a second; over it they are counted."
    )


class Kafka(Section):
    """The Kafka cluster of streams with storage = "kafka". sasl_* and ssl_* as aiokafka names them."""

    bootstrap_servers: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        ("localhost:9092",), min_length=1, description="Brokers to ask first: HOST:PORT."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How brokers are spoken to."
    )
    sasl_mechanism: Literal["PLAIN", "GSSAPI", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="With SASL_*: the mechanism."
    )
    sasl_plain_username: str | None = Field(None, description="User for PLAIN and SCRAM.", examples=["headrace"])
    sasl_plain_password: str | None = Field(None, description="Its password.", examples=["secret"])
    sasl_kerberos_service_name: str = Field("kafka", description="For GSSAPI.")
    sasl_kerberos_domain_name: str | None = Field(None, description="For GSSAPI.", examples=["kafka.example"])
    ssl_cafile: str | None = Field(None, description="Certificates that are trusted (PEM).", examples=["ca.pem"])
    ssl_certfile: str | None = Field(None, description="Certificate of this client (PEM).", examples=["client.pem"])
    ssl_keyfile: str | None = Field(None, description="Its key (PEM).", examples=["client.key"])
    ssl_password: str | None = Field(None, description="What the key is locked with.", examples=["secret"])
    ssl_check_hostname: bool = Field(True, description="Brokers' certificates must name them.")
    required: bool = Field(False, description="true: do not start without Kafka. false: spool until it answers.")
    spool_bytes_max: Size = Field(
        GIB, ge=MIB, description="Each stream's records kept here while Kafka is away; full: nothing is acknowledged."
    )
    spool_age_s_max: Annotated[int | None, BeforeValidator(_optional_seconds)] = Field(
        None,
        ge=1,
        description="Age of the oldest of these; below the topics' retention: without it 6 d, or 9/10 of the shortest.",
        examples=["6d"],
    )
    spool_after_s: Seconds = Field(
        2.0, ge=0.05, le=600, description="Records that Kafka has not confirmed for so long are spooled."
    )
    request_timeout_s: Seconds = Field(10.0, ge=1, le=600, description="For one answer of a broker.")
    check_s: Seconds = Field(
        5.0, ge=0.5, le=600, description="How often topics are looked at: their ids, partitions and leaders."
    )
    batch_records_max: Count = Field(1_000, ge=1, le=100_000, description="Records of one batch.")
    batch_bytes_max: Size = Field(
        900_000, ge=KIB, le=64 * MIB, description="Bytes of one batch; below Kafka's message.max.bytes."
    )
    drain_records_max: Count = Field(60_000, ge=100, description="Spooled records on their way to Kafka at a time.")
    fetch_bytes_max: Size = Field(8 * MIB, ge=64 * KIB, description="What one fetch may give.")
    fetch_partition_bytes_max: Size = Field(MIB, ge=16 * KIB, description="What it may give of one partition.")
    cache_bytes_max: Size = Field(
        64 * MIB, ge=MIB, description="Fetched history kept in the reader process: ten readers cost one fetch."
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        "none", description="Of batches that we write; every kind is read."
    )


class Auth(Section):
    """Who may connect."""

    allow_anonymous: bool = Field(
        False, description="true: other addresses than loopback may be named in `bind` without users."
    )


class Retention(Section):
    """How long a stream is kept: to an age, to a size, or to whichever is reached first. None: no such limit."""

    age_ms: Annotated[int | None, PlainValidator(_limit(parse_age_ms))] = Field(
        None, alias="age", description="Oldest record kept.", examples=["7d"]
    )
    bytes: Annotated[int | None, PlainValidator(_limit(parse_size))] = Field(
        None, description="Bytes kept.", examples=["10GiB"]
    )

    def __str__(self) -> str:
        parts = [age_text(self.age_ms)] if self.age_ms is not None else []
        parts += [size_text(self.bytes)] if self.bytes is not None else []
        return " or ".join(parts) if parts else "without limit"


SPOOL_AGE_S = 6 * 86_400
DEFAULT_RETENTION = Retention(age="24h", bytes=GIB)
MEMORY_RETENTION = Retention(bytes=64 * MIB)
SYSTEM_RETENTION = Retention(age="30d")


class KafkaTopicTable(Section):
    """`kafka = {…}` of a stream."""

    topic: str | None = Field(None, description="Kafka's topic; the stream's name when it is not given.")
    partitions: Count = Field(12, ge=1, le=280, description="Partitions when the topic is created.")
    replication: Count | None = Field(None, ge=1, le=100, description="Replicas when the topic is created.")
    key: str = Field("{topic}", description="Template of a record's key.")
    create: bool = Field(True, description="Create the topic when it does not exist.")
    topic_template: str | None = Field(
        None, description="Topic of records that name none: {topic} (Kafka's), {key}, {partition}; else left out."
    )


class StreamTable(Section):
    """One `[[streams]]` table, as it was written."""

    name: str = Field(description="Letters, digits, . _ -; at most 64.", examples=["telemetry"])
    topics: tuple[str, ...] = Field(
        min_length=1,
        max_length=256,
        description="MQTT topic filters; a topic belongs to the first stream that matches.",
        examples=[["sensors/#"]],
    )
    storage: Literal["memory", "sqlite", "kafka"] = Field(
        "sqlite", description="memory: until the server stops. sqlite: on disk. kafka: on the cluster of [kafka]."
    )
    ack: Literal["received", "stored"] | None = Field(
        None,
        description="When devices are acknowledged: received (at once; memory) or stored (after the commit; default).",
        examples=["stored"],
    )
    retention: Retention | None = Field(
        None,
        description="What is kept: 24 h or 1 GiB (memory: 64 MiB); of two limits the one not given is none.",
        examples=[{"age": "7d", "bytes": "10GiB"}],
    )
    kafka: KafkaTopicTable | None = Field(
        None,
        description='With the storage "kafka": topic (the stream\'s name), partitions (12), replication (3, or as many '
        "as there are brokers), key ({topic}; also {client_id}, {topic[1]}), create (true), topic_template.",
        examples=[{"topic": "iot.telemetry", "partitions": 12, "replication": 3, "key": "{client_id}"}],
    )
    deliver: Literal["at_once", "committed"] = Field(
        "at_once", description="When MQTT subscribers get a message. (committed: not available in this version.)"
    )


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """One stream with its defaults filled in."""

    name: str
    topics: tuple[str, ...]
    storage: str
    ack: str
    """`received` or `stored`."""
    retention: Retention
    kafka: KafkaTopicSettings | None = None

    @classmethod
    def of(cls, table: StreamTable) -> Self:
        """The stream that a table describes. A memory stream always has a size."""
        is_memory = table.storage == "memory"
        is_kafka = table.storage == "kafka"
        retention = table.retention or (
            MEMORY_RETENTION if is_memory else Retention() if is_kafka else DEFAULT_RETENTION
        )
        if is_memory and retention.bytes is None:
            retention = retention.model_copy(update={"bytes": MEMORY_RETENTION.bytes})
        ack = table.ack or ("received" if is_memory else "stored")
        return cls(table.name, table.topics, table.storage, ack, retention, _topic_settings(table, retention))


def _topic_settings(table: StreamTable, retention: Retention) -> KafkaTopicSettings | None:
    if table.storage != "kafka":
        return None
    kafka = table.kafka or KafkaTopicTable()
    return KafkaTopicSettings(
        topic=kafka.topic or table.name,
        partitions=kafka.partitions,
        replication=kafka.replication,
        key=kafka.key,
        topic_template=kafka.topic_template,
        create=kafka.create,
        retention_age_ms=retention.age_ms,
        retention_bytes=retention.bytes,
    )


SYSTEM_STREAM = StreamConfig("system", ("$presence/#", "$server/#"), "sqlite", "stored", SYSTEM_RETENTION)
DEFAULT_STREAM = StreamConfig("default", ("#",), "sqlite", "stored", DEFAULT_RETENTION)


class Config(Section):
    """All settings of one server."""

    data_dir: Path = Field(Path("data"), alias="data", description="The data directory; made when it is missing.")
    default_stream: bool = Field(
        True, description="Keep topics that no stream below names in the stream `default` (# -> sqlite, 24 h or 1 GiB)."
    )
    log: Log = Log()
    mqtt: Mqtt = Mqtt()
    websocket: WebSocket = WebSocket()
    http: Http = Http()
    live: Live = Live()
    history: History = History()
    store: Store = Store()
    presence: Presence = Presence()
    kafka: Kafka = Kafka()
    auth: Auth = Auth()
    stream_tables: tuple[StreamTable, ...] = Field((), alias="streams")
    ingest_tables: tuple[IngestTable, ...] = Field((), alias="ingest", max_length=64)
    egress_tables: tuple[EgressTable, ...] = Field((), alias="egress", max_length=64)

    @property
    def streams(self) -> tuple[StreamConfig, ...]:
        """In the order in which topics look for theirs: configured ones, `system`, then `default`."""
        configured = tuple(StreamConfig.of(table) for table in self.stream_tables)
        return (*configured, SYSTEM_STREAM, *((DEFAULT_STREAM,) if self.default_stream else ()))

    @property
    def has_users(self) -> bool:
        """Whether anyone can sign in. Without users the default addresses are loopback ones."""
        return False

    @property
    def mqtt_address(self) -> Address:
        """Where MQTT over TCP listens."""
        return self.mqtt.bind or self._default_address(1883)

    @property
    def websocket_address(self) -> Address:
        """Where MQTT over WebSocket listens."""
        return self.websocket.bind or self._default_address(8083)

    @property
    def http_address(self) -> Address:
        """Where HTTP listens."""
        return self.http.bind or self._default_address(8000)

    def _default_address(self, port: int) -> Address:
        return Address("0.0.0.0" if self.has_users else "127.0.0.1", port)

    def broker_config(self) -> BrokerConfig:
        """The broker's part."""
        return BrokerConfig(
            tcp_bind=(self.mqtt_address.host, self.mqtt_address.port),
            websocket_bind=(self.websocket_address.host, self.websocket_address.port),
            allowed_origins=self.http.allowed_origins,
            **_shared(BrokerConfig, self.mqtt, self.store),
        )

    def live_limits(self) -> LiveLimits:
        """The bounds of live readers and requests."""
        return LiveLimits(**_shared(LiveLimits, self.live, self.http))

    def presence_limits(self) -> PresenceLimits:
        """The bounds of what is known of clients."""
        return PresenceLimits(**_shared(PresenceLimits, self.presence))

    @property
    def uses_kafka(self) -> bool:
        """Some stream is kept on Kafka."""
        return any(stream.storage == "kafka" for stream in self.streams)

    def kafka_settings(self) -> KafkaSettings:
        """The cluster, as the Kafka streams are given it."""
        kafka = self.kafka
        ages = [
            stream.retention.age_ms
            for stream in self.streams
            if stream.storage == "kafka" and stream.retention.age_ms is not None
        ]
        security = {
            name: value
            for name, value in kafka.model_dump().items()
            if name.startswith(("sasl_", "ssl_", "security_")) and value is not None
        }
        return KafkaSettings(
            bootstrap_servers=kafka.bootstrap_servers,
            security=security,
            required=kafka.required,
            spool_bytes_max=kafka.spool_bytes_max,
            spool_age_s_max=kafka.spool_age_s_max or min([SPOOL_AGE_S, *[age_ms * 9 // 10_000 for age_ms in ages]]),
            spool_after_s=kafka.spool_after_s,
            request_timeout_s=kafka.request_timeout_s,
            check_s=kafka.check_s,
            batch_records_max=kafka.batch_records_max,
            batch_bytes_max=kafka.batch_bytes_max,
            drain_records_max=kafka.drain_records_max,
            fetch_bytes_max=kafka.fetch_bytes_max,
            fetch_partition_bytes_max=kafka.fetch_partition_bytes_max,
            cache_bytes_max=kafka.cache_bytes_max,
            compression=None if kafka.compression == "none" else kafka.compression,
        )

    def intake_limits(self) -> IntakeLimits:
        """The bounds of what waits for a log."""
        return IntakeLimits(**_shared(IntakeLimits, self.store))


def _shared(settings: type, *sections: Section) -> dict[str, Any]:
    """The sections' values for those fields of a settings class that carry the same names."""
    names = {field.name for field in fields(settings)}
    return {
        name: getattr(section, name)
        for section in sections
        for name in type(section).model_fields
        if name in names and name not in {"bind", "allowed_origins"}
    }
