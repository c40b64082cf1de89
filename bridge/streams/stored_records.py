"""Records of QoS 1 and 2 with some of the topics, from a place on: at a start, sessions get what they are owed.

Rows of the log that hold none of the topics are passed over without their body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from bridge.records import Topic
from bridge.streams.frames import decode_body
from bridge.streams.sqlite_schema import open_reader
from bridge.streams.topic_index import RowTopics
from broker.store import StoredRecord

IS_RELIABLE = 0x06
"""The bits of a PUBLISH's first byte that hold its QoS."""


def read_records(path: Path, stream_id: int, first: int, is_wanted: Callable[[str], bool]) -> Iterator[StoredRecord]:
    """The records of a stored stream from offset `first` on, in order. It blocks."""
    topics: dict[bytes, Topic] = {}
    with closing(open_reader(path)) as connection:
        connection.execute("BEGIN")  # upkeep may merge the rows meanwhile
        names = connection.execute(f"SELECT id, name FROM topic_{stream_id}")
        wanted = {name: topic_id for topic_id, name in names if is_wanted(name)}
        if not wanted:
            return
        flags = bytearray(max(wanted.values()) // 8 + 1)
        for topic_id in wanted.values():
            flags[topic_id >> 3] |= 1 << (topic_id & 7)
        bits = int.from_bytes(flags, "little")
        rows = connection.execute(
            f"SELECT base, count, topics FROM batch_{stream_id} WHERE base >= ifnull("
            f"(SELECT max(base) FROM batch_{stream_id} WHERE base <= ?), 0) ORDER BY base",
            (first,),
        )
        bases = [base for base, count, column in rows if base + count > first and RowTopics(column, count).bits & bits]
        for base in bases:
            found = connection.execute(f"SELECT body FROM batch_{stream_id} WHERE base = ?", (base,)).fetchone()
            for run in decode_body(found[0], base, topics):
                for row, topic in enumerate(run.topics):
                    offset = run.base_offset + row
                    start = run.frame_start(row)
                    if offset >= first and run.data[start] & IS_RELIABLE and topic.name in wanted:
                        frame = run.data[start : run.ends[row]]
                        yield StoredRecord(
                            stream_id, offset, topic.name, frame, run.is_v5, run.client_id, run.received_at_ms
                        )
            topics.clear()
