"""What is on its way to Kafka: the rows of runs, the batches made of them, and a lane for each partition.

`bridge.streams.kafka.sender` moves them; here is only what they hold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bridge.records import RecordRun, Topic
from bridge.streams.kafka.batches import BatchBuilder

if TYPE_CHECKING:
    from broker.publish_run import PublishRun

NO_BOUND = 1 << 40
WIDENED_BY = 32
"""After each stored batch of a lane whose batches were too large they may be a 32nd larger again."""


class Portion:
    """Rows of one run that go to one partition, in order."""

    __slots__ = ("keys", "node_run", "offsets", "rows", "run", "topics")

    def __init__(
        self,
        run: PublishRun | RecordRun,
        rows: Sequence[int],
        topics: Sequence[Topic],
        keys: Sequence[bytes],
        node_run: str,
        offsets: Sequence[int] | None = None,
    ) -> None:
        self.run = run
        self.rows = rows
        self.topics = topics
        """Of all rows of the run."""
        self.keys = keys
        """One for each of `rows`."""
        self.node_run = node_run
        self.offsets = offsets
        """Where the rows stand in the spool; None: they are not there."""

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, count: int) -> tuple[Portion, Portion]:
        """The first `count` rows, and the others."""
        offsets = self.offsets
        return (
            Portion(
                self.run, self.rows[:count], self.topics, self.keys[:count], self.node_run, offsets and offsets[:count]
            ),
            Portion(
                self.run, self.rows[count:], self.topics, self.keys[count:], self.node_run, offsets and offsets[count:]
            ),
        )

    def number(self, row: int) -> int:
        """The number in a row's `mqtt.id`."""
        run = self.run
        return run.number(row) if isinstance(run, RecordRun) else run.first_number + row


class Batch:
    """Records under way to one partition."""

    __slots__ = ("_builder", "_data", "lane", "portions", "producer_id", "sequence")

    def __init__(self, lane: Lane, builder: BatchBuilder) -> None:
        self.lane = lane
        self.portions: list[Portion] = []
        self.producer_id = -1
        self.sequence = -1
        self._builder = builder
        self._data: bytes | None = None

    @property
    def count(self) -> int:
        """How many records it has."""
        return self._builder.count

    @property
    def size(self) -> int:
        """Bytes of its records, not compressed."""
        return self._builder.bytes

    def add(self, portion: Portion, records_max: int) -> int:
        """Take as many leading rows as fit; how many that was."""
        taken = self._builder.add(
            portion.run, portion.rows, portion.topics, portion.keys, portion.node_run, records_max
        )
        if taken:
            self.portions.append(portion if taken == len(portion) else portion.split(taken)[0])
        return taken

    def finish(self, producer_id: int, producer_epoch: int, sequence: int) -> None:
        """Give it its sequence number; from here on its bytes do not change."""
        self.producer_id, self.sequence = producer_id, sequence
        self._data = self._builder.build(producer_id, producer_epoch, sequence)

    @property
    def is_finished(self) -> bool:
        return self._data is not None

    @property
    def data(self) -> bytes:
        assert self._data is not None, "a batch is finished before it is sent"
        return self._data


class Lane:
    """One partition."""

    __slots__ = (
        "bytes_max",
        "is_sending",
        "next_batch",
        "partition",
        "queue",
        "queued",
        "records_max",
        "retry_at",
        "sequence",
        "under_way",
        "waits_since",
    )

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.queue: deque[Portion] = deque()
        self.queued = 0
        """Records in the queue."""
        self.next_batch: Batch | None = None
        """Being built while another is under way."""
        self.under_way: Batch | None = None
        self.is_sending = False
        """The batch under way is in a request at this moment; else it waits for its next try."""
        self.sequence = 0
        self.retry_at = 0.0
        self.waits_since = 0.0
        """When the oldest record that is not confirmed was put; 0: there is none."""
        self.bytes_max = self.records_max = NO_BOUND
        """Of a batch, below what the settings allow: Kafka has refused larger ones."""

    def widen(self) -> None:
        """Kafka has stored a batch: the next ones may be larger again."""
        if self.bytes_max < NO_BOUND:
            self.bytes_max += self.bytes_max // WIDENED_BY + 1
        if self.records_max < NO_BOUND:
            self.records_max *= 2

    @property
    def is_empty(self) -> bool:
        return self.under_way is None and self.next_batch is None and not self.queue
