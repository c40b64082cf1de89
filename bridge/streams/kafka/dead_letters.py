"""Dead letters: records that Kafka will never take, as they are read and shown; `Spool.bury` writes them."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import orjson

from bridge.encoding import encode_payload, json_properties, rfc3339
from bridge.records import RecordRun
from bridge.streams.frames import decode_body


class DeadLetter(NamedTuple):
    """One record, and why it is not in Kafka."""

    letter_id: int
    time_ms: int
    """When Kafka refused it."""
    partition: int
    reason: str
    segment: bytes
    """See `bridge.streams.frames`; it has one record."""

    @property
    def run(self) -> RecordRun:
        """The record."""
        (run,) = decode_body(self.segment, 0, {})
        return run


def read_dead_letters(
    connection: sqlite3.Connection, stream: str, after_id: int, limit: int, bytes_max: int
) -> list[DeadLetter]:
    """Letters of a stream behind one of them, oldest first, as far as both bounds let; at least one."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'dead_letter'").fetchone() is None:
        return []
    letters: list[DeadLetter] = []
    size = 0
    for row in connection.execute(
        "SELECT id, time_ms, partition, reason, segment FROM dead_letter"
        " WHERE stream = ? AND id > ? ORDER BY id LIMIT ?",
        (stream, after_id, limit),
    ):
        letter = DeadLetter(*row)
        size += len(letter.segment)
        if letters and size > bytes_max:
            break
        letters.append(letter)
    return letters


def dead_letter_json(stream: str, letter: DeadLetter) -> bytes:
    """`{"id", "time", "partition", "reason", "record": {…}}`, the record without a place: it has none."""
    run = letter.run
    payload, encoding = encode_payload(run.data[run.payload_starts[0] : run.ends[0]])
    first_byte = run.data[run.start]
    fields = orjson.dumps(
        {
            "encoding": encoding,
            "qos": first_byte >> 1 & 3,
            "retain": bool(first_byte & 1),
            "time": rfc3339(run.received_at_ms),
            "id": f"{run.node_run}-{run.number(0)}",
            "client_id": run.client_id,
            "stream": stream,
        }
    )
    properties = json_properties(run, 0)
    return b'{"id":%d,"time":"%b","partition":%d,"reason":%b,"record":%b%b,%b%b}}' % (
        letter.letter_id,
        rfc3339(letter.time_ms).encode(),
        letter.partition,
        orjson.dumps(letter.reason),
        run.topics[0].json_head,
        payload,
        fields[1:-1],
        b',"properties":' + properties if properties else b"",
    )
