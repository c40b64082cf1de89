"""How many plain publishes a second `decode_publishes` walks: 128 KiB reads, 64-byte payloads, topics of 16 bytes.

Run it: `python -m tests.bench.decode_publishes`. It prints millions of rows a second, the best of 30 reads.
"""

from __future__ import annotations

import time

from broker.codec.decode import PublishColumns, decode_publishes
from broker.codec.encode import encode_publish
from broker.codec.packets import Publish
from broker.routing import Route

READ_BYTES = 131_072
PAYLOAD = bytes(range(64))
REPEATS = 30


def make_read(topics: int, qos: int, protocol_level: int) -> tuple[bytes, int]:
    """One read of publishes whose topics alternate, and how many they are."""
    frames: list[bytes] = []
    size = 0
    while size < READ_BYTES:
        row = len(frames)
        packet_id = row % 65_535 + 1 if qos else 0
        publish = Publish(f"sensor/{row % topics:04d}/temp", PAYLOAD, qos, packet_id=packet_id)
        frames.append(encode_publish(publish, protocol_level))
        size += len(frames[-1])
    return b"".join(frames), len(frames)


def rows_per_second(topics: int, qos: int, protocol_level: int) -> float:
    """The best of `REPEATS` reads, with all routes cached."""
    data, rows = make_read(topics, qos, protocol_level)
    routes: dict[bytes, Route] = {}
    for number in range(topics):
        topic_name = f"sensor/{number:04d}/temp"
        topic = topic_name.encode()
        routes[topic] = Route(topic_name, len(topic).to_bytes(2, "big") + topic, None)
    best_s = float("inf")
    for _ in range(REPEATS):
        columns = PublishColumns()
        started = time.perf_counter()
        reached = decode_publishes(data, 0, routes, routes.get, protocol_level == 5, columns, len(data))
        best_s = min(best_s, time.perf_counter() - started)
        assert reached == len(data)
        assert len(columns.ends) == rows
    return rows / best_s


def main() -> None:
    """Print the table."""
    print("topics  QoS 0 3.1.1  QoS 0 v5  QoS 1 3.1.1  QoS 1 v5   (million rows a second)")
    for topics in (1, 50):
        figures = [rows_per_second(topics, qos, level) / 1e6 for qos in (0, 1) for level in (4, 5)]
        print(f"{topics:6}  {figures[0]:11.2f}  {figures[1]:8.2f}  {figures[2]:11.2f}  {figures[3]:8.2f}")


if __name__ == "__main__":
    main()
