"""What a fetch from Kafka gave, taken apart into its batches. Records are aiokafka's, made when they are asked for.

`Decoder` reads most batches by itself, straight from their bytes. Source: Kafka's `DefaultRecordBatch`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.errors import CorruptRecordException
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.memory_records import MemoryRecords

from bridge.streams.kafka.batches import HEAD, LENGTH_END, MAGIC
from bridge.streams.kafka.odd_records import odd_records

COMPRESSION_BITS = 0x07
APPEND_TIME_BIT = 0x08
TRANSACTION_BIT = 0x10
CONTROL_BIT = 0x20
MAGIC_AT = 16

_DECOMPRESS: dict[int, Callable[[bytes], Any]] = {1: gzip_decode, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode}


class Batch:
    """One batch of records as Kafka keeps it."""

    __slots__ = (
        "_attributes",
        "_data",
        "_end",
        "_is_left_out",
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
        self._is_left_out = bool(attributes & CONTROL_BIT)
        self._data, self._start, self._end = data, start, end

    @property
    def records(self) -> Sequence[Any]:
        """aiokafka's records. Control batches of transactions hold no record of anyone.

        Raises: CorruptRecordException
        """
        return () if self._is_left_out else self._read()

    def is_given_up(self, aborted: set[int]) -> bool:
        """Whether it belongs to one of these producers' transactions."""
        return self.producer_id in aborted and bool(self._attributes & TRANSACTION_BIT)

    def leave_out(self) -> None:
        """Its records count as none."""
        self._is_left_out, self.producer_id = True, -1

    def abort_of(self) -> int | None:
        """The producer whose transaction this marker says was given up; None for any other batch.

        Raises: CorruptRecordException
        """
        if not self._attributes & CONTROL_BIT or ControlRecord.parse(self._read()[0].key) != ABORT_MARKER:
            return None
        producer_id: int = HEAD.unpack_from(self._data, self._start)[9]
        return producer_id

    def _read(self) -> list[Any]:
        batch = MemoryRecords(self._data[self._start : self._end]).next_batch()
        try:
            return [] if batch is None else list(batch)
        except ValueError:  # a header's name that is not UTF-8
            data, position, _ = self.raw()
            return list(odd_records(data, position, self.count, self.base_offset, self.times))

    def raw(self) -> tuple[bytes, int, int]:
        """The records' bytes, not compressed: `start <= position < end` of some data."""
        if self._is_left_out:
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
        self._attributes, self._is_left_out = 0, False

    @property
    def records(self) -> Sequence[Any]:
        return self._records

    def raw(self) -> tuple[bytes, int, int]:
        return b"", 0, 0


def batches_of(data: bytes, aborted: Iterable[tuple[int, int]] = ()) -> Iterator[Batch]:
    """The whole batches in what a fetch gave; the last may have been cut by the fetch's size. Batches of transactions
    that were given up have no records; `aborted` names these by producer and first offset.

    Raises: CorruptRecordException
    """
    begins = deque(sorted(aborted, key=_first_offset))
    given_up: set[int] = set()
    for batch in _batches(data):
        while begins and begins[0][1] < batch.next_offset:
            given_up.add(begins.popleft()[0])
        if given_up:
            if batch.is_given_up(given_up):
                batch.leave_out()
            ended = batch.abort_of()
            if ended is not None:
                given_up.discard(ended)
        yield batch


def _batches(data: bytes) -> Iterator[Batch]:
    start = 0
    while start + LENGTH_END <= len(data):
        end = start + LENGTH_END + int.from_bytes(data[start + 8 : start + LENGTH_END], "big", signed=True)
        if end > len(data):
            return
        if end <= start + MAGIC_AT:
            raise CorruptRecordException(f"a batch of {end - start} bytes")
        yield Batch(data, start, end) if data[start + MAGIC_AT] >= MAGIC else OlderBatch(data[start:end])
        start = end


def _first_offset(transaction: tuple[int, int]) -> int:
    return transaction[1]
