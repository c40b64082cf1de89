"""Runs and copies in pieces: pure functions of the way between a device's read, the partitions and the spool."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bridge.streams.kafka.spool_tables import Copies
from broker.publish_run import PublishRun


def pieces_of(run: PublishRun, rows: Sequence[int]) -> Iterable[tuple[PublishRun, int]]:
    """Some rows of a run as runs of rows that follow one another, each with the first row's number in the run."""
    if len(rows) == len(run):
        yield run, 0
        return
    first = 0
    while first < len(rows):
        last = first
        while last + 1 < len(rows) and rows[last + 1] == rows[last] + 1:
            last += 1
        low, high = rows[first], rows[last] + 1
        piece = PublishRun(
            run.data,
            run.frame_start(low),
            run.routes[low:high],
            run.payload_starts[low:high],
            run.ends[low:high],
            run.packet_ids[low:high],
            is_v5=run.is_v5,
            client_id=run.client_id,
            received_at_ms=run.received_at_ms,
            qos=run.qos,
            retain=run.retain,
            is_plain=run.is_plain,
        )
        piece.first_number = run.first_number + low
        piece.keeps_packet_ids = run.keeps_packet_ids
        yield piece, low
        first = last + 1


def copies_of(found: Iterable[tuple[int, int, int]]) -> list[Copies]:
    """(spool offset, partition, offset) of records, as batches in which both rise."""
    batches: list[Copies] = []
    offsets: list[int] = []
    base = partition = last = -1
    for spool_offset, at_partition, offset in sorted(found, key=lambda each: (each[1], each[2])):
        if at_partition != partition or offset != last + 1 or (offsets and spool_offset < offsets[-1]):
            if offsets:
                batches.append(Copies(partition, base, offsets))
            partition, base, offsets = at_partition, offset, []
        offsets.append(spool_offset)
        last = offset
    if offsets:
        batches.append(Copies(partition, base, offsets))
    return batches
