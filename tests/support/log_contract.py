"""What every `StreamLog` must do, as a suite: subclass `LogContract` and give it an `opened` fixture.

`EmbeddedLogContract` is what logs promise beyond that which are alone in writing to their storage: they know offsets
before the commit, count bytes and let old records go themselves. Kafka gives offsets when it has stored the records,
and keeps its topics as long as it is told to.

`RunMaker` makes publishes as the broker would hand them over, without a broker.
"""

from __future__ import annotations

import asyncio
import gc
import re
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from bridge.history.buckets import Buckets
from bridge.history.histogram import HistogramQuestion
from bridge.history.overview import histogram, series, state
from bridge.history.scan import Encoding, Scan, ScanResult, StreamQuestion, StreamScan
from bridge.records import Topic
from bridge.streams.log import StreamLog
from broker.publish_run import PublishRun
from broker.routing import Route


def encode_length(value: int) -> bytes:
    """A variable byte integer (MQTT 5 §1.5.5)."""
    out = bytearray()
    while True:
        value, byte = value >> 7, value & 0x7F
        out.append(byte | 0x80 if value else byte)
        if not value:
            return bytes(out)


class RunMaker:
    """Makes runs for one log. A topic has one `Route`, as in the broker's cache."""

    def __init__(self, log: object = None, *, topics: int = 3) -> None:
        self.log = log
        self.topic_names = [f"site/{number % 7}/device/{number}" for number in range(topics)]
        self.routes: dict[str, Route] = {}
        self._number = 1

    def route(self, topic_name: str) -> Route:
        route = self.routes.get(topic_name)
        if route is None:
            encoded = topic_name.encode()
            topic = Topic(topic_name, self.log)
            encoded = len(encoded).to_bytes(2, "big") + encoded
            route = self.routes[topic_name] = Route(topic_name, encoded, topic)
        return route

    def run(
        self,
        payloads: Sequence[bytes],
        *,
        topics: Sequence[str] | None = None,
        time_ms: int = 1_000_000,
        client_id: str = "device",
        qos: int = 1,
        properties: bytes | None = None,
        before: bytes = b"",
        after: bytes = b"",
    ) -> PublishRun:
        """A run of one row for each payload; `properties` (without their length) makes it MQTT 5."""
        names = topics or self.topic_names
        data = bytearray(before)
        payload_starts, ends, routes = [], [], []
        for row, payload in enumerate(payloads):
            route = self.route(names[row % len(names)])
            head = route.encoded_topic + (b"\x00\x07" if qos else b"")
            if properties is not None:
                head += encode_length(len(properties)) + properties
            data += bytes([0x30 | qos << 1]) + encode_length(len(head) + len(payload)) + head
            payload_starts.append(len(data))
            data += payload
            ends.append(len(data))
            routes.append(route)
        run = PublishRun(
            bytes(data + after),
            len(before),
            routes,
            payload_starts,
            ends,
            [7] * len(routes) if qos else [],
            is_v5=properties is not None,
            client_id=client_id,
            received_at_ms=time_ms,
            qos=qos,
            is_plain=qos < 2 and not properties,
        )
        run.first_number = self._number
        self._number += len(routes)
        return run

    def again(self, run: PublishRun) -> PublishRun:
        """The same publishes once more: a cheap source of load."""
        copy = PublishRun(
            run.data,
            run.start,
            run.routes,
            run.payload_starts,
            run.ends,
            run.packet_ids,
            is_v5=run.is_v5,
            client_id=run.client_id,
            received_at_ms=run.received_at_ms,
        )
        copy.first_number = self._number
        self._number += len(run)
        return copy


class FakeClock:
    """Epoch milliseconds that stand still until they are moved."""

    def __init__(self, now_ms: int = 1_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


async def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Let the loop run until `condition()` holds; a storage has no event for it."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class Committed:
    """What `on_committed` was given."""

    def __init__(self, log: StreamLog) -> None:
        self.runs: list[PublishRun] = []
        self.count = 0
        self._log = log
        log.on_committed = self

    def __call__(self, runs: Sequence[PublishRun]) -> None:
        for run in runs:
            is_readable = self._log.reads_back or run.base_offset + len(run) <= self._log.offsets[0]
            assert is_readable, "readable before it is told"
            self.runs.append(run)
            self.count += len(run)

    async def wait(self, count: int) -> None:
        await wait_until(lambda: self.count >= count)


@dataclass
class Opened:
    """A log of one partition with what a test needs around it."""

    log: StreamLog
    maker: RunMaker
    committed: Committed
    clock: FakeClock

    @property
    def first(self) -> int:
        """The oldest offset kept."""
        return self.log.first_offsets[0]

    @property
    def end(self) -> int:
        """One past the newest that can be read."""
        return self.log.offsets[0]

    async def store(self, *runs: PublishRun) -> None:
        """Append, and wait for the commit and until they can be read."""
        end = self.end + sum(map(len, runs))
        for run in runs:
            self.log.append(run)
        self.log.flush()
        if runs:
            await wait_until(lambda: any(run is runs[-1] for run in reversed(self.committed.runs)))
            await wait_until(lambda: self.end >= end)

    async def scan(self, request: Scan) -> ScanResult:
        """Ask for what a scan of the only partition says."""

        def place(offset: int) -> dict[int, int]:
            return {**self.log.offsets, 0: offset}

        found = await self.log.scan_stream(StreamScan(request, place(request.start), place(request.end)))
        return ScanResult(
            data=found.data,
            count=found.count,
            next_offset=found.next_offsets[0],
            first_offset=found.first_offsets.get(0, 0),
            last_ms=found.last_ms,
            is_epoch_current=found.is_epoch_current,
        )

    async def offset_at(self, time_ms: int) -> int:
        """The first offset at or after a time."""
        return (await self.log.offsets_at(time_ms))[0]

    def request(
        self,
        *filters: str,
        start: int = 0,
        end: int = 1 << 40,
        encoding: Encoding = "json",
        order: str = "asc",
        **bounds: object,
    ) -> Scan:
        return Scan(
            self.log.name,
            self.log.epoch,
            filters or ("#",),
            start,
            end,
            encoding,
            order=order,  # type: ignore[arg-type]
            **bounds,  # type: ignore[arg-type]
        )

    async def offsets(self, *filters: str, **arguments: object) -> list[int]:
        """Offsets of one scan, in its order."""
        return offsets_of(await self.scan(self.request(*filters, **arguments)))  # type: ignore[arg-type]


def rows_of(result: ScanResult) -> list[dict[str, object]]:
    rows = [orjson.loads(line) for line in result.data.splitlines()]
    assert len(rows) == result.count
    return rows


def offsets_of(result: ScanResult) -> list[int]:
    return [row["offset"] for row in rows_of(result)]  # type: ignore[misc]


def numbers(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


class LogContract:
    """Subclasses give the fixture `opened`: a log with one partition, in which nothing is."""

    async def test_runs_are_committed_in_the_order_of_appends(self, opened: Opened) -> None:
        runs = [opened.maker.run(numbers(count)) for count in (1, 5, 2)]
        await opened.store(*runs)
        assert opened.committed.runs == runs
        assert (opened.first, opened.end, opened.log.records) == (0, 8, 8)
        payloads = [row["payload"] for row in rows_of(await opened.scan(opened.request()))]
        assert payloads == [0, 0, 1, 2, 3, 4, 0, 1]

    async def test_nothing_is_readable_before_flush(self, opened: Opened) -> None:
        run = opened.maker.run(numbers(3))
        opened.log.append(run)
        assert opened.committed.count == 0
        assert opened.end == 0
        assert opened.log.pending_bytes == len(run.frames())
        opened.log.flush()
        await opened.committed.wait(3)
        assert opened.log.pending_bytes == 0

    async def test_time_never_falls(self, opened: Opened) -> None:
        runs = [opened.maker.run(numbers(1), time_ms=time_ms) for time_ms in (1_000, 2_000, 1_500, 3_000)]
        await opened.store(*runs)
        assert [run.received_at_ms for run in runs] == [1_000, 2_000, 2_000, 3_000]
        assert opened.log.newest_ms == 3_000

    async def test_records_come_back_as_they_were_published(self, opened: Opened) -> None:
        runs = [
            opened.maker.run([b'{"a":1}', b"text", b"\xff"], time_ms=1_000, client_id="näme"),
            opened.maker.run([b"2"], time_ms=2_000, qos=0, properties=b"\x03\x00\x04text"),
        ]
        for run in runs:
            run.first_number += 40
        await opened.store(*runs)
        rows = rows_of(await opened.scan(opened.request("#")))
        assert [row["payload"] for row in rows] == [{"a": 1}, "text", "/w==", 2]
        assert [row["encoding"] for row in rows] == ["json", "text", "base64", "json"]
        assert [row["client_id"] for row in rows] == ["näme", "näme", "näme", "device"]
        node_runs, row_numbers = zip(*[row["id"].split("-") for row in rows], strict=True)
        assert (len(set(node_runs)), row_numbers) == (1, ("41", "42", "43", "44"))
        assert rows[3]["properties"] == {"content_type": "text"}
        assert [row["qos"] for row in rows] == [1, 1, 1, 0]
        assert {row["epoch"] for row in rows} == {opened.log.epoch}

    async def test_rows_before_and_after_the_run_in_its_read_are_not_its_own(self, opened: Opened) -> None:
        run = opened.maker.run(numbers(3), before=b"x" * 50_000, after=b"y" * 50)
        await opened.store(run)
        assert [row["payload"] for row in rows_of(await opened.scan(opened.request()))] == [0, 1, 2]

    async def test_scan_up_and_down_within_a_range(self, opened: Opened) -> None:
        await opened.store(*[opened.maker.run(numbers(7)) for _ in range(4)])
        assert await opened.offsets(start=5, end=16) == list(range(5, 16))
        assert await opened.offsets(start=5, end=16, order="desc") == list(range(15, 4, -1))
        assert await opened.offsets(start=28, end=99) == []
        assert await opened.offsets(start=9, end=9, order="desc") == []

    async def test_bounds_end_a_scan_and_it_goes_on_where_it_stopped(self, opened: Opened) -> None:
        await opened.store(*[opened.maker.run(numbers(7)) for _ in range(4)])
        several: list[dict[str, Any]] = [{"records_max": 3}, {"bytes_max": 500}, {"work_max": 5}]
        for bounds in several:
            up: list[int] = []
            position, steps = 0, 0
            while position < 28:
                result = await opened.scan(opened.request(start=position, end=28, **bounds))
                up += offsets_of(result)
                assert result.next_offset > position
                position = result.next_offset
                steps += 1
            assert up == list(range(28))
            assert steps > 4
            down: list[int] = []
            position = 28
            while position > 0:
                result = await opened.scan(opened.request(end=position, order="desc", **bounds))
                down += offsets_of(result)
                assert result.next_offset < position
                position = result.next_offset
            assert down == list(reversed(range(28)))

    async def test_bytes_max_ends_after_the_record_that_reaches_it(self, opened: Opened) -> None:
        await opened.store(opened.maker.run(numbers(5)))
        line = len((await opened.scan(opened.request(records_max=1))).data)
        assert (await opened.scan(opened.request(bytes_max=line))).count == 1
        assert (await opened.scan(opened.request(bytes_max=line + 1))).count == 2

    async def test_filters(self, opened: Opened) -> None:
        names = ["a/b", "a/c", "x", "$server/started", "a"]
        await opened.store(opened.maker.run(numbers(10), topics=names), opened.maker.run(numbers(3), topics=["x"]))
        assert await opened.offsets("a/b") == [0, 5]
        assert await opened.offsets("a/+") == [0, 1, 5, 6]
        assert await opened.offsets("a/#") == [0, 1, 4, 5, 6, 9]
        assert await opened.offsets("a/b", "x") == [0, 2, 5, 7, 10, 11, 12]
        assert await opened.offsets("a/b", "x", order="desc") == [12, 11, 10, 7, 5, 2, 0]
        assert await opened.offsets("#") == [offset for offset in range(13) if offset not in (3, 8)]
        assert await opened.offsets("$server/#") == [3, 8]
        assert await opened.offsets("nothing/here") == []
        result = await opened.scan(opened.request("nothing/here", end=13))
        assert result.next_offset == 13
        await opened.store(opened.maker.run(numbers(1), topics=["a/new"]))
        assert await opened.offsets("a/+") == [0, 1, 5, 6, 13]

    async def test_no_filter_at_all_takes_every_topic(self, opened: Opened) -> None:
        await opened.store(opened.maker.run(numbers(3), topics=["a/b", "$server/started", "x"]))
        request = Scan(opened.log.name, opened.log.epoch, (), 0, 9, "json")
        assert offsets_of(await opened.scan(request)) == [0, 1, 2]

    async def test_records_of_one_client(self, opened: Opened) -> None:
        for client_id in ("p1", "p2", "p1", "päö"):
            await opened.store(opened.maker.run(numbers(2), topics=["a", "b"], client_id=client_id))
        assert await opened.offsets(client_id="p1") == [0, 1, 4, 5]
        assert await opened.offsets(client_id="p1", order="desc") == [5, 4, 1, 0]
        assert await opened.offsets("b", client_id="päö") == [7]
        assert await opened.offsets(client_id="p") == []
        result = await opened.scan(opened.request(client_id="p3", end=8))
        assert (result.next_offset, result.count) == (8, 0)

    async def test_records_whose_payload_contains_some_text(self, opened: Opened) -> None:
        payloads = [b'{"state":"open"}', "geöffnet".encode(), b"closed", b"\xff\x00open\x00", b""]
        await opened.store(opened.maker.run(payloads, topics=["open/1", "open/2"], client_id="open"))
        await opened.store(opened.maker.run([b"closed"] * 3))
        assert await opened.offsets(contains=b"open") == [0, 3]
        assert await opened.offsets(contains=b"open", order="desc") == [3, 0]
        assert await opened.offsets("open/2", contains=b"open") == [3]
        assert await opened.offsets(contains="öff".encode()) == [1]
        assert await opened.offsets(contains=b"closed", client_id="open") == [2]
        result = await opened.scan(opened.request(contains=b"nowhere", end=8))
        assert (result.next_offset, result.count) == (8, 0)

    async def test_search_that_finds_nothing_ends_at_its_work_limit(self, opened: Opened) -> None:
        for _ in range(50):
            await opened.store(opened.maker.run(numbers(40), topics=["a", "b"]))
        position = steps = 0
        while position < 2_000:
            result = await opened.scan(opened.request(start=position, end=2_000, contains=b"no", work_max=10))
            assert result.next_offset > position
            position = result.next_offset
            steps += 1
        assert steps > 1

    async def test_times(self, opened: Opened) -> None:
        await opened.store(*[opened.maker.run(numbers(4), time_ms=1_000 + 100 * step) for step in range(5)])
        assert await opened.offsets(from_ms=1_200) == list(range(8, 20))
        assert await opened.offsets(from_ms=1_101, until_ms=1_300) == list(range(8, 12))
        assert await opened.offsets(until_ms=1_100, order="desc") == [3, 2, 1, 0]
        result = await opened.scan(opened.request(until_ms=1_100, end=20))
        assert (result.next_offset, result.last_ms) == (20, 1_000)
        expected = {0: 0, 1_000: 0, 1_001: 4, 1_100: 4, 1_400: 16, 1_401: 20, 9_999: 20}
        assert {time_ms: await opened.offset_at(time_ms) for time_ms in expected} == expected

    async def test_records_are_counted_by_time_and_topic(self, opened: Opened) -> None:
        for step in range(6):
            await opened.store(opened.maker.run(numbers(5), topics=["a/b", "a/c", "x"], time_ms=1_000 + 100 * step))
        buckets = Buckets.over(1_050, 1_450, 2)
        for filters, expected in [(("#",), [10, 10]), (("a/+",), [8, 8]), (("x",), [2, 2]), (("no",), [0, 0])]:
            counts, reach = await histogram([opened.log], filters, buckets, 10)
            assert (counts, reach.is_complete, reach.scanned_to_ms) == (expected, True, 1_450)

    async def test_numbers_are_reduced_to_a_point_for_each_bucket(self, opened: Opened) -> None:
        for step in range(4):
            payloads = [b'{"t":%d}' % (10 * step + number) for number in (1, 3, 2)]
            await opened.store(opened.maker.run([*payloads, b"text"], topics=["a"], time_ms=1_000 + 100 * step))
        indexes, columns, reach = await series([opened.log], ("a",), ("t",), Buckets.over(1_000, 1_600, 3), 10)
        assert list(indexes) == [0, 1]
        assert list(map(list, columns)) == [[1, 21], [13, 33], [12, 32], [1_100, 1_300], [6, 6]]
        assert reach.is_complete

    async def test_state_is_the_last_record_of_each_topic_before_a_place(self, opened: Opened) -> None:
        for step in range(4):
            names = ["a", "b"] if step % 2 else ["a", "c", "$server/x"]
            await opened.store(opened.maker.run(numbers(len(names), 10 * step), topics=names, time_ms=1_000 + step))
        log = opened.log
        for time_ms, expected in [
            (1_004, {"a": 1_003, "b": 1_003, "c": 1_002}),
            (1_002, {"a": 1_001, "b": 1_001, "c": 1_000}),
            (1_001, {"a": 1_000, "c": 1_000}),
            (1_000, {}),
        ]:
            ends = {log.name: await log.offsets_at(time_ms)}
            records, is_all, reach = await state([log], ("#",), ends, 10, topics_max=10, limit=10)
            assert {record.topic: record.time_ms for record in records} == expected
            assert (is_all, reach.is_complete) == (True, True)

    async def test_a_question_of_another_epoch_is_not_answered(self, opened: Opened) -> None:
        await opened.store(opened.maker.run(numbers(3)))
        buckets = Buckets.over(0, 1 << 45, 2)
        what = HistogramQuestion(opened.log.name, "other", ("#",), 0, 0, buckets=buckets)
        for answer in await opened.log.ask_stream(StreamQuestion(what, opened.log.first_offsets, opened.log.offsets)):
            assert (answer.is_epoch_current, answer.is_complete, sum(answer.counts)) == (False, False, 0)

    async def test_another_epoch_reads_nothing(self, opened: Opened) -> None:
        await opened.store(opened.maker.run(numbers(3)))
        request = Scan(opened.log.name, "other", ("#",), 1, 3, "json")
        result = await opened.scan(request)
        assert (result.is_epoch_current, result.data, result.count) == (False, b"", 0)
        assert re.fullmatch(r"[A-Za-z0-9_-]+", opened.log.epoch)

    async def test_withdrawn_runs_leave_no_hole(self, opened: Opened) -> None:
        runs = [opened.maker.run(numbers(3)) for _ in range(3)]
        for run in runs:
            opened.log.append(run)
        assert opened.log.withdraw(runs[1])
        assert not opened.log.withdraw(runs[1])
        opened.log.flush()
        await opened.committed.wait(6)
        assert opened.committed.runs == [runs[0], runs[2]]
        await wait_until(lambda: opened.end >= 6)
        assert opened.log.records == 6
        assert opened.log.pending_bytes == 0
        assert not opened.log.withdraw(runs[0])

    async def test_appends_while_scanning(self, opened: Opened) -> None:
        await opened.store(*[opened.maker.run(numbers(50)) for _ in range(20)])

        async def write() -> None:
            for _ in range(100):
                opened.log.append(opened.maker.run(numbers(10)))
                opened.log.flush()
                await asyncio.sleep(0)

        writing = asyncio.create_task(write())
        seen: list[int] = []
        position = 0
        while not writing.done() or position < opened.end or opened.log.pending_bytes:
            result = await opened.scan(opened.request(start=position, records_max=300))
            seen += offsets_of(result)
            position = result.next_offset
        await writing
        assert seen == list(range(2_000))

    async def test_a_kept_record_does_not_keep_its_connection(self, opened: Opened) -> None:
        class Connection:
            """Stands for whatever a run came from."""

        connection = Connection()
        gone = weakref.ref(connection)
        run = opened.maker.run(numbers(3))
        run.origin = connection  # type: ignore[assignment]
        await opened.store(run)
        opened.committed.runs.clear()
        del run, connection
        gc.collect()
        assert gone() is None
        assert await opened.offsets() == [0, 1, 2]


class EmbeddedLogContract(LogContract):
    """Subclasses give the fixtures `opened` and `open_aged`, a log that keeps records for 1000 ms."""

    async def test_offsets_are_known_when_a_run_is_appended(self, opened: Opened) -> None:
        runs = [opened.maker.run(numbers(count)) for count in (1, 5, 2)]
        for run in runs:
            opened.log.append(run)
        assert [run.base_offset for run in runs] == [0, 1, 6]
        opened.log.flush()
        await opened.committed.wait(8)
        assert [run.base_offset for run in opened.committed.runs] == [0, 1, 6]

    async def test_offsets_of_withdrawn_runs_are_given_again(self, opened: Opened) -> None:
        runs = [opened.maker.run(numbers(3)) for _ in range(3)]
        for run in runs:
            opened.log.append(run)
        assert opened.log.withdraw(runs[1])
        opened.log.flush()
        await opened.committed.wait(6)
        assert [run.base_offset for run in opened.committed.runs] == [0, 3]

    async def test_times_of_the_oldest_and_of_the_newest(self, opened: Opened) -> None:
        await opened.store(*[opened.maker.run(numbers(1), time_ms=time_ms) for time_ms in (1_000, 2_000)])
        assert (opened.log.oldest_ms, opened.log.newest_ms) == (1_000, 2_000)

    async def test_what_else_was_read_is_not_kept(self, opened: Opened) -> None:
        await opened.store(opened.maker.run(numbers(3), before=b"x" * 50_000, after=b"y" * 50))
        assert opened.log.stored_bytes < 1_000

    async def test_old_records_go(self, open_aged: Opened) -> None:
        opened = open_aged
        for step in range(3):
            await opened.store(opened.maker.run(numbers(4), time_ms=1_000_000 + 600 * step))
        opened.clock.now_ms = 1_001_300
        await wait_until(lambda: opened.first == 4)
        assert opened.log.oldest_ms == 1_000_600
        result = await opened.scan(opened.request(start=0))
        assert (result.first_offset, offsets_of(result)) == (4, list(range(4, 12)))
        assert await opened.offsets(order="desc") == list(range(11, 3, -1))
        opened.clock.now_ms = 2_000_000
        await wait_until(lambda: opened.first == 12)
        assert opened.log.stored_bytes == 0
        assert opened.log.newest_ms is None
        assert (await opened.scan(opened.request(start=3, end=9))).next_offset >= 9
        assert await opened.offset_at(0) == 12
        run = opened.maker.run(numbers(1), time_ms=2_000_000)
        await opened.store(run)
        assert (run.base_offset, await opened.offsets()) == (12, [12])
