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
        ("mqtt://anna:secret@broker:1", None, "mqtt://broker:1"),
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


def test_user_and_password_are_read_and_never_shown() -> None:
    target = Target.parse("mqtt://an%40na:p%3Aw@broker", None)
    assert (target.username, target.password) == ("an@na", "p:w")
    assert "p:w" not in f"{target} {target!r}"
    assert Target.parse("ws://anna@broker", None).password is None
    for url, transport in (
        ("http://anna:secret@x", None),
        ("mqtt://anna:secret@x:99999", None),
        ("ws://a:secret@x", "tcp"),
    ):
        with pytest.raises(ValueError, match=r"x.* is (not )?an? ") as caught:
            Target.parse(url, transport)  # type: ignore[arg-type]
        assert "secret" not in str(caught.value)
