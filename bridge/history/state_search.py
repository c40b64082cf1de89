"""StateSearch: the last record of each topic in stored rows, in which only those are read that have one."""

from __future__ import annotations

from bridge.history.filter_ids import FilterIds
from bridge.history.row_search import RowSearch
from bridge.history.state import StateCollector
from bridge.history.stored_rows import StoredRow, StreamRows
from bridge.streams.frames import decode_body, segment_places
from bridge.streams.topic_index import RowTopics, bits_of, ids_of
from broker.codec.primitives import encode_string

LOCATED_MAX = 4
"""So few topics are looked for in a row's bytes; for more, decoding it all costs less."""
NAMES_PER_PIECE = 5_000
ROW_WORK = 16
"""What a row costs that is looked at without being decoded."""


class StateSearch(RowSearch):
    """A walk down; `ids` are the topics that are still missing."""

    collector: StateCollector
    rows_per_piece = 256

    def __init__(self, rows: StreamRows, collector: StateCollector, filter_ids: FilterIds) -> None:
        super().__init__(rows, collector, filter_ids)
        self.needs_topics = True
        request = collector.request
        self.ids = set(filter_ids.ids)
        self._must_read_names = bool(request.after or request.name_part or not request.filters)
        self._read_names_to = 0
        self._named: set[int] = set()

    def piece(self) -> None:
        if self._must_read_names:
            self._read_names()
        elif self.ids:
            super().piece()
        if not self.ids:
            self.collector.finish()

    def _read_names(self) -> None:
        """Leave out, piece by piece, topics that are not asked about by their names."""
        names = self.rows.topic_names(self._read_names_to, NAMES_PER_PIECE)
        request = self.collector.request
        takes_all = not request.filters
        self._named.update(
            [topic_id for topic_id, name in names if (takes_all or topic_id in self.ids) and request.wants(name)]
        )
        if names:
            self._read_names_to = names[-1][0]
        else:
            self._must_read_names = False
            self.ids = self._named
            self.bits = bits_of(self.ids)

    def _is_wanted(self, row: StoredRow) -> bool:
        return True  # `look` decides

    def look(self, row: StoredRow) -> int:
        present = RowTopics(row.topics, row.records)
        if not present.has_any(self.ids, self.bits):
            self.pass_over(row)
            return 1
        hit_bits = present.bits & self.bits
        hits = set(ids_of(hit_bits))
        work = row.records
        if row.end > self.collector.position or row.base < self.collector.start:  # what it has may be out of range
            self.decode(row)
            seen = self.collector.seen
            hits = {topic_id for topic_id in hits if self.rows.topic_name(topic_id) in seen}
            hit_bits = bits_of(hits)
        elif len(hits) <= LOCATED_MAX:
            work = self._locate(row, hits)
        else:
            self.decode(row)
        self.ids -= hits
        self.bits ^= hit_bits
        return work

    def _locate(self, row: StoredRow, hits: set[int]) -> int:
        """Read the last record of a few topics out of a row; returns the work."""
        body = self.rows.body(row.base)
        names = [self.rows.topic_name(topic_id) for topic_id in hits]
        places = sorted([(body.rfind(encode_string(name)), name) for name in names], reverse=True)
        work = ROW_WORK
        end_of_read = len(body)
        for place, _ in places:
            if place >= end_of_read:
                continue
            start, end, records_before = segment_places(body, place)
            runs = decode_body(body[start:end], row.base + records_before, self.rows.cache.topics)
            for run in runs:
                self.collector.add(run)
                work += len(run)
            end_of_read = start
            if not self.collector.seen.issuperset([name for other, name in places if start <= other < end]):
                self.decode(row)  # a payload has a topic's bytes in it: what comes before them has to be looked at
                return work + row.records
        self.pass_over(row)
        return work
