"""Fixtures of the interoperability tests: `stage` for each library, version of MQTT and transport that it can do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from scripts.interoperability import ToolchainMissing
from tests.interoperability.client_process import ClientProcess
from tests.interoperability.clients import LIBRARIES, Library
from tests.interoperability.stage import Stage
from tests.support.server import ServerProcess


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module's `VERSIONS` are those that its scenarios are about."""
    if "stage" not in metafunc.fixturenames:
        return
    played = [
        pytest.param((library, version, transport), id=f"{library.name}-{version}-{transport}")
        for library in LIBRARIES
        for version in library.versions
        if version in metafunc.module.VERSIONS and library.can(metafunc.function.__name__, version)
        for transport in (library.transports if version != "3.1" else ("tcp",))  # which had no WebSocket yet
    ]
    metafunc.parametrize("stage", played, indirect=True)


@pytest.fixture(scope="session")
def start_process() -> Iterator[Callable[[Library], ClientProcess]]:
    """Starts a driver, which is ended with the tests at the latest."""
    started: list[ClientProcess] = []

    def start(library: Library) -> ClientProcess:
        try:
            command = library.command()
        except ToolchainMissing as missing:
            if os.environ.get("CI"):
                pytest.fail(str(missing))
            pytest.skip(str(missing))
        started.append(ClientProcess(command))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture(scope="session")
def processes() -> dict[str, ClientProcess]:
    """One for each library, for all scenarios: starting them is what takes time."""
    return {}


@pytest.fixture
def stage(
    request: pytest.FixtureRequest,
    shared_server: ServerProcess,
    start_process: Callable[[Library], ClientProcess],
    processes: dict[str, ClientProcess],
) -> Iterator[Stage]:
    """The clients of one scenario."""
    library, version, transport = request.param

    def process_of(library: Library) -> ClientProcess:
        process = processes.get(library.name)
        if process is None or not process.is_running:  # it may have died in the scenario before
            process = processes[library.name] = start_process(library)
        return process

    set_up = Stage(
        shared_server,
        library,
        version,
        transport,
        process_of(library),
        lambda: start_process(library),
        process_of(LIBRARIES[0]),
    )
    yield set_up
    set_up.close()
