"""Fleet: many devices in one thread, each message at its time.

What is sent is a row of turns, made by a simulated building (`fleet_turns`) or by a recording (`recorded_turns`): who,
what, when. It does not depend on the network: a simulated device that is away leaves its turn out, and that is counted;
a recording waits.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random

from devices.device import Device, Target
from devices.profiles import Message, Profile
from devices.recorded import Recorded

TICK_S = 1.0
WAIT_S_MAX = 0.05
BURST_MAX = 500
"""Messages sent in one go before acknowledgements are read."""
START_TIMEOUT_S = 10.0
DRAIN_TIMEOUT_S = 5.0
RETRY_S = (1.0, 4.0)
"""A device that could not connect tries again after some time between these."""


class BrokerUnreachable(Exception):
    """Nobody answers at the broker's address, or it lets nobody in."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of one device."""

    after_s: float
    """Seconds since the fleet was online."""
    number: int
    """Of the device."""
    message: Message
    qos: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What a fleet has done so far."""

    devices: int
    online: int
    sent: int
    acknowledged: int
    left_out: int
    """Turns of devices that were away or had too much waiting."""
    rate: float
    """Messages a second since the last report."""


class Incident:
    """Something that happens to a fleet; `devices.demo` has some."""

    def tick(self, fleet: Fleet, second: int) -> None:
        """Called once a second with the seconds since the fleet was online."""


def fleet_turns(profiles: list[Profile], rate: float, qos: int, seed: int) -> Iterator[Turn]:
    """Every device in turn, in an order that the seed gives, `rate` messages a second of all together."""
    order = list(range(len(profiles)))
    Random(seed).shuffle(order)
    turn = 0
    while True:
        number = order[turn % len(order)]
        yield Turn(turn / rate, number, next(profiles[number].messages), qos)
        turn += 1


def recorded_turns(recording: Iterable[Recorded], qos: int) -> Iterator[Turn]:
    """A recording, by one device; `qos` is for rows that do not say theirs."""
    for row in recording:
        message = Message(row.topic, row.payload, row.retain)
        yield Turn(row.after_s, 0, message, qos if row.qos is None else row.qos)


class Fleet:
    """Devices that are connected to one broker, and what they do there."""

    def __init__(
        self,
        target: Target,
        profiles: list[Profile],
        turns: Iterator[Turn],
        *,
        seed: int = 0,
        is_waiting: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
        incidents: tuple[Incident, ...] = (),
    ) -> None:
        """`is_waiting`: a turn that cannot be taken now is waited for, as a recording wants it."""
        self.profiles = profiles
        self.random = Random(f"{seed}/incidents")
        self._target = target
        self._turns = turns
        self._next: Turn | None = None
        self._is_waiting = is_waiting
        self._on_progress = on_progress
        self._incidents = incidents
        self._selector = selectors.DefaultSelector()
        self._profile_by_client_id = {profile.client_id: profile for profile in profiles}
        self.devices = [self._device(number, profile) for number, profile in enumerate(profiles)]
        self._replaced: list[Device] = []
        self._sent_by_replaced = 0
        self._acknowledged_by_replaced = 0
        self._left_out = 0
        self._reported = (0.0, 0)

    def _device(self, number: int, profile: Profile) -> Device:
        return Device(
            self._target,
            profile.client_id,
            self._selector,
            is_v5=number % 2 == 0,  # both versions, as in a fleet that has grown over years
            will=profile.status(is_online=False) if profile.topic else None,
            on_connected=self._say_online if profile.topic else None,
        )

    def _say_online(self, device: Device) -> None:
        device.publish(self._profile_by_client_id[device.client_id].status(is_online=True), 1)

    def run(self, duration_s: float | None = None, is_over: Callable[[], bool] = lambda: False) -> Progress:
        """Connect everyone, send until the turns, the time or `is_over` end it, say goodbye.

        Raises:
            BrokerUnreachable: at the start, or because no device is online at the end.
        """
        try:
            self._connect_all(is_over)
            began = time.monotonic()
            self._reported = (began, 0)
            next_tick = began + TICK_S
            self._next = next(self._turns, None)
            while self._next is not None and not is_over():
                now = time.monotonic()
                if duration_s is not None and now - began >= duration_s:
                    break
                if now >= next_tick:
                    next_tick += TICK_S
                    self._tick(now, round(now - began))
                self._send_due(now - began)
                self._wait(min(WAIT_S_MAX, self._idle_s(time.monotonic() - began)))
            if not any(device.is_online for device in self.devices) and not is_over():
                raise BrokerUnreachable(f"the broker at {self._target} is gone: no device is online any more.")
            return self._say_goodbye()
        finally:
            for device in (*self.devices, *self._replaced):
                device.cut()
            self._selector.close()

    def replace(self, number: int) -> None:
        """A second client with the id of a device connects; the broker closes the first (take-over)."""
        self._replaced.append(self.devices[number])
        self.devices[number] = new = self._device(number, self.profiles[number])
        self._connect(new, time.monotonic())

    def _connect_all(self, is_over: Callable[[], bool]) -> None:
        try:
            for device in self.devices:
                if is_over():
                    return
                device.connect()
                self._wait(0)
        except OSError as error:
            reason = (error.strerror or str(error) or type(error).__name__).lower()
            raise BrokerUnreachable(f"no broker answers at {self._target}: {reason}.") from error
        except ValueError as error:  # paho's word for a WebSocket that is refused
            raise BrokerUnreachable(f"{self._target} does not take MQTT over WebSocket: {error}.") from error
        deadline = time.monotonic() + START_TIMEOUT_S
        while not all(device.is_online for device in self.devices) and time.monotonic() < deadline:
            if is_over():
                return
            self._wait(WAIT_S_MAX)
            refusal = next((device.refusal for device in self.devices if device.refusal), None)
            if refusal is not None:
                raise BrokerUnreachable(f"the broker at {self._target} refused a device: {refusal}.")
        if not any(device.is_online for device in self.devices):
            raise BrokerUnreachable(f"something answers at {self._target}, but not with MQTT.")

    def _idle_s(self, elapsed_s: float) -> float:
        """How long nothing is due."""
        return max(0.0, self._next.after_s - elapsed_s) if self._next is not None else 0.0

    def _send_due(self, elapsed_s: float) -> None:
        for _ in range(BURST_MAX):
            turn = self._next
            if turn is None or turn.after_s > elapsed_s:
                return
            if not self.devices[turn.number].publish(turn.message, turn.qos):
                if self._is_waiting:
                    return
                self._left_out += 1
            self._next = next(self._turns, None)

    def _wait(self, timeout_s: float) -> None:
        for key, events in self._selector.select(timeout_s):
            device: Device = key.data
            device.ready(events)

    def _tick(self, now: float, second: int) -> None:
        for device in [each for each in self._replaced if not each.is_online]:
            self._replaced.remove(device)
            self._sent_by_replaced += device.sent
            self._acknowledged_by_replaced += device.acknowledged
        for device in (*self.devices, *self._replaced):
            device.tick()
        for device in self.devices:
            if device.is_wanted and not device.is_online and now >= device.retry_at:
                self._connect(device, now)
        for incident in self._incidents:
            incident.tick(self, second)
        if self._on_progress is not None:
            self._on_progress(self._progress(now))

    def _connect(self, device: Device, now: float) -> None:
        device.retry_at = now + self.random.uniform(*RETRY_S)
        try:
            device.connect()
        except (OSError, ValueError):
            return  # the broker is away: seen in the count of devices online, and tried again

    def _progress(self, now: float) -> Progress:
        sent = self._sent_by_replaced + sum(each.sent for each in (*self.devices, *self._replaced))
        acknowledged = sum(each.acknowledged for each in (*self.devices, *self._replaced))
        since, before = self._reported
        self._reported = (now, sent)
        return Progress(
            devices=len(self.devices),
            online=sum(device.is_online for device in self.devices),
            sent=sent,
            acknowledged=acknowledged + self._acknowledged_by_replaced,
            left_out=self._left_out,
            rate=(sent - before) / (now - since) if now > since else 0.0,
        )

    def _say_goodbye(self) -> Progress:
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        while any(each.is_online and each.acknowledged < each.sent for each in self.devices):
            if time.monotonic() > deadline:
                break
            self._wait(WAIT_S_MAX)
        final = self._progress(time.monotonic())
        for device in (*self.devices, *self._replaced):
            device.disconnect()
        while self._selector.get_map() and time.monotonic() < deadline:
            self._wait(WAIT_S_MAX)
        return final
