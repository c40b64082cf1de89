"""Simulated devices: the same seed gives the same messages, and they look like what they claim to be."""

from __future__ import annotations

import json
from itertools import islice
from random import Random

import pytest

from devices import signals
from devices.fleet import fleet_turns
from devices.profiles import Profile, building
from devices.weather import celsius, weather


def first(profile: Profile, count: int) -> list[tuple[str, bytes, bool]]:
    """The first messages of a device."""
    return [(message.topic, message.payload, message.retain) for message in islice(profile.messages, count)]


def test_same_seed_gives_the_same_messages() -> None:
    for one, other in zip(building(20, 7), building(20, 7), strict=True):
        assert one.client_id == other.client_id
        assert first(one, 50) == first(other, 50)


def test_other_seed_gives_other_values_on_the_same_topics() -> None:
    one, other = building(1, 1)[0], building(1, 2)[0]
    assert one.topic == other.topic
    assert first(one, 10) != first(other, 10)


def test_device_does_not_depend_on_how_many_there_are() -> None:
    assert first(building(3, 1)[2], 20) == first(building(50, 1)[2], 20)


def test_client_ids_are_unique_and_carry_the_prefix() -> None:
    ids = [profile.client_id for profile in building(500, 1, prefix="sim1-")]
    assert len(set(ids)) == 500
    assert all(client_id.startswith("sim1-room-") for client_id in ids)


def test_payloads_are_json() -> None:
    for profile in building(8, 3) + weather():
        for _, payload, _ in first(profile, 30):
            json.loads(payload)


def test_turns_go_round_all_devices_at_one_rate() -> None:
    turns = list(islice(fleet_turns(building(10, 1), rate=100, qos=1, seed=1), 30))
    assert [turn.after_s for turn in turns[:3]] == [0, 0.01, 0.02]
    assert sorted(turn.number for turn in turns[:10]) == list(range(10))
    again = list(islice(fleet_turns(building(10, 1), rate=50, qos=1, seed=1), 30))
    assert [turn.message for turn in turns] == [turn.message for turn in again]


def test_new_firmware_sends_one_field_more() -> None:
    profile = building(1, 1)[0]
    assert "rssi_dbm" not in json.loads(next(profile.messages).payload)
    profile.install("1.5.0", Random(1))
    assert -90 <= json.loads(next(profile.messages).payload)["rssi_dbm"] <= -40
    assert json.loads(profile.status(is_online=True).payload) == {"state": "online", "firmware": "1.5.0"}


def test_weather_says_that_it_is_recorded() -> None:
    for station in weather():
        about, record = islice(station.messages, 2)
        assert about.retain
        assert "recorded" in json.loads(about.payload)["what"]
        assert json.loads(record.payload)["recorded"][:4] in ("2010", "2012")


def test_weather_is_in_celsius() -> None:
    assert [celsius(degrees) for degrees in (32, 212, 39.4)] == [0.0, 100.0, 4.1]
    station = weather()[0]
    readings = [json.loads(message.payload)["temp_c"] for message in islice(station.messages, 1, 8_760)]
    assert -15 < min(readings) < max(readings) < 40
    assert len(readings) == 8_759


@pytest.mark.parametrize("seed", range(5))
def test_signals_keep_their_bounds(seed: int) -> None:
    random = Random(seed)
    walk = list(islice(signals.random_walk(random, 10, 20, 3), 2_000))
    assert min(walk) >= 10
    assert max(walk) <= 20
    curve = list(islice(signals.daily_curve(random, 0, 10, 100), 1_000))
    assert min(curve) >= 0
    assert max(curve) <= 10
    meter = list(islice(signals.counter(random, 0, 5), 1_000))
    assert meter == sorted(meter)
    cell = list(islice(signals.battery(random, steps=1_000), 1_000))
    assert max(cell) < 3.35
    assert set(islice(signals.two_states(random, ("a", "b"), 0.5, 0.5), 200)) == {"a", "b"}
    assert set(islice(signals.modes(random, ("x", "y", "z"), 0.5), 500)) == {"x", "y", "z"}
