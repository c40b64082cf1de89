"""Records of a batch in which some header's name is not UTF-8, which Kafka stores and aiokafka does not read.

Source: Kafka's `DefaultRecord`.
"""

from __future__ import annotations

from typing import NamedTuple

from aiokafka.errors import CorruptRecordException

from bridge.streams.kafka.batches import read_varint


class OddRecord(NamedTuple):
    """As aiokafka's, without the headers whose names are no text."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def odd_records(data: bytes, position: int, count: int, base_offset: int, times: tuple[int, bool]) -> list[OddRecord]:
    """The records that stand in a batch from `position` on; `times` as `Batch.times`.

    Raises: CorruptRecordException
    """
    records: list[OddRecord] = []
    time_ms, is_fixed = times
    try:
        for _ in range(count):
            length, position = _varint(data, position)
            end = position + length
            delta_ms, position = _varint(data, position + 1)  # behind the attributes
            number, position = _varint(data, position)
            key, position = _bytes(data, position)
            value, position = _bytes(data, position)
            header_count, position = _varint(data, position)
            headers: list[tuple[str, bytes | None]] = []
            for _ in range(header_count):
                name, position = _bytes(data, position)
                content, position = _bytes(data, position)
                try:
                    headers.append(((name or b"").decode(), content))
                except UnicodeDecodeError:
                    continue  # none of ours: nobody asks for it
            if position != end:
                raise CorruptRecordException(f"a record of {length} bytes ends {position - end} bytes beyond its end")
            at_ms = time_ms if is_fixed else time_ms + delta_ms
            records.append(OddRecord(base_offset + number, at_ms, key, value, headers))
    except IndexError as error:
        raise CorruptRecordException("a record ends beyond its batch") from error
    return records


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A signed number, and where it ends. Raises: IndexError"""
    value, position = read_varint(data, position)
    return value >> 1 ^ -(value & 1), position


def _bytes(data: bytes, position: int) -> tuple[bytes | None, int]:
    """A length and so many bytes. Raises: IndexError"""
    size, position = _varint(data, position)
    if size < 0:
        return None, position
    if position + size > len(data):
        raise IndexError
    return data[position : position + size], position + size
