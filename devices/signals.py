"""Signals: endless sequences of values that look like sensors. Pure: the same random source gives the same values.

A step is one reading; nothing here knows the clock. Whoever reads decides how much time a step stands for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from random import Random


def daily_curve(random: Random, low: float, high: float, steps_per_day: int, noise: float = 0.0) -> Iterator[float]:
    """A warm afternoon and a cold morning, each day a little different; starts at a random hour."""
    step = random.randrange(steps_per_day)
    middle, half = (low + high) / 2, (high - low) / 2
    day_factor = random.uniform(0.8, 1.0)
    while True:
        phase = (step % steps_per_day) / steps_per_day
        if phase == 0:
            day_factor = random.uniform(0.8, 1.0)
        yield middle - half * day_factor * math.cos(2 * math.pi * (phase - 1 / 8)) + random.gauss(0, noise)
        step += 1


def random_walk(random: Random, low: float, high: float, step_size: float, pull: float = 0.01) -> Iterator[float]:
    """A value that wanders between two bounds and is drawn to the middle of them."""
    middle = (low + high) / 2
    value = random.uniform(middle - (high - low) / 4, middle + (high - low) / 4)
    while True:
        yield value
        value += random.gauss(0, step_size) + (middle - value) * pull
        value = min(high, max(low, value))


def counter(random: Random, rate_low: float, rate_high: float, start: float = 0.0) -> Iterator[float]:
    """A value that never falls, as energy meters count."""
    value = start
    while True:
        yield value
        value += random.uniform(rate_low, rate_high)


def two_states(random: Random, states: tuple[str, str], leave_first: float, leave_second: float) -> Iterator[str]:
    """One of two words; each step it changes with the probability of the state it is in."""
    is_second = False
    while True:
        yield states[is_second]
        if random.random() < (leave_second if is_second else leave_first):
            is_second = not is_second


def modes(random: Random, names: Sequence[str], change: float) -> Iterator[str]:
    """One of several words that seldom changes."""
    name = random.choice(names)
    while True:
        yield name
        if random.random() < change:
            name = random.choice(names)


def battery(random: Random, volts_full: float = 3.3, volts_empty: float = 2.4, steps: int = 50_000) -> Iterator[float]:
    """A cell that runs down slowly, drops near its end and is then replaced."""
    step = random.randrange(steps // 2)
    while True:
        charge = 1 - step / steps
        yield volts_empty + (volts_full - volts_empty) * (charge**0.2) + random.gauss(0, 0.003)
        step = (step + 1) % steps
