"""The two ends of a load on non-blocking sockets: publishers that send stamped blocks, receivers that check what comes.

A publisher is at most a window ahead of the slowest that must follow it, so a server that is slower than the generator
is measured at its own pace and has no reason to drop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from devices.bench.checks import (
    CheckFailed,
    EventScanner,
    PubackChecker,
    PublishChecker,
    encode_pubacks,
)
from devices.bench.frames import PublishLayout
from devices.bench.wire import Connection, PeerFailed

PUBACK_BYTES = 4
FOLLOWERS_SHOWN = 4


class Scanner(Protocol):
    """EventScanner or NumberCollector."""

    @property
    def received(self) -> int: ...

    def feed(self, data: bytearray, start: int, end: int) -> None: ...


class Block(Protocol):
    """PublishBlock or EventBlock."""

    rows: int

    def stamp(self, sequence: int, count: int) -> tuple[memoryview, int]: ...


class Endpoint:
    """One non-blocking socket with bytes that wait to be sent."""

    def __init__(self, connection: Connection, name: str) -> None:
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


class Checker(Protocol):
    """What a subscriber's messages are held against."""

    @property
    def received(self) -> int: ...

    def check(self, buffer: bytearray, rows: int) -> None: ...


class Receiver(Endpoint):
    """An endpoint that counts messages."""

    has_ended = False
    """No more will come; true of an export alone."""

    def received(self) -> int:
        """Messages that came, checked."""
        raise NotImplementedError


class Subscriber(Receiver):
    """Receives PUBLISH packets, checks each, acknowledges QoS 1."""

    def __init__(
        self,
        connection: Connection,
        name: str,
        layout: PublishLayout,
        checker: Checker | None = None,
    ) -> None:
        super().__init__(connection, name)
        self._layout = layout
        self.checker: Checker = checker or PublishChecker(layout, name)
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

    def __init__(
        self,
        connection: Connection,
        name: str,
        *,
        body: bytes = b"",
        is_chunked: bool = False,
        scanner: Scanner | None = None,
    ) -> None:
        super().__init__(connection, name)
        self._scanner = scanner or EventScanner(name)
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
                self._on_end()
        return line_end + 1

    def _on_end(self) -> None:
        raise PeerFailed(f"{self.name}: the server ended the stream")


class ExportReader(EventReader):
    """Receives an export, in which one number stands in each record as in an event's payload, to its end."""

    def _on_end(self) -> None:
        self.has_ended = True


class Publisher(Endpoint):
    """Sends stamped blocks as fast as its window lets it."""

    def __init__(self, connection: Connection, name: str, block: Block, *, window: int, is_acked: bool) -> None:
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
        counts = [follower() for follower in self._followers]
        came = ", ".join(map(str, counts)) if len(counts) <= FOLLOWERS_SHOWN else f"{min(counts)} to {max(counts)}"
        return f"{came} of {self.sent}"

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
