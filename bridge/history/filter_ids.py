"""FilterIds: which topic ids a list of filters takes in one stored stream."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

from bridge.streams.collect import TopicChoice
from bridge.streams.topic_index import bits_of, chunk_bits
from broker.codec.primitives import encode_string
from broker.topics.names import matches

TOPICS_PER_PIECE = 5_000
MATCHED_TOPICS_MAX = 4
"""So few exact filters are looked for in the stored bytes; for more, decoding everything costs less."""
_ALL_TOPICS = TopicChoice(())


class FilterIds:
    """The topic ids that a list of filters takes in one stream; it learns new topics at each question."""

    def __init__(self, filters: tuple[str, ...]) -> None:
        self.ids: set[int] = set()
        self.bits = 0
        self._choice = TopicChoice(filters)
        self.takes_all = not filters
        self._filters = filters
        self._exact = tuple(name for name in filters if not _has_wildcard(name))
        self._wild = tuple(name for name in filters if _has_wildcard(name))
        few = not self._wild and len(self._exact) <= MATCHED_TOPICS_MAX
        self.encoded_topics = tuple(encode_string(name) for name in self._exact) if few else ()
        """The topics as they stand in a frame, when the filters name a few and nothing else."""
        self._seen_id = 0
        self._seen_count = 0

    @property
    def choice(self) -> TopicChoice:
        """The topics by their names; it is not asked where every topic of the stream is taken."""
        return _ALL_TOPICS if self.takes_all else self._choice

    def learn(self, connection: sqlite3.Connection, stream_id: int) -> Iterator[None]:
        """Look at the topics that are new since the last time; each `next` is one piece of work."""
        for name in self._exact:
            self._take(
                row[0] for row in connection.execute(f"SELECT id FROM topic_{stream_id} WHERE name = ?", (name,))
            )
        while self._wild:
            rows = connection.execute(
                f"SELECT id, name FROM topic_{stream_id} WHERE id > ? ORDER BY id LIMIT {TOPICS_PER_PIECE}",
                (self._seen_id,),
            ).fetchall()
            if not rows:
                break
            wild = self._wild
            # Before the other scans get their turn: one with the same filters believes what is marked as seen.
            self._take(row[0] for row in rows if any([matches(topic_filter, row[1]) for topic_filter in wild]))
            self._seen_id = rows[-1][0]
            self._seen_count += len(rows)
            yield
        self.takes_all = not self._filters or (bool(self._wild) and len(self.ids) >= self._seen_count)

    def _take(self, found: Iterable[int]) -> None:
        new = set(found) - self.ids
        if new:
            self.ids |= new
            self.bits |= bits_of(new)


def has_any(column: bytes, bits: int) -> bool:
    """A chunk's `topics` column has one of the topics in the set `bits`."""
    chunk, shift = chunk_bits(column)
    return bool(bits >> shift & chunk)


def _has_wildcard(topic_filter: str) -> bool:
    return "#" in topic_filter or "+" in topic_filter
