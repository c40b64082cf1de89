"""Which rows hold which topics, and how often: the stored forms of sets and counts of topic ids.

A row of the log has a column before its body that says how many of its records each topic has, and by which versions
of MQTT they came, so that records are counted, and rows passed over, without reading a body. Few topics are a list of
ids; many are bit planes: plane `k` is the bitset of the topics whose count has bit `k`. A set of topics is then counted
with a few operations on long integers. A sealed chunk of rows has the union of their topics as one bitset. Bitsets
begin at their lowest id, so that topics used once do not make later ones longer. Bytes are little-endian everywhere.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping
from itertools import compress, count
from struct import Struct

_IS_BIG_ENDIAN = sys.byteorder == "big"
_BASE_BYTES = 4

HAS_V3 = 0x01
"""Some record of the row came by MQTT 3.1 or 3.1.1."""
HAS_V5 = 0x02

# No id is 0, so a column that begins with it is no plain list, which is what format 1 had: ids without counts.
_HEAD = Struct("<IBBH")  # 0, kind, versions, number of planes
_IDS_ONCE, _IDS_WITH_COUNTS, _PLANES = 1, 2, 3
_PLANE = Struct("<IH")  # first byte in the whole bitset, number of bytes
_PLANE_BYTES_MAX = 0xFFFF
_FEW_IDS = 4
"""So few topics are looked for bit by bit."""

_BIT_TABLES = tuple(bytes(48 + (value >> bit & 1) for value in range(256)) for bit in range(8))
_ONES = bytes([0] * 49 + [1] + [0] * 206)


def _encode_numbers(numbers: Iterable[int]) -> bytes:
    column = array("I", numbers)
    if _IS_BIG_ENDIAN:
        column.byteswap()
    return column.tobytes()


def _decode_numbers(column: bytes) -> array[int]:
    numbers = array("I", column)
    if _IS_BIG_ENDIAN:
        numbers.byteswap()
    return numbers


def encode_row(count_by_id: Mapping[int, int], versions: int) -> bytes:
    """The column of one row: how often it has each topic, and by which versions of MQTT."""
    most = max(count_by_id.values())
    is_once = most == 1
    lowest, highest = min(count_by_id), max(count_by_id)
    list_bytes = len(count_by_id) * (4 if is_once else 8)
    plane_bytes = (highest >> 3) - (lowest >> 3) + 1
    # The first plane is the longest; the others are often all but empty.
    if _PLANE.size + plane_bytes <= list_bytes and plane_bytes <= _PLANE_BYTES_MAX:
        planes = _planes(count_by_id, lowest >> 3, plane_bytes, most.bit_length())
        head = _HEAD.pack(0, _PLANES, versions, len(planes))
        return b"".join([head, *[place for place, _ in planes], *[plane for _, plane in planes]])
    ids = sorted(count_by_id)
    if is_once:
        return _HEAD.pack(0, _IDS_ONCE, versions, 0) + _encode_numbers(ids)
    counts = [count_by_id[topic_id] for topic_id in ids]
    return _HEAD.pack(0, _IDS_WITH_COUNTS, versions, 0) + _encode_numbers(ids) + _encode_numbers(counts)


def _planes(count_by_id: Mapping[int, int], base: int, plane_bytes: int, planes: int) -> list[tuple[bytes, bytes]]:
    """The planes, each with its place. One byte for each id holds (eight bits of) its count; they make eight planes."""
    found: list[tuple[bytes, bytes]] = []
    first_id = base * 8
    for shift in range(0, planes, 8):
        counts = bytearray(plane_bytes * 8)
        if planes <= 8:
            for topic_id, number in count_by_id.items():
                counts[topic_id - first_id] = number
        else:
            for topic_id, number in count_by_id.items():
                counts[topic_id - first_id] = number >> shift & 0xFF
        counts.reverse()
        for table in _BIT_TABLES[: planes - shift]:
            bits = int(counts.translate(table), 2)
            skipped = ((bits & -bits).bit_length() - 1) >> 3 if bits else 0
            bits >>= skipped * 8
            plane = bits.to_bytes((bits.bit_length() + 7) >> 3, "little")
            found.append((_PLANE.pack(base + skipped, len(plane)), plane))
    return found


class RowTopics:
    """The column of one row, read."""

    __slots__ = ("_column", "_counts", "_ids", "_places", "is_counted", "versions")

    def __init__(self, column: bytes, records: int) -> None:
        """`records` is how many records the row has."""
        self._column = column
        self._ids: array[int] | None = None
        self._counts: array[int] | None = None
        self._places: list[tuple[int, int, int]] = []
        """Of each plane: its first byte in the whole bitset, and start and end in the column."""
        self.versions = HAS_V3 | HAS_V5
        """As far as is known."""
        self.is_counted = True
        """False: which topics the row has is known, but not how often (format 1)."""
        if column[:4] != b"\0\0\0\0":
            self._ids = ids = _decode_numbers(column)
            if len(ids) == 1:
                self._counts = array("I", [records])
            else:
                self.is_counted = len(ids) == records
            return
        _, kind, self.versions, planes = _HEAD.unpack_from(column)
        start = _HEAD.size
        if kind == _PLANES:
            end = start + planes * _PLANE.size
            for base, size in _PLANE.iter_unpack(column[start:end]):
                self._places.append((base, end, end + size))
                end += size
        elif kind == _IDS_WITH_COUNTS:
            middle = (start + len(column)) // 2
            self._ids = _decode_numbers(column[start:middle])
            self._counts = _decode_numbers(column[middle:])
        else:
            self._ids = _decode_numbers(column[start:])

    @property
    def bits(self) -> int:
        """The row's topics as a number in which bit `id` is set."""
        if self._ids is not None:
            return bits_of(self._ids)
        bits = 0
        for plane, shift in self._planes():
            bits |= plane << shift
        return bits

    def has_any(self, ids: set[int], bits: int) -> bool:
        """It has a topic of a set, which is given in both its forms."""
        if self._ids is not None:
            return not ids.isdisjoint(self._ids)
        if len(ids) <= _FEW_IDS:
            return any([self._count_one(topic_id) for topic_id in ids])
        return any(bits >> shift & plane for plane, shift in self._planes())

    def count(self, ids: set[int], bits: int) -> int | None:
        """How many records have a topic of a set, which is given in both its forms; None when that is not known."""
        if self._ids is None:
            if len(ids) <= _FEW_IDS:
                return sum([self._count_one(topic_id) for topic_id in ids])
            column, read = self._column, int.from_bytes
            total = 0
            for k, (base, start, end) in enumerate(self._places):
                total += (bits >> base * 8 & read(column[start:end], "little")).bit_count() << k
            return total
        if self._counts is not None:
            return sum(compress(self._counts, map(ids.__contains__, self._ids)))
        found = len(ids.intersection(self._ids))
        return found if self.is_counted or not found else None

    def count_by_id(self) -> dict[int, int]:
        """How often the row has each topic; 1 for each when it is not counted."""
        if self._ids is not None:
            return dict(zip(self._ids, self._counts or [1] * len(self._ids), strict=True))
        found: dict[int, int] = {}
        for k, (plane, shift) in enumerate(self._planes()):
            for topic_id in ids_of(plane, shift):
                found[topic_id] = found.get(topic_id, 0) + (1 << k)
        return found

    def _planes(self) -> Iterator[tuple[int, int]]:
        """Each plane, lowest first, as (bits, shift)."""
        column = self._column
        for base, start, end in self._places:
            yield int.from_bytes(column[start:end], "little"), base * 8

    def _count_one(self, topic_id: int) -> int:
        byte, bit = topic_id >> 3, topic_id & 7
        column = self._column
        count = 0
        for k, (base, start, end) in enumerate(self._places):
            place = start + byte - base
            if start <= place < end and column[place] >> bit & 1:
                count += 1 << k
        return count


def merge_rows(rows: Iterable[tuple[bytes, int]]) -> bytes:
    """The column of the row that some rows, each a column with its number of records, are merged into."""
    counts: dict[int, int] = {}
    versions = 0
    is_counted = True
    for column, records in rows:
        row = RowTopics(column, records)
        versions |= row.versions
        is_counted = is_counted and row.is_counted
        for topic_id, number in row.count_by_id().items():
            counts[topic_id] = counts.get(topic_id, 0) + number
    return encode_row(counts, versions) if is_counted else _encode_numbers(sorted(counts))


def bits_of(ids: Iterable[int]) -> int:
    """A set of ids as a number in which bit `id` is set."""
    members = list(ids)
    if not members:
        return 0
    bits = bytearray(max(members) // 8 + 1)
    for member in members:
        bits[member >> 3] |= 1 << (member & 7)
    return int.from_bytes(bits, "little")


def ids_of(bits: int, shift: int = 0) -> Iterable[int]:
    """The ids of a set `bits << shift`, in order."""
    digits = format(bits, "b").encode()[::-1]
    return compress(count(shift), digits.translate(_ONES))


def encode_chunk(bits: int) -> bytes:
    """The column of a chunk of rows with these topics: the first byte's number in the bitset, the bitset from there."""
    base = ((bits & -bits).bit_length() - 1) >> 3 if bits else 0
    rest = bits >> base * 8
    return base.to_bytes(_BASE_BYTES, "little") + rest.to_bytes((rest.bit_length() + 7) // 8, "little")


def chunk_bits(column: bytes) -> tuple[int, int]:
    """What `encode_chunk` made, as (bits, shift): the whole set is `bits << shift`."""
    return int.from_bytes(column[_BASE_BYTES:], "little"), int.from_bytes(column[:_BASE_BYTES], "little") * 8
