"""MqttClient: one connection of paho-mqtt, the reference client, driven by its caller: no thread, bounded in flight.

It speaks MQTT 5, and 3.1.1 to a broker that does not know 5 (properties are then left out). A connection that is lost
stays lost: the caller makes another.
"""

from __future__ import annotations

import secrets
import ssl
import time
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from bridge.replay.mqtt_target import MqttTarget

CONNECT_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 30
DISCONNECT_TIMEOUT_S = 2.0
UNSUPPORTED_VERSION = 0x84
PACKET_BYTES_MAX = 256 * 1024 * 1024
"""MQTT's own."""


class ConnectFailed(Exception):
    """There is no connection; `is_final`: another try will not help."""

    def __init__(self, text: str, *, is_final: bool = False) -> None:
        super().__init__(text)
        self.is_final = is_final


class ConnectionLost(Exception):
    """The connection has ended."""


class MqttClient:
    """See the module's docstring; `on_done(mid, reason)` tells of each message that the broker has taken or refused."""

    def __init__(self, target: MqttTarget, on_done: Callable[[int, ReasonCode], None]) -> None:
        self.is_v5 = True
        self.inflight_max = 65_535
        """Receive Maximum of the broker."""
        self.packet_bytes_max = PACKET_BYTES_MAX
        self._target = target
        self._on_done = on_done
        self._client_id = f"headrace-replay-{secrets.token_hex(6)}"
        self._client: paho.Client
        self._answer: ReasonCode | None = None
        self._has_connected = False

    def connect(self) -> None:
        """Raises: ConnectFailed"""
        try:
            self._connect()
        except _VersionUnknown:
            self.is_v5 = False
            try:
                self._connect()
            except _VersionUnknown as error:
                raise ConnectFailed(f"{self._target} speaks neither MQTT 5 nor 3.1.1.", is_final=True) from error

    def _connect(self) -> None:
        target = self._target
        self._answer = None
        version = MQTTProtocolVersion.MQTTv5 if self.is_v5 else MQTTProtocolVersion.MQTTv311
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            self._client_id,
            protocol=version,
            transport="websockets" if target.is_websocket else "tcp",
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(0)  # the caller bounds them
        client.on_connect = self._connected
        client.on_publish = lambda client, data, mid, reason, properties: self._on_done(mid, reason)
        if target.is_websocket:
            client.ws_set_options(path=target.path)
        if target.is_encrypted:
            client.tls_set_context(ssl.create_default_context())
        if target.username is not None:
            client.username_pw_set(target.username, target.password)
        try:
            client.connect(target.host, target.port, KEEP_ALIVE_S)
            self._wait_for_answer()
        except (OSError, ValueError) as error:
            text = getattr(error, "strerror", None) or str(error) or type(error).__name__
            is_final = isinstance(error, ssl.SSLError | ValueError)
            raise ConnectFailed(
                f"no broker answers at {target}: {text[:1].lower()}{text[1:]}.", is_final=is_final
            ) from error

    def _wait_for_answer(self) -> None:
        until = time.monotonic() + CONNECT_TIMEOUT_S
        code = MQTTErrorCode.MQTT_ERR_SUCCESS
        while self._answer is None and code == MQTTErrorCode.MQTT_ERR_SUCCESS and time.monotonic() < until:
            code = self._client.loop(0.2)
        answer = self._answer
        if answer is None:
            if self.is_v5 and code != MQTTErrorCode.MQTT_ERR_SUCCESS and not self._has_connected:
                raise _VersionUnknown  # old brokers close the connection without a word
            raise ConnectFailed(f"{self._target} does not answer as an MQTT broker.")
        if answer.is_failure:
            if self.is_v5 and answer.value == UNSUPPORTED_VERSION:
                raise _VersionUnknown
            raise ConnectFailed(f"{self._target} refuses the connection: {str(answer).lower()}.", is_final=True)
        self._has_connected = True

    def _connected(self, client: paho.Client, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self._answer = reason
        self.inflight_max = getattr(properties, "ReceiveMaximum", 65_535)
        self.packet_bytes_max = getattr(properties, "MaximumPacketSize", PACKET_BYTES_MAX)

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool, properties: dict[str, Any]) -> int:
        """Send one message; its mid. `on_done` may be called within.

        Raises: ConnectionLost
        """
        sent = self._client.publish(
            topic, payload, qos, retain, paho_properties(properties) if self.is_v5 and properties else None
        )
        if sent.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_AGAIN):
            raise ConnectionLost(paho.error_string(sent.rc))
        return sent.mid

    def turn(self, timeout_s: float) -> None:
        """Send and receive what there is; wait for something at most so long.

        Raises: ConnectionLost
        """
        code = self._client.loop(timeout_s)
        if code not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_AGAIN):
            raise ConnectionLost(paho.error_string(code))

    def close(self) -> None:
        """DISCONNECT, if there is still a connection."""
        until = time.monotonic() + DISCONNECT_TIMEOUT_S
        self._client.disconnect()
        while self._client.socket() is not None and time.monotonic() < until:
            if self._client.loop(0.1) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return


class _VersionUnknown(Exception):
    """The broker does not speak this version of MQTT."""


def paho_properties(properties: dict[str, Any]) -> Properties:
    """A record's properties, as contract §5.1 names them, for a PUBLISH."""
    found = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    names = {
        "content_type": "ContentType",
        "response_topic": "ResponseTopic",
        "message_expiry_interval": "MessageExpiryInterval",
        "payload_format_indicator": "PayloadFormatIndicator",
    }
    for name, paho_name in names.items():
        if name in properties:
            setattr(found, paho_name, properties[name])
    if "correlation_data" in properties:
        found.CorrelationData = b64decode(properties["correlation_data"])
    if "user_properties" in properties:
        found.UserProperty = [tuple(pair) for pair in properties["user_properties"]]
    return found
