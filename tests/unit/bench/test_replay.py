"""The log of a day: its topics, the clock under which it is filled, and what is expected of answers about it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from devices.bench.checks import CheckFailed, EventScanner
from devices.bench.frames import PublishLayout, json_payload
from devices.bench.memory import PeakMemory
from devices.bench.peers import HEADRACE, PEERS, Server
from devices.bench.programs import Ports
from devices.bench.replay import Data, check_parquet, newest_of_topics, topic_numbers
from devices.bench.swift_clock import swift_clock

DAY_MS = 24 * 3_600_000


def test_a_tenth_of_a_cycle_is_of_one_topic_and_the_rest_of_each_other_once() -> None:
    numbers = topic_numbers(1_000, 10)
    count_by_topic = Counter(numbers.tolist())
    assert set(count_by_topic) == set(range(1_000))
    assert {count for topic, count in count_by_topic.items() if topic} == {1}
    assert count_by_topic[0] == len(numbers) // 10
    assert (np.diff(np.flatnonzero(numbers == 0)) == 10).all()


@pytest.mark.parametrize("records", [5, 95, 110, 1_234])
def test_the_records_of_the_busy_topic_are_counted(records: int) -> None:
    numbers = topic_numbers(100, 10)
    data = Data(records, PublishLayout(qos=1, topic_numbers=numbers))
    assert data.busy_records == sum(numbers[sequence % len(numbers)] == 0 for sequence in range(records))


@pytest.mark.parametrize("count", [30, 110, 999])
def test_the_newest_message_of_each_topic_is_known_for_any_moment(count: int) -> None:
    numbers = topic_numbers(50, 10)
    newest = {numbers[sequence % len(numbers)]: sequence for sequence in range(count)}
    assert newest_of_topics(numbers, count).tolist() == sorted(newest.values())


def test_a_swift_clock_makes_a_day_of_seconds_and_ends_at_now() -> None:
    now_ns = [5 * DAY_MS * 1_000_000]
    read = swift_clock(4 * DAY_MS, 24 * 3_600 / 10, lambda: now_ns[0])
    assert read() == 4 * DAY_MS * 1_000_000
    now_ns[0] += 5 * 10**9
    assert read() == 4.5 * DAY_MS * 1_000_000
    now_ns[0] += 60 * 10**9
    assert read() == now_ns[0]


def check(numbers: list[int]) -> int:
    payloads = [json_payload(64).replace(b"00000000", b"%08d" % number) for number in numbers]
    scanner = EventScanner("export as parquet")
    with tempfile.TemporaryFile() as file:
        pyarrow.parquet.write_table(pyarrow.table({"topic": ["t"] * len(numbers), "payload": payloads}), file)
        check_parquet(file, scanner)
    return scanner.received


def test_the_numbers_of_a_parquet_file_are_checked() -> None:
    assert check(list(range(300))) == 300
    with pytest.raises(CheckFailed, match="loss: 3 came where 2 was due"):
        check([0, 1, 3])


def test_the_highest_memory_of_a_process_is_seen(tmp_path: Path) -> None:
    grow_and_shrink = "input(); kept = b'x' * 50_000_000; print(flush=True); input(); del kept; print(flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", grow_and_shrink], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        server = Server(PEERS[HEADRACE], process, Ports(0), tmp_path)
        with PeakMemory(server) as memory:
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.stdout.readline()
            while memory.grown_bytes < 40_000_000:
                assert process.poll() is None
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.stdout.readline()
    assert 40_000_000 < memory.grown_bytes < 80_000_000
