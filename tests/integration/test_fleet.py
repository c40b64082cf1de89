"""The fleet against the real server: what goes wrong in the demo is seen as what it is."""

from __future__ import annotations

import json
from itertools import chain, islice, pairwise

import httpx
import pytest

from devices.demo import FIRMWARE_AT_S, OUTAGE_AT_S, OUTAGE_S, TAKEOVER_AT_S, FirmwareChange, Outage, Takeover
from devices.device import INFLIGHT_MESSAGES_MAX, Target
from devices.fleet import BrokerUnreachable, Fleet, Incident, Turn, fleet_turns, recorded_turns
from devices.profiles import Message, Profile, building
from devices.recorded import Recorded
from tests.support.server import ServerProcess

DEVICES = 10


class FastMinute(Incident):
    """The demo's minute within a few seconds."""

    steps = ((Outage(), OUTAGE_AT_S), (Outage(), OUTAGE_AT_S + OUTAGE_S), (Takeover(), TAKEOVER_AT_S))

    def tick(self, fleet: Fleet, second: int) -> None:
        """One step a second; the firmware change comes last."""
        if second <= len(self.steps):
            incident, at_s = self.steps[second - 1]
            incident.tick(fleet, at_s)
        elif second == len(self.steps) + 1:
            FirmwareChange().tick(fleet, FIRMWARE_AT_S)


def target(server: ServerProcess) -> Target:
    """The server's MQTT port."""
    return Target("127.0.0.1", server.mqtt_port, "tcp")


def records(server: ServerProcess, topic: str) -> list[dict[str, object]]:
    """What the log has under a filter."""
    query = {"topic": topic, "limit": "10000"}
    found = httpx.get(f"{server.http_url}/api/v1/streams/default/records", params=query).json()["records"]
    assert isinstance(found, list)
    return found


def test_incidents_of_the_demo_are_seen(server: ServerProcess) -> None:
    profiles = building(DEVICES, 5)
    fleet = Fleet(target(server), profiles, fleet_turns(profiles, 50, 1, 5), seed=5, incidents=(FastMinute(),))
    final = fleet.run(duration_s=7)
    assert final.online == DEVICES
    assert final.left_out > 0
    assert all(device.acknowledged == device.sent for device in fleet.devices)
    # The broker closes the connection that is taken over, which may be before its last publish is answered.
    assert 0 <= final.sent - final.acknowledged <= INFLIGHT_MESSAGES_MAX
    statuses = [record["payload"] for record in records(server, "building/+/+/+/status")]
    assert {"state": "offline", "firmware": "1.4.2"} in statuses  # the will of the device that lost its power
    assert {"state": "online", "firmware": "1.5.0"} in statuses
    assert any("rssi_dbm" in json.dumps(record["payload"]) for record in records(server, "building/#"))


def test_everything_sent_is_stored_once_and_in_order(server: ServerProcess) -> None:
    profiles = [Profile(f"ordered-{number}", "", iter(())) for number in range(4)]
    turns = [
        Turn(index / 2_000, index % 4, Message(f"ordered/{index % 4}", b"%d" % index), 1) for index in range(2_000)
    ]
    final = Fleet(target(server), profiles, iter(turns), is_waiting=True).run()
    assert final.acknowledged == final.sent == 2_000
    for number in range(4):
        payloads = [record["payload"] for record in records(server, f"ordered/{number}")]
        assert payloads == list(range(number, 2_000, 4))


def test_recording_keeps_its_timing(shared_server: ServerProcess) -> None:
    rows = [Recorded(after_s, "timed/a", b"1", 1, False) for after_s in (0, 0.5, 1.0)]
    player = Profile("timed", "", iter(()))
    Fleet(target(shared_server), [player], recorded_turns(rows, 1), is_waiting=True).run()
    query = {"topic": "timed/#"}
    url = f"{shared_server.http_url}/api/v1/streams/default/records"
    seconds = [float(record["time"][-7:-1]) for record in httpx.get(url, params=query).json()["records"]]
    gaps = [(later - earlier) % 60 for earlier, later in pairwise(seconds)]
    assert len(gaps) == 2
    assert all(gap > 0.4 for gap in gaps)


def test_broker_that_goes_away_is_told_at_the_end(server: ServerProcess) -> None:
    profiles = building(2, 1)

    class Kill(Incident):
        def tick(self, fleet: Fleet, second: int) -> None:
            if server.is_running:
                server.kill()

    fleet = Fleet(target(server), profiles, fleet_turns(profiles, 20, 1, 1), incidents=(Kill(),))
    with pytest.raises(BrokerUnreachable, match="is gone: no device is online any more"):
        fleet.run(duration_s=2)


def test_turns_are_not_made_before_they_are_due(shared_server: ServerProcess) -> None:
    """An endless row of turns is taken one at a time."""
    profiles = [Profile("lazy", "", iter(()))]
    made = 0

    def turns() -> chain[Turn]:
        def count() -> Turn:
            nonlocal made
            made += 1
            return Turn(made * 0.1, 0, Message("lazy/a", b"1"), 0)

        return chain(islice(iter(count, None), 1_000))

    Fleet(target(shared_server), profiles, turns()).run(duration_s=0.5)
    assert made <= 7
