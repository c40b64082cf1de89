"""What a shared subscription costs the engine beside a usual one, in ns a publish. `python -m tests.bench.shared`"""

from __future__ import annotations

import time

from broker.codec.packets import Puback
from broker.config import BrokerConfig
from broker.engine import Engine
from broker.outbox import flush
from tests.bench.receive import ROWS, read_of
from tests.support.engine_client import EngineClient

ROUNDS = 60


def measure(qos: int, members: int, choice: str, rows: int) -> float:
    """The best of `ROUNDS` reads of `rows` publishes, in ns a publish; `members` 0: one usual subscriber."""
    engine = Engine(BrokerConfig(shared_choice=choice))  # type: ignore[arg-type]
    readers = [EngineClient(engine) for _ in range(max(1, members))]
    for number, reader in enumerate(readers):
        reader.connect(f"s{number}")
        reader.subscribe("$share/g/bench/#" if members else "bench/#", qos)
    publisher = EngineClient(engine)
    publisher.connect("p")
    whole = read_of(qos, 4)
    data = whole[: len(whole) // ROWS * rows]
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter_ns()
        publisher.connection.receive(data, 0)
        flush(engine.touched, 0)
        best = min(best, time.perf_counter_ns() - started)
        publisher.transport.written.clear()
        for reader in readers:
            packets = reader.received()
            if qos:
                reader.send(*[Puback(packet.packet_id) for packet in packets])  # type: ignore[attr-defined]
    return best / rows


if __name__ == "__main__":
    for qos in (0, 1):
        for rows in (1, 20, 1_000):
            print(f"QoS {qos}  {rows:5} a read  usual         {measure(qos, 0, 'round_robin', rows):7.0f} ns a publish")
            for choice in ("round_robin", "least_outstanding"):
                for members in (1, 3, 100):
                    cost = measure(qos, members, choice, rows)
                    print(f"QoS {qos}  {rows:5} a read  {members:3} of {choice:18} {cost:7.0f} ns a publish")
