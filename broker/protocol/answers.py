"""PUBACKs and PUBRECs of publishes that are stored, or refused (MQTT 5 §3.4, §3.5)."""

from __future__ import annotations

from broker.codec.encode import PACKET_IDS, PUBACKS, PUBREC_STREAM, encode_puback, encode_pubrec
from broker.codec.packets import Puback, Pubrec
from broker.publish_run import PublishRun


class Repeat:
    """A QoS 2 publish that came again while the first one waits to be stored."""

    __slots__ = ("packet_id", "run")

    def __init__(self, run: PublishRun, packet_id: int) -> None:
        self.run = run
        self.packet_id = packet_id


def pubrec(packet_id: int, reason_code: int) -> bytes:
    """A PUBREC; only MQTT 5 clients are told a reason code."""
    if reason_code:
        return encode_pubrec(Pubrec(packet_id, reason_code), 5)
    return PUBREC_STREAM[4 * packet_id : 4 * packet_id + 4]


def acknowledgements(run: PublishRun) -> bytes:
    """The PUBACKs or PUBRECs of a run, in the order of its publishes. [MQTT-4.6.0-2]"""
    ids = run.packet_ids
    if len(ids) != run.reliable:
        ids = [packet_id for packet_id in ids if packet_id]
    if run.qos == 2:
        return b"".join([pubrec(packet_id, run.reason_code) for packet_id in ids])
    if run.reason_code:
        return b"".join([encode_puback(Puback(packet_id, run.reason_code), 5) for packet_id in ids])
    if run.unmatched is not None:
        return b"".join(_pubacks_of_unmatched(run))
    return b"".join([PUBACKS[packet_id] for packet_id in ids])


def _pubacks_of_unmatched(run: PublishRun) -> list[bytes]:
    """One for each row, 0x10 where there was no subscriber, as Mosquitto says it (§3.4.2.1); QoS 0 has none."""
    ids = run.packet_ids
    pubacks = [PUBACKS[packet_id] if packet_id else b"" for packet_id in ids]
    for row, end_row in run.unmatched or ():
        pubacks[row:end_row] = [
            b"\x40\x03" + PACKET_IDS[packet_id] + b"\x10" if packet_id else b"" for packet_id in ids[row:end_row]
        ]
    return pubacks
