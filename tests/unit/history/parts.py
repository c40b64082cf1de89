"""A stored stream without threads and processes, and what history should answer, told by loops over plain records."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from bridge.history.scan import AnswerT, Question
from bridge.history.stream_reader import StreamReader
from bridge.streams.sqlite_schema import FILE_NAME, create_stream_tables, open_writer
from bridge.streams.sqlite_table import StreamTable
from bridge.streams.topic_index import RowTopics
from bridge.streams.upkeep import TableUpkeep, transaction
from broker.publish_run import PublishRun
from broker.topics.names import matches
from tests.support.log_contract import RunMaker


@dataclass(frozen=True)
class Sent:
    """One record as a test knows it."""

    offset: int
    time_ms: int
    topic: str
    payload: bytes
    client_id: str


class StoredStream:
    """Stream 1 of a file, written as the writer thread would, and read as the reader process would."""

    EPOCH = "e1"

    def __init__(self, directory: Path) -> None:
        self.maker = RunMaker()
        self.sent: list[Sent] = []
        self._connection = open_writer(directory / FILE_NAME)
        self._connection.execute("PRAGMA synchronous = OFF")  # no test pulls the plug on it
        with transaction(self._connection):
            self._connection.execute("INSERT INTO stream(name, epoch) VALUES ('telemetry', ?)", (self.EPOCH,))
            create_stream_tables(self._connection, 1)
        self.table = StreamTable(self._connection, 1, 1, None, None, lambda: 0)
        self.upkeep = TableUpkeep(self.table, lambda _: None)
        self.reader = StreamReader(directory / FILE_NAME)

    def close(self) -> None:
        self.reader.close()
        self._connection.close()

    def store(self, *runs: PublishRun) -> None:
        """Commit some runs as one group."""
        with transaction(self._connection):
            self.table.prepare(runs)
            self.table.write()
        self.table.committed()
        for run in runs:
            self.sent += sent_of(run)

    def merge(self) -> None:
        """Do all upkeep that there is to do."""
        self.upkeep.idle()
        while self.upkeep.step():
            continue

    def seal(self, rows: int) -> None:
        """Make a chunk of the first rows that are in none."""
        if rows and self.table.open_rows:
            with transaction(self._connection):
                self.table.seal(self.table.open_rows[:rows])

    def forget_counts(self) -> None:
        """Have the rows as format 1 wrote them."""
        for base, records, column in self._connection.execute("SELECT base, count, topics FROM batch_1").fetchall():
            ids = array("I", sorted(RowTopics(column, records).count_by_id()))
            self._connection.execute("UPDATE batch_1 SET topics = ? WHERE base = ?", (ids.tobytes(), base))

    def ask(self, question: Question[AnswerT]) -> AnswerT:
        return run_to_its_end(self.reader.scan(1, question))


def sent_of(run: PublishRun) -> Iterator[Sent]:
    """The records of a run that has its place."""
    for row, route in enumerate(run.routes):
        payload = run.data[run.payload_starts[row] : run.ends[row]]
        yield Sent(run.base_offset + row, run.received_at_ms, route.topic_name, payload, run.client_id)


@contextmanager
def stored_stream() -> Iterator[StoredStream]:
    """One in a directory of its own, for tests that make many."""
    with TemporaryDirectory() as directory:
        stream = StoredStream(Path(directory))
        try:
            yield stream
        finally:
            stream.close()


def run_to_its_end(work: Generator[None, None, AnswerT]) -> AnswerT:
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def chosen(sent: Sequence[Sent], filters: Sequence[str], from_ms: int = 0, until_ms: int = 1 << 60) -> list[Sent]:
    """The records that filters and times take."""
    return [
        each
        for each in sent
        if from_ms <= each.time_ms < until_ms and any(matches(topic_filter, each.topic) for topic_filter in filters)
    ]


def naive_histogram(sent: Sequence[Sent], edges: Sequence[int]) -> list[int]:
    """How many records lie between each edge and the next."""
    return [sum(edges[index] <= each.time_ms < edges[index + 1] for each in sent) for index in range(len(edges) - 1)]


def naive_number(payload: bytes, find: Callable[[Any], Any]) -> float | int | None:
    """The number that `find` takes out of a payload, if there is one."""
    try:
        value = find(orjson.loads(payload))
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
        return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
