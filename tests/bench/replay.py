"""How many stored messages a second reach one MQTT subscriber: `python -m tests.bench.replay [RECORDS]`.

First the encoding alone, then the whole way: a real server, its reader process, a raw socket that counts and, with
QoS 1, acknowledges. Records have 200 bytes of payload in 50 topics.
"""

from __future__ import annotations

import socket
import sys
import time

from bridge.history.scan import PublishForm
from bridge.publish_frames import PublishFrames
from bridge.records import RecordRun, Topic
from broker.codec.encode import PUBACK_STREAM, encode_publish
from broker.codec.packets import Publish
from tests.support import mqtt_wire as wire
from tests.support.http_client import metrics
from tests.support.mqtt_client import RawClient
from tests.support.server import ServerProcess

RECORDS = 500_000
TOPICS = 50
MARK = b"\xfe\xff\xfe"
"""Once in each payload and nowhere else, so that messages are counted without being parsed."""
PAYLOAD = MARK + b"x" * 197
IDS = 65_535


def encoding_rate(is_v5: bool, qos: int) -> float:
    """Frames a second out of runs of 1,000 plain rows, columns included."""
    packets = [Publish(f"bench/device/{row % TOPICS:03d}", PAYLOAD, qos, packet_id=1) for row in range(1_000)]
    frames = [encode_publish(packet, 4) for packet in packets]
    topics = {packet.topic_name: Topic(packet.topic_name) for packet in packets}
    ends, position = [], 0
    for frame in frames:
        position += len(frame)
        ends.append(position)
    run = RecordRun(
        b"".join(frames),
        0,
        [topics[packet.topic_name] for packet in packets],
        [end - len(PAYLOAD) for end in ends],
        ends,
        base_offset=8_812_000,
        first_number=1,
        node_run="n7",
        received_at_ms=1_795_374_000_123,
        client_id="p1",
        is_v5=False,
    )
    best = float("inf")
    for _ in range(100):
        begin = time.perf_counter()
        growing = PublishFrames(PublishForm(is_v5, qos), "default", 0)
        items = growing.encode("s1", run, range(1_000))
        growing.keep(run, range(1_000), items, ("default~s1~0.", ""))
        growing.columns()
        best = min(best, time.perf_counter() - begin)
    return 1_000 / best


def fill(server: ServerProcess, count: int) -> None:
    """Publish with QoS 1, as fast as they are acknowledged."""
    with RawClient(server.mqtt_port, wire.V311) as client:
        client.connect("filler")
        batch = b"".join(
            wire.publish(f"bench/device/{row % TOPICS:03d}", PAYLOAD, 1, row + 1, version=wire.V311)
            for row in range(1_000)
        )
        answers = 4 * 1_000
        for _ in range(count // 1_000):
            client.send(batch)
            left = answers
            while left:
                left -= len(client.socket.recv(min(left, 65_536)))


def replay_rate(server: ServerProcess, version: int, qos: int, count: int) -> tuple[float, float]:
    """Messages a second from SUBSCRIBE to the last one, and how long the first took in ms."""
    with RawClient(server.mqtt_port, version) as client:
        client.connect("replayer")
        stream = client.socket
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        begin = time.perf_counter()
        client.send(wire.subscribe(1, ("$replay/-1h/#", qos), version=version))
        first_s = 0.0
        seen = acknowledged = 0
        tail = b""
        while seen < count:
            data = stream.recv(1 << 20)
            assert data, "the server closed"
            joined = tail + data
            found = joined.count(MARK)
            if found and not first_s:
                first_s = time.perf_counter() - begin
            seen += found
            tail = joined[-2:] if not joined.endswith(MARK) else b""
            while qos and acknowledged < seen:
                first = acknowledged % IDS + 1
                some = min(seen - acknowledged, IDS - first + 1)
                client.send(PUBACK_STREAM[4 * first : 4 * (first + some)])
                acknowledged += some
        return count / (time.perf_counter() - begin), first_s * 1_000


def main() -> None:
    for is_v5 in (False, True):
        for qos in (0, 1):
            rate = encoding_rate(is_v5, qos)
            print(f"encode   MQTT {'5    ' if is_v5 else '3.1.1'} QoS {qos}  {rate / 1e6:6.2f} M frames/s", flush=True)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else RECORDS
    for storage in ("sqlite", "memory"):
        config = f'[[streams]]\nname = "bench"\ntopics = ["bench/#"]\nstorage = "{storage}"\n'
        config += 'retention = { bytes = "4GiB" }\n'
        with ServerProcess(config=config) as server:
            fill(server, count)
            for version in (wire.V311, wire.V5):
                for qos in (0, 1):
                    rate, first_ms = replay_rate(server, version, qos, count)
                    name = "5    " if version == wire.V5 else "3.1.1"
                    print(
                        f"{storage}   MQTT {name} QoS {qos}  {rate / 1e3:6.0f} k messages/s"
                        f"   first after {first_ms:5.1f} ms",
                        flush=True,
                    )
            dropped = [value for key, value in metrics(server.http_url).items() if "dropped_messages" in key]
            assert not any(dropped), dropped


if __name__ == "__main__":
    main()
