"""Device: one paho-mqtt client on a selector that it shares with others, so that one thread carries a whole fleet.

paho's own loops take a thread for each client; its calls for foreign loops (`loop_read`, `loop_write`, `loop_misc`)
take none.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from devices.profiles import Message

CONNECT_TIMEOUT_S = 3.0
KEEP_ALIVE_S = 30
INFLIGHT_MESSAGES_MAX = 200
QUEUED_MESSAGES_MAX = 1_000
"""Messages of one device that wait for the broker; above it the device leaves out readings, as real ones do."""
DEFAULT_PORT = {"mqtt": 1883, "ws": 80}
Transport = Literal["tcp", "ws"]


@dataclass(frozen=True, slots=True)
class Target:
    """A broker's address."""

    host: str
    port: int
    transport: Transport
    path: str = "/mqtt"
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str | None, transport: Transport | None) -> Target:
        """Read `mqtt://USER:PASSWORD@HOST:PORT` or `ws://HOST:PORT/PATH`; without a URL: this computer, our ports.

        User and password may be percent-encoded; they are in no message.

        Raises:
            ValueError: it is no such address, or contradicts `transport`.
        """
        if url is None:
            return cls("127.0.0.1", 8083, "ws") if transport == "ws" else cls("127.0.0.1", 1883, "tcp")
        parts = urlsplit(url if "://" in url else f"{'ws' if transport == 'ws' else 'mqtt'}://{url}")
        scheme = {"tcp": "mqtt"}.get(parts.scheme, parts.scheme)
        try:
            port = parts.port
        except ValueError:
            port = -1
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        if scheme not in DEFAULT_PORT or not parts.hostname or port == -1:
            raise ValueError(f"{shown} is not a broker's address; write mqtt://HOST:PORT or ws://HOST:PORT/mqtt")
        spoken: Transport = "ws" if scheme == "ws" else "tcp"
        if transport is not None and transport != spoken:
            raise ValueError(f"{shown} is an address for {spoken}, but --transport says {transport}")
        return cls(
            parts.hostname,
            port or DEFAULT_PORT[scheme],
            spoken,
            parts.path or "/mqtt",
            unquote(parts.username) if parts.username is not None else None,
            unquote(parts.password) if parts.password is not None else None,
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}{self.path}" if self.transport == "ws" else f"mqtt://{host}:{self.port}"


class Device:
    """One MQTT client. It connects again only when it is told to (`is_wanted` says whether it should be online)."""

    def __init__(
        self,
        target: Target,
        client_id: str,
        selector: selectors.BaseSelector,
        *,
        is_v5: bool,
        will: Message | None = None,
        on_connected: Callable[[Device], None] | None = None,
    ) -> None:
        self.client_id = client_id
        self.is_online = False
        self.is_wanted = True
        self.refusal: str | None = None
        """Why the broker did not let it in."""
        self.sent = 0
        self.acknowledged = 0
        """Messages of QoS 1 and 2 that the broker has taken, and those of QoS 0 that were written."""
        self.connects = 0
        self.retry_at = 0.0
        self._target = target
        self._selector = selector
        self._on_connected = on_connected
        self._registered: Any = None
        """The socket that the selector watches for this device."""
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=paho.MQTTv5 if is_v5 else paho.MQTTv311,
            transport="websockets" if target.transport == "ws" else "tcp",
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(INFLIGHT_MESSAGES_MAX)
        client.max_queued_messages_set(QUEUED_MESSAGES_MAX)
        if target.transport == "ws":
            client.ws_set_options(path=target.path)
        if target.username is not None:
            client.username_pw_set(target.username, target.password)
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_publish = self._published
        client.on_socket_open = self._socket_opened
        client.on_socket_close = self._socket_closed
        client.on_socket_register_write = self._socket_full
        client.on_socket_unregister_write = self._socket_has_room

    def connect(self) -> None:
        """Open a connection; the broker's answer comes later.

        Raises:
            OSError: there is nobody at the address.
        """
        self.refusal = None
        self._client.connect(self._target.host, self._target.port, KEEP_ALIVE_S)

    def publish(self, message: Message, qos: int) -> bool:
        """Send a message; False when the device is away or too many of its messages wait."""
        if not self.is_online:
            return False
        info = self._client.publish(message.topic, message.payload, qos, message.retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return False
        self.sent += 1
        return True

    def disconnect(self) -> None:
        """Say goodbye."""
        self.is_wanted = False
        if self.is_online:
            self._client.disconnect()

    def cut(self) -> None:
        """Lose the connection without a word, as when the power fails."""
        connected = self._client.socket()
        if connected is not None:
            # Closing it under paho makes its next read fail, which is what a lost network looks like to it.
            self._unregister()
            connected.close()
            self._client.loop_read()

    def ready(self, events: int) -> None:
        """The selector says that the socket can be read or written."""
        if events & selectors.EVENT_READ:
            self._client.loop_read()
        if events & selectors.EVENT_WRITE:
            self._client.loop_write()

    def tick(self) -> None:
        """Once a second: pings."""
        if self._client.socket() is not None:
            self._client.loop_misc()

    # Callbacks of paho

    def _connected(self, client: paho.Client, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            self.refusal = str(reason).lower()
            return
        self.is_online = True
        self.connects += 1
        if self._on_connected is not None:
            self._on_connected(self)

    def _disconnected(self, client: paho.Client, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self.is_online = False

    def _published(self, client: paho.Client, data: Any, packet_id: int, reason: Any, properties: Any) -> None:
        self.acknowledged += 1

    def _socket_opened(self, client: paho.Client, data: Any, opened: Any) -> None:
        self._registered = opened
        self._selector.register(opened, selectors.EVENT_READ, self)

    def _socket_closed(self, client: paho.Client, data: Any, closed: Any) -> None:
        self._unregister()

    def _socket_full(self, client: paho.Client, data: Any, full: Any) -> None:
        self._watch(selectors.EVENT_READ | selectors.EVENT_WRITE)

    def _socket_has_room(self, client: paho.Client, data: Any, free: Any) -> None:
        self._watch(selectors.EVENT_READ)

    def _watch(self, events: int) -> None:
        if self._registered is not None:
            self._selector.modify(self._registered, events, self)

    def _unregister(self) -> None:
        if self._registered is not None:
            self._selector.unregister(self._registered)
            self._registered = None
