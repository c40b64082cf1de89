"""One question to a Kafka broker over a plain socket: which brokers do you know, and what do you know of these topics?

It needs no client library and no event loop and does not retry: "is it up" has to be answered by one exchange, and the
topic's id, which is another one after a topic was re-created, is not told by every client.
"""

from __future__ import annotations

import base64
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

METADATA_KEY = 3
METADATA_VERSION = 12
"""The first that asks without the fields that Kafka 4 dropped, and that names topic ids."""
ANSWER_BYTES_MAX = 64 << 20
"""A broker's answer is some kilobytes; a length beyond this comes from something that is no Kafka broker."""


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """How a broker wants to be reached: its advertised listener."""

    node_id: int
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class PartitionState:
    """Who leads a partition (-1: nobody) and whose copies are in sync."""

    partition: int
    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the broker knows it; `error_code` is 3 for one that does not exist."""

    name: str
    topic_id: str
    error_code: int
    partitions: tuple[PartitionState, ...]


@dataclass(frozen=True, slots=True)
class Metadata:
    """A broker's answer."""

    cluster_id: str
    controller_id: int
    brokers: tuple[BrokerAddress, ...]
    topics: tuple[TopicState, ...]


class _Reader:
    """Reads the types of Kafka's protocol, in the compact form of its newer messages."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise ConnectionError("the answer ends early")
        part, self._at = self._data[self._at : end], end
        return part

    def number(self, form: str) -> int:
        value: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def text(self) -> str:
        return self.take(max(self.varint() - 1, 0)).decode()

    def int32s(self) -> tuple[int, ...]:
        return tuple(self.number(">i") for _ in range(self.varint() - 1))

    def tags(self) -> None:
        for _ in range(self.varint()):
            self.varint()
            self.take(self.varint())


def fetch_metadata(host: str, port: int, topics: Sequence[str] = (), timeout_s: float = 2.0) -> Metadata:
    """Ask the broker at an address.

    Raises:
        OSError: nobody answers there in time (or closes the connection: a broker that is not ready).
    """
    names = b"".join(bytes(16) + bytes([len(name) + 1]) + name + b"\0" for name in (name.encode() for name in topics))
    if any(len(name) > 126 for name in topics):
        raise ValueError("topic names of more than 126 characters are not supported here")
    body = _varint(len(topics) + 1) + names + b"\0\0\0"
    request = struct.pack(">hhih", METADATA_KEY, METADATA_VERSION, 1, -1) + b"\0" + body
    with socket.create_connection((host, port), timeout_s) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        length = struct.unpack(">i", _receive(connection, 4))[0]
        if not 0 < length < ANSWER_BYTES_MAX:
            raise ConnectionError(f"what listens on {host}:{port} is no Kafka broker")
        return _parse(_Reader(_receive(connection, length)))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _receive(connection: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        data = connection.recv(count - len(received))
        if not data:
            raise ConnectionError("the connection was closed before the answer was complete")
        received += data
    return bytes(received)


def _parse(reader: _Reader) -> Metadata:
    reader.number(">i")  # the correlation id: there is one question for each connection
    reader.tags()
    reader.number(">i")  # throttle time
    brokers = []
    for _ in range(reader.varint() - 1):
        brokers.append(BrokerAddress(reader.number(">i"), reader.text(), reader.number(">i")))
        reader.text()  # rack
        reader.tags()
    cluster_id, controller_id = reader.text(), reader.number(">i")
    topics = tuple(_parse_topic(reader) for _ in range(reader.varint() - 1))
    return Metadata(cluster_id, controller_id, tuple(brokers), topics)


def _parse_topic(reader: _Reader) -> TopicState:
    error_code, name = reader.number(">h"), reader.text()
    topic_id = base64.urlsafe_b64encode(reader.take(16)).rstrip(b"=").decode()
    reader.take(1)  # whether it is internal
    partitions = []
    for _ in range(reader.varint() - 1):
        reader.number(">h")
        partition, leader = reader.number(">i"), reader.number(">i")
        reader.number(">i")  # the leader's epoch
        replicas, in_sync = reader.int32s(), reader.int32s()
        reader.int32s()  # replicas that are offline
        reader.tags()
        partitions.append(PartitionState(partition, leader, replicas, in_sync))
    reader.number(">i")  # operations allowed
    reader.tags()
    return TopicState(name, topic_id, error_code, tuple(sorted(partitions, key=lambda state: state.partition)))
