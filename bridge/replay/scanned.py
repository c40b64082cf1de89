"""ScannedSource: what sources have in common that read records themselves, scan by scan."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from bridge.cursors import StreamPosition
from bridge.encoding import decode_stored, read_properties
from bridge.history.columns import Columns
from bridge.history.parquet import ParquetFile
from bridge.history.scan import Encoding, ScanResult, StreamScanResult
from bridge.records import Topic
from bridge.replay.source import Message, Piece
from bridge.replay.text_records import Place, RecordText
from bridge.streams.frames import decode_body

PIECE_BYTES = 1024 * 1024
PIECE_RECORDS = 20_000
TOPICS_MAX = 200_000
"""`Topic` objects kept for decoding; beyond it they are made anew."""


class ScannedSource(ABC):
    """The part of `bridge.replay.source.Source` that is made of scans."""

    position: StreamPosition

    def __init__(self) -> None:
        self._topics: dict[bytes, Topic] = {}

    @abstractmethod
    def _scan(self, encoding: Encoding) -> Iterator[ScanResult | StreamScanResult]:
        """Bounded pieces of the range; the position is behind a piece when it is given out. Raises: ReplayFailed"""

    def text(self, form: RecordText) -> Iterator[Piece]:
        """See `Source`."""
        for result in self._scan(form.encoding):
            yield Piece(result.data, result.count, self.position)

    def parquet(self) -> Iterator[Piece]:
        """See `Source`."""
        file = ParquetFile()
        for result in self._scan("columns"):
            yield Piece(file.add(Columns.from_bytes(result.data)), result.count, self.position)
        yield Piece(file.finish(), 0, self.position)

    def messages(self) -> Iterator[Message]:
        """See `Source`."""
        for result in self._scan("stored"):
            if len(self._topics) > TOPICS_MAX:
                self._topics.clear()
            for partition, offset, segment in decode_stored(result.data):
                yield self._message(segment, Place(self.position.epoch, partition, offset))

    def _message(self, segment: bytes, place: Place) -> Message:
        (run,) = decode_body(segment, place.offset, self._topics)
        first_byte = run.data[run.start]
        return Message(
            run.topics[0].name,
            run.data[run.payload_starts[0] : run.ends[0]],
            first_byte >> 1 & 3,
            bool(first_byte & 1),
            run.received_at_ms,
            place,
            read_properties(run.data, run.start) if run.is_v5 else {},
        )
