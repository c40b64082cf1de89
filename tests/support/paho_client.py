"""PahoClient: paho-mqtt, the reference client, with what a test waits for as plain lists."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.conditions import eventually
from tests.support.server import ServerProcess

TIMEOUT_S = 15.0


class PahoClient:
    """One client with its own network thread. `transport` is `tcp`, `websockets`, or these on the HTTP port: `http`."""

    def __init__(
        self,
        server: ServerProcess,
        client_id: str = "",
        transport: str = "tcp",
        version: int = paho.MQTTv5,
        *,
        clean: bool = True,
        keep_alive: int = 60,
        will: tuple[str, bytes, int, bool] | None = None,
    ) -> None:
        arguments: dict[str, Any] = {} if version == paho.MQTTv5 else {"clean_session": clean}
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTProtocolVersion(version),
            transport="tcp" if transport == "tcp" else "websockets",
            **arguments,
        )
        self.version = version
        self.messages: list[paho.MQTTMessage] = []
        self.session_present: bool | None = None
        self.disconnect_reasons: list[str] = []
        self._acknowledged: set[int] = set()
        self._is_connected = threading.Event()
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.client.on_message = lambda client, data, message: self.messages.append(message)
        self.client.on_subscribe = lambda client, data, mid, codes, properties: self._acknowledged.add(mid)
        self.client.on_unsubscribe = lambda client, data, mid, codes, properties: self._acknowledged.add(mid)
        if will is not None:
            self.client.will_set(*will)
        if transport != "tcp":
            self.client.ws_set_options(path="/mqtt")
        properties = None
        if version == paho.MQTTv5 and not clean:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 300
        port = {"tcp": server.mqtt_port, "websockets": server.ws_port, "http": server.http_port}[transport]
        if version == paho.MQTTv5:
            self.client.connect("127.0.0.1", port, keep_alive, clean_start=clean, properties=properties)
        else:
            self.client.connect("127.0.0.1", port, keep_alive)
        self.client.loop_start()
        assert self._is_connected.wait(TIMEOUT_S), "no CONNACK"

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        assert not reason.is_failure, reason
        self.session_present = flags.session_present
        self._is_connected.set()

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self.disconnect_reasons.append(str(reason))

    def subscribe(self, *filters: tuple[str, int]) -> None:
        """SUBSCRIBE and its SUBACK."""
        _, mid = self.client.subscribe(list(filters))
        eventually(lambda: mid in self._acknowledged, TIMEOUT_S, "SUBACK")

    def unsubscribe(self, *filters: str) -> None:
        """UNSUBSCRIBE and its UNSUBACK."""
        _, mid = self.client.unsubscribe(list(filters))
        eventually(lambda: mid in self._acknowledged, TIMEOUT_S, "UNSUBACK")

    def publish(self, topic: str, payload: bytes | str = b"", qos: int = 0, retain: bool = False) -> None:
        """PUBLISH and the whole exchange that follows."""
        self.client.publish(topic, payload, qos, retain).wait_for_publish(TIMEOUT_S)

    @property
    def received(self) -> list[tuple[str, bytes, int, bool]]:
        """Topic, payload, QoS and RETAIN of what came."""
        return [(one.topic, bytes(one.payload), one.qos, bool(one.retain)) for one in list(self.messages)]

    def lose_connection(self) -> None:
        """Stop without DISCONNECT."""
        self.client.loop_stop()
        opened = self.client.socket()
        if opened is not None:
            with contextlib.suppress(OSError):
                opened.close()

    def close(self) -> None:
        """DISCONNECT and stop."""
        self.client.disconnect()
        self.client.loop_stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
