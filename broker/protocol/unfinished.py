"""A packet of which a part has come."""

from __future__ import annotations

PARTS_MAX = 64
"""Reads of an unfinished packet kept apart; a peer that sends byte by byte must not cost an object for each."""


class Unfinished:
    """A packet that has come in part; a large one is joined only when all of it is there."""

    __slots__ = ("needed_bytes", "parts", "size")

    def __init__(self, data: bytes) -> None:
        self.parts = [data]
        self.size = len(data)
        self.needed_bytes = frame_bytes(data)

    def add(self, data: bytes) -> bool:
        """Take one more read; returns whether the packet may be whole now."""
        self.parts.append(data)
        self.size += len(data)
        if self.size >= self.needed_bytes:
            return True
        if len(self.parts) >= PARTS_MAX:
            self.parts = [b"".join(self.parts)]
        return False


def frame_bytes(tail: bytes) -> int:
    """Bytes of the whole frame that begins with `tail`; one more than it has while its length is not complete."""
    remaining = 0
    for index in range(1, min(5, len(tail))):
        byte = tail[index]
        remaining |= (byte & 0x7F) << 7 * (index - 1)
        if not byte & 0x80:
            return index + 1 + remaining
    return len(tail) + 1
