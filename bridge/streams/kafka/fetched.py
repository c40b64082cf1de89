"""What a fetch from Kafka gave, taken apart into its batches. Records are aiokafka's, made when they are asked for.

`Decoder` reads most batches by itself, straight from their bytes. Source: Kafka's `DefaultRecordBatch`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords

from bridge.streams.kafka.batches import HEAD, LENGTH_END, MAGIC

COMPRESSION_BITS = 0x07
APPEND_TIME_BIT = 0x08
CONTROL_BIT = 0x20
MAGIC_AT = 16

_DECOMPRESS: dict[int, Callable[[bytes], Any]] = {1: gzip_decode, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode}


class Batch:
    """One batch of records as Kafka keeps it."""

    __slots__ = (
        "_attributes",
        "_data",
        "_end",
        "_start",
        "base_offset",
        "count",
        "next_offset",
        "producer_id",
        "times",
    )

    def __init__(self, data: bytes, start: int, end: int) -> None:
        """Of format 2, the bytes `start <= position < end` of `data`. Raises: CorruptRecordException"""
        if end - start < HEAD.size:
            raise CorruptRecordException(f"a batch of {end - start} bytes")
        self.base_offset, _, _, _, _, attributes, last_delta, first_ms, last_ms, producer_id, _, _, self.count = (
            HEAD.unpack_from(data, start)
        )
        self.next_offset: int = self.base_offset + last_delta + 1
        self.producer_id: int = -1 if attributes & CONTROL_BIT else producer_id
        self.times: tuple[int, bool] = (last_ms, True) if attributes & APPEND_TIME_BIT else (first_ms, False)
        """The time that records say they are so much after; True: it is the broker's, and that of all of them."""
        self._attributes = attributes
        self._data, self._start, self._end = data, start, end

    @property
    def records(self) -> Sequence[Any]:
        """aiokafka's records. Control batches of transactions hold no record of anyone.

        Raises: CorruptRecordException
        """
        if self._attributes & CONTROL_BIT:
            return ()
        batch = MemoryRecords(self._data[self._start : self._end]).next_batch()
        return () if batch is None else list(batch)

    def raw(self) -> tuple[bytes, int, int]:
        """The records' bytes, not compressed: `start <= position < end` of some data."""
        if self._attributes & CONTROL_BIT:
            return b"", 0, 0
        start = self._start + HEAD.size
        decompress = _DECOMPRESS.get(self._attributes & COMPRESSION_BITS)
        if decompress is None:
            return self._data, start, self._end
        data = bytes(decompress(self._data[start : self._end]))
        return data, 0, len(data)


class OlderBatch(Batch):
    """Of format 0 or 1, which brokers before 4.0 may still have; read by aiokafka alone."""

    __slots__ = ("_records",)

    def __init__(self, data: bytes) -> None:
        batch = MemoryRecords(data).next_batch()
        self._records = [] if batch is None else list(batch)
        self.count = len(self._records)
        self.base_offset = self._records[0].offset if self._records else 0
        self.next_offset = self._records[-1].offset + 1 if self._records else 0
        self.producer_id = -1
        self.times = (0, False)

    @property
    def records(self) -> Sequence[Any]:
        return self._records

    def raw(self) -> tuple[bytes, int, int]:
        return b"", 0, 0


def batches_of(data: bytes) -> Iterator[Batch]:
    """The whole batches in what a fetch gave; the last may have been cut by the fetch's size.

    Raises: CorruptRecordException
    """
    start = 0
    while start + LENGTH_END <= len(data):
        end = start + LENGTH_END + int.from_bytes(data[start + 8 : start + LENGTH_END], "big", signed=True)
        if end > len(data):
            return
        if end <= start + MAGIC_AT:
            raise CorruptRecordException(f"a batch of {end - start} bytes")
        yield Batch(data, start, end) if data[start + MAGIC_AT] >= MAGIC else OlderBatch(data[start:end])
        start = end
