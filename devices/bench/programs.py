"""The programs of other brokers: how each is found, and what it is told so that it is as fast as it can be.

No persistence, no log, limits so high that nothing is dropped for being behind; the rest is as its makers ship it.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MOSQUITTO = "mosquitto"
MESSAGES_MAX = 65_535
"""In flight to one client, where a program has to be told."""
BYTES_MAX = 1 << 30
ACKNOWLEDGEMENTS_MAX = 10_000
"""NATS counts those of all subscriptions of a client, and refuses more than 65,535: a filter with `#` is two."""


@dataclass(frozen=True)
class Ports:
    """Where a server listens."""

    mqtt: int
    http: int = 0
    ws: int = 0
    """MQTT over WebSocket; 0: nobody asks for it, and a peer that is slower with it has none."""


def program_version(program: str, arguments: list[str], word: int) -> Callable[[], str | None]:
    def version() -> str | None:
        path = find_program(program)
        if path is None:
            return None
        shown = subprocess.run([path, *arguments], capture_output=True, timeout=10, check=False)
        words = (shown.stdout + shown.stderr).decode(errors="replace").split()
        return words[word] if len(words) > word else "unknown"

    return version


def find_program(program: str) -> str | None:
    # Debian keeps servers in sbin, which is not on everybody's PATH.
    return shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin")


def distribution_version(name: str) -> Callable[[], str | None]:
    def version() -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    return version


def mosquitto(directory: Path, ports: Ports, storage: str) -> list[str]:
    # Debian's build and defaults (no set_tcp_nodelay, which costs it half); only limits that make it drop are off.
    configuration = directory / "mosquitto.conf"
    websocket = f"listener {ports.ws} 127.0.0.1\nprotocol websockets\n" if ports.ws else ""
    configuration.write_text(
        f"listener {ports.mqtt} 127.0.0.1\n{websocket}"
        "allow_anonymous true\n"
        "persistence false\n"
        "log_type none\n"
        "sys_interval 0\n"
        "max_inflight_messages 0\n"
        "max_queued_messages 0\n"
        "max_queued_bytes 0\n"
        "max_connections -1\n"
    )
    return [find_program(MOSQUITTO) or MOSQUITTO, "-c", str(configuration)]


def amqtt(directory: Path, ports: Ports, storage: str) -> list[str]:
    configuration = directory / "amqtt.yaml"
    configuration.write_text(
        "listeners:\n"
        "  default:\n"
        "    type: tcp\n"
        f"    bind: 127.0.0.1:{ports.mqtt}\n"
        "    max_connections: 20000\n"
        "plugins:\n"
        "  amqtt.plugins.authentication.AnonymousAuthPlugin:\n"
        "    allow_anonymous: true\n"
    )
    return [sys.executable, "-W", "ignore", "-m", "amqtt.scripts.broker_script", "-c", str(configuration)]


def nats_server(directory: Path, ports: Ports, storage: str) -> list[str]:
    """Arguments to start NATS, which has MQTT beside its own protocol and keeps MQTT's sessions in JetStream."""
    configuration = directory / "nats.conf"
    websocket = f'websocket {{ listen: "127.0.0.1:{ports.ws}", no_tls: true }}\n' if ports.ws else ""
    configuration.write_text(
        "listen: 127.0.0.1:-1\n"
        "server_name: bench\n"
        f'jetstream {{ store_dir: "{directory / "jetstream"}" }}\n'
        f'mqtt {{ listen: "127.0.0.1:{ports.mqtt}", max_ack_pending: {ACKNOWLEDGEMENTS_MAX} }}\n'
        f"max_pending: {BYTES_MAX}\n{websocket}"
    )
    return [find_program("nats-server") or "nats-server", "-c", str(configuration)]


def rumqttd(directory: Path, ports: Ports, storage: str) -> list[str]:
    """Arguments to start rumqttd, which has a port for each version of MQTT: 3.1.1 here."""
    configuration = directory / "rumqttd.toml"
    connections = (
        f"connection_timeout_ms = 60000\nmax_payload_size = 1048576\nmax_inflight_count = {MESSAGES_MAX}\n"
        "dynamic_filters = true\n"
    )

    def listener(kind: str, port: int) -> str:
        head = f'[{kind}.1]\nname = "{kind}-1"\nlisten = "127.0.0.1:{port}"\nnext_connection_delay_ms = 0\n'
        return f"{head}[{kind}.1.connections]\n{connections}"

    configuration.write_text(
        "id = 0\n[router]\nid = 0\nmax_connections = 20000\nmax_outgoing_packet_count = 200\n"
        "max_segment_size = 104857600\nmax_segment_count = 10\n"
        + listener("v4", ports.mqtt)
        + (listener("ws", ports.ws) if ports.ws else "")
    )
    return [find_program("rumqttd") or "rumqttd", "-c", str(configuration), "-q"]


def flashmq(directory: Path, ports: Ports, storage: str) -> list[str]:
    """Arguments to start FlashMQ."""
    configuration = directory / "flashmq.conf"

    def listener(protocol: str, port: int) -> str:
        address = "inet_protocol ip4\ninet4_bind_address 127.0.0.1\n"
        return f"listen {{\nprotocol {protocol}\nport {port}\n{address}}}\n"

    configuration.write_text(
        listener("mqtt", ports.mqtt)
        + (listener("websockets", ports.ws) if ports.ws else "")
        + "allow_anonymous true\nlog_level error\n"
        f"max_qos_msg_pending_per_client {MESSAGES_MAX}\nmax_qos_bytes_pending_per_client {BYTES_MAX}\n"
    )
    return [find_program("flashmq") or "flashmq", "--config-file", str(configuration)]
