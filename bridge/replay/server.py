"""ServerSource: a stream's range from a running server, over its HTTP API; any storage.

The records come in one long answer. When it breaks off, the next one begins behind the last whole record, so that
nothing comes twice and nothing is left out.
"""

from __future__ import annotations

import http.client
import json
import time
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from bridge.api_client import ApiClient, ApiFailed, reason
from bridge.cursors import Cursor, Offsets, StreamPosition
from bridge.replay.source import RETRY_PAUSE_S, RETRY_S, Message, Piece, ReplayFailed, Wanted, behind, check_epoch
from bridge.replay.text_records import CSV, Place, RecordText, csv_fields, epoch_ms

READ_BYTES = 256 * 1024
AWAY = (0, 503)
"""No answer, or one that says: not now."""


class ServerSource:
    """See `bridge.replay.source.Source`."""

    def __init__(self, api: ApiClient) -> None:
        self.position: StreamPosition
        self.end: Offsets = {}
        self.lost = 0
        self._api = api
        self._wanted: Wanted
        self._epoch = ""

    def begin(self, wanted: Wanted, position: StreamPosition | None) -> None:
        self._wanted = wanted
        try:
            stream = self._api.ask(f"/streams/{wanted.stream}")
            self._epoch = stream["epoch"]
            first = self._first(wanted, "asc")
            self.end = self._first(wanted, "desc").offset_by_partition
        except ApiFailed as error:
            raise ReplayFailed(_with_next_step(error)) from error
        if position is None:
            position = first
        else:
            check_epoch(wanted.stream, position, self._epoch)
        self.position = position
        self._count_lost(stream)

    def _first(self, wanted: Wanted, order: str) -> StreamPosition:
        """The position before the first record of the range, or behind the last."""
        page = self._api.ask(f"/streams/{wanted.stream}/records", [*self._range(), ("order", order), ("limit", "1")])
        position = Cursor.parse(page["cursor"]).position_by_stream[wanted.stream]
        for record in page["records"]:
            place = Place(record["epoch"], record["partition"], record["offset"])
            position = behind(position, place if order == "desc" else place._replace(offset=place.offset - 1))
        return position

    def _range(self) -> list[tuple[str, str]]:
        wanted = self._wanted
        times = [("from", str(wanted.from_ms))] if wanted.from_ms is not None else []
        return [*times, ("to", str(wanted.to_ms))]

    def _count_lost(self, stream: Mapping[str, Any]) -> None:
        """What retention has dropped behind the position is gone; the server goes on with what it keeps."""
        offsets = dict(self.position.offset_by_partition)
        for each in stream["partitions"]:
            partition, first = each["partition"], each["first_offset"]
            if partition in offsets and offsets[partition] < first:
                self.lost += max(0, min(first, self.end.get(partition, first)) - offsets[partition])
                offsets[partition] = first
        self.position = StreamPosition(self.position.epoch, offsets, self.position.spool_epoch)

    def text(self, form: RecordText) -> Iterator[Piece]:
        given_up_at = time.monotonic() + RETRY_S
        while True:
            try:
                for piece in self._answer(form):
                    given_up_at = time.monotonic() + RETRY_S
                    yield piece
                return
            except (ApiFailed, OSError, http.client.HTTPException) as error:
                if isinstance(error, ApiFailed) and error.status not in AWAY:
                    raise ReplayFailed(_with_next_step(error)) from error
                if time.monotonic() > given_up_at:
                    raise ReplayFailed(f"{self._api.url} broke off: {reason(error)}. Is it still running?") from error
            time.sleep(RETRY_PAUSE_S)
            self._look_again()

    def _look_again(self) -> None:
        """Before the next answer: whether the stream is still the one that it was."""
        try:
            stream = self._api.ask(f"/streams/{self._wanted.stream}")
        except ApiFailed:
            return  # it is not back yet; the next answer will say so
        check_epoch(self._wanted.stream, self.position, stream["epoch"])
        self._count_lost(stream)

    def _answer(self, form: RecordText) -> Iterator[Piece]:
        """One answer, from the position on.

        Raises: ApiFailed, OSError, HTTPException
        """
        with self._records(form.name) as response:
            rest = b""
            head_left = len(form.head)
            while data := response.read1(READ_BYTES):
                rest += data
                if head_left:
                    if len(rest) < head_left:
                        continue
                    rest, head_left = rest[head_left:], 0
                end = form.whole_bytes(rest)
                if end:
                    whole, rest = rest[:end], rest[end:]
                    self._advance(form, whole)
                    yield Piece(whole, form.count(whole), self.position)
            if rest:
                raise http.client.IncompleteRead(rest)

    def _records(self, form: str) -> AbstractContextManager[http.client.HTTPResponse]:
        """The rest of the range, from the server."""
        wanted = self._wanted
        query = [("format", form), ("cursor", str(Cursor({wanted.stream: self.position}))), *self._range()]
        query += [("topic", topic_filter) for topic_filter in wanted.filters]
        return self._api.stream(f"/streams/{wanted.stream}/records", query)

    def _advance(self, form: RecordText, data: bytes) -> None:
        """Move the position behind the records of `data`."""
        if len(self.position.offset_by_partition) == 1:
            self.position = behind(self.position, form.place(form.last(data)))
            return
        last = {(place.epoch, place.partition): place for place in map(form.place, form.records(data))}
        for place in last.values():
            self.position = behind(self.position, place)

    def parquet(self) -> Iterator[Piece]:
        """It comes whole or not at all: where one broke off, another does not go on."""
        try:
            with self._records("parquet") as response:
                while data := response.read1(READ_BYTES):
                    yield Piece(data, 0, self.position)
        except (ApiFailed, OSError, http.client.HTTPException) as error:
            if isinstance(error, ApiFailed):
                raise ReplayFailed(_with_next_step(error)) from error
            raise ReplayFailed(
                f"{self._api.url} broke off: {reason(error)}. Begin again, or use --format ndjson or csv: they go on."
            ) from error

    def messages(self) -> Iterator[Message]:
        for piece in self.text(CSV):
            for record in CSV.records(piece.data):
                yield message_of(csv_fields(record))

    def close(self) -> None:
        """Each request has closed its own connection."""


def message_of(fields: list[str]) -> Message:
    """The record of a CSV row: unlike JSON it has every payload byte for byte."""
    time_text, topic, payload, encoding, qos, retain, _, _, epoch, partition, offset, properties = fields
    return Message(
        topic,
        b64decode(payload) if encoding == "base64" else payload.encode(),
        int(qos),
        retain == "true",
        epoch_ms(time_text.encode()),
        Place(epoch, int(partition), int(offset)),
        json.loads(properties) if properties else {},
    )


def _with_next_step(error: ApiFailed) -> str:
    if error.status:
        return str(error)
    return f"{error} Is it running (headrace serve)? Another address: --url http://HOST:PORT"
