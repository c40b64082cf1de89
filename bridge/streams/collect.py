"""Collectors: they take runs in the order of a question and keep what it asks for, within its bounds.

Used by every storage that reads its own records, so that ranges, filters, limits and the place to go on from mean the
same everywhere, whatever is collected. They do no I/O and never wait.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from time import monotonic
from typing import Any, Generic

from bridge.bare_frames import BareFrames
from bridge.encoding import encode_rows
from bridge.history.scan import AnswerT_co, Encoding, PublishColumns, Question, Scan, ScanResult
from bridge.publish_frames import FIELDS_BYTES_V5, PublishFrames
from bridge.records import RecordRun, Topic
from bridge.streams.log import clock_ms
from broker.topics.names import matches

TOPICS_KNOWN_MAX = 50_000
"""A `TopicChoice` that has seen more topics than this begins anew."""

FIELDS_BYTES: dict[Encoding, int] = {
    "event": 220,
    "poll": 220,
    "json": 170,
    "csv": 60,
    "stored": 40,
    "publish": 0,
    "columns": 40,
}
"""What an encoding adds to the topic and payload of a record, at least, and without the names below. Without it a piece
of small records is encoded four times over, for what does not fit is thrown away."""
_NAMES_EVERYTHING = frozenset(("event", "poll", "json", "csv"))
"""Encodings that say of each record its stream, epoch, client and offset."""


class TopicChoice:
    """Which topics a list of filters takes, asked once for each `Topic` object. It may serve many questions.

    No filters take all topics.
    """

    __slots__ = ("_filters", "_known", "chosen")

    def __init__(self, filters: tuple[str, ...]) -> None:
        self._filters = filters
        self._known: set[Topic] = set()
        self.chosen: set[Topic] = set()

    def rows(self, topics: Sequence[Topic], low: int, high: int) -> Sequence[int] | None:
        """The rows in `low <= row < high` with a chosen topic; None when that is each of them."""
        if not self._filters or self.chosen.issuperset(topics):
            return None
        unique = set(topics)
        if not unique <= self._known:
            self._learn(unique)
        chosen = self.chosen
        if unique <= chosen:
            return None
        if unique.isdisjoint(chosen):
            return ()
        return [row for row in range(low, high) if topics[row] in chosen]

    def _learn(self, topics: set[Topic]) -> None:
        if len(self._known) > TOPICS_KNOWN_MAX:
            self._known.clear()
            self.chosen.clear()
        self._known |= topics
        self.chosen |= {
            topic for topic in topics if any(matches(topic_filter, topic.name) for topic_filter in self._filters)
        }


class Collector(ABC, Generic[AnswerT_co]):
    """The growing answer to one question: where it stands in its range, and which rows of a run it wants."""

    def __init__(
        self, request: Question[AnswerT_co], kept: tuple[int, int], start: int, end: int, choice: TopicChoice
    ) -> None:
        """`kept` is the log's first and next offset as it begins; `start <= o < end` is what to look at."""
        self.request = request
        self.is_ascending = request.order == "asc"
        self.start = start
        self.end = max(start, end)
        self.position = start if self.is_ascending else self.end
        """Where to go on: the next offset to look at, descending: one past it."""
        self.choice = choice
        self.work_left = request.work_max
        self._until = monotonic() + request.seconds_max
        self.last_ms: int | None = None
        self._first_offset, self._next_offset = kept
        self._is_cut = False
        self._is_epoch_current = True
        needles = [request.contains, request.client_id.encode() if request.client_id is not None else b""]
        self.needles = tuple([needle for needle in needles if needle])
        """What stored records of interest have in them somewhere, all of it: a quick look before they are decoded."""

    @property
    def is_done(self) -> bool:
        """Nothing is left to look at, or a bound is reached."""
        return self._is_cut or self.position == (self.end if self.is_ascending else self.start) or self.is_bound_reached

    @property
    def is_bound_reached(self) -> bool:
        """It has found, or looked at, as much as it may."""
        return self.work_left <= 0 or monotonic() >= self._until

    def turn_to(self, start: int, end: int, epoch: str, cursor_head: str, cursor_tail: str) -> None:
        """Go on in another partition, at `start <= o < end`; what was found and the bounds stay."""
        self.start, self.end = start, end
        self.position = start if self.is_ascending else end

    def lose(self, first_offset: int) -> None:
        """Retention has dropped everything before `first_offset` while the search was under way."""
        if not self.is_ascending:
            self.position = self.start
            return
        if self.position == self.start:
            self._first_offset = first_offset
            self.start = min(first_offset, self.end)
        self.position = min(first_offset, self.end)

    def skip(self, first: int, end: int, last_ms: int, work: int = 1) -> None:
        """Offsets `first <= o < end` hold nothing of interest, as an index says; it costs some units of work."""
        self.work_left -= work
        if self.is_ascending:
            self.position = min(max(self.position, end), self.end)
        else:
            self.position = max(min(self.position, first), self.start)
        self.last_ms = last_ms

    # hot path: tests/bench/sqlite_log.py
    def add(self, run: RecordRun) -> None:
        """Look at the rows of `run` that are in range and not looked at yet."""
        base = run.base_offset
        if self.is_ascending:
            low, high = self.position - base, min(len(run.ends), self.end - base)
            low = max(low, 0)
            high = min(high, low + self.work_left)
        else:
            low, high = max(self.start - base, 0), min(len(run.ends), self.position - base)
            low = max(low, high - self.work_left)
        if low >= high:
            return
        self.work_left -= high - low
        self.last_ms = run.received_at_ms
        rows = self._rows(run, low, high)
        if not self.is_ascending:
            rows = rows[::-1]
        last_row = self._take(run, rows) if rows else None
        if last_row is None:  # no bound was reached: all of low..high is done
            self.position = base + (high if self.is_ascending else low)
        else:
            self.position = base + (last_row + 1 if self.is_ascending else last_row)

    def _rows(self, run: RecordRun, low: int, high: int) -> Sequence[int]:
        """The rows in `low <= row < high` that the question is about, in the order of offsets."""
        request = self.request
        if request.client_id is not None and run.client_id != request.client_id:
            return ()
        time_ms = run.received_at_ms
        if (request.from_ms is not None and time_ms < request.from_ms) or (
            request.until_ms is not None and time_ms >= request.until_ms
        ):
            return ()
        rows = self.choice.rows(run.topics, low, high)
        if rows is None:
            rows = range(low, high)
        if request.contains and rows:
            rows = _rows_with(run, rows, request.contains)
        return rows

    @abstractmethod
    def _take(self, run: RecordRun, rows: Sequence[int]) -> int | None:
        """Keep `rows`, which are some, in the order of the question; the row that reached a bound, or None."""

    @abstractmethod
    def result(self) -> AnswerT_co:
        """What was found."""

    def nothing(self) -> AnswerT_co:
        """The answer when the question's epoch is no longer the stream's."""
        self._is_epoch_current = False
        self.start, self.end = self.request.start, self.request.end
        self.position = self.start if self.is_ascending else self.end
        self._is_cut = True
        return self.result()

    def _reached(self) -> dict[str, Any]:
        """The fields of `Answer`."""
        position = self.position
        if self.is_ascending:
            if position == self.end and not self._is_cut:  # what lies behind it is too young for `until_ms`
                position = max(position, min(self.request.end, self._next_offset))
        elif position == self.start:
            position = min(position, self.request.start)
        return {
            "next_offset": position,
            "first_offset": self._first_offset,
            "last_ms": self.last_ms,
            "is_epoch_current": self._is_epoch_current,
            "is_complete": self.position == (self.end if self.is_ascending else self.start) and not self._is_cut,
        }


class ScanCollector(Collector[ScanResult]):
    """The records themselves, encoded."""

    request: Scan

    def __init__(self, request: Scan, kept: tuple[int, int], start: int, end: int, choice: TopicChoice) -> None:
        super().__init__(request, kept, start, end, choice)
        self.epoch = request.epoch
        self.cursor_head, self.cursor_tail = request.cursor_head, request.cursor_tail
        self._items: list[bytes] = []
        self._count = 0
        self._records_left = request.records_max
        self._bytes_left = request.bytes_max
        self._names_everything = request.encoding in _NAMES_EVERYTHING
        self._fields_bytes = FIELDS_BYTES[request.encoding]
        self._publishes: PublishFrames | None = None
        form = request.form
        if form is not None and form.bare is not None:
            self._publishes = BareFrames(form, form.bare, request.stream, clock_ms())
        elif form is not None:
            self._publishes = PublishFrames(form, request.stream, clock_ms())
            self._fields_bytes += FIELDS_BYTES_V5 if form.is_v5 else 0

    @property
    def is_bound_reached(self) -> bool:
        return self.is_full or super().is_bound_reached

    @property
    def is_full(self) -> bool:
        """It may return no more."""
        return self._records_left <= 0 or self._bytes_left <= 0

    def turn_to(self, start: int, end: int, epoch: str, cursor_head: str, cursor_tail: str) -> None:
        super().turn_to(start, end, epoch, cursor_head, cursor_tail)
        self.epoch, self.cursor_head, self.cursor_tail = epoch, cursor_head, cursor_tail

    def taken(self) -> tuple[bytes, int]:
        """What was found so far, and how many records that is."""
        count = self._count if self._publishes is None else self._publishes.count
        return b"".join(self._items), count

    def publishes(self) -> PublishColumns | None:
        """What stands beside the frames of the `publish` encoding."""
        return self._publishes.columns() if self._publishes is not None else None

    def lose(self, first_offset: int) -> None:
        """See `Collector.lose`.

        An ascending scan ends before such a hole, so that the next one, which begins in it, can tell of it.
        """
        if self.is_ascending and self.position > self.start:
            self._is_cut = True
        else:
            super().lose(first_offset)

    def _take(self, run: RecordRun, rows: Sequence[int]) -> int | None:
        """Encode `rows` as far as the bounds let; the row that reached a bound, or None."""
        if self._publishes is not None and self._publishes.leaves_out(run):
            return None
        taken = self.within_bounds(run, rows)
        items = self._encode(run, taken)
        size = sum(map(len, items))
        if size >= self._bytes_left:
            sizes = list(accumulate(map(len, items)))
            count = bisect_left(sizes, self._bytes_left) + 1
            taken, items, size = taken[:count], items[:count], sizes[count - 1]
        if self._publishes is not None:
            self._publishes.keep(run, taken, items, (self.cursor_head, self.cursor_tail))
        self._items += items
        self.spend(len(taken), size)
        if not self.is_full and len(taken) < len(rows):
            return self._take(run, rows[len(taken) :])
        return taken[-1] if self.is_full else None

    def spend(self, records: int, size: int) -> None:
        """So many records of so many bytes were kept."""
        self._count += records
        self._bytes_left -= size
        self._records_left -= records

    def _encode(self, run: RecordRun, rows: Sequence[int]) -> list[bytes]:
        """Each row in the encoding of the scan, in the order of the scan."""
        request = self.request
        if self._publishes is not None:
            return self._publishes.encode(self.epoch, run, rows)
        items = encode_rows(
            request.encoding,
            request.stream,
            self.epoch,
            run,
            None if len(rows) == len(run.ends) else rows if self.is_ascending else rows[::-1],
            self.cursor_head,
            self.cursor_tail,
        )
        if not self.is_ascending:
            items.reverse()
        return items

    def within_bounds(self, run: RecordRun, rows: Sequence[int]) -> Sequence[int]:
        """The leading rows that are worth encoding: a record's text is rarely shorter than its frame and its fields."""
        rows = rows[: self._records_left]
        bytes_left = self._bytes_left
        fields_bytes = self._fields_bytes
        if self._names_everything:
            names = (self.request.stream, self.epoch, run.client_id, str(run.base_offset))
            fields_bytes += sum(map(len, names)) + len(self.cursor_head) + len(self.cursor_tail)
        if run.ends[-1] - run.start + len(rows) * fields_bytes <= bytes_left:
            return rows
        if isinstance(rows, range) and rows.step == 1:
            low, ends = rows.start, run.ends
            reached = bytes_left + run.frame_start(low) + low * fields_bytes
            return rows[: bisect_left(rows, reached, key=lambda row: ends[row] + (row + 1) * fields_bytes) + 1]
        count = 0
        for row in rows:
            bytes_left -= run.ends[row] - run.frame_start(row) + fields_bytes
            count += 1
            if bytes_left <= 0:
                break
        return rows[:count]

    def result(self) -> ScanResult:
        data, count = self.taken()
        return ScanResult(data=data, count=count, publishes=self.publishes(), **self._reached())


def _rows_with(run: RecordRun, rows: Sequence[int], needle: bytes) -> Sequence[int]:
    """Those of some rows whose payload has `needle` in it."""
    data, payload_starts, ends = run.data, run.payload_starts, run.ends
    if data.find(needle, run.start, ends[-1]) < 0:
        return ()
    return [row for row in rows if data.find(needle, payload_starts[row], ends[row]) >= 0]
