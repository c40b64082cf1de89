"""Real weather, played fast: what stations in Seattle and San Francisco measured, from the package vega-datasets.

The files are part of that package; nothing is fetched. They are old records and say so: each message names the time
that it was recorded at, and each station has a retained `about`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path

from devices.profiles import Message, Profile, encode


def weather() -> list[Profile]:
    """Three stations, each an endless repetition of its records, one record a message."""
    return [
        _station("weather-seattle", "weather/seattle", "seattle-temps.csv", "hourly temperature of 2010", _hourly),
        _station("weather-sf", "weather/san-francisco", "sf-temps.csv", "hourly temperature of 2010", _hourly),
        _station("weather-seattle-days", "weather/seattle/days", "seattle-weather.csv", "days of 2012 to 2015", _daily),
    ]


def _station(
    client_id: str, topic: str, file_name: str, what: str, read: Callable[[str, list[dict[str, str]]], list[Message]]
) -> Profile:
    about = {"what": f"recorded {what}, played fast and repeated", "source": f"vega-datasets, {file_name}"}
    return Profile(
        client_id, topic, _play(Message(f"{topic}/about", encode(about), True), read(topic, _rows(file_name)))
    )


def _play(about: Message, records: list[Message]) -> Iterator[Message]:
    yield about
    yield from cycle(records)


def _rows(file_name: str) -> list[dict[str, str]]:
    package = find_spec("vega_datasets")  # not imported: it would load pandas, which is 50 MB and half a second
    assert package is not None
    assert package.origin is not None
    text = (Path(package.origin).parent / "_data" / file_name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def celsius(fahrenheit: float) -> float:
    """To a tenth of a degree, which is what the records are good for."""
    return round((fahrenheit - 32) / 1.8, 1)


def _hourly(topic: str, rows: list[dict[str, str]]) -> list[Message]:
    messages = []
    for row in rows:
        recorded = datetime.strptime(row["date"][:16], "%Y/%m/%d %H:%M")
        reading = {"temp_c": celsius(float(row["temp"])), "recorded": recorded.isoformat(timespec="minutes")}
        messages.append(Message(f"{topic}/temperature", encode(reading)))
    return messages


def _daily(topic: str, rows: list[dict[str, str]]) -> list[Message]:
    return [
        Message(
            topic,
            encode(
                {
                    "temp_max_c": float(row["temp_max"]),
                    "temp_min_c": float(row["temp_min"]),
                    "rain_mm": float(row["precipitation"]),
                    "wind_ms": float(row["wind"]),
                    "weather": row["weather"],
                    "recorded": row["date"].replace("/", "-"),
                }
            ),
        )
        for row in rows
    ]
