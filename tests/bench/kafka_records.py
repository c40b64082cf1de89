"""What a record costs on its way to Kafka and back: `python -m tests.bench.kafka_records`.

Microseconds of CPU a record, the best of many batches of 1,000: payloads of 200 bytes over 50 topics, runs of so many
rows. No Kafka, no socket.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

from bridge.encoding import encode_rows
from bridge.records import RecordRun, Topic
from bridge.streams.kafka.batches import BatchBuilder, Heads
from bridge.streams.kafka.fetched import batches_of
from bridge.streams.kafka.keys import KeyTemplate, Placement
from bridge.streams.kafka.lanes import Batch, Lane, Portion
from bridge.streams.kafka.records import Decoder, part_of
from broker.publish_run import PublishRun
from tests.support.log_contract import RunMaker

PAYLOAD = b'{"tick":100000000,"value":21.5,"note":"' + b"x" * 159 + b'"}'
BATCH_RECORDS = 1_000
BATCH_BYTES = 900_000
TOPICS = 50
RECORDS_A_MS = 200
REPEATS = 40
TIME_MS = 1_795_374_000_123


def portions(maker: RunMaker, rows: int, partitions: int) -> list[Portion]:
    """Rows of many runs that go to one of some partitions, `BATCH_RECORDS` in all."""
    placement = Placement(KeyTemplate("{topic}"))
    placement.set_partitions(partitions)
    found: list[Portion] = []
    count = 0
    while count < BATCH_RECORDS:
        run = maker.run(
            [PAYLOAD] * rows, time_ms=TIME_MS + count // RECORDS_A_MS, client_id=f"device-{len(found) % 10}"
        )
        topics: list[Topic] = [route.sink_topic for route in run.routes]  # type: ignore[misc]
        places = [placement.of(topic.name, run.client_id) for topic in topics]
        wanted = places[0][1]
        chosen: Sequence[int] = [row for row, place in enumerate(places) if place[1] == wanted]
        chosen = chosen[: BATCH_RECORDS - count]
        if partitions == 1 and len(chosen) == rows:
            chosen = range(rows)
        found.append(Portion(run, chosen, topics, [places[row][0] for row in chosen], "n7aaaa"))
        count += len(chosen)
    return found


def encode(parts: list[Portion], heads: Heads) -> bytes:
    """One batch, as the sender builds it."""
    batch = Batch(Lane(0), BatchBuilder(heads, 0, BATCH_BYTES))
    for portion in parts:
        assert batch.add(portion, BATCH_RECORDS) == len(portion)
    batch.finish(1, 0, 0)
    return batch.data


def decode(decoder: Decoder, data: bytes) -> list[RecordRun]:
    """A fetched batch, as readers take it."""
    return [run for batch in batches_of(data) for run in decoder.runs(batch, 0, 0, 1 << 62)]


def shown(parts: list[Portion]) -> list[RecordRun]:
    """What live readers are given of a confirmed batch."""
    found = []
    for portion in parts:
        assert isinstance(portion.run, PublishRun)
        found.append(part_of(portion.run, portion.rows, portion.topics, portion.node_run, 0, 0))
    return found


def events(runs: list[RecordRun]) -> int:
    """The rows as events."""
    return sum([len(encode_rows("event", "bench", "k3", run, None, "bench~k3~", "~0")) for run in runs])


def best_us(action: Callable[[], object]) -> float:
    """CPU microseconds a record."""
    best_s = float("inf")
    for _ in range(REPEATS):
        begun = time.process_time()
        action()
        best_s = min(best_s, time.process_time() - begun)
    return best_s / BATCH_RECORDS * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="*", default=[500, 50, 1])
    parser.add_argument("--partitions", type=int, nargs="*", default=[1, 12])
    options = parser.parse_args()
    print("partitions  rows of a run   encode   shown   decode   events   (µs of CPU a record)")
    for partitions in options.partitions:
        for rows in options.rows:
            parts = portions(RunMaker(topics=TOPICS), rows, partitions)
            heads = Heads()
            data = encode(parts, heads)
            decoder = Decoder("bench", None)
            runs = decode(decoder, data)
            figures = [
                best_us(lambda parts=parts, heads=heads: encode(parts, heads)),  # type: ignore[misc]
                best_us(lambda parts=parts: shown(parts)),  # type: ignore[misc]
                best_us(lambda decoder=decoder, data=data: decode(decoder, data)),  # type: ignore[misc]
                best_us(lambda runs=runs: events(runs)),  # type: ignore[misc]
            ]
            print(f"{partitions:10}  {rows:13}  {'  '.join(f'{figure:7.2f}' for figure in figures)}", flush=True)


if __name__ == "__main__":
    main()
