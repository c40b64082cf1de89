"""Mode: where a Kafka stream's records go at the moment.

STARTING  Kafka has not been reached yet, and it is not known whether it will be; records wait in memory
DIRECT    records go to Kafka and are acknowledged when it has confirmed them
SPOOLING  records go to the spool and are acknowledged when they are on disk
DRAINING  as SPOOLING, while the spool's head goes to Kafka
CLOSING   the spool's rest is on its way; new records wait in memory until it is confirmed
"""

from __future__ import annotations

from enum import Enum


class Mode(Enum):
    """See the module's docstring."""

    STARTING = "starting"
    DIRECT = "direct"
    SPOOLING = "spooling"
    DRAINING = "draining"
    CLOSING = "closing"
