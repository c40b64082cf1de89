"""Numbers of the wire that more than one module needs, as plain ints (an enum costs five times as much a look-up).

Source: MQTT 5 §2.1, §3.1.2, §3.3.1.
"""

from __future__ import annotations

from typing import Final

# Control packet types: the high four bits of the first byte.
CONNECT: Final = 1
CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
PUBREC: Final = 5
PUBREL: Final = 6
PUBCOMP: Final = 7
SUBSCRIBE: Final = 8
SUBACK: Final = 9
UNSUBSCRIBE: Final = 10
UNSUBACK: Final = 11
PINGREQ: Final = 12
PINGRESP: Final = 13
DISCONNECT: Final = 14
AUTH: Final = 15
WILL: Final = 16
"""Not a packet: the properties of a will have rules of their own (§3.1.3.2)."""

PACKET_NAMES: Final[tuple[str, ...]] = (
    "packet type 0",
    "CONNECT",
    "CONNACK",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "SUBACK",
    "UNSUBSCRIBE",
    "UNSUBACK",
    "PINGREQ",
    "PINGRESP",
    "DISCONNECT",
    "AUTH",
    "a will",
)
"""For messages to people, by packet type."""

# Protocol levels, as CONNECT says them.
LEVEL_3_1: Final = 3
LEVEL_3_1_1: Final = 4
LEVEL_5: Final = 5
BRIDGE_BIT: Final = 0x80
"""Set in the protocol level by a broker that connects to us as a bridge (3.1 and 3.1.1, a custom of Mosquitto)."""

# PUBLISH, low four bits of the first byte.
RETAIN_BIT: Final = 0x01
QOS_MASK: Final = 0x06
DUP_BIT: Final = 0x08

REQUIRED_FLAGS: Final = 0x02
"""Low four bits of PUBREL, SUBSCRIBE and UNSUBSCRIBE; those of all others but PUBLISH are 0. [MQTT-2.1.3-1]"""

# CONNECT flags.
CONNECT_RESERVED_BIT: Final = 0x01
CLEAN_START_BIT: Final = 0x02
WILL_BIT: Final = 0x04
WILL_QOS_SHIFT: Final = 3
WILL_RETAIN_BIT: Final = 0x20
PASSWORD_BIT: Final = 0x40
USERNAME_BIT: Final = 0x80

PACKET_ID_MAX: Final = 65_535
STRING_BYTES_MAX: Final = 65_535
VARIABLE_BYTE_INTEGER_MAX: Final = 268_435_455
