"""Messages from a real device: paho-mqtt, QoS 1, acknowledged when the call returns."""

from __future__ import annotations

import json
from collections.abc import Iterable

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

TIMEOUT_S = 20


def publish(port: int, messages: Iterable[tuple[str, object]], client_id: str = "device-1") -> int:
    """Publish (topic, payload as JSON) in order and return how many were acknowledged: all of them."""
    client = Client(CallbackAPIVersion.VERSION2, client_id)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        sent = [client.publish(topic, json.dumps(payload), qos=1) for topic, payload in messages]
        for info in sent:
            info.wait_for_publish(TIMEOUT_S)
            assert info.is_published()
    finally:
        client.disconnect()
        client.loop_stop()
    return len(sent)
