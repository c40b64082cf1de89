"""What the configuration says of Kafka, as plain frozen values that every part here is given."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """The cluster, and how patient we are with it. Times in seconds, sizes in bytes."""

    bootstrap_servers: tuple[str, ...] = ("localhost:9092",)
    security: dict[str, Any] = field(default_factory=dict)
    """`security_protocol`, `sasl_*` as aiokafka names them, and `ssl_cafile`, `ssl_certfile`, `ssl_keyfile`,
    `ssl_password`, `ssl_check_hostname`."""
    required: bool = False
    spool_bytes_max: int = 1024 * MIB
    spool_age_s_max: int = 6 * 86_400
    spool_after_s: float = 2.0
    """A record that Kafka has not confirmed for so long goes to the spool, with all that follow."""
    request_timeout_s: float = 10.0
    retry_s: float = 0.25
    check_s: float = 5.0
    """How often the topics' ids, partitions and ends are asked for."""
    batch_records_max: int = 1_000
    batch_bytes_max: int = 900_000
    """Below Kafka's `message.max.bytes`, which is 1,048,588 by default."""
    drain_records_max: int = 60_000
    """Records of the spool that are on their way at a time."""
    fetch_bytes_max: int = 8 * MIB
    fetch_partition_bytes_max: int = MIB
    compression: str | None = None
    cache_bytes_max: int = 64 * MIB
    """Fetched records that the reader process keeps, so that readers at the same place cost one fetch."""

    def client_arguments(self) -> dict[str, Any]:
        """What aiokafka's client is made with."""
        arguments = {name: value for name, value in self.security.items() if not name.startswith("ssl_")}
        if str(arguments.get("security_protocol", "")).endswith("SSL"):
            context = ssl.create_default_context(cafile=self.security.get("ssl_cafile"))
            context.check_hostname = bool(self.security.get("ssl_check_hostname", True))
            certificate = self.security.get("ssl_certfile")
            if certificate:
                context.load_cert_chain(
                    certificate, self.security.get("ssl_keyfile"), self.security.get("ssl_password")
                )
            arguments["ssl_context"] = context
        return {
            "bootstrap_servers": list(self.bootstrap_servers),
            "request_timeout_ms": int(self.request_timeout_s * 1000),
            "retry_backoff_ms": 200,
            **arguments,
        }


NO_LIMIT = "-1"
"""Of retention, as Kafka says it."""


@dataclass(frozen=True, slots=True)
class KafkaTopicSettings:
    """One stream's topic."""

    topic: str
    partitions: int = 12
    replication: int | None = None
    """None: three, or as many as there are brokers."""
    key: str = "{topic}"
    topic_template: str | None = None
    """Topic of records that name none, made of `{topic}` (Kafka's), `{key}`, `{partition}`; None: they are left out."""
    create: bool = True
    retention_age_ms: int | None = None
    retention_bytes: int | None = None

    def configs(self) -> dict[str, str]:
        """What Kafka calls the settings of the topic. Of two limits of retention the one that is not given is none."""
        configs = {"message.timestamp.type": "CreateTime", "cleanup.policy": "delete"}
        if self.retention_age_ms is not None or self.retention_bytes is not None:
            age_ms, size = self.retention_age_ms, self.retention_bytes
            configs["retention.ms"] = NO_LIMIT if age_ms is None else str(age_ms)
            configs["retention.bytes"] = NO_LIMIT if size is None else str(max(1, size // self.partitions))
        return configs
