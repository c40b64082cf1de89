"""All client libraries at once, since this takes its time: who is silent pings, and who does not is missed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.interoperability.client_process import ClientProcess
from tests.interoperability.clients import LIBRARIES, Library
from tests.interoperability.stage import Stage, wait_for_messages
from tests.support.server import ServerProcess

KEEP_ALIVE_S = 3
"""So long that a busy machine pings in time."""

pytestmark = pytest.mark.timeout(300)  # the first that needs a driver builds it, if `make test` has not done so


@pytest.fixture
def stages(shared_server: ServerProcess, start_process: Callable[[Library], ClientProcess]) -> Iterator[list[Stage]]:
    """One for each library, version of MQTT and transport that can do it."""
    made = []
    for library in LIBRARIES:
        if library.can("test_silent_clients_keep_their_connections_by_pings", "5"):
            process = start_process(library)
            made += [
                Stage(shared_server, library, version, transport, process, lambda: start_process(LIBRARIES[0]), process)
                for version in library.versions
                for transport in library.transports
            ]
    yield made
    for stage in made:
        stage.close()


def test_silent_clients_keep_their_connections_by_pings(stages: list[Stage]) -> None:
    clients = []
    for stage in stages:
        clients.append(stage.connect("silent", keep_alive=KEEP_ALIVE_S))
        clients[-1].subscribe(stage.topic, 1)
    witness = stages[0].connect("witness")
    will_topic = f"{stages[0].topic}/will"
    witness.subscribe(will_topic, 1)
    will = {"topic": will_topic, "payload": b"missed", "qos": 1}
    stopped = stages[0].connect_doomed("stopped", keep_alive=KEEP_ALIVE_S, will=will)
    stopped.process.pause()
    stopped.is_open = False
    wait_for_messages(witness, [(will_topic, b"missed", 1, False)])  # by then those before it would be missed too
    stopped.process.kill()
    for stage, client in zip(stages, clients, strict=True):
        client.publish(stage.topic, b"here", 1)
        wait_for_messages(client, [(stage.topic, b"here", 1, False)])
        assert not client.close_reasons
