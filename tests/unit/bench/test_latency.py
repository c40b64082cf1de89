"""Paced runs: latencies count from the time a message was due, and a lost acknowledgement fails the run."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from devices.bench import latency as latency_module
from devices.bench.checks import CheckFailed, encode_pubacks
from devices.bench.endpoints import Publisher
from devices.bench.frames import PublishBlock, PublishLayout
from devices.bench.history import drop_from_cache
from devices.bench.latency import bare_fsync, percentiles, run_paced

LAYOUT = PublishLayout(qos=1)


def acknowledge_all(connection: socket.socket, answers_max: int) -> None:
    """Play the server for one publisher: a PUBACK for each PUBLISH, for the first `answers_max` of them."""
    pending = b""
    assert LAYOUT.packet_id_offset is not None
    with contextlib.suppress(OSError):
        while data := connection.recv(65536):
            pending += data
            rows, rest = divmod(len(pending), LAYOUT.frame_bytes)
            packet_ids = LAYOUT.field(pending, LAYOUT.packet_id_offset, ">u2", 0, rows)
            pending = pending[len(pending) - rest :]
            connection.sendall(encode_pubacks(packet_ids[:answers_max]))
            answers_max -= min(answers_max, rows)


@contextlib.contextmanager
def served(publishers: int, answers_max: int = 1_000_000) -> Iterator[list[Publisher]]:
    """Publishers whose server is a thread each."""
    with contextlib.ExitStack() as stack:
        threads, connected = [], []
        for number in range(publishers):
            ours, theirs = socket.socketpair()
            stack.callback(theirs.close)
            threads.append(threading.Thread(target=acknowledge_all, args=(theirs, answers_max)))
            threads[-1].start()
            connected.append(Publisher(ours, f"publisher {number}", PublishBlock(LAYOUT, 1), window=1, is_acked=True))
            connected[-1].is_stopped = True
        try:
            yield connected
        finally:
            for publisher in connected:
                publisher.socket.close()
            for thread in threads:
                thread.join()


def test_every_message_of_a_paced_run_is_sent_and_acknowledged() -> None:
    with served(publishers=3) as publishers:
        result = run_paced(publishers, rate=2_000, warm_up_s=0.01, seconds=0.04)
    assert result.sent == 100
    assert [publisher.sent for publisher in publishers] == [34, 33, 33]
    assert 0 < result.p50_ms <= result.p99_ms


def test_an_acknowledgement_that_never_comes_fails_a_paced_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_module, "DRAIN_TIMEOUT_S", 0.05)
    with served(publishers=1, answers_max=9) as publishers, pytest.raises(CheckFailed, match="loss: 1 of 10"):
        run_paced(publishers, rate=2_000, warm_up_s=0, seconds=0.005)


def test_percentiles_are_milliseconds() -> None:
    assert percentiles(np.arange(101) / 1000, 50, 99) == [50.0, 99.0]


def test_the_bare_disk_is_timed(tmp_path: Path) -> None:
    p50_ms, p99_ms = bare_fsync(tmp_path, 0.02)
    assert 0 < p50_ms <= p99_ms


def test_files_leave_the_page_cache(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(bytes(1_000_001))
    assert 0 <= drop_from_cache(tmp_path) <= 1
