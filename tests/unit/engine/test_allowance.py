"""What a client may send in a second: the long run is the rate, whatever the reads look like."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.protocol.allowance import Allowance


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(1, 5_000), min_size=1, max_size=50))
def test_waiting_as_told_keeps_the_rate(sizes: list[int]) -> None:
    now_ms = 0
    allowance = Allowance(1_000, 0, now_ms)
    for size in sizes:
        wait_ms, name = allowance.spend(size, 1, now_ms)
        assert (name == "client_bytes_per_s_max") is (wait_ms > 0)
        now_ms += wait_ms
    # What was sent is covered by the burst and the time that it took, and no time was lost beyond rounding.
    assert sum(sizes) <= 1_000 + now_ms
    assert now_ms <= max(0, sum(sizes) - 1_000) + len(sizes)


def test_slower_of_two_limits_decides() -> None:
    allowance = Allowance(1_000, 10, 0)
    assert allowance.spend(1_500, 60, 0) == (5_001, "client_messages_per_s_max")


def test_clock_that_was_set_back_or_forward_changes_little() -> None:
    allowance = Allowance(0, 10, 1_000_000)
    assert allowance.spend(1, 10, 1_000_000) == (0, "")
    assert allowance.spend(1, 5, 0) == (501, "client_messages_per_s_max")
    assert allowance.spend(1, 0, 500) == (0, "")
    assert allowance.spend(1, 20, 10**12) == (1_001, "client_messages_per_s_max")
