"""QoS 2 packet ids are bounded over all clients."""

from __future__ import annotations

import sqlite3

from bridge.streams.unreleased import UnreleasedIds
from tests.support.log_contract import RunMaker, numbers


def test_the_first_client_loses_its_ids_beyond_the_limit() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE unreleased(client_id TEXT, packet_id INTEGER, content INTEGER)")
    connection.executemany("INSERT INTO unreleased VALUES ('old', ?, 9)", [(1,), (2,)])
    ids = UnreleasedIds(connection, ids_max=4)
    connection.close()
    run = RunMaker().run(numbers(3), qos=2, client_id="new")
    run.packet_ids, run.keeps_packet_ids = [1, 2, 3], True
    ids.stored([run])
    assert ids.of("old") == {}
    assert ids.of("new").keys() == {1, 2, 3}
    assert ids.dropped == 2
