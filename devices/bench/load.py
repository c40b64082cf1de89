"""The loop that loads a server: publishers and receivers on one epoll, in one thread.

Counting starts after a warm-up and ends before the drain, in which everything sent must still arrive.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import psutil

from devices.bench.checks import CheckFailed
from devices.bench.endpoints import Endpoint, Publisher, Receiver
from devices.bench.wire import RECEIVE_BUFFER_BYTES

DRAIN_TIMEOUT_S = 10.0
WARM_UP_TIMEOUT_S = 10.0
REPEAT_WAIT_S = 0.02


@dataclass(frozen=True)
class LoadResult:
    """What a run measured."""

    messages: int
    """Delivered messages (acknowledged ones when nobody receives) within the measured time."""
    seconds: float
    server_cpu_s: float
    load_cpu_s: float
    other_cpu_s: float
    """CPU time that the machine spent on what does not belong to the run: what makes a figure doubtful."""
    sent: int
    """All messages sent, warm-up and all; each of them arrived."""

    @property
    def rate(self) -> float:
        return self.messages / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU time of the server for each message, in µs."""
        return self.server_cpu_s / self.messages * 1e6 if self.messages else 0.0

    @property
    def load_cores(self) -> float:
        return self.load_cpu_s / self.seconds

    @property
    def other_cores(self) -> float:
        return self.other_cpu_s / self.seconds


@dataclass(frozen=True)
class _Snapshot:
    """All counters at one moment."""

    time_s: float
    delivered: int
    server_cpu_s: float
    load_cpu_s: float
    other_cpu_s: float
    """Of the machine, without what belongs to the run beside server and generator."""


def machine_cpu_s() -> float:
    """CPU time that all cores together have spent on processes, or that a hypervisor took from them.

    Without interrupts, which loopback traffic causes and no process is charged for.
    """
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "nice", 0.0) + getattr(times, "steal", 0.0))


class Load:
    """One run: a warm-up, a measured time, a drain."""

    def __init__(self, publishers: Sequence[Publisher], receivers: Sequence[Receiver]) -> None:
        self._publishers = publishers
        self._receivers = receivers
        self._endpoints: dict[int, Endpoint] = {e.socket.fileno(): e for e in (*publishers, *receivers)}
        self._writable_watched: set[int] = set()
        self._epoll = select.epoll()
        for descriptor in self._endpoints:
            self._epoll.register(descriptor, select.EPOLLIN)
        self._buffer = bytearray(RECEIVE_BUFFER_BYTES)
        self._view = memoryview(self._buffer)

    def delivered(self) -> int:
        """Messages counted so far."""
        if self._receivers:
            return sum([receiver.received() for receiver in self._receivers])
        return sum([publisher.checker.received for publisher in self._publishers])

    def run(
        self,
        *,
        warm_up_s: float,
        seconds: float,
        server_cpu_s: Callable[[], float],
        beside_cpu_s: Callable[[], float] = lambda: 0.0,
        messages_max: int | None = None,
        warm_up_messages: int = 0,
    ) -> LoadResult:
        """Load the server and check all that comes back.

        `messages_max`: also stop when so many have been delivered. `warm_up_messages`: the warm-up lasts until so many
        have been, or WARM_UP_TIMEOUT_S. `beside_cpu_s`: of what the server works with.
        Raises: CheckFailed, PeerFailed
        """
        for publisher in self._publishers:
            publisher.pump()
        begun_s = time.perf_counter()
        self._turn_until(begun_s + warm_up_s, messages_max)
        if self.delivered() < warm_up_messages:
            self._turn_until(begun_s + WARM_UP_TIMEOUT_S, warm_up_messages)
        start = self._snapshot(server_cpu_s, beside_cpu_s)
        self._turn_until(start.time_s + seconds, messages_max)
        end = self._snapshot(server_cpu_s, beside_cpu_s)
        self.drain()
        return self._result(start, end)

    def read(
        self,
        *,
        messages: int,
        seconds: float,
        server_cpu_s: Callable[[], float],
        beside_cpu_s: Callable[[], float] = lambda: 0.0,
        begun_s: float | None = None,
    ) -> LoadResult:
        """Receive what was stored before, until `messages` have come, the time is up or all answers are over.

        The time counts from `begun_s` on (`time.perf_counter`), when it was asked for; the first one's wait is in it.
        Raises: CheckFailed, PeerFailed
        """
        start = self._snapshot(server_cpu_s, beside_cpu_s)
        if begun_s is not None:
            start = replace(start, time_s=begun_s, delivered=0)
        deadline = time.perf_counter() + seconds
        while self.delivered() < messages and time.perf_counter() < deadline:
            if all([receiver.has_ended for receiver in self._receivers]):
                break
            self.turn(0.1)
        return self._result(start, self._snapshot(server_cpu_s, beside_cpu_s))

    def _result(self, start: _Snapshot, end: _Snapshot) -> LoadResult:
        server, load = end.server_cpu_s - start.server_cpu_s, end.load_cpu_s - start.load_cpu_s
        return LoadResult(
            messages=end.delivered - start.delivered,
            seconds=end.time_s - start.time_s,
            server_cpu_s=server,
            load_cpu_s=load,
            other_cpu_s=max(0.0, end.other_cpu_s - start.other_cpu_s - server - load),
            sent=sum(publisher.sent for publisher in self._publishers),
        )

    def _snapshot(self, server_cpu_s: Callable[[], float], beside_cpu_s: Callable[[], float]) -> _Snapshot:
        return _Snapshot(
            time_s=time.perf_counter(),
            delivered=self.delivered(),
            server_cpu_s=server_cpu_s(),
            load_cpu_s=time.process_time(),
            other_cpu_s=machine_cpu_s() - beside_cpu_s(),
        )

    def _turn_until(self, deadline: float, messages_max: int | None) -> None:
        clock = time.perf_counter
        while (now := clock()) < deadline:
            if messages_max is not None and self.delivered() >= messages_max:
                return
            self.turn(min(0.1, deadline - now))

    def turn(self, timeout_s: float) -> None:
        """One wait, and all that it brought."""
        for descriptor, mask in self._epoll.poll(timeout_s):
            endpoint = self._endpoints[descriptor]
            if mask & ~select.EPOLLOUT:
                endpoint.on_readable(self._buffer, self._view)
            if mask & select.EPOLLOUT:
                endpoint.on_writable()
            self._watch(descriptor, endpoint)
        for publisher in self._publishers:
            publisher.pump()
            self._watch(publisher.socket.fileno(), publisher)

    def _watch(self, descriptor: int, endpoint: Endpoint) -> None:
        if endpoint.is_blocked and descriptor not in self._writable_watched:
            self._epoll.modify(descriptor, select.EPOLLIN | select.EPOLLOUT)
            self._writable_watched.add(descriptor)
        elif not endpoint.is_blocked and descriptor in self._writable_watched:
            self._epoll.modify(descriptor, select.EPOLLIN)
            self._writable_watched.discard(descriptor)

    def drain(self) -> None:
        """Stop publishing and wait until all that was sent has come.

        Raises: CheckFailed when it does not.
        """
        for publisher in self._publishers:
            publisher.is_stopped = True
        deadline = time.perf_counter() + DRAIN_TIMEOUT_S
        while not all(publisher.is_drained for publisher in self._publishers):
            if time.perf_counter() > deadline:
                late = next(publisher for publisher in self._publishers if not publisher.is_drained)
                raise CheckFailed(f"{late.name}: loss: after {DRAIN_TIMEOUT_S:.0f} s only {late.behind} had come")
            self.turn(0.1)
        self.turn(REPEAT_WAIT_S)  # a repeat of the last messages would come now

    def fill(self, messages: int, timeout_s: float) -> None:
        """Let each publisher send until it has sent `messages` in all, and wait until all have come.

        Raises: CheckFailed, PeerFailed
        """
        for publisher in self._publishers:
            publisher.sent_max = messages
            publisher.pump()
        deadline = time.perf_counter() + timeout_s
        while not all(publisher.sent == messages and publisher.is_drained for publisher in self._publishers):
            if time.perf_counter() > deadline:
                raise CheckFailed(f"after {timeout_s:.0f} s only {self.delivered():,} messages had come")
            self.turn(0.1)

    def close(self) -> None:
        """Close all sockets."""
        self._epoll.close()
        for endpoint in self._endpoints.values():
            endpoint.socket.close()
