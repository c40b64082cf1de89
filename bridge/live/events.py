"""The SSE wire, without I/O: events that are not messages, heartbeats, and HTTP chunk framing.

Source: WHATWG HTML §9.2 (server-sent events), RFC 9112 §7.1 (chunks).
"""

from __future__ import annotations

from typing import Literal

import orjson

GapReason = Literal["retention", "epoch", "overflow", "unknown"]

COMMENT = b":\n\n"
LAST_CHUNK = b"0\r\n\r\n"


def retry_field(retry_ms: int) -> bytes:
    """How long to wait before connecting again; an event block of its own, which dispatches nothing."""
    return b"retry: %d\n\n" % retry_ms


def position_event(cursor: str) -> bytes:
    """`id:` alone: a browser dispatches nothing and remembers the position."""
    return b"id: %b\n\n" % cursor.encode()


def live_event(cursor: str) -> bytes:
    """History or snapshot is over."""
    return b'event: live\nid: %b\ndata: {"cursor":"%b"}\n\n' % (cursor.encode(), cursor.encode())


def message_event(cursor: str, data: bytes) -> bytes:
    """A record, whose object is `data`."""
    return b"event: message\nid: %b\ndata: %b\n\n" % (cursor.encode(), data)


def end_event(cursor: str) -> bytes:
    """The time at which the reader wanted to stop is reached."""
    return b'event: end\nid: %b\ndata: {"cursor":"%b"}\n\n' % (cursor.encode(), cursor.encode())


def gap_data(from_cursor: str, to_cursor: str, lost: int | None, reason: GapReason) -> dict[str, object]:
    """The `data` of a gap: records between the two cursors are gone."""
    return {"from": from_cursor, "to": to_cursor, "lost": lost, "reason": reason}


def gap_event(from_cursor: str, to_cursor: str, lost: int | None, reason: GapReason) -> bytes:
    """A gap that leaves the reader at `to_cursor`."""
    data = orjson.dumps(gap_data(from_cursor, to_cursor, lost, reason))
    return b"event: gap\nid: %b\ndata: %b\n\n" % (to_cursor.encode(), data)


def chunk(body: bytes) -> bytes:
    """One HTTP/1.1 chunk. `body` is not empty: an empty chunk would end the response."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def last_id(body: bytes) -> str | None:
    """The last `id:` in whole events; payloads hold no raw line break, so a line's start is enough to find it."""
    start = body.rfind(b"\nid: ")
    if start < 0:
        return None
    return body[start + 5 : body.index(b"\n", start + 5)].decode()
