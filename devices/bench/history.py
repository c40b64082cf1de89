"""`headrace bench stored --history`: a long log. Memory of the server as it grows, and how soon a rare topic is found.

The log is filled through MQTT, the server started again on it, its files put out of the page cache, and a reader asks
for the one topic that has two records in the middle.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import tempfile
import time
from pathlib import Path

from devices.bench.checks import CheckFailed
from devices.bench.endpoints import Publisher
from devices.bench.frames import PublishBlock, PublishLayout
from devices.bench.load import Load
from devices.bench.peers import HEADRACE, PEERS, Server, data_root, running
from devices.bench.results import Report
from devices.bench.rounds import Plan
from devices.bench.stored import expect_records
from devices.bench.wire import PeerFailed, connect_mqtt, open_events

TOPIC_COUNT = 10_000
WINDOW = 4_000
RARE_PREFIX = "bench/rare/"
RARE_MESSAGES = 2
RECORDS_A_SECOND_MIN = 50_000
FIRST_EVENT_TIMEOUT_S = 30.0
CACHED_SHARE_MAX = 0.02


def bench_history(plan: Plan, report: Report, records: int) -> None:
    """Fill a log with `records` and measure memory and the rare topic into the report."""
    try:
        with tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=data_root()) as place:
            directory = Path(place)
            _fill(plan, report, records, directory)
            for _ in range(plan.rounds):
                _find_rare(plan, report, directory)
    except (CheckFailed, PeerFailed) as error:
        report.failures.append(f"history: {error}")
        plan.report(report.failures[-1])


def _publisher(server: Server, plan: Plan, client_id: str, prefix: str, topic_count: int, window: int) -> Publisher:
    layout = PublishLayout(qos=1, payload_bytes=plan.payload_bytes, topic_count=topic_count, topic_prefix=prefix)
    connection = connect_mqtt(server.mqtt_port, client_id)
    return Publisher(connection, client_id, PublishBlock(layout, window), window=window, is_acked=True)


def _fill(plan: Plan, report: Report, records: int, directory: Path) -> None:
    timeout_s = records / RECORDS_A_SECOND_MIN + 10
    with running(PEERS[HEADRACE], storage="sqlite", directory=directory) as server:
        fresh_bytes = server.settled_rss_bytes()
        filler = Load([_publisher(server, plan, "bench-filler", "bench/dev/", TOPIC_COUNT, WINDOW)], [])
        rare = Load([_publisher(server, plan, "bench-rare", RARE_PREFIX, 1, RARE_MESSAGES)], [])
        with contextlib.closing(filler), contextlib.closing(rare):
            start = time.perf_counter()
            filler.fill(records // 10, timeout_s)
            early_bytes = server.settled_rss_bytes()
            filler.fill(records // 2, timeout_s)
            rare.fill(RARE_MESSAGES, timeout_s)
            filler.fill(records, timeout_s)
            seconds = time.perf_counter() - start
            late_bytes = server.settled_rss_bytes()
            expect_records(server, records + RARE_MESSAGES)
    for key, title, rss_bytes in (
        ("rss_fresh_mb", "memory of the server, just started", fresh_bytes),
        ("rss_early_mb", f"memory of the server after {records // 10:,} messages", early_bytes),
        ("rss_late_mb", f"memory of the server after {records:,} messages", late_bytes),
    ):
        report.add_figure(key, title, "MB").series.values.append(rss_bytes / 1e6)
        plan.report(f"{title}: {rss_bytes / 1e6:.1f} MB")
    plan.report(f"{records:,} records over {TOPIC_COUNT:,} topics in {seconds:.1f} s")


def _find_rare(plan: Plan, report: Report, directory: Path) -> None:
    with running(PEERS[HEADRACE], storage="sqlite", directory=directory) as server:
        for key, title in (
            ("rare_topic_ms", "first event of a rare topic, file cache cold, server just started"),
            ("rare_topic_again_ms", "the same asked again of the same server, file cache cold again"),
        ):
            cached = drop_from_cache(directory / "data")
            first_event_ms = _first_event_ms(server)
            report.add_figure(key, title, "ms").series.values.append(first_event_ms)
            plan.report(f"{title}: {first_event_ms:.1f} ms ({cached:.1%} of the files were cached)")
            if cached > CACHED_SHARE_MAX:
                raise CheckFailed(f"{cached:.0%} of the log's files stayed in the page cache: not a cold start")


def _first_event_ms(server: Server) -> float:
    """From the request to the first event of the rare topic."""
    start = time.perf_counter()
    connection, body, _ = open_events(server.http_port, f"topic={RARE_PREFIX}%23&since=-24h")
    with contextlib.closing(connection):
        connection.settimeout(FIRST_EVENT_TIMEOUT_S)
        while b'"topic":"' + RARE_PREFIX.encode() not in body:
            try:
                piece = connection.recv(65536)
            except OSError as error:
                raise PeerFailed(f"no event of the rare topic: {error}") from error
            if not piece:
                raise PeerFailed("the server ended the stream before the rare topic's event")
            body += piece
    return (time.perf_counter() - start) * 1e3


def drop_from_cache(directory: Path) -> float:
    """Ask the kernel to forget all files below a directory; the share of their pages that stayed."""
    total = stayed = 0
    for path in directory.rglob("*"):
        if path.is_file() and path.stat().st_size:
            pages, resident = _drop_file(path)
            total += pages
            stayed += resident
    return stayed / total if total else 0.0


def _drop_file(path: Path) -> tuple[int, int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # dirty pages are not dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return _resident_pages(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def _resident_pages(descriptor: int, size: int) -> tuple[int, int]:
    """Pages of an open file, and how many of them are in the page cache (mincore)."""
    pages = -(-size // mmap.PAGESIZE)
    residency = (ctypes.c_ubyte * pages)()
    # A private writable mapping is never written to, but lets ctypes take its address.
    with mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapping:
        anchor = ctypes.c_char.from_buffer(mapping)
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(size), residency)
        del anchor
    if failed:
        raise PeerFailed(f"mincore: {os.strerror(ctypes.get_errno())}")
    return pages, sum(flag & 1 for flag in residency)
