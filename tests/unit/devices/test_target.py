"""Addresses of brokers, as people write them."""

from __future__ import annotations

import pytest

from devices.device import Target


@pytest.mark.parametrize(
    ("url", "transport", "expected"),
    [
        (None, None, "mqtt://127.0.0.1:1883"),
        (None, "ws", "ws://127.0.0.1:8083/mqtt"),
        ("mqtt://broker", None, "mqtt://broker:1883"),
        ("tcp://broker:1", None, "mqtt://broker:1"),
        ("broker:1884", None, "mqtt://broker:1884"),
        ("broker:1884", "ws", "ws://broker:1884/mqtt"),
        ("ws://broker:8083/other", None, "ws://broker:8083/other"),
        ("mqtt://[::1]:1883", "tcp", "mqtt://[::1]:1883"),
    ],
)
def test_address(url: str | None, transport: str | None, expected: str) -> None:
    assert str(Target.parse(url, transport)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "transport"), [("http://x", None), ("mqtt://", None), ("ws://x", "tcp"), ("mqtt://x:99999", None)]
)
def test_what_is_no_address(url: str, transport: str | None) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Target.parse(url, transport)  # type: ignore[arg-type]
