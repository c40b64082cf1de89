"""Histogram, series and state over several streams: each answers for itself, the answers are put together here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal

from bridge.cursors import Offsets
from bridge.history.buckets import Buckets
from bridge.history.histogram import HistogramQuestion
from bridge.history.numbers import Number, Pointer
from bridge.history.scan import Answer, AnswerT, Question, StreamQuestion
from bridge.history.series import SeriesQuestion
from bridge.history.series import merged as merged_series
from bridge.history.state import PastRecord, StateQuestion
from bridge.history.state import merged as merged_state
from bridge.streams.kafka.cluster import KafkaUnreachable

if TYPE_CHECKING:
    from bridge.streams.log import StreamLog

UNBOUNDED = 1 << 62
"""`work_max` of a question that ends by time."""


@dataclass(frozen=True, slots=True)
class Hole:
    """Times of which records may be missing."""

    from_ms: int
    until_ms: int
    reason: Literal["retention", "epoch"]


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the streams were looked through."""

    is_complete: bool
    scanned_to_ms: int | None
    """The end of the range, if it has one, when complete; else all streams were looked through up to about here."""


async def histogram(
    logs: Sequence[StreamLog],
    filters: tuple[str, ...],
    buckets: Buckets,
    seconds_max: float,
    client_id: str | None = None,
) -> tuple[list[int], Reach]:
    """How many records each bucket has, of one client's alone when it is given. Raises: StreamLogError."""
    answers = await _ask_all(
        logs,
        [
            HistogramQuestion(
                log.name,
                log.epoch,
                filters,
                0,
                0,
                from_ms=buckets.from_ms,
                until_ms=buckets.until_ms,
                client_id=client_id,
                work_max=UNBOUNDED,
                seconds_max=seconds_max,
                buckets=buckets,
            )
            for log in logs
        ],
    )
    counts = [0] * buckets.count
    for answer in answers:
        counts = answer.merged_counts(counts)
    return counts, _reach(answers, buckets)


async def series(
    logs: Sequence[StreamLog], filters: tuple[str, ...], pointer: Pointer, buckets: Buckets, seconds_max: float
) -> tuple[Sequence[int], tuple[Sequence[Number], ...], Reach]:
    """What the number at `pointer` did: the buckets that have one, and the columns of their points.

    Raises: StreamLogError
    """
    answers = await _ask_all(
        logs,
        [
            SeriesQuestion(
                log.name,
                log.epoch,
                filters,
                0,
                0,
                from_ms=buckets.from_ms,
                until_ms=buckets.until_ms,
                work_max=UNBOUNDED,
                seconds_max=seconds_max,
                buckets=buckets,
                pointer=pointer,
            )
            for log in logs
        ],
    )
    return *merged_series(answers), _reach(answers, buckets)


async def state(
    logs: Sequence[StreamLog],
    filters: tuple[str, ...],
    ends: Mapping[str, Offsets],
    seconds_max: float,
    *,
    topics_max: int,
    limit: int,
    from_ms: int | None = None,
    until_ms: int | None = None,
    after: str = "",
    name_part: str = "",
    last_client_id: str | None = None,
) -> tuple[Iterator[PastRecord], bool, Reach]:
    """The last record of each topic before a place in each stream, and a time if given, in order of the topics, at
    most `limit`.

    The second value is whether that is all of them. Not complete: topics that were silent for long may be missing,
    for the search got back to `scanned_to_ms` only. Raises: StreamLogError.
    """
    questions = [
        StateQuestion(
            log.name,
            log.epoch,
            filters,
            0,
            0,
            from_ms=from_ms,
            until_ms=until_ms,
            work_max=UNBOUNDED,
            seconds_max=seconds_max,
            after=after,
            limit=limit,
            name_part=name_part,
            last_client_id=last_client_id,
            topics_max=topics_max,
        )
        for log in logs
    ]
    asked = [
        log.ask_stream(StreamQuestion(what, log.first_offsets, ends[log.name]))
        for log, what in zip(logs, questions, strict=True)
    ]
    answers = [answer for answers in await asyncio.gather(*asked) for answer in answers]
    unfinished = [answer.last_ms or 0 for answer in answers if not answer.is_complete]
    is_all = all(answer.is_all for answer in answers) and sum(map(len, answers)) <= limit
    return (
        islice(merged_state(answers), limit),
        is_all,
        Reach(not unfinished, max(unfinished) if unfinished else from_ms),
    )


async def ends_about(logs: Sequence[StreamLog], time_ms: int) -> dict[str, Offsets]:
    """By stream the first offsets at or after a time; where that cannot be asked for at the moment all that it has.

    Raises: StreamLogError.
    """

    async def of_one(log: StreamLog) -> Offsets:
        try:
            return await log.offsets_at(time_ms)
        except KafkaUnreachable:
            return log.offsets

    ends = await asyncio.gather(*[of_one(log) for log in logs])
    return {log.name: end for log, end in zip(logs, ends, strict=True)}


async def _ask_all(logs: Sequence[StreamLog], questions: Sequence[Question[AnswerT]]) -> list[AnswerT]:
    asked = [log.ask_stream(StreamQuestion(what, *kept(log))) for log, what in zip(logs, questions, strict=True)]
    return [answer for answers in await asyncio.gather(*asked) for answer in answers]


def kept(log: StreamLog) -> tuple[Offsets, Offsets]:
    """All that is kept of a stream: from where and to where, in each partition."""
    first, end = log.first_offsets, log.offsets
    return first, {partition: end[partition] for partition in first}


def _reach(answers: Sequence[Answer], buckets: Buckets) -> Reach:
    unfinished = [answer for answer in answers if not answer.is_complete]
    if not unfinished:
        return Reach(True, buckets.until_ms)
    return Reach(False, min([buckets.from_ms if each.last_ms is None else each.last_ms for each in unfinished]))


def holes(logs: Sequence[StreamLog], from_ms: int, until_ms: int, now_ms: int) -> list[Hole]:
    """The times between two of which some of the streams may have lost records, the earliest first."""
    found: set[Hole] = set()
    for log in logs:
        begun_ms = log.begun_ms
        start_ms = from_ms
        if begun_ms is not None and from_ms < begun_ms:
            found.add(Hole(from_ms, min(begun_ms, until_ms), "epoch"))
            start_ms = begun_ms
        if any(log.first_offsets.values()):
            oldest_ms = log.oldest_ms if log.oldest_ms is not None else now_ms
            if start_ms < min(oldest_ms, until_ms):
                found.add(Hole(start_ms, min(oldest_ms, until_ms), "retention"))
    return sorted(found, key=lambda hole: (hole.from_ms, hole.until_ms, hole.reason))
