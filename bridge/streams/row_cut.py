"""A row of the log without its first records: for the one row that holds records on both sides of a cut."""

from __future__ import annotations

from collections import Counter

from bridge.streams.frames import decode_body, encode_range
from bridge.streams.retention import Row
from bridge.streams.sqlite_table import StreamTable
from bridge.streams.topic_index import HAS_V3, HAS_V5, encode_row


def cut_row(table: StreamTable, row: Row, first: int) -> Row:
    """Rewrite `row` so that it begins with offset `first`, which is in it; within the caller's transaction."""
    execute = table.connection.execute
    (body,) = execute(f"SELECT body FROM {table.batch} WHERE base = ?", (row.base,)).fetchone()
    runs = [run for run in decode_body(body, row.base, {}) if run.base_offset + len(run) > first]
    skipped = first - runs[0].base_offset
    segments = [encode_range(runs[0], skipped, len(runs[0])), *[encode_range(run, 0, len(run)) for run in runs[1:]]]
    names = Counter(topic.name for topic in runs[0].topics[skipped:])
    versions = 0
    for run in runs[1:]:
        names.update(topic.name for topic in run.topics)
    for run in runs:
        versions |= HAS_V5 if run.is_v5 else HAS_V3
    find = f"SELECT id FROM topic_{table.stream_id} WHERE name = ?"
    count_by_id = {execute(find, (name,)).fetchone()[0]: count for name, count in names.items()}
    body = b"".join(segments)
    cut = Row(first, row.end - first, len(body), runs[0].received_at_ms, row.time_max)
    execute(f"DELETE FROM {table.batch} WHERE base = ?", (row.base,))
    execute(
        f"INSERT INTO {table.batch} VALUES (?, ?, ?, ?, ?, ?)",
        (cut.base, cut.records, cut.time_min, cut.time_max, encode_row(count_by_id, versions), body),
    )
    return cut
