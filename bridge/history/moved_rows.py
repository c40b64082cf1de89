"""Spooled records that have moved to Kafka since a descending search began, as rows of the spool that they have left.

The place of such a search says what is still wanted: what stands below it. A record that was below its place in the
spool then stands in Kafka now, beyond its place there, where nobody would look for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bridge.cursors import SPOOL
from bridge.records import RecordRun
from bridge.streams.kafka.records import part_of
from bridge.streams.kafka.spool_tables import copies_from

if TYPE_CHECKING:
    from bridge.history.kafka_reader import KafkaReader
    from bridge.streams.kafka.cluster import TopicState
    from bridge.streams.kafka.readers import KafkaSource


class MovedRows:
    """Of one search, whose place in Kafka's partitions was `end` when it began."""

    def __init__(self, reader: KafkaReader, source: KafkaSource, end: Mapping[int, int]) -> None:
        self._reader = reader
        self._source = source
        self._end = {
            partition: offset
            for partition, offset in end.items()
            if partition != SPOOL and copies_from(reader.store, source.spool_table, partition, offset)
        }

    def places(self, low: int, high: int, kept: Sequence[RecordRun]) -> dict[int, tuple[int, int]]:
        """Partition and offset in Kafka by spool offset, of what is not among the rows `low <= offset < high`."""
        found = {
            offset: (partition, batch.base + number)
            for partition, end in self._end.items()
            for batch in copies_from(self._reader.store, self._source.spool_table, partition, end, low, high)
            for number, offset in enumerate(batch.offsets)
            if low <= offset < high and batch.base + number >= end
        }
        for run in kept if found else ():
            for offset in range(run.base_offset, run.base_offset + len(run)):
                found.pop(offset, None)
        return found

    async def runs(self, state: TopicState, places: Mapping[int, tuple[int, int]]) -> list[RecordRun]:
        """The records at some places, in order of their spool offsets. Those that Kafka has dropped are left out.

        Raises: what Kafka's calls raise.
        """
        runs: list[RecordRun] = []
        for spool_offset, (partition, offset) in sorted(places.items()):
            loaded = await self._reader.stretches.load(self._source, state, {partition: offset})
            stretch = loaded[partition]
            if stretch is None:
                continue
            index = stretch.index_at(offset)
            run = stretch.runs[index] if index < len(stretch.runs) else None
            if run is not None and run.base_offset <= offset < run.base_offset + len(run):
                row = offset - run.base_offset
                runs.append(part_of(run, [row], run.topics, run.node_run, SPOOL, spool_offset))
        return runs
