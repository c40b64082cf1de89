"""Sizes, ages and addresses as people write them in a configuration: "1MiB", "7d", "0.0.0.0:1883"."""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Self

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_BYTES_BY_UNIT = {
    "": 1,
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_MILLISECONDS_BY_UNIT = {"ms": 1, "s": 1_000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_PORT_MAX = 65_535
SIZE_MAX = 1 << 60
AGE_MS_MAX = 100_000 * 86_400_000
"""More fits into no disk and no calendar; both, and sums of them, fit into 64 bits."""

_RELATIVE = re.compile(r"-([0-9]{1,9})(ms|s|m|h|d|w)")
_EPOCH_MS = re.compile(r"[0-9]{1,15}")
_RELATIVE_MS_BY_UNIT = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}


def parse_size(value: object) -> int:
    """Bytes from a whole number or a text like "64KiB", "1MiB", "10GB".

    Raises:
        ValueError: it is neither; the message shows how a size is written.
    """
    size: float | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str):
        found = _SIZE.fullmatch(value.strip())
        if found and found[2] in _BYTES_BY_UNIT:
            size = float(found[1]) * _BYTES_BY_UNIT[found[2]]
    if size is not None and size > SIZE_MAX:
        raise ValueError(f"{shown(value)} is more than {size_text(SIZE_MAX)}")
    if size is None or size != int(size):
        raise ValueError(f'{shown(value)} is not a size; write bytes, or like "64KiB", "1MiB", "10GiB"')
    return int(size)


def parse_age_ms(value: object) -> int:
    """Milliseconds from a number of seconds or a text like "90s", "30m", "24h", "7d".

    Raises:
        ValueError: it is neither; the message shows how an age is written.
    """
    return round(parse_age_s(value) * 1_000)


def parse_age_s(value: object) -> float:
    """Seconds, to the last digit that is given; see `parse_age_ms`."""
    age_s: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        age_s = value
    elif isinstance(value, str):
        found = _SIZE.fullmatch(value.strip())
        if found and found[2] in _MILLISECONDS_BY_UNIT:
            age_s = float(found[1]) * _MILLISECONDS_BY_UNIT[found[2]] / 1_000
        elif found and not found[2]:
            age_s = float(found[1])  # as environment variables give a number
    if age_s is not None and abs(age_s) * 1_000 > AGE_MS_MAX:
        raise ValueError(f"{shown(value)} is more than {AGE_MS_MAX // 86_400_000:,} d")
    if age_s is None or math.isnan(age_s):
        raise ValueError(f'{shown(value)} is not an age; write seconds, or like "90s", "30m", "24h", "7d"')
    return age_s


def parse_relative_ms(text: str) -> int:
    """How long ago `-15m` is, in milliseconds.

    Raises: ValueError
    """
    relative = _RELATIVE.fullmatch(text)
    if relative is None:
        raise ValueError(f"{text!r} is no age; write a number and ms, s, m, h, d or w")
    return int(relative[1]) * _RELATIVE_MS_BY_UNIT[relative[2]]


def parse_time_ms(text: str, now_ms: int) -> int:
    """Epoch milliseconds of a time: RFC 3339, epoch milliseconds, or relative to `now_ms` (`-15m`, `now`).

    Raises:
        ValueError: it is no time, or has no zone; the message says which.
    """
    if text == "now":
        return now_ms
    if _RELATIVE.fullmatch(text):
        return max(0, now_ms - parse_relative_ms(text))
    if _EPOCH_MS.fullmatch(text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text.upper())  # t and z too: RFC 3339 §5.6
    except ValueError as error:
        raise ValueError(f"{text!r} is no time") from error
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no zone")
    return max(0, int(moment.timestamp() * 1000))


def size_text(size: int) -> str:
    """The shortest exact way to write `size` bytes: "1 MiB", "1,000 bytes"."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= _BYTES_BY_UNIT[unit] and size % _BYTES_BY_UNIT[unit] == 0:
            return f"{size // _BYTES_BY_UNIT[unit]} {unit}"
    return f"{size:,} bytes"


def age_text(age_ms: int) -> str:
    """The shortest exact way to write an age, in hours up to two days: "24 h", "30 d", "90 s"."""
    for unit, least in (("d", 2), ("h", 1), ("min", 1), ("s", 1)):
        if age_ms >= least * _MILLISECONDS_BY_UNIT[unit] and age_ms % _MILLISECONDS_BY_UNIT[unit] == 0:
            return f"{age_ms // _MILLISECONDS_BY_UNIT[unit]} {unit}"
    return f"{age_ms} ms"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0: a free one is taken."""

    host: str
    port: int

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read `HOST:PORT`, `[::1]:1883` with an IPv6 address.

        Raises:
            ValueError: it is not of that form.
        """
        text = value.strip() if isinstance(value, str) else ""
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            host = ""
        if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > _PORT_MAX:
            raise ValueError(f"{shown(value)} is not an address; write HOST:PORT, like 127.0.0.1:1883 or [::1]:1883")
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this computer can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False  # a name: it may stand for anything

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def shown(value: object) -> str:
    """A value of a configuration as a message has it."""
    return f'"{value}"' if isinstance(value, str) else repr(value)
