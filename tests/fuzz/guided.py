"""Coverage-guided fuzzing of the engine: input that reaches new lines of `broker` is kept, and changed further.

No socket, so the bytes are all that decides: what is found can be shown again from the input alone. `settrace` sees
which lines follow which; it costs much, and one input still takes about a millisecond.
"""

from __future__ import annotations

import logging
import random
import sys
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from broker.codec.packets import Pingreq, Pingresp
from broker.engine import Engine
from tests.fuzz import inputs
from tests.support.engine_client import NOW_MS, EngineClient, HoldingSink, make_engine, turn

CORPUS_MAX = 5_000
ENGINE_INPUTS = 500
"""Inputs of one engine; then another begins, so that one's state does not decide everything."""


class ServerFault(AssertionError):
    """An exception of the engine's own, with the reads that led to it."""


class Coverage:
    """Which lines of `broker` followed which in one function."""

    def __init__(self) -> None:
        self.seen: set[tuple[int, int, int]] = set()
        self.is_new = False

    def __enter__(self) -> None:
        self.is_new = False
        sys.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        if "/broker/" not in frame.f_code.co_filename:
            return None
        code, previous = id(frame.f_code), frame.f_lineno

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal previous
            edge = (code, previous, frame.f_lineno)
            if edge not in self.seen:
                self.seen.add(edge)
                self.is_new = True
            previous = frame.f_lineno
            return line

        return line


@dataclass
class Guided:
    """The corpus and what it has reached."""

    seed: int
    corpus: list[bytes] = field(default_factory=list)
    coverage: Coverage = field(default_factory=Coverage)
    tried: int = 0

    def run(self, duration_s: float) -> None:
        """For so long. Raises: ServerFault."""
        chance = random.Random(self.seed)
        deadline = time.monotonic() + duration_s
        while time.monotonic() < deadline:
            engine, sink = fuzzed_engine()
            bystander = EngineClient(engine, 5)
            bystander.connect("bystander")
            bystander.subscribe("bystander/#", 1)
            for _ in range(ENGINE_INPUTS):
                data = self._next(chance)
                with self.coverage:
                    feed(engine, sink, inputs.reads(chance, data), chance)
                self.tried += 1
                if self.coverage.is_new:
                    if len(self.corpus) >= CORPUS_MAX:
                        self.corpus[chance.randrange(CORPUS_MAX)] = data
                    else:
                        self.corpus.append(data)
                check(bystander)
                if time.monotonic() >= deadline:
                    return

    def _next(self, chance: random.Random) -> bytes:
        if not self.corpus or chance.random() < 0.1:
            return inputs.mutated(chance, b"".join(inputs.packets(chance)))
        data = chance.choice(self.corpus)
        if chance.random() < 0.1:
            other = chance.choice(self.corpus)
            data = data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]
        return inputs.mutated(chance, data)


def fuzzed_engine() -> tuple[Engine, HoldingSink]:
    """An engine with low limits, and a sink that commits when it is told to."""
    sink = HoldingSink(lambda topic_name: None if topic_name.startswith("fuzz") else stream)
    stream = object()
    engine = make_engine(
        sink,
        sessions_max=50,
        routes_max=1_000,
        retained_messages_max=50,
        queued_messages_max=20,
        subscriptions_per_client_max=20,
        packet_bytes_max=100_000,
    )

    return engine, sink


class Faults(logging.Handler):
    """What the engine logs as an error of its own; peers' mistakes are lines of a lower level."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(logging.Formatter().format(record))

    def __enter__(self) -> Faults:
        logging.getLogger("headrace.mqtt").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("headrace.mqtt").removeHandler(self)


def feed(engine: Engine, sink: HoldingSink, reads: list[bytes], chance: random.Random) -> None:
    """One client sends the reads and is gone; logs commit, and seconds pass, now and then. Raises: ServerFault."""
    client = EngineClient(engine)
    with Faults() as faults:
        _feed(client, sink, reads, chance)
    if faults.found:
        raise ServerFault(f"after the reads {reads!r}: {faults.found[0]}")


def _feed(client: EngineClient, sink: HoldingSink, reads: list[bytes], chance: random.Random) -> None:
    engine = client.engine
    try:
        for read in reads:
            if client.transport.is_closed:
                break
            client.send_bytes(read)
            if chance.random() < 0.3:
                sink.commit()
        client.lose()
        sink.commit()
        for done in sink.done:
            done()
        sink.done.clear()
        engine.tick(NOW_MS)
        turn(engine)
    except Exception as error:
        raise ServerFault(f"after the reads {reads!r}") from error


def check(bystander: EngineClient) -> None:
    """Another client is served as ever."""
    bystander.transport.written.clear()
    bystander.send(Pingreq())
    assert isinstance(bystander.received()[-1], Pingresp)
