"""Histograms and series of stored and kept records are what a loop over the records gives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.history.buckets import Buckets
from bridge.history.histogram import HistogramAnswer, HistogramQuestion
from bridge.history.numbers import parse_pointer
from bridge.history.scan import AnswerT, Question
from bridge.history.series import SeriesAnswer, SeriesQuestion, merged
from bridge.streams.memory_log import MemoryLog
from broker.publish_run import PublishRun
from tests.support.log_contract import RunMaker
from tests.unit.history.parts import Sent, StoredStream, chosen, naive_histogram, naive_number, sent_of, stored_stream

TOPICS = ["a/1", "a/2", "b/1", "b/temp", "$server/x"]
ENCODED = b"\x00\x03a/1"
PAYLOADS = [
    b'{"t":1}',
    b'{"t":2.5}',
    b'{"t":"x"}',
    b"7",
    b"-1.5",
    b"true",
    b"text",
    b"",
    ENCODED,
    b"x" * 200,
    b'{"t":3}' + b" " * 130,
]
CLIENTS = ["p7", "a/1"]
"""In turn; the second is also a topic."""
FILTERS: list[tuple[str, ...]] = [("#",), ("a/1",), ("a/+",), ("+/1", "b/temp"), ("a/1", "b/1"), ("nothing",), ()]

runs = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from(TOPICS), st.sampled_from(PAYLOADS)), min_size=1, max_size=6),
        st.integers(0, 40),
        st.sampled_from([0, 1]),
        st.sampled_from([None, None, b"", b"\x03\x00\x01t"]),
    ),
    min_size=1,
    max_size=25,
)
Runs = list[tuple[list[tuple[str, bytes]], int, int, bytes | None]]


def made(maker: RunMaker, drawn: Runs) -> list[PublishRun]:
    time_ms = 1_000
    out = []
    for number, (rows, wait_ms, qos, properties) in enumerate(drawn):
        time_ms += wait_ms
        topics, payloads = zip(*rows, strict=True)
        client_id = CLIENTS[number % 2]
        run = maker.run(payloads, topics=topics, time_ms=time_ms, qos=qos, properties=properties, client_id=client_id)
        out.append(run)
    return out


def histogram_of(
    filters: tuple[str, ...], buckets: Buckets, epoch: str, client_id: str | None = None, **bounds: int
) -> HistogramQuestion:
    return HistogramQuestion(
        "telemetry", epoch, filters, 0, 1 << 40,
        from_ms=buckets.from_ms, until_ms=buckets.until_ms, client_id=client_id, buckets=buckets, **bounds,
    )  # fmt: skip


def series_of(filters: tuple[str, ...], pointer: str, buckets: Buckets, epoch: str) -> SeriesQuestion:
    return SeriesQuestion(
        "telemetry", epoch, filters, 0, 1 << 40,
        from_ms=buckets.from_ms, until_ms=buckets.until_ms, buckets=buckets, pointer=parse_pointer(pointer),
    )  # fmt: skip


def assert_counts(answer: HistogramAnswer, sent: Sequence[Sent], filters: tuple[str, ...], buckets: Buckets) -> None:
    taken = chosen(sent, filters or ("#", "$server/#"), buckets.from_ms, buckets.until_ms)
    edges = [buckets.start_ms(index) for index in range(buckets.count + 1)]
    assert list(answer.counts) == naive_histogram(taken, edges)
    assert answer.is_complete


def assert_points(
    answers: Sequence[SeriesAnswer], sent: Sequence[Sent], filters: tuple[str, ...], pointer: str, buckets: Buckets
) -> None:
    values: dict[int, list[float]] = {}
    for each in chosen(sent, filters or ("#", "$server/#"), buckets.from_ms, buckets.until_ms):
        number = naive_number(each.payload, (lambda value: value["t"]) if pointer else (lambda value: value))
        if number is not None:
            values.setdefault(buckets.index(each.time_ms), []).append(number)
    indexes, (least, largest, last, last_ms, total) = merged(answers)
    assert dict(zip(indexes, zip(least, largest, last, total, strict=True), strict=True)) == {
        index: (min(found), max(found), found[-1], len(found)) for index, found in values.items()
    }
    assert list(indexes) == sorted(indexes)
    assert len(last_ms) == len(indexes)
    assert all(answer.is_complete for answer in answers)


@settings(deadline=None, max_examples=60)
@given(runs, st.sampled_from(FILTERS), st.integers(990, 1_100), st.integers(1, 500), st.integers(1, 40), st.data())
def test_stored_records_are_counted_as_a_loop_would(
    drawn: Runs, filters: tuple[str, ...], from_ms: int, span_ms: int, count: int, data: st.DataObject
) -> None:
    buckets = Buckets.over(from_ms, from_ms + span_ms, count)
    with stored_stream() as stream:
        store(stream, drawn, data)
        assert_counts(stream.ask(histogram_of(filters, buckets, stream.EPOCH)), stream.sent, filters, buckets)
        for client_id in (*CLIENTS, "nobody"):
            of_client = [each for each in stream.sent if each.client_id == client_id]
            answer = stream.ask(histogram_of(filters, buckets, stream.EPOCH, client_id))
            assert_counts(answer, of_client, filters, buckets)


@settings(deadline=None, max_examples=60)
@given(runs, st.sampled_from(FILTERS), st.sampled_from(["", "/t"]), st.integers(1, 40), st.data())
def test_series_of_stored_records_is_what_a_loop_gives(
    drawn: Runs, filters: tuple[str, ...], pointer: str, count: int, data: st.DataObject
) -> None:
    buckets = Buckets.over(1_010, 1_400, count)
    with stored_stream() as stream:
        store(stream, drawn, data)
        question = series_of(filters, pointer, buckets, stream.EPOCH)
        assert_points([stream.ask(question)], stream.sent, filters, pointer, buckets)
        divided = [stream.ask(part) for part in parts_of(question, data.draw(st.integers(0, 150), "cut"))]
        assert_points(divided, stream.sent, filters, pointer, buckets)


def parts_of(question: SeriesQuestion, cut: int) -> list[SeriesQuestion]:
    return [replace(question, end=cut), replace(question, start=cut)]


def store(stream: StoredStream, drawn: Runs, data: st.DataObject) -> None:
    """In groups, some rows merged, some sealed, some as format 1 had them."""
    made_runs = made(stream.maker, drawn)
    while made_runs:
        size = data.draw(st.integers(1, 8), "runs in a group")
        stream.store(*made_runs[:size])
        del made_runs[:size]
        if data.draw(st.integers(0, 4), "then") == 0:
            stream.merge()
    stream.seal(data.draw(st.integers(0, 3), "rows in a chunk"))
    if data.draw(st.booleans(), "format 1"):
        stream.forget_counts()


class KeptStream:
    """The same records in a memory log."""

    def __init__(self, drawn: Runs) -> None:
        self.log = MemoryLog("telemetry", clock=lambda: 1_000)
        self.sent: list[Sent] = []
        for run in made(RunMaker(self.log), drawn):
            self.log.append(run)
            self.log.flush()
            self.sent += sent_of(run)

    def ask(self, question: Question[AnswerT]) -> AnswerT:
        return asyncio.run(self.log.scan(question))


@settings(deadline=None, max_examples=40)
@given(runs, st.sampled_from(FILTERS), st.integers(1, 40))
def test_kept_records_are_counted_as_a_loop_would(drawn: Runs, filters: tuple[str, ...], count: int) -> None:
    buckets = Buckets.over(1_010, 1_400, count)
    kept = KeptStream(drawn)
    assert_counts(kept.ask(histogram_of(filters, buckets, kept.log.epoch)), kept.sent, filters, buckets)
    of_client = [each for each in kept.sent if each.client_id == CLIENTS[1]]
    answer = kept.ask(histogram_of(filters, buckets, kept.log.epoch, CLIENTS[1]))
    assert_counts(answer, of_client, filters, buckets)
    for pointer in ("", "/t"):
        points = kept.ask(series_of(filters, pointer, buckets, kept.log.epoch))
        assert_points([points], kept.sent, filters, pointer, buckets)


@given(runs, runs)
@settings(deadline=None, max_examples=20)
def test_series_of_two_streams_are_put_together(first: Runs, second: Runs) -> None:
    buckets = Buckets.over(1_000, 1_600, 7)
    kept = [KeptStream(first), KeptStream(second)]
    answers = [each.ask(series_of(("#",), "", buckets, each.log.epoch)) for each in kept]
    both = sorted(kept[0].sent + kept[1].sent, key=lambda each: each.time_ms)
    assert_points(answers, both, ("#",), "", buckets)


def test_a_search_that_may_do_no_more_says_how_far_it_came() -> None:
    with stored_stream() as stream:
        for step in range(10):
            stream.store(stream.maker.run([b"1"] * 100, topics=["a", "b"], time_ms=1_000 + step))
        buckets = Buckets.over(1_000, 1_010, 10)
        answer = stream.ask(histogram_of(("a",), buckets, stream.EPOCH, work_max=3))
        assert not answer.is_complete
        assert answer.last_ms is not None
        reached = answer.last_ms - 1_000
        assert list(answer.counts) == [50] * (reached + 1) + [0] * (9 - reached)


def test_another_epoch_counts_nothing() -> None:
    with stored_stream() as stream:
        stream.store(stream.maker.run([b"1"], time_ms=1_000))
        answer = stream.ask(histogram_of(("#",), Buckets.over(0, 2_000, 2), "other"))
        assert (list(answer.counts), answer.is_epoch_current, answer.is_complete) == ([0, 0], False, False)
