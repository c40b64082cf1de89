"""Which rows hold which topics: the two stored forms of a set of topic ids.

A row of the log has its ids as sorted 32-bit numbers, in a column before the body. A sealed chunk of rows has the
union of them as a bitset that begins at its lowest id, so that topics used once do not make later sets longer.
Bytes are little-endian on every machine.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable

_IS_BIG_ENDIAN = sys.byteorder == "big"
_BASE_BYTES = 4


def encode_ids(ids: Iterable[int]) -> bytes:
    """The ids of one row."""
    column = array("I", sorted(ids))
    if _IS_BIG_ENDIAN:
        column.byteswap()
    return column.tobytes()


def decode_ids(column: bytes) -> array[int]:
    """What `encode_ids` made."""
    ids = array("I", column)
    if _IS_BIG_ENDIAN:
        ids.byteswap()
    return ids


def bits_of(ids: Iterable[int]) -> int:
    """A set of ids as a number in which bit `id` is set."""
    members = list(ids)
    if not members:
        return 0
    bits = bytearray(max(members) // 8 + 1)
    for member in members:
        bits[member >> 3] |= 1 << (member & 7)
    return int.from_bytes(bits, "little")


def encode_chunk(ids: Iterable[int]) -> bytes:
    """The ids of a chunk: the first byte's number in the whole bitset, then the bitset from there."""
    members = list(ids)
    base = min(members, default=0) >> 3
    bits = bits_of(member - base * 8 for member in members)
    return base.to_bytes(_BASE_BYTES, "little") + bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def chunk_bits(column: bytes) -> tuple[int, int]:
    """What `encode_chunk` made, as (bits, shift): the whole set is `bits << shift`."""
    return int.from_bytes(column[_BASE_BYTES:], "little"), int.from_bytes(column[:_BASE_BYTES], "little") * 8
