"""Properties of MQTT 5 between the words of the drivers and the `Properties` of paho-mqtt (aiomqtt's too)."""

from __future__ import annotations

from typing import Any

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

NAMES = {
    "content_type": "ContentType",
    "correlation_data": "CorrelationData",
    "maximum_packet_size": "MaximumPacketSize",
    "message_expiry_interval": "MessageExpiryInterval",
    "payload_format_indicator": "PayloadFormatIndicator",
    "receive_maximum": "ReceiveMaximum",
    "response_topic": "ResponseTopic",
    "session_expiry_interval": "SessionExpiryInterval",
    "subscription_identifier": "SubscriptionIdentifier",
    "subscription_identifiers": "SubscriptionIdentifier",
    "topic_alias": "TopicAlias",
    "topic_alias_maximum": "TopicAliasMaximum",
    "user_properties": "UserProperty",
    "will_delay_interval": "WillDelayInterval",
    "assigned_client_identifier": "AssignedClientIdentifier",
}


def to_paho(packet: str, values: dict[str, Any] | None) -> Properties | None:
    """`packet` is a name of paho's `PacketTypes`; nothing makes no properties."""
    if not values:
        return None
    made = Properties(getattr(PacketTypes, packet))
    for name, value in values.items():
        if name == "correlation_data":
            value = bytes.fromhex(value)
        elif name == "user_properties":
            value = [tuple(pair) for pair in value]
        setattr(made, NAMES[name], value)
    return made


def from_paho(properties: Properties | None) -> dict[str, Any]:
    """Those that are set."""
    found: dict[str, Any] = {}
    for name, word in NAMES.items():
        value = getattr(properties, word, None)
        if value is not None and name != "subscription_identifier":  # messages have several
            found[name] = value.hex() if isinstance(value, bytes) else value
    return found
