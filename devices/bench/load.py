"""The loop that loads a server: publishers and receivers on non-blocking sockets, one epoll, one thread.

A publisher is at most a window ahead of the slowest that must follow it, so a server that is slower than the generator
is measured at its own pace and has no reason to drop. Counting starts after a warm-up and ends before the drain, in
which everything sent must still arrive.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import psutil

from devices.bench.checks import (
    CheckFailed,
    EventScanner,
    ManyPublishersChecker,
    PubackChecker,
    PublishChecker,
    encode_pubacks,
)
from devices.bench.frames import PublishLayout
from devices.bench.wire import RECEIVE_BUFFER_BYTES, PeerFailed

DRAIN_TIMEOUT_S = 10.0
REPEAT_WAIT_S = 0.02
PUBACK_BYTES = 4


class Block(Protocol):
    """PublishBlock or EventBlock."""

    rows: int

    def stamp(self, sequence: int, count: int) -> tuple[memoryview, int]: ...


class Endpoint:
    """One non-blocking socket with bytes that wait to be sent."""

    def __init__(self, connection: socket.socket, name: str) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.name = name
        self.is_blocked = False
        self._unsent: memoryview | None = None

    def send(self, data: memoryview) -> bool:
        """Send; False when the socket took less, the rest then goes by `resume`."""
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise PeerFailed(f"{self.name}: the server closed the connection ({error})") from error
        if sent == len(data):
            self._unsent = None
            self.is_blocked = False
            return True
        self._unsent = data[sent:]
        self.is_blocked = True
        return False

    def resume(self) -> bool:
        """Go on with what `send` left; True when all has gone."""
        return self._unsent is None or self.send(self._unsent)

    def receive(self, buffer: memoryview) -> int:
        """Bytes received into `buffer`, 0 when there are none now."""
        try:
            count = self.socket.recv_into(buffer)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise PeerFailed(f"{self.name}: the server closed the connection ({error})") from error
        if count == 0:
            raise PeerFailed(f"{self.name}: the server closed the connection")
        return count

    def on_readable(self, buffer: bytearray, view: memoryview) -> None:
        """Take what arrived; `buffer` is shared by all endpoints of a loop."""
        raise NotImplementedError

    def on_writable(self) -> None:
        """The socket takes bytes again."""
        self.resume()


class Receiver(Endpoint):
    """An endpoint that counts messages."""

    def received(self) -> int:
        """Messages that came, checked."""
        raise NotImplementedError


class Subscriber(Receiver):
    """Receives PUBLISH packets, checks each, acknowledges QoS 1."""

    def __init__(
        self,
        connection: socket.socket,
        name: str,
        layout: PublishLayout,
        checker: PublishChecker | ManyPublishersChecker | None = None,
    ) -> None:
        super().__init__(connection, name)
        self._layout = layout
        self.checker = checker or PublishChecker(layout, name)
        self._tail = b""
        self._acknowledgements = bytearray()

    def received(self) -> int:
        return self.checker.received

    def on_readable(self, buffer: bytearray, view: memoryview) -> None:
        tail_bytes = len(self._tail)
        view[:tail_bytes] = self._tail
        have = tail_bytes + self.receive(view[tail_bytes:])
        layout = self._layout
        rows, rest = divmod(have, layout.frame_bytes)
        if rows:
            self.checker.check(buffer, rows)
            if layout.packet_id_offset is not None:
                self._acknowledgements += encode_pubacks(layout.field(buffer, layout.packet_id_offset, ">u2", 0, rows))
                if not self.is_blocked:
                    self.on_writable()
        self._tail = bytes(view[have - rest : have])

    def on_writable(self) -> None:
        if self.resume() and self._acknowledgements:
            acknowledgements, self._acknowledgements = self._acknowledgements, bytearray()
            self.send(memoryview(acknowledgements))


class EventReader(Receiver):
    """Receives a stream of SSE events, with or without HTTP's chunks around them, and checks each."""

    def __init__(self, connection: socket.socket, name: str, *, body: bytes = b"", is_chunked: bool = False) -> None:
        super().__init__(connection, name)
        self._scanner = EventScanner(name)
        self._is_chunked = is_chunked
        self._chunk_left = 0
        self._chunk_head = b""
        if body:
            self._take(bytearray(body), 0, len(body))

    def received(self) -> int:
        return self._scanner.received

    def on_readable(self, buffer: bytearray, view: memoryview) -> None:
        self._take(buffer, 0, self.receive(view))

    def _take(self, buffer: bytearray, position: int, end: int) -> None:
        if not self._is_chunked:
            self._scanner.feed(buffer, position, end)
            return
        while position < end:
            if self._chunk_left == 0:
                position = self._read_chunk_head(buffer, position, end)
                continue
            piece_end = min(end, position + self._chunk_left)
            self._scanner.feed(buffer, position, piece_end)
            self._chunk_left -= piece_end - position
            position = piece_end

    def _read_chunk_head(self, buffer: bytearray, position: int, end: int) -> int:
        """Take the line end of the last chunk and the size line of the next; the position behind it."""
        line_end = buffer.find(b"\n", position, end)
        if line_end < 0:
            self._chunk_head += buffer[position:end]
            return end
        line = (self._chunk_head + buffer[position:line_end]).strip()
        self._chunk_head = b""
        if line:
            try:
                self._chunk_left = int(line, 16)
            except ValueError:
                raise CheckFailed(f"{self.name}: not a chunk size: {line[:40]!r}") from None
            if self._chunk_left == 0:
                raise PeerFailed(f"{self.name}: the server ended the stream")
        return line_end + 1


class Publisher(Endpoint):
    """Sends stamped blocks as fast as its window lets it."""

    def __init__(self, connection: socket.socket, name: str, block: Block, *, window: int, is_acked: bool) -> None:
        super().__init__(connection, name)
        self.sent = 0
        self.is_stopped = False
        self.sent_max: int | None = None
        """Never send more than so many messages in all."""
        self.checker = PubackChecker(name)
        self._block = block
        self._window = window
        # Without acknowledgements, waiting for a quarter of the window keeps sends big: the server's pace is measured,
        # not a ping-pong. With them each answer is followed at once: a pause would meet peers' Nagle (40 ms a stall).
        self._burst_min = 1 if is_acked else max(1, window // 4)
        self._is_acked = is_acked
        self._followers: list[Callable[[], int]] = [self._acked] if is_acked else []
        self._tail = b""

    def _acked(self) -> int:
        return self.checker.received

    def is_followed_by(self, received: Callable[[], int]) -> None:
        """Stay at most a window ahead of `received()` too."""
        self._followers.append(received)

    @property
    def is_drained(self) -> bool:
        """All that was sent has been acknowledged and received."""
        return not self.is_blocked and all(follower() == self.sent for follower in self._followers)

    @property
    def behind(self) -> str:
        """What is still missing, for a failure's text."""
        return ", ".join(str(follower()) for follower in self._followers) + f" of {self.sent}"

    def pump(self) -> None:
        """Send until the window is shut or the socket is full."""
        if self.is_blocked or self.is_stopped:
            return
        limit = self._window + min([follower() for follower in self._followers])
        if self.sent_max is not None:
            limit = min(limit, self.sent_max)
        if limit - self.sent >= self._burst_min or limit == self.sent_max:
            self.send_until(limit)

    def send_until(self, sequence: int) -> None:
        """Send the messages below `sequence` that have not been sent, as many as the socket takes."""
        while not self.is_blocked and self.sent < sequence:
            data, count = self._block.stamp(self.sent, sequence - self.sent)
            self.sent += count
            self.send(data)

    def on_writable(self) -> None:
        if self.resume():
            self.pump()

    def on_readable(self, buffer: bytearray, view: memoryview) -> None:
        tail_bytes = len(self._tail)
        view[:tail_bytes] = self._tail
        have = tail_bytes + self.receive(view[tail_bytes:])
        rows, rest = divmod(have, PUBACK_BYTES)
        if rows:
            self.checker.check(buffer, rows)
        self._tail = bytes(view[have - rest : have])


@dataclass(frozen=True)
class LoadResult:
    """What a run measured."""

    messages: int
    """Delivered messages (acknowledged ones when nobody receives) within the measured time."""
    seconds: float
    server_cpu_s: float
    load_cpu_s: float
    other_cpu_s: float
    """CPU time that the machine spent on neither of them: what makes a figure doubtful."""
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
    machine_cpu_s: float


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
        self, *, warm_up_s: float, seconds: float, server_cpu_s: Callable[[], float], messages_max: int | None = None
    ) -> LoadResult:
        """Load the server and check all that comes back.

        `messages_max`: also stop when so many have been delivered.
        Raises: CheckFailed, PeerFailed
        """
        for publisher in self._publishers:
            publisher.pump()
        self._turn_until(time.perf_counter() + warm_up_s, messages_max)
        start = self._snapshot(server_cpu_s)
        self._turn_until(start.time_s + seconds, messages_max)
        end = self._snapshot(server_cpu_s)
        self.drain()
        server, load = end.server_cpu_s - start.server_cpu_s, end.load_cpu_s - start.load_cpu_s
        return LoadResult(
            messages=end.delivered - start.delivered,
            seconds=end.time_s - start.time_s,
            server_cpu_s=server,
            load_cpu_s=load,
            other_cpu_s=max(0.0, end.machine_cpu_s - start.machine_cpu_s - server - load),
            sent=sum(publisher.sent for publisher in self._publishers),
        )

    def _snapshot(self, server_cpu_s: Callable[[], float]) -> _Snapshot:
        return _Snapshot(
            time_s=time.perf_counter(),
            delivered=self.delivered(),
            server_cpu_s=server_cpu_s(),
            load_cpu_s=time.process_time(),
            machine_cpu_s=machine_cpu_s(),
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
