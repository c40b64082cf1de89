"""Bytes that are nearly right never raise out of the engine, nor reach another client. `make fuzz` does it longer."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import inputs
from tests.fuzz.guided import Guided, ServerFault, check, feed, fuzzed_engine
from tests.support import mqtt_wire as wire
from tests.support.engine_client import EngineClient


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False), st.integers(0, 2**32))
def test_conversations_with_mistakes(chance: random.Random, seed: int) -> None:
    engine, sink = fuzzed_engine()
    bystander = EngineClient(engine, 5)
    bystander.connect("bystander")
    for number in range(5):
        own = random.Random(f"{seed}-{number}")
        feed(engine, sink, inputs.mqtt(own), chance)
        check(bystander)
    assert len(engine.connections) == 1
    assert len(engine.sessions) <= 50


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary(max_size=300), max_size=6), st.randoms(use_true_random=False))
def test_any_bytes(reads: list[bytes], chance: random.Random) -> None:
    engine, sink = fuzzed_engine()
    bystander = EngineClient(engine, 5)
    bystander.connect("bystander")
    feed(engine, sink, reads, chance)
    check(bystander)


def test_guided_run_keeps_what_reaches_new_code() -> None:
    guided = Guided(1)
    guided.run(1.0)
    assert 0 < len(guided.corpus) < guided.tried
    assert len(guided.coverage.seen) >= len(guided.corpus)


def test_fault_of_the_engine_is_found_and_told_with_what_led_to_it() -> None:
    engine, sink = fuzzed_engine()
    engine.handlers = {}  # no handler for any packet: a bug of ours, as it were
    with pytest.raises(ServerFault, match="KeyError"):
        feed(engine, sink, [wire.connect("a")], random.Random(1))
