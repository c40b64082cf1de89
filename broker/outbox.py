"""Outbox: bytes that wait for one connection, written once a turn.

Invariants: an outbox is in `touched` exactly while `is_touched`; while `is_blocked` (the transport is full) nothing
is written and chunks gather, bounded by those who deliver (QoS 0 is dropped, QoS 1 and 2 stay in the session).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


TRANSPORT_ERRORS = (OSError, RuntimeError)
"""What uvloop and asyncio raise when a transport closed under us."""


class Transport(Protocol):
    """What the broker needs of a connection's transport; asyncio's and picows' have it."""

    def write(self, data: bytes) -> None:
        """Send `data`; buffers without limit."""

    def close(self) -> None:
        """Close after what is buffered has left."""

    def abort(self) -> None:
        """Close at once."""

    def pause_reading(self) -> None:
        """Stop `data_received`."""

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""


class Waiting(Protocol):
    """Who found an outbox too full."""

    def send_queued(self, now_ms: int) -> None:
        """There is room again."""


class Outbox:
    """Chunks for one connection."""

    __slots__ = (
        "_touched",
        "bytes_out",
        "chunks",
        "closes_after_flush",
        "is_blocked",
        "is_touched",
        "messages_out",
        "pending_bytes",
        "transport",
        "waiting",
    )

    def __init__(self, transport: Transport, touched: list[Outbox]) -> None:
        self.transport: Transport | None = transport
        self._touched = touched
        self.chunks: list[bytes] | None = None
        """None while nothing waits: most connections say nothing most of the time."""
        self.pending_bytes = 0
        self.bytes_out = 0
        self.messages_out = 0
        """Publishes; counted by who delivers them."""
        self.is_touched = False
        self.is_blocked = False
        self.closes_after_flush = False
        self.waiting: Waiting | None = None
        """Who has more to send once there is room."""

    def append(self, chunk: bytes) -> None:
        """Send `chunk` (one or many packets) with the next flush."""
        chunks = self.chunks
        if chunks is None:
            self.chunks = [chunk]
        else:
            chunks.append(chunk)
        self.pending_bytes += len(chunk)
        if not self.is_touched:
            self.is_touched = True
            self._touched.append(self)

    def write_now(self) -> int:
        """Write what waits without waiting for the turn's end; returns the bytes written."""
        transport = self.transport
        if transport is None or self.is_blocked or not self.chunks:
            return 0
        try:
            return self.write_to(transport)
        except TRANSPORT_ERRORS:
            self.transport = None
            transport.abort()
            return 0

    def write_to(self, transport: Transport) -> int:
        """Write the chunks that are there; returns their bytes. Raises: TRANSPORT_ERRORS"""
        chunks = self.chunks
        assert chunks is not None
        data = b"".join(chunks) if len(chunks) > 1 else chunks[0]
        self.chunks = None
        self.pending_bytes = 0
        self.bytes_out += len(data)
        transport.write(data)
        return len(data)

    def forget(self) -> int:
        """Drop what waits, since nobody will be written to; returns how many publishes of QoS 0 are lost by that."""
        chunks, self.chunks = self.chunks, None
        self.pending_bytes = 0
        return count_qos0(chunks) if chunks is not None else 0

    def touch(self) -> None:
        """Have the next flush look at this outbox, though nothing may be new in it."""
        if not self.is_touched:
            self.is_touched = True
            self._touched.append(self)

    def close(self) -> None:
        """Close the transport once what waits has been handed to it."""
        self.closes_after_flush = True
        self.touch()


def count_qos0(chunks: Sequence[bytes]) -> int:
    """How many PUBLISHes of QoS 0 there are in chunks of whole packets."""
    count = 0
    for chunk in chunks:
        position, size = 0, len(chunk)
        while position < size:
            if chunk[position] & 0xF6 == 0x30:
                count += 1
            length = chunk[position + 1]
            position += 2
            if length > 127:
                length &= 0x7F
                shift = 7
                while True:
                    byte = chunk[position]
                    position += 1
                    length |= (byte & 0x7F) << shift
                    if byte < 128:
                        break
                    shift += 7
            position += length
    return count


def flush(touched: list[Outbox], now_ms: int) -> int:
    """Write each touched outbox once and empty the list; returns the bytes written.

    Who waits for room may send more meanwhile; its outbox then comes once more, at the list's end. One connection's
    failure never reaches another: a transport that raises is cut and forgotten.
    """
    written = 0
    for outbox in touched:
        outbox.is_touched = False
        transport = outbox.transport
        if transport is None:
            outbox.forget()
            continue
        if outbox.is_blocked and not outbox.closes_after_flush:
            continue
        try:
            if outbox.chunks is not None:
                written += outbox.write_to(transport)
            waiting = outbox.waiting
            if waiting is not None and not outbox.is_blocked:
                outbox.waiting = None
                waiting.send_queued(now_ms)
            if outbox.closes_after_flush:
                transport.close()
        except TRANSPORT_ERRORS:
            outbox.transport = None
            transport.abort()
    touched.clear()
    return written
