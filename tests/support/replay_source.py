"""A replay source in memory: a list of messages, given out in small pieces when a test says so."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import groupby

from broker.codec.encode import encode_publish
from broker.codec.packets import Publish
from broker.codec.properties import Properties
from broker.replay import PublishRows, ReplayFeed, ReplayPiece, ReplayReader, ReplayRefused, ReplayRequest
from broker.topics.names import matches


@dataclass(frozen=True)
class Stored:
    """One stored message."""

    topic_name: str
    payload: bytes
    qos: int = 1


class ListFeed:
    """One reader's way through the list; positions are indexes."""

    def __init__(self, source: ListSource, request: ReplayRequest, reader: ReplayReader) -> None:
        self.source = source
        self.request = request
        self.reader = reader
        self.index = int(request.position)
        self.wanted = 0
        self.pieces = 0

    def pull(self) -> None:
        self.wanted += 1

    def position(self) -> str:
        return str(self.index)

    def close(self) -> None:
        self.source.feeds.remove(self)

    def step(self) -> bool:
        """Give one piece, if it is wanted and there is something."""
        request = self.request
        found: list[tuple[int, Stored]] = []
        for index in range(self.index, len(self.source.messages)):
            message = self.source.messages[index]
            if matches(request.topic_filter, message.topic_name):
                found.append((index, message))
            if len(found) == self.source.piece_rows:
                break
        if not self.wanted or not found:
            return False
        self.wanted -= 1
        self.pieces += 1
        self.index = found[-1][0] + 1
        self.reader.take(piece_of(request, found, self.index))
        return True


def piece_of(request: ReplayRequest, found: list[tuple[int, Stored]], next_index: int) -> ReplayPiece:
    """The messages as frames, each with its index in a user property."""
    data = b""
    ends, places, levels = array("I"), array("I"), []
    level = 5 if request.is_v5 else 4
    for index, message in found:
        qos = min(message.qos, request.qos)
        properties = Properties() if request.is_v5 else None
        if properties is not None:
            properties.user_properties = [("offset", str(index))]
            if request.subscription_identifier:
                properties.subscription_identifiers = [request.subscription_identifier]
        packet = Publish(message.topic_name, message.payload, qos, False, False, 1 if qos else 0, properties)
        frame = encode_publish(packet, level)
        places.append(len(data) + frame.index(message.topic_name.encode()) + len(message.topic_name.encode()))
        data += frame
        ends.append(len(data))
        levels.append(qos)
    stretches = []
    for qos, rows in groupby(levels):
        stretches.append(((stretches[-1][0] if stretches else 0) + len(list(rows)), qos))
    positions = [index for index, _ in found] + [next_index]
    rows_or_none = PublishRows(ends, places, stretches) if any(levels) else None
    return ReplayPiece(data, len(found), rows_or_none, request.is_v5, lambda row: str(positions[row]))


class ListSource:
    """Implements `broker.replay.ReplaySource`. `since` is `now`, `-1h` (everything), an index, or no time at all."""

    def __init__(self, piece_rows: int = 10) -> None:
        self.messages: list[Stored] = []
        self.piece_rows = piece_rows
        self.feeds: list[ListFeed] = []
        self.opened = 0

    def add(self, topic_name: str, *payloads: bytes, qos: int = 1) -> None:
        self.messages += [Stored(topic_name, payload, qos) for payload in payloads]

    def start(self, topic_filter: str, since: str, now_ms: int) -> str:
        if since == "now":
            return str(len(self.messages))
        if since == "-1h":
            return "0"
        if since.isdigit():
            return since
        raise ReplayRefused(0x8F, f"{since!r} is no time")

    def open(self, request: ReplayRequest, reader: ReplayReader) -> ReplayFeed:
        feed = ListFeed(self, request, reader)
        self.feeds.append(feed)
        self.opened += 1
        return feed

    def step(self) -> int:
        """One piece for each feed that wants one; returns how many were given."""
        return sum([feed.step() for feed in tuple(self.feeds)])
