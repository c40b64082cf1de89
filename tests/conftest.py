"""Fixtures that every folder of tests may use: parts, never assertions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import ServerProcess

TESTS = Path(__file__).parent
FIRST = (
    "kafka/test_chaos.py",
    "kafka/test_crashes.py",
    "kafka/test_outages.py",
    "kafka/test_full_disks.py",
    "kafka",
    "browser",
    "integration",
    "interoperability",
    "conformance",
    "unit",
)
"""What waits most comes first: beside it other workers do what keeps a core busy, and take of it what is left then."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In the order of `FIRST`, so that the last tests of a run are short ones."""
    ranks = {TESTS / name: rank for rank, name in enumerate(FIRST)}

    def rank(item: pytest.Item) -> int:
        return min(ranks.get(path, len(FIRST)) for path in (item.path, *item.path.parents))

    items.sort(key=rank)


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
