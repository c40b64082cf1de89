"""What one read costs the engine: decode, route, acknowledge, in ns a publish. `python -m tests.bench.receive`"""

from __future__ import annotations

import time

from broker.codec.encode import PUBREL_STREAM
from broker.config import BrokerConfig
from broker.engine import Engine
from broker.outbox import flush
from tests.support.engine_client import EngineClient

TOPICS = 50
ROWS = 1_400
ROUNDS = 60


def read_of(qos: int, level: int) -> bytes:
    """One read of plain publishes: 16 bytes of topic, 64 bytes of payload, topics alternating."""
    frames = []
    for row in range(ROWS):
        topic = b"bench/dev/%06d" % (row % TOPICS)
        body = len(topic).to_bytes(2, "big") + topic
        body += (row + 1).to_bytes(2, "big") if qos else b""
        body += b"\0" if level == 5 else b""
        body += b"x" * 64
        frames.append(bytes((0x32 if qos else 0x30, len(body))) + body)
    return b"".join(frames)


def measure(qos: int, level: int, subscribers: int) -> float:
    """The best of `ROUNDS` reads, in ns a publish."""
    engine = Engine(BrokerConfig())
    readers = [EngineClient(engine, level) for _ in range(subscribers)]
    for number, reader in enumerate(readers):
        reader.connect(f"s{number}")
        reader.subscribe("bench/#", qos)
    publisher = EngineClient(engine, level)
    publisher.connect("p")
    data = read_of(qos, level)
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter_ns()
        publisher.connection.receive(data, 0)
        flush(engine.touched, 0)
        best = min(best, time.perf_counter_ns() - started)
        publisher.transport.written.clear()
        for reader in readers:
            written = b"".join(reader.transport.written)
            reader.transport.written.clear()
            if qos:
                step = len(data) // ROWS
                ids = [written[at + 18 + 2 : at + 18 + 4] for at in range(0, len(written), step)]
                reader.connection.receive(b"".join(b"\x40\x02" + packet_id for packet_id in ids), 0)
    return best / ROWS


def measure_exactly_once(level: int) -> float:
    """A read of QoS 2 publishes and one of their PUBRELs, nobody subscribed; the best of `ROUNDS`, in ns a publish."""
    publisher = EngineClient(Engine(BrokerConfig()), level)
    publisher.connect("p")
    rows = min(ROWS, BrokerConfig().receive_maximum)
    data = bytearray(read_of(1, level))
    step = len(data) // ROWS
    for at in range(0, rows * step, step):
        data[at] = 0x34
    publishes, pubrels = bytes(data[: rows * step]), PUBREL_STREAM[4 : 4 * (rows + 1)]
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter_ns()
        publisher.connection.receive(publishes, 0)
        publisher.connection.receive(pubrels, 0)
        flush(publisher.engine.touched, 0)
        best = min(best, time.perf_counter_ns() - started)
        assert len(publisher.transport.written.pop()) == 8 * rows
    return best / rows


if __name__ == "__main__":
    for level in (4, 5):
        for qos in (0, 1):
            for subscribers in (0, 1, 10):
                if qos and level == 5:
                    continue  # Receive Maximum is below what one read of this size holds
                cost = measure(qos, level, subscribers)
                print(
                    f"MQTT {'5' if level == 5 else '3.1.1'}  QoS {qos}  1 -> {subscribers:2}  {cost:7.0f} ns a publish"
                )
        print(f"MQTT {level}, QoS 2 and its PUBREL: {measure_exactly_once(level):.0f} ns")
