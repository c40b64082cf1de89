"""The packets that a client may send in each state of its connection (MQTT 5 §3.1, §4.13), as a table."""

from __future__ import annotations

from broker.codec import constants
from broker.codec.decode import read_header
from broker.codec.errors import MalformedPacket, MqttError, NotAnswered, ProtocolError

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


def not_allowed(data: bytes, position: int) -> MqttError:
    """What is wrong with a packet that may not come now: its header first, as in Mosquitto."""
    packet_type = data[position] >> 4
    if packet_type in ANSWERS and data[position] & 0x0F:
        return MalformedPacket("an answer of servers, with flags that are reserved")  # [MQTT-2.1.3-1]
    if packet_type == 0:
        return ProtocolError("packet type 0")
    try:
        extent = read_header(data, position)
    except NotAnswered as error:
        return error
    if packet_type == constants.PINGRESP and extent is not None and extent[1] > extent[0]:
        return NotAnswered("PINGRESP with bytes behind its header")
    return ProtocolError(f"{constants.PACKET_NAMES[packet_type]} is not allowed now")
