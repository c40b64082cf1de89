"""The packets that a client may send in each state of its connection (MQTT 5 §3.1, §4.13), as a table."""

from __future__ import annotations

from broker.codec import constants

AWAITING_CONNECT = 0
CONNECTED = 1
CLOSED = 2

LEGAL_PACKETS: dict[int, frozenset[int]] = {
    AWAITING_CONNECT: frozenset({constants.CONNECT}),  # [MQTT-3.1.0-1]
    CONNECTED: frozenset(
        {
            constants.PUBLISH,
            constants.PUBACK,
            constants.PUBREC,
            constants.PUBREL,
            constants.PUBCOMP,
            constants.SUBSCRIBE,
            constants.UNSUBSCRIBE,
            constants.PINGREQ,
            constants.DISCONNECT,
        }
    ),  # a second CONNECT is not among them [MQTT-3.1.0-2], nor AUTH: no method is ever agreed on [MQTT-4.12.0-6]
    CLOSED: frozenset(),
}

ANSWERS: frozenset[int] = frozenset({constants.SUBACK, constants.UNSUBACK, constants.PINGRESP})
"""Never a client's. Mosquitto looks at their flags first, at CONNACK's not."""
