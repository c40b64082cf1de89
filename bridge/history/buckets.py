"""Buckets: a range of time in equal parts, of which each moment is in exactly one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Buckets:
    """Times `from_ms <= t < until_ms` in `count` parts; parts differ by a millisecond where it does not divide."""

    from_ms: int
    until_ms: int
    count: int

    @classmethod
    def over(cls, from_ms: int, until_ms: int, wanted: int) -> Self:
        """At most `wanted` buckets, none shorter than a millisecond; at least one."""
        return cls(from_ms, until_ms, max(1, min(wanted, until_ms - from_ms)))

    def index(self, time_ms: int) -> int:
        """The bucket of a time in the range."""
        return (time_ms - self.from_ms) * self.count // (self.until_ms - self.from_ms)

    def start_ms(self, index: int) -> int:
        """The first millisecond of a bucket."""
        return self.from_ms - -index * (self.until_ms - self.from_ms) // self.count

    def has(self, time_ms: int) -> bool:
        """The time is in the range."""
        return self.from_ms <= time_ms < self.until_ms
