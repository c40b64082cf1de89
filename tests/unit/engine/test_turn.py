"""Turn: what is written before the sink has anything, and what after."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from broker.codec.encode import encode
from broker.codec.packets import Publish
from broker.codec.properties import Properties
from broker.engine import Engine
from broker.publish_run import PublishRun
from broker.turn import Turn
from tests.support.engine_client import NOW_MS, EngineClient, HoldingSink, make_engine


class AcknowledgingSink(HoldingSink):
    """A sink that has everything at once; it notes what a client had been written by then."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: EngineClient | None = None
        self.written_before: list[bytes] = []

    def submit(self, runs: Sequence[PublishRun]) -> None:
        if self.watched is not None:
            self.written_before = list(self.watched.transport.written)
        for run in runs:
            if run.origin is not None and run.reliable:
                run.origin.acknowledge(run)


async def test_subscribers_are_written_before_the_log_has_anything_and_publishers_in_the_same_turn() -> None:
    sink = AcknowledgingSink()
    engine = make_engine(sink=sink)
    turn = Turn(engine, asyncio.get_running_loop())
    publisher, subscriber = EngineClient(engine, 4), EngineClient(engine, 4)
    publisher.connect("p")
    subscriber.connect("s")
    subscriber.subscribe("a", 1)
    turn.run()
    for client in (publisher, subscriber):
        client.transport.written.clear()
    sink.watched = subscriber
    publisher.connection.receive(encode(Publish("a", b"1", 1, packet_id=7), 4), NOW_MS)
    turn.run()
    assert len(sink.written_before) == 1
    assert sink.written_before == subscriber.transport.written
    assert publisher.transport.written == [b"\x40\x02\x00\x07"]


def starving(engine: Engine) -> EngineClient:
    """A client with a window of two that has two messages, and two more wait for it."""
    client, publisher = EngineClient(engine, 5), EngineClient(engine, 5)
    properties = Properties()
    properties.receive_maximum = 2
    client.connect("s", properties=properties)
    client.subscribe("a", 1)
    publisher.connect("p")
    publisher.send(*[Publish("a", b"%d" % number, 1, packet_id=number) for number in range(1, 5)])
    assert [type(packet) for packet in client.received()] == [Publish, Publish]
    return client


def test_a_client_whose_window_is_empty_is_written_to_before_the_turn_ends() -> None:
    client = starving(make_engine())
    client.connection.receive(b"\x40\x02\x00\x01\x40\x02\x00\x02", NOW_MS)
    assert client.writes() == 1
    assert [type(packet) for packet in client.received()] == [Publish, Publish]
    client = starving(make_engine())
    client.connection.receive(b"\x40\x02\x00\x01", NOW_MS)
    assert client.writes() == 0, "one is still with it"


def test_a_transport_that_closed_under_it_is_cut() -> None:
    engine = make_engine()
    client = starving(engine)
    sent_before = engine.metrics.bytes_sent

    def closed(data: bytes) -> None:
        raise RuntimeError("the transport is closed")

    client.transport.write = closed  # type: ignore[method-assign]
    client.connection.receive(b"\x40\x02\x00\x01\x40\x02\x00\x02", NOW_MS)
    assert client.transport.is_aborted
    assert engine.metrics.bytes_sent == sent_before
