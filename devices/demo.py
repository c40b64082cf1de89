"""The demo's fleet: a building, real weather, and something that goes wrong every minute.

`python -m devices.demo URL DEVICES RATE SEED` runs it until its standard input ends, so that it never outlives the
server that started it. It is a process of its own, because a busy thread beside the server's loop would cost the server
its latency (docs/adr/0009).
"""

from __future__ import annotations

import os
import select
import signal
import sys

from devices.device import Target
from devices.fleet import BrokerUnreachable, Fleet, Incident, fleet_turns
from devices.profiles import Profile, building
from devices.weather import weather

MINUTE_S = 60
OUTAGE_AT_S, OUTAGE_S = 20, 15
OUTAGE_SHARE = 10
TAKEOVER_AT_S = 40
FIRMWARE_AT_S = 50
FIRMWARES = ("1.4.2", "1.5.0", "1.5.1", "1.6.0")


class Outage(Incident):
    """One tenth of the building loses its power for a quarter of a minute."""

    def tick(self, fleet: Fleet, second: int) -> None:
        """Cut at second 20 of each minute, back at 35."""
        if second % MINUTE_S == OUTAGE_AT_S:
            first = fleet.random.randrange(len(fleet.devices))
            for number in range(first, first + max(1, len(fleet.devices) // OUTAGE_SHARE)):
                device = fleet.devices[number % len(fleet.devices)]
                device.is_wanted = False
                device.cut()
        elif second % MINUTE_S == OUTAGE_AT_S + OUTAGE_S:
            for device in fleet.devices:
                device.is_wanted = True


class Takeover(Incident):
    """A device connects a second time before its first connection has ended."""

    def tick(self, fleet: Fleet, second: int) -> None:
        """At second 40 of each minute."""
        if second % MINUTE_S == TAKEOVER_AT_S:
            fleet.replace(fleet.random.randrange(len(fleet.devices)))


class FirmwareChange(Incident):
    """A device restarts with a new firmware, which sends one field more."""

    def tick(self, fleet: Fleet, second: int) -> None:
        """At second 50 of each minute."""
        if second % MINUTE_S != FIRMWARE_AT_S:
            return
        number = fleet.random.randrange(len(fleet.devices))
        profile = fleet.profiles[number]
        newer = [each for each in FIRMWARES if each > profile.firmware]
        if newer and not profile.client_id.startswith("weather"):
            profile.install(newer[0], fleet.random)
            fleet.replace(number)


def demo_profiles(devices: int, seed: int) -> list[Profile]:
    """The weather stations and as many building devices as make `devices` of all."""
    stations = weather()[:devices]
    return [*building(devices - len(stations), seed), *stations]


def main() -> int:
    """Run until standard input ends."""
    url, devices, rate, seed = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    profiles = demo_profiles(int(devices), int(seed))
    fleet = Fleet(
        Target.parse(url, None),
        profiles,
        fleet_turns(profiles, float(rate), 1, int(seed)),
        seed=int(seed),
        incidents=(Outage(), Takeover(), FirmwareChange()),
    )
    try:
        fleet.run(is_over=_input_has_ended)
    except BrokerUnreachable as error:
        if _input_has_ended():
            return 0
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _input_has_ended() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0]) and os.read(sys.stdin.fileno(), 1) == b""


if __name__ == "__main__":
    sys.exit(main())
