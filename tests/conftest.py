"""Fixtures that every folder of tests may use: parts, never assertions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import ServerProcess


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--mqtt-port`: run the conformance tests against another broker, to see what it thinks of them."""
    parser.addoption("--mqtt-port", type=int, default=0, help="MQTT port on loopback for tests/conformance")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server of the test's own: it may be killed, stopped and filled."""
    with ServerProcess(tmp_path / "data") as running:
        yield running


@pytest.fixture(scope="session")
def shared_server() -> Iterator[ServerProcess]:
    """One server for all tests that leave it as they found it; use topics and client ids of your own in it."""
    with ServerProcess() as running:
        yield running
