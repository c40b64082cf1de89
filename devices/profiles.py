"""Profiles: the devices of a simulated building, each with its topics and an endless row of messages.

What a device says depends on its number and the seed alone, never on the clock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

from devices import signals

STEPS_PER_DAY = 1_440
"""A simulated day has so many readings: with two a second it passes in twelve minutes."""
ROOMS_PER_FLOOR = 8
STATES_EVERY = 5
"""A door says its state with each so many readings, and whenever it changes."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is published: QoS and time are the fleet's affair."""

    topic: str
    payload: bytes
    retain: bool = False


@dataclass(slots=True)
class Profile:
    """One simulated device."""

    client_id: str
    topic: str
    """Everything that it publishes is below this topic."""
    messages: Iterator[Message]
    firmware: str = "1.4.2"

    def status(self, *, is_online: bool) -> Message:
        """What it says of itself when it comes, and what the broker says for it when it is gone."""
        state = {"state": "online" if is_online else "offline", "firmware": self.firmware}
        return Message(f"{self.topic}/status", encode(state), retain=True)

    def install(self, firmware: str, random: Random) -> None:
        """Another firmware, whose JSON objects also tell the strength of the radio signal."""
        self.firmware = firmware
        self.messages = _with_signal_strength(self.messages, random)


def _with_signal_strength(messages: Iterator[Message], random: Random) -> Iterator[Message]:
    for message, rssi in zip(messages, signals.random_walk(random, -90, -40, 1.5), strict=False):
        reading = json.loads(message.payload)
        if isinstance(reading, dict):
            yield Message(message.topic, encode(reading | {"rssi_dbm": round(rssi)}), message.retain)
        else:
            yield message


def encode(value: object) -> bytes:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def building(devices: int, seed: int, prefix: str = "") -> list[Profile]:
    """`devices` devices over floors and rooms; client ids begin with `prefix`."""
    kinds: tuple[tuple[str, Callable[[str, Random], Iterator[Message]]], ...] = (
        ("climate", _climate),
        ("power", _power),
        ("door", _door),
        ("light", _light),
    )
    profiles = []
    for number in range(devices):
        room_number, kind_number = divmod(number, len(kinds))
        floor, room = divmod(room_number, ROOMS_PER_FLOOR)
        kind, messages = kinds[kind_number]
        place = f"floor-{floor + 1}/room-{floor + 1}{room + 1:02}"
        topic = f"building/{place}/{kind}"
        random = Random(f"{seed}/{number}")
        profiles.append(Profile(f"{prefix}{place.rpartition('/')[2]}-{kind}", topic, messages(topic, random)))
    return profiles


def _climate(topic: str, random: Random) -> Iterator[Message]:
    temperature = signals.daily_curve(random, 18.5, 24.0, STEPS_PER_DAY, 0.05)
    humidity = signals.random_walk(random, 30, 65, 0.3)
    carbon_dioxide = signals.random_walk(random, 420, 1_600, 12)
    cell = signals.battery(random)
    for temp_c, hum_pct, co2_ppm, batt_v in zip(temperature, humidity, carbon_dioxide, cell, strict=True):
        reading = {"temp_c": round(temp_c, 2), "hum_pct": round(hum_pct, 1), "co2_ppm": round(co2_ppm)}
        yield Message(topic, encode(reading | {"batt_v": round(batt_v, 2)}))


def _power(topic: str, random: Random) -> Iterator[Message]:
    watts = signals.random_walk(random, 20, 1_800, 60, 0.05)
    energy_kwh = round(random.uniform(100, 9_000), 3)
    mode = signals.modes(random, ("eco", "normal", "boost"), 0.01)
    for power_w, mode_name in zip(watts, mode, strict=True):
        energy_kwh += power_w * (86_400 / STEPS_PER_DAY) / 3_600_000
        reading = {"power_w": round(power_w, 1), "energy_kwh": round(energy_kwh, 4), "mode": mode_name}
        yield Message(topic, encode(reading))


def _door(topic: str, random: Random) -> Iterator[Message]:
    before = ""
    count = int(next(islice(signals.counter(random, 0, 50), 1, None)))
    for step, state in enumerate(signals.two_states(random, ("closed", "open"), 0.02, 0.25)):
        count += state == "open" and before == "closed"
        if state != before or step % STATES_EVERY == 0:
            yield Message(topic, encode(state), retain=True)
        else:
            yield Message(f"{topic}/count", encode(count))
        before = state


def _light(topic: str, random: Random) -> Iterator[Message]:
    daylight = signals.daily_curve(random, -200, 700, STEPS_PER_DAY, 4)
    for lux, motion in zip(daylight, signals.two_states(random, ("no", "yes"), 0.03, 0.2), strict=True):
        yield Message(topic, encode({"light_lux": max(0, round(lux)), "motion": motion == "yes"}))
