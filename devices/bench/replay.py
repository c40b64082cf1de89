"""`headrace bench replay`: what a log of a day is worth: exports, questions about it, and `$replay` to a subscriber.

The log is filled through MQTT under a swift clock, so that its records lie over 24 hours; then a server with the right
time is started on it. Every record of every export and every replayed message is checked by its number.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from devices.bench.checks import CheckFailed, EventScanner
from devices.bench.endpoints import ExportReader, Publisher, Subscriber
from devices.bench.exporter import export_path, exporting
from devices.bench.frames import DIGIT_SEQUENCE_MAX, EVENT_MARK, Column, PublishBlock, PublishLayout
from devices.bench.latency import Latency, connect_publishers, run_paced
from devices.bench.load import Load, LoadResult
from devices.bench.memory import PeakMemory
from devices.bench.mqtt import SCENARIOS as MQTT_SCENARIOS
from devices.bench.mqtt import run_ceiling
from devices.bench.peers import HEADRACE, PEERS, STREAM, Peer, Server, data_root, headrace_command, running
from devices.bench.programs import Ports
from devices.bench.results import LATE_SUFFIX, Report, Row
from devices.bench.rounds import Plan, measure_runs
from devices.bench.sse import SCENARIOS as SSE_SCENARIOS
from devices.bench.sse import run_ceiling as run_sse_ceiling
from devices.bench.stored import bench_stream, expect_records
from devices.bench.wire import PeerFailed, Refused, connect_mqtt, get_json, open_answer, subscribe

DAY_MS = 24 * 3_600_000
TOPICS = 10_000
BUSY_EVERY = 10
"""Every tenth record is of one topic, the others are spread evenly over all others."""
MEMORY_RECORDS_MAX = 1_000_000
WINDOW = 8_000
FILL_RATE = 400_000
"""Messages a second that the filler is expected to get acknowledged; decides how fast the swift clock goes."""
RECORDS_A_SECOND_MIN = 20_000
ASKED_TIMES = 5
REPLAY_S = 5.0
"""`$replay` is measured for so many times the measured seconds at most."""
LATENCY_RATE = 10_000
LATENCY_PUBLISHERS = 100
MEMORY_LABEL = f"{HEADRACE}, memory"
BUCKETS = 240
POINTS = 1_000

FORMATS = ("ndjson", "csv", "parquet")
EXPORT_KEYS = tuple(f"export_{form}" for form in FORMATS)
REPLAY_KEYS = ("replay_q0", "replay_q1")
KEYS = (*EXPORT_KEYS, "export_ack", "histogram", "series", "topics_at", *REPLAY_KEYS)
MARKS = {"ndjson": EVENT_MARK, "csv": b'tick"":1', "parquet": EVENT_MARK}
"""What stands before the digits of a number; CSV doubles quotation marks."""
FILTER = "bench/dev/%23"


def topic_numbers(topics: int = TOPICS, busy_every: int = BUSY_EVERY) -> Column:
    """The topics of one cycle of messages: 0 for every tenth, the others once each."""
    rows = np.arange(2 * topics)
    numbers = rows - rows // busy_every + 1
    numbers[busy_every - 1 :: busy_every] = 0
    return numbers[: int(np.argmax(numbers == topics - 1)) + 1]


@dataclass(frozen=True)
class Data:
    """A filled log."""

    records: int
    layout: PublishLayout
    directory: Path | None = None

    @property
    def busy_records(self) -> int:
        """How many of them are of topic 0."""
        cycles, rest = divmod(self.records, self.layout.topic_count)
        is_busy = self.layout.topic_numbers == 0
        return int(cycles * is_busy.sum() + is_busy[:rest].sum())


def new_layout(plan: Plan, qos: int = 1) -> PublishLayout:
    """Numbered JSON messages over all topics."""
    return PublishLayout(qos=qos, payload_bytes=plan.payload_bytes, topic_numbers=topic_numbers(), is_json=True)


def bench_replay(plan: Plan, report: Report, records: int, keys: Sequence[str] = KEYS) -> None:
    """Measure into the report."""
    if records > DIGIT_SEQUENCE_MAX:
        raise ValueError(f"at most {DIGIT_SEQUENCE_MAX:,} records can be numbered")
    try:
        with tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=data_root()) as place:
            data = Data(records, new_layout(plan), Path(place))
            _fill_day(plan, data)
            with running(PEERS[HEADRACE], storage="sqlite", directory=data.directory) as server:
                _bench_exports(plan, report, server, data, keys)
                for key, ask in (("histogram", _ask_histogram), ("series", _ask_series), ("topics_at", _ask_topics)):
                    if key in keys:
                        ask(plan, report, server, data)
                _bench_replays(plan, report, server, data, keys)
                if "export_ack" in keys:  # last, for it adds records
                    _bench_ack(plan, report, server)
    except (CheckFailed, PeerFailed) as error:
        report.failures.append(f"replay: {error}")
        plan.report(report.failures[-1])


# Filling


def _fill_day(plan: Plan, data: Data) -> None:
    start_ms = time.time_ns() // 1_000_000 - DAY_MS
    factor = DAY_MS / 1000 / max(1.0, data.records / FILL_RATE)
    start = ("-m", "devices.bench.swift_clock", str(start_ms), f"{factor:.3f}")

    def command(directory: Path, ports: Ports, storage: str) -> list[str]:
        kept = 'retention = { age = "7d", bytes = "40GiB" }\n'
        return headrace_command(directory, ports, storage, kept, start)

    peer = Peer(HEADRACE, PEERS[HEADRACE].version, command)
    with running(peer, storage="sqlite", directory=data.directory) as server:
        begun = time.perf_counter()
        _fill(server, data)
        seconds = time.perf_counter() - begun
        expect_records(server, data.records)
    plan.report(f"{data.records:,} records over {TOPICS:,} topics and a day of the server's clock in {seconds:.1f} s")


def _fill(server: Server, data: Data) -> None:
    connection = connect_mqtt(server.mqtt_port, "bench-filler")
    publisher = Publisher(connection, "filler", PublishBlock(data.layout, WINDOW), window=WINDOW, is_acked=True)
    with contextlib.closing(Load([publisher], [])) as load:
        load.fill(data.records, data.records / RECORDS_A_SECOND_MIN + 10)


@contextlib.contextmanager
def _in_memory(plan: Plan, records: int) -> Iterator[tuple[Server, Data]]:
    """A server with as many records as a memory stream is given room for here."""

    def command(directory: Path, ports: Ports, storage: str) -> list[str]:
        return headrace_command(directory, ports, storage, 'retention = { bytes = "2GiB" }\n')

    data = Data(min(records, MEMORY_RECORDS_MAX), new_layout(plan))
    with running(Peer(HEADRACE, PEERS[HEADRACE].version, command), storage="memory") as server:
        _fill(server, data)
        expect_records(server, data.records)
        yield server, data


# Exports


def _bench_exports(plan: Plan, report: Report, server: Server, data: Data, keys: Sequence[str]) -> None:
    # The process that reads for exports is there before anything is measured.
    get_json(server.http_port, f"/api/v1/streams/{STREAM}/records?limit=1")
    for form, key in zip(FORMATS, EXPORT_KEYS, strict=True):
        if key not in keys:
            continue
        if not _is_available(server, form):
            plan.report(f"export as {form}: not available on this server")
            report.facts[f"export as {form}"] = "not available on this server"
            continue
        title = f"export of {data.records:,} records as {form}"
        row = report.add_row(Row(key, title))
        grown = report.add_figure(f"{key}_memory_mb", f"{title}: memory of the server above what it was before", "MB")
        peak = report.add_figure(f"{key}_peak_mb", f"{title}: highest memory of the server and its processes", "MB")

        def export(form: str = form, grown: Any = grown, peak: Any = peak) -> LoadResult:
            with PeakMemory(server) as memory:
                result = export_all(server, form, data)
            grown.series.values.append(memory.grown_bytes / 1e6)
            peak.series.values.append(memory.peak_bytes / 1e6)
            plan.report(f"{grown.title}: {memory.grown_bytes / 1e6:.1f} MB")
            return result

        def export_memory(form: str = form) -> LoadResult:
            with _in_memory(plan, data.records) as (other, kept):
                return export_all(other, form, kept)

        runs: dict[str, Callable[[], LoadResult]] = {HEADRACE: export, MEMORY_LABEL: export_memory}
        ceiling = partial(run_sse_ceiling, SSE_SCENARIOS["sse_1"], plan)
        measure_runs(row, plan, runs, ceiling, bare=tuple(runs) if form == "parquet" else ())


def _is_available(server: Server, form: str) -> bool:
    try:
        connection, _, _ = open_answer(server.http_port, f"{export_path(form)}&limit=1")
    except Refused as refused:
        if refused.is_not_available:
            return False
        raise
    connection.close()
    return True


def export_all(server: Server, form: str, data: Data) -> LoadResult:
    """A whole export, each record checked; text while it comes, Parquet afterwards. Raises: CheckFailed, PeerFailed"""
    scanner = EventScanner(f"export as {form}", mark=MARKS[form])
    begun_s = time.perf_counter()
    connection, body, is_chunked = open_answer(server.http_port, f"{export_path(form)}&topic={FILTER}")
    if not is_chunked:
        raise PeerFailed(f"an export as {form} is not streamed: its answer has no chunks")
    with contextlib.ExitStack() as stack:
        sink: Any = scanner
        if form == "parquet":
            file = stack.enter_context(tempfile.TemporaryFile(dir=data_root()))
            sink = FileSink(file)
        reader = ExportReader(connection, "export", body=body, is_chunked=True, scanner=sink)
        load = stack.enter_context(contextlib.closing(Load([], [reader])))
        seconds = data.records / RECORDS_A_SECOND_MIN + 10
        result = load.read(messages=FAR, seconds=seconds, server_cpu_s=server.cpu_s, begun_s=begun_s)
        if not reader.has_ended:
            raise CheckFailed(f"the export as {form} did not end in {seconds:.0f} s")
        if form == "parquet":
            check_parquet(file, scanner)
    if scanner.received != data.records:
        raise CheckFailed(f"loss: the export as {form} has {scanner.received:,} of {data.records:,} records")
    return replace(result, messages=scanner.received)


FAR = 1 << 62


class FileSink:
    """Takes the place of a scanner: keeps what comes."""

    received = 0

    def __init__(self, file: Any) -> None:
        self._file = file

    def feed(self, data: bytearray, start: int, end: int) -> None:
        self._file.write(memoryview(data)[start:end])


def check_parquet(file: Any, scanner: EventScanner) -> None:
    """Look at the payloads of a Parquet file. Raises: CheckFailed"""
    import pyarrow
    import pyarrow.parquet

    file.seek(0)
    for batch in pyarrow.parquet.ParquetFile(file).iter_batches(columns=["payload"]):
        column = batch.column(0)
        if pyarrow.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        data = bytearray(b"".join(column.cast(pyarrow.binary()).to_pylist()))
        scanner.feed(data, 0, len(data))


# Acknowledgements while exports run


def _run_latency(server: Server, plan: Plan, run: str) -> Latency:
    publishers = connect_publishers(server.mqtt_port, LATENCY_PUBLISHERS, plan.payload_bytes, run)
    try:
        return run_paced(publishers, rate=LATENCY_RATE, warm_up_s=plan.warm_up_s, seconds=plan.seconds)
    finally:
        for publisher in publishers:
            publisher.socket.close()


def _bench_ack(plan: Plan, report: Report, server: Server) -> None:
    title = f"ack at {LATENCY_RATE:,}/s from {LATENCY_PUBLISHERS} publishers, stored"
    forms = [form for form in FORMATS if _is_available(server, form)]
    for number in range(plan.rounds):
        _add_latency(report, plan, "replay_ack", title, _run_latency(server, plan, f"quiet-{number}"))
        for form in forms:
            with exporting(server.http_port, form):
                latency = _run_latency(server, plan, f"{form}-{number}")
            _add_latency(report, plan, f"replay_ack_{form}", f"{title}, during an export as {form}", latency)


def _add_latency(report: Report, plan: Plan, name: str, title: str, latency: Latency) -> None:
    report.add_latency(name, title, latency.p50_ms, latency.p99_ms)
    late = report.add_figure(f"{name}{LATE_SUFFIX}", f"{title}, of which the generator's own lateness, p99", "ms")
    late.series.values.append(latency.late_p99_ms)
    plan.report(f"{title}: p50 {latency.p50_ms:.2f} ms, p99 {latency.p99_ms:.2f} ms")


# Questions


def _ask(plan: Plan, report: Report, server: Server, key: str, title: str, path: str) -> Any:
    """Ask some times over, the first time to warm the file cache; the last answer."""
    figure = report.add_figure(f"{key}_ms", title, "ms")
    answer = get_json(server.http_port, path)
    for _ in range(ASKED_TIMES):
        begun = time.perf_counter()
        answer = get_json(server.http_port, path)
        figure.series.values.append((time.perf_counter() - begun) * 1e3)
    plan.report(f"{title}: {figure.series.median:.1f} ms")
    if answer.get("complete") is not True:
        figure.failure = f"the answer is not complete; it came to {answer.get('scanned_to')}"
    return answer


def _day(server: Server) -> tuple[int, int]:
    """Times of the stream's first and last record, epoch milliseconds."""
    stream = bench_stream(server)
    oldest, newest = (datetime.fromisoformat(stream[name]) for name in ("oldest", "newest"))
    return round(oldest.timestamp() * 1000), round(newest.timestamp() * 1000)


def _ask_histogram(plan: Plan, report: Report, server: Server, data: Data) -> None:
    oldest_ms, newest_ms = _day(server)
    path = f"/api/v1/histogram?topic={FILTER}&buckets={BUCKETS}&from={oldest_ms}&to={newest_ms + 1}"
    title = f"histogram of a day, {data.records:,} records in {BUCKETS} buckets"
    answer = _ask(plan, report, server, "histogram", title, path)
    counted = sum(bucket["count"] for bucket in answer["buckets"])
    if counted != data.records:
        raise CheckFailed(f"the histogram counts {counted:,} of {data.records:,} records")


def _ask_series(plan: Plan, report: Report, server: Server, data: Data) -> None:
    oldest_ms, newest_ms = _day(server)
    topic = data.layout.topic(int(np.argmax(data.layout.topic_numbers == 0)))
    path = f"/api/v1/series?topic={topic}&field=/tick&points={POINTS}&from={oldest_ms}&to={newest_ms + 1}"
    title = f"series of {data.busy_records:,} values of one topic, in at most {POINTS:,} points"
    answer = _ask(plan, report, server, "series", title, path)
    busy = np.flatnonzero(data.layout.topic_numbers == 0)
    cycles, rest = divmod(data.records, data.layout.topic_count)
    in_last = busy[busy < rest]
    last = cycles * data.layout.topic_count + in_last[-1] if len(in_last) else data.records - rest - 1
    expected = (data.busy_records, DIGIT_SEQUENCE_MAX + int(busy[0]), DIGIT_SEQUENCE_MAX + int(last))
    found = (sum(answer["count"]), int(min(answer["min"], default=0)), int(max(answer["max"], default=0)))
    if found != expected:
        raise CheckFailed(f"the series has count, least and largest {found}, {expected} were published")


def _ask_topics(plan: Plan, report: Report, server: Server, data: Data) -> None:
    path = f"/api/v1/topics?topic={FILTER}&limit={TOPICS}&at={sum(_day(server)) // 2}"
    title = f"{TOPICS:,} topics as they were in the middle of the day"
    answer = _ask(plan, report, server, "topics_at", title, path)
    numbers = np.sort([topic["payload"]["tick"] - DIGIT_SEQUENCE_MAX for topic in answer["topics"]])
    expected = newest_of_topics(data.layout.topic_numbers, int(numbers[-1]) + 1)
    if not np.array_equal(numbers, expected):
        raise CheckFailed("the topics at a time are not the newest of each before it")


def newest_of_topics(numbers: Column, count: int) -> Column:
    """Of the first `count` messages the last of each topic, sorted."""
    first = max(0, count - 2 * len(numbers))
    sequences = np.arange(first, count)[::-1]
    newest = np.unique(numbers[sequences % len(numbers)], return_index=True)[1]
    return np.sort(sequences[newest])


# To subscribers


def _bench_replays(plan: Plan, report: Report, server: Server, data: Data, keys: Sequence[str]) -> None:
    for qos, key in enumerate(REPLAY_KEYS):
        if key not in keys:
            continue
        row = report.add_row(Row(key, f"$replay of the log to an MQTT subscriber, QoS {qos}"))

        def from_memory(qos: int = qos) -> LoadResult:
            with _in_memory(plan, data.records) as (other, kept):
                return replay(other, plan, kept, qos)

        runs: dict[str, Callable[[], LoadResult]] = {
            HEADRACE: partial(replay, server, plan, data, qos),
            MEMORY_LABEL: from_memory,
        }
        scenario = MQTT_SCENARIOS["q1_1_1" if qos else "q0_1_1"]
        measure_runs(row, plan, runs, partial(run_ceiling, scenario, plan))


def replay(server: Server, plan: Plan, data: Data, qos: int) -> LoadResult:
    """History to one subscriber, to its end or as long as there is time. Raises: CheckFailed, PeerFailed"""
    connection = connect_mqtt(server.mqtt_port, f"bench-replayer-{qos}")
    begun_s = time.perf_counter()
    subscribe(connection, "$replay/0/bench/dev/#", qos)
    subscriber = Subscriber(connection, "subscriber", new_layout(plan, qos))
    with contextlib.closing(Load([], [subscriber])) as load:
        result = load.read(
            messages=data.records, seconds=REPLAY_S * plan.seconds, server_cpu_s=server.cpu_s, begun_s=begun_s
        )
    if not result.messages:
        raise CheckFailed(f"no message was replayed in {REPLAY_S * plan.seconds:.0f} s")
    return result
