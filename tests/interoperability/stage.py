"""Stage: the clients of one scenario, and a topic of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from tests.interoperability.client_process import Client, ClientProcess
from tests.interoperability.clients import Library
from tests.support.conditions import eventually
from tests.support.server import ServerProcess

TIMEOUT_S = 30.0
"""For a machine that has much else to do."""

COUNTER = itertools.count(1)


class Stage:
    """Connects clients of one library, by one version of MQTT and one transport, to one server."""

    def __init__(
        self,
        server: ServerProcess,
        library: Library,
        version: str,
        transport: str,
        process: ClientProcess,
        start_process: Callable[[], ClientProcess],
        reference: ClientProcess,
    ) -> None:
        self.library = library
        self.version = version
        self.topic = f"interoperability/{next(COUNTER)}"
        self._transport = transport
        self._port = server.mqtt_port if transport == "tcp" else server.ws_port
        self._process = process
        self._start_process = start_process
        self._reference = reference
        self._clients: list[Client] = []

    @property
    def is_v5(self) -> bool:
        """Whether MQTT 5 is spoken."""
        return self.version == "5"

    def client_id(self, name: str) -> str:
        """One that no other scenario has; MQTT 3.1 takes 23 characters."""
        return f"{self.topic.replace('interoperability/', 'i')}-{name}"

    def connect(
        self,
        name: str,
        *,
        client_id: str | None = None,
        clean: bool = True,
        keep_alive: int = 60,
        will: dict[str, Any] | None = None,
        hold_acknowledgements: bool = False,
        process: ClientProcess | None = None,
        version: str = "",
        **properties: Any,
    ) -> Client:
        """A client that has its CONNACK. `clean=False` is a kept session in all versions."""
        version = version or self.version
        if version == "5" and not clean:
            properties.setdefault("session_expiry_interval", 300)
        client = Client(process or self._process, f"{self.topic}/{name}/{len(self._clients)}")
        self._clients.append(client)
        if will is not None:
            will = {"qos": 0, "retain": False, "properties": {}, **will, "payload": will["payload"].hex()}
        client.connect(
            port=self._port,
            transport=self._transport,
            version=version,
            client_id=self.client_id(name) if client_id is None else client_id,
            clean=clean,
            keep_alive=keep_alive,
            will=will,
            hold_acknowledgements=hold_acknowledgements,
            properties=properties,
        )
        return client

    def connect_doomed(self, name: str, **arguments: Any) -> Client:
        """A client in a process of its own, to be killed."""
        return self.connect(name, process=self._start_process(), **arguments)

    def connect_reference(self, version: str) -> Client:
        """A client of paho-mqtt, in a version of MQTT that may be another."""
        return self.connect(f"r{version}", process=self._reference, version=version)

    def tells(self, what: str) -> bool:
        """Whether the library shows this to its program."""
        return what not in self.library.does_not_tell

    def close(self) -> None:
        """DISCONNECT all that are there still."""
        for client in self._clients:
            if client.is_open:
                client.disconnect()


def wait_for_messages(client: Client, expected: list[tuple[str, bytes, int, bool]]) -> None:
    """Wait until just these came: topic, payload, QoS, RETAIN."""
    eventually(lambda: len(client.messages) >= len(expected), TIMEOUT_S, what=f"{len(expected)} messages")
    received = client.received
    if received != expected:  # of a long list only what differs
        at = next(
            (at for at, both in enumerate(zip(received, expected, strict=False)) if both[0] != both[1]), len(expected)
        )
        raise AssertionError(f"message {at}: got {received[at : at + 5]}\nexpected {expected[at : at + 5]}")
