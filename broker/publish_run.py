"""PublishRun: the unit that travels from a read to routing, log and live readers.

A run is a row of PUBLISH frames, back to back in one `bytes`, with columns beside it. It costs a few list appends a
publish; an object for each publish would cost more than the rest of the decoding (see docs/adr/0003).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.codec.decode import PublishColumns, decode_publishes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.routing import Route, Router
    from broker.sink import Origin


class PublishRun:
    """Consecutive publishes of one connection whose topics all belong to one stream (or to none).

    Row `i` is the frame `data[start_of(i):ends[i]]`, where `start_of(0) == start` and `start_of(i) == ends[i - 1]`;
    its payload is `data[payload_starts[i]:ends[i]]`. Frames are canonical records: topic alias resolved and removed,
    DUP cleared, RETAIN as the publisher set it. The packet id in a QoS 1/2 frame is whatever the device sent and
    means nothing to readers. In a run with `is_v5` each frame has MQTT 5 properties.

    `data` is shared and immutable: slices of it may be kept, but keep it alive no longer than needed.
    """

    __slots__ = (
        "base_offset",
        "client_id",
        "data",
        "ends",
        "expires_at_ms",
        "first_number",
        "floor",
        "is_done",
        "is_plain",
        "is_v5",
        "keeps_packet_ids",
        "log_id",
        "number",
        "origin",
        "packet_ids",
        "partition",
        "payload_starts",
        "qos",
        "reason_code",
        "received_at_ms",
        "reliable",
        "retain",
        "routes",
        "start",
        "stream",
        "unmatched",
        "waits_for_store",
    )

    def __init__(
        self,
        data: bytes,
        start: int,
        routes: list[Route],
        payload_starts: list[int],
        ends: list[int],
        packet_ids: list[int],
        *,
        is_v5: bool,
        client_id: str,
        received_at_ms: int,
        origin: Origin | None = None,
        reliable: int = 0,
        qos: int = 1,
        retain: bool = False,
        is_plain: bool = True,
    ) -> None:
        self.data = data
        self.start = start
        self.routes = routes
        self.payload_starts = payload_starts
        self.ends = ends
        self.packet_ids = packet_ids
        """One for each row; 0 for a row of QoS 0. An empty list: every row is of QoS 0."""
        self.is_v5 = is_v5
        self.client_id = client_id
        self.received_at_ms = received_at_ms
        """Epoch milliseconds; a log may raise it, so that time never falls within a stream."""
        self.origin = origin
        self.reliable = reliable
        """How many rows are of QoS 1 or 2."""
        self.qos = qos
        """The highest QoS among the rows; 2 means that every row has QoS 2."""
        self.retain = retain
        """True: every row has RETAIN set; False: none has."""
        self.is_plain = is_plain
        """True: no row has properties."""
        self.keeps_packet_ids = False
        """QoS 2 of a kept session: the packet ids commit in one transaction with the records."""
        self.expires_at_ms = 0
        """Not 0: the run is one row with a message expiry interval that ends then. [MQTT-3.3.2-5]"""
        self.is_done = False
        """The acknowledgements of this run may leave (they still wait for those before them)."""
        self.reason_code = 0
        """What they say; not 0: refused."""
        self.unmatched: list[tuple[int, int]] | None = None
        """(First row, row after the last) of what nobody subscribes to, in runs with `is_v5`: their PUBACKs say so."""
        self.stream = routes[0].stream
        """`SinkTopic.stream` of the rows, None when no stream takes them."""
        self.number = 0
        """Rows are numbered in the order in which they are taken, this is the first one's; only with a store."""
        self.floor = 0
        """Not 0: rows that were picked from a run with this number, which have numbers of their own. What is given to a
        session after them may have a lower number than they have, but none lower than this."""
        self.log_id = 0
        """Not 0: the run was read back from this log (`broker.store.Store.log_id`); -1: from a copy."""
        self.waits_for_store = False
        """A session's copy of it is on its way to the store: it is acknowledged after that."""
        # Filled in by the log that takes the run.
        self.base_offset = -1
        self.partition = 0
        self.first_number = 0

    def __len__(self) -> int:
        return len(self.routes)

    def frames(self) -> bytes:
        """All frames of the run, back to back."""
        start, end = self.start, self.ends[-1]
        data = self.data
        return data if start == 0 and end == len(data) else data[start:end]

    def frame_start(self, row: int) -> int:
        """Index into `data` of the first byte of `row`'s frame."""
        return self.ends[row - 1] if row else self.start


def read_run(
    data: bytes,
    start: int,
    router: Router,
    packet_bytes_max: int,
    *,
    is_v5: bool,
    client_id: str,
    received_at_ms: int,
    origin: Origin,
    qos: int = 1,
    retain: bool = False,
) -> PublishRun | None:
    """The publishes from `start` on that can be taken together (`decode_publishes`); None when the first cannot.

    `qos` is what the reliable ones have; with 2 all have it.
    """
    columns = PublishColumns()
    reliable_byte = 0x30 | qos << 1 | retain
    reached = decode_publishes(
        data, start, router.routes, router.open_route, is_v5, columns, packet_bytes_max, reliable_byte
    )
    if reached == start:
        return None
    packet_ids = columns.packet_ids
    reliable = len(packet_ids) - packet_ids.count(0)
    return PublishRun(
        data,
        start,
        columns.routes,
        columns.payload_starts,
        columns.ends,
        packet_ids if reliable else [],
        is_v5=is_v5,
        client_id=client_id,
        received_at_ms=received_at_ms,
        origin=origin,
        reliable=reliable,
        qos=qos if reliable else 0,
        retain=retain,
    )


def part(run: PublishRun, row: int, end_row: int) -> PublishRun:
    """Rows `row` to `end_row - 1` of a run that no log has, as a run of their own; the frames are not copied."""
    packet_ids = run.packet_ids[row:end_row]
    reliable = len(packet_ids) - packet_ids.count(0)
    rows = PublishRun(
        run.data,
        run.frame_start(row),
        run.routes[row:end_row],
        run.payload_starts[row:end_row],
        run.ends[row:end_row],
        packet_ids if reliable else [],
        is_v5=run.is_v5,
        client_id=run.client_id,
        received_at_ms=run.received_at_ms,
        origin=run.origin,
        reliable=reliable,
        qos=run.qos if reliable else 0,
        retain=run.retain,
        is_plain=run.is_plain,
    )
    rows.expires_at_ms = run.expires_at_ms
    return rows


def pick(run: PublishRun, rows: Sequence[int], floor: int) -> PublishRun:
    """Some rows of a run as a run of their own, with a copy of their frames.

    No log knows it, so it has no stream, and its rows are numbered anew: what is kept of it is kept as bytes.
    """
    data, ends, payload_starts = run.data, run.ends, run.payload_starts
    frames: list[bytes] = []
    picked_starts: list[int] = []
    picked_ends: list[int] = []
    position = 0
    for row in rows:
        start = ends[row - 1] if row else run.start
        end = ends[row]
        frames.append(data[start:end])
        picked_starts.append(position + payload_starts[row] - start)
        position += end - start
        picked_ends.append(position)
    packet_ids = run.packet_ids
    picked_ids = [packet_ids[row] for row in rows] if packet_ids else []
    picked = PublishRun(
        b"".join(frames),
        0,
        [run.routes[row] for row in rows],
        picked_starts,
        picked_ends,
        picked_ids,
        is_v5=run.is_v5,
        client_id=run.client_id,
        received_at_ms=run.received_at_ms,
        reliable=len(picked_ids) - picked_ids.count(0),
        qos=run.qos,
        retain=run.retain,
        is_plain=run.is_plain,
    )
    picked.expires_at_ms = run.expires_at_ms
    picked.stream = None
    picked.floor = floor
    return picked


def rows_bytes(run: PublishRun, row: int, end_row: int) -> int:
    """Bytes of the rows' frames."""
    return run.ends[end_row - 1] - run.frame_start(row) if end_row > row else 0


def compact(run: PublishRun, row: int, end_row: int) -> tuple[PublishRun, int, int]:
    """The rows as (run, row, end_row) that may be kept: a copy when the run's read is much larger than they are.

    Without it a message that waits for a client would keep a whole read, up to 256 KiB, in memory.
    """
    start = run.frame_start(row)
    end = run.ends[end_row - 1]
    if 8 * (end - start) + 1024 >= len(run.data):
        return run, row, end_row
    copy = PublishRun(
        run.data[start:end],
        0,
        run.routes[row:end_row],
        [position - start for position in run.payload_starts[row:end_row]],
        [position - start for position in run.ends[row:end_row]],
        run.packet_ids[row:end_row],
        is_v5=run.is_v5,
        client_id=run.client_id,
        received_at_ms=run.received_at_ms,
        reliable=run.reliable and end_row - row,
        qos=run.qos,
        retain=run.retain,
        is_plain=run.is_plain,
    )
    copy.expires_at_ms = run.expires_at_ms
    copy.stream = run.stream
    copy.number = run.number + row
    copy.floor = run.floor
    copy.log_id = run.log_id
    if run.base_offset >= 0:
        copy.base_offset = run.base_offset + row
    return copy, 0, end_row - row
