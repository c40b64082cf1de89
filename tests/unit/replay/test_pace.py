"""Pacing: records go at the distances in which they came, divided by the speed."""

from __future__ import annotations

import math

import pytest

from bridge.replay.pace import Pacer, parse_speed


class Clock:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 50.0
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.mark.parametrize("speed", [0.5, 1, 10])
def test_distances_are_those_of_the_records(speed: float) -> None:
    clock = Clock()
    pacer = Pacer(speed, clock.wait, lambda: clock.now)
    sent = []
    for time_ms in (1_000_000, 1_000_000, 1_001_000, 1_001_500):
        pacer.wait_for(time_ms)
        sent.append(clock.now - 50.0)
    assert sent == pytest.approx([0, 0, 1 / speed, 1.5 / speed])


def test_long_distances_are_waited_for_in_pieces() -> None:
    """So that a broker hears of us meanwhile."""
    clock = Clock()
    pacer = Pacer(1, clock.wait, lambda: clock.now)
    pacer.wait_for(0)
    pacer.wait_for(3_600_000)
    assert max(clock.waits) <= 0.2
    assert clock.now == pytest.approx(3_650)


def test_who_is_late_does_not_wait() -> None:
    clock = Clock()
    pacer = Pacer(1, clock.wait, lambda: clock.now)
    pacer.wait_for(0)
    clock.now += 10
    pacer.wait_for(5_000)
    assert clock.waits == []


def test_max_never_waits() -> None:
    clock = Clock()
    pacer = Pacer(math.inf, clock.wait, lambda: clock.now)
    pacer.wait_for(0)
    pacer.wait_for(10**12)
    assert clock.waits == []


@pytest.mark.parametrize(("text", "speed"), [("1", 1), ("10", 10), ("0.25", 0.25), ("max", math.inf)])
def test_speeds(text: str, speed: float) -> None:
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["0", "-1", "fast", "nan", "inf", "10x", "1e9"])
def test_what_is_no_speed(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no speed; write 1, 10, 0\.5, or max"):
        parse_speed(text)
