"""How many events a second are encoded from committed runs: `python -m tests.bench.encode_events`."""

from __future__ import annotations

import time

from bridge.encoding import encode_rows
from bridge.history.scan import Encoding
from bridge.records import RecordRun, Topic

ROWS = 1_000
ROUNDS = 200
ENCODINGS: tuple[Encoding, ...] = ("json", "csv", "poll")


def make_run(kind: str) -> RecordRun:
    """A read of small publishes over 50 topics; `kind` is what the payloads are."""
    data = bytearray()
    topics = [Topic(f"sensors/p{number:04d}/t") for number in range(50)]
    payload_starts, ends, rows = [], [], []
    for number in range(ROWS):
        topic = topics[number % 50]
        payload = {
            "json": b'{"temp":21.5,"seq":%d}' % number,
            "number": b"%d.5" % number,
            "text": b"on since %d" % number,
            "mixed": b"on" if number % 2 else b"21.5",
        }[kind]
        head = b"\x00" + bytes([len(topic.name)]) + topic.name.encode() + b"\x00\x01"
        data += b"\x32" + bytes([len(head) + len(payload)]) + head
        payload_starts.append(len(data))
        data += payload
        ends.append(len(data))
        rows.append(topic)
    return RecordRun(
        bytes(data),
        0,
        rows,
        payload_starts,
        ends,
        base_offset=8_812_000,
        first_number=88_120,
        node_run="n7",
        received_at_ms=1_795_374_000_123,
        client_id="p1",
        is_v5=False,
    )


def best_rate(kind: str, rows: list[int] | None = None, encoding: Encoding = "event") -> float:
    """Rows a second in the best round."""
    run = make_run(kind)
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        encode_rows(encoding, "telemetry", "k3", run, rows, "telemetry~k3~0.", "")
        best = min(best, time.perf_counter() - begin)
    return (ROWS if rows is None else len(rows)) / best


if __name__ == "__main__":
    for each in ("json", "number", "text", "mixed"):
        print(f"{each:8} {best_rate(each) / 1e6:6.2f} M events/s")
    for encoding in ENCODINGS:
        print(f"{encoding:8} {best_rate('json', encoding=encoding) / 1e6:6.2f} M lines/s")
    print(f"{'a tenth':8} {best_rate('json', list(range(0, ROWS, 10))) / 1e6:6.2f} M events/s")
