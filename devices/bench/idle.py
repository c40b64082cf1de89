"""`headrace bench idle`: resident memory of a server for each connection that says nothing, and how fast they come.

(RSS with all − RSS with the first few) / the difference, so that what a server sets up once does not count.
"""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from devices.bench.frames import encode_connect
from devices.bench.peers import HEADRACE, PEERS, Server, running
from devices.bench.results import Report
from devices.bench.rounds import Plan
from devices.bench.wire import PeerFailed, expect_connack, open_socket, read_events_head, request_events

CONNECTIONS = 10_000
FIRST_CONNECTIONS = 500
CONNECT_BATCH = 100
CONNECTIONS_FOR_EACH_ADDRESS = 5_000
DESCRIPTORS_SPARE = 300
KEEPALIVE_S = 3_600
CONNECTS = "connects"
KEYS = ("idle_mqtt", "idle_sse", CONNECTS)


def raise_descriptor_limit(wanted: int) -> int:
    """Raise this process's limit on open files (children inherit it); how many connections it leaves room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + DESCRIPTORS_SPARE
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(wanted, soft - DESCRIPTORS_SPARE)


def _sources(count: int) -> Iterator[str]:
    """Loopback addresses to connect from: one has local ports for a part of the connections only."""
    for number in range(count):
        yield f"127.0.0.{2 + number // CONNECTIONS_FOR_EACH_ADDRESS}"


def open_mqtt(server: Server, count: int, run: str) -> list[socket.socket]:
    """Connected MQTT clients. Raises: PeerFailed"""
    return _open(
        count,
        server.mqtt_port,
        lambda connection, number: connection.sendall(encode_connect(f"bench-idle-{run}-{number:05d}", KEEPALIVE_S)),
        lambda connection: _discard(expect_connack(connection)),
    )


def open_sse(server: Server, count: int, run: str) -> list[socket.socket]:
    """SSE readers of a topic on which nothing is published. Raises: PeerFailed"""
    return _open(
        count,
        server.http_port,
        lambda connection, number: request_events(connection, "topic=bench/idle/%23"),
        lambda connection: _discard(read_events_head(connection)),
    )


def _discard(answer: object) -> None:
    """It has been checked, and an idle client has no use for what it says."""


def _open(
    count: int, port: int, ask: Callable[[socket.socket, int], None], expect: Callable[[socket.socket], None]
) -> list[socket.socket]:
    connections: list[socket.socket] = []
    try:
        batch: list[socket.socket] = []
        for number, source in enumerate(_sources(count)):
            connection = open_socket(port, source)
            connections.append(connection)
            ask(connection, number)
            batch.append(connection)
            if len(batch) == CONNECT_BATCH or number == count - 1:
                for waiting in batch:
                    expect(waiting)
                batch = []
    except (PeerFailed, OSError) as error:
        close_all(connections)
        raise PeerFailed(f"after {len(connections):,} connections: {error}") from error
    return connections


def close_all(connections: Sequence[socket.socket]) -> None:
    """Close sockets."""
    for connection in connections:
        connection.close()


def bytes_for_each(server: Server, count: int, connect: Callable[[Server, int, str], list[socket.socket]]) -> float:
    """Resident bytes that the server gained for each of `count` connections. Raises: PeerFailed"""
    first = connect(server, FIRST_CONNECTIONS, "first")
    before = server.settled_rss_bytes()
    rest = connect(server, count, "rest")
    after = server.settled_rss_bytes()
    close_all(first)
    close_all(rest)
    return (after - before) / count


def connects_a_second(server: Server, count: int) -> float:
    """MQTT connections that the server takes in a second of its processor time: the generator, which shares the machine
    and is slower at it, does not count. Raises: PeerFailed"""
    close_all(open_mqtt(server, FIRST_CONNECTIONS, "first"))
    before = server.cpu_s()
    close_all(open_mqtt(server, count, "rest"))
    return count / (server.cpu_s() - before)


def bench_idle(plan: Plan, report: Report, keys: Sequence[str] = KEYS) -> None:
    """Measure into the report: MQTT with all peers, SSE with Headrace."""
    count = raise_descriptor_limit(CONNECTIONS + FIRST_CONNECTIONS) - FIRST_CONNECTIONS
    memory_mqtt, memory_sse = (partial(bytes_for_each, connect=connect) for connect in (open_mqtt, open_sse))
    cases: list[tuple[str, str, str, str, Callable[[Server, int], float]]] = [
        *(("idle_mqtt", "an idle MQTT connection", name, "B", memory_mqtt) for name in plan.peers),
        ("idle_sse", "an idle SSE reader", HEADRACE, "B", memory_sse),
        *(
            (CONNECTS, "connections for a second of processor time", name, "/s", connects_a_second)
            for name in plan.peers
        ),
    ]
    for _ in range(plan.rounds):
        for key, what, name, unit, measure in cases:
            if key not in keys:
                continue
            figure = report.add_figure(f"{key}_{name}", f"{what}, {name} ({count:,} of them)", unit)
            if figure.failure:
                continue
            try:
                with running(PEERS[name]) as server:
                    figure.series.values.append(measure(server, count))
            except PeerFailed as error:
                figure.failure = str(error)
                plan.report(f"{figure.title}: {error}")
            else:
                plan.report(f"{figure.title}: {figure.series.values[-1]:,.0f} {unit}")
