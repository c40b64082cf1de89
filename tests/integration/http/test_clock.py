"""The machine's clock is set back while everything runs."""

from __future__ import annotations

from broker.turn import epoch_ms
from tests.integration.http.conftest import RunningServer

HOUR_MS = 3_600_000


async def test_records_after_a_clock_that_was_set_back_come_after_those_before(server: RunningServer) -> None:
    reader = await server.events("topic=%23")
    await server.settle(1)
    await server.publish("clock/a", 1)
    server.node.broker.turn.now_ms = lambda: epoch_ms() - HOUR_MS
    for number in range(2, 5):
        await server.publish("clock/a", number)
    events = [event.data for event in await reader.messages(4)]
    assert [event["payload"] for event in events] == [1, 2, 3, 4]
    times = [event["time"] for event in events]
    assert times == sorted(times)
    answer = (await server.http.get(f"/api/v1/streams/default/records?topic=clock/a&from={times[0]}")).json()
    assert [record["payload"] for record in answer["records"]] == [1, 2, 3, 4]
