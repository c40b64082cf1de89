"""DirectorySource: a stream's range out of a data directory, also while a server writes to it.

It holds no lock and reads in short transactions (`bridge.history.stream_reader`), so that the server's WAL stays
short.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from bridge.cursors import Offsets, StreamPosition
from bridge.history.scan import Encoding, Scan, ScanResult
from bridge.history.stream_reader import StreamReader
from bridge.replay.scanned import PIECE_BYTES, PIECE_RECORDS, ScannedSource
from bridge.replay.source import ReplayFailed, Wanted, check_epoch
from bridge.streams.kafka.spool_tables import SPOOL_PREFIX
from bridge.streams.log import StreamLogError
from bridge.streams.sqlite_schema import FILE_NAME
from bridge.streams.stored_streams import StoredStream, open_stored, stored_streams


class DirectorySource(ScannedSource):
    """See `bridge.replay.source.Source`."""

    def __init__(self, data_dir: Path) -> None:
        """Raises: ReplayFailed"""
        super().__init__()
        self.position: StreamPosition
        self.end: Offsets = {0: 0}
        self.lost = 0
        self._data_dir = data_dir
        self._wanted: Wanted
        self._stream: StoredStream
        try:
            self._connection = open_stored(data_dir)
        except StreamLogError as error:
            raise ReplayFailed(
                f"{error}. Another directory: --data DIR; a server elsewhere: --url http://HOST:8000"
            ) from error
        self._reader = StreamReader(data_dir / FILE_NAME)

    def begin(self, wanted: Wanted, position: StreamPosition | None) -> None:
        self._wanted = wanted
        self._stream = stream = self._find(wanted.stream)
        try:
            from_ms = wanted.from_ms
            start = stream.first_offset if from_ms is None else self._reader.offset_at(stream.stream_id, from_ms)
            end = self._reader.offset_at(stream.stream_id, wanted.to_ms)
        except (sqlite3.Error, StreamLogError) as error:
            raise self._unreadable(error) from error
        if position is not None:
            check_epoch(stream.name, position, stream.epoch)
            start = position.offset_by_partition.get(0, start)
            self.lost += max(0, min(stream.first_offset, end) - start)
            start = max(start, stream.first_offset)
        self.end = {0: max(start, end)}
        self.position = StreamPosition(stream.epoch, {0: start})

    def _find(self, name: str) -> StoredStream:
        by_name = {stream.name: stream for stream in stored_streams(self._connection)}
        if name in by_name:
            return by_name[name]
        if SPOOL_PREFIX + name in by_name:
            raise ReplayFailed(
                f"stream {name} is on Kafka, and not in {self._data_dir}. Give the configuration that says where: "
                "-c FILE; or ask the server: --url http://HOST:8000"
            )
        known = ", ".join(stream.name for stream in by_name.values() if not stream.is_spool)
        raise ReplayFailed(
            f'there is no stream "{name}" in {self._data_dir}; there are {known or "none"}. '
            "Memory streams are in the server alone: --url http://HOST:8000"
        )

    def _scan(self, encoding: Encoding) -> Iterator[ScanResult]:
        wanted, stream = self._wanted, self._stream
        end = self.end[0]
        offset = self.position.offset_by_partition[0]
        while offset < end:
            request = Scan(
                stream.name,
                stream.epoch,
                wanted.filters,
                offset,
                end,
                encoding,
                records_max=PIECE_RECORDS,
                bytes_max=PIECE_BYTES,
            )
            result = self._answer(request)
            if not result.is_epoch_current:
                raise ReplayFailed(f"stream {stream.name} was begun anew while it was read. Begin again.")
            self.lost += max(0, min(result.first_offset, end) - offset)
            offset = max(result.next_offset, min(result.first_offset, end))
            self.position = StreamPosition(stream.epoch, {0: offset})
            yield result

    def _answer(self, request: Scan) -> ScanResult:
        work = self._reader.scan(self._stream.stream_id, request)
        try:
            while True:
                next(work)
        except StopIteration as answered:
            result: ScanResult = answered.value
            return result
        except (sqlite3.Error, StreamLogError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> ReplayFailed:
        return ReplayFailed(f"{self._data_dir / FILE_NAME} cannot be read: {error}.")

    def close(self) -> None:
        self._reader.close()
        self._connection.close()
